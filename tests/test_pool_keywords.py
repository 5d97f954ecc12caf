"""What a pool does by keyword: aiopgx alone."""

import asyncio
import contextlib
import logging
import math
import re
import threading
import time
import weakref

import psycopg2
import pytest
from support import fetch, listener, scalar, shut_down, until

from aiopgx import TooManyRequests, check_connection, discard_all
from aiopgx.pool_upkeep import Pauses


async def settled(made, size):
    await until(lambda: made.size == made.freesize == size)


# --- acquire(timeout=), max_waiting=, name= -------------------------------------------------------


@pytest.mark.all_loops
async def test_acquire_timeout(ours, pool):
    made = await pool(maxsize=1)
    async with made.acquire(timeout=math.inf):
        start = time.monotonic()
        text = r"no connection within 0\.05 s: 1 of 1 in use"
        with pytest.raises(asyncio.TimeoutError, match=text):
            await made.acquire(timeout=0.05)
        assert time.monotonic() - start < 2
        task = asyncio.ensure_future(made.acquire(timeout=math.inf))
        await asyncio.sleep(0)
    made.release(await task)
    with pytest.raises(TypeError, match="timeout"):
        made.acquire(timeout="1")


async def test_acquire_timeout_above_the_pool_s(ours, pool):
    made = await pool(maxsize=1)
    made._timeout = 0.05
    conn = await made.acquire()
    task = asyncio.ensure_future(made.acquire(timeout=5))
    await asyncio.sleep(0.1)
    made.release(conn)
    assert await task is conn
    made.release(conn)


async def test_max_waiting(ours, pool):
    made = await pool(maxsize=1, max_waiting=2, name="orders")
    async with made.acquire():
        tasks = [asyncio.ensure_future(made.acquire()) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(TooManyRequests, match=r"2 requests wait already for .*'orders'"):
            await made.acquire()
        tasks.pop().cancel()
        await asyncio.sleep(0)
        tasks.append(asyncio.ensure_future(made.acquire()))  # one place is free again
        await asyncio.sleep(0)
    for task in tasks:
        made.release(await task)
    assert issubclass(TooManyRequests, psycopg2.OperationalError)


async def test_name(ours, pool):
    made = await pool(name="orders")
    assert made.name == "orders"
    assert repr(made) == f"<aiopgx.pool.Pool 'orders' object at {id(made):#x}>"
    assert (await pool()).name is None


@pytest.mark.parametrize(
    ("kwargs", "error"),
    [
        ({"max_waiting": -1}, ValueError),
        ({"max_waiting": "1"}, TypeError),
        ({"max_lifetime": 0}, ValueError),
        ({"max_lifetime": "1"}, TypeError),
        ({"max_idle": -1}, ValueError),
        ({"max_idle": math.nan}, ValueError),
        ({"reconnect_timeout": True}, TypeError),
        ({"check": 1}, TypeError),
        ({"reset": "DISCARD ALL"}, TypeError),
        ({"max_buffer": -1}, ValueError),
        ({"max_buffer": 1.5}, TypeError),
        ({"minsize": 1.5}, TypeError),
        ({"maxsize": "3"}, TypeError),
        ({"timeout": "1"}, TypeError),
        ({"pool_recycle": None}, TypeError),
        ({"on_connect": "SELECT 1"}, TypeError),
    ],
)
async def test_arguments_that_make_no_sense(ours, dsn, kwargs, error):
    with pytest.raises(error, match=next(iter(kwargs))):
        await ours.create_pool(dsn, **kwargs)


# --- check= ---------------------------------------------------------------------------------------


@pytest.mark.all_loops
async def test_a_connection_that_fails_its_check_is_replaced(ours, pool, caplog):
    async def check(conn):
        seen.append(conn)
        if conn in bad:
            raise LookupError("bad")

    seen = []
    made = await pool(minsize=2, maxsize=2, check=check)
    bad = [made._free[0]]
    async with made.acquire() as conn:
        assert seen == [bad[0], conn]
        assert bad[0].closed and not conn.closed
    await settled(made, 2)
    assert "LookupError" in caplog.text
    assert made.get_stats()["requests_num"] == 1


async def test_a_check_that_closes_the_connection(ours, pool):
    async def check(conn):
        if not seen:
            conn.close()
        seen.append(conn)

    seen = []
    made = await pool(minsize=2, maxsize=2, check=check)
    async with made.acquire() as conn:
        assert conn is seen[1] and not conn.closed
        assert seen[0].closed
    await settled(made, 2)


async def test_check_connection(ours, pool, side):
    made = await pool(minsize=3, maxsize=3, check=check_connection)
    for conn in list(made._free)[:2]:
        conn._last_usage = math.inf  # it did not rest: the pool itself does not look
        pid = await conn.get_backend_pid()
        scalar(side, "SELECT pg_terminate_backend(%s, 5000)", (pid,))
        async with made.acquire() as other:
            assert await fetch(other, "SELECT 1") == [(1,)]


async def test_a_check_that_always_fails(ours, pool):
    async def check(conn):
        raise LookupError("never good")

    made = await pool(minsize=0, maxsize=2, check=check)
    text = "no connection (that passed its check )?within"
    with pytest.raises(asyncio.TimeoutError, match=text) as caught:
        await made.acquire(timeout=0.3)
    if "check" in str(caught.value):  # else its time was over while it connected
        # the latter where it was over in the check itself
        assert isinstance(caught.value.__cause__, (LookupError, asyncio.TimeoutError))
    assert made.get_stats()["connections_num"] <= 6, "with pauses"
    await settled(made, 0)


async def test_a_check_that_hangs(ours, pool):
    async def check(conn):
        await asyncio.sleep(60)

    made = await pool(minsize=1, maxsize=1, check=check)
    with pytest.raises(asyncio.TimeoutError):
        await made.acquire(timeout=0.1)
    task = asyncio.ensure_future(made.acquire())
    await until(lambda: made._used)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: made.size == made.freesize)


