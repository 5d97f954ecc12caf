"""Event loops, threads and processes; large transfers; classes that are patched and subclassed."""

import asyncio
import os
import signal
import threading
import time
from unittest import mock

import psycopg2
import pytest
from support import activity, fetch, new_loop, shut_down, until

# --- large transfers ------------------------------------------------------------------------------


@pytest.mark.all_loops
async def test_large_query(connect):
    """16 MB that don't fit into the socket's buffer: the writer's way."""
    conn = await connect()
    text = "é" * (8 << 20)
    assert await fetch(conn, "SELECT length(%s), md5(%s) = md5(%s)", (text, "a", "a")) == [
        (8 << 20, True)
    ]
    assert await fetch(conn, "SELECT 1") == [(1,)]


@pytest.mark.all_loops
async def test_large_result(connect):
    conn = await connect()
    rows = await fetch(conn, "SELECT n, repeat('x', 1000) FROM generate_series(1, 50000) n")
    assert len(rows) == 50_000
    assert rows[-1] == (50_000, "x" * 1000)


async def test_large_value(connect):
    conn = await connect()
    ((value,),) = await fetch(conn, "SELECT repeat('0123456789', 5000000)")
    assert len(value) == 50_000_000
    assert value[-10:] == "0123456789"


async def test_large_both_ways(connect):
    """The server answers while we still write: neither side may wait for the other for ever."""
    conn = await connect()
    statement = "SELECT repeat('y', 1000);" * 20_000
    assert await fetch(conn, statement + "SELECT %s", ("x" * (4 << 20),)) == [("x" * (4 << 20),)]


@pytest.mark.all_loops
async def test_large_result_is_no_monopoly(connect):
    """Other tasks have their turn while a result comes in."""
    conn, other = await connect(), await connect()
    task = asyncio.create_task(
        fetch(conn, "SELECT repeat('x', 1000) FROM generate_series(1, 20000)")
    )
    answers = 0
    while not task.done():
        await fetch(other, "SELECT 1")
        answers += 1
    assert len(await task) == 20_000
    assert answers > 3


# --- many tasks -----------------------------------------------------------------------------------


@pytest.mark.all_loops
async def test_one_connection_by_turns(connect):
    conn = await connect()
    lock = asyncio.Lock()

    async def ask(n):
        async with lock:
            return await fetch(conn, "SELECT %s", (n,))

    assert await asyncio.gather(*(ask(n) for n in range(200))) == [[(n,)] for n in range(200)]


@pytest.mark.all_loops
async def test_many_connections_side_by_side(connect):
    connections = [await connect() for _ in range(5)]

    async def ask(conn, base):
        return [(await fetch(conn, "SELECT %s", (base + n,)))[0][0] for n in range(100)]

    got = await asyncio.gather(*(ask(conn, i * 1000) for i, conn in enumerate(connections)))
    assert got == [[i * 1000 + n for n in range(100)] for i in range(5)]


@pytest.mark.all_loops
async def test_slow_reader_of_the_loop(connect):
    """The answer is complete before the loop looks: all of it in one go."""
    conn = await connect()
    task = asyncio.create_task(fetch(conn, "SELECT generate_series(1, 1000)"))
    await asyncio.sleep(0)
    time.sleep(0.05)  # noqa: ASYNC251 - the loop must not turn
    assert len(await task) == 1000


async def test_queries_leave_no_handles(connect):
    """Nothing piles up in the loop's timers with each query."""
    conn = await connect()
    loop = asyncio.get_running_loop()
    if not hasattr(loop, "_scheduled"):
        pytest.skip("this loop does not show its timers")
    for _ in range(300):
        await fetch(conn, "SELECT 1")
    assert len([h for h in loop._scheduled if not h.cancelled()]) <= 2


# --- elsewhere ------------------------------------------------------------------------------------


async def opened(impl, dsn):
    return await impl.connect(dsn)


async def cursor_of(conn):
    return await conn.cursor()


async def closed(conn):
    await conn.close()


