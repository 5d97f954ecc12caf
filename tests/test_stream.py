"""Cursor.stream(): the same rows, attributes and errors as execute(), on each road."""

import asyncio
import contextlib

import psycopg2
import psycopg2.extras
import pytest
from psycopg2 import sql
from roads import unknown
from support import fetch, until

SERIES = "SELECT n, 'text ' || n AS name FROM generate_series(1, %s) n"

MIXED = """
    SELECT n AS a, n::int8 * 5000000000 AS b, n::float8 / 3 AS c, n::numeric / 7 AS d,
        n %% 2 = 0 AS e, 'é' || n AS f, md5(n::text)::uuid AS g, ('x' || n)::bytea::text AS h,
        json_build_object('n', n) AS i, ARRAY[n, NULL, 7] AS j, date '2024-01-31' + n AS k,
        timestamptz '2024-01-01 12:00+00' + n * interval '1 h' AS l,
        CASE WHEN n %% 3 > 0 THEN n END AS m, 'same' AS n, int4range(1, n) AS o,
        '10.0.0.1'::inet AS p, NULL AS q
    FROM generate_series(1, %s) n
"""

CLASSES = [
    psycopg2.extensions.cursor,
    psycopg2.extras.DictCursor,
    psycopg2.extras.RealDictCursor,
    psycopg2.extras.NamedTupleCursor,
    unknown(psycopg2.extras.DictCursor),
]


@pytest.fixture
def cursor(ours, connect):
    """``await cursor(**kw)``: a cursor of a new connection."""

    async def cursor(**kwargs):
        return await (await connect()).cursor(**kwargs)

    return cursor


async def rows_of(stream):
    return [row async for row in stream]


@pytest.mark.all_loops
@pytest.mark.parametrize("size", [1, 2, 7, 100, 10**10])
@pytest.mark.parametrize("count", [0, 1, 7, 1000])
async def test_rows(cursor, size, count):
    cur = await cursor()
    wanted = [(n, f"text {n}") for n in range(1, count + 1)]
    assert await rows_of(cur.stream(SERIES, (count,), size=size)) == wanted
    assert cur.rowcount == count
    assert cur.statusmessage == f"SELECT {count}"
    assert cur.query == (SERIES % count).encode()
    assert [column.name for column in cur.description] == ["n", "name"]
    assert await fetch(cur.connection, "SELECT 1") == [(1,)]


@pytest.mark.parametrize("size", [1, 100])
@pytest.mark.parametrize("factory", CLASSES)
async def test_values_of_each_cursor_class(cursor, factory, size):
    cur = await cursor(cursor_factory=factory)
    await cur.execute(MIXED, (250,))
    wanted = await cur.fetchall()
    rows = await rows_of(cur.stream(MIXED, (250,), size=size))
    assert rows == wanted
    assert [type(row) for row in rows] == [type(row) for row in wanted]
    values = [[repr(value) for value in row] for row in rows]
    assert values == [[repr(value) for value in row] for row in wanted]


async def test_rows_of_dict_cursors_share_their_index(cursor):
    cur = await cursor(cursor_factory=psycopg2.extras.DictCursor)
    async for row in cur.stream(SERIES, (3,), size=1):
        assert row["name"] == f"text {row['n']}"


async def test_attributes_on_the_way(cursor):
    cur = await cursor()
    stream = cur.stream(SERIES, (10,), size=4)
    assert cur.query is None
    assert await anext(stream) == (1, "text 1")
    assert [column.type_code for column in cur.description] == [23, 25]
    assert cur.query == (SERIES % 10).encode()
    await stream.aclose()
    await stream.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 1",
        b"SELECT 1",
        sql.SQL("SELECT {}").format(sql.Literal(1)),
        "SHOW max_identifier_length",
        "VALUES (1), (2)",
        "SET application_name = 'a'; SELECT 1",
    ],
)
async def test_statements(cursor, statement):
    cur = await cursor()
    assert await rows_of(cur.stream(statement))
    assert await fetch(cur.connection, "SELECT 1") == [(1,)]


