"""Streams on the native road: memory, who waits for whom, and what is left of those that stop."""

import asyncio
import contextlib
import gc
import os
import time
import weakref

import psycopg2
import pytest
from proxy import Proxy
from psycopg2.extensions import TRANSACTION_STATUS_IDLE, make_dsn, parse_dsn
from psycopg2.extensions import cursor as PsycopgCursor
from roads import unknown
from support import (
    LONG,
    STUBBORN,
    activity,
    asleep,
    blocked,
    blocked_until_it_ends,
    fetch,
    nothing_left,
    running,
    scalar,
    underway,
    until,
)

from aiopgx import _libpq

# Rows come at once: no node of the plan collects them first.
ENDLESS = "SELECT generate_series(1, 1000000000) AS {}"
WIDE = "SELECT generate_series(1, {}), repeat('x', 1000)"


@pytest.fixture(params=[99, 16], ids=["libpq", "libpq16"])
def libpq(request):
    """What is there, and what libpq 16 has: single rows, and cancel requests in a thread."""
    _libpq.limit(request.param)
    yield
    _libpq.limit(99)


@pytest.fixture
def cursor(ours, connect):
    async def cursor(**kwargs):
        return await (await connect(**kwargs)).cursor()

    return cursor


def resident():
    """The resident memory of this process in MB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


async def usable(cursor, pid):
    """The connection is that of before, and gives what is asked for."""
    assert not cursor.connection.closed
    assert await fetch(cursor.connection, "SELECT pg_backend_pid()") == [(pid,)]


# --- memory ---------------------------------------------------------------------------------------


async def test_memory_is_flat(cursor, libpq):
    rows = 5_000_000 if LONG else 60_000
    cur = await cursor()
    assert [row async for row in cur.stream(WIDE.format(1000))]
    number, before, highest = 0, resident(), 0
    async for _ in cur.stream(WIDE.format(rows)):
        number += 1
        if number % 5000 == 0:
            highest = max(highest, resident())
    assert number == rows == cur.rowcount
    assert highest - before < 16


async def test_the_server_waits_for_a_slow_reader(cursor, side):
    cur = await cursor()
    pid = await cur.connection.get_backend_pid()
    before = resident()
    stream = cur.stream(ENDLESS.format("slow"))
    for _ in range(3):
        assert await anext(stream)
        await asyncio.sleep(0.3)
    wait = "SELECT wait_event FROM pg_stat_activity WHERE pid = %s"
    await until(lambda: scalar(side, wait, (pid,)) == "ClientWrite")
    assert resident() - before < 16
    await stream.aclose()
    await usable(cur, pid)


async def test_others_get_their_turn(cursor):
    """A fast server does not hold up the event loop."""
    turns = 0

    async def turn():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.ensure_future(turn())
    number = 0
    async for _ in (await cursor()).stream(WIDE.format(20_000)):
        number += 1
    task.cancel()
    assert number == 20_000 and turns > 50


# --- who stops early ------------------------------------------------------------------------------


async def leave(cur, mark):
    async for _ in cur.stream(ENDLESS.format(mark)):
        break


async def raise_within(cur, mark):
    with contextlib.suppress(ZeroDivisionError):
        async for _ in cur.stream(ENDLESS.format(mark)):
            _ = 1 / 0


async def close(cur, mark):
    stream = cur.stream(ENDLESS.format(mark))
    assert await anext(stream) == (1,)
    await stream.aclose()


async def drop(cur, mark):
    stream = cur.stream(ENDLESS.format(mark))
    assert await anext(stream) == (1,)
    cycle = [stream]
    cycle.append(cycle)
    del stream, cycle
    gc.collect()


async def cancelled(cur, mark):
    """While it waits for rows."""
    stream = cur.stream(f"SELECT pg_sleep(30) AS {mark}")
    task = await underway(cur.connection, anext(stream))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def cancelled_later(cur, mark):
    """The same, when the server is at work."""
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(anext(cur.stream(f"SELECT pg_sleep(30) AS {mark}")), 0.2)


@pytest.mark.all_loops
@pytest.mark.parametrize("way", [leave, raise_within, close, drop, cancelled, cancelled_later])
async def test_early_exit(cursor, side, libpq, way):
    cur = await cursor()
    pid = await cur.connection.get_backend_pid()
    for _ in range(3):
        await way(cur, way.__name__)
        assert await cur.connection.get_transaction_status() == TRANSACTION_STATUS_IDLE
        start = time.monotonic()
        await usable(cur, pid)
        assert time.monotonic() - start < 5
        assert not running(side, way.__name__)


async def test_nothing_is_sent_before_the_first_row(cursor):
    cur = await cursor()
    await cur.execute("CREATE TEMP TABLE sent (i int)")
    stream = cur.stream("INSERT INTO sent VALUES (1) RETURNING i")
    await stream.aclose()
    del stream
    assert [row async for row in cur.stream("SELECT i FROM sent")] == []


async def test_cancel_before_the_first_step(cursor):
    cur = await cursor()
    task = asyncio.ensure_future(anext(cur.stream("SELECT 1")))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await fetch(cur.connection, "SELECT 1") == [(1,)]


async def test_late_cancel_requests_hit_nothing(cursor, libpq):
    """What follows at once is neither cancelled nor crossed."""
    cur = await cursor()
    for n in range(100):
        async for _ in cur.stream("SELECT generate_series(1, %s)", (n * 200,), size=10):
            break
        await cur.execute("SELECT %s, pg_sleep(0.002)", (n,))
        assert await cur.fetchall() == [(n, "")]


async def test_in_a_transaction_nothing_is_cancelled(cursor):
    """It would abort the transaction, and COMMIT would undo what was done before."""
    cur = await cursor()
    async with cur.begin():
        await cur.execute("CREATE TEMP TABLE kept (i int)")
        async for _ in cur.stream(WIDE.format(20_000)):
            break
        await cur.execute("INSERT INTO kept VALUES (1)")
    assert await fetch(cur.connection, "SELECT i FROM kept") == [(1,)]


SLOW_END = "SELECT n FROM generate_series(1, 9999) n UNION ALL SELECT 1 FROM pg_sleep(5)"
FAILS = "SELECT 1 / (9999 - n) FROM generate_series(1, 9999) n"


@pytest.mark.parametrize("way", ["commit", "COMMIT", "COMMIT AND CHAIN", "END", "psycopg2"])
async def test_the_rest_fails_in_a_transaction(cursor, way):
    """The server rolls back, and calls a COMMIT that does so no error."""
    cur = await cursor()
    transaction = await cur.begin()
    async for _ in cur.stream(FAILS):
        break
    if way == "psycopg2":
        assert cur.raw
    with pytest.raises(psycopg2.errors.DivisionByZero):
        if way == "commit":
            await transaction.commit()
        else:
            await cur.execute(way.replace("psycopg2", "COMMIT"))
    await cur.execute("ROLLBACK")
    await cur.execute("SELECT 1")
    assert await cur.fetchall() == [(1,)]
    if way != "commit":
        await transaction.rollback()


@pytest.mark.parametrize("factory", [None, unknown(PsycopgCursor)], ids=["ours", "psycopg2's"])
async def test_the_rest_fails_in_a_pipeline(cursor, factory):
    """Also where psycopg2's cursor executes at its turn."""
    cur = await cursor()
    await cur.execute("BEGIN")
    async for _ in cur.stream(FAILS):
        break
    with pytest.raises(psycopg2.errors.DivisionByZero):
        async with cur.connection.pipeline(), cur.connection.cursor(factory) as other:
            await other.execute("COMMIT")


