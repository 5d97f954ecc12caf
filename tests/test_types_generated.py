"""Generated values of every kind of type, under generated settings, on every road."""

import calendar
import json

import psycopg2
import psycopg2.extras
import pytest
from conftest import command, side_connection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg2.extensions import cursor as TupleCursor
from roads import Roads, tally
from support import LONG
from test_types import register_arrays_of, register_composite, register_range
from types_table import SCHEMA, TYPES, ZONES

FACTORIES = [
    *(TupleCursor, psycopg2.extras.DictCursor, psycopg2.extras.RealDictCursor),
    psycopg2.extras.NamedTupleCursor,
]
CHOICES = {
    "DateStyle": ["ISO, MDY", "ISO, DMY", "SQL, DMY", "SQL, MDY", "Postgres, YMD", "German, DMY"],
    "IntervalStyle": ["postgres", "postgres_verbose", "sql_standard", "iso_8601"],
    "TimeZone": list(ZONES.values()),
    "bytea_output": ["hex", "escape"],
    "extra_float_digits": ["1", "3", "0", "-4", "-15"],
    "standard_conforming_strings": ["on", "off"],
}
SESSIONS = st.fixed_dictionaries({}, optional={k: st.sampled_from(v) for k, v in CHOICES.items()})


@pytest.fixture(scope="module")
def dsn(dsn):
    with side_connection(dsn) as conn:
        command(conn, SCHEMA)
    return dsn


@pytest.fixture(scope="module")
def registered_roads(dsn):
    roads = Roads(dsn)
    for register in (
        *(register_composite("pair"), register_composite("nest"), register_composite("item")),
        *(register_range("textrange"), register_range("floatrange"), register_arrays_of("mood")),
    ):
        register(roads)
    yield roads
    roads.close()


# --- texts ----------------------------------------------------------------------------------------


def mostly(low, high, *usual):
    """Integers of a range, half of them out of the usual part of it."""
    return st.one_of(st.integers(*usual), st.integers(low, high))


def joined(separator, *parts):
    return st.tuples(*parts).map(lambda items: separator.join(map(str, items)))


WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
TRICKY = st.text("ab,(){}[]\"'\\ Nul:;=>\n", max_size=12)
TEXTS = st.one_of(WORDS, TRICKY)
MICROS = st.sampled_from(["", ".5", ".000001", ".999999"]) | st.from_regex(
    r"\.[0-9]{1,6}", fullmatch=True
)
TWO = "{:02}".format
CLOCKS = st.just("24:00:00") | joined(
    "",
    *(st.integers(0, 23).map(TWO), st.just(":"), st.integers(0, 59).map(TWO), st.just(":")),
    *(st.integers(0, 59).map(TWO), MICROS),
)
OFFSETS = st.lists(st.integers(0, 59).map(TWO), max_size=2).flatmap(
    lambda rest: st.tuples(st.sampled_from("+-"), st.integers(0, 15).map(TWO)).map(
        lambda first: first[0] + ":".join([first[1], *rest])
    )
)


@st.composite
def days(draw, last):
    """A date of the years 4712 BC to `last`, and " BC" or nothing to be written at the end."""
    year = draw(mostly(-4711, last, 1600, 2400))
    month = draw(st.integers(1, 12))
    day = draw(st.integers(1, calendar.mdays[month]))
    return f"{year if year > 0 else 1 - year:04}-{month:02}-{day:02}", " BC" if year < 1 else ""


def moments(offsets):
    return st.tuples(days(294275), CLOCKS, offsets).map(
        lambda parts: f"{parts[0][0]} {parts[1]}{parts[2]}{parts[0][1]}"
    )


DATES = days(5874896).map("".join)
STAMPS = moments(st.just(""))
ZONED = moments(st.just("") | OFFSETS)
UNITS = {"years": 178000000, "mons": 2**31 - 1, "days": 2**31 - 1, "hours": 2**31 - 1}
INTERVALS = st.fixed_dictionaries(
    {},
    optional={
        **{unit: mostly(-top, top, -40, 40) for unit, top in UNITS.items()},
        "mins": st.integers(-100, 100),
        "secs": joined("", st.integers(-100, 100), MICROS),
    },
).map(lambda parts: " ".join(f"{number} {unit}" for unit, number in parts.items()) or "0")

