"""Ranges, composites and hstore: decoded natively where psycopg2 has casters in Python."""

import gc
import sys

import psycopg2
import psycopg2.extensions
import psycopg2.extras
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg2._range import RangeCaster
from psycopg2.extensions import new_type, register_type
from psycopg2.extras import CompositeCaster, HstoreAdapter, Range
from roads import Roads

from aiopgx._rows import take

INT, TEXT, VARCHAR = 23, 25, 1043
SCHEMA = """
    CREATE TYPE spot AS (x int, y text);
    CREATE TYPE place AS (a spot, b spot[], r int4range, t timestamptz, h hstore, u text, n uuid);
    CREATE TYPE textrange AS RANGE (SUBTYPE = text);
    CREATE TYPE spotrange AS RANGE (SUBTYPE = spot);
"""


class Counting(Range):
    """Has a method of its own that making one has to go through."""

    made = 0

    def __init__(self, *args, **kwargs):
        Counting.made += 1
        super().__init__(*args, **kwargs)


class AsDict(CompositeCaster):
    def make(self, values):
        return dict(zip(self.attnames, values, strict=True))


class Shouting(CompositeCaster):
    @classmethod
    def tokenize(cls, text):
        return [token and token.upper() for token in super().tokenize(text)]


@pytest.fixture(scope="module")
def db(dsn):
    conn = psycopg2.connect(dsn)
    conn.autocommit = True
    with conn.cursor() as cursor:
        cursor.execute(SCHEMA)
    yield conn
    conn.close()


def register(roads, caster):
    for raw in roads.raws():
        register_type(caster.typecaster, raw)
        if caster.array_typecaster is not None:
            register_type(caster.array_typecaster, raw)


@pytest.fixture
def types(roads, db):
    """Composites and ranges of our own, registered on each road."""
    for name in ("spot", "place"):
        register(roads, CompositeCaster._from_db(name, db))
    for name in ("textrange", "spotrange"):
        register(roads, RangeCaster._from_db(name, name.title(), db))
    return roads


# --- what the server sends ------------------------------------------------------------------------


RANGES = [
    "SELECT '[1,3)'::int4range, 'empty'::int4range, '(,)'::int4range, NULL::int4range",
    "SELECT '[-9223372036854775808,9223372036854775806]'::int8range, '(,0]'::int8range",
    "SELECT '[1.50,NaN]'::numrange, '(1e100,)'::numrange, '[-0,0]'::numrange",
    "SELECT '[2020-01-01,2020-02-01)'::daterange, '[2020-01-01,infinity)'::daterange",
    "SELECT '[0044-03-15 BC,2020-01-01)'::daterange",
    "SELECT '[2020-01-01 00:00,2020-02-01 10:11:12.5]'::tsrange, '(,infinity)'::tsrange",
    "SELECT '[2020-01-01 00:00+02,)'::tstzrange, '(,294276-12-31 00:00+00)'::tstzrange",
    "SELECT ARRAY['[1,3)'::int4range, NULL, 'empty'], '{}'::daterange[]",
    "SELECT ARRAY[['[1,3)'::numrange], ['(,)'::numrange]]",
    """SELECT '("a""b","c\\\\d")'::textrange, '["","x,y"]'::textrange, '(a,b]'::textrange""",
    """SELECT '(a,)'::textrange, '["(","]"]'::textrange, '[ a , b )'::textrange""",
    "SELECT '[é,ü)'::textrange, '[empty,null)'::textrange, 'empty'::textrange",
    """SELECT spotrange('(1,a)'::spot, '(2,"b\\\"")'::spot), spotrange(NULL, '(,)'::spot)""",
]
COMPOSITES = [
    "SELECT '(1,a)'::spot, '(,)'::spot, '(1,\"\")'::spot, NULL::spot, '(,NULL)'::spot",
    r"""SELECT ROW(-5, 'a"b\c,()d')::spot, ROW(0, ' ')::spot, ROW(1, E'\n')::spot,
        ROW(1, ']')::spot""",
    """SELECT ARRAY[ROW(1, 'a "b"')::spot, NULL, ROW(NULL, 'é')::spot], '{}'::spot[]""",
    r"""SELECT ROW(ROW(1, 'a"b'), ARRAY[ROW(2, '\"x')::spot, NULL], '[1,2)'::int4range,
        '2020-01-01 00:00+00'::timestamptz, 'a=>"1\"2",b=>NULL'::hstore, 'ü',
        md5('a')::uuid)::place""",
    "SELECT ROW(NULL, NULL, NULL, '-infinity', NULL, NULL, NULL)::place",
    "SELECT ROW(NULL, NULL, NULL, '0044-03-15 BC', NULL, NULL, NULL)::place",
]
HSTORES = [
    r"""SELECT '"a"=>"1", "b\"c"=>NULL, "é"=>"\\\\", "a"=>"2"'::hstore, ''::hstore, NULL::hstore""",
    "SELECT ARRAY['a=>1'::hstore, NULL, ''], '{}'::hstore[]",
    r"""SELECT '""=>""'::hstore, '"=>"=>"NULL", n=>null'::hstore, '", "=>"\\,"'::hstore""",
]
FACTORIES = [
    *(psycopg2.extensions.cursor, psycopg2.extras.DictCursor, psycopg2.extras.RealDictCursor),
    psycopg2.extras.NamedTupleCursor,
]


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize("sql", RANGES + COMPOSITES + HSTORES)
def test_literals(types, sql, factory):
    types.same(sql, factory=factory)


