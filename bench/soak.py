"""Many queries in one process, watching its memory: `python bench/soak.py [--queries 1000000]`.

Ten workers take connections out of a pool and run a mix: a parameter, rows of many types, dict
rows, namedtuples, errors, values that only psycopg2 can quote or read, COPY where it is refused,
notices, cursors that are handed over to psycopg2, new connections, cancelled queries. On uvloop if
it is installed. The server is that of AIOPGX_DSN, or a throw-away one.

Each tenth of the way it prints the queries so far, the seconds, the resident memory in MB
and the blocks that Python has allocated, after a collection. The first fifth fills caches and
free lists. Exit status 1 if after it memory grew by more than 4 MB, or by more than 700 blocks:
in a million queries, one block lost by each cancelled query is more than that.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import resource
import sys
import time
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.extras

import aiopgx
from aiopgx.tools import server

WORKERS = 10
WARM = 2  # tenths
MAX_MB = 4.0
MAX_BLOCKS = 700
RARE = 1000  # one query in so many is cancelled, and one dropped with its connection

TYPES = """
    SELECT n, n::int8 * 5000000000, n::float8 / 3, n::numeric / 7, n % 2 = 0, 'text ' || n,
        'é' || n, md5(n::text)::uuid, ('x' || n)::bytea, json_build_object('n', n),
        ARRAY[n, NULL, 7], ARRAY['plain', 'a "quoted" one', NULL], date '2024-01-31' + n,
        now(), localtimestamp, time '12:34:56.789', interval '1 day 02:03:04' * n,
        point(n, n), '10.0.0.1'::inet, NULL
    FROM generate_series(1, 10) n
