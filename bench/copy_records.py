"""COPY of records beside asyncpg's: `python bench/copy_records.py [--loop uvloop]`.

Rounds take turns on one connection each, and the median of each is shown: records a second, and
CPU time of this process a record. The table is truncated in between, which is not measured. The
server is that of AIOPGX_DSN, or a throw-away one.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import statistics
import time
import uuid
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import asyncpg

import aiopgx
from aiopgx.tools import server

TABLE = (
    "CREATE TEMP TABLE copied (id int, name text, price numeric(12, 2), ratio float8,"
    " made timestamptz, key uuid, active bool)"
)


def records(count: int) -> list[tuple[Any, ...]]:
    made = datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.timezone.utc)
    return [
        (
            number,
            f"the name of number {number}",
            Decimal(number) / 100,
            number / 7,
            made + datetime.timedelta(seconds=number),
            uuid.UUID(int=number << 64),
            number % 2 == 0,
        )
        for number in range(count)
    ]


async def measure(
    copy: Callable[[], Awaitable[Any]], clean: Callable[[], Awaitable[Any]]
) -> tuple[float, float]:
    """Seconds on the clock and of CPU time."""
    await clean()
    began, cpu = time.perf_counter(), time.process_time()
    await copy()
    return time.perf_counter() - began, time.process_time() - cpu


async def main(dsn: str, count: int, rounds: int) -> None:
    rows = records(count)
    theirs = await asyncpg.connect(dsn)
    ours = await aiopgx.connect(dsn)
    cursor = await ours.cursor()
    await theirs.execute(TABLE)
    await cursor.execute(TABLE)
    sides = {
        "asyncpg": (
            lambda: theirs.copy_records_to_table("copied", records=rows),
            lambda: theirs.execute("TRUNCATE copied"),
        ),
        "aiopgx": (
            lambda: ours.copy_records_to_table("copied", records=rows),
            lambda: cursor.execute("TRUNCATE copied"),
        ),
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for turn in range(rounds + 2):
        for name, side in sides.items():
            seconds = await measure(*side)
            if turn >= 2:  # the first ones are to get warm
                taken[name].append(seconds)
    figures = {
        name: [
            count / statistics.median(s for s, _ in turns),
            statistics.median(c for _, c in turns),
        ]
        for name, turns in taken.items()
    }
    for name, (speed, cpu) in figures.items():
        print(f"{name:<10}{speed:>12,.0f} records/s{1e6 * cpu / count:>8.2f} us of CPU a record")
    shares = [own / other for own, other in zip(figures["aiopgx"], figures["asyncpg"], strict=True)]
    print(f"{'share':<10}{shares[0]:>12.2f} {'':<9}{shares[1]:>8.2f}")
    ours.close()
    await theirs.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=31)
    arguments = parser.parse_args()
    with server.start("AIOPGX_DSN") as running:
        work = main(running.dsn, arguments.records, arguments.rounds)
        if arguments.loop == "uvloop":
            import uvloop

            uvloop.run(work)
        else:
            asyncio.run(work)
