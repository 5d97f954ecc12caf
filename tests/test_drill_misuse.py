"""Drills: a pool with many who wait, and programs that use it wrongly.

Elsewhere: who waits, is served and gives up (test_pool_order.py), released twice, to the wrong
pool, within a transaction, an `on_connect` that fails (test_pool.py); another thread, another
loop, after a fork, a closed loop (test_loops.py, test_left_behind.py, test_links.py); `raw` used
behind our back (test_cancel.py, test_left_behind.py); the interpreter's end with queries in
flight (test_resources.py, test_ending.py).
"""

import asyncio
import gc

import psycopg2
import pytest
from drills import nothing_left
from support import LONG, fetch, underway

LOOPS = pytest.mark.parametrize("loop_kind", ["asyncio", "uvloop"])


@LOOPS
async def test_first_in_first_out(ours, dsn, side):
    """A thousand wait, every seventh of which gives up: the others are served in their order."""
    served = []

    async def one(pool, number):
        async with pool.acquire() as conn:
            served.append(number)
            if number % 50 == 0:
                assert await fetch(conn, "SELECT %s::int", (number,)) == [(number,)]

    count = 50_000 if LONG else 1000
    async with nothing_left(ours, dsn, side, maxsize=3) as pool:
        tasks = [asyncio.ensure_future(one(pool, number)) for number in range(count)]
        await asyncio.sleep(0)
        for task in tasks[3::7]:
            task.cancel()
        await asyncio.wait(tasks)
        given_up = {number for number, task in enumerate(tasks) if task.cancelled()}
        assert served == [number for number in range(count) if number not in given_up]


@LOOPS
async def test_two_tasks_on_one_connection(ours, dsn, side):
    """Each has its own result, or is told that it can't be had; the pool is none the worse."""
    async with nothing_left(ours, dsn, side, maxsize=1) as pool:
        for _ in range(500 if LONG else 5):
            async with pool.acquire() as conn:
                asked = [fetch(conn, "SELECT %s::int, pg_sleep(0)::text", (n,)) for n in range(4)]
                got = await asyncio.gather(*asked, return_exceptions=True)
            for number, outcome in enumerate(got):
                right = [(number, "")]
                assert outcome == right or isinstance(outcome, (psycopg2.Error, RuntimeError))


@LOOPS
async def test_collected_in_the_middle_of_a_query(ours, dsn, side):
    """Collections at any moment take nothing away from a query."""
    async with nothing_left(ours, dsn, side, maxsize=1) as pool:
        for number in range(200 if LONG else 3):
            async with pool.acquire() as conn:
                asked = fetch(conn, "SELECT %s::int FROM pg_sleep(0.01)", (number,))
                task = await underway(conn, asked)
                del asked
                gc.collect()
                assert await task == [(number,)]
