"""Hot statements run prepared: when, what outdates them, and that nobody can tell."""

import asyncio
import contextlib
import datetime

import psycopg2
import psycopg2.extensions
import psycopg2.extras
import pytest
from bouncer import MODES
from proxy import proxy
from psycopg2 import sql
from psycopg2.extensions import parse_dsn
from support import nothing_left, registries_restored, running, side_connection, until

from aiopgx._plans import text_of

BY_KEY = "SELECT id, name FROM people WHERE id = %s"


@pytest.fixture
def people(side):
    with side.cursor() as cursor:
        cursor.execute(
            "DROP SCHEMA IF EXISTS other CASCADE;"
            "DROP TABLE IF EXISTS people;"
            "CREATE TABLE people (id int PRIMARY KEY, name text, born date, data bytea);"
            "INSERT INTO people SELECT i, 'n' || i, '2000-01-01'::date + i, '\\x00ff'"
            " FROM generate_series(1, 20) i"
        )
    return side


async def prepared(conn):
    """What is prepared on the server, by the server's own account: (statement, types)."""
    cur = await conn.cursor()
    await cur.execute(
        "SELECT statement, parameter_types::text FROM pg_prepared_statements"
        " WHERE name LIKE 'aiopgx%' ORDER BY prepare_time",
        prepare=False,
    )
    return await cur.fetchall()


async def execute(conn, operation, parameters=None, times=1, **kwargs):
    """The rows of the last time."""
    rows = None
    for _ in range(times):
        async with conn.cursor() as cur:
            await cur.execute(operation, parameters, **kwargs)
            rows = await cur.fetchall() if cur.description is not None else None
    return rows


async def hot(conn, operation=BY_KEY, parameters=(1,)):
    """Execute it until it is prepared."""
    before = len(await prepared(conn))
    rows = await execute(conn, operation, parameters, 7)
    assert len(await prepared(conn)) == before + 1
    return rows


# --- when -----------------------------------------------------------------------------------------


async def test_threshold(ours, connect, people):
    conn = await connect()
    assert conn.prepare_threshold == 5 and conn.prepared_max == 100
    for n in range(1, 6):
        await execute(conn, BY_KEY, (n,))
        assert await prepared(conn) == []
    assert await execute(conn, BY_KEY, (6,)) == [(6, "n6")]
    assert await prepared(conn) == [("SELECT id, name FROM people WHERE id = $1", "{integer}")]
    assert await execute(conn, BY_KEY, (7,)) == [(7, "n7")]
    assert conn._plans.executions == 2


async def test_threshold_counts_each_text(ours, connect, people):
    conn = await connect(prepare_threshold=2)
    for _ in range(2):
        await execute(conn, BY_KEY, (1,))
        await execute(conn, "SELECT name FROM people WHERE id = %s", (1,))
    assert await prepared(conn) == []
    await execute(conn, BY_KEY, (1,))
    assert len(await prepared(conn)) == 1


async def test_at_once(ours, connect, people):
    conn = await connect(prepare_threshold=0)
    assert await execute(conn, BY_KEY, (3,)) == [(3, "n3")]
    assert conn._plans.executions == 1


async def test_never(ours, connect, people):
    conn = await connect(prepare_threshold=None)
    await execute(conn, BY_KEY, (3,), 20)
    assert await prepared(conn) == []
    assert conn.prepare_threshold is None


async def test_set_on_the_connection(ours, connect, people):
    conn = await connect(prepare_threshold=None)
    conn.prepare_threshold = 0
    await execute(conn, BY_KEY, (3,))
    assert len(await prepared(conn)) == 1
    conn.prepare_threshold = None
    await execute(conn, "SELECT name FROM people WHERE id = %s", (1,), 9)
    assert len(await prepared(conn)) == 1


async def test_by_call(ours, connect, people):
    conn = await connect()
    await execute(conn, BY_KEY, (3,), prepare=True)
    assert len(await prepared(conn)) == 1
    await execute(conn, "SELECT name FROM people WHERE id = %s", (1,), 9, prepare=False)
    assert len(await prepared(conn)) == 1
    async with conn.execute("SELECT born FROM people WHERE id = %s", (1,), prepare=True) as cur:
        assert await cur.fetchall() == [(datetime.date(2000, 1, 2),)]
    assert len(await prepared(conn)) == 2


@pytest.mark.parametrize("name", ["prepare_threshold", "prepared_max"])
@pytest.mark.parametrize(
    ("value", "error"), [(-1, ValueError), ("5", TypeError), (True, TypeError)]
)
async def test_bad_arguments(ours, dsn, name, value, error):
    with pytest.raises(error, match=f"{name} must"):
        await ours.connect(dsn, **{name: value})


