"""Transactions, savepoints, isolation levels."""

import asyncio
import warnings

import psycopg2
import pytest
from psycopg2.extensions import TRANSACTION_STATUS_INERROR
from support import fetch

OPEN_ALREADY = "You are trying to open a new transaction, use the save point"
NOT_OPEN = "You are trying to commit the transaction does not open"
SAVEPOINT_OPEN = "You do not shut down savepoint"
NO_SAVEPOINT = "You do not start savepoint"


class Script:
    """A stand-in for a cursor: keeps what is executed, raises what is planned."""

    def __init__(self):
        self.executed = []
        self.errors = {}
        self.closed = False

    async def execute(self, operation):
        self.executed.append(operation)
        error = self.errors.pop(operation.split()[0], None)
        if error is not None:
            raise error


def refusal():
    """An error that the server sent."""
    error = psycopg2.errors.SerializationFailure("could not serialize access")
    error.__setstate__({"pgcode": "40001"})
    return error


@pytest.fixture
def script():
    return Script()


@pytest.fixture
def transaction(impl, script):
    return impl.Transaction(script, impl.IsolationLevel.default)


@pytest.fixture
def table(side):
    with side.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS t; CREATE TABLE t (n int PRIMARY KEY)")


# --- the SQL --------------------------------------------------------------------------------------

LEVELS = [
    ("default", "Default", "BEGIN"),
    ("read_committed", "Read committed", "BEGIN ISOLATION LEVEL READ COMMITTED"),
    ("repeatable_read", "Repeatable read", "BEGIN ISOLATION LEVEL REPEATABLE READ"),
    ("serializable", "Serializable", "BEGIN ISOLATION LEVEL SERIALIZABLE"),
]


@pytest.mark.parametrize(("member", "name", "begin"), LEVELS)
def test_levels(impl, member, name, begin):
    level = impl.IsolationLevel[member]
    assert level(False, False).begin() == begin
    assert level(True, False).begin() == begin + " READ ONLY"
    assert level(False, True).begin() == begin + " DEFERRABLE"
    assert level(True, True).begin() == begin + " READ ONLY DEFERRABLE"
    compiler = level(False, False)
    assert compiler.name == repr(compiler) == name
    assert isinstance(compiler, impl.IsolationCompiler)
    assert type(compiler) is level.value


def test_level_without_name(impl):
    compiler = impl.IsolationCompiler(None, True, False)
    assert compiler.name == "Unknown"
    assert compiler.begin() == "BEGIN READ ONLY"


def test_compilers_are_named_in_the_package(impl):
    for name in ("ReadCommitted", "RepeatableRead", "Serializable", "Default"):
        assert getattr(impl.connection, name + "Compiler") is getattr(impl, name + "Compiler")


async def test_statements(impl, script):
    transaction = impl.Transaction(
        script, impl.IsolationLevel.serializable, readonly=True, deferrable=True
    )
    assert await transaction.begin() is transaction
    assert await transaction.savepoint() is transaction
    await transaction.rollback_savepoint()
    await transaction.savepoint()
    await transaction.release_savepoint()
    await transaction.commit()
    await transaction.begin()
    await transaction.rollback()
    begin, first, undo, second, keep, *rest = script.executed
    assert begin == "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE"
    assert undo == f"ROLLBACK TO {first}"
    assert keep == f"RELEASE {second}"
    assert first.startswith("SAVEPOINT s") and first != second
    assert rest == ["COMMIT", begin, "ROLLBACK"]


async def test_any_function_may_be_the_isolation_level(impl, script):
    class Compiler(impl.DefaultCompiler):
        def begin(self):
            return "START TRANSACTION"

    transaction = impl.Transaction(script, Compiler)
    async with transaction:
        pass
    assert script.executed == ["START TRANSACTION", "COMMIT"]


# --- order ----------------------------------------------------------------------------------------


async def test_calls_out_of_order(transaction, script):
    for call in ("commit", "rollback", "savepoint", "release_savepoint", "rollback_savepoint"):
        with pytest.raises(psycopg2.ProgrammingError, match=NOT_OPEN):
            await getattr(transaction, call)()
    await transaction.begin()
    with pytest.raises(psycopg2.ProgrammingError, match=OPEN_ALREADY):
        await transaction.begin()
    for call in ("release_savepoint", "rollback_savepoint"):
        with pytest.raises(psycopg2.ProgrammingError, match=NO_SAVEPOINT):
            await getattr(transaction, call)()
    await transaction.savepoint()
    with pytest.raises(psycopg2.ProgrammingError, match=SAVEPOINT_OPEN):
        await transaction.savepoint()
    await transaction.release_savepoint()
    await transaction.commit()
    assert len(script.executed) == 4


