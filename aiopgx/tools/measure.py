"""Throughput and client CPU of the same queries on several drivers, side by side.

Every driver holds its own connections, and a task on each repeats one query for a short turn. Turns
of the drivers take each other's place in rotating order for some rounds, so that what else the
machine does meets all of them; medians are reported, and ratios are taken within a round first.
Client CPU is the user and system time of this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import gc
import importlib
import itertools
import json
import os
import platform
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, ClassVar, TypeVar

import psycopg2
import psycopg2.extensions
import psycopg2.extras

from .terminal import table

T = TypeVar("T")

CONNECTIONS = 10
KEYS = 10_000
SCHEMA = "aiopgx_bench"
FIXTURE = f"""
    DROP SCHEMA IF EXISTS {SCHEMA} CASCADE;
    CREATE SCHEMA {SCHEMA};
    SET search_path = {SCHEMA};
    CREATE TABLE account AS
        SELECT g AS id, 'account ' || g AS name, g * 10 AS balance, g % 7 = 0 AS closed
        FROM generate_series(1, {KEYS}) g;
    ALTER TABLE account ADD PRIMARY KEY (id);
    CREATE TABLE bytes AS
        SELECT g AS id, convert_to(repeat(chr(97 + g % 26), 1024), 'UTF8') AS data
        FROM generate_series(1, 100) g;
    CREATE TABLE arrays AS
        SELECT g AS id, ARRAY(SELECT g * i FROM generate_series(1, 100) i) AS data
        FROM generate_series(1, 100) g;
    CREATE TABLE mixed AS
        SELECT g AS id, g * 5000000000 AS big, 'text of row ' || g AS label,
               (g * 1.25)::numeric(10, 2) AS price, g * 0.1::float8 AS weight, g % 2 = 0 AS active,
               date '2024-01-01' + g AS day, timestamptz '2024-01-01 12:00+00' + g * interval '61 s'
               AS created, g * interval '1 hour 5 s' AS spent, md5(g::text)::uuid AS token,
               json_build_object('id', g, 'tags', json_build_array('a', 'b')) AS extra,
               decode(md5(g::text), 'hex') AS digest
        FROM generate_series(1, 100) g;
    ANALYZE account, bytes, arrays, mixed;
    RESET search_path;
"""
PG_TYPE = """
    SELECT oid, typname, typnamespace, typowner, typlen, typbyval,
           typcategory, typisdefined, typdelim, typrelid, typelem, typarray
    FROM pg_type
"""
BY_KEY = f"SELECT id, name, balance, closed FROM {SCHEMA}.account WHERE id = %s"


@dataclass(frozen=True)
class Query:
    """One thing to measure.

    `row` is the shape of the rows: "tuple" (asyncpg: Record), "DictRow" or "RealDictRow" (asyncpg
    and psycopg: dict). With `keyed` the only parameter is a key of the account table; with
    `checkout` each execution takes a connection from the pool and gives it back.
    """

    name: str
    title: str
    sql: str
    row: str = "tuple"
    keyed: bool = False
    checkout: bool = False


QUERIES = {
    query.name: query
    for query in (
        Query("one", "SELECT 1+1", "SELECT 1+1"),
        Query("key", "one row by primary key", BY_KEY, keyed=True),
        Query("checkout", "the same with pool checkout", BY_KEY, keyed=True, checkout=True),
        Query("ints", "1000 ints", "SELECT generate_series(1, 1000)"),
        Query("pg_type", "pg_type x 12, tuples", PG_TYPE),
        Query("dict", "pg_type x 12, DictCursor", PG_TYPE, row="DictRow"),
        Query("realdict", "pg_type x 12, RealDictCursor", PG_TYPE, row="RealDictRow"),
        Query("bytea", "100 x 1 kB bytea", f"SELECT data FROM {SCHEMA}.bytes"),
        Query("arrays", "100 x int[100]", f"SELECT data FROM {SCHEMA}.arrays"),
        Query("mixed", "mixed types, 100 x 12", f"SELECT * FROM {SCHEMA}.mixed"),
    )
}


class Pooled:
    """What has cursors: a pool of connections, a cursor kept for each task."""

    pool: Any
    connection: Callable[[], Any]  # `async with` takes one from the pool, and gives it back

    def cursor(self, conn: Any, query: Query) -> Any:
        """Return a cursor whose rows are in the query's shape."""
        raise NotImplementedError

    async def fetch(self, query: Query, key: int) -> list[Any]:
        """Return the rows of one execution."""
        async with self.connection() as conn, self.cursor(conn, query) as cur:
            await cur.execute(query.sql, (key,) if query.keyed else None)
            rows: list[Any] = await cur.fetchall()
            return rows

    async def repeat(self, query: Query, keys: Iterable[int]) -> None:
        """Execute once for each key."""
        if query.checkout:
            for key in keys:
                async with self.connection() as conn, conn.cursor() as cur:
                    await cur.execute(query.sql, (key,))
                    await cur.fetchall()
            return
        async with self.connection() as conn, self.cursor(conn, query) as cur:
            if query.keyed:
                for key in keys:
                    await cur.execute(query.sql, (key,))
                    await cur.fetchall()
            else:
                for _ in keys:
                    await cur.execute(query.sql)
                    await cur.fetchall()


