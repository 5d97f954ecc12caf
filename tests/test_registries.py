"""What the user registers counts when, and where, it counts for psycopg2.

Types are registered on a cursor, on a connection or for everyone; each way, the same is done on
every road at the same moment: before a statement, between two executions of it, between execution
and fetch, between two fetches; and taken back.
"""

from __future__ import annotations

import collections
import contextlib
import datetime
import decimal
import ipaddress
import json
import uuid

import psycopg2
import psycopg2.extensions as ext
import psycopg2.extras
import pytest
from psycopg2.extensions import AsIs, new_array_type, new_type, register_adapter, register_type
from roads import Roads, portrait, settle
from support import fetch, registries_restored, shown, until


@pytest.fixture(autouse=True)
def registries():
    with registries_restored():
        yield


# --- types ----------------------------------------------------------------------------------------


def loud(value, cursor):
    return value and f"<{value}>"


def own(oid, function=loud, name="OWN"):
    """A function that registers a caster."""
    return lambda where: register_type(new_type((oid,), name, function), where)


def own_array(oid, element):
    return lambda where: register_type(new_array_type((oid,), "OWN[]", element), where)


def as_float(value, cursor):
    return None if value is None else float(value)


class Span(psycopg2.extras.Range):
    __slots__ = ()


class Words(psycopg2.extras.CompositeCaster):
    def make(self, values):
        return dict(zip(self.attnames, values, strict=True))


# What psycopg2 finds in the catalogue is written down here: record stands for any row type.
RangeCaster, CompositeCaster = psycopg2.extras.RangeCaster, psycopg2.extras.CompositeCaster
SPANS = RangeCaster("int4range", Span, 3904, 23, 3905)
BIG_SPANS = RangeCaster("int8range", "BigSpan", 3926, 20, 3927)
WORDS = Words("record", 2249, [("a", 23), ("b", 25)])
RECORDS = CompositeCaster("record", 2249, [("a", 23), ("b", 25)], array_oid=2287)


def both_of(caster):
    """A function that registers a caster of psycopg2.extras, and the one for arrays."""

    def register(where):
        register_type(caster.typecaster, where)
        if caster.array_typecaster is not None:
            register_type(caster.array_typecaster, where)

    return register


def with_json(where):
    psycopg2.extras.register_json(where, loads=lambda text: ["loads", text], oid=114, array_oid=199)


def with_default_json(where):
    psycopg2.extras.register_default_json(where, loads=decimal_loads)
    psycopg2.extras.register_default_jsonb(where, loads=decimal_loads)


def with_usual_json(where):
    psycopg2.extras.register_default_json(where)
    psycopg2.extras.register_default_jsonb(where)


def decimal_loads(text):
    return json.loads(text, parse_float=decimal.Decimal, object_pairs_hook=collections.OrderedDict)


def with_uuid(where):
    psycopg2.extras.register_uuid(conn_or_curs=where)


def with_uuid_elsewhere(where):
    psycopg2.extras.register_uuid((25, 1009), where)


def with_inet(where):
    with pytest.warns(DeprecationWarning):
        psycopg2.extras.register_inet(conn_or_curs=where)


def with_ipaddress(where):
    psycopg2.extras.register_ipaddress(where)


def with_hstore_of_text(where):
    """Text is read as hstore; strict, so the texts must be such."""
    register = psycopg2.extras.register_hstore
    register(where or CLOSED, globally=where is None, oid=25, array_oid=1009)


def without_types(where):
    """All there is in a scope goes."""
    registry = ext.string_types if where is None else where.string_types
    if registry is not None:
        registry.clear()


CLOSED = object()  # where register_hstore() registers for everyone, nobody is asked
JSONS = """
    VALUES ('{"a": [1.5, null]}'::json, '"x"'::jsonb, ARRAY['1'::json, NULL]), (NULL, NULL, NULL),
           ('{"a": [1.5, null]}', '"x"', '{}')"""
