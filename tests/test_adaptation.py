"""Values: what psycopg2 makes of a parameter, is what the server gets on each road.

Compared are mogrify(), everything that can be seen of an execution, and `query`.
"""

from __future__ import annotations

import array
import asyncio
import collections
import contextlib
import datetime
import decimal
import enum
import fractions
import ipaddress
import math
import time
import types
import uuid
from dataclasses import dataclass

import psycopg2
import psycopg2.extensions as ext
import psycopg2.extras
import pytest
from psycopg2 import sql
from psycopg2.extensions import AsIs, Binary, ISQLQuote, QuotedString
from psycopg2.extras import Json
from roads import attributes, portrait, portrait_of_error, settle
from support import fetch, shown, until


def run(road, operation, parameters, before=lambda cursor: None):
    """The outcome on one road."""
    return road.execute(operation, parameters, ext.cursor, before)


@pytest.fixture
def check(roads):
    """check(operation, parameters) -> psycopg2's outcome; the connections must stay usable."""
    yield roads.same_text
    assert roads.same("SELECT %s", (1,)).rows == [(1,)]


Pair = collections.namedtuple("Pair", "a b")


# --- values ---------------------------------------------------------------------------------------


class Text(str):
    """A str of the user's own."""

    __slots__ = ()


class Loud(str):
    __slots__ = ()

    def __str__(self):
        return "loud"

    def encode(self, *args):
        return b"encoded"


class Raw(bytes):
    pass


class Record(dict):
    pass


class Number(int):
    def __str__(self):
        return "a number"


class Real(float):
    def __repr__(self):
        return "a float"


class Money(decimal.Decimal):
    pass


class Day(datetime.date):
    pass


class Moment(datetime.datetime):
    def isoformat(self, *args):
        return "2001-02-03"


class Rows(list):
    pass


class Row(tuple):
    __slots__ = ()


class Level(enum.IntEnum):
    LOW = 1


class Color(str, enum.Enum):
    RED = "red"


class Kind(enum.Enum):
    ONE = 1


class Rights(enum.IntFlag):
    READ = 4


class Odd(datetime.tzinfo):
    """A time zone that gives what it was told, or raises it."""

    def __init__(self, offset):
        self.offset = offset

    def utcoffset(self, when):
        if isinstance(self.offset, Exception):
            raise self.offset
        return self.offset


@dataclass
class Plain:
    x: int = 1


def aware(**offset):
    zone = datetime.timezone(datetime.timedelta(**offset))
    return datetime.datetime(2020, 1, 2, 3, 4, 5, 678, tzinfo=zone)


D, T = datetime.date, datetime.datetime
UTC = datetime.timezone.utc
RANGES = [
    psycopg2.extras.NumericRange(1, 5),
    psycopg2.extras.NumericRange(decimal.Decimal("-1.5"), None, "(]"),
    psycopg2.extras.NumericRange(None, None, "()"),
    psycopg2.extras.NumericRange(empty=True),
    psycopg2.extras.NumericRange("a", "it's,"),
    psycopg2.extras.DateRange(D(2020, 1, 1), D(2021, 1, 1), "[]"),
    psycopg2.extras.DateTimeRange(T(2020, 1, 1), None),
    psycopg2.extras.DateTimeTZRange(T(2020, 1, 1, tzinfo=UTC), T(2021, 1, 1, tzinfo=UTC)),
    psycopg2.extras.Range(1, 2),
]