class Aiopg(Pooled):
    """aiopg, and what has its API."""

    FACTORIES: ClassVar[dict[str, Any]] = {
        "tuple": None,
        "DictRow": psycopg2.extras.DictCursor,
        "RealDictRow": psycopg2.extras.RealDictCursor,
    }

    def __init__(self, name: str) -> None:
        self.name = name
        self.module: Any = importlib.import_module(name)
        self.version: str = self.module.__version__

    async def open(self, dsn: str, connections: int) -> None:
        self.pool: Any = await self.module.create_pool(
            dsn, minsize=connections, maxsize=connections
        )
        self.connection: Callable[[], Any] = self.pool.acquire

    async def close(self) -> None:
        self.pool.terminate()
        await self.pool.wait_closed()

    def cursor(self, conn: Any, query: Query) -> Any:
        return conn.cursor(cursor_factory=self.FACTORIES[query.row])


class Asyncpg:
    """asyncpg: a pool of connections and `fetch`, which keeps statements prepared by itself."""

    name = "asyncpg"

    def __init__(self) -> None:
        self.module: Any = importlib.import_module("asyncpg")
        self.version: str = self.module.__version__

    async def open(self, dsn: str, connections: int) -> None:
        parameters = psycopg2.extensions.parse_dsn(dsn)
        parameters["database"] = parameters.pop("dbname", None)
        parameters["ssl"] = parameters.pop("sslmode", None)
        names = ("host", "port", "user", "password", "database", "ssl")
        self.pool: Any = await self.module.create_pool(
            **{name: parameters[name] for name in names if parameters.get(name)},
            min_size=connections,
            max_size=connections,
            init=self._parse_json,
        )

    @staticmethod
    async def _parse_json(conn: Any) -> None:
        # The others parse JSON by default: the same work for all.
        await conn.set_type_codec(
            "json", encoder=json.dumps, decoder=json.loads, schema="pg_catalog"
        )

    async def close(self) -> None:
        self.pool.terminate()

    async def fetch(self, query: Query, key: int) -> list[Any]:
        """Return the rows of one execution."""
        rows = await self.pool.fetch(self._sql(query), *((key,) if query.keyed else ()))
        return rows if query.row == "tuple" else [dict(row) for row in rows]

    async def repeat(self, query: Query, keys: Iterable[int]) -> None:
        """Execute once for each key."""
        sql = self._sql(query)
        if query.checkout:
            for key in keys:
                async with self.pool.acquire() as conn:
                    await conn.fetch(sql, key)
            return
        async with self.pool.acquire() as conn:
            if query.keyed:
                for key in keys:
                    await conn.fetch(sql, key)
            elif query.row == "tuple":
                for _ in keys:
                    await conn.fetch(sql)
            else:
                for _ in keys:
                    [dict(row) for row in await conn.fetch(sql)]

    @staticmethod
    def _sql(query: Query) -> str:
        return query.sql.replace("%s", "$1")