async def test_is_begin(transaction):
    seen = [transaction.is_begin]
    for call in ("begin", "commit", "begin", "rollback"):
        await getattr(transaction, call)()
        seen.append(transaction.is_begin)
    assert seen == [False, True, False, True, False]


async def test_second_begin_while_the_first_is_under_way(impl):
    class Slow(Script):
        async def execute(self, operation):
            await super().execute(operation)
            await asyncio.sleep(0)

    transaction = impl.Transaction(Slow(), impl.IsolationLevel.default)
    first = asyncio.create_task(transaction.begin())
    await asyncio.sleep(0)
    with pytest.raises(psycopg2.ProgrammingError, match=OPEN_ALREADY):
        await transaction.begin()
    await first
    await transaction.commit()


# --- what is left open ----------------------------------------------------------------------------


async def test_warnings_for_what_is_left_open(impl, script):
    transaction = impl.Transaction(script, impl.IsolationLevel.read_committed)
    await transaction.begin()
    await transaction.savepoint()
    text = repr(transaction)
    assert text == f"<Transaction transaction=Read committed id={id(transaction):#x}>"
    with pytest.warns(ResourceWarning) as caught:
        del transaction
    assert [str(warning.message) for warning in caught] == [
        f"You have not closed transaction {text}",
        f"You have not closed savepoint {text}",
    ]


async def test_warning_goes_through_a_replacement_of_two_arguments(impl, script, monkeypatch):
    seen = []
    monkeypatch.setattr(warnings, "warn", lambda message, category: seen.append(category))
    transaction = impl.Transaction(script, impl.IsolationLevel.default)
    await transaction.begin()
    del transaction
    assert seen == [ResourceWarning]


# --- context managers -----------------------------------------------------------------------------


async def test_context_manager(transaction, script):
    async with transaction as entered:
        assert entered is transaction
    with pytest.raises(KeyError):
        async with transaction:
            raise KeyError
    assert script.executed == ["BEGIN", "COMMIT", "BEGIN", "ROLLBACK"]


async def test_point(transaction, script):
    async with transaction:
        async with transaction.point() as entered:
            assert entered is transaction
        with pytest.raises(KeyError):
            async with transaction.point():
                raise KeyError
    words = [statement.rpartition(" ")[0] for statement in script.executed]
    assert words == ["", "SAVEPOINT", "RELEASE SAVEPOINT", "SAVEPOINT", "ROLLBACK TO SAVEPOINT", ""]


async def test_rollback_is_skipped_when_closed(transaction, script):
    """The error that closed the connection is the one that is seen."""
    with pytest.raises(KeyError):
        async with transaction, transaction.point():
            script.closed = True
            raise KeyError
    assert len(script.executed) == 2
    assert not transaction.is_begin


# --- after a failure: what aiopg takes for open is not --------------------------------------------


async def test_after_a_failed_begin(ours, transaction, script):
    script.errors["BEGIN"] = psycopg2.OperationalError("no")
    with pytest.raises(psycopg2.OperationalError):
        await transaction.begin()
    assert not transaction.is_begin
    async with transaction:
        pass
    assert script.executed == ["BEGIN", "BEGIN", "COMMIT"]


async def test_after_a_cancelled_begin(ours, transaction, script):
    script.errors["BEGIN"] = asyncio.CancelledError()
    with pytest.raises(asyncio.CancelledError):
        await transaction.begin()
    assert not transaction.is_begin


async def test_after_a_failed_savepoint(ours, transaction, script):
    async with transaction:
        script.errors["SAVEPOINT"] = psycopg2.OperationalError("no")
        with pytest.raises(psycopg2.OperationalError):
            await transaction.savepoint()
        with pytest.raises(psycopg2.ProgrammingError, match=NO_SAVEPOINT):
            await transaction.release_savepoint()
        async with transaction.point():
            pass


async def test_after_a_refused_commit(ours, transaction, script):
    """The server has rolled back: the transaction may be tried again."""
    script.errors["COMMIT"] = refusal()
    with pytest.raises(psycopg2.errors.SerializationFailure):
        async with transaction:
            pass
    assert not transaction.is_begin
    with pytest.raises(psycopg2.ProgrammingError, match=NOT_OPEN):
        await transaction.commit()
    async with transaction:
        pass
    with pytest.raises(psycopg2.ProgrammingError, match=NOT_OPEN):
        await transaction.rollback()


