"""Drills: cancelled at every suspension of every operation, at any moment, in waves and storms.

See also test_cancel.py (one query, its backend), test_pool_order.py (acquires, without a server),
test_named_close.py, test_stream.py, test_copy.py, test_pipeline.py, test_bulk_flight.py,
test_shared.py (each kind of statement, while it waits) and test_ending.py (a program's end).
"""

import asyncio
import random
import sys

import psycopg2
import pytest
from drills import LOOPS, cancelled_at, nothing_left
from operations import OPERATIONS, SETUP
from psycopg2.extensions import make_dsn
from support import LONG, fetch, running, until

STEPS = 60  # no operation is suspended as often as that


@pytest.fixture(scope="module", autouse=True)
def table(dsn):
    conn = psycopg2.connect(dsn)
    with conn, conn.cursor() as cursor:
        cursor.execute(SETUP)
    conn.close()


# --- at every suspension --------------------------------------------------------------------------


@LOOPS
@pytest.mark.parametrize("when", ["waiting", "answered"])
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
async def test_cancelled_at_each_suspension(ours, dsn, side, operation, when):
    """Whoever comes next gets what is theirs, and nothing is left over."""
    async with nothing_left(ours, dsn, side, minsize=0, maxsize=1) as pool:
        named_dsn = make_dsn(dsn, application_name=pool._conn_kwargs["application_name"])
        for k in range(STEPS):
            reached = await cancelled_at(k, when, operation(pool, ours, named_dsn))
            async with pool.acquire() as conn:
                assert await fetch(conn, "SELECT %s::int", (1000 + k,)) == [(1000 + k,)]
            if not reached:
                break
        assert not reached
        assert k > 0


# --- races ----------------------------------------------------------------------------------------


async def owned(pool, number, delay):
    async with pool.acquire() as conn:
        return await fetch(conn, "SELECT %s::int FROM pg_sleep(%s)", (number, delay))


async def by_psycopg2(pool, number, delay):
    async with pool.acquire() as conn, conn.cursor() as cur:
        assert cur.raw
        await cur.execute("SELECT %s::int FROM pg_sleep(%s)", (number, delay))
        return await cur.fetchall()


async def of_many(pool, number, delay):
    cur = await pool.execute("SELECT %s::int FROM pg_sleep(%s)", (number, delay))
    return await cur.fetchall()


async def in_a_pipeline(pool, number, delay):
    """The second of three, each of which must see its own."""
    async with pool.acquire() as conn, conn.pipeline():
        numbers = [number - 1, number, number + 1]
        sql = "SELECT %s::int FROM pg_sleep(%s)"
        cursors = [await conn.execute(sql, (n, delay if n == number else 0)) for n in numbers]
        rows = await asyncio.gather(*(cur.fetchall() for cur in cursors))
        assert rows == [[(n,)] for n in numbers]
        return rows[1]


ROADS = pytest.mark.parametrize(
    "ask", [owned, by_psycopg2, of_many, in_a_pipeline], ids=lambda ask: ask.__name__
)


# Tries of the long form on each loop. Where the connection is closed, each costs a new one.
MEETINGS = {owned: 12_500, by_psycopg2: 12_500, of_many: 50_000, in_a_pipeline: 12_500}


@LOOPS
@ROADS
async def test_result_and_cancel_in_the_same_turn(ours, dsn, side, ask):
    """The one who gives up sees that, or the result that is its own; the next one sees its own."""
    chance = random.Random(ask.__name__)
    async with nothing_left(ours, dsn, side, minsize=0, maxsize=2) as pool:
        for number in range(MEETINGS[ask] if LONG else 25):
            others = [asyncio.ensure_future(ask(pool, n, 0)) for n in (-number, -number - 1)]
            k = chance.choice([0, 0, 0, 1, 2])
            await cancelled_at(k, "answered", the_right(ask, pool, number))
            assert await asyncio.gather(*others) == [[(-number,)], [(-number - 1,)]]


async def the_right(ask, pool, number):
    assert await ask(pool, number, 0) == [(number,)]


@LOOPS
@ROADS
async def test_a_cancel_request_hits_nobody_else(ours, dsn, side, ask, loop_errors):
    """Given up when the query is about to end: the one behind it is not the one that is stopped."""
    chance = random.Random(ask.__name__)
    async with nothing_left(ours, dsn, side, minsize=1, maxsize=1) as pool:
        for number in range(5000 if LONG else 20):
            task = asyncio.ensure_future(ask(pool, number, 0.002))
            await asyncio.sleep(chance.random() * 0.004)
            task.cancel()
            behind = [asyncio.ensure_future(ask(pool, n, 0.001)) for n in (-1, -2)]
            assert await asyncio.gather(*behind) == [[(-1,)], [(-2,)]]
            await asyncio.wait([task])
            assert task.cancelled() or task.result() == [(number,)]
        assert not loop_errors  # where a query that the server has stopped is told


async def cancelled_by_hand(conn, chance):
    task = asyncio.ensure_future(fetch(conn, f"SELECT pg_sleep({chance.random() / 1000})"))
    await asyncio.sleep(0)
    stopping = asyncio.ensure_future(conn.cancel())
    await asyncio.sleep(0)  # it begins before the next statement, also if this one is over
    await asyncio.wait([task])
    assert isinstance(task.exception(), psycopg2.errors.QueryCanceled | None)
    return stopping


