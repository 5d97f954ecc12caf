"""Results: rows, positions and attributes as in the psycopg2 cursor that executed the same."""

import pickle
import resource

import psycopg2
import psycopg2.extensions
import psycopg2.extras
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg2.extensions import new_type, register_type

import aiopgx
from aiopgx._rows import shape_of, take

FACTORIES = [
    psycopg2.extensions.cursor,
    psycopg2.extras.DictCursor,
    psycopg2.extras.RealDictCursor,
    psycopg2.extras.NamedTupleCursor,
]
QUERIES = {
    "rows": "SELECT i AS number, 'text' AS text, NULL AS nothing FROM generate_series(1, 5) AS i",
    "no rows": "SELECT 1 AS a WHERE false",
    "no columns": "SELECT FROM generate_series(1, 2)",
    "one name twice": "SELECT 1 AS a, 2 AS b, 3 AS a FROM generate_series(1, 2)",
    "strange names": 'SELECT 1 AS "class", 2 AS "1", 3 AS "_a", 4 AS "ä b", 5 AS "?"',
}
COLUMN = [
    *("name", "type_code", "display_size", "internal_size", "precision", "scale", "null_ok"),
    *("table_oid", "table_column"),
]
ATTRIBUTES = ["rowcount", "rownumber", "lastrowid", "statusmessage", "query"]


@pytest.fixture(scope="module")
def conn(dsn):
    conn = psycopg2.connect(dsn)
    conn.autocommit = True
    yield conn
    conn.close()


each_factory = pytest.mark.parametrize("factory", FACTORIES, ids=lambda factory: factory.__name__)


def portrait(value):
    if isinstance(value, Exception):
        return type(value), str(value), getattr(value, "cursor", None) is not None
    if isinstance(value, list) and not isinstance(value, psycopg2.extras.DictRow):
        return [portrait(item) for item in value]
    return type(value), repr(value), getattr(value, "_index", None)


def call(rows, name, *args):
    try:
        return getattr(rows, name)(*args)
    except Exception as error:
        return error


def state(rows):
    columns = rows.description
    if columns is not None:
        columns = [type(columns), *([getattr(c, name) for name in COLUMN] for c in columns)]
    return columns, [getattr(rows, name) for name in ATTRIBUTES]


def twins(conn, factory, sql):
    """A psycopg2 cursor that has executed, and the Result taken out of another one."""
    cursors = [conn.cursor(cursor_factory=factory) for _ in range(2)]
    for cursor in cursors:
        cursor.execute(sql)
    return cursors[0], take(cursors[1])


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("fetchone")),
        st.tuples(st.just("fetchall")),
        st.tuples(st.just("fetchmany")),
        st.tuples(st.just("fetchmany"), st.sampled_from([None, 0, 1, 2, 9, -1, 1.5, "1", 2**70])),
        st.tuples(st.just("scroll"), st.sampled_from([0, 1, -1, 2, 9, -9, 1.5, 2**31, -(2**70)])),
        st.tuples(
            st.just("scroll"),
            st.sampled_from([0, 1, 4, 5]),
            st.sampled_from(["absolute", "relative", "other", 1]),
        ),
    ),
    max_size=8,
)


@each_factory
@pytest.mark.parametrize("query", QUERIES)
@settings(max_examples=60, deadline=None)
@given(steps=STEPS, hand_over_at=st.integers(0, 12))
def test_any_sequence_of_calls(conn, factory, query, steps, hand_over_at):
    model, rows = twins(conn, factory, QUERIES[query])
    assert state(rows) == state(model)
    for number, step in enumerate(steps):
        if number == hand_over_at:
            taker = conn.cursor(cursor_factory=factory)
            rows.hand_over(taker)
            assert state(taker) == state(model)
        assert portrait(call(rows, *step)) == portrait(call(model, *step)), step
        assert state(rows) == state(model)


