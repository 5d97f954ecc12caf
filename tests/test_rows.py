"""Row shapes, cursor factories, `cur.raw`, and types that the user registers."""

import collections
import copy
import io
import json
import pickle

import psycopg2
import psycopg2.extensions
import psycopg2.extras
import psycopg2.sql
import pytest
from support import fetch

FACTORIES = {
    name: getattr(psycopg2.extras, name)
    for name in ("DictCursor", "RealDictCursor", "NamedTupleCursor")
}

QUERIES = {
    "one": "SELECT 1 AS id, 'x'::text AS name",
    "many": "SELECT n AS id, n::text AS name, NULL AS nothing FROM generate_series(1, 50) n",
    "none": "SELECT 1 AS id WHERE false",
    "duplicates": "SELECT 1 AS a, 2 AS b, 3 AS a",
    "unnamed": "SELECT 1, 2, 'x'",
    "odd": """SELECT 1 AS "", 2 AS "a b", 3 AS "1st", 4 AS "é", 5 AS "class", 6 AS "_under" """,
    "taken": """SELECT 1 AS count, 2 AS index, 3 AS keys, 4 AS _asdict""",
    "long": f"SELECT 1 AS {'x' * 63}",
    "no_columns": "SELECT FROM generate_series(1, 2)",
}


@pytest.fixture
def model(dsn):
    """model(factory, sql) -> the rows that synchronous psycopg2 gives."""
    conn = psycopg2.connect(dsn)
    conn.autocommit = True

    def rows(factory, sql, parameters=None):
        with conn.cursor(cursor_factory=factory) as cursor:
            cursor.execute(sql, parameters)
            return cursor.fetchall()

    yield rows
    conn.close()


async def rows_of(conn, factory, sql, parameters=None):
    async with conn.cursor(cursor_factory=factory) as cursor:
        await cursor.execute(sql, parameters)
        return await cursor.fetchall()


def shape(row):
    """All that can be seen of a row: for a namedtuple its class differs each time."""
    kind = type(row)
    seen = [kind.__name__, kind.__mro__[1:], repr(row), len(row), list(row)]
    if hasattr(row, "_fields"):
        seen += [row._fields, row._asdict()]
    if isinstance(row, dict | psycopg2.extras.DictRow):
        seen += [list(row.keys()), list(row.values()), list(row.items()), dict(row)]
    return seen


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
@pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)
async def test_same_as_psycopg2(connect, model, factory, query):
    conn = await connect()
    expected = outcome(lambda: model(factory, query))
    try:
        got = await rows_of(conn, factory, query)
    except Exception as error:
        got = error
    if isinstance(expected, Exception):
        assert (type(got), str(got)) == (type(expected), str(expected))
    else:
        assert [shape(row) for row in got] == [shape(row) for row in expected]
        assert all(type(a) is type(b) for a, b in zip(got, expected, strict=True)) or (
            factory is FACTORIES["NamedTupleCursor"]
        )


def outcome(call):
    try:
        return call()
    except Exception as error:
        return error


@pytest.mark.parametrize("way", ["fetchone", "fetchmany", "fetchall", "async for"])
@pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)
async def test_each_way_of_fetching(connect, model, factory, way):
    conn = await connect()
    expected = [shape(row) for row in model(factory, QUERIES["many"])]
    async with conn.cursor(cursor_factory=factory) as cursor:
        await cursor.execute(QUERIES["many"])
        if way == "fetchone":
            got = [await cursor.fetchone() for _ in range(50)]
            assert await cursor.fetchone() is None
        elif way == "fetchmany":
            got = await cursor.fetchmany(20) + await cursor.fetchmany(40)
        elif way == "fetchall":
            got = await cursor.fetchall()
        else:
            got = [row async for row in cursor]
    assert [shape(row) for row in got] == expected


# --- DictCursor -----------------------------------------------------------------------------------


async def one_row(connect, name, sql="SELECT 1 AS id, 'x' AS name"):
    (row,) = await rows_of(await connect(), FACTORIES[name], sql)
    return row


async def test_dict_row(connect):
    row = await one_row(connect, "DictCursor")
    assert type(row) is psycopg2.extras.DictRow
    assert row == [1, "x"]
    assert (row[0], row["id"], row[-1], row["name"]) == (1, 1, "x", "x")
    assert row[0:2] == [1, "x"]
    assert row.get("id") == 1
    assert row.get("missing", 5) == 5
    assert "id" in row
    assert "missing" not in row
    assert dict(row) == {"id": 1, "name": "x"}
    with pytest.raises(KeyError, match="missing"):
        row["missing"]
    with pytest.raises(IndexError):
        row[2]


