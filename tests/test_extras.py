"""execute_values() and execute_batch(): as psycopg2.extras' own on a synchronous connection."""

import psycopg2
import psycopg2.errors
import pytest
from psycopg2 import extras, sql
from roads import check_equal, portrait, portrait_of_error

TABLE = "CREATE TABLE paged (n serial, a int PRIMARY KEY, b text DEFAULT 'none')"
INSERT = "INSERT INTO paged (a, b) VALUES %s"
ROWS = [(i, f"it's {i} %") for i in range(7)]
DICTS = [{"a": i, "b": None} for i in range(7)]

VALUES = {
    "rows": (INSERT, ROWS),
    "no rows": (INSERT, []),
    "lists": (INSERT, [list(row) for row in ROWS]),
    "other values": (INSERT, [(i, b"\x00'") for i in range(3)] + [(9, psycopg2.Binary(b"x"))]),
    "bytes": (INSERT.encode(), ROWS),
    "composed": (sql.SQL("INSERT INTO {} (a, b) VALUES %s").format(sql.Identifier("paged")), ROWS),
    "a template": (INSERT, ROWS, "(%s, %s || '!')"),
    "a template in bytes": (INSERT, ROWS, b"(%s, %s)"),
    "names": (INSERT, DICTS, "(%(a)s, %(b)s)"),
    "names in bytes": (INSERT, DICTS, b"(%(a)s, %(b)s)"),
    "small pages": (INSERT, ROWS, None, 3),
    "pages of one": (INSERT, ROWS, None, 1),
    "even pages": (INSERT, ROWS[:6], None, 3),
    "returning": (INSERT + " RETURNING n, a", ROWS, None, 3, True),
    "returning, not fetched": (INSERT + " RETURNING n, a", ROWS, None, 3),
    "fetch without rows": (INSERT, ROWS, None, 100, True),
    "per cents": (
        "INSERT INTO paged (a) SELECT v %% 5 + 0 FROM (VALUES %s) AS t (v)",
        [(1,), (2,)],
    ),
    "no placeholder": ("INSERT INTO paged (a) VALUES (1)", ROWS),
    "two placeholders": ("INSERT INTO paged (a) VALUES %s, %s", ROWS),
    "a named placeholder": ("INSERT INTO paged (a) VALUES %(a)s", ROWS),
    "another format": ("INSERT INTO paged (a) VALUES %s %d", ROWS),
    "too few": (INSERT, ROWS, "(%s, %s, %s)"),
    "too many": (INSERT, ROWS, "(%s)"),
    "uneven": (INSERT, [(1, "x"), (2,)]),
    "no length": (INSERT, [1, 2]),
    "nothing to iterate": (INSERT, None),
    "a second page that fails": (INSERT, [*ROWS, ROWS[0]], None, 3),
    "a value that fails": (INSERT, [("x", "y")]),
    "pages of nothing": (INSERT, ROWS, None, 0),
    "pages of half": (INSERT, ROWS, None, 1.5),
}

BATCHES = {
    "rows": ("INSERT INTO paged (a, b) VALUES (%s, %s)", ROWS),
    "no rows": ("INSERT INTO paged (a, b) VALUES (%s, %s)", []),
    "names": ("INSERT INTO paged (a, b) VALUES (%(a)s, %(b)s)", DICTS),
    "bytes": (b"INSERT INTO paged (a, b) VALUES (%s, %s)", ROWS),
    "composed": (sql.SQL("INSERT INTO paged (a) VALUES (%s)"), [(1,), (2,)]),
    "small pages": ("INSERT INTO paged (a, b) VALUES (%s, %s)", ROWS, 3),
    "select": ("SELECT %s AS a, %s AS b", ROWS, 3),
    "updates": ("UPDATE paged SET b = %s", [("x",), ("y",)]),
    "too few": ("INSERT INTO paged (a, b) VALUES (%s, %s, %s)", ROWS),
    "a second page that fails": ("INSERT INTO paged VALUES (1, %s)", [*ROWS[0], 1, 1], 3),
    "a page that fails": ("INSERT INTO paged (a) VALUES (%s)", [(1,), (2,), (1,), (3,)], 2),
    "a syntax error": ("INSERT INTO paged (a) VALUES (%s", [(1,), (2,)]),
    "nothing to iterate": ("SELECT %s", None),
    "pages of nothing": ("SELECT %s", [(1,)], 0),
}