VALUES = {
    "objects": [None, True, False, NotImplemented, ..., object, int, print, Plain(), object()],
    "ints": [0, 1, -1, 2**31, -(2**63), 2**63 - 1, 2**63, -(2**63) - 1, -(10**40), 10**4000, 1j],
    "floats": [0.0, -0.0, 1e15, 1e16, -1e-7, 1e308, 5e-324, 0.1 + 0.2, 1.5, -2.0],
    "special floats": [math.inf, -math.inf, math.nan, -math.nan],
    "texts": ["", "x", "it's", "''", "back\\slash", "\\'", "\n\t\x7f\x01", "a" * 30_000, "'" * 9],
    "wide texts": ["é", "日本", "😀", "\ufeff", "\u2028", "ÿ'", "é\\", "'é'"],
    "odd texts": ["\0", "a\0b", "\ud800", "a\udcff'", "\ud83d\ude00"],
    "texts like SQL": ["%s", "%", "%%", "%(a)s", "$$", "-- ", "/*", "E'", "{}", ";"],
    "bytes": [b"", b"x", bytes(range(256)), bytearray(b"a'\\"), b"%s", b"'"],
    "views": [
        *(memoryview(b"cd"), memoryview(b"abcdef")[::2], memoryview(b"abcdefgh").cast("i")),
        *(memoryview(b"abcd").cast("B", [2, 2]), memoryview(bytearray(b"x"))),
        array.array("i", [1]),
    ],
    "binaries": [
        *(Binary(b"\0x"), Binary("text"), Binary(5), Binary(None), Binary(bytearray(b"x"))),
        *(Binary(memoryview(b"ab")[::-1]), Binary(array.array("b", [1]))),
    ],
    "decimals": [
        *map(decimal.Decimal, ["1.10", "-5", "0", "-0", "1E+100", "1E-100", "0E-10", "-1E+2"]),
        *map(decimal.Decimal, ["NaN", "-NaN", "sNaN", "NaN12", "Infinity", "-Infinity", "9" * 500]),
        fractions.Fraction(1, 3),
    ],
    "dates": [D(1, 1, 1), D(9999, 12, 31), D(2020, 2, 29), D(800, 1, 2)],
    "timestamps": [
        *(T(1, 1, 1), T(9999, 12, 31, 23, 59, 59, 999999), T(2020, 1, 2, 3, 4, 5, 6)),
        *(T(2020, 1, 2, 3, 4, fold=1), T(2020, 1, 2, tzinfo=UTC), aware(hours=5, minutes=30)),
        *(aware(hours=-3, minutes=-30), aware(seconds=3661), aware(microseconds=-1)),
        aware(hours=23, minutes=59, seconds=59, microseconds=1),
        T(1, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=12))),
        *(T(2020, 1, 2, tzinfo=Odd(offset)) for offset in (None, "5", ValueError("no offset"))),
    ],
    "times": [
        *(datetime.time(1, 2, 3), datetime.time(23, 59, 59, 999999), datetime.time(0, tzinfo=UTC)),
        datetime.time(1, 2, fold=1, tzinfo=datetime.timezone(datetime.timedelta(minutes=-90))),
        datetime.time(1, tzinfo=Odd(None)),
    ],
    "intervals": [
        *(datetime.timedelta(0), datetime.timedelta(-1, 5, 7), datetime.timedelta(microseconds=-1)),
        *(datetime.timedelta.max, datetime.timedelta.min, UTC, time.localtime(0)),
    ],
    "DB-API's dates": [
        *(psycopg2.Date(2020, 1, 2), psycopg2.Time(1, 2, 3)),
        psycopg2.Timestamp(2020, 1, 2, 3, 4, 5.5),
        *(psycopg2.DateFromTicks(0), psycopg2.TimeFromTicks(1.5), psycopg2.TimestampFromTicks(1.5)),
        *(ext.DateFromPy(D(2020, 1, 2)), ext.IntervalFromPy(datetime.timedelta(1))),
        *(ext.TimestampFromPy(T(2020, 1, 2)), ext.TimeFromPy(datetime.time(1))),
    ],
    "lists": [
        *([], [1, 2], ["a", None], [None], [None, None], [-1], [True, False], [b"x", None]),
        *([1, "a", 1.5, None, b"x", D(2020, 1, 1)], [decimal.Decimal(1), math.nan], ["it's", "\\"]),
        *([(1, 2), (3, 4)], [{}], [object()], ["\0"], ["\ud800"], [2**70], ["é", Json([])]),
    ],
    "nested lists": [
        *([[1], [2]], [[]], [[], []], [[1, 2], []], [[[1]]], [[None], [None]], [[], [1]], [[1], 2]),
        *([[["a"], [None]], [["b"], ["c"]]], [[[]]], [[1.5, None], [None, 2]]),
    ],
    "tuples": [
        *((), (1,), (1, "a"), ((1, 2), (3, 4)), (None,), (-1,), ([1], None), (object(),), ("\0",)),
        *(((),), Pair(1, "x"), Pair(Pair(1, 2), [3]), (b"x", 1.5, D(2020, 1, 1))),
    ],
    "mappings": [
        *({"a": "1"}, {"a": None, "b": "it's \\ é"}, {}, {"a": 1}, {1: "a"}, {"": ""}, {"\0": "a"}),
        *(collections.OrderedDict(a="b"), collections.defaultdict(str, a="b")),
        *(types.MappingProxyType({"a": "b"}), collections.UserDict(a="b")),
    ],
    "collections": [
        *(set(), {1}, frozenset(), iter([]), (i for i in "ab"), collections.deque([1]), range(3)),
        *(collections.UserString("x"), collections.UserList([1]), slice(1), {1: 2}.keys()),
    ],
    "subclasses": [
        *(Number(5), Number(-5), Text("it's"), Loud("x"), Real(2.5), Real("nan"), Money("1.5")),
        *(Day(2020, 1, 1), Moment(2020, 1, 1), Rows([1, 2]), Row((1, 2)), Record(a="b", z=None)),
        *(Level.LOW, Color.RED, Kind.ONE, Rights.READ, type("Deep", (Number,), {})(1), Raw(b"x")),
    ],
    "AsIs": [*map(AsIs, ("pi()", 5, None, "é", "\ud800", b"x", object))],
    "quoted strings": [*map(QuotedString, ("it's é", 5, b"x", "\0"))],
    "adapters": [
        *(ext.Int(5), ext.Int(-5), ext.Int("x"), ext.Int(Level.LOW), ext.Int(True), ext.Int(None)),
        *(ext.Float(1.5), ext.Float(-1), ext.Boolean(1), ext.Boolean([]), ext.Boolean("f")),
        *(ext.PYDATE, ext.NoneAdapter(0), ext.SQL_IN((1, "a")), ext.SQL_IN([]), ext.ISQLQuote(1)),
        *(psycopg2._psycopg.Decimal(decimal.Decimal("NaN")), psycopg2._psycopg.Decimal(5)),
        *(psycopg2._psycopg.List([1, "a"]), psycopg2._psycopg.List([])),
    ],
    "json": [
        *map(Json, ({"a": [1, "it's", "é", "\\"]}, None, "\0", "\ud800", object(), math.nan)),
        *(Json([], dumps=lambda value: "own"), Json([], dumps=lambda value: None)),
    ],
    "inet": [
        *(psycopg2.extras.Inet(text) for text in ("1.2.3.4/8", "it's", "é", None)),
        *(ipaddress.ip_address("1.2.3.4"), ipaddress.ip_network("::1/128")),
    ],
    "uuid": [uuid.UUID(int=5), *map(psycopg2.extras.UUID_adapter, [uuid.UUID(int=5), 5])],
    "hstore": [*map(psycopg2.extras.HstoreAdapter, ({"a": "b", "c": None}, {"a": 1}, {}))],
    "sql": [sql.SQL("1"), sql.Identifier("x"), sql.Literal(5), sql.Placeholder(), sql.Composed([])],
    "psycopg2's objects": [ext.Xid.from_string("x"), ext.Notify(1, "x"), psycopg2.Error("x")],
    "ranges": RANGES,
}


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_values(check, values):
    """Alone, by name, inside others, and as a sql.Literal."""
    for value in values:
        check("SELECT current_query(), %s", (value,))
        check("SELECT %s, %s", [1, value])
        check("SELECT %(a)s, %(b)s, %(a)s", {"a": value, "b": "é"})
        check("SELECT %s, %s", ([value], (value, value)))
        check(sql.SQL("SELECT {}, %s").format(sql.Literal(value)), (value,))
    for value in values[:-1]:
        check("SELECT %s, %s, %s", (*values[:2], value))


