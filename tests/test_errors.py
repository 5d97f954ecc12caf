"""Errors: the same as psycopg2's own, down to the last attribute of diag."""

import copy
import pickle

import psycopg2
import psycopg2.errors
import psycopg2.extensions
import pytest
from sqlstates import SCHEMA, STATEMENTS
from support import fetch

DIAG = [name for name in dir(psycopg2.extensions.Diagnostics) if not name.startswith("_")]


@pytest.fixture(scope="module", autouse=True)
def schema(dsn):
    conn = psycopg2.connect(dsn)
    with conn, conn.cursor() as cursor:
        cursor.execute(SCHEMA)
    conn.close()


def everything(error):
    """All that a program can see of an error, the cursor left out."""
    return {
        "class": type(error),
        "args": error.args,
        "str": str(error),
        "repr": repr(error),
        "pgcode": error.pgcode,
        "pgerror": error.pgerror,
        "diag": {name: getattr(error.diag, name) for name in DIAG},
    }


def expected(dsn, statement, **keywords):
    """The error that synchronous psycopg2 raises."""
    conn = psycopg2.connect(dsn, **keywords)
    conn.autocommit = True
    try:
        with pytest.raises(psycopg2.Error) as info, conn.cursor() as cursor:
            cursor.execute(statement)
        return everything(info.value)
    finally:
        conn.close()


async def errors(connect):
    """(statement, error) of each statement that fails, on one connection."""
    conn = await connect()
    cursor = await conn.cursor()
    for statement in STATEMENTS.values():
        with pytest.raises(psycopg2.Error) as info:
            await cursor.execute(statement)
        yield statement, info.value
        await cursor.execute("ROLLBACK")


async def test_same_as_psycopg2(connect, dsn):
    async for statement, error in errors(connect):
        assert everything(error) == expected(dsn, statement), statement


async def test_pickle(connect):
    async for _, error in errors(connect):
        copied = pickle.loads(pickle.dumps(error))
        assert type(copied) is type(error)
        assert copied.args == error.args
        assert (copied.pgcode, copied.pgerror) == (error.pgcode, error.pgerror)
        assert copied.cursor is None
        assert type(copy.copy(error)) is type(error)


async def test_cursor_of_the_error(connect):
    conn = await connect()
    async with conn.cursor() as cursor:
        with pytest.raises(psycopg2.errors.DivisionByZero) as info:
            await cursor.execute("SELECT 1/0")
        assert info.value.cursor is cursor.raw


async def test_diag_outlives_the_connection(impl, dsn):
    async with impl.connect(dsn) as conn:
        with pytest.raises(psycopg2.errors.UniqueViolation) as info:
            await fetch(conn, STATEMENTS["23505"])
    assert info.value.diag.constraint_name == "parent_pkey"
    assert info.value.diag.table_name == "parent"
    assert info.value.diag.message_detail == "Key (id)=(1) already exists."


async def test_position_and_context(connect):
    conn = await connect()
    with pytest.raises(psycopg2.errors.UndefinedTable) as info:
        await fetch(conn, STATEMENTS["42P01"])
    assert info.value.diag.statement_position == "17"
    with pytest.raises(psycopg2.Error) as info:
        await fetch(conn, STATEMENTS["AB123"])
    assert info.value.diag.context.count("PL/pgSQL function") == 2
    assert info.value.diag.message_hint == "a hint"


async def test_failed_transaction(connect, dsn):
    conn = await connect()
    cursor = await conn.cursor()
    await cursor.execute("BEGIN")
    with pytest.raises(psycopg2.errors.DivisionByZero):
        await cursor.execute("SELECT 1/0")
    with pytest.raises(psycopg2.errors.InFailedSqlTransaction) as info:
        await cursor.execute("SELECT 1")
    assert info.value.pgcode == "25P02"
    await cursor.execute("ROLLBACK")
    await cursor.execute("SELECT 1")
    assert await cursor.fetchone() == (1,)