async def test_types_are_part_of_it(ours, connect, people):
    conn = await connect(prepare_threshold=0)
    await execute(conn, "SELECT name FROM people WHERE id = %s", (1,))
    await execute(conn, "SELECT name FROM people WHERE id = %s", (1.0,))
    await execute(conn, "SELECT name FROM people WHERE id = %s", ("1",))
    types = [types for _, types in await prepared(conn)]
    assert types == ["{integer}", "{numeric}", "{integer}"]


async def test_named_parameters(ours, connect, people):
    conn = await connect(prepare_threshold=0)
    operation = "SELECT id FROM people WHERE id = %(a)s OR (name = %(b)s AND id = %(a)s)"
    assert await execute(conn, operation, {"a": 2, "b": "n2", "c": object()}) == [(2,)]
    assert conn._plans.executions == 1


async def test_as_little_as_possible_without_parameters(ours, connect, people):
    conn = await connect(prepare_threshold=0)
    assert await execute(conn, "SELECT count(*) FROM people WHERE name LIKE 'n%'") == [(20,)]
    assert conn._plans.executions == 1


# --- bounded --------------------------------------------------------------------------------------


async def test_prepared_max(ours, connect, people):
    conn = await connect(prepare_threshold=0, prepared_max=3)
    for n in range(10):
        await execute(conn, f"SELECT id + {n} FROM people WHERE id = %s", (1,))
    texts = [text for text, _ in await prepared(conn)]
    assert texts == [f"SELECT id + {n} FROM people WHERE id = $1" for n in (7, 8, 9)]
    # the last to be used stays
    await execute(conn, "SELECT id + 7 FROM people WHERE id = %s", (1,))
    await execute(conn, "SELECT id + 0 FROM people WHERE id = %s", (1,))
    texts = [text for text, _ in await prepared(conn)]
    assert texts == [f"SELECT id + {n} FROM people WHERE id = $1" for n in (7, 9, 0)]


async def test_prepared_max_is_lowered(ours, connect, people):
    conn = await connect(prepare_threshold=0)
    for n in range(9):
        await execute(conn, f"SELECT {n} FROM people WHERE id = %s", (1,))
    conn.prepared_max = 2
    await execute(conn, "SELECT 1", prepare=False)
    assert len(await prepared(conn)) == len(conn._plans.names_in_use) == 2


@pytest.mark.parametrize("oid", [16, 23])
async def test_casters_of_the_program_do_no_harm(ours, connect, people, oid):
    """To what is asked about poolers."""
    conn = await connect()
    kept = psycopg2.extensions.new_type((oid,), "KEPT", lambda value, cur: value)
    psycopg2.extensions.register_type(kept, conn.raw)
    await execute(conn, "SET extra_float_digits = 0")
    await execute(conn, BY_KEY, (1,), 9)
    assert conn._plans.executions > 0 and not conn._plans.all_digits


async def test_prepared_max_is_zero(ours, connect, people):
    conn = await connect(prepare_threshold=0, prepared_max=0)
    assert await execute(conn, BY_KEY, (1,), 5) == [(1, "n1")]
    assert await prepared(conn) == []


async def test_texts_are_not_kept(ours, connect):
    conn = await connect()
    for n in range(1000):
        await execute(conn, f"SELECT {n}")
    assert sum(map(len, conn._plans.texts)) <= 400


# --- what outdates --------------------------------------------------------------------------------


async def test_a_column_is_added(ours, connect, people):
    conn = await connect()
    await hot(conn, "SELECT * FROM people WHERE id = %s")
    with people.cursor() as cursor:
        cursor.execute("ALTER TABLE people ADD extra int DEFAULT 3")
    async with conn.cursor() as cur:
        await cur.execute("SELECT * FROM people WHERE id = %s", (1,))
        assert (await cur.fetchone())[-1] == 3
        assert cur.description[-1].name == "extra"
    await hot(conn, "SELECT * FROM people WHERE id = %s")


async def test_a_type_is_changed(ours, connect, people):
    conn = await connect()
    await hot(conn)
    with people.cursor() as cursor:
        cursor.execute("ALTER TABLE people ALTER name TYPE int USING id")
    assert await execute(conn, BY_KEY, (4,)) == [(4, 4)]
    with people.cursor() as cursor:
        cursor.execute("ALTER TABLE people ALTER id TYPE text")
    with pytest.raises(psycopg2.errors.UndefinedFunction, match="LINE 1: SELECT id, name FROM"):
        await execute(conn, BY_KEY, (4,))
    assert await execute(conn, "SELECT 1") == [(1,)]


async def test_a_table_is_dropped(ours, connect, people):
    conn = await connect()
    await hot(conn)
    with people.cursor() as cursor:
        cursor.execute("DROP TABLE people")
    with pytest.raises(psycopg2.errors.UndefinedTable) as caught:
        await execute(conn, BY_KEY, (4,))
    assert "LINE 1: SELECT id, name FROM people WHERE id = 4" in str(caught.value)
    assert caught.value.diag.statement_position == "22"