async def test_the_rest_fails_and_comes_to_its_end_elsewhere(cursor):
    """Where `raw` has ended the transaction, the next statement has nothing to do with it."""
    cur = await cursor()
    await cur.execute("BEGIN")
    async for _ in cur.stream(FAILS):
        break
    await until(lambda: cur.connection._wire.unseen is not None)
    raw = cur.connection.raw
    raw.cursor().execute("ROLLBACK")
    await until(lambda: not raw.isexecuting())
    await cur.execute("SELECT 1")
    assert await cur.fetchall() == [(1,)]


async def test_the_rest_fails_by_a_timeout_of_the_server(ours, connect, loop_errors):
    """COMMIT raises what a statement does that the server cancels; the transaction is over."""
    conn = await connect()
    async with conn.cursor() as cur:
        await cur.execute("SET statement_timeout = 100")
        transaction = await cur.begin()
        async for _ in cur.stream(SLOW_END, size=1):
            break
        with pytest.raises(asyncio.CancelledError):
            await transaction.commit()
        assert not transaction.is_begin and not conn.closed
        await transaction.rollback()
        await cur.execute("SELECT 1")
    loop_errors.clear()


KNOWN = [
    "ROLLBACK",
    " abort",
    "/* why */ -- so\n; Rollback",
    "ROLLBACK TO s",
    "SELECT 1",
    "-- no more",
]


