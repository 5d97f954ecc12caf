"""Results in binary: read by aiopgx, they are what psycopg2 makes of the same values in text."""

import contextlib
import gc

import psycopg2
import psycopg2.extensions
import psycopg2.extras
import pytest
from conftest import command, side_connection
from extended import execute, give, types
from forge import forged, poison
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg2.extensions import new_array_type, new_type, register_type
from roads import portrait
from types_table import ARRAYS, SCHEMA, SETTINGS, expressions

import aiopgx._rows
from aiopgx._binary import binary_possible, binary_worth

# What is exact, by the name of the type; and what of it gains alone.
EXACT = {
    *("bool", "bytea", "name", "int8", "int2", "int4", "text", "oid", "json", "float8", "unknown"),
    *("bpchar", "varchar", "uuid"),
}
GAINING = {"bytea", "float8", "uuid"}
EXACT_ARRAYS = EXACT - {"json", "unknown"}


@pytest.fixture(scope="module")
def conn(dsn):
    """A connection as aiopgx sets it up."""
    with side_connection(dsn) as conn:
        command(conn, SCHEMA)
        psycopg2.extras.register_uuid(conn_or_curs=conn)
        psycopg2.extras.register_default_json(conn)
        yield conn


@pytest.fixture
def scene(conn):
    """Take the settings and registrations of a test back."""
    before = dict(conn.string_types)
    yield conn
    conn.string_types.clear()
    conn.string_types.update(before)
    conn.set_client_encoding("UTF8")
    command(conn, "RESET ALL")


def in_text(conn, sql, factory, prepare):
    """What psycopg2 fetches, or its exception."""
    with conn.cursor(cursor_factory=factory) as cursor:
        prepare(cursor)
        cursor.execute(sql)
        return outcome(cursor.fetchall)


def in_binary(conn, sql, factory, prepare, fetch=lambda result: result.fetchall()):
    with conn.cursor(cursor_factory=factory) as cursor:
        prepare(cursor)
        give(cursor, execute(conn, sql, result_format=1))
        return outcome(fetch, aiopgx._rows.take(cursor))


def outcome(function, *args):
    try:
        return portrait(function(*args))
    except Exception as error:
        return type(error), portrait(error.args)


def check(conn, sql, factory=psycopg2.extensions.cursor, prepare=lambda cursor: None):
    expected = in_text(conn, sql, factory, prepare)
    assert in_binary(conn, sql, factory, prepare) == expected, sql
    if factory is psycopg2.extensions.cursor:

        def hand_over(result):
            with conn.cursor() as cursor:
                prepare(cursor)
                result.hand_over(cursor)
                return cursor.fetchall()

        assert in_binary(conn, sql, factory, prepare, hand_over) == expected, sql
    return expected


def version_of(conn):
    return conn.server_version // 10000


# --- which types ----------------------------------------------------------------------------------


def test_which_types_are_possible(conn):
    with conn.cursor() as cursor:
        cursor.execute("SELECT typname, oid FROM pg_type")
        oids = dict(cursor.fetchall())
    assert len(oids) > 500
    arrays = {f"_{name}" for name in EXACT - {"json", "unknown"}}
    for name, oid in oids.items():
        assert binary_possible((oid, 17), True) == (name in EXACT | arrays), name
        assert binary_possible((oid,), True) == (name in GAINING | arrays), name


def test_floats_only_with_all_their_digits():
    for oids in (701,), (1022,), (17, 701):
        assert binary_possible(oids, True)
        assert not binary_possible(oids, False)
    assert binary_possible((17, 23), False)
    assert not binary_possible((17, 700), True)
    assert not binary_possible((), True)


WORTH = [(17,), (17, 23, 25), (1007,), (1009, 25), (2950,), (1000, 1001, 1005, 1016, 1028, 2951)]
REGISTER = {
    "cursor": lambda caster, conn, cursor: register_type(caster, cursor),
    "connection": lambda caster, conn, cursor: register_type(caster, conn),
    "global": lambda caster, conn, cursor: register_type(caster),
}


@pytest.mark.parametrize("oids", WORTH)
def test_worth_with_psycopg2s_casters(scene, oids):
    with scene.cursor() as cursor:
        assert binary_worth(oids, cursor, False)
        scene.set_client_encoding("LATIN1")
        assert not binary_worth(oids, cursor, False)