class Psycopg(Pooled):
    """psycopg 3 and its pool: `execute`, which keeps statements prepared by itself."""

    name = "psycopg"

    def __init__(self) -> None:
        self.module: Any = importlib.import_module("psycopg")
        self.pools: Any = importlib.import_module("psycopg_pool")
        self.dict_row: Any = importlib.import_module("psycopg.rows").dict_row
        self.version: str = self.module.__version__

    async def open(self, dsn: str, connections: int) -> None:
        self.pool: Any = self.pools.AsyncConnectionPool(
            dsn,
            min_size=connections,
            max_size=connections,
            kwargs={"autocommit": True},
            open=False,
        )
        await self.pool.open(wait=True)
        self.connection: Callable[[], Any] = self.pool.connection

    async def close(self) -> None:
        await self.pool.close()

    def cursor(self, conn: Any, query: Query) -> Any:
        return conn.cursor(row_factory=None if query.row == "tuple" else self.dict_row)


Driver = Aiopg | Asyncpg | Psycopg

DRIVERS: dict[str, Callable[[], Driver]] = {
    "aiopg": lambda: Aiopg("aiopg"),
    "aiopgx": lambda: Aiopg("aiopgx"),
    "asyncpg": Asyncpg,
    "psycopg": Psycopg,
}
SUBJECT = "aiopgx"


@dataclass(frozen=True)
class Turn:
    """What one driver did in one turn: client CPU per query in microseconds, queries a second."""

    cpu: float
    rate: float


Turns = dict[str, list[Turn]]


def load(names: Iterable[str]) -> tuple[list[Driver], list[str]]:
    """Return the drivers that can be imported, and the names of those that can't."""
    drivers, missing = [], []
    for name in names:
        try:
            drivers.append(DRIVERS[name]())
        except ImportError:
            missing.append(name)
    return drivers, missing


@contextlib.contextmanager
def fixture(dsn: str) -> Iterator[None]:
    """Make the tables of the queries in a schema of their own, and drop it in the end."""
    with contextlib.closing(psycopg2.connect(dsn)) as conn:
        conn.autocommit = True
        with conn.cursor() as cur:
            cur.execute(FIXTURE)
            try:
                yield
            finally:
                cur.execute(f"DROP SCHEMA {SCHEMA} CASCADE")


def new_event_loop(name: str) -> asyncio.AbstractEventLoop:
    """Return a new event loop, "asyncio" or "uvloop". Raises ImportError without uvloop."""
    module = importlib.import_module(name)
    loop: asyncio.AbstractEventLoop = module.new_event_loop()
    return loop


