"""executemany() beside asyncpg's: python bench/executemany.py

Each call inserts 1000 rows of seven columns, on 10 connections at once. Milliseconds per call and
client CPU (of this process), medians of rounds in which the drivers take turns, and aiopgx's share
of asyncpg, as the median of the rounds'.

  --loop asyncio|uvloop   the event loop (default: both, one after the other)
  --rounds N              rounds (default: 15)

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

CONNECTIONS = 10
ROWS = [
    (i, 2 * i, 3 * i, f"a string of some length {i}", 1.0 + i, 5 * i, "another string")
    for i in range(1000)
]
TABLE = """
    CREATE UNLOGGED TABLE IF NOT EXISTS aiopgx_bench_many
    (a int, b int, c int, d text, e float8, f int, g text)
"""


async def many_of_aiopgx(conn):
    async with conn.cursor() as cursor:
        await cursor.executemany(
            "INSERT INTO aiopgx_bench_many (a, b, c, d, e, f, g)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s)",
            ROWS,
        )


async def many_of_asyncpg(conn):
    await conn.executemany(
        "INSERT INTO aiopgx_bench_many (a, b, c, d, e, f, g) VALUES ($1, $2, $3, $4, $5, $6, $7)",
        ROWS,
    )


async def turn(work, connections):
    """(CPU, time) of a call, in milliseconds."""
    gc.collect()
    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*(work(conn) for conn in connections))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return cpu / len(connections) * 1e3, wall / len(connections) * 1e3


async def measure(dsn, rounds):
    ours = [await aiopgx.connect(dsn) for _ in range(CONNECTIONS)]
    theirs = [await asyncpg.connect(dsn) for _ in range(CONNECTIONS)]
    await theirs[0].execute(TABLE)
    drivers = {"aiopgx": (many_of_aiopgx, ours), "asyncpg": (many_of_asyncpg, theirs)}
    turns = {name: [] for name in drivers}
    for number in range(rounds + 2):
        for name, driver in drivers.items():
            seen = await turn(*driver)
            await theirs[0].execute("TRUNCATE aiopgx_bench_many")
            if number >= 2:  # after warming up
                turns[name].append(seen)
    await theirs[0].execute("DROP TABLE aiopgx_bench_many")
    for conn in ours:
        conn.close()
    for conn in theirs:
        await conn.close()
    return turns


def report(loop, turns):
    cells, shares = [], []
    for i in (0, 1):
        cells += [f"{statistics.median(t[i] for t in turns[name]):12.2f}" for name in turns]
        rounds = zip(*turns.values(), strict=True)
        shares.append(statistics.median(ours[i] / theirs[i] for ours, theirs in rounds))
    print(f"{loop:10}", *cells, f"{shares[0]:13.2f} {1 / shares[1]:14.2f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--loop", choices=["asyncio", "uvloop"])
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    print(f"asyncpg {asyncpg.__version__}, Python {platform.python_version()}")
    heads = [f"{kind} {driver}" for kind in ("CPU", "time") for driver in ("aiopgx", "asyncpg")]
    print(" " * 10, *(f"{head:>12}" for head in heads), "   CPU, share  calls/s, share")
    with server.start("AIOPGX_DSN") as running:
        for loop in [options.loop] if options.loop else ["asyncio", "uvloop"]:
            work = measure(running.dsn, options.rounds)
            if loop == "uvloop":
                import uvloop

                report(loop, uvloop.run(work))
            else:
                report(loop, asyncio.run(work))


if __name__ == "__main__":
    main()
