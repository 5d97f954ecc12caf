"""The pool against a real server; test_pool_order.py has how its waits and connects interleave."""

import asyncio
import collections
import inspect
import threading
import warnings
import weakref

import aiopg
import psycopg2
import pytest
from support import fetch, is_coroutine_function, underway, until

import aiopgx

# What `create_pool()` takes besides aiopg's arguments, by keyword.
NEW = ["name", "check", "reset", "max_waiting", "max_lifetime", "max_idle", "reconnect_timeout"]
NEW += ["max_buffer", "guard", "max_in_flight", "row_factory"]

AFTER_CLOSING = "Cannot acquire connection after closing pool"


def counts(pool):
    """(size, free, in use), after a look at whether they go together."""
    assert pool.size == pool.freesize + len(pool._used) + pool._acquiring
    return pool.size, pool.freesize, len(pool._used)


# --- the object -----------------------------------------------------------------------------------


async def test_defaults(impl, pool, dsn):
    made = await pool()
    assert type(made) is impl.Pool is impl.pool.Pool
    assert counts(made) == (1, 1, 0)
    assert (made.minsize, made.maxsize, made.timeout, made.echo) == (1, 10, 60.0, False)
    assert made.closed is False
    assert (made._dsn, made._minsize, made._timeout, made._recycle) == (dsn, 1, 60.0, -1.0)
    assert made._loop is asyncio.get_running_loop()
    assert made._enable_json is made._enable_hstore is made._enable_uuid is True
    assert made._echo is False
    assert made._on_connect is None
    assert made._conn_kwargs == {}
    assert made._free.maxlen == 10 and isinstance(made._free, collections.deque)
    assert made._used == set()
    assert repr(made) == f"<{impl.__name__}.pool.Pool object at {id(made):#x}>"


async def test_what_is_given_is_kept(pool):
    async def on_connect(conn):
        pass

    made = await pool(
        minsize=2,
        maxsize=3,
        timeout=7,
        pool_recycle=100,
        enable_json=False,
        enable_hstore=False,
        enable_uuid=False,
        echo=True,
        on_connect=on_connect,
        application_name="me",
    )
    assert counts(made) == (2, 2, 0)
    assert (made.minsize, made.maxsize, made.timeout, made._recycle) == (2, 3, 7, 100)
    assert made._enable_json is made._enable_hstore is made._enable_uuid is False
    assert made.echo is True
    assert made._on_connect is on_connect
    assert made._conn_kwargs == {"application_name": "me"}
    async with made.acquire() as conn:
        assert conn.timeout == 7
        assert conn.echo is True
        assert await conn.get_parameter_status("application_name") == "me"


async def test_unlimited(pool):
    made = await pool(minsize=0, maxsize=0)
    assert made.maxsize is None and made._free.maxlen is None
    conns = [await made.acquire() for _ in range(12)]
    assert counts(made) == (12, 0, 12)
    for conn in conns:
        made.release(conn)
    assert counts(made) == (12, 12, 0)


@pytest.mark.parametrize(
    ("sizes", "text"),
    [
        ({"minsize": -1}, "minsize should be zero or greater"),
        ({"minsize": 5, "maxsize": 2}, "maxsize should be not less than minsize"),
        ({"maxsize": -1}, "maxsize should be not less than minsize"),
    ],
)
async def test_impossible_sizes(impl, dsn, sizes, text):
    with pytest.raises(ValueError, match=text):
        await impl.create_pool(dsn, **sizes)


@pytest.mark.parametrize(
    "name", ["acquire", "release", "cursor", "clear", "close", "terminate", "wait_closed"]
)
def test_signatures_are_aiopg_s(name):
    def shape(function):
        parameters = inspect.signature(function).parameters.values()
        return [(each.name, each.kind, each.default) for each in parameters]

    def without(parameters, names):
        return [each for each in parameters if each[0] not in names]

    ours, theirs = getattr(aiopgx.Pool, name), getattr(aiopg.Pool, name)
    more = {"acquire": {"timeout"}, "cursor": {"row_factory"}}.get(name, ())
    assert without(shape(ours), more) == shape(theirs)
    assert is_coroutine_function(ours) == is_coroutine_function(theirs)
    assert without(shape(aiopgx.create_pool), NEW) == shape(aiopg.create_pool)
    names = [name for name, _, _ in without(shape(aiopgx.Pool), NEW)]
    assert names == [name for name, _, _ in shape(aiopg.Pool)]


