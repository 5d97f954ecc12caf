"""executemany() in libpq's pipeline mode: what is prepared, and how many round trips it takes."""

import asyncio

import psycopg2
import psycopg2.errors
import pytest
from psycopg2.extras import Json
from support import scalar

import aiopgx._batch

TABLE = """
    CREATE TEMP TABLE told (
        n serial, i int, big bigint, t text, f float8, r real, num numeric, j jsonb, d date,
        mood mood, short short, sent text DEFAULT current_query()
    )
"""


@pytest.fixture
def told(side, connect):
    """A cursor, and a table whose rows tell how they were sent."""
    if scalar(side, "SELECT to_regtype('mood')") is None:
        scalar(
            side,
            "CREATE TYPE mood AS ENUM ('good', 'bad');"
            "CREATE DOMAIN short AS text CHECK (length(VALUE) < 3); SELECT 1",
        )

    async def make(**kwargs):
        cursor = await (await connect(**kwargs)).cursor()
        await cursor.execute(TABLE)
        return cursor

    return make


async def ways(cursor):
    """P for each row that was bound, T for each that was a text."""
    await cursor.execute(
        "SELECT string_agg(CASE WHEN sent LIKE '%$1%' THEN 'P' ELSE 'T' END, ''"
        " ORDER BY n) FROM told"
    )
    (found,) = await cursor.fetchone()
    await cursor.execute("DELETE FROM told")
    return found


PREPARED = "TTTPPPPPPP"


@pytest.mark.parametrize(
    ("column", "values", "own", "inside"),
    [
        ("i", [1] * 10, PREPARED, PREPARED),
        ("i", [1, None] * 5, PREPARED, PREPARED),
        ("i", ["1"] * 10, PREPARED, "T" * 10),
        ("big", [1, 2**40] * 5, "TTTTPTPTPT", "TTTTPTPTPT"),
        ("t", ["a", None, "ä", "it's", ""] * 2, PREPARED, PREPARED),
        ("f", [1.5, None, -0.0, 1e30, float("inf")] * 2, PREPARED, PREPARED),
        ("r", [1.5] * 10, PREPARED, PREPARED),
        ("num", [1.5] * 10, PREPARED, PREPARED),
        ("j", [Json([1])] * 10, PREPARED, "T" * 10),
        ("mood", ["good"] * 10, PREPARED, "T" * 10),
        ("short", ["ab"] * 10, "T" * 10, "T" * 10),
        ("t", ["a", 5] * 5, "TTTTPTPTPT", "TTTTPTPTPT"),
    ],
)
async def test_ways(ours, told, column, values, own, inside):
    cursor = await told()
    statement = f"INSERT INTO told ({column}) VALUES (%s)"
    await cursor.executemany(statement, iter([(value,) for value in values]))
    assert await ways(cursor) == own
    await cursor.execute("BEGIN")
    await cursor.executemany(statement, iter([(value,) for value in values]))
    await cursor.execute("COMMIT")
    assert await ways(cursor) == inside


async def test_types_that_change(ours, told):
    """Each signature of types is tried by itself, behind the rows in which it was met."""
    cursor = await told()
    rows = [*[(1,)] * 300, *[(2**40,)] * 300, *[(1,)] * 300]
    await cursor.executemany("INSERT INTO told (big) VALUES (%s)", iter(rows))
    found = await ways(cursor)
    assert found[:4] == "TTTP"
    assert found[299:301] == "PT"
    assert found[-300:] == "P" * 300


async def test_a_parse_that_is_refused(ours, told, side):
    """The rows were fine as texts; a user's transaction goes on."""
    scalar(
        side,
        "CREATE OR REPLACE FUNCTION lower(varchar) RETURNS text LANGUAGE sql AS 'SELECT $1::text';"
        "CREATE OR REPLACE FUNCTION lower(bpchar) RETURNS text LANGUAGE sql AS 'SELECT $1::text';"
        "SELECT 1",
    )
    cursor = await told()
    rows = [("A",)] * 20
    for statement in (
        "INSERT INTO told (t) VALUES (lower(%s))",
        "INSERT INTO told (t) VALUES (%s)",
    ):
        await cursor.execute("BEGIN")
        await cursor.executemany(statement, iter(rows))
        await cursor.execute("COMMIT")
        assert len(await ways(cursor)) == 20


