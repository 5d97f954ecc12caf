"""Values: psycopg2 reads the same text out of the same server and is right by definition."""

import contextlib
import datetime
import decimal
import gc
import string
import sys
import uuid

import psycopg2
import psycopg2._psycopg
import psycopg2.extras
import psycopg2.tz
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg2.extensions import new_array_type, new_type, register_type

from aiopgx._rows import take

TEXT_OID = 25

# type, then texts of values that PostgreSQL accepts for it
VALUES = {
    "bool": ["t", "f"],
    "int2": ["0", "-32768", "32767"],
    "int4": ["0", "1", "-1", "255", "256", "257", "-5", "-6", "2147483647", "-2147483648"],
    "int8": ["0", "999999999999999999", "9223372036854775807", "-9223372036854775808"],
    "oid": ["0", "4294967295"],
    "float4": ["0", "-0", "1.5", "0.1", "16777217", "3.4e38", "1e-45", "NaN", "Infinity"],
    "float8": ["0", "-0", "1e22", "1e23", "5e-324", "0.30000000000000004", "NaN", "-Infinity"],
    "numeric": ["0", "0.00", "-1.50", "1e400", "123456789012345678901234567890.5", "NaN"],
    "text": [
        *("", "a", " a ", "NULL", "null", "äöü€", "\U0001d518", "a\nb\tc", "\\", '"', "{}"),
        *("a,b", "%s"),
    ],
    "varchar(20)": ["", "abc"],
    "char(5)": ["", "abc"],
    "name": ["abc"],
    '"char"': ["", "x", "\\303"],
    "bytea": ["", "abc", "\\x00", "\\x00ff61225c27", "\\\\", "a\\000b\\377", "\\x" + "5c" * 50],
    "json": [
        *("null", "1", "1e5", "[]", '"a"', '"\\u00e4"'),
        ' {"a" : [1, 2.5, {"b": null}], "a": 2} ',
    ],
    "jsonb": ["null", "true", '{"b": "ä", "a": [1, 2]}', "123456789012345678901234567890"],
    "uuid": ["00000000-0000-0000-0000-000000000000", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"],
    "date": [
        *("2024-02-29", "0001-01-01", "9999-12-31", "1999-12-31"),
        *("infinity", "-infinity", "0001-01-01 BC", "10000-01-01", "0044-03-15 BC"),
    ],
    "time": ["00:00", "23:59:59.999999", "24:00", "12:30:00.5", "12:30:00.000001"],
    "timetz": ["00:00+00", "12:00+05:30", "12:00-03:30:15", "23:59:59.9+15:59:59", "24:00-01"],
    "timestamp": [
        *("2024-02-29 12:34:56", "2024-02-29 12:34:56.7", "0001-01-01 00:00:00.000001"),
        *("9999-12-31 23:59:59.999999", "infinity", "-infinity", "0044-03-15 12:00 BC"),
        "10000-01-01 00:00",
    ],
    "timestamptz": [
        *("2024-02-29 12:34:56+00", "2024-07-01 12:34:56.7+00", "1800-01-01 00:00+00"),
        *("infinity", "-infinity", "0044-03-15 12:00+00 BC", "9999-12-31 23:59:59+00"),
    ],
    "interval": [
        *("0", "1 day", "-1 day", "2 days", "1 month", "-14 months", "1 year", "100 years"),
        *("04:05:06.789", "-00:00:00.5", "1 year 2 months 3 days 04:05:06", "1 day -00:00:01"),
        *("-1 year +2 days -03:00", "100000 hours", "178000000 years", "999999999 days"),
        *("1000000000 days", "-0.000001 second", "2147483647 hours"),
    ],
    "inet": ["127.0.0.1", "::1/128"],
    "point": ["(1,2)"],
    "money": ["1.50"],
    "int4range": ["[1,5)", "empty"],
    "tsvector": ["'a' 'b'"],
    "xid": ["7"],
}

# Each is written over a connection's defaults.
SETTINGS = {
    "default": [],
    "utc": ["SET TIME ZONE 'UTC'"],
    "half hours": ["SET TIME ZONE 'Asia/Kolkata'"],
    "west": ["SET TIME ZONE 'America/St_Johns'"],
    "local mean time": ["SET TIME ZONE 'Europe/Amsterdam'"],
    "german": ["SET DateStyle = 'German, DMY'"],
    "sql": ["SET DateStyle = 'SQL, MDY'", "SET IntervalStyle = 'sql_standard'"],
    "postgres": ["SET DateStyle = 'Postgres, DMY'", "SET IntervalStyle = 'postgres_verbose'"],
    "iso 8601": ["SET IntervalStyle = 'iso_8601'"],
    "escaped bytea": ["SET bytea_output = 'escape'"],
    "few digits": ["SET extra_float_digits = 0"],
}


@pytest.fixture(scope="module")
def conn(dsn):
    """A connection as aiopgx sets it up."""
    conn = psycopg2.connect(dsn)
    conn.autocommit = True
    psycopg2.extras.register_uuid(conn_or_curs=conn)
    psycopg2.extras.register_default_json(conn)
    yield conn
    conn.close()


@pytest.fixture
def scene(conn):
    """Take the settings and registrations of a test back."""
    types = dict(conn.string_types)
    with conn.cursor() as cursor:
        yield cursor
    conn.string_types.clear()
    conn.string_types.update(types)
    conn.set_client_encoding("UTF8")
    with conn.cursor() as cursor:
        cursor.execute("RESET ALL")


def portrait(value):
    """All of a value that a program can see."""
    if isinstance(value, memoryview):
        return (
            *(bytes(value), value.format, value.readonly, value.nbytes, value.itemsize),
            *(value.ndim, value.shape, value.strides, value.contiguous, hash(value) is not None),
        )
    if isinstance(value, (list, tuple)):
        return type(value), [portrait(item) for item in value]
    if isinstance(value, Exception):
        return type(value), str(value)
    return type(value), repr(value)


def outcome(function, *args):
    try:
        return function(*args)
    except Exception as error:
        return error


def check(conn, sql, args=None, prepare=lambda cursor: None):
    """Compare the rows, or the exception, of one result; return them."""
    with conn.cursor() as cursor:
        prepare(cursor)
        cursor.execute(sql, args)
        expected = outcome(cursor.fetchall)
        got = outcome(take(cursor).fetchall)
    assert portrait(got) == portrait(expected), sql
    return got


def quoted(text):
    backslashes = text.replace("\\", "\\\\").replace("'", "''")
    return f"E'{backslashes}'"


def literals(type_):
    return [f"{quoted(text)}::{type_}" for text in VALUES[type_]]


# --- what the server sends ------------------------------------------------------------------------


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("type_", VALUES)
def test_scalar(conn, scene, type_, setting):
    for statement in SETTINGS[setting]:
        scene.execute(statement)
    for value in literals(type_):
        check(conn, f"SELECT {value}, NULL::{type_}, {value}")


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("type_", VALUES)
def test_array(conn, scene, type_, setting):
    for statement in SETTINGS[setting]:
        scene.execute(statement)
    for value in literals(type_):
        check(conn, f"SELECT ARRAY[{value}, NULL], ARRAY[[{value}], [{value}]]")
    check(conn, f"SELECT ARRAY[{', '.join(literals(type_))}], '{{}}'::{type_}[]")


@pytest.mark.parametrize("type_", VALUES)
def test_column(conn, scene, type_):
    """Every value after every other, and after itself."""
    values = [value for value in literals(type_) if "infinity" not in value]
    rows = " UNION ALL ".join(f"SELECT {value}" for value in [*values, "NULL", *values[::-1]])
    check(conn, rows)


@pytest.mark.parametrize(
    "array",
    [
        "'[0:1]={1,2}'::int[]",
        "'[2:3][0:0]={{1},{2}}'::int[]",
        "'{{{{{{1}}}}}}'::int[]",
        """ARRAY['a"b', 'a\\b', 'a,b', '{', '}', '', 'NULL', NULL, ' ', '\\', '"']""",
        "ARRAY[repeat('x', 100000), repeat('\"', 1000)]",
        "ARRAY[ARRAY['a', NULL], ARRAY['', 'b']]",
        "ARRAY['(1,a)'::text, 'x;y']",
        "ARRAY[row(1, 'a')]",
        "'{(1,2),(3,4);(5,6),(7,8)}'::box[]",
    ],
)
def test_array_syntax(conn, scene, array):
    check(conn, f"SELECT {array}")


@pytest.mark.parametrize("encoding", ["UTF8", "LATIN1", "LATIN9", "SQL_ASCII", "EUC_JP", "SJIS"])
@pytest.mark.parametrize("text", ["abc", "é", "\u0080", "表示", "ソ\\ソ", "€"])
def test_client_encoding(conn, scene, encoding, text):
    hexadecimal = text.encode().hex()
    sql = f"SELECT convert_from('\\x{hexadecimal}', 'UTF8') AS v"
    conn.set_client_encoding(encoding)
    with contextlib.suppress(psycopg2.DataError):  # the server can't convert it
        check(conn, sql)
        check(conn, f"SELECT ARRAY[v, 'a'], to_json(v), v::varchar(7) FROM ({sql}) AS s")


def test_text_that_is_not_valid(conn, scene):
    scene.execute("SET client_encoding TO LATIN1")  # psycopg2 doesn't notice
    assert isinstance(check(conn, "SELECT chr(233)"), UnicodeDecodeError)


def test_random_values(conn, scene):
    check(
        conn,
        """
        SELECT (random() * 1e18)::int8, random(), random()::float4, (random() * 1e6)::numeric,
               md5(random()::text)::uuid, md5(random()::text), decode(md5(random()::text), 'hex'),
               now() + random() * 1e4 * interval '1 day', random() * 1e3 * interval '1 month 1 h',
               current_date + (random() * 1e5)::int, (random() * interval '1 day')::time,
               localtimestamp - random() * 1e5 * interval '1 day', random() < 0.5,
               ARRAY[random(), random()], json_build_object('a', random())
        FROM generate_series(1, 500)""",
    )


# --- texts that the server would never send -------------------------------------------------------


SCALARS = [
    *("LONGINTEGER", "FLOAT", "DECIMAL", "UNICODE", "BYTES", "BOOLEAN", "PYDATE", "PYTIME"),
    *("PYDATETIME", "PYDATETIMETZ", "PYINTERVAL", "BINARY", "UNKNOWN"),
]
NEAR_MISS = st.one_of(
    st.text(alphabet="0123456789-+:. ,BCTa_e", max_size=30),
    st.from_regex(
        r"[0-9]{4}-[0-9]{2}-[0-9]{2}( [0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,7})?"
        r"([+-][0-9]{2}(:[0-9]{2}){0,2})?)?( BC)?",
        fullmatch=True,
    ),
    st.from_regex(
        r"[0-9]{2}:[0-9]{2}(:[0-9]{2})?(\.[0-9]{1,7})?([+-][0-9]{2}(:[0-9]{2}){0,3})?",
        fullmatch=True,
    ),
    st.from_regex(
        r"([+-]?[0-9]{1,10} (years?|mons?|days?|hours?|weeks?|y|m|d) ?){0,4}"
        r"([+-]?[0-9]{1,10}(:[0-9]{2}){1,3}(\.[0-9]{1,7})?)?",
        fullmatch=True,
    ),
    st.from_regex(r"-?0?[0-9]{1,20}", fullmatch=True),
    st.from_regex(r"-?[0-9]{1,20}\.?[0-9]{0,20}([eE][+-]?[0-9]{1,3})?", fullmatch=True),
    st.from_regex(r"\\x([0-9a-fA-Fg]{2}){0,20}", fullmatch=True),
    st.from_regex(r"([a-z]|\\\\|\\[0-3][0-7]{2}){0,20}", fullmatch=True),
    st.sampled_from(["t", "f", "T", "F", "true", "nan", "inf", "infinity", "-infinity", "NULL"]),
)


def with_caster(name):
    caster = getattr(psycopg2._psycopg, name)

    def prepare(cursor):
        cursor.string_types = {TEXT_OID: caster}

    return prepare


@pytest.mark.parametrize("name", SCALARS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=NEAR_MISS)
def test_any_text(conn, name, text):
    check(conn, "SELECT %s::text", [text], with_caster(name))


@pytest.mark.parametrize("name", SCALARS)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(texts=st.lists(st.one_of(st.none(), NEAR_MISS), max_size=4))
@example(texts=["infinity"])
def test_any_array_of_texts(conn, name, texts):
    prepare = with_caster(name)

    def array(cursor):
        prepare(cursor)
        base = cursor.string_types[TEXT_OID]
        cursor.string_types = {1009: new_array_type((1009,), "ARRAY", base)}

    check(conn, "SELECT %s::text[]", [texts], array)


@settings(max_examples=300, deadline=None)
@given(text=st.text(alphabet='ab,{}"\\ N', max_size=12))
def test_any_array_syntax(conn, text):
    # what comes after an unbalanced end is read by psycopg2, beyond the value's own end
    check(conn, "SELECT %s::text", ["{" + text + "}"], with_caster("STRINGARRAY"))


@settings(max_examples=200, deadline=None)
@given(text=st.text(alphabet=string.printable, max_size=10))
@example(text="\ufeff1")
@example(text=" 1 ")
@example(text="[1] x")
@example(text="NaN")
@example(text="")
def test_any_json(conn, text):
    def prepare(cursor):
        cursor.string_types = {TEXT_OID: psycopg2.extensions.JSON}

    check(conn, "SELECT %s::text", [text], prepare)


# --- which caster ---------------------------------------------------------------------------------


def upper(value, cursor):
    return "null!" if value is None else value.upper()


@pytest.mark.parametrize("where", ["cursor", "connection", "everywhere"])
def test_own_caster(conn, scene, where):
    caster = new_type((TEXT_OID,), "UPPER", upper)
    saved = psycopg2.extensions.string_types[TEXT_OID]

    def prepare(cursor):
        register_type(caster, *{"cursor": [cursor], "connection": [conn], "everywhere": []}[where])

    try:
        assert check(conn, "SELECT 'a'::text, NULL::text", None, prepare) == [("A", "null!")]
    finally:
        psycopg2.extensions.string_types[TEXT_OID] = saved


def test_nearest_caster_wins(conn, scene):
    register_type(new_type((TEXT_OID,), "ONE", lambda value, cursor: 1), conn)
    two = new_type((TEXT_OID,), "TWO", lambda value, cursor: 2)
    assert check(conn, "SELECT 'a'::text") == [(1,)]
    assert check(conn, "SELECT 'a'::text", None, lambda c: register_type(two, c)) == [(2,)]


def test_own_array_of_own_caster(conn, scene):
    base = new_type((TEXT_OID,), "UPPER", upper)
    register_type(new_array_type((1009,), "UPPER[]", base), conn)
    assert check(conn, "SELECT ARRAY['a', NULL], NULL::text[]") == [(["A", "null!"], None)]


def test_own_array_of_psycopg2s_caster(conn, scene):
    scene.execute(
        "CREATE TYPE pg_temp.mood AS ENUM ('happy'); SELECT 'mood'::regtype::oid, "
        "typarray FROM pg_type WHERE oid = 'mood'::regtype"
    )
    _, array = scene.fetchone()
    assert check(conn, "SELECT ARRAY['happy'::mood]") == [("{happy}",)]
    register_type(new_array_type((array,), "mood[]", psycopg2.STRING), conn)
    assert check(conn, "SELECT ARRAY['happy'::mood]") == [(["happy"],)]


def test_array_of_arrays_of_ones_own(conn, scene):
    inner = new_array_type((0,), "INNER", psycopg2.STRING)
    register_type(new_array_type((1009,), "OUTER", inner), conn)
    check(conn, "SELECT ARRAY['{a,b}', NULL]")


def test_caster_is_called_with_the_cursor(conn, scene):
    seen = []
    see = lambda value, cursor: seen.append(cursor.typecaster.name)  # noqa: E731
    caster = new_type((TEXT_OID,), "SEEN", see)
    check(conn, "SELECT 'a'::text, NULL::text", None, lambda c: register_type(caster, c))
    assert seen == ["SEEN"] * 4


def test_caster_without_a_function(conn, scene):
    nothing = new_type((TEXT_OID,), "NOTHING", None)
    for value in ("'a'", "NULL"):
        got = check(conn, f"SELECT {value}::text", None, lambda c: register_type(nothing, c))
        assert isinstance(got, psycopg2.Error)


@pytest.mark.parametrize("row", [0, 1, 7])
def test_failing_caster(conn, scene, row):
    def caster(value, cursor):
        if value == str(row):
            raise ZeroDivisionError(value)
        return value

    register_type(new_type((23,), "FAILING", caster), conn)
    sql = "SELECT 'a', i FROM generate_series(0, 9) AS i"
    assert isinstance(check(conn, sql), ZeroDivisionError)
    positions = []
    for wrap in (lambda cursor: cursor, take):
        with conn.cursor() as cursor:
            cursor.execute(sql)
            rows = wrap(cursor)
            with pytest.raises(ZeroDivisionError):
                rows.fetchall()
            positions.append((rows.rownumber, rows.fetchall()))
    assert positions[0] == positions[1]


@pytest.mark.parametrize("loads", [None, lambda text: ("mine", text)])
def test_json_loads_of_ones_own(conn, scene, loads):
    psycopg2.extras.register_default_json(conn, loads=loads)
    psycopg2.extras.register_default_jsonb(conn, loads=loads)
    check(conn, "SELECT '[1]'::json, '[1]'::jsonb, NULL::json, ARRAY['[1]'::json, NULL]")


@pytest.mark.parametrize(
    "factory",
    [datetime.timezone, None, psycopg2.tz.FixedOffsetTimezone, lambda _: datetime.timezone.utc],
)
def test_tzinfo_factory(conn, scene, factory):
    def prepare(cursor):
        cursor.tzinfo_factory = factory

    check(
        conn,
        "SELECT now(), '12:00+01'::timetz, ARRAY[now()], now()::timestamp, 'infinity'::timestamptz",
        None,
        prepare,
    )


def test_tzinfo_factory_changes_between_fetches(conn, scene):
    scene.execute("SELECT '2024-01-01'::timestamptz FROM generate_series(1, 3)")
    rows = take(scene)
    assert rows.fetchone()[0].tzinfo == datetime.timezone(rows.fetchone()[0].utcoffset())
    scene.tzinfo_factory = None
    assert rows.fetchone()[0].tzinfo is None


# --- speed that can be promised -------------------------------------------------------------------


def test_no_python_code_for_each_value(conn, scene):
    scene.execute("""
        SELECT i, i * 1.5, 'a' || i, i > 7, i::float8, now() + i * '1 day'::interval, current_date,
               localtime, '12:00+01'::timetz, i * '1 mon'::interval, '\\x61'::bytea, '[1]'::jsonb,
               '{"a": 1}'::json, md5(i::text)::uuid, ARRAY[i], ARRAY[md5(i::text)::uuid],
               ARRAY['[1]'::jsonb], 'x'::"char", '127.0.0.1'::inet
        FROM generate_series(1, 100) AS i""")
    rows = take(scene)
    calls = []
    gc.disable()  # others may have hung functions of theirs on collections
    sys.setprofile(lambda frame, event, arg: event == "call" and calls.append(frame.f_code))
    try:
        rows.fetchall()
    finally:
        sys.setprofile(None)
        gc.enable()
    assert not calls


def test_equal_neighbours_are_one_object(conn, scene):
    scene.execute("""
        SELECT 'long text', 1000000, 1.5, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid, now(),
               2.5::float8
        FROM generate_series(1, 2)""")
    above, below = take(scene).fetchall()
    assert all(a is b for a, b in zip(above, below, strict=True))
    assert [type(value) for value in above] == [
        str, int, decimal.Decimal, uuid.UUID, datetime.datetime, float,
    ]  # fmt: skip


def test_nan_is_not_equal_to_the_one_above(conn, scene):
    scene.execute("SELECT 'NaN'::float8, 'NaN'::numeric FROM generate_series(1, 2)")
    above, below = take(scene).fetchall()
    assert above != below


def test_what_can_be_changed_is_not_shared(conn, scene):
    scene.execute("SELECT '{}'::json, ARRAY[1], '\\x61'::bytea FROM generate_series(1, 2)")
    above, below = take(scene).fetchall()
    assert above == below
    assert all(a is not b for a, b in zip(above, below, strict=True))


def test_a_function_s_values_are_not_shared(conn, scene):
    register_type(new_type((TEXT_OID,), "LIST", lambda value, cursor: [value]), scene)
    scene.execute("SELECT 'a'::text FROM generate_series(1, 2)")
    (above,), (below,) = take(scene).fetchall()
    assert above == below == ["a"] and above is not below
