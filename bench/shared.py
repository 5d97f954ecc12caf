"""pool.execute() beside asyncpg's pool.fetchval(): python bench/shared.py

200 tasks execute `SELECT %s::int + 1` on a pool of 10, each as soon as it has its last result:
statements per second and client CPU (of this process) per statement, medians of rounds in which
all take turns, and the share of asyncpg's. Beside it, aiopgx's own acquire idiom, and
pool.execute() on a pool of 2. Then how the time of a statement grows with the number of tasks.

  --loop asyncio|uvloop   the event loop (default: both, one after the other)
  --rounds N              rounds (default: 9)
  --growth                from 10 to 10,000 tasks as well

AIOPGX_DSN names a server to use. Without it a throw-away one is started.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import platform
import statistics
import time

import asyncpg

import aiopgx
from aiopgx.tools import server

STATEMENTS = 6000


async def shared(pool, number):
    cur = await pool.execute("SELECT %s::int + 1", (number,))
    ((value,),) = await cur.fetchall()
    return value


async def acquired(pool, number):
    async with pool.acquire() as conn, conn.cursor() as cur:
        await cur.execute("SELECT %s::int + 1", (number,))
        ((value,),) = await cur.fetchall()
    return value


async def fetched(pool, number):
    return await pool.fetchval("SELECT $1::int + 1", number)


async def turn(work, pool, tasks, statements=STATEMENTS):
    """(client CPU in microseconds, statements per second, all times in milliseconds)."""
    times = []
    left = iter(range(statements))

    async def go():
        for number in left:
            start = time.perf_counter()
            assert await work(pool, number) == number + 1
            times.append((time.perf_counter() - start) * 1e3)

    gc.collect()
    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*(go() for _ in range(tasks)))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return cpu / statements * 1e6, statements / wall, times


async def measure(dsn, rounds, growth):
    async with (
        aiopgx.create_pool(dsn, minsize=10, maxsize=10) as ours,
        aiopgx.create_pool(dsn, minsize=2, maxsize=2) as small,
        asyncpg.create_pool(dsn, min_size=10, max_size=10) as theirs,
    ):
        works = {
            "asyncpg, pool of 10": (fetched, theirs),
            "aiopgx, acquire()": (acquired, ours),
            "aiopgx, execute()": (shared, ours),
            "aiopgx, execute(), pool of 2": (shared, small),
        }
        turns = {name: [] for name in works}
        for number in range(rounds + 1):
            for name, (work, pool) in works.items():
                seen = await turn(work, pool, 200)
                if number:  # after warming up
                    turns[name].append(seen)
        show(turns)
        if growth:
            await show_growth({name: works[name] for name in list(works)[::2]})


def show(turns):
    base = turns["asyncpg, pool of 10"]
    for name, seen in turns.items():
        line = f"{name:30}"
        for what, unit in ((1, "/s"), (0, " us of CPU")):
            shares = [ours[what] / theirs[what] for ours, theirs in zip(seen, base, strict=True)]
            value = statistics.median(turn[what] for turn in seen)
            line += f"{value:9.1f}{unit} ({statistics.median(shares):.2f})"
        print(line, flush=True)


async def show_growth(works):
    for tasks in (10, 100, 1000, 10_000):
        line = f"{tasks:6} tasks, ms:"
        for name, (work, pool) in works.items():
            times = (await turn(work, pool, tasks, max(STATEMENTS, 2 * tasks)))[2]
            cuts = statistics.quantiles(times, n=100)
            line += f"   {name}: p50 {cuts[49]:.1f}, p99 {cuts[98]:.1f}"
        print(line)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--loop", choices=["asyncio", "uvloop"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--growth", action="store_true")
    options = parser.parse_args()
    print(f"asyncpg {asyncpg.__version__}, Python {platform.python_version()}")
    with server.start("AIOPGX_DSN") as running:
        for loop in [options.loop] if options.loop else ["asyncio", "uvloop"]:
            print(f"\n{loop}")
            work = measure(running.dsn, options.rounds, options.growth)
            if loop == "uvloop":
                import uvloop

                uvloop.run(work)
            else:
                asyncio.run(work)


if __name__ == "__main__":
    main()
