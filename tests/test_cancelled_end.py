"""COMMIT and ROLLBACK cancelled before they are sent: the transaction ends with its connection."""

import asyncio
from types import SimpleNamespace

import pytest
from support import asleep, scalar, underway, until

import aiopgx.sa
from aiopgx.sa.engine import get_dialect

# Elsewhere a stream has all of its rows at once.
pytestmark = pytest.mark.skipif(
    "not __import__('aiopgx').capabilities().native", reason="native road"
)
ENDS = pytest.mark.parametrize("end", ["commit", "rollback"])
# The second row pushes the first out of the server's buffer; the third takes its time.
STREAM = "SELECT repeat('x', 9999), pg_sleep(n / 3 * 30) FROM generate_series(1, 3) n"


async def leave_a_stream(conn, side):
    """What is executed next is sent behind its rest, which takes its time."""
    async with conn.cursor() as cur:
        async for _ in cur.stream(STREAM, size=1):
            break
    await until(lambda: asleep(side, STREAM))


async def cancelled_while_queued(conn, end):
    task = await underway(conn, end)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.fixture
def table(side):
    scalar(side, "CREATE TABLE IF NOT EXISTS ended (n int); TRUNCATE ended; SELECT 1")
    return "ended"


@pytest.mark.all_loops
@ENDS
async def test_of_a_cursor(ours, pool, side, table, end):
    pool = await pool(minsize=1, maxsize=1)
    async with pool.acquire() as conn, conn.cursor() as cur:
        transaction = await cur.begin()
        await cur.execute(f"INSERT INTO {table} VALUES (1)")
        await leave_a_stream(conn, side)
        await cancelled_while_queued(conn, getattr(transaction, end)())
        assert conn.closed
        assert not transaction.is_begin
        await transaction.rollback() if end == "commit" else None  # as `async with` may do
    await until(lambda: scalar(side, f"SELECT count(*) FROM {table}") == 0)
    await until(lambda: pool.size == pool.freesize)


@ENDS
async def test_of_a_block(ours, pool, side, table, end):
    """Left with an exception, or without: that of the cancelled task is seen."""
    pool = await pool(minsize=1, maxsize=1)

    left = asyncio.Event()

    async def block():
        async with conn.cursor() as cur, cur.begin():
            await leave_a_stream(conn, side)
            left.set()
            if end == "rollback":
                raise KeyError

    async with pool.acquire() as conn:
        task = asyncio.ensure_future(block())
        await left.wait()
        await cancelled_while_queued(conn, task)
        assert conn.closed


@ENDS
async def test_of_sa(ours, connect, side, table, end):
    raw = await connect()
    conn = aiopgx.sa.SAConnection(raw, SimpleNamespace(dialect=get_dialect()))
    transaction = await conn.begin()
    await leave_a_stream(raw, side)
    await cancelled_while_queued(raw, getattr(transaction, end)())
    assert raw.closed
    assert not conn.in_transaction


async def test_another_statement_closes_nothing(ours, connect, side):
    """The transaction goes on."""
    conn = await connect()
    async with conn.cursor() as cur:
        transaction = await cur.begin()
        await leave_a_stream(conn, side)
        await cancelled_while_queued(conn, cur.execute("SELECT 1"))
        assert not conn.closed
        assert transaction.is_begin
        conn.close()
        await transaction.rollback()