@pytest.mark.all_loops
async def test_other_thread(ours, connect, loop_kind):
    conn = await connect()
    cursor = await conn.cursor()

    async def execute():
        await cursor.execute("SELECT 1")

    def use():
        loop = new_loop(loop_kind)
        try:
            loop.run_until_complete(execute())
        finally:
            shut_down(loop)

    with pytest.raises(RuntimeError, match="loop"):
        await asyncio.wait_for(asyncio.to_thread(use), 10)
    assert await fetch(conn, "SELECT 1") == [(1,)]


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_other_loop(ours, dsn, kind):
    """A connection made in one asyncio.run() and used in the next."""
    first, second = new_loop(kind), new_loop(kind)
    conn = first.run_until_complete(opened(ours, dsn))
    cursor = first.run_until_complete(cursor_of(conn))
    try:
        with pytest.raises(RuntimeError, match="loop"):
            second.run_until_complete(cursor.execute("SELECT 1"))
        assert first.run_until_complete(fetch(conn, "SELECT 1")) == [(1,)]
    finally:
        first.run_until_complete(closed(conn))
        shut_down(first)
        shut_down(second)


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_close_after_the_loop(impl, dsn, kind):
    """Closing needs no loop that still runs."""
    loop = new_loop(kind)
    conn = loop.run_until_complete(opened(impl, dsn))
    shut_down(loop)
    conn.close()
    assert conn.closed


def in_child(conn, use):
    """What use() does in a forked child: "ok", or the name of its exception."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            use()
            answer = "ok"
        except BaseException as error:
            answer = type(error).__name__
        os.write(writing, answer.encode())
        os.kill(os.getpid(), signal.SIGKILL)
    os.close(writing)
    try:
        return os.read(reading, 100).decode()
    finally:
        os.close(reading)
        os.waitpid(pid, 0)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_after_fork(ours, dsn, kind):
    loop = new_loop(kind)
    conn = loop.run_until_complete(opened(ours, dsn))
    cursor = loop.run_until_complete(cursor_of(conn))

    def use():
        signal.alarm(5)
        executing = cursor.execute("SELECT 1")
        try:
            executing.send(None)
        finally:
            executing.close()

    try:
        assert in_child(conn, use) == "RuntimeError"
        assert loop.run_until_complete(fetch(conn, "SELECT 1")) == [(1,)]
    finally:
        loop.run_until_complete(closed(conn))
        shut_down(loop)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_child_leaves_the_parents_session_alone(ours, dsn):
    """A child that closes or drops a connection must not end the parent's session."""
    loop = new_loop("asyncio")
    conn = loop.run_until_complete(opened(ours, dsn))
    try:
        assert in_child(conn, lambda: signal.alarm(5) or conn.close()) in ("ok", "RuntimeError")
        assert loop.run_until_complete(fetch(conn, "SELECT 1")) == [(1,)]
    finally:
        loop.run_until_complete(closed(conn))
        shut_down(loop)


