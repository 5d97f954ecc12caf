"""Server-side cursors: closing one frees its portal when that can be done, and nothing else."""

import asyncio
import contextlib
import gc

import psycopg2
import psycopg2.extensions
import pytest
from psycopg2.extensions import TRANSACTION_STATUS_IDLE as IDLE
from psycopg2.extensions import TRANSACTION_STATUS_INERROR as INERROR
from psycopg2.extensions import TRANSACTION_STATUS_INTRANS as INTRANS
from roads import unknown
from support import activity, fetch, underway, until

NUMBERS = "SELECT generate_series(1, 10) AS n"
NO_PORTALS = []

# A name that the server cuts off: whether there is such a portal is asked in SQL before it is
# closed, which locks on pg_proc can hold up.
LOOKED_UP = "x" * 64


@pytest.fixture(params=["native", "foreign"])
def factory(request):
    """A cursor class for each road."""
    plain = psycopg2.extensions.cursor
    return plain if request.param == "native" else unknown(plain)


@pytest.fixture
def named(factory):
    """``await named(conn, name, **kw)`` -> a named cursor that is declared."""

    async def make(conn, name="portal", **kwargs):
        cursor = await conn.cursor(name, factory, **kwargs)
        await cursor.execute(NUMBERS)
        return cursor

    return make


async def portals(conn):
    """The names of the portals that the server has."""
    return [name for (name,) in await fetch(conn, "SELECT name FROM pg_cursors ORDER BY name")]


def status(conn):
    return conn.raw.get_transaction_status()


def last_statement(side, conn):
    return activity(side, conn.raw.get_backend_pid())


# --- one at a time --------------------------------------------------------------------------------


@pytest.mark.all_loops
@pytest.mark.parametrize("awaited", [True, False])
@pytest.mark.parametrize("name", ["portal", LOOKED_UP])
async def test_close_of_one_that_is_held(ours, connect, named, side, name, awaited):
    conn = await connect()
    cursor = await named(conn, name, withhold=True)
    assert await portals(conn) == [name[:63]]
    closing = cursor.close()
    assert cursor.closed
    if awaited:
        assert await closing is None
        assert status(conn) == IDLE
    else:  # the server is told by itself
        await until(closing.done)
    assert last_statement(side, conn)[0] == "idle"
    assert await portals(conn) == NO_PORTALS
    assert await cursor.close() is None


@pytest.mark.parametrize("awaited", [True, False])
async def test_close_in_a_transaction(ours, connect, named, awaited):
    conn = await connect()
    async with (await conn.cursor()).begin():
        cursor = await named(conn)
        closing = cursor.close()
        if awaited:
            await closing
            assert status(conn) == INTRANS
        assert not conn.isexecuting()
        assert await conn.get_transaction_status() == INTRANS
        assert await portals(conn) == NO_PORTALS
        await fetch(conn, "SELECT 1")


@pytest.mark.all_loops
async def test_the_next_statement_waits_for_the_close(ours, connect, named):
    """Whatever kind of statement it is."""
    conn = await connect()
    cursor = await conn.cursor()
    for statement in (
        lambda another: cursor.execute("SELECT 1"),
        lambda another: cursor.callproc("abs", [-1]),
        lambda another: cursor.executemany("SELECT %s", [(1,), (2,)]),
        lambda another: another.execute(NUMBERS),
        lambda another: conn.execute("SELECT 1"),
    ):
        held = await named(conn, withhold=True)
        another = await conn.cursor("portal", withhold=True)
        held.close()
        await statement(another)
        another.close()
        assert await portals(conn) == NO_PORTALS


async def test_many_are_closed(ours, connect, named):
    conn = await connect()
    cursors = [await named(conn, f"portal {i}", withhold=True) for i in range(5)]
    assert len(await portals(conn)) == 5
    closing = [cursor.close() for cursor in cursors]
    assert await portals(conn) == NO_PORTALS
    await asyncio.gather(*closing)