async def test_dict_row_may_be_changed(connect):
    first, second = await rows_of(
        await connect(), FACTORIES["DictCursor"], "SELECT 1 AS id UNION ALL SELECT 1"
    )
    first["id"] = 2
    assert first[0] == 2
    assert second == [1]
    with pytest.raises(KeyError):
        first["extra"] = "new"


@pytest.mark.parametrize("name", ["DictCursor", "RealDictCursor"])
@pytest.mark.parametrize(
    "way",
    [copy.copy, copy.deepcopy, lambda row: pickle.loads(pickle.dumps(row)), lambda row: row.copy()],
    ids=["copy", "deepcopy", "pickle", "method"],
)
async def test_copies(connect, model, name, way):
    row = await one_row(connect, name)
    (expected,) = model(FACTORIES[name], "SELECT 1 AS id, 'x' AS name")
    copied, expected = way(row), way(expected)
    assert shape(copied) == shape(expected)
    assert copied == expected
    copied["id"] = 3
    assert row["id"] == 1


async def test_row_pickled_by_psycopg2_equals_ours(connect, model):
    row = await one_row(connect, "DictCursor")
    (expected,) = model(FACTORIES["DictCursor"], "SELECT 1 AS id, 'x' AS name")
    assert pickle.dumps(row) == pickle.dumps(expected)


# --- RealDictCursor -------------------------------------------------------------------------------


async def test_real_dict_row(connect):
    row = await one_row(connect, "RealDictCursor")
    assert type(row) is psycopg2.extras.RealDictRow
    assert isinstance(row, dict)
    assert row == {"id": 1, "name": "x"}
    assert json.dumps(row) == '{"id": 1, "name": "x"}'
    assert {**row} == {"id": 1, "name": "x"}
    row["extra"] = 1
    del row["id"]
    assert list(row) == ["name", "extra"]
    with pytest.raises(KeyError):
        row[0]


# --- NamedTupleCursor -----------------------------------------------------------------------------


async def test_named_tuple(connect):
    row = await one_row(connect, "NamedTupleCursor")
    assert type(row).__name__ == "Record"
    assert isinstance(row, tuple)
    assert (row.id, row.name, row[0]) == (1, "x", 1)
    assert row._fields == ("id", "name")
    assert row._replace(id=2) == (2, "x")
    assert row._asdict() == {"id": 1, "name": "x"}
    assert copy.copy(row) == (1, "x")
    with pytest.raises(AttributeError):
        row.missing  # noqa: B018


async def test_named_tuples_share_a_class(connect):
    rows = await rows_of(await connect(), FACTORIES["NamedTupleCursor"], QUERIES["many"])
    assert len({type(row) for row in rows}) == 1


# --- several results, one cursor ------------------------------------------------------------------


@pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)
async def test_columns_change_between_queries(connect, model, factory):
    conn = await connect()
    async with conn.cursor(cursor_factory=factory) as cursor:
        for query in ("one", "duplicates", "one", "unnamed", "many"):
            if factory is FACTORIES["NamedTupleCursor"] and query in ("duplicates", "unnamed"):
                continue
            await cursor.execute(QUERIES[query])
            got = await cursor.fetchall()
            assert [shape(r) for r in got] == [shape(r) for r in model(factory, QUERIES[query])]


@pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)
async def test_callproc(connect, factory):
    conn = await connect()
    async with conn.cursor(cursor_factory=factory) as cursor:
        await cursor.callproc("abs", [-7])
        row = await cursor.fetchone()
        assert (row["abs"] if factory is not FACTORIES["NamedTupleCursor"] else row.abs) == 7


# --- foreign cursor factories ---------------------------------------------------------------------