async def test_small_lists_go_at_once(ours, told):
    cursor = await told()
    await cursor.executemany("INSERT INTO told (i) VALUES (%s)", [(i,) for i in range(16)])
    assert await ways(cursor) == "T" * 16


async def test_a_plan_that_is_dropped_meanwhile(ours, told, side):
    """Between the rows another session changes the table."""
    scalar(side, "DROP TABLE IF EXISTS changing; CREATE TABLE changing (i int); SELECT 1")

    async def rows():
        for i in range(2000):
            yield (i,)

    cursor = await told()
    await cursor.executemany("INSERT INTO changing VALUES (%s)", rows())
    scalar(side, "ALTER TABLE changing ALTER i TYPE text; SELECT 1")
    await cursor.executemany("INSERT INTO changing VALUES (%s)", rows())
    assert scalar(side, "SELECT count(*) FROM changing") == 4000


@pytest.mark.parametrize(
    ("kind", "count", "wanted"),
    [(list, 10, 1), (iter, 100, 2), (list, 100, 2), (list, 1000, 4)],
)
async def test_round_trips(ours, connect, trips, kind, count, wanted):
    """BEGIN and COMMIT are in them. Slow machines take rows more often: the best of three."""
    conn = await connect(dsn=trips.dsn)
    async with conn.cursor() as cursor:
        await cursor.execute("CREATE TEMP TABLE many (i int)")
        counts = []
        for _ in range(3):
            rows = kind([(i,) for i in range(count)])
            trips()
            await cursor.executemany("INSERT INTO many VALUES (%s)", rows)
            counts.append(trips())
        assert 1 <= min(counts) <= wanted, counts
        await cursor.execute("SELECT count(*) FROM many")
        assert await cursor.fetchone() == (3 * count,)


@pytest.mark.unprepared
async def test_without_pipelines(ours, told, monkeypatch):
    """As with a libpq before 14: one by one."""
    monkeypatch.setattr(aiopgx._batch, "pipelines", False)
    cursor = await told()
    rows = [(i,) for i in range(600)]
    await cursor.executemany("INSERT INTO told (i) VALUES (%s)", rows)
    assert cursor.rowcount == 600
    taken = await ways(cursor)
    assert len(taken) == 600 and set(taken[:5]) == {"T"}  # and then execute() prepares
    with pytest.raises(psycopg2.errors.NumericValueOutOfRange) as info:
        await cursor.executemany("INSERT INTO told (i) VALUES (%s)", [*rows, (2**40,)])
    assert info.value.__notes__ == ["executemany: the parameters at index 600"]
    assert await ways(cursor) is None


async def test_the_pipeline_is_left(ours, told):
    """psycopg2 executes on the same connection afterwards."""
    cursor = await told()
    await cursor.executemany("INSERT INTO told (i) VALUES (%s)", [(i,) for i in range(100)])
    assert cursor.raw.rowcount == 100
    await cursor.execute("SELECT 1")
    assert await cursor.fetchone() == (1,)


async def test_neighbours(ours, told):
    """Ten connections at once."""
    cursors = [await told() for _ in range(10)]
    statement = "INSERT INTO told (i, t, f) VALUES (%s, %s, %s)"
    await asyncio.gather(
        *(
            c.executemany(statement, [(i, f"{n}", i / 2) for i in range(2000)])
            for n, c in enumerate(cursors)
        )
    )
    for number, cursor in enumerate(cursors):
        await cursor.execute("SELECT min(t), max(t), sum(i), sum(f) FROM told")
        assert await cursor.fetchone() == (f"{number}", f"{number}", 1999000, 999500.0)