UUIDS = """
    VALUES ('{0}'::uuid, ARRAY['{0}'::uuid, NULL]), (NULL, NULL), ('{0}', '{{}}'), ('{0}', NULL)
""".format("00000000-0000-0000-0000-000000000005")
ROWS = """
    VALUES (ROW(1, 'it''s'), ARRAY[ROW(1, 2), NULL]), (NULL, NULL), (ROW(NULL, ''), NULL)"""
RANGES = """
    VALUES (int4range(1, 5), int8range(1, NULL), ARRAY[int4range(1, 5), NULL]), (NULL, NULL, NULL),
           ('empty', 'empty', '{}')"""
INETS = """
    VALUES ('1.2.3.4'::inet, '10.0.0.0/8'::cidr, ARRAY['::1'::inet, NULL]), (NULL, NULL, NULL),
           ('1.2.3.4/8', '::/0', '{}')"""
TEXTS = """
    VALUES ('"a"=>"1", "b"=>NULL'::text, ARRAY['"a"=>"1"', NULL]), (NULL, NULL), ('', '{}')"""
NUMBERS = """VALUES (1, 2::int8, 1.5, ARRAY[1, NULL], 't'::text), (NULL, NULL, NULL, NULL, NULL),
             (1, 2, 'NaN', '{}', ''), (1, 2, 1.5, '{{1},{2}}', 't')"""

TYPES = {
    "int": (NUMBERS, own(23)),
    "bigint": (NUMBERS, own(20)),
    "text": (NUMBERS, own(25)),
    "numeric as float": (NUMBERS, own(1700, as_float, "DEC2FLOAT")),
    "int array": (NUMBERS, own_array(1007, new_type((), "ELEMENT", loud))),
    "int array as text": (NUMBERS, own(1007)),
    "an int that is an array": (NUMBERS, own_array(23, ext.INTEGER)),
    "array of arrays": (NUMBERS, own_array(1007, new_array_type((), "INNER", ext.INTEGER))),
    "array of decimals": (NUMBERS, own_array(1007, ext.DECIMAL)),
    "bytes": (NUMBERS, lambda where: register_type(ext.BYTES, where)),
    "unicode": (NUMBERS, lambda where: register_type(ext.UNICODE, where)),
    "psycopg2's caster in one's own": (NUMBERS, own(23, ext.DECIMAL)),
    "several at once": (
        NUMBERS,
        lambda where: register_type(new_type((20, 23, 25, 1700, 1007), "ALL", loud), where),
    ),
    "nothing": (NUMBERS, without_types),
    "json": (JSONS, with_json),
    "default json": (JSONS, with_default_json),
    "usual json": (JSONS, with_usual_json),
    "uuid": (UUIDS, with_uuid),
    "uuid at another oid": (UUIDS.replace("uuid", "text"), with_uuid_elsewhere),
    "range": (RANGES, both_of(SPANS)),
    "named range": (RANGES, both_of(BIG_SPANS)),
    "record": (ROWS, both_of(WORDS)),
    "named record": (ROWS, both_of(RECORDS)),
    "inet": (INETS, with_inet),
    "ipaddress": (INETS, with_ipaddress),
    "hstore": (TEXTS, with_hstore_of_text),
}


USUAL = [with_usual_json, with_uuid, TYPES["unicode"][1], TYPES["nothing"][1]]


def everyone(register, undo):
    def step(cursor):
        undo.append(dict(ext.string_types))
        register(None)

    def back(cursor):
        ext.string_types.clear()
        ext.string_types.update(undo.pop())

    return step, back


def the_connection(register, undo):
    def step(cursor):
        undo.append(dict(cursor.connection.string_types))
        register(cursor.connection)

    def back(cursor):
        cursor.connection.string_types.clear()
        cursor.connection.string_types.update(undo.pop())

    return step, back


def the_cursor(register, undo):
    def step(cursor):
        undo.append(cursor.string_types)
        register(cursor)

    def back(cursor):
        cursor.string_types = undo.pop()

    return step, back


