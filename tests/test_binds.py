"""Parameters of the extended protocol: type and value are those of psycopg2's literal."""

import contextlib
import datetime
import decimal
import enum
import json
import uuid

import psycopg2
import psycopg2.extensions
import psycopg2.extras
import pytest
from conftest import command, side_connection
from extended import execute, rows
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg2.extensions import ISQLQuote, adapters
from psycopg2.extras import Json

from aiopgx._binds import bound

UTC = datetime.timezone.utc


def zone(**offset):
    return datetime.timezone(datetime.timedelta(**offset))


@pytest.fixture(scope="module", autouse=True)
def uuids():
    """What aiopgx registers at the first connection."""
    if (uuid.UUID, ISQLQuote) not in adapters:
        psycopg2.extras.register_uuid()


@pytest.fixture(scope="module")
def conn(dsn):
    with side_connection(dsn) as conn:
        command(conn, "SET TIME ZONE 'Europe/Amsterdam'")
        yield conn


def outcome(function, *args):
    """Rows as texts, or that there were none."""
    try:
        return function(*args)
    except psycopg2.Error:
        return "an error"


def as_literals(conn, sql, values):
    with conn.cursor() as cursor:
        cursor.execute(sql, values)
        return cursor.fetchall()


def as_binds(conn, sql, values, untyped=None):
    binds = bound(values, untyped)
    assert binds is not None, values
    for number in range(len(values)):
        sql = sql.replace("%s", f"${number + 1}", 1)
    return [
        tuple(value if value is None else value.decode() for value in row)
        for row in rows(execute(conn, sql, binds))
    ]


def check(conn, sql, values):
    expected = outcome(as_literals, conn, sql, values)
    assert outcome(as_binds, conn, sql, values) == expected, values
    return expected


def check_typed(conn, value):
    """A value whose literal has a type; and the value as a text of that type."""
    seen = check(conn, "SELECT pg_typeof(%s)::text, (%s)::text", (value, value))
    if seen != "an error":
        ((name, text),) = seen
        assert as_binds(conn, f"SELECT (%s::{name})::text", (value,), b"\1") == [(text,)]
    return seen


def check_untyped(conn, value):
    """A value whose type the server finds out, as that of a string."""
    ((oid, form, _),) = bound((value,))
    assert (oid, form) == (0, 0)
    for name in "text", "json", "int[]", "date", "int4":
        check(conn, f"SELECT (%s::{name})::text", (value,))
    return True


# --- values ---------------------------------------------------------------------------------------

TYPED = {
    "integer": [0, 1, -1, 2**31 - 1, -(2**31), decimal.Decimal(42), decimal.Decimal("-0")],
    "bigint": [2**31, -(2**31) - 1, 2**63 - 1, -(2**63), decimal.Decimal(2**40)],
    "numeric": [
        *(2**63, -(2**63) - 1, 10**50, 0.5, -0.0, 1e22, 1e-300, 5e-324, 1.7e308, 1.0, 0.1 + 0.2),
        *map(
            decimal.Decimal, ["1.50", "1E+5", "-1e-30", "NaN", "sNaN", "Infinity", "0.00", "9" * 60]
        ),
        decimal.Decimal("9" * 5000),
    ],
    "double precision": [float("nan"), float("inf"), float("-inf")],
    "boolean": [True, False],
    "bytea": [b"", b"a\0b", bytes(range(256)), b"x" * 5000],
    "date": [datetime.date(2024, 2, 29), datetime.date.min, datetime.date.max],
    "timestamp without time zone": [
        *(datetime.datetime(2024, 2, 29, 12, 30), datetime.datetime.min, datetime.datetime.max),
        datetime.datetime(2024, 10, 27, 2, 30, fold=1),
    ],
    "timestamp with time zone": [
        *(datetime.datetime(2024, 7, 1, tzinfo=UTC), datetime.datetime.min.replace(tzinfo=UTC)),
        *(datetime.datetime(1890, 1, 1, 1, 2, 3, 4, zone(minutes=19, seconds=32)),),
        datetime.datetime.max.replace(tzinfo=zone(hours=-12)),
    ],
    "time without time zone": [datetime.time.min, datetime.time.max, datetime.time(12, 30, 0, 5)],
    "time with time zone": [
        datetime.time(12, 30, tzinfo=UTC),
        datetime.time(12, tzinfo=zone(hours=-3, minutes=-30)),
    ],
    "interval": [
        *(datetime.timedelta(), datetime.timedelta(-1, 1, 1), datetime.timedelta.min),
        *(datetime.timedelta.max, datetime.timedelta(400, 3, 999999)),
    ],
    "uuid": [uuid.UUID(int=0), uuid.UUID(int=2**128 - 1), uuid.uuid5(uuid.NAMESPACE_DNS, "x")],
    "integer[]": [[1], [1, -1, 2**31 - 1, -(2**31)], list(range(1000))],
    "bigint[]": [[2**31], [1, -(2**63), 2**63 - 1]],
    "text[]": [[""], ["a", "NULL", "null", 'a"b\\', "{,}", " ", "äöü€\U0001d518"], ["x" * 500] * 9],
    "date[]": [[datetime.date(2024, 2, 29), datetime.date.max]],
    "uuid[]": [[uuid.UUID(int=0), uuid.UUID(int=7)]],
}
UNTYPED = [
    *("", "a", "äöü€", "\U0001d518", "'", "\\", '"', "%s", "NULL", "2024-02-29", "{1,2}", "7"),
    *("x" * 10000, "é" * 100, None, [], [None], Json({"a": [1, "ä", None]}), Json(None)),
    Json([1], dumps=lambda value: "[2]"),
]