@pytest.mark.parametrize("way", ["rollback", *KNOWN])
async def test_the_rest_fails_and_that_is_known(cursor, way):
    cur = await cursor()
    transaction = await cur.begin()
    await cur.execute("SAVEPOINT s")
    async for _ in cur.stream(FAILS):
        break
    if way == "SELECT 1":
        with pytest.raises(psycopg2.errors.InFailedSqlTransaction):
            await cur.execute(way)
    elif way == "-- no more":
        with pytest.raises(psycopg2.ProgrammingError, match="empty"):
            await cur.execute(way)
    elif way != "rollback":
        await cur.execute(way)
    await transaction.rollback()
    async with cur.begin():
        await cur.execute("SELECT 1")


async def test_in_a_transaction_that_does_not_end(cursor, side):
    cur = await cursor(cancel_timeout=0.3)
    await cur.execute("BEGIN")
    async for _ in cur.stream(ENDLESS.format("transaction_rest")):
        break
    with pytest.raises(psycopg2.InterfaceError, match="cursor already closed"):
        await cur.execute("COMMIT")
    assert cur.connection.closed
    await until(lambda: not running(side, "transaction_rest"))


async def test_a_statement_that_does_not_stop(cursor, side):
    """The connection is closed in the end."""
    side.cursor().execute(STUBBORN)
    cur = await cursor(cancel_timeout=0.5)
    statement = """
        SELECT repeat('x', 20000), CASE WHEN n > 2 THEN stubborn(20)::text END
        FROM generate_series(1, 3) n
    """
    with nothing_left(side, "stubborn"):
        stream = cur.stream(statement, size=1)
        await anext(stream)
        await until(lambda: asleep(side, "stubborn"))
        start = time.monotonic()
        await stream.aclose()
    assert 0.4 < time.monotonic() - start < 10
    assert cur.connection.closed


@pytest.mark.needs("openssl")
async def test_early_exit_with_tls(ours, connect, tls_server, libpq):
    conn = await connect(tls_server.dsn)
    for _ in range(5):
        await leave(await conn.cursor(), "with_tls")
        assert await fetch(conn, "SELECT 1") == [(1,)]


@pytest.mark.needs("pgbouncer")
@pytest.mark.parametrize("mode", ["session", "transaction"])
async def test_early_exit_behind_a_pooler(ours, connect, pooler, side, mode, libpq):
    dbname = side.info.dbname
    conn = await connect(pooler(mode).dsn(dbname))
    for _ in range(5):
        await leave(await conn.cursor(), "behind_pooler")
        assert await fetch(conn, "SELECT 1") == [(1,)]
    assert not running(side, "behind_pooler")


# --- who else uses the connection -----------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 100_000])
async def test_nothing_else_meanwhile(cursor, count):
    """Whether the rows are here already or not."""
    cur = await cursor()
    other = await cur.connection.cursor()
    text = "called while another coroutine is already waiting for incoming data"
    number = 0
    async for _ in cur.stream("SELECT generate_series(1, %s)", (count,)):
        number += 1
        if number % 50_000 == 1:
            with pytest.raises(RuntimeError, match=text):
                await other.execute("SELECT 1")
            with pytest.raises(RuntimeError, match=text):
                await cur.execute("SELECT 1")
            with pytest.raises(RuntimeError, match=text):
                await anext(other.stream("SELECT 1"))
    assert number == count
    await other.execute("SELECT 1")


async def test_while_a_statement_is_executed(cursor):
    cur = await cursor()
    task = asyncio.ensure_future(cur.execute("SELECT pg_sleep(0.1)"))
    await asyncio.sleep(0)
    stream = cur.stream("SELECT 1")
    with pytest.raises(RuntimeError, match="already waiting for incoming data"):
        await anext(stream)
    await task


