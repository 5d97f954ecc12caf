"""Drills: many queries on each road, and many connects, take no memory, reference or descriptor.

Their long form makes a million queries in all, and 100,000 connects (`make drill ARGS="-rP -k
flat"` prints what they took). On a debug build of Python, whose references are counted
(`make debug`), one lost by each query is found by the short form as well. See also
test_resources.py (kinds of rows, errors, notices) and bench/soak.py.
"""

import asyncio
import contextlib
import gc
import io
import sys

import psycopg2
import psycopg2.extras
import pytest
from drills import LOOPS, descriptors, nothing_left, resident
from psycopg2.extensions import make_dsn
from support import LONG, fetch, side_connection

QUERIES = 1_000_000 if LONG else 0  # on all roads together
CONNECTS = 100_000 if LONG else 0  # in all ways together
PARTS = 10 if LONG else 12  # at most
WARM = 2  # parts that fill caches and free lists
MAX_MB = 4.0

ROWS = [(n, f"text {n}") for n in range(3)]
SERIES = "SELECT n, 'text ' || n FROM generate_series(0, 2) n"


def counted():
    """What there is in Python: all references on a debug build, else blocks of memory."""
    gc.collect()
    return getattr(sys, "gettotalrefcount", sys.getallocatedblocks)()


async def is_flat(act, times):
    """act() as often once more needs nothing, at the latest when caches and free lists are full.

    What each call loses is found in any case: then each part grows by as much.
    """
    figures = []
    for part in range(PARTS):
        for _ in range(times):
            await act()
        figures.append((counted(), resident(), descriptors()))
        if part and figures[-1][0] - figures[-2][0] < times / 2 and not LONG:
            break
    references, megabytes, files = zip(*figures, strict=True)
    assert references[-1] - references[-2] < times / 2, references
    assert files[-1] <= files[0]
    if LONG:
        grown = megabytes[-1] - megabytes[WARM - 1]
        print(f"{PARTS * times} times: {grown:+.1f} MB, references or blocks {references}")
        assert grown < MAX_MB, megabytes


# --- queries --------------------------------------------------------------------------------------


async def text(pool, conn):
    conn.prepare_threshold = None
    assert await fetch(conn, "SELECT %s::int, %s", (1, "it's")) == [(1, "it's")]


async def prepared(pool, conn):
    conn.prepare_threshold = 0
    assert await fetch(conn, "SELECT %s::int, %s::text", (1, "it's")) == [(1, "it's")]


async def psycopg2s(pool, conn):
    async with conn.cursor() as cur:
        assert cur.raw
        await cur.execute(SERIES)
        assert await cur.fetchall() == ROWS


async def pipeline(pool, conn):
    async with conn.cursor() as cur, conn.pipeline():
        await cur.execute(SERIES)
        assert await cur.fetchall() == ROWS


async def stream(pool, conn):
    async with conn.cursor() as cur:
        assert [row async for row in cur.stream(SERIES, size=2)] == ROWS


async def stream_left_early(pool, conn):
    async with conn.cursor() as cur, contextlib.aclosing(cur.stream(SERIES, size=1)) as rows:
        assert await anext(rows) == ROWS[0]


async def copy_out(pool, conn):
    async with conn.cursor() as cur:
        file = io.StringIO()
        await cur.copy_expert(f"COPY ({SERIES}) TO STDOUT", file)
        assert file.getvalue().count("\n") == 3


async def copy_in(pool, conn):
    async with conn.cursor() as cur:
        await cur.copy_from(io.StringIO("1\tone\n2\ttwo\n"), "bottomless")
        await cur.copy_records("bottomless", ROWS)


async def named(pool, conn):
    async with conn.cursor() as cur, cur.begin(), conn.cursor("flat") as pages:
        await pages.execute(SERIES)
        assert await pages.fetchmany(2) + await pages.fetchall() == ROWS


async def shared(pool, conn):
    cursors = await asyncio.gather(*(pool.execute(SERIES) for _ in range(2)))
    assert [await cursor.fetchall() for cursor in cursors] == [ROWS] * 2


async def executemany(pool, conn):
    async with conn.cursor() as cur:
        await cur.executemany("SELECT %s::int, %s", ROWS)


async def dicts(pool, conn):
    async with conn.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cur:
        await cur.execute(SERIES)
        assert len(await cur.fetchall()) == 3


async def failed(pool, conn):
    for threshold in (None, 0):
        conn.prepare_threshold = threshold
        with pytest.raises(psycopg2.errors.DivisionByZero):
            await fetch(conn, "SELECT 1 / %s::int", (0,))


ROADS = [
    *(text, prepared, psycopg2s, pipeline, stream, stream_left_early, copy_out, copy_in, named),
    *(shared, executemany, dicts, failed),
]


@pytest.fixture(scope="module", autouse=True)
def bottomless(dsn):
    """A table that keeps nothing."""
    with side_connection(dsn) as conn, conn.cursor() as cursor:
        cursor.execute("""
            CREATE TABLE bottomless (n int, t text);
            CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
            CREATE TRIGGER lost BEFORE INSERT ON bottomless
            FOR EACH ROW EXECUTE FUNCTION nothing()
        """)


@LOOPS
@pytest.mark.parametrize("road", ROADS, ids=lambda road: road.__name__)
async def test_queries_are_flat(ours, dsn, side, road):
    async with nothing_left(ours, dsn, side, minsize=2, maxsize=2) as pool:

        async def act():
            async with pool.acquire() as conn:
                await road(pool, conn)

        await is_flat(act, QUERIES // len(ROADS) // 2 // PARTS or 40)


# --- connects -------------------------------------------------------------------------------------


async def connected(ours, dsn):
    async with ours.connect(dsn) as conn:
        assert await fetch(conn, "SELECT 1") == [(1,)]


async def refused(ours, dsn):
    with pytest.raises(psycopg2.OperationalError):
        await ours.connect(make_dsn(dsn, dbname="there is none"))


async def given_up(ours, dsn):
    task = asyncio.ensure_future(ours.connect(dsn).__aenter__())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])


async def pooled(ours, dsn):
    async with ours.create_pool(dsn, minsize=1, maxsize=1) as pool:
        assert (await (await pool.execute("SELECT 1")).fetchone()) == (1,)


WAYS = [connected, refused, given_up, pooled]


@LOOPS
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_connects_are_flat(ours, dsn, way):
    await is_flat(lambda: way(ours, dsn), CONNECTS // len(WAYS) // 2 // PARTS or 20)
