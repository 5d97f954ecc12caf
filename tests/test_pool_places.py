"""What a place of the pool is worth: sessions that the server still has, connections that died."""

import asyncio
import select
import time

import psycopg2
import pytest
from support import (
    STUBBORN,
    asleep,
    error_response,
    fetch,
    greeting,
    listener,
    nothing_left,
    scalar,
    until,
)

SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'counted'"


async def use(pool, sql, seconds):
    async with pool.acquire() as conn, conn.cursor() as cursor:
        await asyncio.wait_for(cursor.execute(sql), seconds)


@pytest.mark.all_loops
async def test_no_more_sessions_than_maxsize(ours, pool, side):
    """A query that does not stop at once keeps the place of its connection."""
    side.cursor().execute(STUBBORN)
    made = await pool(minsize=0, maxsize=3, application_name="counted", timeout=10)

    async def client(end):
        while time.monotonic() < end:
            try:
                await use(made, "SELECT stubborn(1)", 0.05)
            except asyncio.TimeoutError:
                await asyncio.sleep(0)

    clients = [asyncio.create_task(client(time.monotonic() + 0.8)) for _ in range(5)]
    peak = 0
    while not all(task.done() for task in clients):
        peak = max(peak, scalar(side, SESSIONS))
        assert made.size <= 3
        await asyncio.sleep(0.02)
    await asyncio.gather(*clients)
    assert peak == 3
    await until(lambda: made.size == made.freesize)
    await until(lambda: scalar(side, SESSIONS) == made.freesize)


async def test_a_place_is_free_after_cancel_timeout(ours, pool, side):
    side.cursor().execute(STUBBORN)
    made = await pool(minsize=0, maxsize=1, cancel_timeout=0.3)
    with nothing_left(side, "stubborn(30)"):
        query = asyncio.create_task(use(made, "SELECT stubborn(30)", 60))
        await until(lambda: asleep(side, "stubborn(30)"))
        query.cancel()
        with pytest.raises(asyncio.CancelledError):
            await query
        assert (made.size, made.freesize) == (1, 0)
        await asyncio.wait_for(use(made, "SELECT 1", 5), 10)
        await until(lambda: asleep(side, "stubborn(30)"))  # it is still running


async def test_a_query_that_stops_frees_its_place_at_once(ours, pool):
    made = await pool(minsize=0, maxsize=1)
    for _ in range(5):
        with pytest.raises(asyncio.TimeoutError):
            await use(made, "SELECT pg_sleep(30)", 0.05)
    await asyncio.wait_for(use(made, "SELECT 1", 5), 5)
    assert made.size == 1


@pytest.mark.parametrize("bad", [0, -1, "1", None, float("nan")])
def test_cancel_timeout_that_is_none(ours, bad):
    async def connect():
        await ours.connect(cancel_timeout=bad)

    with pytest.raises(ValueError, match="cancel_timeout"):
        asyncio.run(connect())


# --- connections that died while they rested ------------------------------------------------------


RESTING = "FROM pg_stat_activity WHERE application_name = 'rests'"


def kill_all(side, made):
    """The loop does not see it, and they have rested for long enough to be looked at."""
    with side.cursor() as cursor:
        cursor.execute(f"SELECT pg_terminate_backend(pid) {RESTING}")
    time.sleep(0.02)
    while scalar(side, f"SELECT count(*) {RESTING}"):
        time.sleep(0.01)
    for conn in made._free:
        assert select.select([conn.raw], [], [], 10)[0]


@pytest.mark.all_loops
async def test_dead_connections_are_not_given_out(ours, pool, side):
    made = await pool(minsize=4, maxsize=4, application_name="rests")
    for _ in range(3):
        await until(lambda: made.freesize == made.size == 4)
        kill_all(side, made)
        for _ in range(4):
            await use(made, "SELECT 1", 5)
    assert made.size <= 4


async def test_the_last_words_of_a_server_are_enough(ours, pool):
    """It has said that it ends the session; the connection's end is still to come."""
    clients = []

    async def serve(reader, writer):
        await reader.read(1024)
        writer.write(greeting())
        clients.append(writer)
        await reader.read()

    async with listener(serve) as port:
        dsn = f"host=127.0.0.1 port={port} sslmode=disable gssencmode=disable user=u dbname=d"
        made = await pool(dsn=dsn, minsize=1, maxsize=1, enable_hstore=False)
        (conn,) = made._free
        clients[0].write(error_response("FATAL", "57P01", "the server shuts down"))
        await clients[0].drain()
        await asyncio.sleep(0.1)
        async with made.acquire() as other:
            assert other is not conn
        assert len(clients) == 2
        made.terminate()