@pytest.mark.parametrize("name", TYPED)
def test_typed_values(conn, name):
    found = [check_typed(conn, value) for value in TYPED[name]]
    names = [seen[0][0] for seen in found if seen != "an error"]
    assert set(names) == {name}
    assert len(names) > len(found) / 2


def test_untyped_values(conn):
    for value in UNTYPED:
        check_untyped(conn, value)


SETTINGS = [
    "SET DateStyle = 'German, DMY'",
    "SET IntervalStyle = 'sql_standard'",
    "SET bytea_output = 'escape'",
    "SET array_nulls = off",
    "SET extra_float_digits = -15",
]


@pytest.mark.parametrize("setting", SETTINGS)
def test_settings(conn, setting):
    command(conn, setting)
    try:
        for values in TYPED.values():
            for value in values:
                check_typed(conn, value)
        for value in UNTYPED:
            check_untyped(conn, value)
    finally:
        command(conn, "RESET ALL")
        command(conn, "SET TIME ZONE 'Europe/Amsterdam'")


def test_many_values(conn):
    """More than there is room for at first, in every order of sizes."""
    values = [value for values in TYPED.values() for value in values][:120]
    for order in (values, values[::-1], values[:9], values[:8]):
        order = [value for value in order if value != datetime.timedelta.max]
        order = [value for value in order if type(value) is not decimal.Decimal]
        check(conn, f"SELECT {', '.join(['(%s)::text'] * len(order))}", tuple(order))
    assert bound(()) == []
    assert len(bound((7,) * 65535)) == 65535