async def test_in_a_transaction_a_changed_table_does_no_harm(ours, connect, people):
    conn = await connect()
    await hot(conn, "SELECT * FROM people WHERE id = %s")
    with people.cursor() as cursor:
        cursor.execute("ALTER TABLE people ADD extra int DEFAULT 3")
    await execute(conn, "BEGIN")
    for _ in range(3):
        rows = await execute(conn, "SELECT * FROM people WHERE id = %s", (1,))
        assert rows[0][-1] == 3
    await execute(conn, "COMMIT")


@pytest.mark.parametrize("command", ["DEALLOCATE ALL", "DISCARD ALL", "DEALLOCATE {name}"])
@pytest.mark.parametrize("hidden", [False, True])
async def test_deallocated(ours, connect, people, command, hidden):
    """hidden: psycopg2 does it, behind our back."""
    conn = await connect()
    await hot(conn)
    command = command.format(name=conn._plans.names_in_use[0].decode())
    if hidden and command == "DISCARD ALL":
        command = "DEALLOCATE ALL"
    if hidden:
        with people.cursor() as cursor:
            cursor.execute(
                "CREATE OR REPLACE FUNCTION hide() RETURNS int LANGUAGE plpgsql AS"
                f" $$ BEGIN EXECUTE '{command}'; RETURN 1; END $$"
            )
        await execute(conn, "SELECT hide()")
    else:
        await execute(conn, command)
    assert await execute(conn, BY_KEY, (4,)) == [(4, "n4")]
    await hot(conn)


async def test_search_path(ours, connect, people):
    with people.cursor() as cursor:
        cursor.execute(
            "CREATE SCHEMA other; CREATE TABLE other.people AS SELECT 1 AS id, 'other' AS name"
        )
    conn = await connect()
    await hot(conn)
    await execute(conn, "SET search_path = other, public")
    assert await execute(conn, BY_KEY, (1,)) == [(1, "other")]
    await hot(conn)
    await execute(conn, "SELECT set_config('search_path', 'public', false)")
    assert await execute(conn, BY_KEY, (1,)) == [(1, "n1")]


async def test_a_transaction_changes_back(ours, connect, people):
    with people.cursor() as cursor:
        cursor.execute(
            "CREATE SCHEMA other; CREATE TABLE other.people AS SELECT 1 AS id, 'other' AS name"
        )
    conn = await connect(prepare_threshold=2)
    for end in ("ROLLBACK", "COMMIT"):
        await execute(conn, "BEGIN")
        await execute(conn, "SET LOCAL search_path = other, public")
        assert await execute(conn, BY_KEY, (1,), 9) == [(1, "other")]
        await execute(conn, end)
        assert await execute(conn, BY_KEY, (1,)) == [(1, "n1")]


async def test_a_temporary_table_shadows(ours, connect, people):
    conn = await connect()
    await execute(conn, "CREATE TEMP TABLE unrelated (a int)")
    await hot(conn)
    await execute(conn, "CREATE TEMP TABLE people AS SELECT 1 AS id, 'temporary'::text AS name")
    assert await execute(conn, BY_KEY, (1,)) == [(1, "temporary")]


@pytest.mark.parametrize("goes_on", [False, True])
async def test_what_was_set_before_anything_was_hot(ours, connect, people, goes_on):
    """It ends with the transaction, and so does what was prepared by it."""
    operation = "SELECT id FROM people WHERE name = NULL AND id > %s"
    conn = await connect()
    await execute(conn, "INSERT INTO people (id) VALUES (21)")
    await execute(conn, "BEGIN")
    await execute(conn, "SET LOCAL transform_null_equals = on")
    if goes_on:
        await execute(conn, "SAVEPOINT s")
        await execute(conn, "ROLLBACK TO s")
    assert await hot(conn, operation, (0,)) == [(21,)]
    await execute(conn, "COMMIT")
    assert await execute(conn, operation, (0,)) == []


async def test_callproc_that_sets(ours, connect, people):
    operation = "SELECT id FROM people WHERE name = NULL AND id > %s"
    conn = await connect()
    await execute(conn, "INSERT INTO people (id) VALUES (21)")
    assert await hot(conn, operation, (0,)) == []
    async with conn.cursor() as cur:
        await cur.callproc("set_config", ("transform_null_equals", "on", False))
    assert await execute(conn, operation, (0,)) == [(21,)]


@pytest.mark.parametrize("meanwhile", ["CREATE TEMP TABLE unrelated (a int)", "ROLLBACK TO s"])
async def test_digits_of_floats_after_a_transaction(ours, connect, people, meanwhile):
    """Written with fewer of them, a float comes as text."""
    operation = "SELECT 0.1::float8 + 0.2::float8, data FROM people WHERE id = %s"
    conn = await connect()
    await execute(conn, "SET extra_float_digits = 0")
    await execute(conn, "BEGIN")
    await execute(conn, "SET LOCAL extra_float_digits = 3")
    await execute(conn, "SAVEPOINT s")
    await execute(conn, operation, (1,), 7)
    await execute(conn, meanwhile)
    assert (await hot(conn, operation))[0][0] == 0.1 + 0.2
    await execute(conn, "COMMIT")
    for _ in range(7):
        assert (await execute(conn, operation, (1,)))[0][0] == 0.3


