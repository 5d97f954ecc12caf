"""Server-side cursors: what follows a close goes out with it, and nothing else changes."""

import asyncio
import gc

import psycopg2
import pytest
from psycopg2.extensions import TRANSACTION_STATUS_IDLE as IDLE
from psycopg2.extensions import TRANSACTION_STATUS_INERROR as INERROR
from psycopg2.extensions import TRANSACTION_STATUS_INTRANS as INTRANS
from support import activity, fetch, running, until
from test_named_close import LOOKED_UP, NO_PORTALS, factory, named, portals, status
from test_named_trips import through

__all__ = ["factory", "named", "through"]  # fixtures


@pytest.mark.parametrize(
    "name",
    [*("x" * 62, "x" * 63, LOOKED_UP, LOOKED_UP + "x"), 'a "b', "A'\\%s", "naïf", "é" * 40, " "],
)
@pytest.mark.parametrize("encoding", ["UTF8", "LATIN1"])
async def test_names(ours, connect, named, name, encoding):
    """Exactly the portal that the cursor has declared is closed, and no namesake."""
    conn = await connect(client_encoding=encoding)
    others = ["x" * 61, "portal", "z" + name[1:]]
    for other in others:
        await named(conn, other, withhold=True)
    before = await portals(conn)
    cursor = await named(conn, name, withhold=True)
    assert len(await portals(conn)) == len(before) + 1
    await cursor.close()
    assert await portals(conn) == before


async def test_in_an_aborted_transaction(ours, connect, named):
    """The close waits, and holds up nothing."""
    conn = await connect()
    plain = await conn.cursor()
    await plain.execute("BEGIN")
    one, two = await named(conn, "one"), await named(conn, "two")
    await plain.execute("SAVEPOINT here")
    with pytest.raises(psycopg2.errors.DivisionByZero):
        await plain.execute("SELECT 1/0")
    one.close()
    two.close()
    with pytest.raises(psycopg2.errors.InFailedSqlTransaction):
        await plain.execute("SELECT 1")
    assert status(conn) == INERROR
    await plain.execute("ROLLBACK TO here")
    assert await portals(conn) == NO_PORTALS
    assert status(conn) == INTRANS


async def test_a_statement_that_fails_behind_a_close(ours, connect, named):
    conn = await connect()
    for statement, error in [
        ("SELECT 1/0", psycopg2.errors.DivisionByZero),
        ("SELECT nosuch", psycopg2.errors.UndefinedColumn),
    ]:
        alone = await conn.cursor()
        with pytest.raises(error) as expected:
            await alone.execute(statement)
        (await named(conn, withhold=True)).close()
        cursor = await conn.cursor()
        with pytest.raises(error) as caught:
            await cursor.execute(statement)
        assert str(caught.value) == str(expected.value)
        assert cursor.query == alone.query and status(conn) == IDLE
        assert await portals(conn) == NO_PORTALS


async def test_psycopg2_finds_its_connection(ours, connect, named):
    """Pipeline mode is left, also when nothing has followed."""
    conn = await connect()
    for following in ("SELECT 1", None):
        closing = (await named(conn, withhold=True)).close()
        if following:
            await fetch(conn, following)
        await closing
        raw = (await conn.cursor()).raw
        raw.execute("SELECT 2")
        await until(lambda raw=raw: not raw.connection.isexecuting())
        assert raw.fetchall() == [(2,)]


async def test_a_connection_that_is_executing_behind_our_back(ours, connect, named):
    """The close waits; nothing is left in a state that psycopg2 does not know."""
    conn = await connect()
    cursor = await named(conn, withhold=True)
    raw = conn.raw.cursor()
    raw.execute("SELECT 3")
    await cursor.close()
    await until(lambda: not conn.raw.isexecuting())
    assert raw.fetchall() == [(3,)]
    assert await portals(conn) == NO_PORTALS


@pytest.mark.all_loops
@pytest.mark.parametrize("awaited", [True, False])
async def test_a_server_that_holds_still(ours, through, named, awaited):
    """The close has a time limit of its own, whatever else is in flight."""
    conn = await through.connect(timeout=30)
    cursors = [await named(conn, name, withhold=True) for name in ("one", "two")]
    conn._portals._timeout = 0.2
    through.held = True
    closing = [cursor.close() for cursor in cursors]
    if not awaited:
        with pytest.raises(psycopg2.Error):
            await fetch(conn, "SELECT 1")
    with pytest.raises(asyncio.TimeoutError):
        await closing[0]
    assert conn.closed


async def test_a_connection_closed_behind_a_cursor(ours, connect, named, side):
    """What was not sent yet is not waited for."""
    conn = await connect(cancel_timeout=60)
    pid = conn.raw.get_backend_pid()
    cursor = await named(conn, withhold=True)
    cursor.close()
    conn.close()
    await until(lambda: activity(side, pid) is None)


async def test_a_statement_with_a_time_limit(ours, connect, named, side):
    conn = await connect()
    (await named(conn, withhold=True)).close()
    cursor = await conn.cursor()
    with pytest.raises(asyncio.TimeoutError):
        await cursor.execute("SELECT pg_sleep(30) AS limited", timeout=0.1)
    assert conn.closed
    await until(lambda: not running(side, "limited"))


async def test_a_cancelled_statement(ours, connect, named, side):
    """As ever, it is cancelled on the server, and the connection closed."""
    conn = await connect()
    (await named(conn, withhold=True)).close()
    statement = asyncio.ensure_future(fetch(conn, "SELECT pg_sleep(30) AS given_up"))
    await until(lambda: running(side, "given_up"))
    statement.cancel()
    with pytest.raises(asyncio.CancelledError):
        await statement
    assert conn.closed
    await until(lambda: not running(side, "given_up"))


async def test_status_while_a_close_is_in_flight(ours, connect, named):
    """Housekeeping does not show."""
    conn = await connect()
    async with (await conn.cursor()).begin():
        cursors = [await named(conn, name) for name in ("one", "two")]
        closing = [cursor.close() for cursor in cursors]
        for future in closing:
            assert await conn.get_transaction_status() == INTRANS
            assert not conn.isexecuting()
            await future
        assert await conn.get_transaction_status() == INTRANS


async def test_dropped_while_it_closes(ours, connect, named, no_gc):
    conn = await connect()
    for _ in range(20):
        (await named(conn, withhold=True)).close()
        await asyncio.sleep(0)
        gc.collect()
    assert await portals(conn) == NO_PORTALS
