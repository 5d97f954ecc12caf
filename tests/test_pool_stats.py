"""The pool's statistics: the same things done to psycopg_pool's pool and to ours count the same."""

import asyncio
import math

import psycopg2
import pytest
from psycopg_pool import AsyncConnectionPool, PoolTimeout
from psycopg_pool import TooManyRequests as TheirTooManyRequests
from support import until

import aiopgx

# Counters that must be equal; the times are compared with what the test waited.
COUNTED = [
    *("pool_min", "pool_max", "pool_size", "pool_available", "requests_waiting"),
    *("requests_num", "requests_queued", "requests_errors", "returns_bad"),
    *("connections_num", "connections_errors", "connections_lost"),
]
TIMES = ["usage_ms", "requests_wait_ms", "connections_ms"]


class Theirs:
    """psycopg_pool's pool with our names."""

    TooManyRequests = TheirTooManyRequests
    Timeout = PoolTimeout

    def __init__(self, dsn, minsize, maxsize, **kwargs):
        self.pool = AsyncConnectionPool(
            dsn,
            min_size=minsize,
            max_size=maxsize,
            open=False,
            kwargs={"autocommit": True},
            **kwargs,
        )

    async def open(self):
        await self.pool.open(wait=True)

    async def close(self):
        await self.pool.close()

    def acquire(self, **kwargs):
        return self.pool.connection(**kwargs)

    async def close_one(self, conn):
        await conn.close()


class Ours:
    TooManyRequests = aiopgx.TooManyRequests
    Timeout = asyncio.TimeoutError

    def __init__(self, dsn, minsize, maxsize, **kwargs):
        self.arguments = (dsn, dict(minsize=minsize, maxsize=maxsize, **kwargs))

    async def open(self):
        dsn, kwargs = self.arguments
        self.pool = await aiopgx.create_pool(dsn, reconnect_timeout=5, **kwargs)

    async def close(self):
        self.pool.close()
        await self.pool.wait_closed()

    def acquire(self, **kwargs):
        return self.pool.acquire(**kwargs)

    async def close_one(self, conn):
        conn.close()


async def plain(pool):
    for _ in range(3):
        async with pool.acquire() as conn:
            await conn.execute("SELECT 1")


async def queued(pool):
    async def use():
        async with pool.acquire():
            await asyncio.sleep(0.02)

    await asyncio.gather(*(use() for _ in range(4)))


async def waiting(pool):
    async with pool.acquire(), pool.acquire():
        task = asyncio.ensure_future(hold(pool))
        await asyncio.sleep(0.03)
        stats = pool.pool.get_stats()
        assert (stats["requests_waiting"], stats["pool_available"]) == (1, 0)
    await task


async def hold(pool):
    async with pool.acquire():
        pass


async def timed_out(pool):
    async with pool.acquire(), pool.acquire():
        with pytest.raises(pool.Timeout):
            async with pool.acquire(timeout=0.05):
                pass


async def too_many(pool):
    async with pool.acquire(), pool.acquire():
        tasks = [asyncio.ensure_future(hold(pool)) for _ in range(2)]
        await asyncio.sleep(0.01)
        with pytest.raises(pool.TooManyRequests):
            await hold(pool)
    await asyncio.gather(*tasks)


async def returned_closed(pool):
    async with pool.acquire() as conn:
        await pool.close_one(conn)
    await until(lambda: pool.pool.get_stats()["pool_available"] == 2)


async def run(kind, dsn, scenario, **kwargs):
    pool = kind(dsn, 2, 2, **kwargs)
    await pool.open()
    try:
        await scenario(pool)
        await asyncio.sleep(0)
        stats = pool.pool.get_stats()
        assert pool.pool.pop_stats() == stats
        after = pool.pool.get_stats()
        assert all(not after.get(name) for name in [*COUNTED[5:], *TIMES])
        return stats
    finally:
        await pool.close()


@pytest.mark.parametrize(
    ("scenario", "kwargs"),
    [
        (plain, {}),
        (queued, {}),
        (waiting, {}),
        (timed_out, {}),
        (too_many, {"max_waiting": 2}),
        (returned_closed, {}),
    ],
)
async def test_counts_are_psycopg_pool_s(ours, dsn, scenario, kwargs):
    theirs = await run(Theirs, dsn, scenario, **kwargs)
    mine = await run(Ours, dsn, scenario, **kwargs)
    assert set(theirs) <= set(mine) == {*COUNTED, *TIMES}
    assert all(type(value) is int for value in mine.values())
    assert {n: mine[n] for n in COUNTED} == {n: theirs.get(n, 0) for n in COUNTED}
    for name in TIMES[:2]:
        assert math.isclose(mine[name], theirs.get(name, 0), abs_tol=1000), name
    assert mine["connections_ms"] > 0


async def test_a_failed_connect_is_counted(ours, dsn):
    made = await ours.create_pool(dsn, minsize=0, dbname="nowhere")
    for _ in range(2):
        with pytest.raises(psycopg2.OperationalError):
            await made.acquire()
    stats = made.get_stats()
    assert (stats["connections_num"], stats["connections_errors"]) == (2, 2)
    assert (stats["requests_num"], stats["requests_errors"]) == (2, 2)


async def test_usage_counts_what_is_in_use(ours, pool):
    made = await pool(minsize=1)
    async with made.acquire():
        await asyncio.sleep(0.2)
        assert made.pop_stats()["usage_ms"] >= 195  # clocks are not one
        assert made.get_stats()["usage_ms"] < 195
    assert made.get_stats()["pool_max"] == 10


async def test_a_connection_that_died_is_lost(ours, pool, side):
    made = await pool(minsize=1, maxsize=1)
    pid = await made._free[0].get_backend_pid()
    side.cursor().execute("SELECT pg_terminate_backend(%s)", (pid,))
    await until(lambda: made._free[0].closed)
    async with made.acquire():
        assert made.get_stats()["connections_lost"] == 1


async def test_no_limit_is_0(ours, pool):
    made = await pool(minsize=0, maxsize=0)
    assert made.get_stats()["pool_max"] == 0