@pytest.mark.parametrize("how", ["SET", "function", "SET LOCAL"])
async def test_time_zone(ours, connect, people, how):
    operation = (
        "SELECT '2020-06-01 12:00'::timestamptz = '2020-06-01 12:00+00' FROM people LIMIT %s"
    )
    conn = await connect()
    await execute(conn, "SET TimeZone = 'UTC'")
    assert await hot(conn, operation, (1,)) == [(True,)]
    change = {
        "SET": "SET TimeZone = 'Asia/Tokyo'",
        "SET LOCAL": "BEGIN; SET LOCAL TimeZone = 'Asia/Tokyo'",
        "function": "SELECT tokyo()",
    }
    with people.cursor() as cursor:
        cursor.execute(
            "CREATE OR REPLACE FUNCTION tokyo() RETURNS text LANGUAGE sql AS"
            " $$ SELECT set_config('TimeZone', 'Asia/Tokyo', false) $$"
        )
    await execute(conn, change[how])
    assert await execute(conn, operation, (1,)) == [(False,)]
    if how == "SET LOCAL":
        await execute(conn, operation, (1,), 7)
        await execute(conn, "COMMIT")
        assert await execute(conn, operation, (1,)) == [(True,)]


async def test_date_style(ours, connect, people):
    operation = "SELECT '01/02/2020'::date, id FROM people WHERE id = %s"
    conn = await connect()
    assert await hot(conn, operation) == [(datetime.date(2020, 1, 2), 1)]
    await execute(conn, "SET DateStyle = 'SQL, DMY'")
    await execute(conn, "SET DateStyle = 'ISO, DMY'")
    assert await execute(conn, operation, (1,)) == [(datetime.date(2020, 2, 1), 1)]


async def test_role_and_row_security(ours, connect, people):
    with people.cursor() as cursor:
        cursor.execute(
            "DROP ROLE IF EXISTS aiopgx_reader; CREATE ROLE aiopgx_reader;"
            "ALTER TABLE people ENABLE ROW LEVEL SECURITY;"
            "CREATE POLICY late ON people TO aiopgx_reader USING (id > 10);"
            "GRANT SELECT ON people TO aiopgx_reader"
        )
    conn = await connect()
    await hot(conn)
    await execute(conn, "SET ROLE aiopgx_reader")
    assert await execute(conn, BY_KEY, (1,), 7) == []
    await execute(conn, "RESET ROLE")
    assert await execute(conn, BY_KEY, (1,)) == [(1, "n1")]
    with people.cursor() as cursor:
        cursor.execute(
            "REVOKE ALL ON people FROM aiopgx_reader; DROP POLICY late ON people;"
            "DROP ROLE aiopgx_reader"
        )


@pytest.mark.parametrize(
    "harmless",
    [
        "SET statement_timeout = 10000",
        "SET LOCAL lock_timeout = 10",
        "BEGIN",
        "SELECT 1",
        "SET SESSION application_name = 'x'",
        "INSERT INTO people VALUES (99)",
        "ROLLBACK",
        "COMMIT",
    ],
)
@pytest.mark.filterwarnings("ignore")
async def test_what_does_not_outdate(ours, connect, people, harmless):
    conn = await connect()
    await hot(conn)
    names = conn._plans.names_in_use
    await execute(conn, harmless)
    assert conn._plans.names_in_use == names and len(names) == 1


async def test_what_is_forgotten_is_closed(ours, connect, people):
    conn = await connect(prepare_threshold=0)
    for n in range(5):
        await execute(conn, f"SELECT {n} FROM people WHERE id = %s", (1,))
    assert len(await prepared(conn)) == 5
    await execute(conn, "SET search_path = public")
    await execute(conn, "SELECT 1")
    assert [text for text, _ in await prepared(conn)] == ["SELECT 1"]


async def test_what_is_forgotten_again_and_again_is_left_alone(ours, connect, people):
    """Ten executions between two SETs do not pay for Parse."""
    conn = await connect()
    for _ in range(20):
        await execute(conn, "SET search_path = public")
        await execute(conn, BY_KEY, (1,), 10)
    assert conn._plans.executions < 25
    await execute(conn, BY_KEY, (1,), 200)
    assert conn._plans.executions > 100