NUMERICS = st.from_regex(r"-?[0-9]{1,40}(\.[0-9]{1,40})?", fullmatch=True) | st.from_regex(
    r"-?[1-9][0-9]?(\.[0-9])?e[+-]?[0-9]{1,3}", fullmatch=True
)
POINTS = joined(",", st.floats(), st.floats()).map("({})".format)
BLANKS = st.sampled_from(["", "", "", " ", "\n\t"])
STRINGS = st.builds(json.dumps, TEXTS, ensure_ascii=st.booleans()) | st.sampled_from(
    [r'"\/\b\f"', r'"\ud83d\ude00"', r'"\u00e4"']
)
JSON = st.recursive(
    st.one_of(
        st.sampled_from(["null", "true", "false", "-0", "0.0", "1E400", "[]", "{}"]),
        st.from_regex(
            r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?", fullmatch=True
        ),
        STRINGS,
    ),
    lambda inner: st.one_of(
        st.lists(joined("", BLANKS, inner, BLANKS), max_size=4).map(lambda v: f"[{','.join(v)}]"),
        st.lists(joined("", BLANKS, STRINGS, st.just(":"), BLANKS, inner), max_size=4).map(
            lambda v: f"{{{','.join(v)}}}"  # keys may come twice
        ),
    ),
    max_leaves=10,
)
ADDRESSES = st.ip_addresses(v=4).flatmap(
    lambda ip: st.integers(0, 32).map(lambda bits: f"{ip}/{bits}")
) | st.ip_addresses(v=6).flatmap(lambda ip: st.integers(0, 128).map(lambda bits: f"{ip}/{bits}"))


def boxes(items):
    """Lists of one to three dimensions, as SQL wants them: rectangular."""

    def shaped(shape):
        inner = items if len(shape) == 1 else shaped(shape[1:])
        return st.lists(inner, min_size=shape[0], max_size=shape[0])

    return st.lists(st.integers(1, 3), min_size=1, max_size=3).flatmap(shaped) | st.just([])


def ranges(name, ends):
    """Ranges between two ends in any order, each of them maybe missing."""
    end = f"%s::{SUBTYPES[name]}"
    values = f"(SELECT {end}, {end}, %s) AS v (a, b, c)"
    return (
        f"(SELECT {name}(least(a, b), greatest(a, b), c) FROM {values})",
        st.tuples(st.none() | ends, ends, st.sampled_from(["[)", "[]", "(]", "()"])),
    )


SUBTYPES = {
    "int4range": "int4",
    "numrange": "numeric",
    "daterange": "date",
    "tsrange": "timestamp",
    "tstzrange": "timestamptz",
    "textrange": "text",
    "floatrange": "float8",
}


def one(name, values):
    """A type all of whose values can be sent as one parameter."""
    return f"%s::{name}", values.map(lambda value: (value,))


# What to select, and the parameters of one value.
FAMILIES = {
    "bool": one("bool", st.booleans()),
    "int2": one("int2", st.integers(-(2**15), 2**15 - 1)),
    "int4": one("int4", mostly(-(2**31), 2**31 - 1, -300, 300)),
    "int8": one("int8", mostly(-(2**63), 2**63 - 1, -300, 300)),
    "oid": one("oid", st.integers(0, 2**32 - 1)),
    "float4": one("float4", st.floats(width=32)),
    "float8": one("float8", st.floats()),
    "numeric": one("numeric", NUMERICS),
    "long numeric": (
        "(%s::text || repeat(%s, %s) || '.' || repeat(%s, %s))::numeric",
        st.tuples(
            *(st.sampled_from(["", "-"]), st.sampled_from("019"), st.integers(1, 3000)),
            *(st.sampled_from("019"), st.integers(1, 3000)),
        ),
    ),
    "money": one(
        "money", st.integers(-(2**63), 2**63 - 1).map(lambda n: f"{n // 100}.{n % 100:02}")
    ),
    "text": one("text", TEXTS),
    "char": one("char(7)", TEXTS),
    "name": one("name", TEXTS),
    '"char"': ('(%s)::"char"', st.integers(-128, 127).map(lambda n: (n,))),
    "bytea": one("bytea", st.binary(max_size=40)),
    "bit": one("varbit", st.text("01", max_size=70)),
    "uuid": one("uuid", st.uuids().map(str)),
    "date": one("date", DATES),
    "time": one("time", CLOCKS),
    "timetz": one("timetz", joined("", CLOCKS, OFFSETS)),
    "timestamp": one("timestamp", STAMPS),
    "timestamptz": one("timestamptz", ZONED),
    "interval": one("interval", INTERVALS),
    "json": one("json", joined("", BLANKS, JSON, BLANKS)),
    "jsonb": one("jsonb", JSON),
    "xml": ("xmlelement(name x, xmlattributes(%s::text AS y), %s::text)", st.tuples(TEXTS, TEXTS)),
    "tsvector": ("array_to_tsvector(%s::text[])", st.lists(TEXTS.filter(bool)).map(lambda v: (v,))),
    "hstore": one("hstore", st.dictionaries(TEXTS, st.none() | TEXTS, max_size=4)),
    "inet": one("inet", ADDRESSES),
    "point": one("point", POINTS),
    "polygon": one("polygon", st.lists(POINTS, min_size=1, max_size=4).map(",".join)),
    "box": one("box", joined(",", POINTS, POINTS)),
    "record": (
        "ROW(%s::text, %s::text, %s::bytea)",
        st.tuples(TEXTS, st.none() | TEXTS, st.binary()),
    ),
    "pair": ("ROW(%s, %s)::pair", st.tuples(st.none() | st.integers(-9, 9), TEXTS)),
    "text[]": one("text[]", boxes(st.none() | TEXTS)),
    "int4[]": one("int4[]", boxes(st.none() | st.integers(-(2**31), 2**31 - 1))),
    "float8[]": one("float8[]", boxes(st.none() | st.floats())),
    "timestamptz[]": one("timestamptz[]", boxes(st.none() | ZONED)),
    "interval[]": one("interval[]", boxes(st.none() | INTERVALS)),
    "bytea[]": one("bytea[]", boxes(st.none() | st.binary(max_size=10))),
    "json[]": one("json[]", boxes(st.none() | JSON)),
    "hstore[]": one("hstore[]", boxes(st.none() | st.dictionaries(TEXTS, TEXTS, max_size=3))),
    "int4range": ranges("int4range", st.integers(-(2**31), 2**31 - 2)),
    "numrange": ranges("numrange", NUMERICS),
    "daterange": ranges("daterange", DATES),
    "tsrange": ranges("tsrange", STAMPS),
    "tstzrange": ranges("tstzrange", ZONED),
    "textrange": ranges("textrange", TEXTS),
    "floatrange": ranges("floatrange", st.floats()),
}