def test_values_of_a_type(check):
    for value in RANGES:
        check("SELECT %s, %s", ([value, value], (value,)))
    check("SELECT %s::jsonb[]", ([Json([1]), Json(None)],))
    check("SELECT %s::uuid[]", ([uuid.UUID(int=1), None],))
    check("SELECT %s::hstore", ({"a": "1", "b": None},))


def test_ints_that_python_does_not_print(check):
    """Python refuses to write more than 4300 digits."""
    for value in (10**4299, 10**5000, -(10**5000), Number(10**5000)):
        check("SELECT %s", (value,))
        check("SELECT %s", ([value],))


# --- adapters of the user's own -------------------------------------------------------------------


class Quoted:
    """The least that psycopg2 wants of an adapter."""

    def __init__(self, literal):
        self.literal = literal

    def getquoted(self):
        if isinstance(self.literal, Exception):
            raise self.literal
        return self.literal


class Prepared(Quoted):
    """Writes down which connections it is prepared with."""

    seen = ()

    def prepare(self, conn):
        self.seen = (*self.seen, conn)


class NotPrepared(Quoted):
    prepare = None


class Unprepared(Quoted):
    def prepare(self, conn):
        raise self.literal


class Conforming:
    """Gives what `conform` gives when asked for an ISQLQuote."""

    def __init__(self, conform):
        self.conform = conform

    def __conform__(self, protocol):
        assert protocol is ISQLQuote
        return self.conform()