def test_cursor_is_mocked_as_a_coroutine_function():
    from unittest import mock

    with mock.patch.object(aiopgx.Pool, "cursor") as replaced:
        assert isinstance(replaced, mock.AsyncMock)


async def test_subclass(ours, dsn):
    class Pool(ours.Pool):
        async def _acquire(self):
            self.acquired = True
            return await super()._acquire()

    made = await Pool.from_pool_fill(dsn, maxsize=2)
    assert type(made) is Pool and (made.minsize, made.maxsize) == (1, 2)
    async with made, made.acquire():
        assert made.acquired


async def test_connect_is_looked_up_in_the_module(impl, pool, monkeypatch):
    seen = []
    original = impl.pool.connect

    def connect(*args, **kwargs):
        seen.append((args, kwargs))
        return original(*args, **kwargs)

    monkeypatch.setattr(impl.pool, "connect", connect)
    made = await pool(timeout=5, enable_uuid=False, application_name="me")
    expected = {
        "timeout": 5,
        "enable_json": True,
        "enable_hstore": True,
        "enable_uuid": False,
        "echo": False,
        "application_name": "me",
    }
    assert seen == [((made._dsn,), expected)]


async def test_names_of_the_module(impl):
    module = impl.pool
    assert module.Connection is impl.Connection
    assert module.Cursor is impl.Cursor
    assert module.TIMEOUT == impl.DEFAULT_TIMEOUT == 60.0
    assert module.connect is impl.connect


# --- taking and giving back -----------------------------------------------------------------------


async def test_first_in_first_out(pool):
    made = await pool(minsize=2, maxsize=2)
    one, two = await made.acquire(), await made.acquire()
    assert made._used == {one, two}
    made.release(two)
    made.release(one)
    assert list(made._free) == [two, one]
    assert await made.acquire() is two
    assert made._used == {two}
    made.release(two)


@pytest.mark.all_loops
async def test_ways_to_acquire(impl, pool):
    made = await pool()
    async with made.acquire() as conn:
        assert await fetch(conn, "SELECT 1") == [(1,)]
    assert counts(made) == (1, 1, 0)
    assert await made.acquire() is conn
    await made.release(conn)
    with await made as same:
        assert same is conn
        assert counts(made) == (1, 0, 1)
    manager = await made
    assert isinstance(manager, impl.pool._PoolConnectionContextManager)
    async with manager as same:
        assert same is conn
    assert await made._acquire() is conn
    made.release(conn)
    assert await asyncio.wait_for(made.acquire(), 5) is conn
    made.release(conn)
    assert await asyncio.create_task(made.acquire()) is conn
    made.release(conn)
    assert counts(made) == (1, 1, 0)


async def test_release_is_done_at_the_call(ours, pool):
    made = await pool()
    future = made.release(await made.acquire())
    assert isinstance(future, asyncio.Future) and future.done()
    assert await future is None


async def test_plain_with_is_refused(pool):
    made = await pool()
    with (
        pytest.raises(RuntimeError, match='"await" should be used as context manager expression'),
        made,
    ):
        pass


@pytest.mark.all_loops
async def test_ways_to_make(impl, dsn):
    async with impl.create_pool(dsn) as made:
        assert counts(made) == (1, 1, 0)
    assert made.closed is True
    async with await impl.create_pool(dsn) as made:
        assert counts(made) == (1, 1, 0)
    assert made.closed is True
    async with await asyncio.wait_for(impl.create_pool(dsn), 5) as made:
        assert counts(made) == (1, 1, 0)


async def test_cursor(impl, pool):
    made = await pool()
    manager = await made.cursor()
    assert isinstance(manager, impl.pool._PoolCursorContextManager)
    with manager as cur:
        assert counts(made) == (1, 0, 1)
        await cur.execute("SELECT 1")
        assert await cur.fetchone() == (1,)
    assert cur.closed
    assert counts(made) == (1, 1, 0)
    with await made.cursor(timeout=3) as cur:
        assert cur.timeout == 3