SCOPES = [everyone, the_connection, the_cursor]


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize(("statement", "register"), TYPES.values(), ids=TYPES)
def test_types(roads, scope, statement, register):
    step, back = scope(register, [])
    execute = ("execute", statement)
    seen = roads.same_steps(step, execute, ("fetchall",), back, execute, ("fetchall",))
    # what is registered is seen, unless the connection's own is stronger or the same
    if register not in USUAL and not (scope is everyone and statement in (JSONS, UUIDS)):
        assert seen[3] != seen[-2]
    roads.same_steps(execute, ("fetchone",), step, ("fetchone",), ("fetchall",), back)
    roads.same_steps(execute, step, ("fetchmany", 2), back, ("fetchall",))
    roads.same_steps(execute, ("fetchone",), step, execute, ("fetchone",), back, ("fetchmany", 5))
    roads.same_steps(step, execute, back, ("fetchall",), step, execute, ("fetchall",), back)


@pytest.mark.parametrize("factory", ["DictCursor", "RealDictCursor", "NamedTupleCursor"])
def test_types_in_rows_of_other_shapes(roads, factory):
    for register in (own(23), own(1700, as_float), own_array(1007, ext.DECIMAL)):
        step, back = the_connection(register, [])
        execute = (
            "execute",
            "SELECT 1 AS a, 2.5 AS b, ARRAY[1] AS c UNION ALL SELECT 2, NULL, NULL",
        )
        roads.same_steps(
            *(execute, ("fetchone",), step, ("fetchone",), execute, ("fetchall",), back),
            factory=getattr(psycopg2.extras, factory),
        )


def test_registered_before_connecting(dsn):
    for register in (own(23), own(114), own(2950), with_ipaddress, without_types):
        register(None)
        with contextlib.closing(Roads(dsn)) as roads:
            for statement in (NUMBERS, JSONS, UUIDS, INETS):
                roads.same(statement)


def test_scopes_in_order(roads):
    """The cursor's types come before the connection's, and those before everyone's."""
    mine, ours, all_ = (own(23, lambda value, cursor, n=n: n) for n in ("mine", "ours", "all"))
    for registered, expected in (
        ((all_,), "all"),
        ((all_, ours), "ours"),
        ((all_, ours, mine), "mine"),
        ((all_, mine), "mine"),
    ):
        scopes = {all_: lambda cursor: None, ours: lambda cursor: cursor.connection}

        def register(cursor, registered=registered, scopes=scopes):
            for function in registered:
                function(scopes.get(function, lambda cursor: cursor)(cursor))

        with roads.using(register):
            assert roads.same("SELECT 1").rows == [(expected,)]
        for raw in roads.raws():
            raw.string_types.pop(23, None)


@pytest.mark.parametrize(
    "registry",
    [
        *({}, None, 5, [], {23: ext.UNICODE}, {"23": ext.UNICODE}, {23.0: ext.UNICODE}),
        *(collections.OrderedDict({23: ext.FLOAT}), collections.defaultdict(lambda: ext.FLOAT)),
    ],
    ids=shown,
)
def test_registry_of_a_cursor_replaced(roads, registry):
    def replace(cursor):
        cursor.string_types = registry

    execute = ("execute", NUMBERS)
    roads.same_steps(replace, execute, ("fetchall",))
    roads.same_steps(execute, ("fetchone",), replace, ("fetchone",), execute, ("fetchall",))


SHIPPED = {
    name: value
    for name, value in vars(psycopg2._psycopg).items()
    if isinstance(value, type(ext.UNICODE))
}
SAMPLES = [
    *("", " ", "1", "-1", "1.5", "x", "t", "f", "True", "NaN", "1e5", "  1", "1 ", "9" * 30, "é"),
    *("{}", "{1,2}", "{a,NULL}", '{"a,b"}', "{{1}}", "{2020-01-02}", "{t,f}", "[0:1]={1,2}"),
    *("{", "{1", "\\x4142", "\\x4", "1 day 02:00:00", "01:02:03.5", "24:00:00", "10:00:00+05:30"),
    *("2020-01-02", "infinity", "0044-03-15 BC", "2020-01-02 03:04:05.678"),
    "2020-01-02 03:04:05+01",
]