async def test_own_subclass_keeps_its_behaviour(connect):
    class Upper(psycopg2.extensions.cursor):
        executed = 0

        def execute(self, query, vars=None):
            self.executed += 1
            return super().execute(query.replace("lower", "upper"), vars)

        def fetchone(self):
            row = super().fetchone()
            return row and ("one", *row)

        def fetchall(self):
            return [("all", *row) for row in super().fetchall()]

        def fetchmany(self, size=None):
            return [("many", *row) for row in super().fetchmany(size)]

    conn = await connect()
    async with conn.cursor(cursor_factory=Upper) as cursor:
        await cursor.execute("SELECT lower(%s) FROM generate_series(1, 4)", ("Ab",))
        assert await cursor.fetchone() == ("one", "AB")
        assert await cursor.fetchmany(1) == [("many", "AB")]
        assert await cursor.fetchall() == [("all", "AB")] * 2
        assert cursor.raw.executed == 1
        assert cursor.query == b"SELECT upper('Ab') FROM generate_series(1, 4)"
        assert [row async for row in cursor] == []


@pytest.mark.parametrize("base", FACTORIES.values(), ids=FACTORIES)
async def test_subclass_of_a_row_cursor(connect, base):
    class Counting(base):
        fetched = 0

        def fetchone(self):
            self.fetched += 1
            return super().fetchone()

    conn = await connect()
    async with conn.cursor(cursor_factory=Counting) as cursor:
        await cursor.execute("SELECT 1 AS id UNION ALL SELECT 2")
        rows = [row async for row in cursor]
        assert [list(r.values()) if isinstance(r, dict) else list(r) for r in rows] == [[1], [2]]
        assert cursor.raw.fetched == 3


async def test_logging_cursor(connect):
    log = io.StringIO()
    conn = await connect(connection_factory=psycopg2.extras.LoggingConnection, enable_hstore=False)
    conn.raw.initialize(log)
    async with conn.cursor(cursor_factory=psycopg2.extras.LoggingCursor) as cursor:
        await cursor.execute("SELECT %s", (1,))
        assert await cursor.fetchall() == [(1,)]
    assert log.getvalue() == "SELECT 1\n"


async def test_cursor_factory_that_is_a_function(connect):
    made = []

    def factory(conn, name=None, **keywords):
        made.append(psycopg2.extensions.cursor(conn, name))
        return made[-1]

    conn = await connect()
    async with conn.cursor(cursor_factory=factory) as cursor:
        await cursor.execute("SELECT 1")
        assert await cursor.fetchall() == [(1,)]
        assert cursor.raw is made[0]


async def test_row_factory_of_a_cursor(connect):
    """psycopg2's own hook for row classes."""
    conn = await connect()
    async with conn.cursor() as cursor:
        cursor.raw.row_factory = lambda cur: [None] * len(cur.description)
        await cursor.execute("SELECT 1, 2")
        assert await cursor.fetchall() == [[1, 2]]


# --- cur.raw --------------------------------------------------------------------------------------


async def test_raw_is_a_cursor_of_psycopg2(connect):
    conn = await connect()
    async with conn.cursor() as cursor:
        assert isinstance(cursor.raw, psycopg2.extensions.cursor)
        assert cursor.raw is cursor._impl
        assert cursor.raw.connection is conn.raw
    assert cursor.raw.closed


async def test_raw_has_the_results(connect):
    conn = await connect()
    async with conn.cursor() as cursor:
        await cursor.execute("SELECT n, 'x' AS x FROM generate_series(1, 3) n WHERE n > %s", (0,))
        raw = cursor.raw
        assert raw.query == cursor.query
        assert raw.rowcount == cursor.rowcount == 3
        assert raw.statusmessage == "SELECT 3"
        assert raw.description == cursor.description
        assert [column.name for column in raw.description] == ["n", "x"]
        assert raw.fetchone() == (1, "x")
        assert raw.rownumber == cursor.rownumber == 1
        assert await cursor.fetchone() == (2, "x")
        assert raw.fetchall() == [(3, "x")]
        assert await cursor.fetchall() == []


async def test_raw_scrolls_with_us(connect):
    conn = await connect()
    async with conn.cursor() as cursor:
        await cursor.execute("SELECT generate_series(0, 4)")
        cursor.raw.scroll(2)
        assert await cursor.fetchone() == (2,)
        await cursor.scroll(0, "absolute")
        assert cursor.raw.fetchmany(2) == [(0,), (1,)]
        assert list(cursor.raw) == [(2,), (3,), (4,)]
        assert await cursor.fetchone() is None


@pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)
async def test_raw_of_a_row_cursor(connect, model, factory):
    conn = await connect()
    async with conn.cursor(cursor_factory=factory) as cursor:
        await cursor.execute(QUERIES["one"])
        got = cursor.raw.fetchall()
    assert [shape(row) for row in got] == [shape(row) for row in model(factory, QUERIES["one"])]