"""


async def parameter(cursor: Any, n: int) -> None:
    await cursor.execute("SELECT %s + 1, %s", (n, f"it's {n}"))
    assert tuple(await cursor.fetchone()) == (n + 1, f"it's {n}")


async def names(cursor: Any, n: int) -> None:
    await cursor.execute(
        "SELECT %(n)s AS n, %(none)s AS none, %(x)s AS x", {"n": n, "none": None, "x": n / 3}
    )
    assert [row[0] async for row in cursor] == [n]


async def non_ascii(cursor: Any, n: int) -> None:
    await cursor.execute("SELECT %s, %s", (f"naïve \\ {n}", [n, n]))
    assert (await cursor.fetchmany(5))[0][1] == [n, n]
    assert cursor.mogrify("%s", ("ü",)) == "'ü'".encode()


async def types(cursor: Any, n: int) -> None:
    await cursor.execute(TYPES)
    assert len(cursor.description) == 20
    assert len(await cursor.fetchall()) == 10 == cursor.rowcount


async def error(cursor: Any, n: int) -> None:
    with contextlib.suppress(psycopg2.DataError):
        await cursor.execute("SELECT 1 / (%s - %s)", (n, n))
        raise AssertionError("no error")


async def error_shown(cursor: Any, n: int) -> None:
    try:
        await cursor.execute("SELECT nothing FROM nowhere")
    except psycopg2.ProgrammingError as exc:
        assert exc.pgcode == "42P01" and "nowhere" in exc.diag.message_primary and exc.cursor


async def bad_value(cursor: Any, n: int) -> None:
    await cursor.execute("SELECT 1, '-infinity'::date, '0044-03-15 BC'::date")
    with contextlib.suppress(ValueError):
        await cursor.fetchall()
        raise AssertionError("no error")


async def bad_parameters(cursor: Any, n: int) -> None:
    with contextlib.suppress(psycopg2.ProgrammingError, TypeError):
        await cursor.execute("SELECT %s", (object(),))
        raise AssertionError("no error")


async def notice(cursor: Any, n: int) -> None:
    await cursor.execute("DO $$ BEGIN RAISE NOTICE 'noticed'; END $$; NOTIFY soak")
    cursor.connection.notices.clear()


async def handed_over(cursor: Any, n: int) -> None:
    await cursor.execute("SELECT generate_series(1, 3), 'x'")
    await cursor.fetchone()
    assert len(cursor.raw.fetchall()) == 2


async def own_caster(cursor: Any, n: int) -> None:
    upper = psycopg2.extensions.new_type((25,), "upper", lambda v, c: v and v.upper())
    impl = cursor._psycopg
    psycopg2.extensions.register_type(upper, impl)
    await cursor.execute("SELECT 'a'::text, NULL::text, ARRAY['a', NULL]")
    assert await cursor.fetchall() == [("A", None, ["a", None])]


async def transaction(cursor: Any, n: int) -> None:
    async with cursor.begin():
        await cursor.execute("CREATE TEMP TABLE soak (n int) ON COMMIT DROP")
        await cursor.execute("INSERT INTO soak VALUES (%s)", (n,))
        assert cursor.statusmessage == "INSERT 0 1"


async def copy_refused(cursor: Any, n: int) -> None:
    with contextlib.suppress(psycopg2.ProgrammingError):
        await cursor.execute("COPY (SELECT generate_series(1, 100)) TO STDOUT")
        raise AssertionError("no error")


async def cancelled(pool: Any) -> None:
    with contextlib.suppress(asyncio.TimeoutError), contextlib.suppress(psycopg2.Error):
        async with pool.acquire() as conn, conn.cursor() as cursor:
            await cursor.execute("SELECT pg_sleep(10)", timeout=0.01)


async def dropped(pool: Any) -> None:
    """A connection of its own, closed while the answer to a query is on its way."""
    conn = await aiopgx.connect(pool._dsn)
    cursor = await conn.cursor()
    query = "SELECT repeat('x', 1000) FROM generate_series(1, 9)"
    task = asyncio.ensure_future(cursor.execute(query))
    await asyncio.sleep(0)
    conn.close()
    with contextlib.suppress(psycopg2.Error):
        await task


# (cursor class, what to do): the usual ones more often
MIX = [
    (None, parameter), (None, parameter), (None, names), (None, types), (None, non_ascii),
    (psycopg2.extras.DictCursor, parameter), (psycopg2.extras.DictCursor, types),
    (psycopg2.extras.RealDictCursor, handed_over), (None, handed_over), (None, error),
    (None, parameter), (None, names), (None, error_shown), (None, bad_value),
    (None, bad_parameters), (None, notice), (None, own_caster), (None, copy_refused),
    (psycopg2.extras.NamedTupleCursor, names), (None, None),
    (None, parameter), (None, transaction), (None, parameter),
]  # fmt: skip


async def work(pool: Any, turns: Any) -> None:
    for n in turns:
        factory, do = MIX[n % len(MIX)]
        if n % RARE == 0:
            await cancelled(pool)
        elif n % RARE == RARE // 2:
            await dropped(pool)
        elif do is not None:
            async with pool.acquire() as conn, conn.cursor(cursor_factory=factory) as cursor:
                await do(cursor, n)
        else:
            async with pool.acquire() as conn:
                (await conn.cursor()).close()


def memory() -> float:
    """The resident memory in MB, where there is no /proc the largest so far."""
    with contextlib.suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


async def soak(dsn: str, queries: int) -> bool:
    """Run it; True if nothing grew."""
    start = time.monotonic()
    figures = []
    print(f"{'queries':>10} {'s':>7} {'RSS MB':>8} {'blocks':>9}")
    async with aiopgx.create_pool(dsn, minsize=WORKERS, maxsize=WORKERS) as pool:
        for tenth in range(10):
            turns = iter(range(tenth * queries // 10, (tenth + 1) * queries // 10))
            await asyncio.gather(*[work(pool, turns) for _ in range(WORKERS)])
            gc.collect()
            figures.append((memory(), sys.getallocatedblocks()))
            print(f"{(tenth + 1) * queries // 10:10} {time.monotonic() - start:7.1f}"
                  f" {figures[-1][0]:8.1f} {figures[-1][1]:9}", flush=True)  # fmt: skip
    (warm_mb, warm_blocks), (mb, blocks) = figures[WARM - 1], figures[-1]
    print(f"grew by {mb - warm_mb:+.1f} MB, {blocks - warm_blocks:+} blocks since"
          f" {WARM}0 % of the way")  # fmt: skip
    return mb - warm_mb <= MAX_MB and blocks - warm_blocks <= MAX_BLOCKS


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--queries", type=int, default=1_000_000)
    queries = parser.parse_args().queries
    with contextlib.suppress(ImportError):
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    with server.start("AIOPGX_DSN") as srv:
        return 0 if asyncio.run(soak(srv.dsn, queries)) else 1


if __name__ == "__main__":
    sys.exit(main())