@pytest.mark.parametrize("name", SHIPPED)
def test_types_of_psycopg2_on_texts(roads, name):
    """Each of psycopg2's casters in the place of the one for text, given all kinds of texts."""
    for raw in roads.raws():
        raw.string_types[25] = SHIPPED[name]
    for sample in SAMPLES:
        roads.same("SELECT %s::text UNION ALL SELECT NULL UNION ALL SELECT %s", (sample, sample))


# --- casters --------------------------------------------------------------------------------------


def failing(error):
    def fail(value, cursor):
        raise error

    return fail


def fails_for(text):
    def fail(value, cursor):
        if value == text:
            raise ValueError(value)
        return value

    return fail


SHARED = []
CASTERS = {
    "what it gets": lambda value, cursor: (type(value), value),
    "loud": loud,
    "none": lambda value, cursor: None,
    "not for NULL": lambda value, cursor: value.upper(),
    "something for NULL": lambda value, cursor: "NULL" if value is None else value,
    "a new list": lambda value, cursor: [value],
    "one list": lambda value, cursor: SHARED,
    "cast": lambda value, cursor: cursor.cast(1700, value),
    "cast of what nobody knows": lambda value, cursor: cursor.cast(999999, value),
    "cast that fails": lambda value, cursor: cursor.cast(1082, value),
    "encoding": lambda value, cursor: cursor.connection.encoding,
    "mogrify": lambda value, cursor: cursor.mogrify("%s", (value,)),
    "closed": lambda value, cursor: (cursor.closed, cursor.connection.closed, cursor.name),
    "fails": failing(ValueError("no")),
    "fails as psycopg2": failing(psycopg2.DataError("no")),
    "fails for one": fails_for("2"),
    "fails for NULL": fails_for(None),
    "wants more": lambda value: value,
    "datetime": lambda value, cursor: datetime.date(2020, 1, int(value or 1)),
}


@pytest.mark.parametrize("function", CASTERS.values(), ids=CASTERS)
def test_casters(roads, function):
    for raw in roads.raws():
        element = new_type((23,), "OWN", function)
        register_type(element, raw)
        register_type(new_array_type((1007,), "OWN[]", element), raw)
    for execute in (
        ("execute", "VALUES (1, 'a'), (1, 'a'), (2, 'b'), (NULL, NULL), (3, 'c')"),
        ("execute", "VALUES ('a', 1), ('b', 2), (NULL, NULL)"),
        ("execute", "VALUES (ARRAY[1, NULL]), (NULL), ('{}'), ('{{1},{2}}')"),
        ("execute", "SELECT 1 WHERE false"),
    ):
        roads.same_steps(execute, *[("fetchone",)] * 6)
        roads.same_steps(execute, ("fetchall",), ("fetchall",))
        roads.same_steps(execute, *[("fetchmany", 2)] * 4)
        roads.same_steps(execute, ("fetchone",), ("scroll", -1), ("fetchmany", 2), ("fetchall",))


@pytest.mark.parametrize("name", ["description", "rowcount", "rownumber", "statusmessage", "query"])
def test_casters_see_the_attributes_of_their_cursor(roads, name):
    with roads.using(own(23, lambda value, cursor: portrait(getattr(cursor, name)))):
        roads.same("SELECT 1 UNION ALL SELECT 2")


def test_casters_are_called_as_psycopg2_calls_them(roads):
    """Once for each value, in order, with the cursor."""
    calls = {}
    for road in roads.all:
        calls[road.name] = []

        def noted(value, cursor, road=road):
            calls[road.name].append((value, cursor.connection is road.raw, len(calls[road.name])))
            return value

        register_type(new_type((23, 25), "OWN", noted), road.raw)
        register_type(new_array_type((1007,), "OWN[]", new_type((), "OWN", noted)), road.raw)
    roads.same_steps(
        (
            "execute",
            "SELECT 1, 'a', ARRAY[1, 1] UNION ALL SELECT 1, NULL, NULL ORDER BY 2 NULLS LAST",
        ),
        *(("fetchone",), ("scroll", 0, "absolute"), ("fetchall",), ("fetchone",)),
    )
    assert len(calls["psycopg2"]) == 10
    assert calls["native"] == calls["foreign"] == calls["psycopg2"]


