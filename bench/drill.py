"""Who loses what, where something goes wrong: `python bench/drill.py [--rounds 5] [library ...]`.

The libraries: aiopgx, aiopg, asyncpg, psycopg (with psycopg_pool); those that are not installed are
left out. Each drill runs against a throw-away server of its own making, on asyncio, in a process of
its own that has 60 seconds. One line for each says how many tries there were, and what was lost:

  hung       who never got an answer nor an error
  wrong      results of somebody else, or parts of results
  sessions   that the server has and the pool does not, a second later
  queries    that the server still executes for nobody, a second later
  errors     of those who had done nothing to deserve them (told, not lost)

The drills: `storm`: a third of many tasks are cancelled at some moment; `wave`: all who have a
connection are cancelled while others wait for one; `cut`: a link ends within a result; `killed`:
idle connections are killed in the pool; `restart`: the server restarts under 50 clients.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2.extensions import make_dsn

from aiopgx.tools import server

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from proxy import Proxy

SIZE = 10
SLEEP = "SELECT {}::int FROM pg_sleep({})"
ROWS = "SELECT n FROM generate_series(1, 700) n"
SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'drill'"

Ask = Callable[[str], Awaitable[list[int]]]


# --- the libraries: a pool of SIZE connections, and a query that gives the first column -----------


@contextlib.asynccontextmanager
async def with_aiopg(dsn: str, package: str = "aiopg") -> AsyncIterator[Ask]:
    impl = __import__(package)

    async def ask(sql: str) -> list[int]:
        async with pool.acquire() as conn, conn.cursor() as cur:
            await cur.execute(sql)
            return [row[0] for row in await cur.fetchall()]

    pool = await impl.create_pool(dsn, minsize=SIZE, maxsize=SIZE, timeout=20)
    yield ask
    pool.terminate()
    await pool.wait_closed()


@contextlib.asynccontextmanager
async def with_asyncpg(dsn: str) -> AsyncIterator[Ask]:
    import asyncpg

    async def ask(sql: str) -> list[int]:
        async with pool.acquire() as conn:
            return [row[0] for row in await conn.fetch(sql)]

    parts = psycopg2.extensions.parse_dsn(dsn)
    pool = await asyncpg.create_pool(
        host=parts["host"],
        port=int(parts["port"]),
        user=parts["user"],
        database=parts["dbname"],
        server_settings={"application_name": "drill"},
        min_size=SIZE,
        max_size=SIZE,
    )
    yield ask
    pool.terminate()


@contextlib.asynccontextmanager
async def with_psycopg(dsn: str) -> AsyncIterator[Ask]:
    from psycopg_pool import AsyncConnectionPool

    async def ask(sql: str) -> list[int]:
        async with pool.connection() as conn:
            cur = await conn.execute(sql)
            return [row[0] for row in await cur.fetchall()]

    pool = AsyncConnectionPool(dsn, min_size=SIZE, max_size=SIZE, open=False, timeout=20)
    await pool.open(wait=True)
    yield ask
    await pool.close()


LIBRARIES: dict[str, Callable[[str], contextlib.AbstractAsyncContextManager[Ask]]] = {
    "aiopgx": lambda dsn: with_aiopg(dsn, "aiopgx"),
    "aiopg": with_aiopg,
    "asyncpg": with_asyncpg,
    "psycopg": with_psycopg,
}


# --- the drills -----------------------------------------------------------------------------------


class Drill:
    """A library against a server, through a proxy; counts what is lost."""

    def __init__(self, running: server.Server, proxy: Proxy, ask: Ask) -> None:
        self.server = running
        self.proxy = proxy
        self.ask = ask
        self.tries = 0
        self.lost: Counter[str] = Counter()
        self.chance = random.Random(15)

    async def one(self, number: int, seconds: float, given_up: float | None = None) -> None:
        """A query that gives its number; its task is cancelled after a time."""
        self.tries += 1
        task = asyncio.ensure_future(self.ask(SLEEP.format(number, seconds)))
        if given_up is not None:
            asyncio.get_running_loop().call_later(given_up, task.cancel)
        await self.judge(task, [number], given_up is not None)

    async def judge(self, task: asyncio.Future[Any], wanted: list[int], deserved: bool) -> None:
        """Count the outcome of a task. deserved: an error was to be expected."""
        await asyncio.wait([task], timeout=10)
        if not task.done():
            self.lost["hung"] += 1
        elif task.cancelled() or task.exception() is not None:
            self.lost["errors"] += not deserved
        else:
            self.lost["wrong"] += task.result() != wanted

    async def storm(self) -> None:
        """10 connections, 500 tasks."""
        await asyncio.gather(
            *(
                self.one(n, 0.002, self.chance.random() * 0.2 if n % 3 == 0 else None)
                for n in range(500)
            )
        )

    async def wave(self) -> None:
        """All holders are cancelled, 50 others wait."""
        holders = [self.one(n, 20, 0.2) for n in range(SIZE)]
        await asyncio.gather(*holders, self.later())

    async def later(self) -> None:
        await asyncio.sleep(0.1)
        await asyncio.gather(*(self.one(n, 0) for n in range(50)))

    async def cut(self) -> None:
        """The link ends within a result, at 30 places, by FIN and by RST."""
        whole = list(range(1, 701))
        for number in range(30):
            self.tries += 1
            self.proxy.cut_after(1 + number * 97, reset=number % 2 == 1)
            await self.judge(asyncio.ensure_future(self.ask(ROWS)), whole, True)
            self.proxy.cut = None
            with contextlib.suppress(Exception):  # until all is well again
                await asyncio.wait_for(self.ask("SELECT 1"), 5)

    async def killed(self) -> None:
        """All idle connections of the pool are ended by the server, then it is used."""
        self.command(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'drill'"
        )
        await asyncio.sleep(0.2)
        await asyncio.gather(*(self.one(n, 0) for n in range(SIZE)))

    async def restart(self) -> None:
        """50 clients go on and on; what they get later than 2 s after the restart must be right."""
        stopping = asyncio.Event()
        late = False

        async def client(number: int) -> None:
            while not stopping.is_set():
                self.tries += 1
                task = asyncio.ensure_future(self.ask(SLEEP.format(number, 0.002)))
                await self.judge(task, [number], not late)
                await asyncio.sleep(0.02)

        clients = [asyncio.ensure_future(client(number)) for number in range(50)]
        await asyncio.sleep(0.3)
        await asyncio.to_thread(self.server.restart)
        await asyncio.sleep(2)
        late = True
        await asyncio.sleep(1)
        stopping.set()
        await asyncio.gather(*clients)

    def command(self, sql: str) -> Any:
        conn = psycopg2.connect(self.server.dsn)
        try:
            with conn.cursor() as cursor:
                cursor.execute(sql)
                return cursor.fetchone()
        finally:
            conn.close()

    async def look_around(self) -> None:
        """Count what the server still has, a second later."""
        await asyncio.sleep(1)
        self.lost["sessions"] += max(0, self.command(SESSIONS)[0] - SIZE)
        self.lost["queries"] += self.command(SESSIONS + " AND state = 'active'")[0]


DRILLS = ["storm", "wave", "cut", "killed", "restart"]


async def run(library: str, drill: str, rounds: int) -> str:
    with server.Cluster(server.find_binaries()) as running:
        proxy = Proxy(running.port)
        dsn = make_dsn(running.dsn, host="127.0.0.1", port=proxy.port, application_name="drill")
        try:
            async with LIBRARIES[library](dsn) as ask:
                asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
                drilled = Drill(running, proxy, ask)
                for _ in range(rounds):
                    await getattr(drilled, drill)()
                await drilled.look_around()
        finally:
            proxy.stop()
    lost = ", ".join(f"{count} {name}" for name, count in drilled.lost.items() if count)
    return f"{drilled.tries} tries: {lost or 'nothing lost'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("libraries", nargs="*", default=list(LIBRARIES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--drill", choices=DRILLS, help="this one only, in this process")
    options = parser.parse_args()
    if options.drill:
        print(asyncio.run(run(options.libraries[0], options.drill, options.rounds)), flush=True)
        return
    for drill in DRILLS:
        for library in options.libraries:
            print(
                f"{drill:8} {library:8} {in_a_process(library, drill, options.rounds)}", flush=True
            )


def in_a_process(library: str, drill: str, rounds: int) -> str:
    command = [sys.executable, "-W", "ignore", __file__, library, "--drill", drill]
    try:
        done = subprocess.run(
            [*command, "--rounds", str(rounds)], capture_output=True, text=True, timeout=60
        )
    except subprocess.TimeoutExpired:
        return "did not end within 60 s"
    lines = done.stdout.splitlines() or done.stderr.splitlines() or [""]
    return lines[-1] if not done.returncode else f"ended with {done.returncode}: {lines[-1]}"


if __name__ == "__main__":
    main()
