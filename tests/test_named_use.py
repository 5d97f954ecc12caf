"""Server-side cursors as programs use them."""

import asyncio
import io
import logging
import os

import psycopg2
import psycopg2.extensions
import psycopg2.extras
import pytest
from psycopg2 import sql
from roads import unknown
from support import activity, fetch, until

NUMBERS = "SELECT generate_series(1, %s) AS n"
OUTSIDE = "can't use a named cursor outside of transactions"


@pytest.fixture(params=["native", "foreign"])
def factory(request):
    """A cursor class for each road."""
    plain = psycopg2.extensions.cursor
    return plain if request.param == "native" else unknown(plain)


@pytest.fixture
def held(connect, factory):
    """``await held(name, **kw)`` -> a cursor with hold, on a connection of its own."""

    async def make(name="portal", **kwargs):
        conn = await connect()
        return await conn.cursor(name, factory, withhold=True, **kwargs)

    return make


async def test_aiopg_refuses(impl, connect):
    """What aiopg refuses works here."""
    conn = await connect()
    if impl.__name__ == "aiopg":
        with pytest.raises(psycopg2.ProgrammingError) as info:
            await conn.cursor(name="portal")
        assert str(info.value) == "asynchronous connections cannot produce named cursors"
    else:
        cursor = await conn.cursor(name="portal")
        assert isinstance(cursor, impl.Cursor)
        assert repr(cursor) == "<aiopgx.named::NamedCursor name=portal, closed=False>"
        assert cursor.name == "portal"


async def test_arguments(ours, connect):
    conn = await connect()
    level = ours.IsolationLevel.serializable
    factory = psycopg2.extras.DictCursor
    cursor = await conn.cursor("portal", factory, True, True, 3.5, level)
    assert (cursor.scrollable, cursor.withhold, cursor.timeout) == (True, True, 3.5)
    assert (cursor.arraysize, cursor.itersize) == (1, 2000)
    async with cursor.begin():
        await cursor.execute("SELECT current_setting('transaction_isolation')")
        assert await cursor.fetchone() == ["serializable"]
    assert await cursor.fetchall() == []
    await cursor.close()


async def test_refused_arguments(ours, connect):
    conn = await connect()
    for argument in "scrollable", "withhold":
        with pytest.raises(psycopg2.ProgrammingError, match=rf"set \.{argument} on unnamed"):
            await conn.cursor(**{argument: True})
    with pytest.raises(TypeError, match="cursor factory must be subclass"):
        await conn.cursor("portal", lambda *args: None)
    conn.close()
    with pytest.raises(psycopg2.InterfaceError, match="connection already closed"):
        await conn.cursor("portal")


async def test_factory_of_the_connection(ours, connect):
    conn = await connect(cursor_factory=psycopg2.extras.RealDictCursor)
    cursor = await conn.cursor("portal", withhold=True)
    await cursor.execute(NUMBERS, (1,))
    assert await cursor.fetchall() == [{"n": 1}]
    await cursor.close()


# --- transactions ---------------------------------------------------------------------------------


async def test_outside_of_transactions(ours, connect, factory, side):
    """psycopg2's error, with what can be done about it; the cursor can then be used."""
    conn = await connect()
    cursor = await conn.cursor("portal", factory)
    before = activity(side, conn.raw.get_backend_pid())
    with pytest.raises(psycopg2.ProgrammingError) as info:
        await cursor.execute(NUMBERS, (3,))
    assert type(info.value) is psycopg2.ProgrammingError
    assert str(info.value).startswith(OUTSIDE)
    for remedy in "cursor.begin()", "BEGIN", "withhold=True":
        assert remedy in str(info.value)
    assert activity(side, conn.raw.get_backend_pid()) == before
    assert cursor.query is None
    async with cursor.begin():
        await cursor.execute(NUMBERS, (3,))
        assert await cursor.fetchall() == [(1,), (2,), (3,)]


async def test_begin_on_the_cursor_itself(ours, connect, factory):
    conn = await connect()
    cursor = await conn.cursor("portal", factory)
    async with cursor.begin() as transaction:
        await cursor.execute(NUMBERS, (3,))
        async with cursor.begin_nested():
            assert await cursor.fetchone() == (1,)
        await cursor.close()
    assert not transaction.is_begin
    assert conn.raw.get_transaction_status() == 0
    with pytest.raises(ZeroDivisionError):
        async with conn.cursor("portal", factory) as cursor, cursor.begin():
            await cursor.execute(NUMBERS, (3,))
            raise ZeroDivisionError
    assert conn.raw.get_transaction_status() == 0