def returning(value):
    return lambda: value


def failing(error):
    def fail():
        raise error

    return fail


ERRORS = [
    *(ValueError("no", 5), TypeError("no"), KeyError("no"), AttributeError("no"), OSError(5, "no")),
    *(psycopg2.ProgrammingError("no"), psycopg2.OperationalError("no"), RuntimeError("no")),
    ext.QueryCanceledError("no"),
    *(StopAsyncIteration("no"), TimeoutError("no"), Warning("no")),
]

LITERALS = [
    *(
        b"5",
        "5",
        "'\u00e9'",
        "\ud800",
        Text("5"),
        bytearray(b"5"),
        memoryview(b"5"),
        None,
        5,
        [],
        b"",
    ),
    *("", b"'\xff'", b"%s", "%s", "%(a)s", b"1 -- ", type("Bytes", (bytes,), {})(b"5")),
    *ERRORS,
]


@pytest.mark.parametrize("literal", LITERALS, ids=shown)
def test_adapters(check, literal):
    for adapter in (Quoted(literal), Prepared(literal), NotPrepared(literal)):
        value = Conforming(returning(adapter))
        for operation in ("SELECT %s", "SELECT %s, %%, %s"):
            check(operation, (value, "x"))
            check(operation, [value] * 2)
        check("SELECT %(a)s", {"a": value})
        if isinstance(literal, (str, bytes)):  # of others psycopg2 writes the memory
            check("SELECT %s", ([1, value],))
        check(sql.SQL("SELECT {}").format(sql.Literal(value)))


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_adapters_that_raise(check, error):
    for value in (Conforming(failing(error)), Conforming(lambda: Unprepared(error))):
        check("SELECT %s", (value,))
        check("SELECT %(a)s, %(a)s", {"a": value})
        check("SELECT %s", ([value],))


