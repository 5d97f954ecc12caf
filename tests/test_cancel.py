"""Cancellation, timeouts, and servers that go away."""

import asyncio
import select
import time

import psycopg2
import psycopg2.extensions
import pytest
from support import activity, fetch, greeting, listener, underway, until

SLEEP = "SELECT pg_sleep(30)"


async def busy(conn, side=None, sql=SLEEP):
    """A task in which `sql` runs, by now on the server as well if `side` looks; and its cursor."""
    cursor = await conn.cursor()
    task = await underway(conn, cursor.execute(sql))
    if side is not None:
        pid = conn.raw.get_backend_pid()
        await until(lambda: activity(side, pid) == ("active", sql))
    return task, cursor


async def stopped(side, pid):
    """Wait until the server runs nothing for that backend."""

    def idle():
        now = activity(side, pid)
        return now is None or now[0] != "active"

    await until(idle)


async def longest_pause(seconds):
    """The longest time in seconds for which the event loop did not turn."""
    longest, last = 0.0, time.monotonic()
    end = last + seconds
    while last < end:
        await asyncio.sleep(0.001)
        now = time.monotonic()
        longest, last = max(longest, now - last), now
    return longest


def terminate(side, pid):
    with side.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s)", (pid,))


# --- the task is cancelled, or out of time --------------------------------------------------------


@pytest.mark.all_loops
async def test_cancel_closes_the_connection(connect):
    conn = await connect()
    task, _ = await busy(conn)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert conn.closed
    with pytest.raises(psycopg2.InterfaceError):
        await conn.cursor()


@pytest.mark.all_loops
async def test_timeout_closes_the_connection(connect):
    conn = await connect()
    cursor = await conn.cursor()
    start = time.monotonic()
    with pytest.raises(asyncio.TimeoutError):
        await cursor.execute(SLEEP, timeout=0.1)
    assert 0.09 < time.monotonic() - start < 5
    assert conn.closed
    assert cursor.closed


async def test_timeout_of_callproc(connect):
    conn = await connect()
    cursor = await conn.cursor()
    with pytest.raises(asyncio.TimeoutError):
        await cursor.callproc("pg_sleep", [30], timeout=0.05)
    assert conn.closed


@pytest.mark.all_loops
async def test_timeout_of_the_connection(connect):
    conn = await connect(timeout=0.5)
    assert await fetch(conn, "SELECT 1") == [(1,)]
    with pytest.raises(asyncio.TimeoutError):
        await fetch(conn, SLEEP)
    assert conn.closed


async def test_timeout_counts_each_statement_anew(connect):
    conn = await connect()
    cursor = await conn.cursor(timeout=1.5)
    for _ in range(5):
        await cursor.execute("SELECT pg_sleep(0.32)")
    assert not conn.closed


@pytest.mark.all_loops
async def test_short_timeout_after_a_long_one(connect):
    """One deadline serves a connection: it must also come nearer, and go away."""
    conn = await connect(timeout=60)
    cursor = await conn.cursor()
    await cursor.execute("SELECT pg_sleep(0.01)", timeout=0.4)
    await cursor.execute("SELECT pg_sleep(0.5)", timeout=30)
    assert not conn.closed
    start = time.monotonic()
    with pytest.raises(asyncio.TimeoutError):
        await cursor.execute(SLEEP, timeout=0.1)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("timeout", [0, -1, 1e-9])
async def test_no_time_at_all(connect, timeout):
    conn = await connect()
    cursor = await conn.cursor()
    with pytest.raises(asyncio.TimeoutError):
        await cursor.execute(SLEEP, timeout=timeout)
    assert conn.closed


async def test_no_time_for_what_is_about_to_be_prepared(connect):
    """What is asked behind it, of the server and for later, is not told."""
    conn = await connect()
    cursor = await conn.cursor()
    for _ in range(4):
        await cursor.execute("SELECT pg_sleep(%s)", (0,))
    with pytest.raises(asyncio.TimeoutError):
        await cursor.execute("SELECT pg_sleep(%s)", (30,), timeout=0)
    assert conn.closed