async def test_rollback_after_a_refused_commit(transaction, script):
    """`except: await transaction.rollback()` is how programs are written."""
    await transaction.begin()
    script.errors["COMMIT"] = refusal()
    with pytest.raises(psycopg2.errors.SerializationFailure):
        await transaction.commit()
    await transaction.rollback()
    assert not transaction.is_begin
    with pytest.raises(psycopg2.ProgrammingError, match=NOT_OPEN):
        await transaction.rollback()


async def test_after_a_commit_that_was_not_sent(transaction, script):
    """Here the transaction is still open."""
    await transaction.begin()
    script.errors["COMMIT"] = RuntimeError("another coroutine is waiting")
    with pytest.raises(RuntimeError):
        await transaction.commit()
    assert transaction.is_begin
    await transaction.rollback()
    assert script.executed[-1] == "ROLLBACK"


@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_connection_lost_at_the_end(ours, transaction, script, end):
    class Lost(Exception):
        pass

    async def execute(operation):
        script.closed = True
        raise Lost

    await transaction.begin()
    await transaction.savepoint()
    script.execute = execute
    with pytest.raises(Lost):
        await getattr(transaction, end)()
    assert not transaction.is_begin  # nor is there a warning for the savepoint


async def test_a_failed_release_leaves_the_savepoint(transaction, script):
    """In a failed transaction RELEASE is refused, and ROLLBACK TO is what helps."""
    await transaction.begin()
    await transaction.savepoint()
    script.errors["RELEASE"] = psycopg2.errors.InFailedSqlTransaction("aborted")
    with pytest.raises(psycopg2.errors.InFailedSqlTransaction):
        await transaction.release_savepoint()
    await transaction.rollback_savepoint()
    await transaction.commit()


@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_the_end_is_the_savepoint_s_end(ours, transaction, end):
    await transaction.begin()
    await transaction.savepoint()
    await getattr(transaction, end)()
    async with transaction, transaction.point():
        pass


# --- with the server ------------------------------------------------------------------------------


async def test_commit_and_rollback(connect, table):
    conn = await connect()
    async with conn.cursor() as cur:
        async with cur.begin():
            await cur.execute("INSERT INTO t VALUES (1)")
        with pytest.raises(ZeroDivisionError):
            async with cur.begin():
                await cur.execute("INSERT INTO t VALUES (2)")
                raise ZeroDivisionError
        async with cur.begin_nested():
            await cur.execute("INSERT INTO t VALUES (3)")
            with pytest.raises(psycopg2.errors.UniqueViolation):
                async with cur.begin_nested():
                    await cur.execute("INSERT INTO t VALUES (4), (1)")
            async with cur.begin_nested():
                await cur.execute("INSERT INTO t VALUES (5)")
    assert await fetch(conn, "SELECT n FROM t ORDER BY n") == [(1,), (3,), (5,)]


async def test_isolation_level_of_a_cursor(impl, connect):
    conn = await connect()
    level = impl.IsolationLevel.repeatable_read
    async with conn.cursor(isolation_level=level) as cur, cur.begin():
        await cur.execute("SHOW transaction_isolation")
        assert await cur.fetchone() == ("repeatable read",)


async def test_first_error_is_seen_when_the_connection_goes(impl, connect, side):
    conn = await connect()
    pid = await conn.get_backend_pid()
    async with conn.cursor() as cur:
        with pytest.raises(psycopg2.Error, match="terminat"):
            async with cur.begin():
                side.cursor().execute("SELECT pg_terminate_backend(%s)", (pid,))
                await cur.execute("SELECT 1")


async def test_commit_refused_by_the_server(ours, connect, side, table):
    with side.cursor() as cursor:
        cursor.execute("ALTER TABLE t ADD UNIQUE (n) DEFERRABLE INITIALLY DEFERRED")
        cursor.execute("ALTER TABLE t DROP CONSTRAINT t_pkey")
    conn = await connect()
    async with conn.cursor() as cur:
        with pytest.raises(psycopg2.errors.UniqueViolation):
            async with cur.begin():
                await cur.execute("INSERT INTO t VALUES (1), (1)")
        async with cur.begin():
            await cur.execute("INSERT INTO t VALUES (1)")
    assert await fetch(conn, "SELECT n FROM t") == [(1,)]


async def test_a_swallowed_error(connect, table):
    """COMMIT is answered by ROLLBACK, which raises nothing: the status message tells it."""
    conn = await connect()
    async with conn.cursor() as cur, cur.begin():
        await cur.execute("INSERT INTO t VALUES (1)")
        with pytest.raises(psycopg2.errors.UniqueViolation):
            await cur.execute("INSERT INTO t VALUES (1)")
        assert await conn.get_transaction_status() == TRANSACTION_STATUS_INERROR
    assert cur.raw.statusmessage == "ROLLBACK"
    assert await fetch(conn, "SELECT n FROM t") == []
