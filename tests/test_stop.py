"""Connection.cancel(): one statement ends, its connection stays."""

import asyncio
import io

import psycopg2
import psycopg2.errors
import pytest
from proxy import Proxy, proxy
from psycopg2.extensions import make_dsn, parse_dsn
from support import (
    LONG,
    STUBBORN_WHILE_LOCKED,
    activity,
    blocked,
    fetch,
    scalar,
    underway,
    until,
)

SLEEP = "SELECT pg_sleep(30)"
QueryCanceled = psycopg2.errors.QueryCanceled


async def by_psycopg2(conn):
    cursor = await conn.cursor()
    assert cursor.raw
    await cursor.execute(SLEEP)


async def streamed(conn):
    async with conn.cursor() as cursor:
        sql = "SELECT n, pg_sleep(n / 5 * 30) FROM generate_series(1, 9) n"
        async for _ in cursor.stream(sql, size=1):
            pass


async def copied_out(conn):
    async with conn.cursor() as cursor:
        await cursor.copy_expert(f"COPY ({SLEEP}) TO STDOUT", io.BytesIO())


async def copied_in(conn):
    async def lines():
        while True:
            yield b"1\n"
            await asyncio.sleep(0)

    async with conn.cursor() as cursor:
        await cursor.execute("CREATE TEMP TABLE IF NOT EXISTS sink (n int)")
        await cursor.copy_from(lines(), "sink")


async def many(conn):
    async with conn.cursor() as cursor:
        await cursor.executemany("SELECT pg_sleep(%s)", [(0,), (0,), (30,), (30,)])


async def in_a_pipeline(conn):
    async with conn.pipeline():
        cursor = await conn.execute(SLEEP)
        await cursor.fetchall()


async def prepared(conn):
    async with conn.cursor() as cursor:
        for seconds in (0, 0, 0, 30):
            await cursor.execute("SELECT pg_sleep(%s)", (seconds,), prepare=True)


async def of_a_named_cursor(conn):
    async with conn.cursor(name="n", withhold=True) as cursor:
        await cursor.execute(SLEEP)
        await cursor.fetchall()


WAYS = {
    "execute": lambda conn: fetch(conn, SLEEP),
    "psycopg2's road": by_psycopg2,
    "prepared": prepared,
    "stream": streamed,
    "COPY TO": copied_out,
    "COPY FROM": copied_in,
    "executemany": many,
    "pipeline": in_a_pipeline,
    "named cursor": of_a_named_cursor,
}


async def active(side, conn):
    pid = conn.raw.get_backend_pid()
    sql = """
        SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND state = 'active'
        AND (wait_event = 'PgSleep' OR query LIKE 'COPY%%FROM%%')
    """
    await until(lambda: scalar(side, sql, (pid,)))


@pytest.mark.all_loops
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
async def test_whatever_runs(ours, connect, side, way):
    conn = await connect()
    pid = conn.raw.get_backend_pid()
    running = asyncio.create_task(way(conn))
    await active(side, conn)
    await asyncio.wait_for(conn.cancel(), 5)
    with pytest.raises(QueryCanceled, match="due to user request"):
        await running
    assert await fetch(conn, "SELECT pg_backend_pid()") == [(pid,)]


@pytest.mark.all_loops
async def test_at_once(ours, connect):
    """Also where the server has not read the statement yet."""
    conn = await connect()
    for _ in range(5):
        running = await underway(conn, fetch(conn, SLEEP))
        await asyncio.wait_for(conn.cancel(), 5)
        with pytest.raises(QueryCanceled):
            await running
    assert await fetch(conn, "SELECT 1") == [(1,)]


async def test_nothing_runs(ours, connect):
    conn = await connect()
    await conn.cancel()
    assert await fetch(conn, "SELECT pg_sleep(0.01), 1") == [("", 1)]


async def test_in_a_transaction(ours, connect, side):
    """The transaction is aborted, as by any error."""
    conn = await connect()
    async with conn.cursor() as cursor:
        await cursor.execute("BEGIN")
        running = asyncio.create_task(cursor.execute(SLEEP))
        await active(side, conn)
        await conn.cancel()
        with pytest.raises(QueryCanceled):
            await running
        with pytest.raises(psycopg2.errors.InFailedSqlTransaction):
            await cursor.execute("SELECT 1")
        await cursor.execute("ROLLBACK")
    assert await fetch(conn, "SELECT 1") == [(1,)]