def test_conforming(check):
    class Property:
        @property
        def __conform__(self):
            raise ValueError("no __conform__")

    class Uncallable:
        __conform__ = 5

    class Static:
        @staticmethod
        def __conform__(protocol):
            return AsIs("1")

    class Word(str):
        """Also a str, which is asked for later."""

        __slots__ = ()

        def __conform__(self, protocol):
            return AsIs("'conforms'")

    class Reluctant(int):
        def __conform__(self, protocol):
            return None

    class Typical(type):
        def __conform__(cls, protocol):
            return AsIs("'a class'")

    class Classy(metaclass=Typical):
        pass

    adapters = [None, 5, "x", [], AsIs("1"), Quoted, Quoted(b"1")]
    for value in (
        *(Conforming(returning(adapter)) for adapter in adapters),
        *(Property(), Uncallable(), Static(), Static, Word("x"), Reluctant(5), Classy, Classy()),
        *(Quoted(b"1"), Quoted),
    ):
        check("SELECT %s", (value,))
        check("SELECT %(a)s, %(a)s", {"a": value})
        check("SELECT %s", ([value, value],))


def test_prepare_gets_the_psycopg2_connection(roads):
    for road in roads.all:
        adapter = Prepared(b"1")
        run(road, "SELECT %s", (Conforming(returning(adapter)),))
        assert adapter.seen == (road.raw,)
        assert type(road.raw) is ext.connection


# --- refused on a cursor that has a result --------------------------------------------------------

REFUSED = {
    "too few": ("SELECT %s", ()),
    "too many": ("SELECT %s", (1, 2)),
    "no such name": ("SELECT %(a)s", {}),
    "mixed": ("SELECT %(a)s %s", {"a": 1}),
    "other format": ("SELECT %d", (1,)),
    "an int": ("SELECT %s", 5),
    "not adapted": ("SELECT %s", (object(),)),
    "NUL": ("SELECT %s", ("\0",)),
    "failing adapter": ("SELECT %s", (Conforming(failing(ValueError("no"))),)),
    "no adapter": ("SELECT %s", (Conforming(list),)),
    "operation of no text": (None, None),
    "empty operation": ("", None),
    "operation that is an int": (5, ()),
    "operation not to encode": ("SELECT '\ud800'", None),
}


@pytest.mark.parametrize("arguments", REFUSED.values(), ids=REFUSED)
def test_refused_after_a_result(roads, arguments):
    """What the cursor still shows of the statement before."""
    for first in ("SELECT 1 AS a, 'x' AS b UNION ALL SELECT 2, 'y'", "SET work_mem = 100"):
        for fetches in ([], [("fetchone",)], [("fetchall",)]):
            roads.same_steps(
                ("execute", first),
                *fetches,
                ("execute", *arguments),
                ("fetchone",),
                ("execute", "SELECT %s", ("again",)),
                ("fetchall",),
            )


def test_refused_after_an_error(roads):
    for arguments in REFUSED.values():
        roads.same_steps(("execute", "SELECT 1/0"), ("execute", *arguments), ("fetchone",))
        roads.same_steps(("execute", *arguments), ("execute", *arguments), ("fetchone",))


def test_callproc_refused_after_a_result(roads):
    for arguments in (("upper", [object()]), ("upper", 5), (None, []), ("upper", {1: 1})):
        roads.same_steps(
            *(("execute", "SELECT 1 AS a"), ("callproc", *arguments)),
            *(("fetchone",), ("execute", "SELECT 2"), ("fetchone",)),
        )


# --- adapters with side effects -------------------------------------------------------------------


def test_an_adapter_may_change_what_comes_after_it(check):
    def changing(parameters, key, value):
        def conform():
            parameters[key] = value
            return AsIs("'first'")

        return Conforming(conform)

    def by_position():
        parameters = [None, "old"]
        parameters[0] = changing(parameters, 1, "new")
        return parameters

    def by_name():
        parameters = {}
        parameters["a"] = changing(parameters, "b", "new")
        return parameters

    assert check("SELECT %s, %s", by_position).rows == [("first", "new")]
    assert check("SELECT %(a)s, %(b)s", by_name).rows == [("first", "new")]


def test_an_adapter_may_use_the_connection(roads):
    """For everything that does not wait for the server."""
    for road in roads.all:

        def conform(raw=road.raw):
            with raw.cursor() as cursor:
                return AsIs(cursor.mogrify("%s || %s", ("it's", 5)).decode())

        assert run(road, "SELECT %s, %s", (Conforming(conform), 1)).rows == [("it's5", 1)]