async def test_raw_closed_by_hand(connect):
    conn = await connect()
    cursor = await conn.cursor()
    cursor.raw.close()
    assert cursor.closed
    with pytest.raises(psycopg2.InterfaceError, match="cursor already closed"):
        await cursor.execute("SELECT 1")


async def test_quote_ident(connect):
    conn = await connect()
    async with conn.cursor() as cursor:
        assert psycopg2.extensions.quote_ident('a"b', cursor._impl) == '"a""b"'
        assert psycopg2.extensions.quote_ident("x y", conn.raw) == '"x y"'


async def test_composed_as_string(connect):
    conn = await connect()
    statement = psycopg2.sql.SQL("SELECT {}").format(psycopg2.sql.Literal("it's"))
    async with conn.cursor() as cursor:
        assert statement.as_string(cursor.raw) == "SELECT 'it''s'"


# --- types that the user registers ----------------------------------------------------------------


def loud(oid, name="LOUD"):
    return psycopg2.extensions.new_type((oid,), name, lambda value, cursor: value and f"<{value}>")


async def test_type_of_a_cursor(connect):
    conn = await connect()
    async with conn.cursor() as mine, conn.cursor() as other:
        psycopg2.extensions.register_type(loud(23), mine.raw)
        for cursor, expected in ((mine, "<1>"), (other, 1)):
            await cursor.execute("SELECT 1, 'x', NULL::int")
            assert await cursor.fetchall() == [(expected, "x", None)]


async def test_type_of_a_connection(connect):
    conn, other = await connect(), await connect()
    assert await fetch(conn, "SELECT 1") == [(1,)]
    psycopg2.extensions.register_type(loud(23), conn.raw)
    assert await fetch(conn, "SELECT 1") == [("<1>",)]
    assert await fetch(other, "SELECT 1") == [(1,)]


async def test_type_for_everyone(connect):
    conn = await connect()
    before = psycopg2.extensions.string_types[20]
    assert await fetch(conn, "SELECT 1::int8") == [(1,)]
    psycopg2.extensions.register_type(loud(20))
    try:
        assert await fetch(conn, "SELECT 1::int8") == [("<1>",)]
    finally:
        psycopg2.extensions.string_types[20] = before
    assert await fetch(conn, "SELECT 1::int8") == [(1,)]


async def test_types_registered_while_a_cursor_is_open(connect):
    conn = await connect()
    async with conn.cursor() as cursor:
        await cursor.execute("SELECT 1")
        assert await cursor.fetchone() == (1,)
        psycopg2.extensions.register_type(loud(23), conn.raw)
        await cursor.execute("SELECT 1")
        assert await cursor.fetchone() == ("<1>",)
        psycopg2.extensions.register_type(loud(23, "LOUDER"), cursor.raw)
        del conn.raw.string_types[23]
        await cursor.execute("SELECT 1")
        assert await cursor.fetchone() == ("<1>",)


async def test_default_of_an_unregistered_type_is_text(connect):
    conn = await connect()
    assert await fetch(conn, "SELECT '(1,2)'::point, ARRAY['(1,2)'::point], '1/2'::pg_lsn") == [
        ("(1,2)", '{"(1,2)"}', "1/2")
    ]


async def test_array_type(connect):
    conn = await connect()
    element = loud(600)
    psycopg2.extensions.register_type(element, conn.raw)
    array = psycopg2.extensions.new_array_type((1017,), "LOUD[]", element)
    psycopg2.extensions.register_type(array, conn.raw)
    assert await fetch(conn, "SELECT ARRAY['(1,2)'::point, NULL]") == [(["<(1,2)>", None],)]


async def test_unicode_off(connect):
    """psycopg2 can be told to give text as bytes."""
    conn = await connect()
    async with conn.cursor() as cursor:
        psycopg2.extensions.register_type(psycopg2.extensions.BYTES, cursor.raw)
        await cursor.execute("SELECT 'é'::text")
        assert await cursor.fetchone() == ("é".encode(),)


async def test_decimal_as_float(connect):
    conn = await connect()
    as_float = psycopg2.extensions.new_type(
        psycopg2.extensions.DECIMAL.values, "DEC2FLOAT", lambda v, c: v and float(v)
    )
    psycopg2.extensions.register_type(as_float, conn.raw)
    ((value,),) = await fetch(conn, "SELECT 1.5::numeric")
    assert type(value) is float