@pytest.mark.parametrize(
    "statement",
    [
        """SELECT '{"a": [1]}'::json FROM generate_series(1, 3)""",
        "SELECT ARRAY[1, 2] FROM generate_series(1, 3)",
        """SELECT '"a"=>"1"'::hstore FROM generate_series(1, 3)""",
        "SELECT ARRAY[ARRAY['a']] FROM generate_series(1, 3)",
        """SELECT ARRAY['{"a": [1]}'::jsonb] FROM generate_series(1, 3)""",
    ],
)
def test_values_that_can_change_are_not_shared(roads, statement):
    rows = roads.same(statement).rows
    assert len({id(value) for (value,) in rows}) == 3
    for road in roads.ours:
        rows = road.execute(statement, None, ext.cursor, lambda cursor: None).rows
        assert len({id(value) for (value,) in rows}) == 3


# --- types made in the database -------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(dsn):
    """A synchronous connection, to look the types up that are made here."""
    conn = psycopg2.connect(dsn)
    conn.autocommit = True
    with conn.cursor() as cursor:
        cursor.execute("""
            CREATE TYPE pair AS (a int, b text);
            CREATE TYPE nest AS (one pair, many pair[], price numeric);
            CREATE TYPE empty AS ();
            CREATE TYPE span AS RANGE (SUBTYPE = float8);
            CREATE DOMAIN natural_number AS int CHECK (VALUE > 0);
            CREATE TYPE mood AS ENUM ('sad', 'it''s ok')""")
    yield conn
    conn.close()


class Parts(CompositeCaster):
    """Values as a dict, and what they were cast with."""

    def make(self, values):
        return {"of": self.name, **dict(zip(self.attnames, values, strict=True))}


class FloatRange(psycopg2.extras.Range):
    pass


COMPOSITES = """
    SELECT (1, 'it''s')::pair, ARRAY[(1, NULL)::pair, NULL],
           ((1, 'x'), ARRAY[(2, 'y')::pair], 1.50)::nest
    UNION ALL SELECT NULL, NULL, NULL
    UNION ALL SELECT (NULL, NULL)::pair, '{}', (NULL, NULL, NULL)::nest"""


@pytest.mark.parametrize(
    "names", [["pair"], ["nest"], ["pair", "nest"], ["nest", "pair"]], ids=repr
)
@pytest.mark.parametrize("factory", [None, Parts])
def test_composites(roads, made, names, factory):
    for name in names:
        caster = psycopg2.extras.register_composite(name, made, factory=factory)
        for raw in roads.raws():
            both_of(caster)(raw)
    for register in (own(23), own(25), own(1700), without_types):
        step, back = the_cursor(register, [])
        execute = ("execute", COMPOSITES)
        roads.same_steps(execute, ("fetchall",), step, execute, ("fetchall",), back)
        roads.same_steps(execute, ("fetchone",), step, ("fetchall",), back)


def test_composites_that_changed(roads, made):
    """The type was altered after the caster was made."""
    with made.cursor() as cursor:
        cursor.execute("CREATE TYPE brief AS (a int, b text)")
        caster = psycopg2.extras.register_composite("brief", made)
        cursor.execute("ALTER TYPE brief ADD ATTRIBUTE c int")
    for raw in roads.raws():
        both_of(caster)(raw)
    outcome = roads.same("SELECT (1, 'x', 2)::brief")
    assert type(outcome.error) is psycopg2.DataError


