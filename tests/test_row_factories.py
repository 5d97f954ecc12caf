"""Row factories: psycopg 3's rows on each road, and where nothing may be lost."""

import collections
import gc
import traceback
import weakref

import psycopg2
import psycopg2.extras
import pytest
from roads import unknown

SERIES = "SELECT i AS a, NULLIF(i, 2) AS b FROM generate_series(1, %s) i"

Point = collections.namedtuple("Point", "a b")

CLASSES = [
    None,
    psycopg2.extras.DictCursor,
    psycopg2.extras.RealDictCursor,
    psycopg2.extras.NamedTupleCursor,
    unknown(psycopg2.extensions.cursor),
    unknown(psycopg2.extras.DictCursor),
]


def pairs(cursor):
    names = [column.name for column in cursor.description]
    return lambda values: list(zip(names, values, strict=True))


def factories(rows):
    return [
        rows.tuple_row,
        rows.dict_row,
        rows.namedtuple_row,
        rows.scalar_row,
        rows.class_row(Point),
        rows.args_row(Point),
        rows.kwargs_row(dict),
        pairs,
    ]


def expected(index, i):
    a, b = i, None if i == 2 else i
    named = Point(a, b)
    return [
        named, {"a": a, "b": b}, named, a, named, named, {"a": a, "b": b}, [("a", a), ("b", b)]
    ][index]  # fmt: skip


@pytest.mark.parametrize("raw", [False, True], ids=["native", "raw"])
@pytest.mark.parametrize("factory", CLASSES)
@pytest.mark.parametrize("index", range(8))
async def test_rows_of_each_fetch(ours, connect, factory, raw, index):
    make = factories(ours.rows)[index]
    wanted = [expected(index, i) for i in range(1, 13)]
    cur = await (await connect()).cursor(cursor_factory=factory, row_factory=make)
    if raw:
        assert cur.raw.description is None
    await cur.execute(SERIES, (12,))
    assert await cur.fetchone() == wanted[0]
    assert await cur.fetchmany(2) == wanted[1:3]
    assert await cur.fetchmany() == wanted[3:4]
    assert await cur.fetchall() == wanted[4:]
    assert await cur.fetchone() is None
    assert await cur.fetchall() == []
    await cur.scroll(1, "absolute")
    assert [row async for row in cur] == wanted[1:]
    assert cur.rownumber == 12
    assert [row async for row in cur.stream(SERIES, (12,), size=5)] == wanted
    assert type(wanted[0]) in (type(await one(cur)), Point)


async def one(cur):
    await cur.execute(SERIES, (1,))
    return await cur.fetchone()


async def test_named_cursors(ours, connect):
    conn = await connect(row_factory=ours.rows.dict_row)
    wanted = [expected(1, i) for i in range(1, 8)]
    async with conn.cursor("n", withhold=True) as cur:
        await cur.execute(SERIES, (7,))
        assert await cur.fetchone() == wanted[0]
        assert await cur.fetchmany(2) == wanted[1:3]
        cur.itersize = 3
        assert [row async for row in cur] == wanted[3:]
    async with conn.cursor("m", withhold=True, row_factory=ours.rows.scalar_row) as cur:
        await cur.execute("SELECT NULLIF(i, 2) FROM generate_series(1, 5) i")
        cur.itersize = 2
        seen = []
        async for row in cur:
            seen.append(row)
            if row == 3:
                cur.row_factory = pairs
        assert seen == [1, None, 3, [("nullif", 4)], [("nullif", 5)]]
    async with conn.cursor("k", withhold=True) as cur:
        await cur.execute(SERIES, (3,))
        assert await anext(cur) == wanted[0]
        assert cur.raw is not None
        assert [row async for row in cur] == wanted[1:3]


async def test_null_scalars_are_rows(ours, connect):
    cur = await (await connect()).cursor(row_factory=ours.rows.scalar_row)
    nulls = "SELECT NULLIF(i % 2, 0) FROM generate_series(1, 5) i"
    for raw in (False, True):
        if raw:
            assert cur.raw is not None
        await cur.execute(nulls)
        assert [row async for row in cur] == [1, None, 1, None, 1]
        assert [row async for row in cur.stream(nulls, size=2)] == [1, None, 1, None, 1]


async def test_factory_of_the_connection(ours, connect):
    conn = await connect(row_factory=ours.rows.dict_row)
    assert conn.row_factory is ours.rows.dict_row
    async with conn.execute("SELECT 1 AS a") as cur:
        assert await cur.fetchall() == [{"a": 1}]
    async with conn.execute("SELECT 1 AS a", row_factory=ours.rows.scalar_row) as cur:
        assert await cur.fetchall() == [1]
    async with conn.cursor(cursor_factory=psycopg2.extras.NamedTupleCursor) as cur:
        await cur.execute("SELECT 1 AS a")
        assert repr(await cur.fetchall()) == "[Record(a=1)]"
    conn.row_factory = None
    async with conn.execute("SELECT 1 AS a") as cur:
        assert await cur.fetchall() == [(1,)]