def run(loop_name: str, main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a new event loop, which is closed then."""
    try:
        loop = new_event_loop(loop_name)
    except ImportError:
        main.close()
        raise
    with contextlib.closing(loop):
        return loop.run_until_complete(main)


async def turn(driver: Driver, query: Query, keys: Iterator[int], tasks: int) -> Turn:
    """Execute a query once for each key, in concurrent tasks that share the keys."""
    tickets = itertools.count()
    shared = (key for key, _ in zip(keys, tickets, strict=False))
    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(driver.repeat(query, shared) for _ in range(tasks)))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    count = next(tickets)
    return Turn(cpu * 1e6 / count, count / wall)


def keys_for(seconds: float) -> Iterator[int]:
    """Yield keys of the account table, round and round, until the time is over; at least one."""
    deadline = time.perf_counter() + seconds
    for key in itertools.cycle(range(1, KEYS + 1)):
        yield key
        if time.perf_counter() >= deadline:
            return


async def measure(
    dsn: str,
    drivers: Sequence[Driver],
    queries: Sequence[Query],
    *,
    rounds: int = 5,
    seconds: float = 0.3,
    connections: int = CONNECTIONS,
    on_turn: Callable[[str], None] = lambda title: None,
) -> dict[Query, Turns]:
    """Return the turns of each driver for each query, on the running loop.

    A turn takes `seconds`; one more turn of each driver goes first and is not counted, as
    statements are prepared and caches filled there. `on_turn` is called after each turn.
    """
    results: dict[Query, Turns] = {}
    async with contextlib.AsyncExitStack() as stack:
        for driver in drivers:
            await driver.open(dsn, connections)
            stack.push_async_callback(driver.close)
        for query in queries:
            turns = results[query] = {driver.name: [] for driver in drivers}
            for number in range(rounds + 1):
                shift = number % len(drivers)
                for driver in (*drivers[shift:], *drivers[:shift]):
                    gc.collect()
                    result = await turn(driver, query, keys_for(seconds), connections)
                    if number > 0:
                        turns[driver.name].append(result)
                    on_turn(query.title)
    return results


def turns_in(drivers: Sequence[Driver], queries: Sequence[Query], rounds: int) -> int:
    """Return how often `measure` will call `on_turn`."""
    return len(drivers) * len(queries) * (rounds + 1)


def ratio(turns: Turns, other: str, what: Callable[[Turn], float]) -> float:
    """Return aiopgx / other: the median of the rounds' ratios."""
    pairs = zip(turns[SUBJECT], turns[other], strict=True)
    return median(what(ours) / what(theirs) for ours, theirs in pairs)


def report(results: dict[Query, Turns]) -> str:
    """Return the results as a table: a query a line, and below it what the columns mean."""
    names = list(next(iter(results.values())))
    others = [name for name in names if name != SUBJECT] if SUBJECT in names else []
    header = ["query"]
    header += [f"{name}\n{unit}" for name in names for unit in ("us", "q/s")]
    header += [f"/{other}\n{what}" for other in others for what in ("us", "q/s")]
    rows = []
    for query, turns in results.items():
        row = [query.title]
        for name in names:
            row.append(f"{median(t.cpu for t in turns[name]):.1f}")
            row.append(f"{median(t.rate for t in turns[name]):,.0f}")
        for other in others:
            row.append(f"{ratio(turns, other, lambda t: t.cpu):.2f}")
            row.append(f"{ratio(turns, other, lambda t: t.rate):.2f}")
        rows.append(row)
    legend = "us: client CPU per query, in microseconds (less is better). q/s: queries a second."
    if others:
        legend += f"\n/x: {SUBJECT} divided by x, the median over the rounds."
    return f"{table(header, rows)}\n{legend}"


def document(results: dict[str, dict[Query, Turns]], drivers: Sequence[Driver]) -> dict[str, Any]:
    """Return the turns of each event loop as what JSON can hold; the chart is drawn from it."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "drivers": {driver.name: driver.version for driver in drivers},
        "loops": {
            loop: [
                {
                    "query": query.name,
                    "title": query.title,
                    "drivers": {
                        name: {
                            "cpu_us": [round(turn.cpu, 2) for turn in each],
                            "rate": [round(turn.rate, 1) for turn in each],
                        }
                        for name, each in turns.items()
                    },
                }
                for query, turns in of_queries.items()
            ]
            for loop, of_queries in results.items()
        },
    }


def load_average() -> str:
    """Return how busy the machine is, in words."""
    if not hasattr(os, "getloadavg"):
        return "load unknown"
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


def environment(dsn: str, drivers: Sequence[Driver]) -> str:
    """Return one line on what was measured where."""
    with contextlib.closing(psycopg2.connect(dsn)) as conn:
        major, minor = divmod(conn.server_version, 10_000)
    versions = ", ".join(f"{driver.name} {driver.version}" for driver in drivers)
    psycopg: str = psycopg2.__version__  # type: ignore[attr-defined, unused-ignore]
    return (
        f"{versions}; psycopg2 {psycopg.split()[0]}, PostgreSQL {major}.{minor}, "
        f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, "
        f"{load_average()}"
    )