def test_texts_about_as_long_as_the_room(conn):
    for size in [*range(180, 200), 383, 384, 385, 10**6]:
        check(conn, "SELECT %s::text, (%s)::text, %s::text", ("x" * size, 7, "é" * (size // 2)))


FINITE = st.floats(allow_nan=False, allow_infinity=False)
WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
OFFSETS = st.timedeltas(datetime.timedelta(hours=-15), datetime.timedelta(hours=15))
ZONES = st.builds(datetime.timezone, OFFSETS)
GENERATED = {
    "int": st.integers() | st.integers(-(2**66), 2**66) | st.integers(-(2**33), 2**33),
    "float": st.floats(),
    "decimal": st.decimals(allow_infinity=True),
    "bytes": st.binary(),
    "date": st.dates(),
    "datetime": st.datetimes(),
    "zoned datetime": st.datetimes(timezones=st.none() | ZONES),
    "time": st.times(timezones=st.none() | ZONES),
    "timedelta": st.timedeltas(),
    "uuid": st.uuids(),
    "int[]": st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-300, 300), min_size=1),
    "str[]": st.lists(WORDS | st.text("\"\\'{},nulNUL ", max_size=6), min_size=1),
    "date[]": st.lists(st.dates(), min_size=1),
    "uuid[]": st.lists(st.uuids(), min_size=1),
}


@pytest.mark.parametrize("kind", GENERATED)
@settings(suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_generated_typed_values(conn, kind, data):
    check_typed(conn, data.draw(GENERATED[kind]))


DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | FINITE | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=10,
)


@settings(suppress_health_check=list(HealthCheck))
@given(value=WORDS | DOCUMENTS.map(Json))
@example(value="NaN")
def test_generated_untyped_values(conn, value):
    check_untyped(conn, value)


# --- what psycopg2 is to write --------------------------------------------------------------------


class Zone(datetime.tzinfo):
    def utcoffset(self, moment):
        raise ZeroDivisionError


class Color(enum.IntEnum):
    RED = 1


REFUSED = {
    "NUL": "a\0b",
    "lone surrogate": "\ud800",
    "list with NUL": ["a\0"],
    "list with surrogate": ["a", "\udc00"],
    "tuple": (1, 2),
    "dict": {"a": 1},
    "set": {1},
    "range": psycopg2.extras.NumericRange(1, 2),
    "bytearray": bytearray(b"a"),
    "memoryview": memoryview(b"a"),
    "subclass of int": Color.RED,
    "subclass of str": type("Text", (str,), {})("a"),
    "subclass of Json": type("Document", (Json,), {})(1),
    "subclass of datetime": type("Moment", (datetime.datetime,), {})(2024, 1, 1),
    "AsIs": psycopg2.extensions.AsIs("1"),
    "object": object(),
    "None in list": [1, None],
    "None first": [None, 1],
    "two types": [1, "a"],
    "bool in list": [1, True],
    "bools": [True, False],
    "floats": [1.5],
    "nested": [[1]],
    "large ints in list": [2**63],
    "failing tzinfo": datetime.datetime(2024, 1, 1, tzinfo=Zone()),
    "failing dumps": Json(object()),
    "dumps of bytes": Json(1, dumps=lambda value: b"1"),
    "dumps with NUL": Json(1, dumps=lambda value: "\0"),
    "too many digits": 10**5000,
}


@pytest.mark.parametrize("which", REFUSED)
def test_refused(which):
    value = REFUSED[which]
    assert bound((value,)) is None
    assert bound((value,), b"\1") is None
    assert bound((1, "a" * 1000, value)) is None


def test_too_many_values():
    assert bound((1,) * 65536) is None
    assert bound((1, 2), b"\0") is None


def test_none(conn):
    """Among others, and in a list as psycopg2 writes it."""
    check(conn, "SELECT %s::text, %s::text, (%s::int[])::text", (None, "x", [None]))


EXAMPLES = {
    int: [5, [5]],
    bool: [True],
    float: [1.5],
    str: ["a", ["a"]],
    bytes: [b"a"],
    list: [[], [1], ["a"]],
    datetime.date: [datetime.date(2024, 1, 1), [datetime.date(2024, 1, 1)]],
    datetime.time: [datetime.time(12)],
    datetime.datetime: [datetime.datetime(2024, 1, 1)],
    datetime.timedelta: [datetime.timedelta(1)],
    decimal.Decimal: [decimal.Decimal("1.5")],
    uuid.UUID: [uuid.UUID(int=1), [uuid.UUID(int=1)]],
    Json: [Json(1)],
}


@contextlib.contextmanager
def registered(cls, adapter):
    """An adapter of the program for a class; `adapter` None takes psycopg2's away."""
    key = (cls, ISQLQuote)
    before = adapters.pop(key, None)
    try:
        if adapter is not None:
            psycopg2.extensions.register_adapter(cls, adapter)
        yield
    finally:
        adapters.pop(key, None)
        if before is not None:
            adapters[key] = before


@pytest.mark.parametrize("cls", EXAMPLES)
def test_an_adapter_of_the_program_closes_its_type(cls):
    for adapter in (psycopg2.extensions.AsIs, None):
        with registered(cls, adapter):
            for value in EXAMPLES[cls]:
                closed = not (cls is Json and adapter is None)
                assert (bound((value,)) is None) == closed
                assert (bound((None, value, value)) is None) == closed
            for others, values in EXAMPLES.items():
                if others is not cls:
                    assert bound((values[0],)) is not None, others
    for value in EXAMPLES[cls]:
        assert bound((value,)) is not None


def test_json_that_is_patched(monkeypatch):
    assert bound((Json(1),)) == [(0, 0, b"1")]
    own = Json(1)
    own.getquoted = lambda: b"'2'"
    assert bound((own,)) is None
    with registered(object, psycopg2.extensions.AsIs):
        assert bound((Json(1),)) is None  # adapted as an object
    for name in "__conform__", "getquoted", "dumps", "prepare":
        with monkeypatch.context() as patch:
            patch.setattr(Json, name, lambda *args: None)
            assert bound((Json(1),)) is None
    assert bound((Json({"a": "ä"}),)) == [(0, 0, json.dumps({"a": "ä"}).encode())]


def test_uuid_adapter_that_is_patched(monkeypatch):
    for name in "__init__", "__conform__", "getquoted":
        with monkeypatch.context() as patch:
            patch.setattr(psycopg2.extras.UUID_adapter, name, lambda *args: None)
            assert bound((uuid.UUID(int=1),)) is None
    assert bound((uuid.UUID(int=1),)) == [(2950, 1, bytes(15) + b"\1")]