async def test_pool(ours, pool):
    p = await pool(row_factory=ours.rows.dict_row)
    async with p.cursor() as cur:
        await cur.execute("SELECT 1 AS a")
        assert await cur.fetchall() == [{"a": 1}]
    async with p.cursor(row_factory=ours.rows.scalar_row) as cur:
        await cur.execute("SELECT 1 AS a")
        assert await cur.fetchall() == [1]
    for shared in (True, False):
        cur = await p.execute("SELECT 1 AS a", shared=shared)
        assert await cur.fetchall() == [{"a": 1}]
        cur = await p.execute("SELECT 1 AS a", shared=shared)
        cur.row_factory = pairs
        assert await cur.fetchone() == [("a", 1)]


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("factory", CLASSES)
@pytest.mark.parametrize("index", range(8))
async def test_pool_execute(ours, pool, factory, shared, index):
    p = await pool()
    make = factories(ours.rows)[index]
    wanted = [expected(index, i) for i in range(1, 6)]
    cur = await p.execute(SERIES, (5,), cursor_factory=factory, row_factory=make, shared=shared)
    assert cur.row_factory is make
    assert await cur.fetchone() == wanted[0]
    assert await cur.fetchmany(2) == wanted[1:3]
    assert [row async for row in cur] == wanted[3:]
    await cur.scroll(0, "absolute")
    assert await cur.fetchall() == wanted


@pytest.mark.parametrize("shared", [True, False])
async def test_pool_execute_takes_the_connections_row_factory(ours, pool, shared):
    async def on_connect(conn):
        conn.row_factory = ours.rows.dict_row

    p = await pool(on_connect=on_connect)
    cur = await p.execute("SELECT 1 AS a", shared=shared)
    assert await cur.fetchall() == [{"a": 1}]
    cur = await p.execute("SELECT 1 AS a", shared=shared, row_factory=ours.rows.scalar_row)
    assert await cur.fetchall() == [1]
    real = psycopg2.extras.NamedTupleCursor
    cur = await p.execute("SELECT 1 AS a", shared=shared, cursor_factory=real)
    assert repr(await cur.fetchall()) == "[Record(a=1)]"


async def test_pool_execute_refuses_what_is_no_row_factory(ours, pool):
    p = await pool()
    for call in (lambda: p.execute("SELECT 1", row_factory=1), lambda: p.cursor(row_factory=1)):
        with pytest.raises(TypeError, match="row_factory must be callable, not 1"):
            call()


async def test_setting_it_between_fetches(ours, connect):
    cur = await (await connect()).cursor()
    for raw in (False, True):
        if raw:
            assert cur.raw is not None
        await cur.execute(SERIES, (5,))
        assert await cur.fetchone() == (1, 1)
        cur.row_factory = ours.rows.dict_row
        assert await cur.fetchone() == {"a": 2, "b": None}
        cur.row_factory = pairs
        assert await cur.fetchone() == [("a", 3), ("b", 3)]
        cur.row_factory = None
        assert await cur.fetchall() == [(4, 4), (5, 5)]


async def test_in_a_pipeline(ours, connect):
    conn = await connect()
    async with conn.pipeline():
        cur = await conn.cursor(row_factory=pairs)
        await cur.execute("SELECT 1 AS a")
        assert await cur.fetchall() == [[("a", 1)]]
        await cur.execute("SELECT pg_sleep(0.01)")
        with pytest.raises(RuntimeError, match="in flight"):
            cur.row_factory = None
    assert cur.row_factory is pairs


async def test_execute_values(ours, connect):
    cur = await (await connect()).cursor(row_factory=ours.rows.scalar_row)
    await cur.execute("CREATE TEMP TABLE t (a int)")
    sql = "INSERT INTO t VALUES %s RETURNING a"
    assert await cur.execute_values(sql, [(1,), (2,)], fetch=True) == [1, 2]


async def test_what_fails_can_be_fetched_again(ours, connect):
    def picky(cursor):
        def make(values):
            if values[0] == 2:
                raise ValueError("two")
            return values

        return make

    cur = await (await connect()).cursor(row_factory=picky)
    for raw in (False, True):
        if raw:
            assert cur.raw is not None
        cur.row_factory = picky
        await cur.execute(SERIES, (3,))
        assert await cur.fetchone() == (1, 1)
        for fetch in (cur.fetchone, cur.fetchmany, cur.fetchall):
            with pytest.raises(ValueError, match="two") as caught:
                await fetch()
            frames = [f.name for f in traceback.extract_tb(caught.value.__traceback__)]
            assert frames[-1] == "make" and len(frames) <= 4, frames
        assert cur.rownumber == 1
        cur.row_factory = ours.rows.tuple_row
        assert await cur.fetchall() == [(2, None), (3, 3)]