async def test_what_is_changed(cursor):
    cur = await cursor()
    await cur.execute("CREATE TEMP TABLE changed (i int)")
    insert = "INSERT INTO changed SELECT generate_series(1, 250) RETURNING i"
    assert await rows_of(cur.stream(insert)) == [(i,) for i in range(1, 251)]
    assert (cur.rowcount, cur.statusmessage) == (250, "INSERT 0 250")
    with pytest.raises(psycopg2.ProgrammingError, match="no results to fetch"):
        await rows_of(cur.stream("UPDATE changed SET i = i + 1"))
    assert await fetch(cur.connection, "SELECT count(*), min(i) FROM changed") == [(250, 2)]


@pytest.mark.parametrize(
    ("statement", "parameters", "error"),
    [
        ("SELECT nosuch", None, psycopg2.errors.UndefinedColumn),
        ("SELEC", None, psycopg2.errors.SyntaxError),
        ("", None, psycopg2.ProgrammingError),
        ("SELECT %s", (object(),), psycopg2.ProgrammingError),
        ("SELECT %s, %s", (1,), (IndexError, TypeError)),
        ("SELECT '\0'", None, ValueError),
        ("SELECT '0044-03-15 BC'::date", None, ValueError),
    ],
)
async def test_errors_are_those_of_execute(cursor, statement, parameters, error):
    cur = await cursor()
    seen = []
    for attempt in range(2):
        with pytest.raises(error) as caught:
            if attempt:
                await rows_of(cur.stream(statement, parameters))
            else:
                await cur.execute(statement, parameters)
                await cur.fetchall()
        seen.append((type(caught.value), str(caught.value), getattr(caught.value, "cursor", None)))
        assert await fetch(cur.connection, "SELECT 1") == [(1,)]
    assert seen[0] == seen[1]


