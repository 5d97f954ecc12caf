"""What the drills of bench/drill.py consist of: queries that are judged, and a look around."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Awaitable
from typing import Any

import psycopg2
from pools import LIBRARIES, SIZE, VARIANTS, Pool
from psycopg2.extensions import make_dsn

from aiopgx.tools import server

SLEEP = "SELECT {}::int FROM pg_sleep({})"
OURS = "FROM pg_stat_activity WHERE application_name = 'drill'"
EXECUTED = "state = 'active'"
HUNG = 10  # seconds


class Harness:
    """A library against a server, through a proxy; counts what is lost."""

    pool: Pool

    def __init__(
        self, running: server.Server, proxy: Any, library: str, short: bool, patience: float
    ) -> None:
        self.server = running
        self.proxy = proxy
        self.open = {**LIBRARIES, **VARIANTS}[library]
        self.short = short
        self.patience = patience
        self.tries = 0
        self.lost: Counter[str] = Counter()
        self.connects = 0
        self.chance = random.Random(15)
        self.numbers = itertools.count()

    async def opened(self, port: int, **parameters: str) -> Pool:
        """A pool of the library at that port of 127.0.0.1."""
        return await self.open(
            make_dsn(
                self.server.dsn,
                host="127.0.0.1",
                port=port,
                application_name="drill",
                **parameters,
            )
        )

    def times(self, count: int) -> int:
        return max(3, count // 10) if self.short else count

    async def one(self, seconds: float, given_up: float | None = None) -> None:
        """A query that gives its number; its task is cancelled after a time."""
        number = next(self.numbers)
        task = asyncio.ensure_future(self.pool.ask(SLEEP.format(number, seconds)))
        if given_up is not None:
            asyncio.get_running_loop().call_later(given_up, task.cancel)
        await self.judge(task, [number], given_up is not None)

    async def all_right(self, pool: Pool | None = None, deserved: bool = False) -> None:
        """As many as there are connections ask at once, and get what is theirs."""
        ask = (pool or self.pool).ask
        numbers = [next(self.numbers) for _ in range(SIZE)]
        await asyncio.gather(
            *(
                self.judge(ask(SLEEP.format(number, 0.005)), [number], deserved)
                for number in numbers
            )
        )

    async def judge(
        self, asked: Awaitable[Any], wanted: list[int] | None, deserved: bool, timeout: float = HUNG
    ) -> None:
        """Count an outcome. wanted: None for what can't be known. deserved: may be an error.

        timeout: told half a second after it, at the latest; if it is not that which hangs.
        """
        self.tries += 1
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(asked)
        start = loop.time()
        await asyncio.wait([task], timeout=HUNG)
        if not task.done():
            self.lost["hung"] += 1
            task.cancel()
            return
        self.lost["late"] += loop.time() - start > timeout + self.patience / 2
        if task.cancelled() or task.exception() is not None:
            self.lost["errors"] += not deserved
        else:
            self.lost["wrong"] += wanted is not None and task.result() != wanted

    async def in_a_second(self, pool: Pool | None = None, seconds: float = 0) -> None:
        """A query with a timeout of 1 s, which it may need."""
        number = next(self.numbers)
        asked = asyncio.wait_for((pool or self.pool).ask(SLEEP.format(number, seconds)), 1)
        await self.judge(asked, [number], True, 1)

    async def places(self, count: int = SIZE) -> None:
        """So many can have a connection at the same time."""
        here = 0
        full = asyncio.Event()

        async def held() -> None:
            nonlocal here
            here += 1
            if here == count:
                full.set()
            await full.wait()

        tasks = [asyncio.ensure_future(self.pool.ask("SELECT 1", held)) for _ in range(count)]
        if count:
            await asyncio.wait([asyncio.ensure_future(full.wait())], timeout=HUNG / 2)
        failed = sum(task.done() for task in tasks) if here < count else 0
        self.lost["errors"] += failed
        self.lost["places"] += count - here - failed
        full.set()
        if here < count:
            for task in tasks:
                task.cancel()
        await asyncio.wait(tasks, timeout=HUNG / 2) if tasks else None
        for task in tasks:
            if task.done() and not task.cancelled():
                task.exception()

    def command(self, sql: str, dsn: str | None = None) -> Any:
        conn = psycopg2.connect(dsn or self.server.dsn)
        conn.autocommit = True
        try:
            with conn.cursor() as cursor:
                cursor.execute(sql)
                row = cursor.fetchone()
                return row and row[0]
        finally:
            conn.close()

    async def beyond(self, count: int, condition: str = "true", dsn: str | None = None) -> int:
        """How many more of our sessions than `count` the server has, a second later."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        while True:
            await asyncio.sleep(min(self.patience, 0.1))
            more = int(self.command(f"SELECT count(*) {OURS} AND {condition}", dsn)) - count
            if more <= 0 or loop.time() > start + self.patience:
                return max(0, more)

    async def look_around(self) -> None:
        """Count what the server still has, a second later, and after the end of the pool."""
        more = await self.beyond(SIZE)
        self.lost["queries"] += await self.beyond(0, EXECUTED)
        await self.judge(self.pool.end(), None, False)
        self.lost["sessions"] += max(more, await self.beyond(0))