@pytest.mark.all_loops
async def test_never_the_next_one(ours, connect):
    """Statements that end by themselves about when the request arrives."""
    conn = await connect()
    for n in range(10_000 if LONG else 25):
        running = asyncio.create_task(fetch(conn, f"SELECT pg_sleep({n % 5 / 10000})"))
        await asyncio.sleep(0)
        stopping = asyncio.create_task(conn.cancel())
        await asyncio.sleep(0)  # it begins before the next statement, also if this one is over
        outcome = (await asyncio.gather(running, return_exceptions=True))[0]
        assert isinstance(outcome, (list, QueryCanceled))
        assert await fetch(conn, "SELECT pg_sleep(0.0003), %s", (n,)) == [("", n)]
        await stopping


@pytest.fixture
def way(dsn):
    """A `Proxy` in front of the server, which a test may shut for cancel requests."""
    made = Proxy(int(parse_dsn(dsn)["port"]))
    yield made
    made.stop()


@pytest.fixture
def slow(dsn, connect, way):
    """A connection through `way`, which then takes requests, and does not pass them on."""

    async def make():
        plain = {"sslmode": "disable", "gssencmode": "disable"}
        conn = await connect(make_dsn(dsn, host="127.0.0.1", port=way.port, **plain))
        way.shut = True
        return conn

    return make


@pytest.mark.unprepared
async def test_the_next_one_waits_for_a_request_under_way(ours, slow, way, side):
    conn = await slow()
    running = await underway(conn, fetch(conn, "SELECT pg_sleep(0.05), 1"))
    stopping = asyncio.create_task(conn.cancel())
    assert await running == [("", 1)]
    following = asyncio.create_task(fetch(conn, "SELECT pg_sleep(0.3) AS following, 2"))
    await asyncio.sleep(0.1)
    assert activity(side, conn.raw.get_backend_pid())[0] == "idle"
    assert not stopping.done() and not following.done()
    way.shut = False
    await stopping
    assert await following == [("", 2)]


@pytest.mark.unprepared
async def test_what_waits_is_not_sent_at_all(ours, slow, way):
    conn = await slow()
    running = await underway(conn, fetch(conn, "SELECT pg_sleep(0.05)"))
    stopping = asyncio.create_task(conn.cancel())
    await running
    following = await underway(conn, fetch(conn, "CREATE TABLE never_made ()"))
    await conn.cancel()
    with pytest.raises(QueryCanceled, match="before it was sent"):
        await following
    way.shut = False
    await stopping
    assert await fetch(conn, "SELECT to_regclass('never_made')") == [(None,)]


@pytest.mark.unprepared
async def test_cancelled_cancel_goes_on_in_the_background(ours, slow, way):
    conn = await slow()
    running = await underway(conn, fetch(conn, "SELECT pg_sleep(0.05), 1"))
    stopping = asyncio.create_task(conn.cancel())
    await asyncio.sleep(0)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    assert await running == [("", 1)]
    following = asyncio.create_task(fetch(conn, "SELECT pg_sleep(0.3), 2"))
    await asyncio.sleep(0.1)
    way.shut = False
    assert await following == [("", 2)]


@pytest.mark.unprepared
async def test_time_counts_for_what_waits(ours, slow, way):
    """It is not sent before the request is over, and its own time is over before."""
    conn = await slow()
    running = await underway(conn, fetch(conn, "SELECT pg_sleep(0.05)"))
    stopping = asyncio.create_task(conn.cancel(timeout=60))
    await running
    cursor = await conn.cursor()
    with pytest.raises(asyncio.TimeoutError, match=r"not answered within 0\.1 s"):
        await asyncio.wait_for(cursor.execute("SELECT 1", timeout=0.1), 10)
    assert conn.closed
    stopping.cancel()


async def test_twice_at_once(ours, connect, side):
    conn = await connect()
    running = asyncio.create_task(fetch(conn, SLEEP))
    await active(side, conn)
    await asyncio.gather(conn.cancel(), conn.cancel())
    with pytest.raises(QueryCanceled):
        await running
    assert await fetch(conn, "SELECT pg_sleep(0.01), 1") == [("", 1)]