async def test_digits_of_floats(ours, connect, people):
    conn = await connect(prepare_threshold=2)
    operation = "SELECT 0.1::float8 + 0.2::float8 FROM people WHERE id = %s"
    assert await execute(conn, operation, (1,), 9) == [(0.30000000000000004,)]
    for how in ("SET extra_float_digits = 0", "SET LOCAL extra_float_digits = 0"):
        await execute(conn, "BEGIN")
        await execute(conn, how)
        assert await execute(conn, operation, (1,), 9) == [(0.3,)]
        await execute(conn, "ROLLBACK")
        assert await execute(conn, operation, (1,), 9) == [(0.30000000000000004,)]


# --- transactions ---------------------------------------------------------------------------------


async def test_in_a_transaction_the_first_is_text(ours, connect, people):
    conn = await connect()
    await hot(conn)
    before = conn._plans.executions
    await execute(conn, "BEGIN")
    await execute(conn, BY_KEY, (1,))
    assert conn._plans.executions == before
    await execute(conn, BY_KEY, (1,), 3)
    assert conn._plans.executions == before + 3
    await execute(conn, "SAVEPOINT s")
    await execute(conn, "ROLLBACK TO s")
    await execute(conn, BY_KEY, (1,))
    assert conn._plans.executions == before + 3
    await execute(conn, "COMMIT")
    await execute(conn, BY_KEY, (1,))
    assert conn._plans.executions == before + 4


async def test_first_prepared_in_a_transaction(ours, connect, people):
    """Within a savepoint, of which nothing is left."""
    conn = await connect(prepare_threshold=1)
    operation = "SELECT id, born FROM people WHERE id = %s"
    await execute(conn, "BEGIN")
    await execute(conn, "SAVEPOINT aiopgx_prepare")  # of the same name
    await execute(conn, "INSERT INTO people VALUES (77)")
    for n in range(1, 5):
        assert (await execute(conn, operation, (n,)))[0][0] == n
    assert conn._plans.executions == 3
    assert await conn.get_transaction_status() == psycopg2.extensions.TRANSACTION_STATUS_INTRANS
    await execute(conn, "ROLLBACK TO aiopgx_prepare")
    assert await execute(conn, "SELECT id FROM people WHERE id = 77") == []
    await execute(conn, "COMMIT")


async def test_the_next_transaction_of_a_chain(ours, connect, people):
    """It has no locks yet."""
    conn = await connect()
    await hot(conn)
    await execute(conn, "BEGIN")
    await execute(conn, BY_KEY, (1,), 2)
    await execute(conn, "COMMIT AND CHAIN")
    with people.cursor() as cursor:
        cursor.execute("ALTER TABLE people ALTER name TYPE varchar(20)")
    assert await execute(conn, BY_KEY, (1,), 3) == [(1, "n1")]
    await execute(conn, "COMMIT")


@pytest.mark.parametrize(
    "column, largest", [("int2", 2**15 - 1), ("int4", 2**31 - 1), ("int8", 2**31 - 1)]
)
async def test_set_of_integers(ours, connect, people, column, largest):
    """They fit, or the server says what it says of the literal."""
    conn = await connect()
    await execute(conn, f"CREATE TEMP TABLE integers AS SELECT 0::{column} AS n")
    operation = "UPDATE integers SET n = %s RETURNING n"
    await hot(conn, operation, (1,))
    before = conn._plans.executions
    for value in (0, -1, largest, -largest):
        assert await execute(conn, operation, (value,)) == [(value,)]
    assert conn._plans.executions == before + 4
    if column != "int8":
        with pytest.raises(psycopg2.errors.NumericValueOutOfRange):
            await execute(conn, operation, (largest + 1,))
    assert conn._plans.executions == before + 4


@pytest.mark.parametrize(
    "operation",
    [
        "SELECT id FROM people WHERE name = %s",
        "UPDATE people SET name = %s WHERE id = 1",
        "INSERT INTO people (id, name) SELECT id + 100, name FROM people WHERE name = %s",
    ],
)
async def test_the_type_of_a_parameter_is_changed(ours, connect, people, operation):
    """What the server has found out for a str holds for as long as the tables are locked."""
    conn = await connect()
    await hot(conn, operation, ("1",))
    with people.cursor() as cursor:
        cursor.execute("ALTER TABLE people ALTER name TYPE int USING 1")
        cursor.execute("DELETE FROM people WHERE id > 1")
    await execute(conn, "BEGIN")
    await execute(conn, operation, ("2",), 3)
    await execute(conn, "COMMIT")
    assert await conn.get_transaction_status() == psycopg2.extensions.TRANSACTION_STATUS_IDLE


async def test_a_str_is_prepared_anew_in_a_transaction(ours, connect, people):
    """That pays in those that execute it often."""
    conn = await connect()
    operation = "SELECT id FROM people WHERE name = %s"
    await hot(conn, operation, ("n1",))
    before = conn._plans.executions
    await execute(conn, "BEGIN")
    assert await execute(conn, operation, ("n2",), 6) == [(2,)]
    assert conn._plans.executions == before
    assert await execute(conn, operation, ("n3",), 3) == [(3,)]
    assert conn._plans.executions == before + 3
    assert len(conn._plans.names_in_use) == len(await prepared(conn)) == 1
    await execute(conn, "COMMIT")


