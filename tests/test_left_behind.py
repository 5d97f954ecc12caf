"""Connections whose loop, thread or socket went away under them; statements that never end."""

import asyncio
import concurrent.futures
import contextlib
import gc
import os
import time
import warnings
import weakref

import psycopg2
import pytest
from drills import descriptors
from support import activity, busy_socket, fetch, new_loop, underway, until

SLOT = "CREATE_REPLICATION_SLOT left TEMPORARY LOGICAL pgoutput"
STREAM = "START_REPLICATION SLOT left LOGICAL 0/0 (proto_version '1', publication_names 'p')"
# Nothing is asked of the server behind the connect.
PLAIN = {"enable_json": False, "enable_hstore": False, "enable_uuid": False}


async def test_streaming_replication_in_execute(ours, connect):
    """The native road has no use for a stream: it says so, and ends the session."""
    conn = await connect(replication="database", enable_hstore=False)
    cursor = await conn.cursor()
    await cursor.execute(SLOT)
    if ours.capabilities().native:
        with pytest.raises(psycopg2.NotSupportedError, match="PGRES_COPY_BOTH"):
            await cursor.execute(STREAM, timeout=5)
    else:
        await cursor.execute(STREAM, timeout=5)  # as aiopg: the stream is there for `raw`
        conn.close()
    assert conn.closed


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_loop_closed_with_a_query_in_flight(ours, dsn, side, kind):
    """Nothing of ours keeps the connection; it is closed with the last reference."""

    async def start():
        conn = await ours.connect(dsn)
        pid = await conn.get_backend_pid()
        cursor = await conn.cursor()
        task = asyncio.create_task(cursor.execute("SELECT pg_sleep(30)"))
        await asyncio.sleep(0.05)
        task._log_destroy_pending = False
        return weakref.ref(conn), pid

    loop = new_loop(kind)
    loop.set_exception_handler(lambda loop, context: None)
    conn, pid = loop.run_until_complete(start())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        loop.close()
        del loop
        gc.collect()
        assert conn() is None
    asyncio.run(until(lambda: activity(side, pid) is None))


def test_close_in_another_thread_of_the_same_loop(ours, dsn):
    """A loop may be run by one thread after the other; close() takes effect at the call."""
    loop = new_loop("asyncio")
    conn = loop.run_until_complete(opened(ours, dsn))

    async def close():
        conn.close()
        return conn.raw.closed

    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        assert executor.submit(loop.run_until_complete, close()).result() == 1
    loop.close()


@pytest.mark.all_loops
async def test_socket_of_a_raw_closed_connection_is_let_go(ours, dsn):
    """Its number comes back for something else, whose events are then not ours."""
    loop = asyncio.get_running_loop()
    conn = await ours.connect(dsn)
    number = conn.raw.fileno()
    conn.raw.close()
    del conn
    with busy_socket(number) as (mine, other):
        readable = asyncio.Event()
        loop.add_reader(mine, readable.set)
        other.send(b"x")
        await asyncio.wait_for(readable.wait(), 10)
        loop.remove_reader(mine)


@pytest.mark.all_loops
async def test_raw_closed_as_soon_as_it_is_connected(impl, dsn):
    """libuv aborts the process where a socket was closed that it has yet to watch."""
    for _ in range(5):
        conn = await impl.connect(dsn, **PLAIN)
        conn.raw.close()
        await asyncio.sleep(0.01)
        assert conn.closed
        conn.close()


@pytest.mark.all_loops
async def test_raw_closed_by_on_connect(ours, dsn):
    async def on_connect(conn):
        conn.raw.close()

    for _ in range(5):
        with pytest.raises(psycopg2.OperationalError, match="closed"):
            async with ours.create_pool(dsn, on_connect=on_connect, **PLAIN) as pool:
                await pool.acquire()


@pytest.mark.all_loops
@pytest.mark.parametrize("length", [1, 3_000_000])
async def test_raw_closed_in_any_step(ours, connect, length):
    """Of a statement, while it is sent, awaited and read."""
    for turns in range(25):
        conn = await connect()
        cursor = await conn.cursor()
        task = asyncio.create_task(cursor.execute("SELECT %s", ("x" * length,)))
        for _ in range(turns):
            await asyncio.sleep(0)
        conn.raw.close()
        await asyncio.wait([task], timeout=5)
        assert task.done(), turns
        assert task.exception() is None or isinstance(task.exception(), psycopg2.Error), turns