async def test_begin_in_sql(ours, connect, factory):
    conn = await connect()
    plain = await conn.execute("BEGIN")
    cursor = await conn.cursor("portal", factory)
    await cursor.execute(NUMBERS, (2,))
    assert [row async for row in cursor] == [(1,), (2,)]
    await plain.execute("COMMIT")
    with pytest.raises(psycopg2.ProgrammingError, match="named cursor isn't valid anymore"):
        await cursor.fetchone()


# --- rows -----------------------------------------------------------------------------------------


@pytest.mark.all_loops
async def test_a_large_result_comes_in_batches(ours, connect, factory, monkeypatch):
    """No more rows than itersize are here at a time."""
    conn = await connect()
    cursor = await conn.cursor("portal", factory)
    sent = []
    execute = ours.Cursor.execute

    async def seen(self, operation, *args, **kwargs):
        await execute(self, operation, *args, **kwargs)
        if self is cursor:
            sent.append((operation, self.rowcount))

    monkeypatch.setattr(ours.Cursor, "execute", seen)
    async with cursor.begin():
        await cursor.execute(NUMBERS, (100_000,))
        expected = 1
        async for (n,) in cursor:
            assert n == expected
            expected += 1
            assert cursor.rowcount <= 2000
    fetched = [count for operation, count in sent if b"FETCH" in operation]
    assert fetched == [2000] * 50 + [0]
    assert expected == 100_001


async def test_two_at_a_time(ours, connect, factory):
    conn = await connect()
    one = await conn.cursor("one", factory)
    two = await conn.cursor("two", psycopg2.extras.DictCursor)
    one.itersize, two.itersize = 2, 3
    pairs = []
    async with one.begin():
        await one.execute(NUMBERS, (7,))
        await two.execute("SELECT generate_series(101, 107) AS n")
        async for (n,) in one:
            row = await anext(two)
            pairs.append((n, row["n"]))
        assert await two.fetchall() == []
    assert pairs == [(n, n + 100) for n in range(1, 8)]


async def test_statements_between_the_rows(ours, connect, factory):
    conn = await connect()
    cursor = await conn.cursor("portal", factory)
    plain = await conn.cursor()
    async with cursor.begin():
        await cursor.execute(NUMBERS, (5,))
        cursor.itersize = 2
        async for (n,) in cursor:
            await plain.execute("SELECT %s * 2", (n,))
            assert await plain.fetchone() == (n * 2,)


async def test_values(ours, held):
    """Casters of the cursor, and values of all kinds, in each batch."""
    cursor = await held()
    loud = psycopg2.extensions.new_type((25,), "LOUD", lambda value, _: value and value.upper())
    psycopg2.extensions.register_type(loud, cursor.raw)
    await cursor.execute(
        "SELECT 'text'::text, 1.5::numeric, ARRAY[1, 2], NULL, '{}'::jsonb "
        "FROM generate_series(1, 3)"
    )
    cursor.itersize = 1
    assert [row async for row in cursor] == [("TEXT", 1.5, [1, 2], None, {})] * 3


async def test_raw(ours, held):
    """The psycopg2 cursor that has the last batch."""
    cursor = await held()
    await cursor.execute(NUMBERS, (5,))
    assert await cursor.fetchmany(2) == [(1,), (2,)]
    raw = cursor.raw
    assert isinstance(raw, psycopg2.extensions.cursor)
    assert (raw.rowcount, raw.statusmessage) == (2, "FETCH 2")
    assert await cursor.fetchmany(2) == [(3,), (4,)]
    assert (raw.rowcount, raw.statusmessage) == (2, "FETCH 2")
    assert [row async for row in cursor] == [(5,)]
    await cursor.close()


# --- cursor classes of programs -------------------------------------------------------------------


