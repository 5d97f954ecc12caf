"""Errors: the same as psycopg2's own, down to the last attribute of diag."""

import copy
import pickle

import psycopg2
import psycopg2.errors
import psycopg2.extensions
import pytest
from support import fetch

SCHEMA = """
    CREATE TABLE parent (id int PRIMARY KEY, name text NOT NULL, n int CHECK (n > 0));
    CREATE TABLE child (parent int REFERENCES parent);
    CREATE TABLE slot (during int4range, EXCLUDE USING gist (during WITH &&));
    CREATE DOMAIN positive AS int CHECK (VALUE > 0);
    CREATE TYPE mood AS ENUM ('sad', 'happy');
    INSERT INTO parent VALUES (1, 'one', 1);
    INSERT INTO child VALUES (1);
    INSERT INTO slot VALUES ('[1,5)');
    CREATE FUNCTION fail() RETURNS int LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'custom' USING ERRCODE = 'AB123', DETAIL = 'a detail',
            HINT = 'a hint', COLUMN = 'a column', CONSTRAINT = 'a constraint',
            DATATYPE = 'a type', TABLE = 'a table', SCHEMA = 'a schema'; END $$;
    CREATE FUNCTION nested() RETURNS int LANGUAGE plpgsql AS $$
        BEGIN RETURN fail(); END $$;
"""

STATEMENTS = {
    "02000": "DO $$ BEGIN RAISE SQLSTATE '02000'; END $$",
    "08P01": "DO $$ BEGIN RAISE SQLSTATE '08P01'; END $$",
    "0A000": "SELECT 1 FROM parent p FULL JOIN child c ON p.id < c.parent",
    "21000": "SELECT (SELECT generate_series(1, 2))",
    "22001": "SELECT set_config('x.y', 'z', true); CREATE TEMP TABLE short (a varchar(2)); "
    "INSERT INTO short VALUES ('long')",
    "22003": "SELECT 2147483647 + 1",
    "22007": "SELECT 'yesterday-ish'::date",
    "22008": "SELECT '2020-13-45'::date",
    "22012": "SELECT 1/0",
    "22023": "SELECT generate_series(1, 10, 0)",
    "22P02": "SELECT 'x'::int",
    "23502": "INSERT INTO parent VALUES (2, NULL, 1)",
    "23503": "INSERT INTO child VALUES (99)",
    "23505": "INSERT INTO parent VALUES (1, 'again', 1)",
    "23514": "INSERT INTO parent VALUES (3, 'three', -1)",
    "23P01": "INSERT INTO slot VALUES ('[2,3)')",
    "25001": "BEGIN; VACUUM; ROLLBACK",
    "25006": "BEGIN READ ONLY; CREATE TABLE never ()",
    "26000": "EXECUTE no_such_statement",
    "2BP01": "DROP TABLE parent",
    "34000": "CLOSE no_such_cursor",
    "3F000": "CREATE TABLE no_such_schema.t ()",
    "40001": "DO $$ BEGIN RAISE serialization_failure; END $$",
    "40P01": "DO $$ BEGIN RAISE deadlock_detected; END $$",
    "42501": "SET ROLE pg_monitor; SELECT * FROM parent",
    "42601": "SELEC 1",
    "42701": "CREATE TABLE twice (a int, a int)",
    "42702": "SELECT id FROM parent a, parent b",
    "42703": "SELECT no_such_column FROM parent",
    "42704": "SELECT 1::no_such_type",
    "42725": "SELECT date_part(NULL, NULL)",
    "42803": "SELECT id, count(*) FROM parent",
    "42804": "SELECT CASE WHEN true THEN 1 ELSE 'x'::text END",
    "42883": "SELECT no_such_function(1)",
    "42P01": "SELECT\n  *\nFROM nowhere\nWHERE true",
    "42P07": "CREATE TABLE parent ()",
    "42P18": "PREPARE p AS SELECT $1 IS NULL",
    "53100": "DO $$ BEGIN RAISE disk_full; END $$",
    "54001": "DO $$ BEGIN RAISE statement_too_complex; END $$",
    "55P03": "DO $$ BEGIN RAISE lock_not_available; END $$",
    "58P01": "SELECT pg_read_file('/no/such/file')",
    "AB123": "SELECT nested()",
    "P0001": "DO $$ BEGIN RAISE EXCEPTION 'percent %% and unicode: %', 'grüße'; END $$",
    "P0002": "DO $$ DECLARE x int; BEGIN SELECT 1 INTO STRICT x WHERE false; END $$",
    "P0004": "DO $$ BEGIN ASSERT false, 'not so'; END $$",
    "ZZ999": "DO $$ BEGIN RAISE EXCEPTION 'no class of its own' USING ERRCODE = 'ZZ999'; END $$",
    "domain": "SELECT 0::positive",
    "enum": "SELECT 'angry'::mood",
}

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


@pytest.mark.parametrize("statement", STATEMENTS.values(), ids=STATEMENTS)
async def test_same_as_psycopg2(connect, dsn, statement):
    conn = await connect()
    cursor = await conn.cursor()
    with pytest.raises(psycopg2.Error) as info:
        await cursor.execute(statement)
    assert everything(info.value) == expected(dsn, statement)
    await cursor.execute("ROLLBACK")


def test_the_table_is_broad(dsn):
    codes = {expected(dsn, statement)["pgcode"] for statement in STATEMENTS.values()}
    assert len(codes) >= 40
    for name, statement in STATEMENTS.items():
        if len(name) == 5:
            assert expected(dsn, statement)["pgcode"] == name


@pytest.mark.parametrize("statement", STATEMENTS.values(), ids=STATEMENTS)
async def test_pickle(connect, statement):
    conn = await connect()
    with pytest.raises(psycopg2.Error) as info:
        await fetch(conn, statement)
    error = info.value
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
    with pytest.raises(ValueError, match="year -44 is out of range"):
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