async def test_cursor_in_async_with(ours, pool):
    made = await pool()
    async with made.cursor() as cur:
        await cur.execute("SELECT 1")
        assert counts(made) == (1, 0, 1)
    assert cur.closed
    with pytest.raises(KeyError):
        async with made.cursor():
            raise KeyError
    assert counts(made) == (1, 1, 0)


async def test_cursor_that_can_not_be_made(ours, pool):
    made = await pool()
    with pytest.raises(TypeError):
        await made.cursor(cursor_factory=dict)
    assert counts(made) == (1, 1, 0)


async def test_cursor_that_can_not_be_closed(impl, pool, monkeypatch):
    """Its connection is closed too."""

    def close(self):
        raise psycopg2.ProgrammingError("close cannot be used")

    made = await pool()
    with (
        monkeypatch.context() as patch,
        pytest.raises(psycopg2.ProgrammingError),
        await made.cursor() as cur,
    ):
        patch.setattr(impl.Cursor, "close", close)
    assert cur.connection.closed
    assert counts(made) == (0, 0, 0)


async def test_release_of_a_stranger(pool, connect):
    made = await pool()
    with pytest.raises(AssertionError):
        made.release(await connect())
    conn = await made.acquire()
    made.release(conn)
    with pytest.raises(AssertionError):
        made.release(conn)
    assert counts(made) == (1, 1, 0)


async def test_release_in_a_transaction(pool):
    made = await pool()
    conn = await made.acquire()
    async with conn.cursor() as cur:
        await cur.execute("BEGIN")
    text = "Invalid transaction status on released connection: 2"
    with pytest.warns(ResourceWarning) as caught:
        made.release(conn)
    assert [str(warning.message) for warning in caught] == [text]
    assert conn.closed
    assert counts(made) == (0, 0, 0)


async def test_release_warns_through_its_module(impl, pool, monkeypatch):
    made = await pool()
    conn = await made.acquire()
    async with conn.cursor() as cur:
        await cur.execute("BEGIN")
    seen = []

    class Warnings:
        @staticmethod
        def warn(message, category):
            seen.append(category)

    monkeypatch.setattr(impl.pool, "warnings", Warnings)
    made.release(conn)
    assert seen == [ResourceWarning]


async def test_release_while_a_query_runs(pool):
    made = await pool()
    conn = await made.acquire()
    cur = await conn.cursor()
    task = await underway(conn, cur.execute("SELECT pg_sleep(10)"))
    with pytest.warns(ResourceWarning, match="released connection: 1"):
        made.release(conn)
    with pytest.raises(psycopg2.Error):
        await task
    assert conn.closed


async def test_release_of_a_closed_connection(pool):
    made = await pool()
    conn = await made.acquire()
    conn.close()
    made.release(conn)
    assert counts(made) == (0, 0, 0)


class Proxy:
    """Stands in for an object as tracers do it."""

    def __init__(self, wrapped):
        self.__wrapped__ = wrapped

    def __getattr__(self, name):
        return getattr(self.__wrapped__, name)

    @property
    def __class__(self):
        return type(self.__wrapped__)

    def __eq__(self, other):
        return self.__wrapped__ == other

    def __hash__(self):
        return hash(self.__wrapped__)


async def test_release_of_a_proxy(impl, pool):
    """The proxy is what is free then, so that a tracer sees its next use."""
    made = await pool(minsize=2, maxsize=2)
    conn, other = await made.acquire(), await made.acquire()
    proxy = Proxy(conn)
    assert isinstance(proxy, impl.Connection)
    await made.release(proxy)
    assert made._used == {other}
    again = await made.acquire()
    assert again is proxy
    async with again.cursor() as cur:
        await cur.execute("SELECT 1")
    await made.release(conn)  # the connection itself is as good
    await made.release(Proxy(other))
    assert counts(made) == (2, 2, 0)


# --- what happens to free connections -------------------------------------------------------------


async def test_dead_connections_are_dropped(impl, pool, side):
    made = await pool(minsize=3, maxsize=3, application_name="doomed")
    conns = list(made._free)
    with side.cursor() as cur:
        cur.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'doomed'"
        )
    await until(lambda: all(conn.closed for conn in conns))
    assert counts(made) == (3, 3, 0)
    async with made.acquire() as conn:
        assert conn not in conns
        assert await fetch(conn, "SELECT 1") == [(1,)]
        assert made.size == 3
    await until(lambda: made.freesize == 3)