async def test_asyncio_wait_for(connect):
    conn = await connect()
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(fetch(conn, SLEEP), 0.1)
    assert conn.closed


async def test_waiting_for_notifies_is_not_a_query(connect):
    conn = await connect(timeout=1)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(conn.notifies.get(), 1.2)
    assert not conn.closed
    assert await fetch(conn, "SELECT 1") == [(1,)]


async def test_cancel_before_the_first_step(connect):
    conn = await connect()
    cursor = await conn.cursor()
    task = asyncio.create_task(cursor.execute(SLEEP))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not conn.closed, "nothing was sent"
    assert await fetch(conn, "SELECT 1") == [(1,)]


async def test_cancel_after_the_answer(connect):
    """The answer is here, but the task has not run since: cancelled all the same."""
    conn = await connect()
    task, _ = await busy(conn, sql="SELECT pg_sleep(0.1)")
    assert select.select([conn.raw], [], [], 10)[0], "the loop must not see the answer"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.all_loops
@pytest.mark.parametrize("how", ["cancel", "timeout"])
async def test_server_stops_working(ours, connect, side, how):
    conn = await connect()
    pid = await conn.get_backend_pid()
    if how == "cancel":
        task, _ = await busy(conn, side)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        with pytest.raises(asyncio.TimeoutError):
            await fetch_with_timeout(conn, SLEEP, 0.1)
    await stopped(side, pid)


async def fetch_with_timeout(conn, sql, timeout):
    cursor = await conn.cursor()
    await cursor.execute(sql, timeout=timeout)


async def test_cancel_does_not_block_the_loop(ours, connect, side):
    conn = await connect()
    pid = await conn.get_backend_pid()
    task, _ = await busy(conn, side)
    watch = asyncio.create_task(longest_pause(0.5))
    await asyncio.sleep(0.05)
    task.cancel()
    start = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - start < 2, "the cancelled task waits for nobody"
    assert await watch < 2
    await stopped(side, pid)


async def test_cancel_with_a_deaf_server(ours):
    """The cancel request meets a listener that never answers: nobody waits for it."""
    silent = asyncio.Event()

    async def serve(reader, writer):
        startup = await reader.readexactly(8)
        if startup[4:] == b"\x04\xd2\x16\x2e":  # a cancel request
            await silent.wait()
            return
        await reader.read(4096)
        writer.write(greeting())
        await reader.read(4096)
        await silent.wait()

    async with listener(serve) as port:
        conn = await ours.connect(
            host="127.0.0.1", port=port, user="me", sslmode="disable", enable_hstore=False
        )
        task, _ = await busy(conn)
        watch = asyncio.create_task(longest_pause(0.4))
        start = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - start < 2
        assert conn.closed
        assert await watch < 2
        silent.set()