async def test_a_listener_gets_a_connection_that_lives(ours, pool, side):
    made = await pool(minsize=3, maxsize=3, application_name="rests")

    async def listen():
        async with made.acquire() as conn:
            await conn.notifies.get()

    task = asyncio.create_task(listen())
    await until(lambda: made.freesize == 2)
    kill_all(side, made)
    with pytest.raises(psycopg2.OperationalError):
        await task
    await use(made, "SELECT 1", 5)


async def test_a_notification_is_no_reason_to_drop_a_connection(ours, pool, side):
    made = await pool(minsize=1, maxsize=1)
    async with made.acquire() as conn:
        await fetch_nothing(conn, "LISTEN news")
    time.sleep(0.02)  # noqa: ASYNC251 - it rests
    side.cursor().execute("NOTIFY news")
    assert select.select([conn.raw], [], [], 10)[0], "the loop must not see it"
    async with made.acquire() as again:
        assert again is conn
        assert again.notifies.get_nowait().channel == "news"


async def fetch_nothing(conn, sql):
    async with conn.cursor() as cursor:
        await cursor.execute(sql)


# --- filling --------------------------------------------------------------------------------------


async def test_the_first_connections_are_made_at_once(ours, pool):
    """Each takes a while: together they take no longer than one."""

    async def slow(conn):
        entered.append(conn)
        await asyncio.wait_for(everybody.wait(), 5)

    entered, everybody = [], asyncio.Event()
    task = asyncio.create_task(pool(minsize=5, maxsize=5, on_connect=slow))
    await until(lambda: len(entered) == 5)
    everybody.set()
    assert (await task).freesize == 5


async def test_one_failure_closes_the_rest(ours, dsn, side):
    async def fails_once(conn):
        entered.append(conn)
        if len(entered) == 3:
            raise LookupError("third")
        await asyncio.sleep(30)

    entered = []
    with pytest.raises(LookupError, match="third"):
        await ours.create_pool(dsn, minsize=5, on_connect=fails_once, application_name="counted")
    await until(lambda: scalar(side, SESSIONS) == 0)


# --- what errors say ------------------------------------------------------------------------------


async def test_acquire_tells_who_has_the_connections(ours, pool):
    made = await pool(minsize=1, maxsize=1)
    made._timeout = 0.1
    async with made.acquire():
        text = r"no connection within 0\.1 s: 1 of 1 in use, 0 being connected, 1 waiting"
        with pytest.raises(asyncio.TimeoutError, match=text):
            await made.acquire()


async def test_a_statement_tells_its_timeout(ours, connect):
    conn = await connect()
    with pytest.raises(asyncio.TimeoutError, match=r"not answered within 0\.1 s"):
        async with conn.cursor() as cursor:
            await cursor.execute("SELECT pg_sleep(30)", timeout=0.1)


@pytest.mark.parametrize(
    ("keyword", "meant"),
    [
        ("min_size", "minsize"),
        ("max_size", "maxsize"),
        ("minsise", "minsize"),
        ("pasword", "password"),
        ("server_settings", "options"),
        ("command_timeout", "timeout"),
    ],
)
async def test_a_keyword_that_nobody_knows(ours, dsn, keyword, meant):
    expected = rf'invalid connection option "{keyword}": (did you mean|use) {meant}'
    with pytest.raises(psycopg2.ProgrammingError, match=expected):
        await ours.create_pool(dsn, **{keyword: 5})
    with pytest.raises(psycopg2.ProgrammingError, match=expected):
        ours.connect(dsn, **{keyword: 5})


async def test_a_keyword_like_no_other(ours, dsn):
    with pytest.raises(psycopg2.ProgrammingError, match=r'option "zzzzqqq"$'):
        ours.connect(dsn, zzzzqqq=1)


@pytest.mark.parametrize("how", ["connect", "create_pool"])
async def test_query_canceled_can_be_raised(ours, connect, pool, how):
    if how == "connect":
        conn = await connect(raise_query_canceled=True)
    else:
        conn = await (await pool(raise_query_canceled=True)).acquire()
    with pytest.raises(psycopg2.errors.QueryCanceled, match="statement timeout"):
        await fetch(conn, "SET statement_timeout = 50; SELECT pg_sleep(30)")  # for this one alone
    assert await fetch(conn, "SELECT 1") == [(1,)]
