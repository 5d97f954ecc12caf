# ruff: noqa: F811
"""A connection that dies between its hand-over to an acquire that waits, and that one's next step.

Without a server, as in test_pool_order.py; and with one that ends sessions at that instant.
"""

import asyncio
import math
import random

import psycopg2
import pytest
from drills import LOOPS, is_at_rest
from support import fetch, until
from test_pool_order import backend, make, started, turns  # noqa: F401 - fixtures


def hand_over_and_kill(pool, *conns):
    """They go to those who wait first, and are dead when these wake up."""
    for conn in conns:
        pool.release(conn)
    for conn in conns:
        assert conn in pool._used
        conn.close()


@LOOPS
async def test_it_is_replaced(ours, make, backend):
    pool = await make(maxsize=1)
    conn = await pool.acquire()
    task = await started(pool.acquire())
    hand_over_and_kill(pool, conn)
    new = await asyncio.wait_for(task, 1)
    assert new is not conn and not new.closed
    assert (pool.size, backend.started, pool._used) == (1, 2, {new})
    stats = pool.get_stats()
    assert (stats["connections_lost"], stats["requests_queued"], stats["returns_bad"]) == (1, 2, 0)
    pool.release(new)


@LOOPS
@pytest.mark.parametrize("again", [1, 2, 5])
async def test_the_order_is_kept(ours, make, backend, again):
    """Several die at once, again and again: who came first is served first."""
    pool = await make(maxsize=3)
    held = [await pool.acquire() for _ in range(3)]
    chance = random.Random(again)
    served = []

    async def use(number):
        conn = await pool.acquire()
        assert not conn.closed
        served.append(number)
        await asyncio.sleep(0)
        pool.release(conn)

    tasks = [await started(use(number)) for number in range(8)]
    for conn in held:
        pool.release(conn)
    for _ in range(again):
        gates = [backend.gate() for _ in range(3)]
        assert set(held) == pool._used  # handed over
        for conn in held:
            conn.close()
        await until(lambda: backend.connecting == 3)
        assert pool._waiting == 8 and served == []
        known = len(backend.conns)
        for gate in chance.sample(gates, 3):  # what comes first is for who waits longest
            gate.set_result(None)
        while len(pool._used) < 3:  # noqa: ASYNC110 - to the turn
            await asyncio.sleep(0)
        held = backend.conns[known:]
    await asyncio.wait_for(asyncio.gather(*tasks), 5)
    assert served == list(range(8))


@LOOPS
async def test_one_that_is_free_is_taken(ours, make, backend):
    """Another came back in the same turn, when nobody waited any more."""
    pool = await make(maxsize=2)
    conn, other = await pool.acquire(), await pool.acquire()
    task = await started(pool.acquire())
    hand_over_and_kill(pool, conn)
    pool.release(other)
    assert await asyncio.wait_for(task, 1) is other
    assert backend.started == 2
    pool.release(other)


@LOOPS
async def test_it_is_before_those_who_came_later(ours, make, backend):
    pool = await make(maxsize=1)
    conn = await pool.acquire()
    first, second = await started(pool.acquire()), await started(pool.acquire())
    hand_over_and_kill(pool, conn)
    new = await asyncio.wait_for(first, 1)
    await turns()
    assert not second.done()
    pool.release(new)
    assert await asyncio.wait_for(second, 1) is new
    pool.release(new)


@LOOPS
async def test_its_timeout_goes_on(ours, make, backend):
    pool = await make(maxsize=1)
    conn = await pool.acquire()
    loop = asyncio.get_running_loop()
    start = loop.time()
    task = await started(pool.acquire(timeout=0.3))
    await asyncio.sleep(0.2)
    backend.gate()  # which stays closed
    hand_over_and_kill(pool, conn)
    with pytest.raises(asyncio.TimeoutError, match=r"no connection within 0\.3 s: "):
        await task
    assert 0.29 <= loop.time() - start < 3
    await until(lambda: is_at_rest(pool))