async def test_logging_cursor(ours, connect, dsn):
    """It logs what psycopg2's logs: the declaration."""
    logs = []
    for road in "psycopg2", "aiopgx":
        out = io.StringIO()
        factory = psycopg2.extras.LoggingConnection
        if road == "psycopg2":
            raw = psycopg2.connect(dsn, connection_factory=factory)
            raw.initialize(out)
            cursor = raw.cursor("portal")
            cursor.execute(NUMBERS, (3,))
            cursor.fetchone()
            list(cursor)
            cursor.close()
            raw.close()
        else:
            conn = await connect(connection_factory=factory, enable_hstore=False)
            conn.raw.initialize(out)
            await conn.execute("BEGIN")
            out.truncate(0)
            out.seek(0)
            cursor = await conn.cursor("portal")
            await cursor.execute(NUMBERS, (3,))
            await cursor.fetchone()
            assert [row async for row in cursor] == [(2,), (3,)]
            await cursor.close()
        logs.append(out.getvalue())
    assert logs[0] == logs[1] != ""


class Doubling(psycopg2.extensions.cursor):
    def fetchone(self):
        row = super().fetchone()
        return row and (row[0] * 2,)

    def fetchmany(self, size=None):
        return [(n * 2,) for (n,) in super().fetchmany(size)]


async def test_class_of_the_program(ours, connect):
    conn = await connect()
    cursor = await conn.cursor("portal", Doubling, withhold=True)
    await cursor.execute(NUMBERS, (6,))
    assert await cursor.fetchone() == (2,)
    assert await cursor.fetchmany(2) == [(4,), (6,)]
    assert [row async for row in cursor] == [(8,), (10,), (12,)]
    await cursor.close()


async def test_echo(ours, connect, factory, caplog):
    caplog.set_level(logging.INFO, logger="aiopg")
    conn = await connect(echo=True, enable_hstore=False)
    cursor = await conn.cursor("portal", factory, withhold=True)
    await cursor.execute(NUMBERS, (1,))
    await cursor.fetchone()
    await cursor.close()
    messages = [record.getMessage() for record in caplog.records]
    assert any("DECLARE" in message for message in messages)
    assert any("FETCH FORWARD 1" in message for message in messages)
    assert not any("pg_cursors" in message or "CLOSE" in message for message in messages)


# --- several tasks on one cursor ------------------------------------------------------------------


@pytest.mark.all_loops
async def test_tasks_that_iterate_together(ours, connect, factory):
    """A row comes to one of them, or a task is refused."""
    conn = await connect()
    rows, refused = [], []

    async def work(cursor):
        while True:
            try:
                rows.append(await anext(cursor))
            except StopAsyncIteration:
                return
            except RuntimeError as error:
                refused.append(str(error))
                await asyncio.sleep(0)
            await asyncio.sleep(0)

    async with conn.cursor("portal", factory) as cursor, cursor.begin():
        cursor.itersize = 10
        await cursor.execute(NUMBERS, (200,))
        await asyncio.gather(*(work(cursor) for _ in range(3)))
    assert sorted(rows) == [(n,) for n in range(1, 201)]
    assert set(refused) <= {
        "cursor.__anext__() called while another coroutine is already waiting for incoming data"
    }


FETCHES = {
    "fetchone": (lambda cursor: cursor.fetchone(), (1,)),
    "fetchmany": (lambda cursor: cursor.fetchmany(2), [(1,), (2,)]),
    "fetchall": (lambda cursor: cursor.fetchall(), [(1,), (2,), (3,)]),
    "__anext__": (lambda cursor: cursor.__anext__(), (1,)),
    "scroll": (lambda cursor: cursor.scroll(1), None),
}


@pytest.mark.all_loops
@pytest.mark.parametrize("second", FETCHES)
@pytest.mark.parametrize("first", FETCHES)
async def test_fetch_before_another_has_its_rows(ours, connect, factory, first, second):
    """The answer has come, its task has not gone on yet: the rows stay that task's."""
    conn = await connect()
    fetch, expected = FETCHES[first]
    async with conn.cursor("portal", factory) as cursor, cursor.begin():
        await cursor.execute(NUMBERS, (3,))
        fetching = asyncio.ensure_future(fetch(cursor))
        await asyncio.sleep(0)
        while not fetching.done():
            with pytest.raises(RuntimeError, match=rf"^cursor\.{second}\(\) called while"):
                await FETCHES[second][0](cursor)
            await asyncio.sleep(0)
        assert await fetching == expected
        await cursor.fetchall()  # it is free again