# --- reset= ---------------------------------------------------------------------------------------


async def spoil(conn):
    """Leave in a session what the next user must not find."""
    for sql in (
        "SET search_path TO pg_catalog",
        "SET TimeZone TO 'Asia/Tokyo'",
        "SET statement_timeout TO '1h'",
        "SET ROLE pg_monitor",
        "LISTEN news",
        "CREATE TEMPORARY TABLE left_over (a int)",
        "SELECT pg_advisory_lock(42)",
        "PREPARE left_over AS SELECT 1",
        "DO $$ BEGIN RAISE NOTICE 'left over'; END $$",
        "NOTIFY news",
    ):
        async with conn.cursor() as cur:
            await cur.execute(sql)
    for _ in range(8):
        assert await fetch(conn, "SELECT current_setting('TimeZone'), %s", (1,)) == [
            ("Asia/Tokyo", 1)
        ]


STATE = """
    SELECT current_setting('search_path'), current_setting('TimeZone'),
        current_setting('statement_timeout'), current_user::text,
        (SELECT count(*) FROM pg_listening_channels()),
        (SELECT count(*) FROM pg_class WHERE relname = 'left_over'),
        (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()),
        (SELECT count(*) FROM pg_prepared_statements WHERE name = 'left_over')
"""


@pytest.mark.all_loops
async def test_discard_all(ours, pool, side):
    made = await pool(minsize=1, maxsize=1, reset=discard_all)
    async with made.acquire() as conn:
        before = await fetch(conn, STATE)
        await spoil(conn)
        assert await fetch(conn, STATE) != before
    async with made.acquire() as same:
        assert same is conn
        assert await fetch(conn, STATE) == before
        assert conn.notifies.empty() and conn.notices == []
        zone = before[0][1]
        for _ in range(8):  # prepared anew
            assert await fetch(conn, "SELECT current_setting('TimeZone'), %s", (1,)) == [(zone, 1)]