@each_factory
def test_closed(conn, factory):
    model = conn.cursor(cursor_factory=factory)
    model.execute(QUERIES["rows"])
    with conn.cursor(cursor_factory=factory) as cursor:
        cursor.execute(QUERIES["rows"])
        rows = take(cursor)
    model.close()
    for step in [("fetchone",), ("fetchmany",), ("fetchmany", "x"), ("fetchall",), ("scroll", 0)]:
        assert portrait(call(rows, *step)) == portrait(call(model, *step)), step


def test_closed_connection(dsn):
    conn = psycopg2.connect(dsn)
    model, rows = twins(conn, psycopg2.extensions.cursor, QUERIES["rows"])
    conn.close()
    assert portrait(call(rows, "fetchone")) == portrait(call(model, "fetchone"))
    assert rows.statusmessage == "SELECT 5" and rows.description[0].name == "number"


def test_description(conn):
    with conn.cursor() as cursor:
        cursor.execute(
            "CREATE TEMP TABLE t (a numeric, b numeric(10, 3), c varchar, d varchar(9), e char(3),"
            " f int, g bit(5), h timestamp(3), i interval second(2), j numeric(3, 0)[],"
            ' k time(0), "ä" int2, m name)'
        )
    model, rows = twins(conn, psycopg2.extensions.cursor, "SELECT *, 1, ctid, tableoid FROM t")
    assert state(rows) == state(model)
    assert rows.description is rows.description
    assert repr(rows.description) == repr(model.description)
    assert pickle.loads(pickle.dumps(rows.description)) == rows.description


def test_error_has_the_cursor(conn):
    with conn.cursor() as cursor:
        cursor.execute("SELECT 1")
        rows = take(cursor)
        with pytest.raises(psycopg2.ProgrammingError) as info:
            rows.scroll(7)
        assert info.value.cursor is cursor
        assert info.value.pgcode is None and info.value.diag.sqlstate is None


def test_nothing_to_take(conn):
    with conn.cursor() as cursor, pytest.raises(psycopg2.ProgrammingError, match="no results"):
        take(cursor)


def test_taken_result_is_gone_from_the_cursor(conn):
    with conn.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert take(cursor).fetchall() == [(1,)]
        with pytest.raises(psycopg2.ProgrammingError, match="no results to fetch"):
            cursor.fetchall()
        cursor.execute("SELECT 2")
        assert cursor.fetchall() == [(2,)]


# --- shapes ---------------------------------------------------------------------------------------


def test_shapes():
    class Own(psycopg2.extras.DictCursor):
        pass

    assert [shape_of(factory) for factory in FACTORIES] == [0, 1, 2, 3]
    assert shape_of(Own) == shape_of(psycopg2.extras.LoggingCursor) == -1


def test_rows_of_a_result_share_their_index(conn):
    _, rows = twins(conn, psycopg2.extras.DictCursor, QUERIES["rows"])
    first, *others = rows.fetchall()
    assert all(row._index is first._index for row in others)
    assert first["text"] == first[1] == "text"
    first["text"] = "changed"
    first.append(4)
    assert others[0]["text"] == "text" and len(others[0]) == 3


@each_factory
def test_rows_can_be_copied(conn, factory):
    if factory is not psycopg2.extras.NamedTupleCursor:  # a class made at run time has no home
        model, rows = twins(conn, factory, QUERIES["rows"])
        copies = pickle.loads(pickle.dumps(rows.fetchall()))
        assert portrait(copies) == portrait(model.fetchall())


# --- handing over ---------------------------------------------------------------------------------