async def test_json_loads_of_ones_own(connect):
    conn = await connect()
    psycopg2.extras.register_default_json(conn.raw, loads=lambda text: ("json", text))
    psycopg2.extras.register_default_jsonb(conn.raw, loads=lambda text: ("jsonb", text))
    assert await fetch(conn, """SELECT '{"a":1}'::json, '{"a":1}'::jsonb""") == [
        (("json", '{"a":1}'), ("jsonb", '{"a": 1}'))
    ]


async def test_composite(connect):
    """register_composite asks the server synchronously, so it is given a synchronous cursor."""
    conn = await connect()
    point = collections.namedtuple("point", "x y")

    class Caster(psycopg2.extras.CompositeCaster):
        def make(self, values):
            return point(*values)

    async with conn.cursor() as cursor:
        await cursor.execute(
            "DROP TYPE IF EXISTS my_point; CREATE TYPE my_point AS (x int, y text)"
        )
        await cursor.execute("SELECT 'my_point'::regtype::oid, 'my_point[]'::regtype::oid")
        ((oid, array_oid),) = await cursor.fetchall()
        caster = Caster("my_point", oid, [("x", 23), ("y", 25)], array_oid=array_oid)
        psycopg2.extensions.register_type(caster.typecaster, conn.raw)
        psycopg2.extensions.register_type(caster.array_typecaster, conn.raw)
        await cursor.execute("SELECT (1, 'a')::my_point, ARRAY[(2, NULL)::my_point]")
        assert await cursor.fetchall() == [((1, "a"), [(2, None)])]
        await cursor.execute("SELECT (1, 'a')::my_point")
        ((value,),) = await cursor.fetchall()
        assert type(value) is point


async def test_typecaster_sees_the_raw_cursor(connect):
    seen = []

    def cast(value, cursor):
        seen.append(cursor)
        return value

    conn = await connect()
    async with conn.cursor() as cursor:
        psycopg2.extensions.register_type(
            psycopg2.extensions.new_type((23,), "SPY", cast), cursor.raw
        )
        await cursor.execute("SELECT 1, NULL::int")
        assert await cursor.fetchall() == [("1", None)]
        assert seen == [cursor.raw] * 2


async def test_adapter_of_ones_own(connect):
    class Celsius:
        def __init__(self, degrees):
            self.degrees = degrees

    psycopg2.extensions.register_adapter(
        Celsius, lambda c: psycopg2.extensions.AsIs(f"{c.degrees}.0")
    )
    try:
        conn = await connect()
        ((value,),) = await fetch(conn, "SELECT %s::text", (Celsius(20),))
        assert value == "20.0"
    finally:
        del psycopg2.extensions.adapters[Celsius, psycopg2.extensions.ISQLQuote]


async def test_failing_typecaster(connect):
    def cast(value, cursor):
        raise ArithmeticError("no such value")

    conn = await connect()
    async with conn.cursor() as cursor:
        psycopg2.extensions.register_type(
            psycopg2.extensions.new_type((23,), "FAILING", cast), cursor.raw
        )
        await cursor.execute("SELECT 1")
        with pytest.raises(ArithmeticError, match="no such value"):
            await cursor.fetchall()
        await cursor.execute("SELECT 'fine'")
        assert await cursor.fetchone() == ("fine",)


async def test_iteration_goes_through_a_replaced_fetchone(impl, connect, monkeypatch):
    fetchone = impl.Cursor.fetchone

    async def counted(cursor):
        row = await fetchone(cursor)
        seen.append(row)
        return row

    seen = []
    cursor = await (await connect()).cursor()
    await cursor.execute("SELECT generate_series(1, 2)")
    monkeypatch.setattr(impl.Cursor, "fetchone", counted)
    assert [row async for row in cursor] == [(1,), (2,)]
    assert seen == [(1,), (2,), None]


async def test_iteration_goes_through_a_fetchone_of_the_instance(impl, connect, monkeypatch):
    async def fetchone():
        return next(rows, None)

    rows = iter([(7,), (8,)])
    cursor = await (await connect()).cursor()
    await cursor.execute("SELECT 1")
    monkeypatch.setattr(cursor, "fetchone", fetchone)
    assert [row async for row in cursor] == [(7,), (8,)]