@pytest.mark.parametrize("raw", [False, True], ids=["native", "raw"])
async def test_columns(ours, connect, raw):
    rows = ours.rows
    cur = await (await connect()).cursor()
    if raw:
        assert cur.raw is not None

    async def rows_of(factory, sql):
        cur.row_factory = factory
        await cur.execute(sql)
        return await cur.fetchall()

    same = "SELECT i AS a, -i AS a FROM generate_series(1, 12) i"
    assert (await rows_of(rows.dict_row, same))[11] == {"a": -12}
    with pytest.raises(psycopg2.DataError, match="a namedtuple row: Encountered duplicate"):
        await rows_of(rows.namedtuple_row, same)
    with pytest.raises(psycopg2.DataError, match="keyword"):
        await rows_of(rows.namedtuple_row, "SELECT 1 AS class")
    names = 'SELECT 1 AS "a b", 2 AS "1x", 3 AS _z, 4, 5 AS "é"'
    ((row),) = await rows_of(rows.namedtuple_row, names)
    assert row._fields == ("a_b", "f1x", "f_z", "f_column_", "é")
    assert repr(row).startswith("Row(a_b=1, ")
    assert await rows_of(rows.dict_row, "SELECT") == [{}]
    assert await rows_of(rows.namedtuple_row, "SELECT") == [()]
    with pytest.raises(psycopg2.ProgrammingError, match="at least one column expected"):
        await rows_of(rows.scalar_row, "SELECT")
    many = ", ".join(f"i + {n} AS c{n}" for n in range(100))
    many = await rows_of(rows.dict_row, f"SELECT {many} FROM generate_series(1, 9) i")
    assert many[8] == {f"c{n}": 9 + n for n in range(100)}


async def test_without_a_result(ours, connect):
    cur = await (await connect()).cursor(row_factory=pairs)
    for _ in range(2):
        with pytest.raises(psycopg2.ProgrammingError, match="no results to fetch"):
            await cur.fetchone()
        await cur.execute("SET search_path TO public")
        with pytest.raises(psycopg2.ProgrammingError, match="no results to fetch"):
            await cur.fetchall()
        assert cur.raw is not None
    for factory in (ours.rows.dict_row, ours.rows.scalar_row, ours.rows.class_row(Point)):
        with pytest.raises(psycopg2.InterfaceError, match="the cursor doesn't have a result"):
            factory(cur)((1,))


async def test_what_is_no_row_factory(ours, connect, pool):
    with pytest.raises(TypeError, match="row_factory must be callable, not 3"):
        await connect(row_factory=3)
    conn = await connect()
    with pytest.raises(TypeError, match="row_factory must be callable, not 'dict'"):
        conn.cursor(row_factory="dict")
    with pytest.raises(TypeError, match="func must be callable"):
        ours.rows.args_row(3)
    cur = await conn.cursor(row_factory=lambda cursor: 3)
    await cur.execute("SELECT 1")
    with pytest.raises(TypeError, match="a row factory must return a callable, not 3"):
        await cur.fetchone()
    cur = await conn.cursor(
        cursor_factory=unknown(psycopg2.extras.RealDictCursor), row_factory=ours.rows.dict_row
    )
    await cur.execute("SELECT 1 AS a")
    with pytest.raises(TypeError, match="makes rows of sequences"):
        await cur.fetchone()


async def test_dict_rows_in_memory(ours, connect):
    """Values are put into the dicts' memory: each belongs to it, and the collector knows."""
    cur = await (await connect()).cursor(row_factory=ours.rows.dict_row)
    await cur.execute("SELECT i AS a, ARRAY[i] AS b, 'x' || i AS c FROM generate_series(1, 50) i")
    rows = await cur.fetchall()
    assert rows[49] == {"a": 50, "b": [50], "c": "x50"} and list(rows[49]) == ["a", "b", "c"]
    row = rows[7]
    row.update(d=1)
    del row["a"]
    assert row == {"b": [8], "c": "x8", "d": 1} and rows[8] == {"a": 9, "b": [9], "c": "x9"}

    class Cell:
        pass

    cell = Cell()
    rows[9]["b"].append(rows[9])
    rows[9]["cell"] = cell
    gone = weakref.ref(cell)
    del cell, rows, row, cur
    gc.collect()
    assert gone() is None


async def test_sqlalchemy_has_its_own(ours, dsn):
    sa = pytest.importorskip("aiopgx.sa")
    with pytest.raises(TypeError, match="row_factory"):
        await sa.create_engine(dsn, row_factory=ours.rows.dict_row)


async def test_instrumentation_passes_it_on(ours, pool):
    """OpenTelemetry's calls `_cursor()` with all that `cursor()` was given."""
    made = await pool()
    async with made.acquire() as conn:
        cursor = await conn._cursor(row_factory=ours.rows.dict_row)
        await cursor.execute("SELECT 1 AS a")
        assert await cursor.fetchone() == {"a": 1}