async def test_what_has_failed_does_not_fail_again(ours, connect, people):
    """Deallocated by a function, within a transaction."""
    with people.cursor() as cursor:
        cursor.execute(
            "CREATE OR REPLACE FUNCTION deallocate() RETURNS void LANGUAGE plpgsql AS"
            " $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$"
        )
    conn = await connect()
    other = "SELECT name FROM people WHERE id = %s"
    await hot(conn)
    await hot(conn, other)
    await execute(conn, "BEGIN")
    await execute(conn, BY_KEY, (1,))
    await execute(conn, "SELECT deallocate()")
    with pytest.raises(psycopg2.errors.InvalidSqlStatementName):
        await execute(conn, BY_KEY, (1,))
    await execute(conn, "ROLLBACK")
    await execute(conn, "BEGIN")
    assert await execute(conn, BY_KEY, (1,), 3) == [(1, "n1")]
    assert await execute(conn, other, (1,), 3) == [("n1",)]
    await execute(conn, "ROLLBACK")


@pytest.mark.parametrize("begun", [True, False])
async def test_a_parse_that_fails_aborts_no_transaction(ours, dsn, connect, people, begun):
    """The server gets to see another statement."""
    operation = f"SELECT id FROM people WHERE name <> '{begun}' AND id = %s"
    with proxy(int(parse_dsn(dsn)["port"]), swap=(b"id = $1", b"id = $z")) as port:
        conn = await connect(psycopg2.extensions.make_dsn(dsn, port=port), prepare_threshold=1)
        if begun:
            await execute(conn, "BEGIN")
        await execute(conn, "INSERT INTO people VALUES (78)")
        for n in range(1, 6):
            assert await execute(conn, operation, (n,)) == [(n,)]
        if begun:
            await execute(conn, "COMMIT")
        assert await execute(conn, "SELECT id FROM people WHERE id = 78") == [(78,)]
        assert conn._plans.names_in_use == []
    assert list(text_of(operation, True).proven.values()) == [False]  # it is not tried again


async def test_an_error_in_a_transaction_is_as_ever(ours, connect, people):
    conn = await connect()
    operation = "SELECT id FROM people WHERE born = %s"
    for value, times in (("2000-01-02", 9), ("2000-13-13", 1)):
        await execute(conn, "BEGIN")
        with contextlib.suppress(psycopg2.DataError):
            await execute(conn, operation, (value,), times)
        await execute(conn, "ROLLBACK")
    await execute(conn, "BEGIN")
    await execute(conn, operation, ("2000-01-02",), 3)
    with pytest.raises(psycopg2.errors.DatetimeFieldOverflow, match="LINE 1: SELECT id FROM"):
        await execute(conn, operation, ("2000-13-13",))
    await execute(conn, "ROLLBACK")


async def test_bind_errors_are_those_of_texts(ours, connect, people):
    conn = await connect()
    operation = "SELECT id FROM people WHERE born = %s"
    await hot(conn, operation, ("2000-01-02",))
    with pytest.raises(psycopg2.errors.InvalidDatetimeFormat) as caught:
        await execute(conn, operation, ("no date",))
    assert "LINE 1: SELECT id FROM people WHERE born = 'no date'" in str(caught.value)
    assert caught.value.diag.context is None
    assert await execute(conn, operation, ("2000-01-02",)) == [(1,)]


# --- values ---------------------------------------------------------------------------------------


async def test_query(ours, connect, people):
    conn = await connect(prepare_threshold=0)
    cur = await conn.cursor()
    ids = [1, 2]
    await cur.execute("SELECT name FROM people WHERE id = ANY(%s) AND name = %s", (ids, "n2"))
    assert conn._plans.executions == 1
    ids.append(3)
    assert cur.query == b"SELECT name FROM people WHERE id = ANY(ARRAY[1,2]) AND name = 'n2'"
    born = datetime.date(2000, 1, 3)
    await cur.execute("SELECT name FROM people WHERE born = %(d)s", {"d": born})
    assert conn._plans.executions == 2
    conn.close()
    assert cur.query == b"SELECT name FROM people WHERE born = '2000-01-03'::date"