@LOOPS
async def test_one_without_a_timeout(ours, make, backend):
    pool = await make(maxsize=1)
    conn = await pool.acquire()
    task = await started(pool.acquire(timeout=math.inf))
    hand_over_and_kill(pool, conn)
    pool.release(await asyncio.wait_for(task, 1))


@LOOPS
@pytest.mark.parametrize("steps", range(4))
async def test_cancelled_meanwhile(ours, make, backend, steps):
    """Others who wait are served, and no place is lost."""
    pool = await make(maxsize=1)
    conn = await pool.acquire()
    first, second = await started(pool.acquire()), await started(pool.acquire())
    hand_over_and_kill(pool, conn)
    await turns(steps)
    first.cancel()
    await asyncio.wait([first])
    if not first.cancelled():
        pool.release(first.result())
    new = await asyncio.wait_for(second, 1)
    assert not new.closed and pool._used == {new}
    pool.release(new)
    await until(lambda: is_at_rest(pool))


@LOOPS
async def test_the_connect_in_its_place_fails(ours, make, backend):
    """Who waited is told why."""
    pool = await make(maxsize=1)
    conn = await pool.acquire()
    task = await started(pool.acquire())
    backend.gate().set_exception(psycopg2.OperationalError("the server is down"))
    hand_over_and_kill(pool, conn)
    with pytest.raises(psycopg2.OperationalError, match="the server is down"):
        await asyncio.wait_for(task, 1)
    assert pool.size == 0


@LOOPS
async def test_the_pool_is_terminated_meanwhile(ours, make, backend):
    pool = await make(maxsize=1)
    conn = await pool.acquire()
    task = await started(pool.acquire())
    hand_over_and_kill(pool, conn)
    pool.terminate()
    with pytest.raises(RuntimeError, match="closing pool"):
        await task


@LOOPS
async def test_the_pool_is_closed_meanwhile(ours, make, backend):
    """Those who wait are served yet."""
    pool = await make(maxsize=1)
    conn = await pool.acquire()
    task = await started(pool.acquire())
    hand_over_and_kill(pool, conn)
    pool.close()
    new = await asyncio.wait_for(task, 1)
    assert not new.closed
    pool.release(new)
    await pool.wait_closed()


@LOOPS
async def test_a_new_connection_that_is_closed_at_once(ours, make, backend):
    """That is a connect that failed; there is no end of such connects otherwise."""

    async def close(conn):
        conn.close()

    pool = await make(maxsize=1, on_connect=close)
    with pytest.raises(psycopg2.OperationalError, match="the new connection was closed at once"):
        await asyncio.wait_for(pool.acquire(), 1)
    assert (backend.started, pool.size) == (1, 0)


# --- with a server --------------------------------------------------------------------------------


@LOOPS
@pytest.mark.parametrize("way", ["acquire", "execute", "cursor"])
async def test_a_session_ends_in_the_turn_of_its_hand_over(ours, pool, way):
    """The next user works, and is not told of what nobody had to know."""
    made = await pool(minsize=1, maxsize=1)

    async def use():
        if way == "execute":
            cursor = await made.execute("SELECT 1", shared=False)
            return await cursor.fetchall()
        if way == "cursor":
            async with made.cursor() as cursor:
                await cursor.execute("SELECT 1")
                return await cursor.fetchall()
        async with made.acquire() as conn:
            return await fetch(conn, "SELECT 1")

    for _ in range(5):
        conn = await made.acquire()
        tasks = [asyncio.ensure_future(use()) for _ in range(3)]
        await until(lambda: made._waiting == 3)
        made.release(conn)
        conn._wire.close()  # the loop has heard of its end
        assert await asyncio.wait_for(asyncio.gather(*tasks), 5) == [[(1,)]] * 3
    await until(lambda: is_at_rest(made))
