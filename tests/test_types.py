"""Every type of the server, and of a user, under every setting, on every road.

The values and the settings are in types_table.py. Many expressions share a statement; where one of
them can't be read, the statement is halved, until each error is compared alone.
"""

import datetime
import decimal
import ipaddress
import json

import psycopg2
import psycopg2.extras
import psycopg2.tz
import pytest
import types_table
from conftest import command, side_connection
from psycopg2.extensions import cursor as TupleCursor
from psycopg2.extensions import new_array_type, register_type
from roads import tally
from support import LONG
from types_table import SCHEMA, SETTINGS, TYPES, expressions

FACTORIES = [
    *(TupleCursor, psycopg2.extras.DictCursor, psycopg2.extras.RealDictCursor),
    psycopg2.extras.NamedTupleCursor,
]
each_setting = pytest.mark.parametrize("setting", SETTINGS)
each_factory = pytest.mark.parametrize("factory", FACTORIES, ids=lambda f: f.__name__)

# What a server may be built without.
OPTIONAL = {"xml"}


@pytest.fixture(scope="module")
def dsn(dsn):
    with side_connection(dsn) as conn:
        command(conn, SCHEMA)
    return dsn


@pytest.fixture
def version(roads):
    return roads.reference.raw.server_version // 10000


@pytest.fixture
def arrays(side):
    """The types of which there are arrays."""
    with side.cursor() as cursor:
        cursor.execute("SELECT oid::regtype::text FROM pg_type WHERE typarray <> 0")
        return {name for (name,) in cursor}


def scene(roads, setting):
    """Set it; the types to look at."""
    for statement in SETTINGS[setting].statements:
        roads.prepare(statement)
    tally.settings.add(setting)
    names = SETTINGS[setting].types
    version = roads.reference.raw.server_version // 10000
    known = types_table.known(version)
    chosen = known if names is None or LONG else [name for name in names if name in known]
    tally.types.update(name for name in chosen if not TYPES[name].none)
    return {name: list(expressions(name, version)) for name in chosen}


def compare(roads, values, factory=TupleCursor):
    """Read expressions on every road; a dict of each with its value or exception."""
    columns = ", ".join(f"{value} AS v{number}" for number, value in enumerate(values))
    outcome = roads.same(f"SELECT {columns}", factory=factory)
    if outcome.error is None:
        return dict(zip(values, outcome.rows[0], strict=True)) if factory is TupleCursor else {}
    if len(values) == 1:
        return {values[0]: outcome.error}
    middle = len(values) // 2
    return {
        **compare(roads, values[:middle], factory),
        **compare(roads, values[middle:], factory),
    }


def is_refusal(value):
    """Whether it is the server that says no."""
    return isinstance(value, psycopg2.Error) and value.pgcode is not None


# --- every type -----------------------------------------------------------------------------------


def test_every_type_has_an_entry(side):
    """Arrays are made of their elements, and rows of tables are in a test of their own."""
    with side.cursor() as cursor:
        cursor.execute(
            """
            SELECT t.oid::regtype::text FROM pg_type AS t
            WHERE t.typtype <> 'c' AND NOT EXISTS (SELECT FROM pg_type WHERE typarray = t.oid)
            EXCEPT SELECT to_regtype(name)::text FROM unnest(%s) AS name""",
            [list(TYPES)],
        )
        assert cursor.fetchall() == [], "types without an entry in types_table.py"


@pytest.mark.parametrize("name", TYPES)
def test_the_server_takes_every_value(roads, version, name):
    entry = TYPES[name]
    if entry.since > version:
        pytest.skip(f"PostgreSQL {entry.since} and newer")
    values = compare(roads, list(expressions(name, version)))
    refused = [value for value in values if is_refusal(values[value])]
    if entry.none or (name in OPTIONAL and refused):
        assert set(refused) == set(values)
    else:
        assert not refused
        assert any(value is not None for value in values.values())


@each_setting
def test_values(roads, setting):
    for name, values in scene(roads, setting).items():
        compare(roads, [*values, f"NULL::{name}", *values[:1]])


def arrays_of(name, values):
    """Expressions of arrays: NULLs, more dimensions, other lower bounds."""
    yield f"'{{}}'::{name}[]"
    yield f"NULL::{name}[]"
    yield f"ARRAY[{', '.join(values)}, NULL]::{name}[]"
    for value in values:
        yield f"ARRAY[[{value}, NULL], [NULL, {value}]]::{name}[]"
    for sizes, bounds in [("2", "0"), ("1,2", "-1,5"), ("1,1,1,1,1,2", "1,1,1,1,1,1")]:
        yield f"array_fill({values[-1]}, '{{{sizes}}}'::int[], '{{{bounds}}}'::int[])"


@each_setting
def test_arrays(roads, arrays, setting):
    for name, values in scene(roads, setting).items():
        if name in arrays and values:
            compare(roads, list(arrays_of(name, values)))


def under_each_other(values):
    """A query: in its columns, each value comes once above and once below every other.

    Native decoding takes the value above again where the text is the same.
    """
    names = [f"v{number}" for number in range(len(values))]
    columns = ", ".join(f"{value} AS {name}" for value, name in zip(values, names, strict=True))
    every = f"SELECT {', '.join(names)} FROM line"
    rows = [
        f"{every} UNION ALL SELECT {', '.join([name] * len(names))} FROM line" for name in names
    ]
    return f"WITH line AS (SELECT {columns}) {' UNION ALL '.join(rows)}"


