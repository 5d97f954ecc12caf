"""A large result, row by row, beside asyncpg: `python bench/stream.py [--rows 500000]`.

aiopgx streams it outside of a transaction (`Cursor.stream()`); asyncpg iterates over a cursor in a
transaction, with as many rows a batch. Each turn is a process of its own, the drivers in turn. It
prints, per driver, the median of the client's CPU time a row in microseconds (user and system time
of the process) and of the rows a second, and how much the resident memory has grown at most, in
MB. Rows have seven columns: int4, int8, text, float8, bool, numeric, timestamptz.

The server is that of AIOPGX_DSN, or a throw-away one. Exit status 1 if aiopgx needed more CPU time
a row than asyncpg, or more than 32 MB.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from aiopgx.tools import server

DRIVERS = ("aiopgx", "asyncpg")
MAX_MB = 32.0
LOOK = 10_000  # rows between looks at the memory

ROWS = """
    SELECT a * 1000 + b, a * 5000000000 + b, 'text of row ' || b, b * 0.5::float8, b % 2 = 0,
        (b * 1.25)::numeric(10, 2), timestamptz '2024-01-01 12:00+00' + b * interval '61 s'
    FROM generate_series(1, {}) a, generate_series(0, 999) b
"""


def resident() -> float:
    """The resident memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


async def count(rows: Any) -> tuple[int, float]:
    """The number of rows, and the highest resident memory seen."""
    number, highest = 0, resident()
    async for _ in rows:
        number += 1
        if number % LOOK == 0:
            highest = max(highest, resident())
    return number, highest


async def turn(driver: str, dsn: str, rows: int, size: int) -> dict[str, float]:
    """Read the rows once; what that has cost."""
    sql = ROWS.format(rows // 1000)
    if driver == "aiopgx":
        import aiopgx

        conn: Any = await aiopgx.connect(dsn, timeout=None)
        cursor = await conn.cursor()
        await cursor.execute(ROWS.format(1))
        reading: Any = count(cursor.stream(sql, size=size))
    else:
        import asyncpg

        conn = await asyncpg.connect(dsn)
        await conn.fetch(ROWS.format(1))

        async def read() -> tuple[int, float]:
            async with conn.transaction():
                return await count(conn.cursor(sql, prefetch=size))

        reading = read()
    before, start, cpu = resident(), time.perf_counter(), time.process_time()
    number, highest = await reading
    cpu, seconds = time.process_time() - cpu, time.perf_counter() - start
    assert number == rows, number
    await conn.close()
    return {"cpu": cpu / rows * 1e6, "rate": rows / seconds, "growth": highest - before}


def run_turn(driver: str, dsn: str, rows: int, size: int, loop: str) -> None:
    if loop == "uvloop":
        import uvloop

        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    else:
        runner = asyncio.Runner()
    with runner:
        print(json.dumps(runner.run(turn(driver, dsn, rows, size))))


def main() -> int:
    parser = argparse.ArgumentParser(description="A large result beside asyncpg.")
    parser.add_argument("--rows", type=int, default=500_000, help="a multiple of 1000")
    parser.add_argument("--size", type=int, default=100, help="rows of a batch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="uvloop")
    parser.add_argument("--turn", nargs=2, help=argparse.SUPPRESS)  # driver and DSN of one turn
    args = parser.parse_args()
    if args.turn:
        run_turn(*args.turn, args.rows, args.size, args.loop)
        return 0
    turns: dict[str, list[dict[str, float]]] = {driver: [] for driver in DRIVERS}
    with server.start("AIOPGX_DSN") as running:
        for number in range(args.rounds):
            for driver in DRIVERS[:: 1 if number % 2 else -1]:
                command = [
                    *(sys.executable, __file__, "--turn", driver, running.dsn),
                    *("--rows", str(args.rows), "--size", str(args.size), "--loop", args.loop),
                ]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                turns[driver].append(json.loads(done.stdout))
    cpu = {}
    for driver, results in turns.items():
        cpu[driver] = median(r["cpu"] for r in results)
        rate, growth = median(r["rate"] for r in results), max(r["growth"] for r in results)
        print(f"{driver:<8}{cpu[driver]:7.3f} us a row{rate:12,.0f} rows a second{growth:7.1f} MB")
    ours = max(r["growth"] for r in turns["aiopgx"])
    return int(cpu["aiopgx"] > cpu["asyncpg"] or ours > MAX_MB)


if __name__ == "__main__":
    sys.exit(main())