async def test_one_row_for_one_coroutine(cursor):
    stream = (await cursor()).stream("SELECT generate_series(1, 3), pg_sleep(0.05)", size=1)
    first = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="already being waited for"):
        await anext(stream)
    assert await first == (1, "")
    assert [row async for row in stream] == [(2, ""), (3, "")]


async def test_closed_from_elsewhere_while_it_waits(cursor, side):
    cur = await cursor()
    pid = await cur.connection.get_backend_pid()
    stream = cur.stream("SELECT pg_sleep(30) AS elsewhere")
    task = asyncio.ensure_future(anext(stream))
    await until(lambda: running(side, "elsewhere"))
    await stream.aclose()
    with pytest.raises(StopAsyncIteration):
        await task
    await usable(cur, pid)


async def test_a_pool_keeps_the_connection(pool, ours):
    made = await pool(minsize=1, maxsize=1)
    pids = set()
    for _ in range(5):
        async with made.acquire() as conn, conn.cursor() as cur:
            pids.add(await conn.get_backend_pid())
            async for _ in cur.stream(ENDLESS.format("pooled")):
                break
    assert len(pids) == 1 and made.size == 1


async def test_portals_and_streams_left_together(cursor):
    cur = await cursor()
    named = await cur.connection.cursor(name="held", withhold=True)
    await named.execute("SELECT 1")
    await leave(cur, "together")
    closing = named.close()
    assert await fetch(cur.connection, "SELECT 1") == [(1,)]
    await closing
    assert await fetch(cur.connection, "SELECT count(*) FROM pg_cursors") == [(0,)]


# --- connections that go --------------------------------------------------------------------------


async def test_the_connection_is_closed_within(cursor, side):
    cur = await cursor()
    with pytest.raises(psycopg2.OperationalError, match="Connection closed"):
        async for _ in cur.stream(ENDLESS.format("closed_within")):
            cur.connection.close()
    await until(lambda: not running(side, "closed_within"))


@pytest.mark.all_loops
async def test_a_reset_while_rows_are_read(cursor, dsn):
    """uvloop tells of it once, when not all that has come is wanted yet."""
    link = Proxy(int(parse_dsn(dsn)["port"]))
    try:
        cur = await cursor(dsn=make_dsn(dsn, host="127.0.0.1", port=link.port))
        link.cut_after(100_000, reset=True)
        stream = cur.stream(WIDE.format(1000), size=3)
        first = await underway(cur.connection, anext(stream))
        blocked_until_it_ends(cur.connection)
        assert (await first)[0] == 1
        with pytest.raises(psycopg2.OperationalError):
            while True:
                await asyncio.wait_for(anext(stream), 10)
    finally:
        link.stop()


async def test_the_backend_is_killed(cursor, side):
    cur = await cursor()
    pid = await cur.connection.get_backend_pid()
    with pytest.raises(psycopg2.OperationalError):
        async for (i,) in cur.stream(ENDLESS.format("killed")):
            if i == 1:
                scalar(side, "SELECT pg_terminate_backend(%s)", (pid,))
    assert cur.connection.closed


async def test_the_cursor_is_closed_within(cursor, side):
    cur = await cursor()
    pid = await cur.connection.get_backend_pid()
    with pytest.raises(psycopg2.InterfaceError, match="cursor already closed"):
        async for _ in cur.stream(ENDLESS.format("cursor_closed")):
            cur.close()
    await usable(cur, pid)


async def test_the_time_of_the_reader_does_not_count(cursor):
    cur = await cursor()
    number = 0
    async for _ in cur.stream("SELECT generate_series(1, 20000)", timeout=1, size=10_000):
        number += 1
        if number == 1:
            await asyncio.sleep(1.2)
    assert number == 20_000


async def test_timeout_of_a_batch(cursor, side):
    cur = await cursor()
    statement = """
        SELECT repeat('x', 20000), CASE WHEN n > 2 THEN pg_sleep(30) END AS second_batch
        FROM generate_series(1, 3) n
    """
    number = 0
    with pytest.raises(asyncio.TimeoutError, match="not answered within 1 s"):
        async for _ in cur.stream(statement, size=1, timeout=1):
            number += 1
    assert number == 1 and cur.connection.closed
    await until(lambda: not running(side, "second_batch"))