async def test_without_reset_the_session_is_inherited_as_in_aiopg(impl, pool):
    made = await pool(minsize=1, maxsize=1)
    async with made.acquire() as conn:
        await fetch(conn, "SET TimeZone TO 'Asia/Tokyo' ; SELECT 1")
    async with made.acquire() as conn:
        assert await fetch(conn, "SHOW TimeZone") == [("Asia/Tokyo",)]


async def test_release_can_be_awaited_until_it_is_reset(ours, pool):
    async def reset(conn):
        await fetch(conn, "SELECT pg_sleep(0.05)")
        done.append(conn)

    done = []
    made = await pool(minsize=1, maxsize=1, reset=reset)
    conn = await made.acquire()
    released = made.release(conn)
    assert (done, made.size, made.freesize) == ([], 1, 0)
    await released
    assert (done, made.freesize) == ([conn], 1)


class Fault(Exception):
    pass


async def raises(conn):
    raise Fault


async def cancels(conn):
    raise asyncio.CancelledError


async def leaves_a_transaction(conn):
    async with conn.cursor() as cur:
        await cur.execute("BEGIN")


async def closes(conn):
    conn.close()


async def fails_on_the_server(conn):
    await fetch(conn, "SELECT 1/0")


def is_no_coroutine_function(conn):
    pass


def raises_at_the_call(conn):
    raise Fault


@pytest.mark.parametrize(
    "reset",
    [raises, cancels, leaves_a_transaction, closes, fails_on_the_server,
     is_no_coroutine_function, raises_at_the_call],
)  # fmt: skip
async def test_a_reset_that_fails_closes_the_connection(ours, pool, reset, caplog):
    made = await pool(minsize=1, maxsize=1, reset=reset, name="orders")
    conn = await made.acquire()
    waiter = asyncio.ensure_future(made.acquire())
    await made.release(conn)
    assert conn.closed
    other = await waiter
    assert other is not conn
    assert "'orders'" in caplog.text and "whose reset failed" in caplog.text
    await made.release(other)


@pytest.mark.parametrize("stubborn", [False, True])
async def test_a_reset_that_hangs(ours, pool, stubborn):
    async def reset(conn):
        while True:
            try:
                await asyncio.wait_for(over.wait(), 60)
                return
            except asyncio.CancelledError:
                if not stubborn:
                    raise

    over = asyncio.Event()
    made = await pool(minsize=1, maxsize=1, reset=reset)
    made._timeout = 0.1
    conn = await made.acquire()
    task = asyncio.ensure_future(made.acquire(timeout=20))
    released = made.release(conn)
    made._timeout = 20  # from now on, for connects
    await released
    assert conn.closed
    other = await task
    over.set()
    await made.release(other)


async def test_the_end_while_a_reset_runs(ours, pool):
    async def reset(conn):
        await asyncio.sleep(60)

    made = await pool(minsize=1, maxsize=1, reset=reset)
    conn = await made.acquire()
    made.release(conn)
    made.terminate()
    await asyncio.wait_for(made.wait_closed(), 5)
    assert conn.closed and made.size == 0


# --- max_lifetime=, max_idle=, resize() -----------------------------------------------------------


async def test_max_lifetime(ours, pool):
    made = await pool(minsize=2, maxsize=2, max_lifetime=0.8)
    first = list(made._free)
    assert len({conn._expires_at for conn in first}) == 2, "not all at once"
    assert all(conn._expires_at - made._loop.time() <= 0.8 for conn in first)
    await until(lambda: all(conn.closed for conn in first))
    await settled(made, 2)


async def test_max_lifetime_of_one_in_use(ours, pool):
    made = await pool(minsize=1, maxsize=1, max_lifetime=0.1)
    async with made.acquire() as conn:
        await asyncio.sleep(0.15)
        assert not conn.closed
    assert conn.closed
    await settled(made, 1)