async def stream_left(conn, chance):
    count = chance.randrange(1, 20_000)
    async with conn.cursor() as cur:
        async for _ in cur.stream("SELECT generate_series(1, %s)", (count,), size=1):
            break
    return None


async def copy_that_failed(conn, chance):
    def fail(data):
        raise KeyError

    count = chance.randrange(900, 3000)
    async with conn.cursor() as cur:
        with pytest.raises(KeyError):
            sql = f"COPY (SELECT repeat('x', 1000) FROM generate_series(1, {count})) TO STDOUT"
            await cur.copy_expert(sql, fail)
    return None


@LOOPS
@pytest.mark.parametrize(
    "stop", [cancelled_by_hand, stream_left, copy_that_failed], ids=lambda stop: stop.__name__
)
async def test_a_cancel_request_hits_nobody_behind_it(ours, dsn, side, stop, loop_errors):
    """Where the session goes on, what is executed next on it is not stopped."""
    chance = random.Random(stop.__name__)
    async with nothing_left(ours, dsn, side, minsize=1, maxsize=1) as pool:
        kept = 0
        for number in range(5000 if LONG else 20):
            async with pool.acquire() as conn:
                stopping = await stop(conn, chance)
                if not conn.closed:
                    kept += 1
                    rows = await fetch(conn, "SELECT pg_sleep(0.0005), %s::int", (number,))
                    assert rows == [("", number)]
                if stopping is not None:
                    await stopping
        assert kept
        assert not loop_errors  # where a query that the server has stopped is told


@LOOPS
@ROADS
async def test_wave(ours, dsn, side, ask):
    """All who have a connection are cancelled while all others wait: these are served."""
    size = 10 if LONG else 4
    hold = owned if ask is of_many else ask  # what was sent behind another one waits for its end
    async with nothing_left(ours, dsn, side, minsize=size, maxsize=size) as pool:
        for _ in range(20 if LONG else 1):
            holders = [asyncio.ensure_future(hold(pool, n, 30)) for n in range(size)]
            await until(lambda: running(side, "pg_sleep(30)") == size)
            waiters = [asyncio.ensure_future(ask(pool, n, 0)) for n in range(5 * size)]
            await asyncio.sleep(0)
            for task in holders:
                task.cancel()
            served = await asyncio.wait_for(asyncio.gather(*waiters), 20)
            assert served == [[(n,)] for n in range(5 * size)]
            await asyncio.wait(holders)
            assert all(task.cancelled() for task in holders)
            await until(lambda: running(side, "pg_sleep(30)") == 0)


async def by_wait_for(coro, seconds):
    return await asyncio.wait_for(coro, seconds)


async def by_timeout(coro, seconds):
    async with asyncio.timeout(seconds):
        return await coro


async def by_cancel(coro, seconds):
    task = asyncio.current_task()
    timer = asyncio.get_running_loop().call_later(seconds, task.cancel)
    try:
        return await coro
    finally:
        timer.cancel()


GIVING_UP = [by_wait_for, by_cancel, *([by_timeout] if sys.version_info >= (3, 11) else [])]


@LOOPS
@pytest.mark.parametrize(
    "roads", [[owned, by_psycopg2, of_many, in_a_pipeline], [of_many]], ids=["all", "of_many"]
)
async def test_storm(ours, dsn, side, roads):
    """Many tasks for few connections, a third of which give up at some moment."""
    chance = random.Random(15)
    outcomes = {"right": 0, "given up": 0}

    async def one(pool, number):
        coro = chance.choice(roads)(pool, number, chance.random() / 500)
        await asyncio.sleep(chance.random() * count / 1500)
        seconds = chance.random() / 10 if number % 3 == 0 else 600
        try:
            assert await chance.choice(GIVING_UP)(coro, seconds) == [(number,)]
            outcomes["right"] += 1
        except (asyncio.CancelledError, asyncio.TimeoutError, TimeoutError):
            outcomes["given up"] += 1

    count = 10_000 if LONG else 150
    async with nothing_left(ours, dsn, side, maxsize=10, timeout=600) as pool:
        await asyncio.gather(*(one(pool, number) for number in range(count)))
        assert outcomes["right"] >= count * 2 // 3
        assert sum(outcomes.values()) == count


@pytest.mark.skipif("sys.version_info < (3, 12)", reason="Python 3.12 has eager tasks")
@pytest.mark.parametrize("loop_kind", ["asyncio"])  # uvloop can't take the factory on 3.13
async def test_eager_tasks(ours, dsn, side):
    """Tasks that start to run where they are made, and are cancelled by the one who made them."""
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
    async with nothing_left(ours, dsn, side, maxsize=2) as pool:
        for ask in (owned, by_psycopg2, of_many, in_a_pipeline):
            tasks = [asyncio.create_task(ask(pool, n, 0)) for n in range(9)]
            for task in tasks[::3]:
                task.cancel()
            await asyncio.wait(tasks)
            for number, task in enumerate(tasks):
                if number % 3 or not task.cancelled():  # the answer may have been quicker
                    assert task.result() == [(number,)]