NUMBERS = st.none() | st.integers(-9, 9)
REGISTERED = {
    "pair": ("ROW(%s, %s)::pair", st.tuples(NUMBERS, st.none() | TEXTS)),
    "nest": (
        "ROW(ROW(%s, %s)::pair, ARRAY[ROW(%s, %s), NULL]::pair[], %s, %s, %s, %s, %s)::nest",
        st.tuples(
            *(NUMBERS, TEXTS, NUMBERS, TEXTS, st.sampled_from(["sad", '"', "ä,b", "it's", "\\"])),
            *(st.sampled_from([None, "empty", "[1,5)", "(,)"]), st.none() | ZONED),
            *(st.binary(max_size=10), st.floats()),
        ),
    ),
    "item": (
        "ROW(%s, %s, %s::text[], %s)::item",
        st.tuples(NUMBERS, st.text('a,"\\ ()', max_size=5), boxes(TEXTS), st.integers(-99, 99)),
    ),
    "mood": one("mood[]", boxes(st.sampled_from([None, "sad", "very happy", '"', "\\", "NULL"]))),
    "textrange": ranges("textrange", TEXTS),
    "floatrange": ranges("floatrange", st.floats()),
}


# --- the roads ------------------------------------------------------------------------------------


def flat(values):
    return [parameter for value in values for parameter in value]


def compare(roads, sql, values, factory):
    """One row of them all, halved until each error is compared alone; whether all could be read."""
    row = ", ".join(f"{sql} AS v{number}" for number in range(len(values)))
    error = roads.same(f"SELECT {row}", flat(values), factory).error
    if error is None or len(values) == 1:
        return error is None
    middle = len(values) // 2
    compare(roads, sql, values[:middle], factory)
    compare(roads, sql, values[middle:], factory)
    return False


def check(roads, name, family, data):
    """Draw settings and values and read these in a row, under each other and as arrays."""
    sql, strategy = family
    session = data.draw(SESSIONS)
    values = data.draw(st.lists(strategy, min_size=1, max_size=20))
    factory = data.draw(st.sampled_from(FACTORIES))
    tally.types.update(TYPES.keys() & {name})
    tally.settings.update(f"{k} {v}" for k, v in session.items())
    roads.prepare("; ".join(["RESET ALL", *(f"SET {k} = '{v}'" for k, v in session.items())]))
    if compare(roads, sql, values, factory):
        doubled = [value for value in values for _ in range(2)]
        rows = " UNION ALL ".join([f"SELECT {sql} AS v", *[f"SELECT {sql}"] * (len(doubled) - 1)])
        roads.same(rows, flat(doubled), factory)
    array = f"ARRAY[{', '.join([sql] * len(values))}]"
    roads.same(f"SELECT {array} AS a, ARRAY[{array}] AS b", flat(values) * 2)


many = settings(
    max_examples=1000 if LONG else 15,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.mark.parametrize("name", FAMILIES)
@many
@given(data=st.data())
def test_generated_values(open_roads, name, data):
    check(open_roads, name, FAMILIES[name], data)


@pytest.mark.parametrize("name", REGISTERED)
@many
@given(data=st.data())
def test_generated_values_of_registered_types(registered_roads, name, data):
    check(registered_roads, name, REGISTERED[name], data)
