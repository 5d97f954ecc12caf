"""The SQLAlchemy dialect beside postgresql+asyncpg and postgresql+psycopg: python bench/dialect.py

Client CPU (of this process) and time per call in microseconds, medians of rounds in which the
drivers take turns, and aiopgx's share of the best of the others, as the median of the rounds'.

  --loop asyncio|uvloop   the event loop (default: asyncio)
  --rounds N              rounds (default: 61)

AIOPGX_DSN names a server to use. Without it a throw-away one is started.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime
import decimal
import gc
import platform
import statistics
import time

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from aiopgx.tools import server

OURS, *OTHERS = DRIVERS = ["aiopgx", "asyncpg", "psycopg"]
ROWS = 1000

items = sa.Table(
    "aiopgx_bench_items",
    sa.MetaData(),
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(40)),
    sa.Column("price", sa.Numeric(10, 2)),
    sa.Column("made", sa.DateTime),
    sa.Column("sold", sa.Boolean),
)
BY_KEY = sa.select(items).where(items.c.id == sa.bindparam("key"))


class Base(orm.DeclarativeBase):
    pass


class Item(Base):
    __table__ = items


async def by_key(engine, connection, n):
    for i in range(n):
        (await connection.execute(BY_KEY, {"key": i % ROWS + 1})).one()


async def by_key_with_checkout(engine, connection, n):
    for i in range(n):
        async with engine.connect() as own:
            (await own.execute(BY_KEY, {"key": i % ROWS + 1})).one()


async def rows(engine, connection, n):
    for _ in range(n):
        assert len((await connection.execute(sa.select(items))).all()) == ROWS


async def objects(engine, connection, n):
    for _ in range(n):
        async with AsyncSession(engine) as session:
            assert len((await session.scalars(sa.select(Item))).all()) == ROWS


# name, what to do, calls in a turn
WORK = [
    ("select by primary key", by_key, 60),
    ("the same with checkout, BEGIN, ROLLBACK", by_key_with_checkout, 40),
    ("select of 1000 rows", rows, 10),
    ("1000 objects of the ORM", objects, 4),
]


async def fill(engine):
    start = datetime.datetime(2024, 1, 1)
    values = [
        {
            "id": i,
            "name": f"item {i}",
            "price": decimal.Decimal(i) / 4,
            "made": start + datetime.timedelta(minutes=i),
            "sold": i % 3 == 0,
        }
        for i in range(1, ROWS + 1)
    ]
    async with engine.begin() as connection:
        await connection.run_sync(items.metadata.drop_all)
        await connection.run_sync(items.metadata.create_all)
        await connection.execute(items.insert(), values)


async def turn(work, engine, connection, calls):
    """(CPU, time) of a call, in microseconds. Short: the machine's pace changes all the time."""
    gc.collect()
    cpu, wall = time.process_time(), time.perf_counter()
    await work(engine, connection, calls)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return cpu / calls * 1e6, wall / calls * 1e6


async def measure(dsn, rounds):
    async with contextlib.AsyncExitStack() as stack:
        places = {}
        for driver in DRIVERS:
            engine = create_async_engine(sa.make_url(dsn).set(drivername=f"postgresql+{driver}"))
            stack.push_async_callback(engine.dispose)
            if driver == OURS:
                await fill(engine)
            places[driver] = engine, await stack.enter_async_context(engine.connect())
        for name, work, calls in WORK:
            turns = {driver: [] for driver in DRIVERS}
            for place in places.values():
                await turn(work, *place, calls)
            for _ in range(rounds):
                for driver, place in places.items():
                    turns[driver].append(await turn(work, *place, calls))
            report(name, turns)


def report(name, turns):
    cells = []
    for i in (0, 1):
        cells += [f"{statistics.median(t[i] for t in turns[driver]):12.1f}" for driver in DRIVERS]
    ratios = []
    for i in (0, 1):
        per_round = zip(*(turns[driver] for driver in DRIVERS), strict=True)
        ratios.append(
            statistics.median(ours[i] / min(t[i] for t in others) for ours, *others in per_round)
        )
    print(f"{name:40}", *cells, f"{ratios[0]:13.2f} {1 / ratios[1]:14.2f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    parser.add_argument("--rounds", type=int, default=61)
    options = parser.parse_args()
    print(f"SQLAlchemy {sa.__version__}, Python {platform.python_version()}, {options.loop}")
    heads = [f"{kind} {driver}" for kind in ("CPU", "time") for driver in DRIVERS]
    print(" " * 40, *(f"{head:>12}" for head in heads), "   CPU, share  calls/s, share")
    with server.start("AIOPGX_DSN") as running:
        work = measure(running.dsn, options.rounds)
        if options.loop == "uvloop":
            import uvloop

            uvloop.run(work)
        else:
            asyncio.run(work)


if __name__ == "__main__":
    main()
