"""aiopgx.sa beside aiopg.sa: `python bench/sa.py [--loop uvloop] [--rounds 9] [--seconds 0.3]`.

Needs SQLAlchemy 1.4, the last that aiopg.sa works on; with a later one aiopgx.sa is measured alone.
Turns and figures are those of `python -m aiopgx bench`, and so is the server: that of AIOPGX_DSN,
or a throw-away one. Every task has a connection of its own, unless the query says otherwise.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

import sqlalchemy
from sqlalchemy import Boolean, Column, Integer, MetaData, Table, Text, bindparam, select

from aiopgx.tools import measure, server

ACCOUNT = Table(
    "account",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("name", Text),
    Column("balance", Integer),
    Column("closed", Boolean),
    schema=measure.SCHEMA,
)
BY_KEY = select(ACCOUNT).where(ACCOUNT.c.id == bindparam("key"))
THOUSAND = select(ACCOUNT).where(ACCOUNT.c.id <= 1000)


@dataclass(frozen=True)
class Query:
    """One thing to measure: `run` is called with a connection and a key."""

    title: str
    run: Callable[[Any, int], Awaitable[Any]]
    checkout: bool = False


async def kept(conn: Any, key: int) -> Any:
    return await (await conn.execute(BY_KEY, {"key": key})).first()


async def built(conn: Any, key: int) -> Any:
    statement = select(ACCOUNT).where(ACCOUNT.c.id == key)
    return await (await conn.execute(statement)).first()


async def thousand(conn: Any, key: int) -> Any:
    return await (await conn.execute(THOUSAND)).fetchall()


async def thousand_read(conn: Any, key: int) -> int:
    rows = await (await conn.execute(THOUSAND)).fetchall()
    return sum(row.balance for row in rows if not row.closed)


async def text(conn: Any, key: int) -> Any:
    return await (await conn.execute(measure.BY_KEY, key)).first()


QUERIES = (
    Query("by primary key, statement kept", kept),
    Query("by primary key, statement built each time", built),
    Query("the latter with checkout", built, checkout=True),
    Query("by primary key, SQL text", text),
    Query("1000 rows", thousand),
    Query("1000 rows, two columns read", thousand_read),
)


class Driver:
    """An engine of aiopg.sa or aiopgx.sa."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.module = importlib.import_module(f"{name}.sa")
        self.version: str = importlib.import_module(name).__version__

    async def open(self, dsn: str, connections: int) -> None:
        self.engine = await self.module.create_engine(dsn, minsize=connections, maxsize=connections)

    async def close(self) -> None:
        self.engine.terminate()
        await self.engine.wait_closed()

    async def repeat(self, query: Query, keys: Iterable[int]) -> None:
        """Execute once for each key."""
        if query.checkout:
            for key in keys:
                async with self.engine.acquire() as conn:
                    await query.run(conn, key)
        else:
            async with self.engine.acquire() as conn:
                for key in keys:
                    await query.run(conn, key)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.3)
    options = parser.parse_args()
    names = ("aiopg", "aiopgx") if sqlalchemy.__version__.startswith("1.4") else ("aiopgx",)
    drivers: Any = [Driver(name) for name in names]
    queries: Any = QUERIES
    with server.start("AIOPGX_DSN") as srv, measure.fixture(srv.dsn):
        print(f"{options.loop}, SQLAlchemy {sqlalchemy.__version__}")
        print(measure.environment(srv.dsn, drivers), flush=True)
        results = measure.run(
            options.loop,
            measure.measure(
                srv.dsn, drivers, queries, rounds=options.rounds, seconds=options.seconds
            ),
        )
        print(measure.report(results))


if __name__ == "__main__":
    main()