@pytest.mark.parametrize("sql", ["SELECT '(1,é)'::spot", "SELECT '[é,)'::textrange"])
def test_undone_by_an_encoding(dsn, db, sql):
    """psycopg2 encodes parts in UTF-8 and reads them as LATIN1."""
    roads = Roads(dsn, client_encoding="LATIN1")
    try:
        register(roads, CompositeCaster._from_db("spot", db))
        register(roads, RangeCaster._from_db("textrange", "Textrange", db))
        assert "Ã©" in repr(roads.same(sql).rows)
        roads.same("SELECT 'é=>ü'::hstore")
    finally:
        roads.close()


def test_rows_below_each_other(types):
    types.same(
        "SELECT int4range(i / 2, 9), hstore('a', (i / 2)::text) FROM generate_series(1, 6) i"
    )


# --- texts that the server would never send -------------------------------------------------------


def cast(roads, caster, text):
    def hook(cursor):
        cursor.string_types = {VARCHAR: caster}

    with roads.using(hook):
        return roads.same("SELECT %s::varchar", [text])


any_text = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@any_text
@given(st.text(alphabet='[](),"\\ ab1é', max_size=10), st.booleans())
@example("[a,b]c", False)
@example('["a""b","\\\\")', False)
@example("[a,]]", False)
@example('["a"b,c)', False)
@example("(,", False)
def test_any_range(roads, text, numeric):
    subtype = INT if numeric else TEXT
    caster = RangeCaster("any", "Any", oid=0, subtype_oid=subtype).typecaster
    cast(roads, caster, text)


@any_text
@given(st.text(alphabet='(),"\\ ab1é', max_size=10), st.lists(st.sampled_from([INT, TEXT])))
@example("()", [])
@example("()", [INT])
@example("(1,)", [INT, TEXT])
@example('("a""b","\\\\")', [TEXT, TEXT])
@example("(1,2,3)", [INT, INT])
@example("(1,2", [INT, INT])
def test_any_composite(roads, text, oids):
    attributes = [(f"a{i}", oid) for i, oid in enumerate(oids)]
    cast(roads, CompositeCaster("any", 0, attributes).typecaster, text)


@any_text
@given(st.text(alphabet='"=>, \\aNUL', max_size=14))
@example('"a"=>"b"')
@example('"a"=>NULL, "b"=>"\\"", ')
@example('"a"=>NUL')
@example('"a"=')
def test_any_hstore(roads, text):
    cast(roads, new_type((0,), "any", HstoreAdapter.parse), text)