@pytest.mark.parametrize("pyrange", ["Span", FloatRange])
def test_ranges(roads, made, pyrange):
    caster = psycopg2.extras.register_range("span", pyrange, made)
    for raw in roads.raws():
        both_of(caster)(raw)
    roads.same("""
        SELECT span(1.5, 2), span(NULL, 5, '(]'), ARRAY['empty'::span, NULL, span(1, 2)]
        UNION ALL SELECT NULL, NULL, NULL""")
    roads.same_text("SELECT %s, %s", (caster.range(1.5, None), [caster.range(empty=True)]))
    with roads.using(own(701)):
        roads.same("SELECT span(1.5, 2)")


def test_casters_that_are_changed(roads):
    """psycopg2 asks the caster for each of these, whenever it makes a value."""
    pairs = CompositeCaster("record", 2249, [("a", 23), ("b", 25)], array_oid=2287)
    spans = RangeCaster("int4range", "Other", 3904, 23, 3905)
    for raw in roads.raws():
        both_of(pairs)(raw)
        both_of(spans)(raw)
    for caster, name, value, statement in (
        *((spans, "subtype_oid", 25, RANGES), (spans, "range", Span, RANGES)),
        *((pairs, "atttypes", [25, 25], ROWS), (pairs, "atttypes", [25], ROWS)),
        *((pairs, "_ctor", tuple, ROWS), (pairs, "make", lambda values: ["made", values], ROWS)),
    ):
        before = getattr(caster, name)
        setattr(caster, name, value)
        roads.same(statement)
        setattr(caster, name, before)


def test_types_registered_while_a_row_is_made(roads):
    def registering(cursor):
        def register(value, cursor):
            own(23)(cursor)
            return value

        own(25, register)(cursor)

    rows = roads.same_steps(
        registering,
        ("execute", "VALUES (int4range(1, 5), 'a'::text), (int4range(2, 5), 'b')"),
        ("fetchall",),
    )[3]
    assert "<2>" in str(rows)


def test_enums_and_domains(roads, made):
    statement = "SELECT 'it''s ok'::mood, ARRAY['sad'::mood, NULL], 5::natural_number"
    roads.same(statement)
    with made.cursor() as cursor:
        cursor.execute("SELECT oid, typarray FROM pg_type WHERE typname = 'mood'")
        oid, array_oid = cursor.fetchone()
    for raw in roads.raws():
        mood = new_type((oid,), "MOOD", loud)
        register_type(mood, raw)
        register_type(new_array_type((array_oid,), "MOOD[]", mood), raw)
    assert roads.same(statement).rows == [("<it's ok>", ["<sad>", None], 5)]


@pytest.mark.parametrize("register", ["register_composite", "register_range", "register_hstore"])
async def test_types_are_not_looked_up_on_an_asynchronous_connection(connect, register):
    """These ask the server, which psycopg2 can't do there; the connection takes no harm."""
    arguments = {
        "register_composite": lambda raw: ("pair", raw),
        "register_range": lambda raw: ("span", "Span", raw),
        "register_hstore": lambda raw: (raw,),
    }[register]
    conn = await connect()
    with pytest.raises(psycopg2.ProgrammingError):
        getattr(psycopg2.extras, register)(*arguments(conn.raw))
    await until(lambda: not conn.raw.isexecuting())
    assert await fetch(conn, "SELECT 1") == [(1,)]


# --- adapters -------------------------------------------------------------------------------------


class Own(int):
    pass


class Word(str):
    pass


def quoted(text):
    return lambda value: AsIs(text)


# For each class that psycopg2 adapts itself, a value.
ADAPTED = {
    int: 5,
    str: "it's",
    bool: True,
    float: 1.5,
    type(None): None,
    bytes: b"x",
    list: [1, "a"],
    tuple: (1, "a"),
    dict: {"a": "1"},
    decimal.Decimal: decimal.Decimal("1.5"),
    datetime.date: datetime.date(2020, 1, 2),
    datetime.datetime: datetime.datetime(2020, 1, 2),
    datetime.timedelta: datetime.timedelta(1),
    uuid.UUID: uuid.UUID(int=5),
    Own: Own(5),
    Word: Word("x"),
}
OWN_ADAPTERS = {
    "own": quoted("'own'"),
    "psycopg2's": ext.QuotedString,
    "AsIs": AsIs,
    "for ints": ext.Int,
    "none": lambda value: None,
    "of no use": lambda value: object(),
    "failing": lambda value: 1 / 0,
    "not to call": 5,
}


