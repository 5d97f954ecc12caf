"""Drills: cancelled at every suspension of every operation, at any moment, in waves and storms.

See also test_cancel.py (one query, its backend), test_pool_order.py (acquires, without a server),
test_named_close.py, test_stream.py, test_copy.py, test_pipeline.py, test_bulk_flight.py,
test_shared.py (each kind of statement, while it waits) and test_ending.py (a program's end).
"""

import asyncio
import io
import random
import sys

import psycopg2
import pytest
from drills import cancelled_at, nothing_left
from psycopg2.extensions import make_dsn
from support import LONG, fetch, running, until

LOOPS = pytest.mark.parametrize("loop_kind", ["asyncio", "uvloop"])
STEPS = 60  # no operation is suspended as often as that


@pytest.fixture(scope="module", autouse=True)
def table(dsn):
    conn = psycopg2.connect(dsn)
    with conn, conn.cursor() as cursor:
        cursor.execute("CREATE TABLE drilled (n int, t text)")
        cursor.execute("CREATE FUNCTION twice(n int) RETURNS int LANGUAGE sql AS 'SELECT n + n'")
    conn.close()


# --- at every suspension --------------------------------------------------------------------------


async def text(pool, impl, dsn):
    async with pool.acquire() as conn:
        conn.prepare_threshold = None
        assert await fetch(conn, "SELECT %s::int, pg_sleep(0)::text", (5,)) == [(5, "")]


async def prepared(pool, impl, dsn):
    async with pool.acquire() as conn:
        conn.prepare_threshold = 0
        assert await fetch(conn, "SELECT %s::int + 1", (5,)) == [(6,)]


async def psycopg2s_road(pool, impl, dsn):
    async with pool.acquire() as conn, conn.cursor() as cur:
        assert cur.raw
        await cur.execute("SELECT %s::int + 2", (5,))
        assert await cur.fetchall() == [(7,)]


async def callproc(pool, impl, dsn):
    async with pool.cursor() as cur:
        await cur.callproc("twice", (21,))
        assert await cur.fetchone() == (42,)


async def committed(pool, impl, dsn):
    async with pool.acquire() as conn, conn.cursor() as cur, cur.begin():
        await cur.execute("INSERT INTO drilled VALUES (1)")


async def rolled_back(pool, impl, dsn):
    async with pool.cursor() as cur:
        transaction = impl.Transaction(cur, impl.IsolationLevel.repeatable_read)
        await transaction.begin()
        try:
            await cur.execute("INSERT INTO drilled VALUES (2)")
        finally:
            await transaction.rollback()


async def savepoints(pool, impl, dsn):
    async with pool.cursor() as cur, cur.begin(), cur.begin_nested():
        await cur.execute("SELECT 3")
        assert await cur.fetchone() == (3,)


async def named(pool, impl, dsn):
    async with pool.acquire() as conn:
        raw = await conn.cursor()
        async with raw.begin(), conn.cursor("drill") as cur:
            await cur.execute("SELECT generate_series(1, 5)")
            assert await cur.fetchmany(2) == [(1,), (2,)]
            assert [row async for row in cur] == [(3,), (4,), (5,)]


async def stream(pool, impl, dsn):
    async with pool.cursor() as cur:
        rows = cur.stream("SELECT generate_series(1, 5)", size=2)
        assert [row async for row in rows] == [(n,) for n in range(1, 6)]


async def pipeline(pool, impl, dsn):
    async with pool.acquire() as conn:
        cursors = [await conn.cursor() for _ in range(3)]
        async with conn.pipeline():
            for number, cur in enumerate(cursors):
                await cur.execute("SELECT %s::int", (number,))
        assert [await cur.fetchone() for cur in cursors] == [(0,), (1,), (2,)]


async def executemany(pool, impl, dsn):
    async with pool.cursor() as cur:
        await cur.executemany("INSERT INTO drilled VALUES (%s)", [(n,) for n in range(5)])
        assert cur.rowcount == 5


async def execute_values(pool, impl, dsn):
    async with pool.cursor() as cur:
        await cur.execute_values("INSERT INTO drilled (n) VALUES %s", [(n,) for n in range(5)])


async def copy_from(pool, impl, dsn):
    async with pool.cursor() as cur:
        await cur.copy_from(io.StringIO("1\ta\n2\tb\n"), "drilled")
        assert cur.rowcount == 2