@pytest.mark.parametrize("encoding", ["LATIN1", "EUC_JP", "SQL_ASCII", "WIN1252"])
async def test_other_client_encodings(connect, dsn, encoding):
    text = {"EUC_JP": "日本", "SQL_ASCII": "plain"}.get(encoding, "grüße")
    statement = f"""DO $$ BEGIN RAISE EXCEPTION '{text}' USING DETAIL = '{text}'; END $$"""
    conn = await connect(client_encoding=encoding)
    with pytest.raises(psycopg2.errors.RaiseException) as info:
        await fetch(conn, statement)
    assert text in str(info.value)
    assert everything(info.value) == expected(dsn, statement, client_encoding=encoding)


async def test_undecodable_message(connect, dsn):
    """A message in bytes that the client's encoding has not: still the right error."""
    statement = r"""DO $$ BEGIN RAISE EXCEPTION '%', U&'\00fc' USING ERRCODE = 'AB123'; END $$"""
    conn = await connect()
    cursor = await conn.cursor()
    await cursor.execute("SELECT set_config('client_encoding', 'LATIN1', false)")
    with pytest.raises(psycopg2.Error) as info:
        await cursor.execute(statement)
    assert info.value.pgcode == "AB123"
    await cursor.execute("SELECT 1")
    assert await cursor.fetchone() == (1,)


@pytest.mark.parametrize(
    ("name", "bases"),
    [
        ("23505", [psycopg2.IntegrityError, psycopg2.DatabaseError, psycopg2.Error]),
        ("22012", [psycopg2.DataError]),
        ("42P01", [psycopg2.ProgrammingError]),
        ("40001", [psycopg2.extensions.TransactionRollbackError, psycopg2.OperationalError]),
        ("0A000", [psycopg2.NotSupportedError]),
        ("P0001", [psycopg2.InternalError]),
        ("AB123", [psycopg2.DatabaseError]),
    ],
)
async def test_base_classes(connect, name, bases):
    conn = await connect()
    for base in bases:
        with pytest.raises(base):
            await fetch(conn, STATEMENTS[name])


async def test_deferred_constraint_at_commit(connect):
    conn = await connect()
    cursor = await conn.cursor()
    await cursor.execute("CREATE TEMP TABLE late (i int, UNIQUE (i) DEFERRABLE INITIALLY DEFERRED)")
    await cursor.execute("BEGIN; INSERT INTO late VALUES (1), (1)")
    with pytest.raises(psycopg2.errors.UniqueViolation):
        await cursor.execute("COMMIT")
    assert await conn.get_transaction_status() == psycopg2.extensions.TRANSACTION_STATUS_IDLE


async def test_error_in_the_middle_of_a_result(connect):
    """Rows have been sent when the error comes: the error counts."""
    conn = await connect()
    cursor = await conn.cursor()
    with pytest.raises(psycopg2.errors.DivisionByZero):
        await cursor.execute("SELECT repeat('x', 100), 1/(5000-n) FROM generate_series(1, 6000) n")
    with pytest.raises(psycopg2.ProgrammingError, match="no results to fetch"):
        await cursor.fetchall()


async def test_error_of_a_typecaster(connect):
    """Values that psycopg2 can't show raise at the fetch, and only there."""
    conn = await connect()
    cursor = await conn.cursor()
    await cursor.execute("SELECT '0044-03-15 BC'::date")
    with pytest.raises(ValueError, match=r"year.*-44"):
        await cursor.fetchone()
    await cursor.execute("SELECT 1")
    assert await cursor.fetchone() == (1,)


async def test_error_of_an_adapter(connect):
    class Stubborn:
        def __conform__(self, protocol):
            raise LookupError("no adapter today")

    conn = await connect()
    with pytest.raises(LookupError, match="no adapter today"):
        await fetch(conn, "SELECT %s", (Stubborn(),))
    assert await fetch(conn, "SELECT 1") == [(1,)]