@pytest.mark.parametrize("size", [1, 100])
async def test_an_error_in_the_middle(cursor, size):
    cur = await cursor()
    seen = []
    stream = cur.stream("SELECT 100 / (250 - n) FROM generate_series(1, 1000) n", size=size)
    with pytest.raises(psycopg2.errors.DivisionByZero) as caught:
        async for row in stream:
            seen.append(row)
    assert caught.value.pgcode == "22012" and caught.value.cursor is not None
    assert seen == [(100 // (250 - n),) for n in range(1, len(seen) + 1)]
    assert await rows_of(stream) == []
    assert await fetch(cur.connection, "SELECT 1") == [(1,)]


@pytest.mark.parametrize("size", [0, -1])
async def test_size_must_be_positive(cursor, size):
    cur = await cursor()
    with pytest.raises(ValueError, match=f"size must be a positive number of rows, not {size}"):
        cur.stream("SELECT 1", size=size)


async def test_arguments_are_checked_at_once(cursor):
    cur = await cursor()
    with pytest.raises(TypeError, match="size must be a number of rows, not '10'"):
        cur.stream("SELECT 1", size="10")
    with pytest.raises(TypeError, match="timeout must be a number"):
        cur.stream("SELECT 1", timeout="soon")


async def test_closed(cursor):
    cur = await cursor()
    stream = cur.stream("SELECT 1")
    cur.close()
    with pytest.raises(psycopg2.InterfaceError, match="cursor already closed"):
        await anext(stream)


async def test_a_named_cursor_is_a_stream_itself(cursor):
    cur = await cursor(name="named")
    with pytest.raises(psycopg2.ProgrammingError, match="named cursors"):
        cur.stream("SELECT 1")


async def test_raw_after_a_stream(cursor):
    cur = await cursor()
    await rows_of(cur.stream(SERIES, (10,)))
    assert cur.raw.rowcount == 10
    assert await rows_of(cur.stream("SELECT 1")) == [(1,)]


async def test_in_a_transaction(cursor):
    cur = await cursor()
    async with cur.begin():
        await cur.execute("CREATE TEMP TABLE kept (i int)")
        async for (i,) in cur.stream("SELECT generate_series(1, 2000)"):
            if i == 10:
                break
        await cur.execute("INSERT INTO kept VALUES (1)")
    assert await fetch(cur.connection, "SELECT i FROM kept") == [(1,)]


async def test_echo(connect, ours, caplog):
    caplog.set_level("INFO")
    conn = await connect(echo=True)
    cur = await conn.cursor()
    assert await rows_of(cur.stream("SELECT %s", (1,))) == [(1,)]
    assert [record.message for record in caplog.records][-2:] == ["SELECT %s", "(1,)"]


@pytest.mark.all_loops
async def test_the_next_statement_is_read_whatever_was_paused(cursor):
    """A stream whose last rows had been read already, while nothing was read any more."""
    cur = await cursor()
    for n in range(20):
        count = 0
        async for _ in cur.stream("SELECT repeat('x', 300) FROM generate_series(1, 300)", size=1):
            count += 1
            if count % 20 == n:
                await asyncio.sleep(0.0005)
        await cur.execute("SELECT 1", timeout=5)


@pytest.mark.all_loops
async def test_several_streams_one_after_the_other(cursor):
    cur = await cursor()
    for _ in range(20):
        async for (i,) in cur.stream("SELECT generate_series(1, 1000)", size=10):
            if i == 25:
                break
        assert await fetch(cur.connection, "SELECT 1") == [(1,)]


async def test_a_statement_that_the_server_cancels(connect, ours):
    """As execute() does it: aiopg's CancelledError, or psycopg2's error."""
    statement = "SET statement_timeout = 50; SELECT pg_sleep(10)"
    conn = await connect(raise_query_canceled=True)
    with pytest.raises(psycopg2.errors.QueryCanceled):
        await rows_of((await conn.cursor()).stream(statement))
    assert await fetch(conn, "SELECT 1") == [(1,)]


async def test_a_statement_that_the_server_cancels_is_cancelled(cursor, loop_errors):
    cur = await cursor()
    with pytest.raises(asyncio.CancelledError):
        await rows_of(cur.stream("SET statement_timeout = 50; SELECT pg_sleep(10)"))
    assert len(loop_errors) == 1
    loop_errors.clear()
    assert await fetch(cur.connection, "SELECT 1") == [(1,)]


async def test_timeout(cursor):
    cur = await cursor()
    with pytest.raises(asyncio.TimeoutError):
        await rows_of(cur.stream("SELECT pg_sleep(10)", timeout=0.1))
    assert cur.connection.closed


async def test_within_aclosing(cursor):
    cur = await cursor()
    async with contextlib.aclosing(cur.stream(SERIES, (1000,))) as stream:
        assert await anext(stream) == (1, "text 1")
    assert await fetch(cur.connection, "SELECT 1") == [(1,)]


@pytest.mark.parametrize("size", [1, 100])
async def test_rows_of_a_pipeline_behind_a_stream(ours, connect, size):
    """libpq's batches end with the stream: the first statement in pipeline mode gave no rows."""
    conn = await connect()
    async with conn.cursor() as cur, conn.cursor() as other:
        for left in (False, True):
            async for _ in cur.stream("SELECT * FROM generate_series(1, 300)", size=size):
                if left:
                    break
            async with conn.pipeline():
                await other.execute("SELECT * FROM generate_series(1, 3)")
            assert other.rowcount == 3
            assert await other.fetchall() == [(1,), (2,), (3,)]
            with pytest.raises(psycopg2.Error) as raised:
                await other.execute("SELECT 1/0")
            assert str(raised.value) == "division by zero\n"
            async for _ in cur.stream("SELECT 1", size=size):
                pass
            await other.execute("BEGIN")
            async for _ in cur.stream("SELECT 2", size=size):
                pass
            await other.executemany("SELECT %s", [(i,) for i in range(5)])
            assert other.rowcount == 5
            await other.execute("ROLLBACK")


async def test_lost_behind_a_stream(ours, connect, side, loop_errors):
    """The error is the server's alone."""
    conn = await connect()
    async with conn.cursor() as cur:
        async for _ in cur.stream("SELECT 1"):
            pass
        side.cursor().execute("SELECT pg_terminate_backend(%s)", (conn.raw.get_backend_pid(),))
        await until(lambda: conn.closed)
        with pytest.raises(psycopg2.InterfaceError) as raised:
            await cur.execute("SELECT 1")
    assert "closed: terminating connection due to administrator command\nserver closed" in str(
        raised.value
    )


async def test_connection_goes_behind_an_error(ours, dsn, no_gc, loop_errors):
    """Nothing holds the error of a stream, whose frames hold the connection."""
    conn = await ours.connect(dsn)
    async with conn.cursor() as cur:
        with pytest.raises(psycopg2.errors.DivisionByZero):
            async for _ in cur.stream("SELECT 1/0"):
                pass
    with pytest.warns(ResourceWarning, match="Unclosed connection"):
        del conn, cur
    loop_errors.clear()
