"""Server-side cursors and the pool: a connection comes back without portals."""

import asyncio

import psycopg2
import pytest
from psycopg2.extensions import TRANSACTION_STATUS_IDLE as IDLE
from test_named_close import LOOKED_UP, NO_PORTALS, NUMBERS, factory, named, portals, status

__all__ = ["factory", "named"]  # fixtures


@pytest.mark.all_loops
@pytest.mark.parametrize("closed", [True, False])
async def test_release_frees_portals(ours, pool, named, closed):
    made = await pool(minsize=1, maxsize=1)
    conn = await made.acquire()
    held = await named(conn, withhold=True)
    if closed:
        held.close()
    released = made.release(conn)
    assert (made.size, made.freesize) == (1, 0)
    waiting = asyncio.ensure_future(made.acquire())  # who waits gets it, and no second connection
    await released
    again = await waiting
    assert again is conn
    assert await portals(conn) == NO_PORTALS
    with pytest.raises(psycopg2.Error):
        await held.fetchone()
    await made.release(conn)
    assert (made.size, made.freesize) == (1, 1)


async def test_cursor_of_a_pool(ours, pool, factory):
    made = await pool(minsize=1, maxsize=1)
    for _ in range(2):
        async with made.cursor("portal", factory, withhold=True) as cursor:
            await cursor.execute(NUMBERS)
            assert [n async for (n,) in cursor] == list(range(1, 11))
        with await made.cursor("portal", factory, None, True) as cursor:
            await cursor.execute(NUMBERS)
    async with made.acquire() as conn:
        assert await portals(conn) == NO_PORTALS
    assert made.size == 1


async def test_release_with_an_open_transaction(ours, pool, named):
    made = await pool(minsize=1, maxsize=1)
    conn = await made.acquire()
    await conn.execute("BEGIN")
    await named(conn)
    with pytest.warns(ResourceWarning, match="Invalid transaction status"):
        await made.release(conn)
    assert conn.closed


@pytest.mark.parametrize("how", ["close", "terminate"])
async def test_pool_closes_while_portals_are_freed(ours, pool, named, how):
    made = await pool(minsize=1, maxsize=1)
    conn = await made.acquire()
    await named(conn, withhold=True)
    released = made.release(conn)
    getattr(made, how)()
    await asyncio.wait_for(made.wait_closed(), 5)
    await asyncio.wait_for(released, 5)
    assert conn.closed and made.size == 0


async def test_connection_lost_while_portals_are_freed(ours, pool, named):
    """Who waits gets another connection."""
    made = await pool(minsize=1, maxsize=1)
    conn = await made.acquire()
    await named(conn, withhold=True)
    released = made.release(conn)
    waiting = asyncio.ensure_future(made.acquire())
    await asyncio.sleep(0)
    conn.raw.close()
    await released
    other = await asyncio.wait_for(waiting, 5)
    assert other is not conn and not other.closed
    await made.release(other)


async def test_close_that_fails(ours, pool, named, side):
    """The portal is not forgotten: a pool does not keep the connection."""
    made = await pool(minsize=1, maxsize=1)
    conn = await made.acquire()
    await conn.execute("SET lock_timeout TO '10ms'")
    cursor = await named(conn, LOOKED_UP, withhold=True)
    with side.cursor() as other:  # the view of portals is made of a function
        other.execute("BEGIN; LOCK pg_catalog.pg_proc IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(psycopg2.errors.LockNotAvailable):
            await cursor.close()
        assert not conn.closed
        assert status(conn) == IDLE
        await made.release(conn)
        assert conn.closed
        other.execute("ROLLBACK")
    assert made.size == 0


@pytest.mark.all_loops
async def test_cancelled_while_a_cursor_is_closed(ours, pool, named):
    """The close goes on, and the connection comes back when it is over."""
    made = await pool(minsize=1, maxsize=1)

    async def use():
        async with made.acquire() as conn:
            taken.append(conn)
            cursor = await named(conn, withhold=True)
            asyncio.get_running_loop().call_soon(task.cancel)
            await cursor.close()

    taken = []
    task = asyncio.create_task(use())
    with pytest.raises(asyncio.CancelledError):
        await task
    async with made.acquire() as again:
        assert again is taken[0]
        assert await portals(again) == NO_PORTALS


@pytest.mark.all_loops
async def test_acquire_that_gives_up(ours, pool, named):
    """What it would have got goes to the next."""
    made = await pool(minsize=1, maxsize=1)
    conn = await made.acquire()
    await named(conn, withhold=True)
    released = made.release(conn)
    first, second = (asyncio.ensure_future(made.acquire()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    got = await asyncio.wait_for(second, 5)
    await released
    assert made.size == 1
    assert await portals(got) == NO_PORTALS
    await made.release(got)


@pytest.mark.all_loops
@pytest.mark.parametrize("how", ["cancel", "timeout"])
async def test_nobody_waits_any_more(ours, pool, named, side, how):
    """The connection is not closed for that: it is free when it is cleared."""
    made = await pool(minsize=1, maxsize=1)
    conn = await made.acquire()
    await named(conn, LOOKED_UP, withhold=True)
    with side.cursor() as other:  # the view of portals is made of a function
        other.execute("BEGIN; LOCK pg_catalog.pg_proc IN ACCESS EXCLUSIVE MODE")
        released = made.release(conn)
        if how == "timeout":
            made._timeout = 0.05  # the close of the portal has more time
        waiting = asyncio.ensure_future(made.acquire())
        await asyncio.sleep(0)
        if how == "cancel":
            waiting.cancel()
        with pytest.raises(asyncio.CancelledError if how == "cancel" else asyncio.TimeoutError):
            await waiting
        other.execute("ROLLBACK")
    await released
    assert (made.size, made.freesize, conn.closed) == (1, 1, 0)
    again = await made.acquire()
    assert again is conn
    assert await portals(conn) == NO_PORTALS
    await made.release(conn)