@any_text
@given(st.dictionaries(st.text(), st.none() | st.text()))
def test_any_dict(roads, pairs):
    pairs = {key.replace("\0", ""): item and item.replace("\0", "") for key, item in pairs.items()}
    assert roads.same("SELECT %s::hstore", [pairs]).rows == [(pairs,)]


@any_text
@given(st.none() | st.integers(-(2**31), 2**31 - 1), st.none() | st.text())
def test_any_attributes(types, x, y):
    y = y and y.replace("\0", "")
    (row,) = types.same("SELECT (%s, %s)::spot, ARRAY[(%s, %s)::spot]", [x, y, x, y]).rows
    assert row == ((x, y), [(x, y)])


# --- casters of the program -----------------------------------------------------------------------


def test_range_class_with_code(roads, db):
    register(roads, RangeCaster._from_db("textrange", Counting, db))
    Counting.made = 0
    outcome = roads.same("SELECT '[a,b)'::textrange, 'empty'::textrange")
    assert Counting.made == len(roads.all) * 2
    assert type(outcome.rows[0][0]) is Counting


@pytest.mark.parametrize("factory", [AsDict, Shouting])
def test_composite_factory(roads, db, factory):
    register(roads, factory._from_db("spot", db))
    (row,) = roads.same("SELECT '(1,a)'::spot, ARRAY['(2,b)'::spot]").rows
    expected = {
        AsDict: ({"x": 1, "y": "a"}, [{"x": 2, "y": "b"}]),
        Shouting: ((1, "A"), [(2, "B")]),
    }
    assert row == expected[factory]


def test_composite_that_is_made_by_an_attribute(roads, db):
    caster = CompositeCaster._from_db("spot", db)
    caster.tokenize = lambda text: ["7", text]
    register(roads, caster)
    assert roads.same("SELECT '(1,a)'::spot").rows == [((7, "(1,a)"),)]


def test_composite_of_itself(roads, db):
    caster = CompositeCaster("odd", 0, [("a", VARCHAR)])
    for raw in roads.raws():
        raw.string_types[VARCHAR] = caster.typecaster
    roads.same("SELECT '()'::varchar, '(())'::varchar")


def test_own_caster_of_a_part(roads):
    for raw in roads.raws():
        register_type(new_type((INT,), "NEGATIVE", lambda v, c: v and -int(v)), raw)
    (row,) = roads.same("SELECT '[1,3)'::int4range, ARRAY['[,3)'::int4range]").rows
    assert row[0] == psycopg2.extras.NumericRange(-1, -3)


def test_failing_caster_of_a_part(roads):
    for raw in roads.raws():
        register_type(new_type((INT,), "FAILING", lambda v, c: 1 / 0), raw)
    assert type(roads.same("SELECT '[1,3)'::int4range").error) is ZeroDivisionError


async def test_registered_between_fetches(ours, connect, dsn):
    """psycopg2 looks the casters of parts up at each value."""
    seen = []
    sync = psycopg2.connect(dsn)
    conn = await connect()
    theirs, ours = sync.cursor(), await conn.cursor()
    sql = "SELECT '[1,3)'::int4range FROM generate_series(1, 3)"
    theirs.execute(sql)
    await ours.execute(sql)
    text = new_type((INT,), "TEXT", lambda value, cursor: value)
    for step in range(3):
        row = await ours.fetchone()
        assert repr(row) == repr(theirs.fetchone())
        seen.append(row[0].lower)
        for raw in (sync, conn.raw):
            if step == 0:
                register_type(text, raw)
            else:
                raw.string_types.pop(INT, None)
    sync.close()
    assert seen == [1, "1", 1]


@pytest.mark.parametrize("zone", [None, lambda offset: None])
def test_tzinfo_factory_of_bounds(roads, zone):
    def hook(cursor):
        cursor.tzinfo_factory = zone

    with roads.using(hook):
        roads.same("SELECT '[2020-01-01 00:00+02,)'::tstzrange")


# --- what can be promised -------------------------------------------------------------------------