async def test_context_managers(ours, connect, factory):
    conn = await connect()
    async with conn.cursor("portal", factory, withhold=True) as cursor:
        await cursor.execute(NUMBERS)
    assert cursor.closed and status(conn) == IDLE
    with pytest.raises(ZeroDivisionError):
        async with conn.cursor("portal", factory, withhold=True) as cursor:
            await cursor.execute(NUMBERS)
            raise ZeroDivisionError
    assert cursor.closed
    async with await conn.cursor("portal", factory, withhold=True) as cursor:
        await cursor.execute(NUMBERS)
    assert cursor.closed and status(conn) == IDLE
    assert await portals(conn) == NO_PORTALS


async def test_break_out_of_an_iteration(ours, connect, named):
    conn = await connect()
    async with await named(conn, withhold=True) as cursor:
        cursor.itersize = 3
        async for (n,) in cursor:
            if n == 2:
                break
    assert await portals(conn) == NO_PORTALS


async def test_notices_and_results_stay(ours, connect, named):
    conn = await connect()
    plain = await conn.cursor()
    await plain.execute("DO $$ BEGIN RAISE NOTICE 'noted'; END $$")
    held = await named(conn, "x" * 63, withhold=True)
    await plain.execute("SELECT generate_series(1, 3)")
    assert await plain.fetchone() == (1,)
    notices = list(conn.notices)
    await held.close()
    assert conn.notices == notices
    assert (plain.rowcount, plain.rownumber, plain.statusmessage) == (3, 1, "SELECT 3")
    assert await plain.fetchall() == [(2,), (3,)]


# --- while the connection is busy -----------------------------------------------------------------


@pytest.mark.all_loops
async def test_close_while_another_statement_runs(ours, connect, named):
    conn = await connect()
    cursor = await named(conn, withhold=True)
    running = await underway(conn, fetch(conn, "SELECT pg_sleep(0.05)"))
    assert await cursor.close() is None  # it can't wait for that
    assert not running.done()
    with pytest.raises(RuntimeError, match="already waiting for incoming data"):
        await conn.execute("SELECT 1")
    assert len(await running) == 1
    assert await portals(conn) == NO_PORTALS


async def test_close_while_it_fetches(ours, connect, named, factory):
    conn = await connect()
    cursor = await conn.cursor("portal", factory, withhold=False)
    async with cursor.begin():
        await cursor.execute("SELECT pg_sleep(0.05)")
        fetching = await underway(conn, cursor.fetchone())
        cursor.close()
        with pytest.raises(psycopg2.InterfaceError, match="cursor already closed"):
            await fetching
        await until(lambda: not conn._portals._ending)  # it is closed by itself
        assert await portals(conn) == NO_PORTALS


async def test_close_while_it_is_declared(ours, connect, factory):
    conn = await connect()
    cursor = await conn.cursor("portal", factory, withhold=True)
    declaring = await underway(conn, cursor.execute("SELECT pg_sleep(0.05)"))
    cursor.close()
    with contextlib.suppress(psycopg2.InterfaceError):
        await declaring
    assert await portals(conn) == NO_PORTALS


async def test_fetch_while_another_statement_runs(ours, connect, named):
    conn = await connect()
    cursor = await named(conn, withhold=True)
    running = await underway(conn, fetch(conn, "SELECT pg_sleep(0.05)"))
    for name, call in {
        "fetchone": cursor.fetchone,
        "fetchmany": cursor.fetchmany,
        "fetchall": cursor.fetchall,
        "scroll": lambda: cursor.scroll(1),
        "__anext__": cursor.__anext__,
    }.items():
        with pytest.raises(RuntimeError) as info:
            await call()
        assert str(info.value).startswith(f"cursor.{name}() called while another coroutine")
    assert len(await running) == 1
    assert await cursor.fetchmany(2) == [(1,), (2,)]
    await cursor.close()


async def test_two_statements_wait_for_a_close(ours, connect, named):
    """One of them is then the second, as ever, unless the first has its answer by then."""
    conn = await connect()
    (await named(conn, withhold=True)).close()
    outcomes = await asyncio.gather(
        *(fetch(conn, "SELECT 1") for _ in range(2)), return_exceptions=True
    )
    assert outcomes[0] == [(1,)]
    assert outcomes[1] == [(1,)] or type(outcomes[1]) is RuntimeError
    assert await portals(conn) == NO_PORTALS