async def test_a_dead_connection_behind_a_good_one_is_dropped(pool):
    made = await pool(minsize=0)
    conns = [await made.acquire() for _ in range(3)]
    for conn in conns:
        made.release(conn)
    conns[1].close()
    assert await made.acquire() is conns[0]
    assert counts(made) == (2, 1, 1)
    made.release(conns[0])


async def test_recycle(pool):
    made = await pool(minsize=0, pool_recycle=10)
    old, young = await made.acquire(), await made.acquire()
    made.release(old)
    made.release(young)
    old._last_usage -= 11
    async with made.acquire() as conn:
        assert conn is young
    assert old.closed and not young.closed
    assert counts(made) == (1, 1, 0)


async def test_no_recycle(pool):
    made = await pool()
    async with made.acquire() as conn:
        conn._last_usage -= 1e6
    async with made.acquire() as same:
        assert same is conn


async def test_clear(pool):
    made = await pool(minsize=2)
    kept = await made.acquire()
    free = made._free[0]
    await made.clear()
    assert free.closed and not kept.closed
    assert counts(made) == (1, 0, 1)
    made.release(kept)


# --- on_connect -----------------------------------------------------------------------------------


async def test_on_connect(pool):
    seen = []

    async def on_connect(conn):
        await fetch(conn, "SELECT 1")
        seen.append(conn)

    made = await pool(on_connect=on_connect)
    one, two = await made.acquire(), await made.acquire()
    assert seen == [one, two]
    made.release(one)
    made.release(two)
    async with made.acquire():
        assert len(seen) == 2


async def test_on_connect_that_fails(ours, pool):
    seen = []

    async def on_connect(conn):
        seen.append(conn)
        raise KeyError

    made = await pool(minsize=0, on_connect=on_connect)
    with pytest.raises(KeyError):
        await made.acquire()
    assert seen[0].closed
    assert counts(made) == (0, 0, 0)


# --- timeout and errors ---------------------------------------------------------------------------


@pytest.mark.all_loops
async def test_timeout(pool):
    made = await pool(maxsize=1)
    conn = await made.acquire()
    made._timeout = 0.05
    with pytest.raises(asyncio.TimeoutError):
        await made.acquire()
    assert counts(made) == (1, 0, 1)
    made.release(conn)
    async with made.acquire() as same:
        assert same is conn


async def test_no_timeout(pool):
    made = await pool(maxsize=1, timeout=None)
    conn = await made.acquire()
    task = asyncio.create_task(made.acquire())
    await asyncio.sleep(0.05)
    made.release(conn)
    assert await task is conn
    made.release(conn)


async def test_connect_that_fails(impl, dsn):
    with pytest.raises(psycopg2.OperationalError):
        await impl.create_pool(dsn, dbname="nowhere")
    made = await impl.create_pool(dsn, dbname="nowhere", minsize=0)
    for _ in range(2):
        with pytest.raises(psycopg2.OperationalError, match="nowhere"):
            await made.acquire()
        assert counts(made) == (0, 0, 0)


# --- the end --------------------------------------------------------------------------------------


async def test_close(pool):
    made = await pool(minsize=2)
    conn = await made.acquire()
    made.close()
    assert made.closed is False
    with pytest.raises(RuntimeError, match=AFTER_CLOSING):
        await made.acquire()
    made.release(conn)
    assert conn.closed
    await made.wait_closed()
    assert made.closed is True
    assert counts(made) == (0, 0, 0)
    made.close()
    await made.wait_closed()


async def test_wait_closed_comes_after_close(pool):
    made = await pool()
    with pytest.raises(RuntimeError, match=r"\.wait_closed\(\) should be called after \.close\(\)"):
        await made.wait_closed()


@pytest.mark.all_loops
async def test_wait_closed_waits_for_releases(pool):
    made = await pool(minsize=2)
    conns = [await made.acquire() for _ in range(2)]
    made.close()
    seen = []

    async def wait():
        await made.wait_closed()
        seen.append("closed")

    task = asyncio.create_task(wait())
    for conn in conns:
        await asyncio.sleep(0.01)
        made.release(conn)
        seen.append("release")
    await task
    assert seen == ["release", "release", "closed"]
    assert all(conn.closed for conn in conns)