def test_loops_in_two_threads(impl, dsn):
    results = []

    async def work(n):
        async with impl.connect(dsn) as conn:
            for _ in range(50):
                results.extend(await fetch(conn, "SELECT %s", (n,)))

    threads = [threading.Thread(target=asyncio.run, args=(work(n),)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(results) == [(0,)] * 50 + [(1,)] * 50


async def test_get_running_loop(impl):
    assert impl.get_running_loop() is asyncio.get_running_loop()


# --- patched and subclassed -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["execute", "fetchone", "fetchmany", "fetchall", "callproc"])
async def test_patch_coroutine_methods(impl, connect, name):
    conn = await connect()
    with mock.patch.object(impl.Cursor, name) as patched:
        assert isinstance(patched, mock.AsyncMock)
        patched.return_value = "patched"
        async with conn.cursor() as cursor:
            assert await getattr(cursor, name)("anything") == "patched"
        patched.assert_awaited_once_with("anything")
    assert await fetch(conn, "SELECT 1") == [(1,)]


async def test_patch_with_autospec(impl, connect):
    conn = await connect()
    with mock.patch.object(impl.Cursor, "execute", autospec=True) as patched:
        async with conn.cursor() as cursor:
            await cursor.execute("SELECT 1", timeout=3)
        patched.assert_awaited_once_with(cursor, "SELECT 1", timeout=3)


async def test_patch_properties(impl, connect):
    conn = await connect()
    for name in "isolation_level", "closed", "notifies":
        with mock.patch.object(impl.Connection, name, new_callable=mock.PropertyMock) as patched:
            patched.return_value = "patched"
            assert getattr(conn, name) == "patched"
    assert conn.closed == 0


async def test_patch_connection_cursor(impl, connect):
    conn = await connect()
    with mock.patch.object(impl.Connection, "cursor") as patched:
        assert conn.cursor(timeout=1) is patched.return_value
        patched.assert_called_once_with(timeout=1)


async def test_wrapped_execute(impl, connect, monkeypatch):
    """What a tracer does."""
    spans = []
    original = impl.Cursor.execute

    async def traced(self, operation, *args, **kwargs):
        spans.append(operation)
        return await original(self, operation, *args, **kwargs)

    monkeypatch.setattr(impl.Cursor, "execute", traced)
    conn = await connect()
    spans.clear()
    assert await fetch(conn, "SELECT %s", (1,)) == [(1,)]
    async with conn.cursor() as cursor, cursor.begin():
        pass
    assert spans == ["SELECT %s", "BEGIN", "COMMIT"]


async def test_patch_connect(impl, dsn):
    with mock.patch.object(impl, "connect") as patched:
        assert impl.connect(dsn) is patched.return_value
    with mock.patch.object(impl.connection, "connect") as patched:
        assert impl.connection.connect(dsn) is patched.return_value


async def test_subclass_of_connection(impl, dsn):
    class Labelled(impl.Connection):
        label = "mine"

        async def _cursor(self, *args, **kwargs):
            self.counted = getattr(self, "counted", 0) + 1
            return await super()._cursor(*args, **kwargs)

    conn = await Labelled(dsn, 10, enable_hstore=False)
    try:
        assert repr(conn).startswith(f"<{__name__}::Labelled ")
        assert conn.label == "mine"
        assert await fetch(conn, "SELECT 1") == [(1,)]
        assert conn.counted == 1
    finally:
        await conn.close()


async def test_connection_by_hand(impl, dsn):
    conn = await impl.Connection(dsn, 5.0, True, False, False, False)
    try:
        assert (conn.timeout, conn.echo) == (5.0, True)
        value = "e9a9b3d2-bb9d-4d2b-a5c2-1a6b1a4c8f7e"
        assert await fetch(conn, "SELECT %s::uuid", (value,)) == [(value,)]
    finally:
        await conn.close()


async def test_cursor_by_hand(impl, connect):
    conn = await connect()
    cursor = impl.Cursor(conn, conn.raw.cursor(), 5.0, False)
    await cursor.execute("SELECT 1")
    assert await cursor.fetchone() == (1,)
    assert cursor.timeout == 5.0
    cursor.close()


async def test_subclass_of_cursor(impl, connect):
    class Shouting(impl.Cursor):
        async def execute(self, operation, parameters=None, **keywords):
            return await super().execute(operation + " || '!'", parameters, **keywords)

    conn = await connect()
    cursor = Shouting(conn, conn.raw.cursor(), 5.0, False)
    await cursor.execute("SELECT %s", ("x",))
    assert await cursor.fetchone() == ("x!",)


class Proxy:
    """What wrapt and tracers put around an object."""

    def __init__(self, wrapped):
        object.__setattr__(self, "_wrapped", wrapped)

    def __getattr__(self, name):
        return getattr(self._wrapped, name)

    def __setattr__(self, name, value):
        setattr(self._wrapped, name, value)


async def test_cursor_over_proxies(impl, connect):
    """No argument is looked at for its exact class."""
    conn = await connect()
    cursor = impl.Cursor(Proxy(conn), conn.raw.cursor(), 5.0, False)
    await cursor.execute("SELECT %s", (1,))
    assert await cursor.fetchall() == [(1,)]


async def test_attributes_of_ones_own(connect):
    conn = await connect()
    conn.label = "mine"
    async with conn.cursor() as cursor:
        cursor.label = "too"
        cursor._transaction = cursor._transaction
        assert (conn.label, cursor.label) == ("mine", "too")


async def test_a_mock_may_stand_for_a_connection(impl):
    conn = mock.create_autospec(impl.Connection, instance=True)
    assert isinstance(conn, impl.Connection)
    cursor = mock.create_autospec(impl.Cursor, instance=True)
    cursor.fetchone.return_value = (1,)
    assert await cursor.fetchone() == (1,)
    assert isinstance(conn.get_backend_pid, mock.AsyncMock)


async def test_descriptors_are_not_watched_after_close(impl, connect, side):
    """A reader left behind would wake the loop for ever."""
    conn = await connect()
    pid = await conn.get_backend_pid()
    await conn.close()
    await until(lambda: activity(side, pid) is None)
    loop = asyncio.get_running_loop()
    if hasattr(loop, "_selector"):
        before = len(loop._selector.get_map())
        other = await impl.connect(psycopg2.extensions.make_dsn(side.dsn))
        assert len(loop._selector.get_map()) == before + 1
        await other.close()
        assert len(loop._selector.get_map()) == before