async def test_a_dropped_connection_is_collected(ours, dsn, side):
    conn = await ours.connect(dsn)
    pid = await conn.get_backend_pid()
    cur = await conn.cursor()
    await leave(cur, "collected")
    await conn.close()
    seen = weakref.ref(conn)
    del conn, cur
    gc.collect()
    assert seen() is None
    await until(lambda: activity(side, pid) is None)


def test_the_loop_ends_with_a_stream_open(ours, dsn, side):
    async def main():
        conn = await ours.connect(dsn)
        cur = await conn.cursor()
        stream = cur.stream(ENDLESS.format("loop_ends"))
        await anext(stream)
        await leave_open(stream)
        conn.close()

    async def leave_open(stream):
        return stream

    asyncio.run(main())
    asyncio.run(until(lambda: not running(side, "loop_ends")))


# --- on the way -----------------------------------------------------------------------------------


async def test_fetching_gives_nothing(cursor):
    """Not the rows that are left of the last batch, nor those of the statement before."""
    cur = await cursor()
    await cur.execute("SELECT 'before'")
    async for _ in cur.stream("SELECT generate_series(1, 150)"):
        with pytest.raises(psycopg2.ProgrammingError, match="no results to fetch"):
            await cur.fetchone()
        with pytest.raises(psycopg2.ProgrammingError, match="no results to fetch"):
            await cur.scroll(0, "absolute")
    with pytest.raises(psycopg2.ProgrammingError, match="no results to fetch"):
        await cur.fetchall()
    assert len(cur.description) == 1
    raw = cur.raw
    assert (raw.rowcount, raw.statusmessage) == (150, "SELECT 150")
    with pytest.raises(psycopg2.ProgrammingError, match="no results to fetch"):
        raw.fetchall()


@pytest.mark.parametrize(
    ("statement", "text"),
    [
        ("COPY pg_class TO STDOUT", "can't execute COPY TO"),
        ("CREATE TEMP TABLE t (i int); COPY t FROM STDIN", "can't execute COPY FROM"),
        ("SELECT 1; SELECT 2", "can't stream the rows of several statements"),
        ("SELECT 1; SELECT generate_series(1, 1000)", "the rows of several statements"),
    ],
)
async def test_what_can_not_be_streamed(cursor, statement, text):
    cur = await cursor()
    for _ in range(2):
        with pytest.raises(psycopg2.ProgrammingError, match=text):
            async for _ in cur.stream(statement):
                pass
        assert await fetch(cur.connection, "SELECT 1") == [(1,)]


async def test_one_of_several_statements_gives_rows(cursor):
    cur = await cursor()
    statement = "SET application_name = 'a'; SELECT 1; SET application_name = 'b'"
    assert [row async for row in cur.stream(statement)] == [(1,)]
    assert (cur.rowcount, cur.statusmessage) == (1, "SET")


async def test_notices_and_notifications(cursor):
    cur = await cursor()
    await cur.execute("LISTEN streamed")
    await cur.execute("""
        CREATE FUNCTION pg_temp.noted(n int) RETURNS int LANGUAGE plpgsql AS $$
        BEGIN
            IF n % 400 = 0 THEN
                RAISE NOTICE 'at %', n;
                PERFORM pg_notify('streamed', n::text);
            END IF;
            RETURN n;
        END $$
    """)
    rows = [row async for row in cur.stream("SELECT pg_temp.noted(generate_series(1, 1000))")]
    assert len(rows) == 1000
    assert cur.connection.notices == ["NOTICE:  at 400\n", "NOTICE:  at 800\n"]
    assert [(await cur.connection.notifies.get()).payload for _ in range(2)] == ["400", "800"]


async def test_rows_as_they_come(cursor, side):
    """With a size of 1 a row is given when it is here; the server holds the end of the second."""
    cur = await cursor()
    statement = """
        SELECT repeat('x', 20000), CASE WHEN n > 2 THEN pg_advisory_xact_lock(1)::text END
        FROM generate_series(1, 3) n
    """
    scalar(side, "SELECT pg_advisory_lock(1)")
    stream = cur.stream(statement, size=1)
    await anext(stream)
    second = asyncio.ensure_future(anext(stream))
    await until(lambda: blocked(side, "pg_advisory_xact_lock"))
    assert not second.done()
    scalar(side, "SELECT pg_advisory_unlock(1)")
    await second
    assert len([row async for row in stream]) == 1