@pytest.mark.parametrize("place", REGISTER)
@pytest.mark.parametrize("oid", [17, 23, 25, 1007, 2950])
def test_a_caster_of_the_program_closes_it(scene, oid, place):
    seen = []

    def cast(value, cursor):
        seen.append(value)
        return value and value.upper()

    known = dict(psycopg2.extensions.string_types)
    sql = "SELECT '\\x00ff'::bytea, 7, 'a', '{1,NULL,-3}'::int[], %s::uuid, NULL::bytea"
    sql = sql.replace("%s", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'")
    try:
        with scene.cursor() as cursor:
            assert binary_worth((17, oid), cursor, False)
            REGISTER[place](new_type((oid,), "own", cast), scene, cursor)
            # uuid has one of the connection's, which goes before
            closed = (oid, place) != (2950, "global")
            assert binary_worth((17, oid), cursor, False) != closed
            # it may have been registered when the query was under way
            caster = new_type((oid,), "own", cast)
            check(scene, sql, prepare=lambda c: REGISTER[place](caster, scene, c))
            assert len(seen) == closed * (3 + 3 * (oid == 17))
    finally:
        psycopg2.extensions.string_types.clear()
        psycopg2.extensions.string_types.update(known)


def test_psycopg2s_own_caster_of_another_type_closes_it(scene):
    with scene.cursor() as cursor:
        register_type(new_type((17,), "BYTES", psycopg2.extensions.BYTES), cursor)
        assert not binary_worth((17,), cursor, False)
        register_type(new_array_type((1007,), "TEXTS", psycopg2.extensions.UNICODE), cursor)
        assert not binary_worth((1007,), cursor, False)
        check(
            *(scene, "SELECT 'ab'::bytea, '{1,NULL}'::int[]"),
            prepare=lambda c: [register_type(t, c) for t in cursor.string_types.values()],
        )


# --- values ---------------------------------------------------------------------------------------


def exact_expressions(conn):
    for name in EXACT:
        values = list(expressions(name, version_of(conn)))
        yield name, [*values, f"NULL::{name}"]
        if name in EXACT_ARRAYS:
            yield (
                f"{name}[]",
                [
                    f"'{{}}'::{name}[]",
                    f"NULL::{name}[]",
                    f"ARRAY[{', '.join(values)}, NULL]::{name}[]",
                    *(f"ARRAY[[{value}, NULL], [NULL, {value}]]::{name}[]" for value in values),
                    *(
                        f"array_fill({values[-1]}, '{{{sizes}}}'::int[], '{{{bounds}}}'::int[])"
                        for sizes, bounds in [
                            ("2", "0"),
                            ("2", "-5"),
                            ("1,2", "-1,5"),
                            ("1,1,1,1,1,2", "1,1,1,1,1,1"),
                        ]
                    ),
                ],
            )
    for name in ("int4[]", "text[]"):
        yield name, [f"E'{v}'::{name}" for v in map(escaped, ARRAYS[name].values)]


def escaped(text):
    return text.replace("\\", "\\\\").replace("'", "''")


BINARY_SETTINGS = ["default", "bytea_output escape", "extra_float_digits 3"]


@pytest.mark.parametrize("setting", BINARY_SETTINGS)
def test_values(scene, setting):
    for statement in SETTINGS[setting].statements:
        command(scene, statement)
    compared = 0
    for _, values in exact_expressions(scene):
        for value in values:
            check(scene, f"SELECT {value}")
        rows = " UNION ALL ".join(f"SELECT {v}" for v in [*values, *values[:1] * 2, *values[::-1]])
        check(scene, rows)
        compared += len(values)
    assert compared > 350


@pytest.mark.parametrize(
    "factory",
    [psycopg2.extras.DictCursor, psycopg2.extras.RealDictCursor, psycopg2.extras.NamedTupleCursor],
)
def test_rows(scene, factory):
    columns = [f"{values[0]} AS c{i}" for i, (_, values) in enumerate(exact_expressions(scene))]
    check(scene, f"SELECT {', '.join(columns)} FROM generate_series(1, 3)", factory)


def test_columns_are_told_apart(scene):
    """What was sent was all in binary."""
    sql = "SELECT 1, '{1}'::int[], 'x'::bytea"
    res = execute(scene, sql, result_format=1)
    assert types(res) == (23, 1007, 17)
    with scene.cursor() as cursor:
        give(cursor, res)
        result = aiopgx._rows.take(cursor)
        assert [column.type_code for column in result.description] == [23, 1007, 17]
        (row,) = result.fetchall()
    assert portrait(row[:2]) == portrait((1, [1])) and bytes(row[2]) == b"x"


def test_nan_is_not_shared(scene):
    with scene.cursor() as cursor:
        give(cursor, execute(scene, "SELECT 'NaN'::float8 FROM generate_series(1, 2)", (), 1))
        one, other = aiopgx._rows.take(cursor).fetchall()
    assert one != other


@pytest.mark.parametrize("encoding", ["LATIN1", "EUC_JP"])
def test_other_encodings(scene, encoding):
    scene.set_client_encoding(encoding)
    check(scene, "SELECT 'abc'::text, ARRAY['b', NULL], 'x'::bytea, chr(12354 - 12250)")


def test_text_that_is_none(dsn):
    """psycopg2's own exception, also for one in an array."""
    with side_connection(dsn) as side:
        command(side, "DROP DATABASE IF EXISTS bytes_only")
        command(
            side,
            "CREATE DATABASE bytes_only ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'"
            " TEMPLATE template0",
        )
    try:
        with side_connection(dsn, dbname="bytes_only", client_encoding="UTF8") as conn:
            command(conn, "SET client_encoding = 'SQL_ASCII'")
            # psycopg2 goes on with the codec that it knows
            for value in r"E'\xff'", r"ARRAY['a b', E'\xff', NULL]":
                check(conn, f"SELECT {value}")
    finally:
        with side_connection(dsn) as side:
            command(side, "DROP DATABASE bytes_only WITH (FORCE)")


# --- generated values -----------------------------------------------------------------------------

INTS = st.integers(-(2**63), 2**63 - 1) | st.integers(-300, 300)
WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
SCALARS = {
    "int2": st.integers(-(2**15), 2**15 - 1),
    "int4": st.integers(-(2**31), 2**31 - 1) | st.integers(-300, 300),
    "int8": INTS,
    "oid": st.integers(0, 2**32 - 1),
    "float8": st.floats(),
    "bool": st.booleans(),
    "text": WORDS,
    "bytea": st.binary(max_size=40),
    "uuid": st.uuids().map(str),
}


def nested(items):
    """Lists of one to three dimensions, with NULLs."""

    def shaped(shape):
        inner = st.none() | items if len(shape) == 1 else shaped(shape[1:])
        return st.lists(inner, min_size=shape[0], max_size=shape[0])

    return st.lists(st.integers(1, 4), min_size=1, max_size=3).flatmap(shaped) | st.just([])


@pytest.mark.parametrize("name", SCALARS)
@settings(suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_generated_values(conn, name, data):
    values = data.draw(st.lists(SCALARS[name], min_size=1, max_size=5))
    items = data.draw(nested(SCALARS[name]))
    with conn.cursor() as cursor:
        rows = b" UNION ALL ".join(
            cursor.mogrify(f"SELECT (%s)::{name}, %s::{name}[]", [value, items]) for value in values
        )
    check(conn, rows.decode())


HEAD = st.builds(
    lambda dimensions, pairs: b"".join(n.to_bytes(4, "big") for n in [dimensions, 0, 23, *pairs]),
    st.integers(0, 7),
    st.lists(st.integers(0, 3) | st.integers(0, 2**32 - 1), max_size=12),
)
PIECES = st.lists(
    st.binary(max_size=3).map(lambda item: len(item).to_bytes(4, "big") + item)
    | st.binary(min_size=4, max_size=4).map(lambda item: b"\0\0\0\4" + item)
    | st.just(b"\xff" * 4)
)


@pytest.mark.parametrize(
    "oid", [16, 17, 20, 21, 23, 25, 26, 114, 701, 1007, 1009, 1022, 2950, 99999]
)
@given(
    value=st.binary(max_size=20) | st.builds(lambda head, rest: head + b"".join(rest), HEAD, PIECES)
)
def test_what_no_server_sends(conn, oid, value):
    """It is an error or a value; nothing beyond its bytes is looked at."""
    with conn.cursor() as cursor:
        give(cursor, forged([oid], ["a"], [[value], [None]], poison is not None, form=1))
        result = aiopgx._rows.take(cursor)
        with contextlib.suppress(psycopg2.Error, ValueError):
            assert len(result.fetchall()) == 2
        result.scroll(0, "absolute")
        with contextlib.suppress(psycopg2.Error, ValueError):
            result.hand_over(cursor)
            assert len(cursor.fetchall()) == 2


def test_nothing_is_left(conn):
    """Also of values that can't be read: no reference is lost."""
    sql = "SELECT '{{1000,2000}}'::int[], '[2:2][3:3]={{7000}}'::int[], 'x'::bytea"
    for _ in range(3):
        with contextlib.suppress(psycopg2.DataError):
            check(conn, sql)
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(50):
        in_binary(conn, sql, psycopg2.extensions.cursor, lambda cursor: None)
    gc.collect()
    assert len(gc.get_objects()) - before < 20
