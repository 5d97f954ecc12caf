"""The pools that bench/drill.py compares, each used as its documentation says.

They hold `SIZE` connections. A library is a function that opens one for a DSN.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from psycopg2.extensions import parse_dsn

SIZE = 10
PATIENCE = 20  # seconds that who asks waits for a connection, at most

Held = Callable[[], Awaitable[object]]


class Ask(Protocol):
    """A query on a connection of a pool, that gives the first column of its rows.

    held: awaited first, as soon as there is a connection.
    """

    def __call__(self, sql: str, held: Held | None = None) -> Coroutine[Any, Any, list[int]]: ...


@dataclass(frozen=True)
class Pool:
    """ask: see there. end: close the pool, whoever uses it."""

    ask: Ask
    end: Callable[[], Coroutine[Any, Any, None]]


async def open_aiopg(dsn: str, package: str = "aiopg") -> Pool:
    impl = __import__(package)
    pool = await impl.create_pool(dsn, minsize=SIZE, maxsize=SIZE, timeout=PATIENCE)

    async def ask(sql: str, held: Held | None = None) -> list[int]:
        async with pool.acquire() as conn, conn.cursor() as cur:
            if held is not None:
                await held()
            await cur.execute(sql)
            return [row[0] for row in await cur.fetchall()]

    async def end() -> None:
        pool.terminate()
        await pool.wait_closed()

    return Pool(ask, end)


async def open_aiopgx(dsn: str) -> Pool:
    return await open_aiopg(dsn, "aiopgx")


async def open_asyncpg(dsn: str) -> Pool:
    import asyncpg

    parts = parse_dsn(dsn)
    pool = await asyncpg.create_pool(
        host=parts["host"],
        port=int(parts["port"]),
        user=parts["user"],
        database=parts["dbname"],
        ssl=parts.get("sslmode", "prefer"),
        server_settings={"application_name": parts["application_name"]},
        min_size=SIZE,
        max_size=SIZE,
    )

    async def ask(sql: str, held: Held | None = None) -> list[int]:
        async with pool.acquire() as conn:
            if held is not None:
                await held()
            return [row[0] for row in await conn.fetch(sql)]

    async def end() -> None:
        pool.terminate()

    return Pool(ask, end)


async def open_psycopg(dsn: str, **kwargs: Any) -> Pool:
    from psycopg_pool import AsyncConnectionPool

    pool = AsyncConnectionPool(
        dsn, min_size=SIZE, max_size=SIZE, open=False, timeout=PATIENCE, **kwargs
    )
    await pool.open(wait=True)

    async def ask(sql: str, held: Held | None = None) -> list[int]:
        async with pool.connection() as conn:
            if held is not None:
                await held()
            cur = await conn.execute(sql)
            return [row[0] for row in await cur.fetchall()]

    return Pool(ask, pool.close)


async def open_psycopg_checked(dsn: str) -> Pool:
    from psycopg_pool import AsyncConnectionPool

    return await open_psycopg(dsn, check=AsyncConnectionPool.check_connection)


Open = Callable[[str], Coroutine[Any, Any, Pool]]

LIBRARIES: dict[str, Open] = {
    "aiopgx": open_aiopgx,
    "aiopg": open_aiopg,
    "asyncpg": open_asyncpg,
    "psycopg": open_psycopg,
}
VARIANTS: dict[str, Open] = {"psycopg-check": open_psycopg_checked}
