"""Drills: cancelled by scopes: anyio's, asyncio's timeouts and task groups, eager tasks.

A scope of anyio that is cancelled cancels each await in it again, also those of what cleans up: by
`async with`, in `finally`. See test_drill_cancel.py for tasks that are cancelled once.
"""

import asyncio
import io
import sys

import anyio
import psycopg2
import pytest
from drills import LOOPS, cancelled_at, nothing_left
from operations import OPERATIONS, SETUP
from psycopg2.extensions import make_dsn
from support import LONG, asleep, fetch, until
from test_drill_promptness import SLEEP, named, pipeline

STEPS = 60  # no operation is suspended as often as that


@pytest.fixture(scope="module", autouse=True)
def table(dsn):
    conn = psycopg2.connect(dsn)
    with conn, conn.cursor() as cursor:
        cursor.execute(SETUP)
    conn.close()


# --- at every suspension --------------------------------------------------------------------------


async def a_scope(body):
    with anyio.CancelScope() as scope:
        await body(scope.cancel)


async def a_task_group(body):
    async with anyio.create_task_group() as group:
        group.start_soon(body, group.cancel_scope.cancel)


SCOPES = {
    "asyncio, a scope, waiting": ("asyncio", a_scope, "waiting"),
    "uvloop, a task group, answered": ("uvloop", a_task_group, "answered"),
}
if LONG:
    SCOPES["asyncio, a task group, answered"] = ("asyncio", a_task_group, "answered")
    SCOPES["uvloop, a scope, waiting"] = ("uvloop", a_scope, "waiting")


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
@pytest.mark.parametrize(("loop_kind", "within", "when"), SCOPES.values(), ids=SCOPES)
async def test_scope_cancelled_at_each_suspension(ours, dsn, side, operation, within, when):
    """Nothing that cleans up has the time to wait: whoever comes next gets what is theirs."""
    async with nothing_left(ours, dsn, side, minsize=0, maxsize=1) as pool:
        named_dsn = make_dsn(dsn, application_name=pool._conn_kwargs["application_name"])
        for k in range(STEPS):
            reached = await cancelled_at(k, when, operation(pool, ours, named_dsn), within)
            async with pool.acquire() as conn:
                assert await fetch(conn, "SELECT %s::int", (1000 + k,)) == [(1000 + k,)]
            if not reached:
                break
        assert not reached
        assert k > 0


# --- in the middle of a statement -----------------------------------------------------------------


async def text(pool):
    async with pool.acquire() as conn:
        await fetch(conn, SLEEP)


async def in_a_transaction(pool):
    async with pool.cursor() as cur, cur.begin(), cur.begin_nested():
        await cur.execute(SLEEP)


async def transaction_around(pool):
    """What is cancelled is no statement: there is a ROLLBACK to be sent, and nobody may wait."""
    async with pool.cursor() as cur, cur.begin(), cur.begin_nested():
        await cur.execute("SELECT 1")
        shared = asyncio.ensure_future(pool.execute(SLEEP))
        try:
            await asyncio.shield(shared)
        finally:
            shared.cancel()


async def psycopg2s_road(pool):
    async with pool.cursor() as cur:
        assert cur.raw
        await cur.execute(SLEEP)


async def stream(pool):
    async with pool.cursor() as cur:
        rows = cur.stream(f"SELECT n, pg_sleep(n - 1) FROM ({SLEEP}) _, generate_series(1, 9) n")
        try:
            async for _ in rows:
                pass
        finally:
            await rows.aclose()


async def copied_out(pool):
    async with pool.cursor() as cur:
        await cur.copy_expert(f"COPY ({SLEEP}) TO STDOUT", io.BytesIO())


async def shared(pool):
    await pool.execute(SLEEP)


async def waited_for_its_end(pool):
    """conn.cancel(), and conn.close(), are what waits."""
    async with pool.acquire() as conn:
        task = asyncio.ensure_future(fetch(conn, SLEEP))
        try:
            await asyncio.shield(task)
        finally:
            task.cancel()
            await conn.close()


ROADS = [text, in_a_transaction, transaction_around, psycopg2s_road, stream, named, pipeline]
ROADS += [copied_out, shared, waited_for_its_end]


async def by_timeout(coro, asleep):
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(None) as timeout:
            await beside(coro, asleep, lambda: timeout.reschedule(0))


async def by_task_group(coro, asleep):
    with pytest.raises(ExceptionGroup) as caught:  # noqa: F821 - Python 3.11
        async with asyncio.TaskGroup() as group:
            group.create_task(coro)
            await asleep()
            raise KeyError("one of them")
    assert [type(error) for error in caught.value.exceptions] == [KeyError]


async def by_move_on_after(coro, asleep):
    with anyio.move_on_after(60) as scope:
        await beside(coro, asleep, lambda: setattr(scope, "deadline", anyio.current_time()))
    assert scope.cancelled_caught


async def by_fail_after(coro, asleep):
    with pytest.raises(TimeoutError):
        with anyio.fail_after(60) as scope:
            await beside(coro, asleep, lambda: setattr(scope, "deadline", anyio.current_time()))


async def by_anyios_task_group(coro, asleep):
    async with anyio.create_task_group() as group:
        group.start_soon(run, coro)
        await asleep()
        group.cancel_scope.cancel()


async def by_failing_sibling(coro, asleep):
    async def fail():
        await asleep()
        raise KeyError("one of them")

    with pytest.raises(BaseException) as caught:
        async with anyio.create_task_group() as group:
            group.start_soon(run, coro)
            group.start_soon(fail)
    assert [type(error) for error in caught.value.exceptions] == [KeyError]


async def run(coro):
    await coro


async def beside(coro, asleep, give_up):
    """Await a coroutine, and give it up when it is asleep."""

    async def wait():
        await asleep()
        give_up()

    task = asyncio.ensure_future(wait())
    try:
        await coro
    finally:
        task.cancel()


WAYS = [by_move_on_after, by_fail_after, by_anyios_task_group, by_failing_sibling]
if sys.version_info >= (3, 11):
    WAYS += [by_timeout, by_task_group]


# In the short form each road meets a third of the ways.
MET = [
    pytest.param(road, way, id=f"{road.__name__}-{way.__name__}")
    for i, road in enumerate(ROADS)
    for j, way in enumerate(WAYS)
    if LONG or (i + j) % 3 == 0
]


@LOOPS
@pytest.mark.parametrize(("road", "way"), MET)
async def test_given_up_in_the_middle(ours, dsn, side, road, way):
    """The scope ends as it should, its statement is stopped, and the pool works."""
    async with nothing_left(ours, dsn, side, minsize=0, maxsize=2) as pool:
        await way(road(pool), lambda: until(lambda: asleep(side, SLEEP)))
        await until(lambda: not asleep(side, SLEEP))
        async with pool.acquire() as conn:
            assert await fetch(conn, "SELECT 1") == [(1,)]