@pytest.mark.parametrize("setting", [name for name in SETTINGS if SETTINGS[name].types is None])
def test_columns(roads, setting):
    for name, values in scene(roads, setting).items():
        found = compare(roads, values)
        readable = [value for value in values if not isinstance(found[value], Exception)]
        roads.same(under_each_other([*readable, f"NULL::{name}"]))


@each_factory
def test_rows_of_every_type(roads, factory):
    for name, values in scene(roads, "default").items():
        compare(roads, [*values, f"NULL::{name}"], factory)


def test_rows_of_tables(roads, side):
    """The composite type of every table and view of the server, and its array."""
    with side.cursor() as cursor:
        cursor.execute("""
            SELECT t.oid::regtype::text FROM pg_type AS t JOIN pg_class AS c ON c.oid = t.typrelid
            WHERE t.typtype = 'c' AND c.relnamespace <> 'pg_toast'::regnamespace ORDER BY 1""")
        names = [name for (name,) in cursor]
    tally.types.update(names)
    assert len(names) > 100
    rows = [f"json_populate_record(NULL::{name}, '{{}}')" for name in names]
    compare(roads, [*rows, *(f"ARRAY[{row}, NULL]" for row in rows)])


def test_no_column_remembers_nan(roads):
    """One NaN in two rows would make the rows equal, which they are not."""
    for name in ("float4", "float8", "numeric"):
        rows = f"SELECT 'NaN'::{name} FROM generate_series(1, 2)"
        assert roads.same(rows).error is None
        for road in roads.all:
            one, other = road.execute(rows, None, TupleCursor, lambda cursor: None).rows
            assert one != other


ZONES = {
    "none": None,
    "psycopg2's own": psycopg2.tz.FixedOffsetTimezone,
    "own": lambda offset: datetime.timezone(offset, "own"),
    "failing": lambda offset: 1 / 0,
    "no tzinfo": lambda offset: "UTC",
}


@pytest.mark.parametrize("factory", ZONES.values(), ids=ZONES)
@pytest.mark.parametrize("setting", ["default", "TimeZone Europe/Amsterdam", "TimeZone fixed"])
def test_tzinfo_factory(roads, setting, factory):
    def hook(cursor):
        cursor.tzinfo_factory = factory

    types = scene(roads, setting)
    with roads.using(hook):
        for name in ("timetz", "timestamptz", "tstzrange", "timestamptz[]", "timestamp", "time"):
            compare(roads, types[name])
            compare(roads, list(arrays_of(name, types[name])))
            roads.same(under_each_other(types[name][:4]))


# --- registered types -----------------------------------------------------------------------------


def decimal_loads(text):
    return json.loads(text, parse_float=decimal.Decimal)


def register_arrays_of(name):
    def register(roads):
        with roads.reference.raw.cursor() as cursor:
            cursor.execute("SELECT typarray FROM pg_type WHERE oid = %s::regtype", [name])
            caster = new_array_type(cursor.fetchone(), f"{name}[]", psycopg2.STRING)
        for raw in roads.raws():
            register_type(caster, raw)

    return register


def register_composite(name):
    def register(roads):
        composite = psycopg2.extras.register_composite(name, roads.reference.raw)
        for raw in roads.raws():
            register_type(composite.typecaster, raw)
            register_type(composite.array_typecaster, raw)

    return register


def register_range(name):
    def register(roads):
        found = psycopg2.extras.register_range(name, name.title(), roads.reference.raw)
        for raw in roads.raws():
            register_type(found.typecaster, raw)
            register_type(found.array_typecaster, raw)

    return register


def everywhere(register, **kwargs):
    return lambda roads: [register(conn_or_curs=raw, **kwargs) for raw in roads.raws()]


# What to register, the types to read, and what a value is then
REGISTERED = {
    "inet": (everywhere(psycopg2.extras.register_inet), ["inet"], psycopg2.extras.Inet),
    "ipaddress": (
        everywhere(psycopg2.extras.register_ipaddress),
        ["inet", "cidr"],
        (ipaddress._BaseAddress, ipaddress._BaseNetwork, ipaddress.IPv4Interface),
    ),
    "json": (
        everywhere(psycopg2.extras.register_default_json, loads=decimal_loads),
        ["json"],
        decimal.Decimal,
    ),
    "jsonb": (
        everywhere(psycopg2.extras.register_default_jsonb, loads=decimal_loads),
        ["jsonb"],
        decimal.Decimal,
    ),
    "enum": (register_arrays_of("mood"), ["mood"], str),
    "bit": (register_arrays_of("bit"), ["bit"], str),
    "pair": (register_composite("pair"), ["pair", "goodpair"], tuple),
    "nest": (register_composite("nest"), ["nest"], tuple),
    "item": (register_composite("item"), ["item"], tuple),
    "textrange": (register_range("textrange"), ["textrange"], psycopg2.extras.Range),
    "floatrange": (register_range("floatrange"), ["floatrange"], psycopg2.extras.Range),
}


@pytest.mark.filterwarnings("ignore:the inet adapter is deprecated")
@pytest.mark.parametrize("which", REGISTERED)
def test_registered(roads, arrays, version, which):
    register, names, kind = REGISTERED[which]
    register(roads)
    for setting in ("default", "all else"):
        for statement in SETTINGS[setting].statements:
            roads.prepare(statement)
        for name in names:
            values = list(expressions(name, version))
            found = compare(roads, [*values, f"NULL::{name}"])
            assert any(isinstance(value, kind) for value in found.values())
            compare(roads, list(arrays_of(name, values)))
            roads.same(under_each_other(values))
