"""A drill: all kinds of requests at once, of many tasks, while sessions are killed at random.

Each result is compared with what it must be, and each row of a committed transaction is looked for
at the end. Whoever meets a kill is told so by psycopg2's exceptions.
"""

import asyncio
import collections
import contextlib
import io
import itertools
import random

import psycopg2
import pytest
from drills import LOOPS, nothing_left
from support import LONG, fetch, scalar

TASKS = 24
OPERATIONS = 51_000 if LONG else 300
KILLS = 120 if LONG else 4

ids = itertools.count(1)


@pytest.fixture(scope="module", autouse=True)
def tables(dsn):
    conn = psycopg2.connect(dsn)
    with conn, conn.cursor() as cursor:
        cursor.execute("CREATE TABLE kept (id int, t text); CREATE TABLE bulk (n int)")
    conn.close()


# --- what is asked: n is a number that nobody else has --------------------------------------------


async def text(pool, n):
    async with pool.acquire() as conn:
        cur = await conn.execute("SELECT %s::int, repeat('x', %s)", (n, n % 3000), prepare=False)
        assert await cur.fetchone() == (n, "x" * (n % 3000))


async def prepared(pool, n):
    async with pool.acquire() as conn:
        cur = await conn.execute("SELECT g + %s FROM generate_series(1, 5) g", (n,), prepare=True)
        assert await cur.fetchall() == [(n + g,) for g in range(1, 6)]


async def psycopg2s_road(pool, n):
    async with pool.acquire() as conn, conn.cursor() as cur:
        assert cur.raw
        await cur.execute("SELECT %s::int", (n,))
        assert await cur.fetchone() == (n,)


async def pipeline(pool, n):
    async with pool.acquire() as conn:
        cursors = [await conn.cursor() for _ in range(4)]
        async with conn.pipeline():
            for number, cur in enumerate(cursors):
                await cur.execute("SELECT %s::int, %s::int", (n, number))
        assert [await cur.fetchone() for cur in cursors] == [(n, number) for number in range(4)]


async def shared(pool, n):
    asked = [pool.execute("SELECT %s::int + %s", (n, number)) for number in range(3)]
    got = await asyncio.gather(*asked, return_exceptions=True)
    for number, cur in enumerate(got):
        if isinstance(cur, BaseException):
            raise cur
        assert await cur.fetchone() == (n + number,)


async def stream(pool, n):
    async with pool.cursor() as cur:
        rows = cur.stream("SELECT %s::int + g FROM generate_series(1, 90) g", (n,), size=20)
        assert [row async for row in rows] == [(n + g,) for g in range(1, 91)]


async def named(pool, n):
    async with pool.acquire() as conn, conn.cursor(f"c{n}", withhold=True) as cur:
        await cur.execute("SELECT %s::int + g FROM generate_series(1, 9) g", (n,))
        assert await cur.fetchmany(4) == [(n + g,) for g in range(1, 5)]
        assert [row async for row in cur] == [(n + g,) for g in range(5, 10)]


async def executemany(pool, n):
    async with pool.cursor() as cur:
        await cur.executemany("INSERT INTO bulk VALUES (%s)", [(-n,)] * 30)
        assert cur.rowcount == 30


async def copy_in(pool, n):
    async with pool.cursor() as cur:
        await cur.copy_from(io.StringIO(f"{n}\n" * 40), "bulk")
        assert cur.rowcount == 40


async def copy_records(pool, n):
    async with pool.acquire() as conn:
        said = await conn.copy_records_to_table("bulk", records=[(n,)] * 25)
        assert said == "COPY 25"


async def copy_out(pool, n):
    async with pool.cursor() as cur:
        file = io.StringIO()
        sql = f"COPY (SELECT {n} + g FROM generate_series(1, 50) g) TO STDOUT"
        await cur.copy_expert(sql, file)
        assert file.getvalue() == "".join(f"{n + g}\n" for g in range(1, 51))


async def error(pool, n):
    async with pool.cursor() as cur:
        with pytest.raises(psycopg2.errors.InvalidTextRepresentation, match=f"no number {n}"):
            await cur.execute("SELECT %s::int", (f"no number {n}",))


async def cancelled(pool, n):
    asking = asyncio.ensure_future(pool.execute("SELECT %s::int FROM pg_sleep(9)", (n,)))
    await asyncio.sleep(0.001)
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking


ASKED = [
    *(text, prepared, psycopg2s_road, pipeline, shared, stream, named, executemany),
    *(copy_in, copy_records, copy_out, error, cancelled),
]


# --- what is kept ---------------------------------------------------------------------------------


class Ledger:
    """What must be on the server at the end: that was committed; and what must not be."""

    def __init__(self):
        self.committed = set()
        self.undone = set()

    async def transaction(self, pool, n):
        self.undone.add(n)
        async with pool.acquire() as conn, conn.cursor() as cur:
            await cur.execute("BEGIN")
            await cur.execute("INSERT INTO kept VALUES (%s, %s)", (n, f"of {n}"))
            assert await fetch(conn, "SELECT t FROM kept WHERE id = %s", (n,)) == [(f"of {n}",)]
            if n % 3 == 0:
                await cur.execute("ROLLBACK")
                return
            self.undone.remove(n)  # from now on nobody knows, until COMMIT has come back
            await cur.execute("COMMIT")
            self.committed.add(n)

    def check(self, side):
        with side.cursor() as cursor:
            cursor.execute("SELECT id, t FROM kept")
            kept = dict(cursor.fetchall())
        assert self.committed <= set(kept) and not self.undone & set(kept)
        assert all(value == f"of {n}" for n, value in kept.items())


def kill(side, name, instants):
    """End one of the sessions, if there is one."""
    sql = "SELECT pid FROM pg_stat_activity WHERE application_name = %s ORDER BY pid"
    with side.cursor() as cursor:
        cursor.execute(sql, (name,))
        pids = [pid for (pid,) in cursor.fetchall()]
    return bool(pids) and scalar(side, "SELECT pg_terminate_backend(%s)", (instants.choice(pids),))


@LOOPS
async def test_soak(ours, dsn, side):
    instants = random.Random(15)
    ledger, counts = Ledger(), collections.Counter()
    kinds = [*ASKED, ledger.transaction, ledger.transaction]

    async def work(pool, name):
        while (number := next(ids_of_run)) <= OPERATIONS:
            ask = instants.choice(kinds)
            try:
                await asyncio.wait_for(ask(pool, next(ids)), 40)
                counts["answered"] += 1
            except (psycopg2.OperationalError, psycopg2.InterfaceError):
                counts["told of a kill"] += 1
            if number % (OPERATIONS // KILLS) == 1:
                counts["killed"] += kill(side, name, instants)

    ids_of_run = itertools.count(1)
    async with nothing_left(ours, dsn, side, maxsize=6, timeout=30) as pool:
        name = (await fetch_one(pool, "SHOW application_name"))[0]
        await asyncio.gather(*(work(pool, name) for _ in range(TASKS)))
        await asyncio.gather(*(text(pool, next(ids)) for _ in range(6)))  # finds who was killed
        assert 0 < counts["killed"] <= KILLS  # some had gone of themselves
        assert counts["answered"] + counts["told of a kill"] == OPERATIONS
        assert counts["told of a kill"] <= TASKS * counts["killed"]
        if LONG:
            print(dict(counts), len(ledger.committed), "committed")
    ledger.check(side)


async def fetch_one(pool, sql):
    cur = await pool.execute(sql)
    return await cur.fetchone()