@pytest.mark.parametrize("adapter", OWN_ADAPTERS.values(), ids=OWN_ADAPTERS)
@pytest.mark.parametrize("kind", [*ADAPTED, object], ids=lambda kind: kind.__name__)
def test_adapters(roads, kind, adapter):
    """In force as long as it is registered, also for statements that were executed before."""

    def check():
        own = ADAPTED.get(kind)
        for value in (own, 5, "it's", True, Own(5), Word("x")):
            roads.same_text("SELECT %s, %s", (value, 1))
        roads.same_text("SELECT %(a)s, %(b)s, %(a)s", {"a": own, "b": "x"})
        roads.same_text("SELECT %s, %s", ([own], (own,)))

    before = dict(ext.adapters)
    check()
    register_adapter(kind, adapter)
    check()
    ext.adapters.clear()
    ext.adapters.update(before)
    check()


@pytest.mark.parametrize("kind", ADAPTED, ids=lambda kind: kind.__name__)
def test_adapters_taken_away(roads, kind):
    """Subclasses lose them, too; others find that of a superclass."""
    key = kind, ext.ISQLQuote
    for others in ({}, {(object, ext.ISQLQuote): AsIs}):
        ext.adapters.update(others)
        ext.adapters.pop(key, None)
        for value in ADAPTED.values():
            roads.same_text("SELECT %s", (value,))
            roads.same_text("SELECT %(a)s, %(a)s", {"a": value})
            roads.same_text("SELECT %s", ([value],))


def test_adapters_of_the_same_name(roads):
    """A subclass of psycopg2's adapter is another one."""

    class Int(AsIs):
        def getquoted(self):
            return b"'another'"

    register_adapter(int, Int)
    assert roads.same_text("SELECT %s, %s", (1, "x")).rows == [("another", "x")]
    register_adapter(int, ext.Int)
    assert roads.same_text("SELECT %s, %s", (1, "x")).rows == [(1, "x")]


def test_another_protocol_is_nothing_to_psycopg2(roads):
    ext.adapters[int, object] = quoted("'own'")
    ext.adapters[int] = quoted("'own'")
    assert roads.same_text("SELECT %s", (1,)).rows == [(1,)]


def test_adapters_between_the_sets_of_executemany(roads):
    before = dict(ext.adapters)

    def sets():
        yield (1,)
        register_adapter(int, quoted("'own'"))
        yield (1,)
        ext.adapters.update(before)
        yield (1,)

    async def walk(road):
        cursor, _ = await road.cursor()
        with contextlib.closing(cursor):
            await settle(cursor.execute("CREATE TEMP TABLE adapted (n serial, a text)"))
            await settle(cursor.executemany("INSERT INTO adapted (a) VALUES (%s)", sets()))
            queries = [cursor.query]
            await settle(cursor.execute("SELECT a FROM adapted ORDER BY n"))
            return [*queries, await settle(cursor.fetchall())]

    stored = [("1",), ("own",), ("1",)]
    assert roads.alike(walk) == [b"INSERT INTO adapted (a) VALUES (1)", stored]


def test_adapters_that_extras_registers(roads):
    psycopg2.extras.register_ipaddress()
    for address in ("1.2.3.4", "::1"):
        roads.same_text("SELECT %s, %s", (ipaddress.ip_address(address), [None]))
        roads.same_text("SELECT %s", ([ipaddress.ip_network(address)],))
    register_adapter(dict, psycopg2.extras.Json)
    roads.same_text("SELECT %s::json, %s", ({"a": [1, {"b": "it's"}]}, [{"a": 1}]))
    register_adapter(list, psycopg2.extras.Json)
    roads.same_text("SELECT %s::json, %s", ([1, {"b": "it's"}], ([],)))
    register_adapter(uuid.UUID, lambda value: AsIs(f"'{value}'"))
    roads.same_text("SELECT %s", (uuid.UUID(int=1),))