async def test_leaving_the_pool_waits(impl, dsn):
    async def release(conn):
        await asyncio.sleep(0.02)
        made.release(conn)

    async with impl.create_pool(dsn) as made:
        task = asyncio.create_task(release(await made.acquire()))
    assert task.done()


async def test_terminate(pool):
    made = await pool(minsize=2)
    conn = await made.acquire()
    made.terminate()
    assert conn.closed
    assert counts(made) == (1, 1, 0)
    with pytest.raises(RuntimeError, match=AFTER_CLOSING):
        await made.acquire()
    await made.wait_closed()
    assert made.closed is True
    made.release(conn)
    with pytest.raises(AssertionError):
        made.release(conn)


async def test_terminate_from_another_thread(ours, pool):
    made = await pool(maxsize=1)
    conn = await made.acquire()
    task = asyncio.create_task(made.acquire())
    await asyncio.sleep(0)
    await asyncio.get_running_loop().run_in_executor(None, made.terminate)
    assert conn.closed
    assert counts(made) == (0, 0, 0)
    with pytest.raises(RuntimeError, match=AFTER_CLOSING):
        await task
    made.release(conn)
    await made.wait_closed()


async def test_waiter_is_served_after_close(pool):
    made = await pool(maxsize=1, timeout=5)
    conn = await made.acquire()
    task = asyncio.create_task(made.acquire())
    await asyncio.sleep(0.01)
    made.close()
    made.release(conn)
    served = await task
    assert not served.closed
    made.release(served)
    assert served.closed
    await made.wait_closed()


@pytest.mark.all_loops
async def test_other_event_loop(ours, pool):
    """A clear error, and nothing is spoilt."""
    made = await pool(maxsize=1)
    conn = await made.acquire()
    seen = []

    async def use():
        for function in (made.acquire, made.clear, lambda: made.release(conn)):
            try:
                await asyncio.wait_for(function(), 10)
            except RuntimeError as error:
                seen.append(str(error))

    thread = threading.Thread(target=lambda: asyncio.run(use()))
    thread.start()
    await asyncio.to_thread(thread.join)
    assert seen == ["the pool belongs to another event loop"] * 3
    made.release(conn)
    async with made.acquire() as same:
        assert same is conn


# --- what is left behind --------------------------------------------------------------------------


async def test_pool_left_open(impl, dsn, no_gc):
    made = await impl.create_pool(dsn, minsize=2)
    conns = list(made._free)
    text = f"Unclosed 2 connections in {made!r}"
    with pytest.warns(ResourceWarning) as caught:
        del made
    assert [str(warning.message) for warning in caught] == [text]
    assert all(conn.closed for conn in conns)


async def use_in_every_way(made):
    async def hold(conn, seconds):
        await asyncio.sleep(seconds)
        made.release(conn)

    async with made.acquire(), made.acquire():
        made._timeout = 0.05
        with pytest.raises(asyncio.TimeoutError):
            await made.acquire()
        made._timeout = 10
        task = asyncio.create_task(made.acquire())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    one, two = await made.acquire(), await made.acquire()
    task = asyncio.create_task(hold(one, 0.01))
    made.release(await made.acquire())
    two.close()
    made.release(two)
    await task
    await made.clear()
    made._dsn, dsn = made._dsn + " dbname=nowhere", made._dsn
    with pytest.raises(psycopg2.OperationalError):
        await made.acquire()
    made._dsn = dsn


async def test_no_cycles(ours, dsn, no_gc):
    """A pool goes by reference count alone, whatever was done with it."""
    dsn = " ".join(f"{k}={v}" for k, v in psycopg2.extensions.parse_dsn(dsn).items())
    made = await ours.create_pool(dsn, minsize=0, maxsize=2)
    await use_in_every_way(made)
    await asyncio.sleep(0)
    assert counts(made) == (0, 0, 0)
    ref = weakref.ref(made)
    del made
    assert ref() is None


async def test_pool_that_could_not_be_made(ours):
    with pytest.raises(ValueError), warnings.catch_warnings():
        ours.Pool("", -1, 10, 60)