async def test_closes_while_a_statement_waits_for_a_close(ours, connect, named):
    conn = await connect()
    one = await named(conn, "one", withhold=True)
    two = await named(conn, "two", withhold=True)
    one.close().add_done_callback(lambda _: two.close())
    assert await fetch(conn, "SELECT 1") == [(1,)]
    assert await portals(conn) == NO_PORTALS


async def test_cancelled_wait_for_a_close(ours, connect, named):
    """It neither stops the close nor closes the connection: the statement has not begun."""
    conn = await connect()
    cursor = await named(conn, withhold=True)
    closing = cursor.close()
    statement = asyncio.ensure_future(fetch(conn, "SELECT 1; SELECT 2"))  # goes alone
    await asyncio.sleep(0)
    statement.cancel()
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await statement
    assert not conn.closed
    assert await portals(conn) == NO_PORTALS


@pytest.mark.all_loops
async def test_timeout_of_a_close(ours, connect, named, side):
    """The server holds still: the connection is closed, and who waits is told."""
    conn = await connect()
    cursor = await named(conn, LOOKED_UP, withhold=True)
    conn._portals._timeout = 0.2
    lock = "LOCK pg_catalog.pg_proc IN ACCESS EXCLUSIVE MODE"
    with side.cursor() as other:
        other.execute(f"BEGIN; {lock}")
        closing = cursor.close()
        await fetch_nothing(conn)
        with pytest.raises(asyncio.TimeoutError):
            await closing
        other.execute("ROLLBACK")
    assert conn.closed


async def fetch_nothing(conn):
    """A statement that is not waited for as long as a close."""
    cursor = await conn.cursor()
    with pytest.raises((asyncio.TimeoutError, psycopg2.InterfaceError)):
        await cursor.execute("SELECT 1", timeout=30)


# --- transactions ---------------------------------------------------------------------------------


async def test_close_after_the_transaction(ours, connect, named, side):
    """Nothing is sent: what has its name now may be another's."""
    conn = await connect()
    plain = await conn.cursor()
    async with plain.begin():
        old = await named(conn)
    async with plain.begin():
        new = await named(conn)
        before = last_statement(side, conn)
        await old.close()
        assert last_statement(side, conn) == before
        assert await portals(conn) == ["portal"]
        assert await new.fetchone() == (1,)


async def test_close_in_an_aborted_transaction(ours, connect, named):
    conn = await connect()
    plain = await conn.cursor()
    await plain.execute("BEGIN")
    cursor = await named(conn)
    with pytest.raises(psycopg2.errors.DivisionByZero):
        await plain.execute("SELECT 1/0")
    assert await cursor.close() is None
    assert status(conn) == INERROR
    with pytest.raises(psycopg2.errors.InFailedSqlTransaction):
        await plain.execute("SELECT 1")
    await plain.execute("ROLLBACK")
    assert await portals(conn) == NO_PORTALS


async def test_close_of_one_that_is_held_in_an_aborted_transaction(ours, connect, named):
    conn = await connect()
    cursor = await named(conn, withhold=True)
    plain = await conn.cursor()
    await plain.execute("BEGIN")
    with pytest.raises(psycopg2.errors.DivisionByZero):
        await plain.execute("SELECT 1/0")
    await cursor.close()
    await plain.execute("ROLLBACK")
    assert await portals(conn) == NO_PORTALS


async def test_close_in_a_transaction_that_is_rolled_back_to_a_savepoint(ours, connect, named):
    """In an aborted transaction the portal may come back into reach."""
    conn = await connect()
    plain = await conn.cursor()
    async with plain.begin():
        cursor = await named(conn)
        await plain.execute("SAVEPOINT here")
        with pytest.raises(psycopg2.errors.DivisionByZero):
            await plain.execute("SELECT 1/0")
        cursor.close()
        await plain.execute("ROLLBACK TO here")
        assert await portals(conn) == NO_PORTALS


GONE = {
    "with a savepoint": (["SAVEPOINT here"], ["ROLLBACK TO here"]),
    "closed in SQL": ([], ['CLOSE "portal"']),
    "all closed in SQL": ([], ["CLOSE ALL"]),
    "with a transaction, unseen": ([], ["COMMIT; BEGIN"]),
}