def python_calls(function):
    calls = []
    gc.disable()  # others may have hung functions of theirs on collections
    sys.setprofile(lambda frame, event, arg: event == "call" and calls.append(frame.f_code))
    try:
        function()
    finally:
        sys.setprofile(None)
        gc.enable()
    return calls


def test_no_python_code_for_each_value(types):
    conn = types.reference.raw
    with conn.cursor() as cursor:
        cursor.execute("""
            SELECT int4range(i, i + 1), ARRAY[daterange(current_date, NULL)], hstore('a', i::text),
                   tstzrange(now(), NULL), textrange('a', 'b'), ARRAY[hstore('"', NULL)]
            FROM generate_series(1, 100) AS i""")
        assert not python_calls(take(cursor).fetchall)


def test_ranges_are_not_shared(roads):
    rows = roads.same("SELECT '[1,2)'::int4range, 'a=>1'::hstore FROM generate_series(1, 2)").rows
    (above, first), (below, second) = rows
    assert above == below and above is not below
    assert first == second and first is not second


def test_memory_of_parts(types):
    """References to casters and classes come back."""
    kind = type(types.same("SELECT '[1,2)'::textrange").rows[0][0])
    sql = "SELECT '[1,2)'::textrange, '(1,a)'::spot"
    types.same(sql)
    before = sys.getrefcount(kind)
    for _ in range(20):
        types.same(sql)
    gc.collect()
    assert abs(sys.getrefcount(kind) - before) < 10


# --- casters with code of the program's -----------------------------------------------------------


class Lazy(CompositeCaster):
    """Looks its attributes up when they are asked for."""

    asked = 0

    @property
    def atttypes(self):
        Lazy.asked += 1
        raise LookupError("not now")

    @atttypes.setter
    def atttypes(self, value):
        pass


@pytest.mark.parametrize("oid", [None, "x", -1, 2**40, 2.5])
def test_odd_subtypes_fail_at_the_value(roads, oid):
    register(roads, RangeCaster("int4range", "Odd", 3904, oid, 3905))
    roads.same("SELECT int4range(1, 2) WHERE false")
    roads.same("SELECT 'empty'::int4range, NULL::int4range")
    roads.same("SELECT int4range(1, 2)")


def test_attributes_that_fail(roads, db):
    register(roads, Lazy._from_db("spot", db))
    roads.same("SELECT NULL::spot")
    assert Lazy.asked == 0
    assert type(roads.same("SELECT '(1,a)'::spot").error) is LookupError


def test_types_registered_by_what_makes_values(roads, db):
    """The next value is cast with them."""
    shout = new_type((TEXT,), "SHOUT", lambda value, cursor: value.upper())
    for raw in roads.raws():

        class Registering(CompositeCaster):
            def make(self, values, raw=raw):
                register_type(shout, raw)
                return super().make(values)

        register_type(Registering._from_db("spot", db).typecaster, raw)
    rows = roads.same("VALUES ('(1,a)'::spot), ('(2,b)')").rows
    assert rows == [((1, "a"),), ((2, "B"),)]


@pytest.mark.parametrize("name", ["range", "subtype_oid"])
async def test_caster_changed_between_fetches(ours, connect, dsn, name):
    caster = RangeCaster("int4range", "Mine", 3904, INT, 3905)
    other = RangeCaster("int4range", "Other", 3904, TEXT, 3905)
    sync = psycopg2.connect(dsn)
    conn = await connect()
    theirs, ours = sync.cursor(), await conn.cursor()
    for raw in (sync, conn.raw):
        register_type(caster.typecaster, raw)
    sql = "SELECT '[1,3)'::int4range FROM generate_series(1, 2)"
    theirs.execute(sql)
    await ours.execute(sql)
    rows = [(repr(theirs.fetchone()), repr(await ours.fetchone()))]
    setattr(caster, name, getattr(other, name))
    rows.append((repr(theirs.fetchone()), repr(await ours.fetchone())))
    sync.close()
    assert all(theirs == ours for theirs, ours in rows)
    assert rows[0] != rows[1]