async def test_cursor_is_free_after_a_fetch_that_failed(ours, connect, factory):
    conn = await connect()
    cursor = await conn.cursor("portal", factory, withhold=True)
    for _ in range(2):
        with pytest.raises(psycopg2.errors.InvalidCursorName):
            await cursor.fetchone()
    other = await conn.cursor("other", withhold=True)
    await other.execute(NUMBERS, (1,))
    other.close()
    fetching = asyncio.ensure_future(cursor.fetchone())
    await asyncio.sleep(0)  # it waits for that close
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    await cursor.execute(NUMBERS, (1,))
    assert await cursor.fetchone() == (1,)
    await cursor.close()


# --- what is refused, what fails ------------------------------------------------------------------


async def test_what_was_not_sent_may_be_corrected(ours, held):
    cursor = await held()
    for arguments, error in [
        (("SELECT '\0'",), ValueError),
        (("SELECT %s", ("\0",)), ValueError),
        (("SELECT %s", (object(),)), psycopg2.ProgrammingError),
        (("",), psycopg2.ProgrammingError),
        ((5,), TypeError),
    ]:
        with pytest.raises(error):
            await cursor.execute(*arguments)
        assert cursor.query is None
    with pytest.raises(TypeError, match="timeout must be a number"):
        await cursor.execute("SELECT 1", timeout="1")
    await cursor.execute(sql.SQL("SELECT {}").format(sql.Literal("x")))
    assert await cursor.fetchall() == [("x",)]
    await cursor.close()


@pytest.mark.parametrize("how", ["cancel", "timeout"])
async def test_cancelled_and_timed_out_fetches(ours, connect, factory, side, how):
    """The connection is closed, and the server stops, as with any statement."""
    conn = await connect(timeout=1 if how == "timeout" else 60)
    pid = conn.raw.get_backend_pid()
    cursor = await conn.cursor("portal", factory, withhold=False)
    await conn.execute("BEGIN")
    await cursor.execute("SELECT pg_sleep(30)")
    fetching = asyncio.ensure_future(anext(cursor))
    if how == "cancel":
        await until(lambda: activity(side, pid)[0] == "active")
        fetching.cancel()
    with pytest.raises(asyncio.CancelledError if how == "cancel" else asyncio.TimeoutError):
        await fetching
    assert conn.closed and cursor.closed
    await until(lambda: activity(side, pid) is None)
    await cursor.close()
    with pytest.raises(psycopg2.InterfaceError, match="cursor already closed"):
        await cursor.fetchone()


async def test_an_error_leaves_the_connection_usable(ours, held):
    cursor = await held()
    with pytest.raises(psycopg2.errors.DivisionByZero):
        await cursor.execute("SELECT 1 / (2 - n) FROM generate_series(1, 3) AS n")
    assert cursor.query.startswith(b"DECLARE")
    with pytest.raises(psycopg2.errors.InvalidCursorName):
        await cursor.fetchone()
    await cursor.close()
    assert await fetch(cursor.connection, "SELECT 1") == [(1,)]


async def test_tracebacks_show_no_compiled_code(ours, held):
    cursor = await held()
    for call in lambda: cursor.execute("SELEC"), cursor.fetchone, lambda: anext(cursor):
        with pytest.raises(psycopg2.Error) as info:
            await call()
        modules = {entry.frame.f_globals["__name__"] for entry in info.traceback}
        assert modules == {__name__, "aiopgx.named", "aiopgx.cursor"}
    await cursor.close()


async def test_on_another_event_loop(ours, held):
    cursor = await held()
    await cursor.execute(NUMBERS, (3,))
    cursor.close()  # still to be answered

    def elsewhere():
        other = asyncio.new_event_loop()
        try:
            with pytest.raises(RuntimeError, match="on another event loop"):
                other.run_until_complete(fetch(cursor.connection, "SELECT 1"))
        finally:
            other.close()

    await asyncio.to_thread(elsewhere)
    assert await fetch(cursor.connection, "SELECT count(*) FROM pg_cursors") == [(0,)]


async def test_in_a_forked_child(ours, held):
    cursor = await held()
    await cursor.execute(NUMBERS, (3,))
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            cursor.fetchone().send(None)
        except RuntimeError as error:
            code = 0 if "forked child" in str(error) else 2
        finally:
            os._exit(code)
    assert (await asyncio.to_thread(os.waitpid, pid, 0))[1] == 0
    assert await cursor.fetchone() == (1,)
    await cursor.close()