# --- encodings ------------------------------------------------------------------------------------


def set_codec(encoding, codec):
    """The registry has a connection's encoding without its underscores, too."""
    ext.encodings[encoding] = ext.encodings[encoding.replace("_", "")] = codec


@pytest.mark.parametrize(
    ("encoding", "codec"),
    [
        *(("UTF8", codec) for codec in ("latin1", "cp1252", "ascii", "utf_7")),
        *(("LATIN1", codec) for codec in ("latin1", "cp1252", "ascii", "utf_7", "utf_8")),
        *(("SQL_ASCII", codec) for codec in ("latin1", "cp1252", "ascii", "utf_7", "utf_8")),
        *(("EUC_JP", "utf_8"), ("EUC_JP", "latin1"), ("UTF8", "utf8"), ("UTF8", "UTF-8")),
    ],
)
def test_encodings_before_connecting(dsn, encoding, codec):
    set_codec(encoding, codec)
    with contextlib.closing(Roads(dsn, client_encoding=encoding)) as roads:
        check_texts(roads)


@pytest.mark.parametrize("encoding", ["UTF8", "LATIN1", "EUC_JP", "SQL_ASCII"])
def test_encodings_changed_after_connecting(dsn, encoding):
    with contextlib.closing(Roads(dsn, client_encoding=encoding)) as roads:
        set_codec(encoding, "utf_7")
        check_texts(roads)
        ext.encodings.clear()
        check_texts(roads)


def check_texts(roads):
    for text in ("x", "it's", "é", "日本"):
        roads.same_text('SELECT 1 AS "é", %s', (text,))
        roads.same_text("SELECT 'é', %s, 1", (5,))
        roads.same_text("SELECT %(é)s, chr(233)", {"é": text})
        roads.same("SELECT chr(233)")
        roads.same("SELECT nonsense_é")
        roads.same("DO $$ BEGIN RAISE EXCEPTION 'é'; END $$")


# --- what aiopg registers by itself ---------------------------------------------------------------

FLAGS = {
    # json is on in psycopg2 itself, for everyone
    "enable_json": ("SELECT '[1]'::json, '[1]'::jsonb", ([1], [1]), ([1], [1])),
    "enable_uuid": (
        "SELECT '00000000-0000-0000-0000-000000000005'::uuid",
        (uuid.UUID(int=5),),
        ("00000000-0000-0000-0000-000000000005",),
    ),
    "enable_hstore": ("""SELECT '"a"=>"1"'::hstore""", ({"a": "1"},), ('"a"=>"1"',)),
}


@pytest.mark.parametrize("flag", FLAGS)
async def test_flags(connect, flag):
    statement, on, off = FLAGS[flag]
    for arguments, expected in (({}, on), ({flag: True}, on), ({flag: False}, off)):
        conn = await connect(**arguments)
        assert await fetch(conn, statement) == [expected]
        for other in FLAGS.keys() - {flag}:
            assert await fetch(conn, FLAGS[other][0]) == [FLAGS[other][1]]


@pytest.mark.parametrize("flag", FLAGS)
async def test_flags_and_what_everyone_registers(connect, flag):
    """aiopg registers on the connection, before everyone's; without it, everyone's count."""
    oids = {"enable_json": (114, 3802), "enable_uuid": (2950,)}.get(flag)
    if oids is None:
        ((oid,),) = await fetch(await connect(), "SELECT 'hstore'::regtype::oid::int")
        oids = (oid,)
    register_type(new_type(oids, "OWN", loud))
    statement, on, _ = FLAGS[flag]
    ours = [on[0], *("<[1]>" for _ in on[1:])] if flag == "enable_json" else list(on)
    assert [list(row) for row in await fetch(await connect(), statement)] == [ours]
    conn = await connect(**{flag: False})
    assert all(str(value).startswith("<") for row in await fetch(conn, statement) for value in row)
