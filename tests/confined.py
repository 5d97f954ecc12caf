"""A program with a memory limit, and results that are larger: run by test_drill_huge.py.

    python tests/confined.py DSN MEGABYTES LIMIT LOOP

The limit, in MB, is what the process may take beyond what it has before. Prints a line for each
road: its name, the exception, and whether the connection could still be used or was closed.
"""

import contextlib
import gc
import io
import resource
import sys

import psycopg2
import psycopg2.extras
from support import new_loop, shut_down

import aiopgx

ROW = 1000  # bytes of a text
MB = 1_000_000


def rows(megabytes):
    return f"SELECT n, repeat('x', {ROW}) AS t FROM generate_series(1, {megabytes * MB // ROW}) n"


def value(megabytes):
    return f"SELECT repeat('x', {min(megabytes, 900) * MB})"  # PostgreSQL's own limit is near


async def fetched(conn, sql, **kwargs):
    async with conn.cursor(**kwargs) as cur:
        await cur.execute(sql)
        return len(await cur.fetchall())


async def text(conn, pool, size):
    conn.prepare_threshold = None
    return await fetched(conn, rows(size))


async def one_value(conn, pool, size):
    return await fetched(conn, value(size))


async def prepared(conn, pool, size):
    conn.prepare_threshold = 0
    return await fetched(conn, rows(size))


async def pipeline(conn, pool, size):
    async with conn.cursor() as cur, conn.pipeline():
        await cur.execute(rows(size))
        return len(await cur.fetchall())


async def dicts(conn, pool, size):
    return await fetched(conn, rows(size), cursor_factory=psycopg2.extras.RealDictCursor)


def numbers(size):
    """Within the limit for libpq, but not as Python's objects in addition."""
    return f"SELECT n AS a, n AS b FROM generate_series(1, {size * MB // 120}) n"


async def objects(conn, pool, size):
    return await fetched(conn, numbers(size))


async def object_dicts(conn, pool, size):
    return await fetched(conn, numbers(size), cursor_factory=psycopg2.extras.RealDictCursor)


async def object_records(conn, pool, size):
    return await fetched(conn, numbers(size), cursor_factory=psycopg2.extras.NamedTupleCursor)


async def psycopg2s(conn, pool, size):
    async with conn.cursor() as cur:
        assert cur.raw
        await cur.execute(rows(size))
        return len(await cur.fetchall())


async def shared(conn, pool, size):
    return len(await (await pool.execute(rows(size))).fetchall())


async def stream(conn, pool, size):
    async with conn.cursor() as cur:
        return len([row async for row in cur.stream(rows(size))])


async def copy_out(conn, pool, size):
    async with conn.cursor() as cur:
        await cur.copy_expert(f"COPY ({rows(size)}) TO STDOUT", io.BytesIO())


async def named(conn, pool, size):
    async with conn.cursor() as cur, cur.begin(), conn.cursor("huge") as pages:
        await pages.execute(rows(size))
        return len(await pages.fetchall())


ROADS = [
    *(text, one_value, prepared, pipeline, dicts, objects, object_dicts, object_records, psycopg2s),
    *(shared, stream, copy_out, named),
]


@contextlib.contextmanager
def limited(megabytes):
    """What is allocated in the block may take so much and no more."""
    with open("/proc/self/statm") as file:
        taken = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (taken + megabytes * MB, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


async def outcome(road, pool, size):
    async with pool.acquire() as conn:
        try:
            await road(conn, pool, size)
        except (MemoryError, psycopg2.Error) as error:
            told = f"{type(error).__name__} {error}".strip().splitlines()[0]
        else:
            told = "no error"
        gc.collect()
        if conn.closed:
            return f"{told}, closed"
        assert await fetched(conn, "SELECT 1") == 1
        return f"{told}, usable"


async def main(dsn, size, limit):
    async with aiopgx.create_pool(dsn, minsize=1, maxsize=2) as pool:
        for road in ROADS:
            async with pool.acquire() as conn:
                await road(conn, pool, 1)
            with limited(limit):
                print(f"{road.__name__}: {await outcome(road, pool, size)}", flush=True)
                async with pool.acquire() as conn:  # what the pool gives is right
                    assert await fetched(conn, "SELECT generate_series(1, 1000)") == 1000
                assert await (await pool.execute("SELECT 1")).fetchall() == [(1,)]
                assert pool.size == pool.freesize


if __name__ == "__main__":
    dsn, size, limit, kind = sys.argv[1:]
    loop = new_loop(kind)
    loop.run_until_complete(main(dsn, int(size), int(limit)))
    shut_down(loop)