@pytest.mark.parametrize("inner", ["SELECT 2", "SELECT nonsense", "SELECT pg_notify('own', 'x')"])
def test_an_adapter_that_executes_on_its_connection(roads, inner):
    """psycopg2 has one asynchronous statement at a time, and says so; what follows is unharmed."""
    for road in roads.ours:
        cursors = []

        def conform(raw=road.raw, cursors=cursors):
            cursors.append(raw.cursor())
            cursors[-1].execute(inner)
            return AsIs("1")

        assert isinstance(run(road, "SELECT %s", (Conforming(conform),)).error, psycopg2.Error)
        road.run(until(lambda raw=road.raw: not raw.isexecuting()))
        assert len(cursors) == 1
    assert roads.same("SELECT %s", (1,)).rows == [(1,)]


def test_an_adapter_that_closes_the_cursor(roads):
    for road in roads.all:
        cursors = []
        conforming = Conforming(lambda cursors=cursors: cursors[0].close() or AsIs("1"))
        outcome = run(road, "SELECT %s", (conforming,), cursors.append)
        assert type(outcome.error) is psycopg2.InterfaceError
    assert roads.same("SELECT %s", (1,)).rows == [(1,)]


async def test_an_adapter_that_is_cancelled(connect):
    """Nothing was sent: the connection stays open."""
    conn = await connect()
    async with conn.cursor() as cursor:
        with pytest.raises(asyncio.CancelledError):
            await cursor.execute("SELECT %s", (Conforming(failing(asyncio.CancelledError())),))
    assert await fetch(conn, "SELECT 1") == [(1,)]


def times_asked(road, wrap):
    asked = []
    run(road, *wrap(Conforming(lambda: asked.append(1) or AsIs("1"))))
    return len(asked)


def test_adapters_are_asked_as_often_as_psycopg2_asks(roads):
    for wrap in (
        lambda value: ("SELECT %s, %s", (value, value)),
        lambda value: ("SELECT %s, %s", (value,)),
        lambda value: ("SELECT %(a)s, %(a)s", {"a": value}),
        lambda value: ("SELECT %(a)s, %(b)s", {"a": value}),
        lambda value: ("SELECT %(a)s %s", {"a": value}),
    ):
        expected, *ours = [times_asked(road, wrap) for road in roads.all]
        assert ours == [expected] * len(ours)


def test_adapters_in_a_composed_statement_are_asked_once(roads):
    def wrap(value):
        return sql.SQL("SELECT {}").format(sql.Literal(value)), None

    assert [times_asked(road, wrap) for road in roads.all] == [1] * len(roads.all)


# --- callproc and executemany ---------------------------------------------------------------------


def called(name, *parameters):
    """callproc() without its value: asynchronous, there is none."""

    async def walk(road):
        cursor, _ = await road.cursor()
        with contextlib.closing(cursor):
            try:
                await settle(cursor.callproc(name, *parameters))
                seen = portrait(await settle(cursor.fetchall()))
            except Exception as error:
                seen = portrait_of_error(error)
            return seen, attributes(cursor)

    return walk