async def copy_to(pool, impl, dsn):
    async with pool.cursor() as cur:
        file = io.StringIO()
        await cur.copy_expert("COPY (SELECT generate_series(1, 3)) TO STDOUT", file)
        assert file.getvalue() == "1\n2\n3\n"


async def copy_records(pool, impl, dsn):
    async with pool.acquire() as conn:
        await conn.copy_records_to_table("drilled", records=[(1, "a"), (2, "b")])


async def shared(pool, impl, dsn):
    cur = await pool.execute("SELECT %s::int", (8,))
    assert await cur.fetchall() == [(8,)]


async def shared_on_its_own(pool, impl, dsn):
    cur = await pool.execute("SELECT %s::int", (9,), shared=False)
    assert await cur.fetchall() == [(9,)]


async def connected(pool, impl, dsn):
    async with impl.connect(dsn) as conn:
        assert await fetch(conn, "SELECT 1") == [(1,)]


async def closed(pool, impl, dsn):
    conn = await impl.connect(dsn)
    try:
        await conn.close()
    finally:
        conn.close()


async def whole_pool(pool, impl, dsn):
    async with impl.create_pool(dsn, minsize=2) as other:
        try:
            async with other.acquire() as conn:
                assert await fetch(conn, "SELECT 1") == [(1,)]
            await other.clear()
        except BaseException:
            other.terminate()
            raise


async def on_connect(pool, impl, dsn):
    async def prepare(conn):
        assert await fetch(conn, "SELECT 2") == [(2,)]

    async with impl.create_pool(dsn, minsize=0, on_connect=prepare) as other, other.cursor() as cur:
        await cur.execute("SELECT 1")


async def notified(pool, impl, dsn):
    async with impl.connect(dsn) as conn, conn.cursor() as cur:
        await cur.execute("LISTEN drill")
        await cur.execute("NOTIFY drill, 'heard'")
        assert (await conn.notifies.get()).payload == "heard"


OPERATIONS = [
    *(text, prepared, psycopg2s_road, callproc, committed, rolled_back, savepoints, named),
    *(stream, executemany, execute_values, copy_from, copy_to, copy_records),
    *(pipeline, shared, shared_on_its_own, connected, closed, whole_pool, on_connect, notified),
]


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


ROADS = pytest.mark.parametrize("ask", [owned, by_psycopg2, of_many], ids=lambda a: a.__name__)


@LOOPS
@ROADS
async def test_result_and_cancel_in_the_same_turn(ours, dsn, side, ask):
    """The one who gives up sees that, or the result that is its own; the next one sees its own."""
    chance = random.Random(ask.__name__)
    async with nothing_left(ours, dsn, side, minsize=0, maxsize=2) as pool:
        for number in range(20_000 if LONG else 25):
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
async def test_storm(ours, dsn, side):
    """Many tasks of all roads for few connections, a third of which give up at some moment."""
    chance = random.Random(15)
    outcomes = {"right": 0, "given up": 0}

    async def one(pool, number):
        coro = chance.choice([owned, by_psycopg2, of_many])(pool, number, chance.random() / 500)
        await asyncio.sleep(chance.random() / 10)
        seconds = chance.random() / 10 if number % 3 == 0 else 60
        try:
            assert await chance.choice(GIVING_UP)(coro, seconds) == [(number,)]
            outcomes["right"] += 1
        except (asyncio.CancelledError, asyncio.TimeoutError, TimeoutError):
            outcomes["given up"] += 1

    count = 10_000 if LONG else 150
    async with nothing_left(ours, dsn, side, maxsize=10) as pool:
        await asyncio.gather(*(one(pool, number) for number in range(count)))
        assert outcomes["right"] >= count * 2 // 3
        assert sum(outcomes.values()) == count


@pytest.mark.skipif("sys.version_info < (3, 12)", reason="Python 3.12 has eager tasks")
@pytest.mark.parametrize("loop_kind", ["asyncio"])  # uvloop can't take the factory on 3.13
async def test_eager_tasks(ours, dsn, side):
    """Tasks that start to run where they are made, and are cancelled by the one who made them."""
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
    async with nothing_left(ours, dsn, side, maxsize=2) as pool:
        for ask in (owned, by_psycopg2, of_many):
            tasks = [asyncio.create_task(ask(pool, n, 0)) for n in range(9)]
            for task in tasks[::3]:
                task.cancel()
            await asyncio.wait(tasks)
            for number, task in enumerate(tasks):
                if number % 3 or not task.cancelled():  # the answer may have been quicker
                    assert task.result() == [(number,)]