def attributes(cursor):
    columns = cursor.description
    columns = columns and [tuple(column)[:2] for column in columns]
    return cursor.rowcount, cursor.rownumber, cursor.statusmessage, cursor.query, columns


def reference(side, execute, arguments):
    with side.cursor() as cursor:
        cursor.execute(TABLE)
        try:
            seen = portrait(execute(cursor, *arguments))
        except Exception as error:
            seen = portrait_of_error(error)
        seen = [seen, *attributes(cursor)]
        cursor.execute("SELECT * FROM paged ORDER BY n")
        stored = cursor.fetchall()
        cursor.execute("DROP TABLE paged")
    return seen, stored


async def executed(cursor, name, arguments):
    await cursor.execute(TABLE)
    try:
        seen = portrait(await getattr(cursor, name)(*arguments))
    except Exception as error:
        seen = portrait_of_error(error)
    seen = [seen, *attributes(cursor)]
    await cursor.execute("SELECT * FROM paged ORDER BY n")
    stored = await cursor.fetchall()
    await cursor.execute("DROP TABLE paged")
    return seen, stored


@pytest.mark.parametrize("arguments", VALUES.values(), ids=VALUES)
async def test_execute_values(ours, side, connect, arguments):
    cursor = await (await connect()).cursor()
    expected = reference(side, extras.execute_values, arguments)
    check_equal(
        "execute_values", arguments, await executed(cursor, "execute_values", arguments), expected
    )


@pytest.mark.parametrize("arguments", BATCHES.values(), ids=BATCHES)
async def test_execute_batch(ours, side, connect, arguments):
    cursor = await (await connect()).cursor()
    expected = reference(side, extras.execute_batch, arguments)
    check_equal(
        "execute_batch", arguments, await executed(cursor, "execute_batch", arguments), expected
    )


async def test_arguments_by_name(ours, connect):
    cursor = await (await connect()).cursor()
    rows = await cursor.execute_values(
        sql="SELECT * FROM (VALUES %s) AS v",
        argslist=[(1,), (2,)],
        template="(%s + 1)",
        page_size=1,
        fetch=True,
    )
    assert rows == [(2,), (3,)]
    assert await cursor.execute_batch(sql="SELECT %s", argslist=[(1,), (2,)], page_size=1) is None


async def test_asynchronous_iterables(ours, connect):
    async def rows():
        for i in range(7):
            yield (i,)

    cursor = await (await connect()).cursor()
    statement = "SELECT * FROM (VALUES %s) AS v"
    assert await cursor.execute_values(statement, rows(), page_size=3, fetch=True) == [
        (i,) for i in range(7)
    ]
    await cursor.execute_batch("SELECT %s", rows(), page_size=7)
    assert await cursor.fetchall() == [(6,)]
    for page_size in (0, -1, 1.5):
        with pytest.raises((ValueError, TypeError)):
            await cursor.execute_values(statement, rows(), page_size=page_size)
        with pytest.raises((ValueError, TypeError)):
            await cursor.execute_batch("SELECT %s", rows(), page_size=page_size)


async def test_inside_a_transaction(ours, connect):
    conn = await connect()
    cursor = await conn.cursor()
    await cursor.execute("CREATE TEMP TABLE inside (a int PRIMARY KEY)")
    with pytest.raises(psycopg2.errors.UniqueViolation):
        async with cursor.begin():
            await cursor.execute_values("INSERT INTO inside VALUES %s", [(1,), (2,)], page_size=1)
            await cursor.execute_batch("INSERT INTO inside VALUES (%s)", [(3,), (3,)], page_size=1)
    await cursor.execute("SELECT count(*) FROM inside")
    assert await cursor.fetchone() == (0,)