@pytest.mark.all_loops
async def test_raw_closed_while_a_query_is_being_sent(ours, connect):
    """The loop watches the socket for writing, too, and complains when it is taken away."""
    conn = await connect()
    cursor = await conn.cursor()
    task = asyncio.create_task(cursor.execute("SELECT length(%s)", ("x" * 30_000_000,)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    conn.raw.close()
    with pytest.raises(psycopg2.OperationalError, match="Connection closed"):
        await asyncio.wait_for(task, 5)


@pytest.mark.all_loops
async def test_cancel_request_on_the_socket_of_a_raw_closed_connection(ours, connect, side):
    """The request gets the dead connection's descriptor; it must reach the server all the same."""
    dead, conn = await connect(), await connect()
    pid = await conn.get_backend_pid()
    cursor = await conn.cursor()
    with lowest_free_descriptor(dead.raw.fileno()):
        dead.raw.close()
        with pytest.raises(asyncio.TimeoutError):
            await cursor.execute("SELECT pg_sleep(30)", timeout=0.05)
        await until(lambda: activity(side, pid) is None)


async def test_awaited_twice(impl, connect):
    conn = await connect()
    with pytest.raises((RuntimeError, TypeError)):
        await asyncio.wait_for(conn, 10)


async def test_awaited_twice_does_no_harm(ours, connect):
    conn = await connect()
    with pytest.raises(RuntimeError):
        await conn
    async with conn.execute("DO $$ BEGIN RAISE NOTICE 'still here'; END $$"):
        assert conn.notices == ["NOTICE:  still here\n"]


async def test_cancelled_while_a_notification_comes(connect):
    """In one turn of the loop: the task is cancelled, and the notification is for the next."""
    conn = await connect()
    task = asyncio.create_task(conn.notifies.get())
    await asyncio.sleep(0.01)
    task.cancel()
    conn.notifies._queue.put_nowait("news")
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await conn.notifies.get() == "news"


async def test_end_of_the_connection_right_behind_a_notice(impl, connect):
    """Both are read at once: who waits for notifications is told of the end."""
    conn = await connect()
    cursor = await conn.cursor()
    waiting = asyncio.create_task(conn.notifies.get())
    asyncio.get_running_loop().call_soon(time.sleep, 0.2)
    with contextlib.suppress(psycopg2.OperationalError):
        await cursor.execute(
            "SET idle_session_timeout = 20; DO $$ BEGIN RAISE NOTICE 'last'; END $$"
        )
    with pytest.raises(psycopg2.OperationalError):
        await asyncio.wait_for(waiting, 10)
    assert conn.closed


def test_descriptor_of_a_connection_of_a_closed_loop(ours, dsn):
    """The next connection gets its number, and nothing of its trouble."""

    async def wait():
        conn = await ours.connect(dsn)
        task = asyncio.create_task(conn.notifies.get())
        await asyncio.sleep(0.01)
        return conn, task

    first, second = new_loop("asyncio"), new_loop("asyncio")
    conn, task = first.run_until_complete(wait())
    task._log_destroy_pending = False
    first.close()
    number = conn.raw.fileno()
    with lowest_free_descriptor(number):
        conn.raw.close()
        other = second.run_until_complete(opened(ours, dsn))
    numbers = (other.raw.fileno(), number)
    closed = other.closed
    other.close()
    second.close()
    assert numbers[0] == numbers[1]
    assert not closed


@pytest.mark.parametrize("done", [False, True], ids=["before", "behind"])
async def test_interrupted_within_close(ours, dsn, monkeypatch, done):
    """All is closed, and who waits is told."""
    before = descriptors()
    conn = await ours.connect(dsn)
    waiting = await underway(conn, fetch(conn, "SELECT pg_sleep(30)"))
    loop = asyncio.get_running_loop()
    remove_reader = loop.remove_reader

    def interrupted(fd):
        monkeypatch.undo()
        if done:
            remove_reader(fd)
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "remove_reader", interrupted)
    with pytest.raises(KeyboardInterrupt):
        conn.close()
    with pytest.raises(psycopg2.OperationalError):
        await asyncio.wait_for(waiting, 5)
    assert conn.raw.closed
    if done:  # nobody watches it
        del conn, waiting
        gc.collect()
    await until(lambda: descriptors() <= before)


@contextlib.contextmanager
def lowest_free_descriptor(number):
    """All below this one are taken, so that it is given out next when it gets free."""
    below = [os.dup(0)]
    while below[-1] < number:
        below.append(os.dup(0))
    yield
    for descriptor in below:
        os.close(descriptor)


async def opened(ours, dsn):
    return await ours.connect(dsn)