async def test_json_is_dumped_once(ours, connect, people):
    """So that what is shown is what is stored, whatever dumps() gives the next time."""
    texts = iter([f'["{n}\\\\é"]' for n in range(40)])
    operation = "UPDATE people SET doc = %s WHERE id = 1 RETURNING doc::text"
    conn = await connect(prepare_threshold=0)
    await execute(conn, "ALTER TABLE people ADD doc jsonb")
    await execute(conn, operation, (psycopg2.extras.Json({}),), 2)
    cur = await conn.cursor()
    before = conn._plans.executions
    await cur.execute(operation, (psycopg2.extras.Json({}, dumps=lambda _: next(texts)),))
    assert conn._plans.executions == before + 1
    assert await cur.fetchall() == [('["0\\\\é"]',)]
    assert next(texts) == '["1\\\\é"]'
    text = cur.mogrify(operation, ('["0\\\\é"]',))
    conn.close()
    assert cur.query == text


async def test_handed_over(ours, connect, people):
    conn = await connect(prepare_threshold=0)
    cur = await conn.cursor()
    await cur.execute("SELECT data, id FROM people WHERE id = %s", (1,))
    assert conn._plans.executions == 1
    assert cur.raw.query == b"SELECT data, id FROM people WHERE id = 1"
    row = cur.raw.fetchone()
    assert (bytes(row[0]), row[1]) == (b"\x00\xff", 1)


async def test_adapters_of_the_program_close_the_road(ours, connect, people):
    conn = await connect()
    await hot(conn)
    before = conn._plans.executions
    with registries_restored():
        psycopg2.extensions.register_adapter(int, lambda n: psycopg2.extensions.AsIs(n + 1))
        assert await execute(conn, BY_KEY, (1,)) == [(2, "n2")]
    assert conn._plans.executions == before
    assert await execute(conn, BY_KEY, (1,)) == [(1, "n1")]
    assert conn._plans.executions == before + 1


async def test_enums(ours, connect, people):
    with people.cursor() as cursor:
        cursor.execute(
            "DROP TABLE IF EXISTS moody; DROP TYPE IF EXISTS mood; DROP DOMAIN IF EXISTS even;"
            "CREATE TYPE mood AS ENUM ('sad', 'happy');"
            "CREATE DOMAIN even AS int CHECK (VALUE % 2 = 0);"
            "CREATE TABLE moody (m mood, e even)"
        )
    conn = await connect(prepare_threshold=0)
    await execute(conn, "INSERT INTO moody (m) VALUES (%s)", ("sad",))
    assert await execute(conn, "SELECT m FROM moody WHERE m = %s", ("sad",)) == [("sad",)]
    assert conn._plans.executions == 2
    await execute(conn, "INSERT INTO moody (e) VALUES (%s)", ("2",))
    with pytest.raises(psycopg2.errors.CheckViolation):
        await execute(conn, "INSERT INTO moody (e) VALUES (%s)", ("3",))
    assert conn._plans.executions == 2  # a domain's check is not made as for a literal


@pytest.mark.parametrize("value", ["\ud800", "a\0b"])
async def test_what_psycopg2_refuses(ours, connect, people, value):
    conn = await connect()
    operation = "SELECT id FROM people WHERE name = %s"
    await hot(conn, operation, ("n1",))
    with pytest.raises((UnicodeEncodeError, ValueError)):
        await execute(conn, operation, (value,))
    assert await execute(conn, operation, ("n2",)) == [(2,)]


@pytest.mark.parametrize("parameters", [(), (1, 2), None, {"a": 1}, 5])
async def test_wrong_parameters(ours, connect, people, parameters):
    conn, fresh = await connect(), await connect(prepare_threshold=None)
    await hot(conn)
    errors = []
    for c in (conn, fresh):
        with pytest.raises(Exception) as caught:  # both the same
            await execute(c, BY_KEY, parameters)
        errors.append((type(caught.value), str(caught.value)))
    assert errors[0] == errors[1]
    assert await execute(conn, BY_KEY, (1,)) == [(1, "n1")]


@pytest.mark.parametrize(
    "operation",
    [
        b"SELECT id FROM people WHERE id = %s",
        "SELECT id FROM people WHERE id = %s; SELECT 1",
        "SELECT id FROM people ORDER BY %s",
    ],
)
async def test_what_stays_text(ours, connect, people, operation):
    conn = await connect(prepare_threshold=0)
    await execute(conn, operation, (1,), 3)
    assert await prepared(conn) == []


async def test_composed(ours, connect, people):
    conn = await connect(prepare_threshold=0)
    operation = sql.SQL("SELECT {} FROM people WHERE id = %s").format(sql.Identifier("name"))
    assert await execute(conn, operation, (1,)) == [("n1",)]
    assert conn._plans.executions == 1


@pytest.mark.parametrize(
    "factory",
    [psycopg2.extras.DictCursor, psycopg2.extras.RealDictCursor, psycopg2.extras.NamedTupleCursor],
)
async def test_row_shapes(ours, connect, people, factory):
    conn = await connect(prepare_threshold=0)
    async with conn.cursor(cursor_factory=factory) as cur:
        await cur.execute("SELECT id, data FROM people WHERE id = %s", (1,))
        row = await cur.fetchone()
    assert conn._plans.executions == 1
    first = row.id if hasattr(row, "_fields") else row["id"]
    assert first == 1