async def test_max_idle(ours, pool):
    made = await pool(minsize=1, maxsize=5, max_idle=0.2)
    for conn in [await made.acquire() for _ in range(5)]:
        made.release(conn)

    async def in_turn(count):
        for conn in [await made.acquire() for _ in range(count)]:
            await asyncio.sleep(0.01)
            made.release(conn)

    end = time.monotonic() + 10
    while made.size > 2:  # first in, first out: all are used in turn, two are needed
        assert time.monotonic() < end
        await in_turn(2)
    await settled(made, 1)


async def test_resize(ours, pool):
    made = await pool(minsize=1, maxsize=2)
    await made.resize(3, 5)
    assert (made.minsize, made.maxsize) == (3, 5)
    await settled(made, 3)
    conns = [await made.acquire() for _ in range(5)]
    waiter = asyncio.ensure_future(made.acquire())
    await asyncio.sleep(0)
    await made.resize(1, 2)
    for conn in conns[:3]:
        made.release(conn)
        assert conn.closed and not waiter.done()
    made.release(conns[3])
    assert await waiter is conns[3]
    made.release(conns[3])
    made.release(conns[4])
    assert (made.size, made.freesize) == (2, 2)
    await made.resize(0, 1)
    assert (made.size, made.freesize) == (1, 1)
    with pytest.raises(ValueError, match="maxsize"):
        await made.resize(3, 2)
    await made.resize(0, 0)
    assert made.maxsize is None


async def test_resize_serves_those_who_wait(ours, pool):
    made = await pool(minsize=1, maxsize=1)
    async with made.acquire():
        waiter = asyncio.ensure_future(made.acquire())
        await asyncio.sleep(0)
        await made.resize(1, 2)
        made.release(await asyncio.wait_for(waiter, 5))


# --- reconnect_timeout= ---------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def server_that_refuses(counted):
    async def refuse(reader, writer):
        counted.append(time.monotonic())

    async with listener(refuse) as port:
        yield port


@pytest.mark.all_loops
async def test_no_storm_of_connects(ours, pool, caplog):
    """20 clients on a server that is down: few attempts, and the reason is told."""
    counted = []
    async with server_that_refuses(counted) as port:
        dsn = f"host=127.0.0.1 port={port} dbname=x sslmode=disable gssencmode=disable"
        made = await pool(dsn=dsn, minsize=0, maxsize=10, reconnect_timeout=60, name="orders")
        start = time.process_time()
        with caplog.at_level(logging.WARNING, "aiopg"):
            tasks = [asyncio.ensure_future(made.acquire(timeout=1.5)) for _ in range(20)]
            results = await asyncio.gather(*tasks, return_exceptions=True)
        assert time.process_time() - start < 1
    for error in results:
        assert isinstance(error, asyncio.TimeoutError)
        assert "connects fail: " in str(error)
        assert isinstance(error.__cause__, psycopg2.OperationalError)
    assert 10 <= len(counted) <= 10 + 9
    (told,) = [record for record in caplog.records if record.name == "aiopg"]
    assert "'orders'" in told.getMessage()


async def test_the_pool_is_back_with_the_server(ours, dsn, pool, caplog):
    made = await pool(minsize=2, maxsize=4, reconnect_timeout=60)
    good = made._dsn
    made._dsn = f"{good} dbname=nowhere" if "://" not in good else good.replace("?", "_x?") + "_x"
    await made.clear()  # as if the server had ended them
    tasks = [asyncio.ensure_future(made.acquire()) for _ in range(4)]
    await until(lambda: made.get_stats()["connections_errors"] >= 5)
    assert not any(task.done() for task in tasks)
    made._dsn = good
    for task in tasks:
        made.release(await asyncio.wait_for(task, 10))
    await settled(made, 4)
    assert "connects again" in caplog.text


