"""Pipelines on the native road: round trips, and what may be in flight."""

import asyncio
import time

import psycopg2
import pytest
from support import blocked, fetch, until

from aiopgx import _libpq


@pytest.fixture
def conn(ours, connect, trips):
    async def conn():
        conn = await connect(trips.dsn)
        async with conn.cursor() as cur:
            await cur.execute("CREATE TEMP TABLE piped (i int PRIMARY KEY)")
        trips()
        return conn

    return conn


INSERT = "INSERT INTO piped VALUES (%s)"


@pytest.mark.all_loops
async def test_a_hundred_queries_take_one_trip(conn, trips):
    conn = await conn()
    cursors = [await conn.cursor() for _ in range(100)]
    async with conn.pipeline():
        for n, cur in enumerate(cursors):
            await cur.execute("SELECT %s, %s", (n, "text"))
        for n, cur in enumerate(cursors):
            assert await cur.fetchone() == (n, "text")
    assert trips() <= 2


@pytest.mark.all_loops
async def test_of_several_tasks(conn, trips):
    conn = await conn()

    async def one(n):
        async with conn.cursor() as cur:
            await cur.execute("SELECT %s", (n,))
            return await cur.fetchone()

    async with conn.pipeline():
        assert await asyncio.gather(*map(one, range(100))) == [(n,) for n in range(100)]
    assert trips() <= 2


async def test_a_transaction(conn, trips):
    conn = await conn()
    cur = await conn.cursor()
    async with conn.pipeline(), cur.begin():
        for n in range(100):
            await cur.execute(INSERT, (n,))
    assert trips() <= 2
    assert await fetch(conn, "SELECT count(*) FROM piped") == [(100,)]


async def test_one_that_comes_later(conn, trips, side, gate):
    """It goes out behind one that is in flight."""
    conn = await conn()
    cur, other = await conn.cursor(), await conn.cursor()
    async with conn.pipeline():
        await cur.execute("SELECT count(*) FROM gate")
        await until(lambda: blocked(side, "FROM gate"))
        before = trips.proxy.taken
        await other.execute("SELECT 1")
        await until(lambda: trips.proxy.taken > before)
        gate.commit()
        assert await other.fetchone() == (1,)
    assert trips() == 1


async def test_many_statements(conn, trips):
    """More than may be in flight: some trips, and not one for each."""
    conn = await conn()
    cur = await conn.cursor()
    async with conn.pipeline():
        for n in range(3000):
            await cur.execute(INSERT, (n,))
    assert trips() < 300
    assert await fetch(conn, "SELECT count(*), sum(i) FROM piped") == [(3000, 4498500)]


async def test_without_pipeline_mode(conn, trips):
    conn = await conn()
    _libpq.limit(13)
    try:
        cursors = [await conn.cursor() for _ in range(10)]
        async with conn.pipeline():
            for n, cur in enumerate(cursors):
                await cur.execute("SELECT %s", (n,))
            for n, cur in enumerate(cursors):
                assert await cur.fetchone() == (n,)
        assert trips() == 10
    finally:
        _libpq.limit(99)


async def test_without_sync_that_does_not_flush(conn, trips):
    """libpq 14 to 16."""
    conn = await conn()
    _libpq.limit(16)
    try:
        cursors = [await conn.cursor() for _ in range(100)]
        async with conn.pipeline():
            for n, cur in enumerate(cursors):
                await cur.execute("SELECT %s", (n,))
        assert [await cur.fetchone() for cur in cursors] == [(n,) for n in range(100)]
        assert trips() < 50  # the first answer may be here before the last statement is sent
    finally:
        _libpq.limit(99)


async def test_large_in_both_directions(conn):
    """Neither side waits for the other to read: 30 MB there, and back."""
    conn = await conn()
    text = "x" * 500_000
    cursors = [await conn.cursor() for _ in range(60)]
    async with conn.pipeline():
        for n, cur in enumerate(cursors):
            await cur.execute("SELECT %s, %s", (n, text))
        for n, cur in enumerate(cursors):
            assert await cur.fetchone() == (n, text)


async def test_what_is_queued_is_bounded(conn):
    """execute() waits where very many are not over."""
    conn = await conn()
    cur = await conn.cursor()
    async with conn.pipeline():
        for n in range(512):
            await cur.execute("SELECT pg_sleep(0.0005), %s", (n,))
        start = time.monotonic()
        await cur.execute("SELECT 1")
        assert time.monotonic() - start > 0.05


async def test_a_timeout_is_that_of_its_statement(conn, gate):
    conn = await conn()
    cur, other = await conn.cursor(), await conn.cursor()
    async with conn.pipeline():
        await cur.execute("SELECT count(*) FROM gate", timeout=30)
        await other.execute("SELECT 1", timeout=0.1)
        with pytest.raises(asyncio.TimeoutError, match=r"within 0\.1 s"):
            await other.fetchone()
        assert conn.closed
        with pytest.raises(psycopg2.OperationalError, match="Connection closed"):
            await cur.fetchone()


@pytest.mark.needs("pgbouncer")
@pytest.mark.parametrize("mode", ["session", "transaction"])
async def test_behind_a_pooler(ours, connect, pooler, side, mode):
    conn = await connect(pooler(mode).dsn(side.info.dbname))
    cursors = [await conn.cursor() for _ in range(600)]
    async with conn.pipeline():
        for n, cur in enumerate(cursors):
            await cur.execute("SELECT %s", (n,))
        assert [await cur.fetchone() for cur in cursors] == [(n,) for n in range(600)]
        async with cursors[0].begin():
            for cur in cursors:
                await cur.execute("SELECT pg_backend_pid()")
    assert len({await cur.fetchone() for cur in cursors[1:]}) == 1


async def test_notices_and_notifications(conn):
    conn = await conn()
    cur = await conn.cursor()
    await cur.execute("LISTEN piped")
    async with conn.pipeline():
        for n in range(10):
            await cur.execute("SELECT pg_notify('piped', %s)", (str(n),))
    assert [(await conn.notifies.get()).payload for _ in range(10)] == [str(n) for n in range(10)]