CALLS = {
    "nothing": ("version",),
    "none": ("version", None),
    "tuple": ("upper", ("é",)),
    "list": ("concat", ["it's", 1, None, b"x", decimal.Decimal("1.5"), [1, None], True]),
    "str": ("concat", "ab"),
    "dict": ("make_interval", {"days": 5, "hours": -1}),
    "ordered dict": ("make_interval", collections.OrderedDict(hours=1, days=2)),
    "dict subclass": ("make_interval", collections.defaultdict(int, days=5)),
    "empty dict": ("version", {}),
    "odd names": ("make_interval", {'da"ys': 1}),
    "no such argument": ("make_interval", {"é": 1}),
    "keys of other types": ("make_interval", {1: 1}),
    "bytes as keys": ("make_interval", {b"days": 1}),
    "mapping": ("make_interval", types.MappingProxyType({"days": 1})),
    "placeholders": ("concat", ["%s", "%(a)s", "%%"]),
    "percent in the name": ("concat(%s", ["x"]),
    "int": ("version", 5),
    "generator": ("version", iter([1])),
    "set": ("concat", {1}),
    "object": ("concat", [object()]),
    "NUL": ("concat", ["\0"]),
    "surrogate": ("concat", ["\ud800"]),
    "bytes as the name": (b"upper", ["x"]),
    "no name": (None, ["x"]),
    "surrogate in the name": ("\ud800", []),
    "not there": ("no_such_function", [1]),
    "schema": ("pg_catalog.upper", ["x"]),
    "in": ("concat", [(1, 2)]),
    "composed name": (sql.SQL("upper"), ["x"]),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_callproc(roads, call):
    roads.alike(called(*call))
    assert roads.same("SELECT %s", (1,)).rows == [(1,)]


MANY = {
    "tuples": ("VALUES (%s, %s)", [(1, "it's"), (None, b"x"), (1.5, [1])]),
    "one": ("SELECT %s", [(1,)]),
    "none": ("SELECT %s", []),
    "dicts": ("SELECT %(a)s", [{"a": 1}, {"a": "é", "b": 2}]),
    "lists": ("SELECT %s, '%%'", [[1], ["\\"]]),
    "str": ("SELECT %s", "ab"),
    "without parameters": ("SELECT 1", [None, (), {}]),
    "inserts": ("INSERT INTO pairs VALUES (%s, %s)", [(1, "é"), (2, None)]),
    "updates": ("UPDATE pairs SET b = %s WHERE a > %s", [("x", 0), ("y", 100)]),
    "too many": ("SELECT %s", [(1, 2)]),
    "NUL": ("SELECT %s", [("\0",)]),
    "failing": ("SELECT 1/%s", [(1,), (0,), (2,)]),
    "no sets": ("SELECT 1", [5]),
    "not to iterate": ("SELECT 1", 5),
    "empty operation": ("", [()]),
    "no operation": (None, [()]),
    "composed": (sql.SQL("SELECT {}").format(sql.Placeholder()), [(1,), ("x",)]),
}


@pytest.mark.parametrize("arguments", MANY.values(), ids=MANY)
def test_executemany(roads, arguments):
    """What is sent, and what is left to see after the last set or the one that failed."""
    roads.prepare("CREATE TEMP TABLE IF NOT EXISTS pairs (a int, b text)")
    operation, sets = arguments
    roads.same_steps(("executemany", operation, sets), ("execute", "SELECT %s", [1]), ("fetchall",))


def test_fetch_after_executemany(roads):
    roads.same_steps(("executemany", "SELECT %s", [(1,), (2,)]), ("fetchone",))


@pytest.mark.parametrize("refused", [(2,), (2, object()), (2, "\0")], ids=shown)
def test_executemany_that_stops_in_the_middle(roads, refused):
    roads.prepare("CREATE TEMP TABLE IF NOT EXISTS pairs (a int, b text)")
    roads.same_steps(("executemany", "INSERT INTO pairs VALUES (%s, %s)", [(1, "x"), refused]))


def test_executemany_takes_any_iterable(roads):
    def sets():
        yield (1, "it's")
        yield [2, None]

    for road in roads.all:

        async def walk(road=road):
            cursor, _ = await road.cursor()
            with contextlib.closing(cursor):
                await settle(cursor.executemany("SELECT %s, %s", sets()))
                return cursor.query, cursor.rowcount

        assert road.run(walk()) == (b"SELECT 2, NULL", 2)


def test_a_composed_statement_that_is_refused_asks_once(roads):
    def wrap(value):
        return sql.SQL("SELECT {}, %s").format(sql.Literal(value)), ()

    expected, *ours = [times_asked(road, wrap) for road in roads.all]
    assert ours == [expected] * len(ours)