# --- many at once, given up -----------------------------------------------------------------------


@pytest.mark.all_loops
async def test_ten_connections_meet_the_same_text(ours, pool, people):
    p = await pool(minsize=10, maxsize=10)

    async def work(start):
        for n in range(30):
            async with p.acquire() as conn, conn.cursor() as cur:
                key = (start + n) % 20 + 1
                await cur.execute(BY_KEY, (key,))
                assert await cur.fetchall() == [(key, f"n{key}")]

    await asyncio.gather(*map(work, range(10)))
    assert sum(conn._plans.executions for conn in p._free) > 200


@pytest.mark.all_loops
@pytest.mark.parametrize("step", range(12))
async def test_given_up_while_it_is_prepared(ours, connect, people, step):
    """Cancelled after so many steps of the loop."""
    conn = await connect(prepare_threshold=0)
    task = asyncio.ensure_future(execute(conn, BY_KEY, (5,)))
    for _ in range(step):
        await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert conn.closed or await execute(conn, BY_KEY, (5,)) == [(5, "n5")]


@pytest.mark.all_loops
async def test_raw_closed_while_statements_are_being_closed(ours, connect, people):
    """In the same step of the loop; uvloop aborts the process for a socket that is gone by then."""
    conn = await connect(prepare_threshold=0)
    await execute(conn, BY_KEY, (1,))
    await execute(conn, "SET search_path = public")
    conn.raw.close()
    await asyncio.sleep(0.02)
    assert conn.closed


@pytest.mark.all_loops
async def test_timeout_while_it_is_prepared(ours, connect, people):
    """The table is locked: Parse waits."""
    conn = await connect(prepare_threshold=0)
    with nothing_left(people, "people WHERE id"), people.cursor() as cursor:
        cursor.execute("BEGIN; LOCK people IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(asyncio.TimeoutError):
            await execute(conn, BY_KEY, (5,), timeout=0.2)
        assert conn.closed
        cursor.execute("ROLLBACK")


async def test_killed_while_it_is_prepared(ours, dsn, connect, people):
    conn = await connect(prepare_threshold=0)
    pid = await conn.get_backend_pid()
    with people.cursor() as cursor:
        cursor.execute("BEGIN; LOCK people IN ACCESS EXCLUSIVE MODE")
        task = asyncio.ensure_future(execute(conn, BY_KEY, (5,)))
        with side_connection(dsn) as other:  # within a transaction the activity stands still
            await until(lambda: running(other, "people WHERE id") == 1)
        cursor.execute("SELECT pg_terminate_backend(%s)", (pid,))
        with pytest.raises(psycopg2.OperationalError):
            await task
        cursor.execute("ROLLBACK")


# --- SQLAlchemy -----------------------------------------------------------------------------------


async def test_sa_profits(ours, dsn, people):
    sa = pytest.importorskip("sqlalchemy")
    import aiopgx.sa

    table = sa.Table(
        "people", sa.MetaData(), sa.Column("id", sa.Integer), sa.Column("name", sa.Text)
    )
    async with (
        aiopgx.sa.create_engine(dsn, maxsize=1, prepare_threshold=2) as engine,
        engine.acquire() as conn,
    ):
        for n in range(1, 9):
            result = await conn.execute(table.select().where(table.c.id == n))
            assert (await result.fetchone()).name == f"n{n}"
        assert conn.connection._plans.executions > 3


# --- poolers --------------------------------------------------------------------------------------


@pytest.mark.needs("pgbouncer")
@pytest.mark.needs("openssl")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sslmode", ["disable", "require"])
async def test_nothing_is_prepared_behind_a_pooler(ours, dsn, people, pooler, mode, sslmode):
    front = pooler(mode).dsn(parse_dsn(dsn)["dbname"])
    async with ours.create_pool(front, minsize=5, maxsize=5, sslmode=sslmode) as pool:

        async def work(n):
            async with pool.acquire() as conn, conn.cursor() as cur:
                await cur.execute(BY_KEY, (n % 20 + 1,))
                assert await cur.fetchall() == [(n % 20 + 1, f"n{n % 20 + 1}")]

        for start in range(0, 300, 30):
            await asyncio.gather(*map(work, range(start, start + 30)))
        assert [conn._plans.executions for conn in pool._free] == [0] * 5
    with people.cursor() as cursor:
        cursor.execute("SELECT 1")


@pytest.mark.needs("pgbouncer")
@pytest.mark.needs("openssl")
async def test_prepared_behind_a_pooler_if_wanted(ours, dsn, people, pooler):
    front = pooler("session").dsn(parse_dsn(dsn)["dbname"])
    async with ours.connect(front, prepare_threshold=5) as conn:
        await execute(conn, BY_KEY, (1,), 9)
        assert conn._plans.executions == 4