async def test_giving_up(ours, pool, dsn, caplog):
    made = await pool(minsize=0, maxsize=2, dbname="nowhere", reconnect_timeout=0.3)
    start = time.monotonic()
    tasks = [asyncio.ensure_future(made.acquire()) for _ in range(3)]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert 0.3 <= time.monotonic() - start < 10
    for error in results:
        assert isinstance(error, psycopg2.OperationalError)
        assert re.match(r"no connect within \d+\.\d s: .*nowhere", str(error))
    assert len({id(error) for error in results}) == 3
    await until(lambda: made.size == 0)
    assert "gives up" in caplog.text


async def test_lost_connections_are_replaced_at_once(ours, pool, side):
    made = await pool(minsize=3, maxsize=3, reconnect_timeout=60, application_name="lost")
    first = list(made._free)
    with side.cursor() as cur:
        cur.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'lost'"
        )
    await until(lambda: all(conn.closed for conn in first))
    await settled(made, 3)
    assert not any(conn.closed for conn in made._free)
    assert made.get_stats()["connections_lost"] == 3


async def test_a_waiter_that_goes_during_an_outage(ours, pool, dsn):
    made = await pool(minsize=0, maxsize=1, dbname="nowhere", reconnect_timeout=60)
    task = asyncio.ensure_future(made.acquire())
    await until(lambda: made._upkeep.outage is not None)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: made._upkeep.outage is None and not made._connects)
    made._conn_kwargs = {}
    async with made.acquire(timeout=5):
        pass


def test_pauses_grow():
    pauses = Pauses()
    made = [pauses.next() for _ in range(8)]
    assert 0.05 <= made[0] <= 0.1
    assert all(0.5 <= pause <= 1 for pause in made[4:])
    assert len(set(made)) == 8


# --- the end --------------------------------------------------------------------------------------


async def test_no_cycles_with_all_keywords(ours, dsn, no_gc):
    made = await ours.create_pool(
        dsn,
        minsize=2,
        check=check_connection,
        reset=discard_all,
        max_lifetime=60,
        max_idle=60,
        reconnect_timeout=60,
        guard=True,
    )
    async with made.acquire() as conn:
        await fetch(conn, "SELECT 1")
    del conn
    ref = weakref.ref(made)
    for _ in range(2):
        await until(lambda: ref().freesize == 2)
        await made.clear()  # it is filled again
    made.close()
    await made.wait_closed()
    await asyncio.sleep(0)
    del made
    assert ref() is None


async def test_the_engine_takes_them_too(ours, dsn):
    sa = pytest.importorskip("aiopgx.sa")
    async with sa.create_engine(
        dsn, minsize=1, maxsize=1, reset=discard_all, max_waiting=1, name="orders"
    ) as engine:
        async with engine.acquire() as conn:
            await conn.execute("SET TimeZone TO 'Asia/Tokyo'")
            with pytest.raises(asyncio.TimeoutError):
                await engine.acquire(timeout=0.05)
        async with engine.acquire() as conn:
            assert await conn.scalar("SHOW TimeZone") != "Asia/Tokyo"
        stats = engine.get_stats()
        assert (stats["requests_num"], stats["requests_errors"]) == (4, 1)
        assert engine.pop_stats()["pool_max"] == 1
        await engine.resize(0, 3)
        assert (engine.minsize, engine.maxsize) == (0, 3)


# --- release from another thread ------------------------------------------------------------------


@pytest.mark.all_loops
async def test_release_in_another_thread_is_refused(ours, pool):
    made = await pool(maxsize=1)
    conn = await made.acquire()
    with pytest.raises(RuntimeError, match="runs in another thread: use its call_soon_threadsafe"):
        await asyncio.to_thread(made.release, conn)
    task = asyncio.ensure_future(made.acquire())
    await asyncio.sleep(0)
    loop = asyncio.get_running_loop()
    threading.Thread(target=loop.call_soon_threadsafe, args=(made.release, conn)).start()
    assert await asyncio.wait_for(task, 5) is conn
    made.release(conn)