async def test_cancel_while_writing(ours, connect, side):
    """16 MB on their way to the server when the task is cancelled."""
    conn = await connect()
    pid = await conn.get_backend_pid()
    cursor = await conn.cursor()
    text = "x" * (16 << 20)
    task = asyncio.create_task(cursor.execute("SELECT pg_sleep(30), length(%s)", (text,)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert conn.closed
    await stopped(side, pid)


@pytest.mark.all_loops
async def test_cancel_overtakes_the_query(ours, dsn, side):
    """A server ignores a request that comes before it has read the query: it is asked again."""
    asked = asyncio.Event()
    connections = set()

    async def pass_on(reader, writer):
        while data := await reader.read(65536):
            if b"pg_sleep" in data:
                await asked.wait()
            writer.write(data)
        writer.write_eof()

    async def serve(reader, writer):
        connections.add(writer)
        server = await asyncio.open_connection("127.0.0.1", side.info.port)
        await asyncio.gather(pass_on(reader, server[1]), pass_on(server[0], writer))
        server[1].close()
        await server[1].wait_closed()
        asked.set()  # the connection of the request is the first to end
        connections.remove(writer)

    async with listener(serve) as proxy:
        conn = await ours.connect(dsn, host="127.0.0.1", port=proxy)
        pid = await conn.get_backend_pid()
        task, _ = await busy(conn)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: activity(side, pid) is None)
        await until(lambda: not connections)


async def test_cancelled_transaction_is_rolled_back(connect, side):
    conn = await connect()
    with side.cursor() as look:
        look.execute("CREATE TABLE undone (i int)")
        try:
            cursor = await conn.cursor()
            with pytest.raises(asyncio.TimeoutError):
                async with cursor.begin():
                    await cursor.execute("INSERT INTO undone VALUES (1)")
                    await cursor.execute("SELECT pg_sleep(0.4)", timeout=0.1)
            look.execute("SELECT count(*) FROM undone")
            assert look.fetchone() == (0,)
        finally:
            look.execute("DROP TABLE undone")


@pytest.mark.all_loops
async def test_storm(ours, connect, side):
    """Cancelled at any step: a connection comes out usable or closed, and nothing runs on."""
    pids = []
    for delay in (None, 0, 0.0005, 0.001, 0.002, 0.004):
        conn = await connect()
        pids.append(await conn.get_backend_pid())
        task = asyncio.create_task(fetch(conn, "SELECT pg_sleep(0.002)"))
        if delay is not None:
            await asyncio.sleep(delay)
        task.cancel()
        await asyncio.wait([task])
        if not conn.closed:
            assert await fetch(conn, "SELECT 1") == [(1,)]
    for pid in pids:
        await stopped(side, pid)


# --- the server cancels ---------------------------------------------------------------------------


@pytest.mark.all_loops
async def test_cancelled_by_the_server(connect, loop_errors):
    """aiopg turns QueryCanceledError into CancelledError and tells the exception handler."""
    conn = await connect()
    cursor = await conn.cursor()
    with pytest.raises(asyncio.CancelledError):
        await cursor.execute(f"SET statement_timeout = 50; {SLEEP}")  # for this one alone
    (context,) = loop_errors
    assert isinstance(context["exception"], psycopg2.extensions.QueryCanceledError)
    assert context["message"] == context["exception"].pgerror
    assert isinstance(context["future"], asyncio.Future)
    assert "statement timeout" in context["message"]
    loop_errors.clear()
    assert not conn.closed
    await cursor.execute("SELECT 1")
    assert await cursor.fetchone() == (1,)


async def test_cancelled_from_outside(connect, side, loop_errors):
    conn = await connect()
    task, cursor = await busy(conn, side)
    with side.cursor() as other:
        other.execute("SELECT pg_cancel_backend(%s)", (await conn.get_backend_pid(),))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "user request" in loop_errors.pop()["message"]
    await cursor.execute("SELECT 1")


# --- the server goes away -------------------------------------------------------------------------


@pytest.mark.all_loops
async def test_killed_while_idle(connect, side):
    conn = await connect()
    terminate(side, await conn.get_backend_pid())
    await until(lambda: conn.closed)
    with pytest.raises(psycopg2.InterfaceError):
        await fetch(conn, "SELECT 1")


@pytest.mark.all_loops
async def test_killed_while_waiting_for_notifies(connect, side):
    conn = await connect()
    task = asyncio.create_task(conn.notifies.get())
    await asyncio.sleep(0.01)
    terminate(side, await conn.get_backend_pid())
    with pytest.raises(psycopg2.OperationalError):
        await asyncio.wait_for(task, 10)
    assert conn.closed


@pytest.mark.all_loops
async def test_killed_while_busy(connect, side):
    conn = await connect()
    task, _ = await busy(conn, side)
    terminate(side, await conn.get_backend_pid())
    with pytest.raises(psycopg2.OperationalError, match="due to administrator command"):
        await asyncio.wait_for(task, 10)
    await until(lambda: conn.closed)


@pytest.mark.all_loops
@pytest.mark.parametrize("delay", [0, 0.001, 0.003, 0.02])
async def test_killed_just_before_a_query(ours, connect, side, delay):
    """The server's last words and the end of the stream are here, unread, when we send.

    aiopg may wait for ever on uvloop, which reports such a socket only once.
    """
    for _ in range(5):
        conn = await connect(enable_hstore=False)
        cursor = await conn.cursor()
        terminate(side, await conn.get_backend_pid())
        time.sleep(delay)  # noqa: ASYNC251 - the loop must not see it
        # where wait_for() makes a task, the loop may see it first: "cursor already closed"
        with pytest.raises((psycopg2.OperationalError, psycopg2.InterfaceError)):
            await asyncio.wait_for(cursor.execute("SELECT 1"), 10)
        assert conn.closed


async def test_killed_by_its_own_query(connect):
    conn = await connect()
    with pytest.raises(psycopg2.OperationalError):
        await fetch(conn, "SELECT pg_terminate_backend(pg_backend_pid())")
    await until(lambda: conn.closed)


async def test_idle_in_transaction_timeout(connect):
    conn = await connect()
    cursor = await conn.cursor()
    await cursor.execute("SET idle_in_transaction_session_timeout = 50; BEGIN")
    await until(lambda: conn.closed)


async def test_server_vanishes_without_a_word(impl):
    """The stream ends in the middle of an answer."""

    async def serve(reader, writer):
        await reader.read(4096)
        writer.write(greeting())
        await reader.read(4096)
        writer.write(b"T\0\0")

    async with listener(serve) as port:
        conn = await impl.connect(
            host="127.0.0.1", port=port, user="me", sslmode="disable", enable_hstore=False
        )
        with pytest.raises(psycopg2.OperationalError, match="closed the connection unexpectedly"):
            await asyncio.wait_for(fetch(conn, "SELECT 1"), 5)
        await until(lambda: conn.closed)


# --- someone else has the psycopg2 connection in hand ---------------------------------------------


@pytest.mark.all_loops
async def test_raw_closed_behind_our_back(connect):
    conn = await connect()
    cursor = await conn.cursor()
    conn.raw.close()
    assert conn.closed
    with pytest.raises(psycopg2.InterfaceError):
        await cursor.execute("SELECT 1")
    await asyncio.sleep(0.01)
    await conn.close()


@pytest.mark.all_loops
async def test_raw_closed_during_a_query(ours, connect):
    """A freed PGconn must not be touched. The socket tells nothing; aiopg waits for its timeout."""
    conn = await connect()
    task, _ = await busy(conn)
    conn.raw.close()
    with pytest.raises(psycopg2.OperationalError, match="Connection closed"):
        await asyncio.wait_for(task, 10)
    assert conn.closed
    await conn.close()


async def test_raw_cursor_used_by_hand(connect):
    """As psycopg2's own examples do: execute, then poll until ready."""
    conn = await connect()
    raw = conn.raw.cursor()
    raw.execute("SELECT 42")
    await until(lambda: not conn.raw.isexecuting() or poll(conn.raw))
    assert raw.fetchall() == [(42,)]
    assert await fetch(conn, "SELECT 1") == [(1,)]


def poll(raw):
    return raw.poll() == psycopg2.extensions.POLL_OK


async def test_raw_cursor_is_left_to_the_loop(connect):
    """The loop's reader alone brings the result: nobody else calls poll()."""
    conn = await connect()
    raw = conn.raw.cursor()
    raw.execute("SELECT pg_sleep(0.05), 42")
    await until(lambda: not conn.raw.isexecuting())
    assert raw.fetchall() == [("", 42)]
    assert await fetch(conn, "SELECT 1") == [(1,)]


async def test_execute_while_raw_is_busy(connect):
    conn = await connect()
    raw = conn.raw.cursor()
    cursor = await conn.cursor()
    raw.execute("SELECT pg_sleep(0.05)")
    with pytest.raises(psycopg2.ProgrammingError, match="an asynchronous query is underway"):
        await cursor.execute("SELECT 1")
    await until(lambda: not conn.raw.isexecuting())
    await cursor.execute("SELECT 2")
    assert await cursor.fetchone() == (2,)