async def test_statement_that_does_not_stop(ours, connect, side):
    conn = await connect()
    await conn.execute(STUBBORN_WHILE_LOCKED)
    scalar(side, "SELECT pg_advisory_lock(7)")
    running = asyncio.create_task(fetch(conn, "SELECT stubborn_while_locked(7), 1"))
    await until(lambda: blocked(side, "stubborn_while_locked"))
    with pytest.raises(asyncio.TimeoutError, match=r"not stopped the statement in 0\.2 s"):
        await conn.cancel(timeout=0.2)
    scalar(side, "SELECT pg_advisory_unlock(7)")
    assert await running == [("", 1)]
    assert await fetch(conn, "SELECT 1") == [(1,)]


async def test_request_that_nobody_takes(ours, slow):
    """It may arrive at any time, so the connection is not used again."""
    conn = await slow()
    running = await underway(conn, fetch(conn, SLEEP))
    with pytest.raises(asyncio.TimeoutError):
        await conn.cancel(timeout=0.1)
    with pytest.raises(psycopg2.OperationalError, match="Connection closed"):
        await running
    assert conn.closed


async def test_stream_that_nobody_reads(ours, connect):
    """The request has been taken; the error comes when somebody reads on."""
    conn = await connect()
    async with conn.cursor() as cursor:
        rows = cursor.stream("SELECT repeat('x', 1000) FROM generate_series(1, 200000)")
        await rows.__anext__()
        await asyncio.wait_for(conn.cancel(), 5)
        if ours.capabilities().native:
            with pytest.raises(QueryCanceled):
                async for _ in rows:
                    pass
    assert await fetch(conn, "SELECT 1") == [(1,)]


async def test_request_is_encrypted_where_the_session_is(ours, tls_server):
    """A proxy swallows requests that come in the clear, as libpq before 17 sends them."""
    with proxy(tls_server.port, deaf=True) as port:
        async with ours.connect(tls_server.dsn, host="127.0.0.1", port=port) as conn:
            running = await underway(conn, fetch(conn, SLEEP))
            if ours.capabilities().async_cancel:
                await conn.cancel(timeout=5)
                with pytest.raises(QueryCanceled):
                    await running
            else:
                with pytest.raises(asyncio.TimeoutError):
                    await conn.cancel(timeout=0.1)
                with pytest.raises(psycopg2.OperationalError):
                    await running


async def test_connection_that_is_lost_meanwhile(ours, connect, side):
    conn = await connect()
    running = asyncio.create_task(fetch(conn, SLEEP))
    await active(side, conn)
    stopping = asyncio.create_task(conn.cancel())
    await asyncio.sleep(0)  # it has begun
    scalar(side, "SELECT pg_terminate_backend(%s)", (conn.raw.get_backend_pid(),))
    with pytest.raises(psycopg2.OperationalError):
        await running
    await asyncio.wait_for(stopping, 5)
    await until(lambda: conn.closed)
    with pytest.raises(psycopg2.InterfaceError, match="already closed"):
        await conn.cancel()


async def test_in_another_loop(ours, connect):
    conn = await connect()

    def elsewhere():
        asyncio.run(conn.cancel())

    with pytest.raises(RuntimeError, match="another event loop"):
        await asyncio.to_thread(elsewhere)


async def test_others_cancel_as_before(connect, side, loop_errors):
    """pg_cancel_backend() reaches the task as aiopg has it, also behind a cancel()."""
    conn = await connect()
    if hasattr(conn, "_wire"):
        running = await underway(conn, fetch(conn, SLEEP))
        await conn.cancel()
        with pytest.raises(QueryCanceled):
            await running
    running = asyncio.create_task(fetch(conn, SLEEP))
    await active(side, conn)
    scalar(side, "SELECT pg_cancel_backend(%s)", (conn.raw.get_backend_pid(),))
    with pytest.raises(asyncio.CancelledError):
        await running
    assert len(loop_errors) == 1
    loop_errors.clear()


async def test_a_timeout_that_is_none(ours, connect):
    conn = await connect()
    with pytest.raises(TypeError, match="timeout must be a number"):
        await conn.cancel(timeout="1")