@each_factory
def test_hand_over_to_a_used_cursor(conn, factory):
    _, rows = twins(conn, factory, QUERIES["rows"])
    with conn.cursor(cursor_factory=factory) as taker:
        taker.execute("SELECT 'old' AS column")
        taker.fetchone()
        first = rows.fetchone()
        rows.hand_over(taker)
        rows.hand_over(taker)  # again: nothing happens
        assert taker.rownumber == rows.rownumber == 1
        model = twins(conn, factory, QUERIES["rows"])[0].fetchmany(3)
        assert portrait([first, taker.fetchone(), rows.fetchone()]) == portrait(model)
        taker.execute("SELECT 'new' AS column")
        assert portrait(rows.fetchall()) == portrait(
            twins(conn, factory, taker.query)[0].fetchall()
        )


def test_hand_over_during_a_fetch(conn):
    with conn.cursor() as cursor:
        register_type(new_type((25,), "X", lambda value, c: rows.hand_over(cursor)), cursor)
        cursor.execute("SELECT 'a'::text")
        rows = take(cursor)
        with pytest.raises(RuntimeError, match="being fetched"):
            rows.fetchall()
        rows.hand_over(cursor)


@pytest.mark.parametrize("step", [("fetchall",), ("scroll", 2, "absolute")])
def test_caster_that_moves_its_own_cursor(conn, step):
    with conn.cursor() as cursor:
        depth = []

        def caster(value, cursor):
            depth.append(None)
            if len(depth) == 1:
                call(rows, *step)
            return value

        register_type(new_type((23,), "X", caster), cursor)
        cursor.execute("SELECT generate_series(1, 3)")
        rows = take(cursor)
        with pytest.raises(psycopg2.ProgrammingError, match="typecaster moved the cursor"):
            rows.fetchall()


# --- commands -------------------------------------------------------------------------------------


@each_factory
@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TEMP TABLE c (a int)",
        "INSERT INTO c SELECT generate_series(1, 3)",
        "UPDATE c SET a = 0",
        "DELETE FROM c WHERE false",
        "SET search_path TO public",
        "INSERT INTO c VALUES (1) RETURNING a",
    ],
)
async def test_command(dsn, sql, factory):
    with psycopg2.connect(dsn) as conn, conn.cursor(cursor_factory=factory) as model:
        model.execute("CREATE TEMP TABLE IF NOT EXISTS c (a int)")
        model.execute(sql.replace("TABLE c", "TABLE d"))
        async with aiopgx.connect(dsn) as ours, ours.cursor(cursor_factory=factory) as cursor:
            await cursor.execute("CREATE TEMP TABLE IF NOT EXISTS c (a int)")
            await cursor.execute(sql.replace("TABLE c", "TABLE d"))
            # scrolling works on a bare count, and a fetch that fails forgets the count
            for step in [("scroll", 1), ("fetchone",), ("scroll", 0), ("fetchall",)]:
                assert state(cursor)[1] == state(model)[1]
                try:
                    got = await getattr(cursor, step[0])(*step[1:])
                except Exception as error:
                    got = error
                assert portrait(got) == portrait(call(model, *step)), step
    conn.close()


# --- memory ---------------------------------------------------------------------------------------


def resident_kb():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize() // 1024


def use(conn, factory):
    big = "SELECT i, repeat('x', 1000) AS text, ARRAY[i], '{}'::json, '\\x6162'::bytea, now()"
    big += " FROM generate_series(1, 100) AS i"
    for end in ("none", "all", "given", "failed"):
        with conn.cursor(cursor_factory=factory) as cursor:
            if end == "failed":
                register_type(
                    new_type((23,), "X", lambda value, cursor: 1 / (50 - int(value))), cursor
                )
            cursor.execute(big)
            rows = take(cursor)
            if end == "given":
                rows.fetchone()
                rows.hand_over(cursor)
            elif end != "none":
                call(rows, "fetchall")


@each_factory
@pytest.mark.skipif(not __import__("os").path.exists("/proc/self/statm"), reason="needs Linux")
def test_memory_does_not_grow(conn, factory):
    for _ in range(20):
        use(conn, factory)
    before = resident_kb()
    for _ in range(100):
        use(conn, factory)
    assert resident_kb() - before < 4000  # one lost result a turn would be 10,000