def test_release_without_a_running_loop(ours, dsn):
    """As in aiopg: a loop that does not run belongs to whoever has it."""
    loop = asyncio.SelectorEventLoop()
    try:
        made = loop.run_until_complete(_make(ours, dsn))
        conn = loop.run_until_complete(made._acquire())
        made.release(conn)
        assert made.freesize == 1
        made.close()
        loop.run_until_complete(made.wait_closed())
    finally:
        shut_down(loop)


async def _make(ours, dsn):
    return await ours.create_pool(dsn, maxsize=1)


# --- guard=, and debug mode -----------------------------------------------------------------------


@pytest.mark.all_loops
async def test_guard(ours, pool):
    made = await pool(minsize=1, maxsize=1, guard=True)
    conn = await made.acquire()
    assert isinstance(conn, ours.Connection)
    cursor = await conn.cursor()
    await cursor.execute("SELECT 1")
    made.release(conn)
    async with made.acquire() as other:
        assert await other.get_backend_pid()
        assert conn.closed
        for use in (
            lambda: conn.execute("SELECT 1"),
            lambda: conn.cursor(),
            lambda: cursor.execute("SELECT 1"),
            conn.get_backend_pid,
        ):
            with pytest.raises(psycopg2.InterfaceError, match="used after its release"):
                await use()
        with pytest.raises(psycopg2.InterfaceError, match="used after its release"):
            conn.notifies.get_nowait()
        assert await cursor.fetchall() == [(1,)]
        cursor.close()
        await conn.close()
        with pytest.raises(AssertionError):
            made.release(conn)
        assert await fetch(other, "SELECT 2") == [(2,)]
    assert made.freesize == 1


async def test_guard_of_named_cursors(ours, pool):
    """One that was not executed closes what is there under its name: not another's."""
    made = await pool(minsize=1, maxsize=1, guard=True)
    async with made.acquire() as conn:
        cursor = await conn.cursor("c")
    async with made.acquire() as other, other.cursor() as plain, plain.begin():
        named = await other.cursor("c")
        await named.execute("SELECT generate_series(1, 2)")
        await cursor.close()
        assert cursor.closed
        assert await named.fetchall() == [(1,), (2,)]


async def test_debug_mode_tells_of_a_use_after_release(ours, dsn):
    asyncio.get_running_loop().set_debug(True)
    async with ours.create_pool(dsn, maxsize=1) as made:
        conn = await made.acquire()
        made.release(conn)
        with pytest.warns(RuntimeWarning, match=r"used after its release to the pool: execute\(\)"):
            (await conn.execute("SELECT 1")).close()
        made.release(await made.acquire())
        with pytest.warns(RuntimeWarning, match=r"used after its release to the pool: cursor\(\)"):
            (await conn.cursor()).close()
        async with made.acquire() as same:
            assert same is conn and type(conn) is ours.Connection
            assert await fetch(conn, "SELECT 1") == [(1,)]


# --- max_buffer= ----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["read", "written"])
async def test_max_buffer(ours, pool, way):
    made = await pool(minsize=1, maxsize=1, max_buffer=1 << 20)
    async with made.acquire() as conn:
        for _ in range(3):
            await fetch(
                conn, "SELECT repeat('x', 1000) FROM generate_series(1, 5000)"
            )  # small rows
    assert not conn.closed
    async with made.acquire() as same:
        assert same is conn
        if way == "read":
            await fetch(conn, "SELECT repeat('x', 5000000)")
        else:
            await fetch(conn, "SELECT length(%s)", ("x" * 5_000_000,))
    assert conn.closed
    async with made.acquire() as other:
        assert await fetch(other, "SELECT 1") == [(1,)]
    assert other is not conn and not other.closed