@pytest.mark.parametrize("awaited", [True, False])
@pytest.mark.parametrize("how", GONE)
async def test_close_of_one_that_has_gone(ours, connect, named, how, awaited):
    """The transaction it would abort goes on."""
    before, after = GONE[how]
    conn = await connect()
    plain = await conn.cursor()
    await plain.execute("BEGIN")
    for statement in before:
        await plain.execute(statement)
    cursor = await named(conn)
    for statement in after:
        await plain.execute(statement)
    closing = cursor.close()
    if awaited:
        await closing
    await plain.execute("SELECT 1")
    await plain.execute("COMMIT")
    assert plain.statusmessage == "COMMIT"


async def test_close_after_a_refusal(ours, connect, factory, side):
    conn = await connect()
    cursor = await conn.cursor("portal", factory, withhold=True)
    with pytest.raises(psycopg2.errors.SyntaxError):
        await cursor.execute("SELEC")
    before = last_statement(side, conn)
    await cursor.close()
    assert last_statement(side, conn) == before


async def test_close_of_a_closed_connection(ours, connect, named):
    conn = await connect()
    cursor = await named(conn, withhold=True)
    await conn.close()
    assert cursor.closed
    await cursor.close()
    with pytest.raises(psycopg2.InterfaceError, match="cursor already closed"):
        await cursor.fetchone()


async def test_connection_closed_during_a_close(ours, connect, named):
    conn = await connect()
    cursor = await named(conn, withhold=True)
    closing = cursor.close()
    conn.close()
    with pytest.raises(psycopg2.OperationalError, match="Connection closed"):
        await closing


async def test_connection_lost_during_a_close(ours, connect, named, side):
    """Nobody waits for it: nothing is said, and the next statement tells."""
    conn = await connect()
    cursor = await named(conn, withhold=True)
    with side.cursor() as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", (conn.raw.get_backend_pid(),))
    cursor.close()
    with pytest.raises(psycopg2.Error):
        await fetch(conn, "SELECT 1")
    assert conn.closed


@pytest.mark.parametrize("how", ["cursor", "awaited cursor", "pool"])
@pytest.mark.parametrize("lost", ["closed", "killed"])
async def test_error_of_a_block(ours, connect, pool, factory, side, how, lost):
    """It is the one that is seen, whatever comes of the close."""
    made = await pool(minsize=1, maxsize=1)
    arguments = ("portal", factory, None, True)
    if how == "pool":
        manager = made.cursor(*arguments)
    else:
        conn = await connect()
        manager = conn.cursor(*arguments)
        if how == "awaited cursor":
            manager = await manager
    with pytest.raises(ZeroDivisionError):
        async with manager as cursor:
            await cursor.execute(NUMBERS)
            conn = cursor.connection
            if lost == "closed":  # while it is being closed
                asyncio.get_running_loop().call_soon(conn.close)
            else:
                with side.cursor() as other:
                    pid = conn.raw.get_backend_pid()
                    other.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
            raise ZeroDivisionError
    await until(lambda: conn.closed)


# --- dropped --------------------------------------------------------------------------------------


async def test_dropped_cursor(ours, connect, named, no_gc):
    """As in psycopg2, its portal goes with the transaction: others may fetch from it."""
    conn = await connect()
    plain = await conn.cursor()
    async with plain.begin():
        cursor = await named(conn)
        del cursor
        gc.collect()
        await plain.execute('FETCH 2 FROM "portal"')
        assert await plain.fetchall() == [(1,), (2,)]
    assert await portals(conn) == NO_PORTALS


async def test_dropped_connection(ours, dsn, named, no_gc, side, loop_errors):
    """The portals of a connection keep it alive no longer."""
    conn = await ours.connect(dsn)
    pid = conn.raw.get_backend_pid()
    cursor = await named(conn, withhold=True)
    cursor.close()
    with pytest.warns(ResourceWarning, match="Unclosed connection"):
        del cursor, conn
    await until(lambda: activity(side, pid) is None)
    assert [context["message"] for context in loop_errors] == ["Unclosed connection"]
    loop_errors.clear()
