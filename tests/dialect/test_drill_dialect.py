"""Drills: what SQLAlchemy does with the dialect, cancelled at each suspension."""

import asyncio
import gc

import anyio
import pytest
import sqlalchemy as sa
from drills import cancelled_at, descriptors, its_task, sessions
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from support import until

STEPS = 60  # no operation is suspended as often as that
NAME = "drilled dialect"


async def committed(engine):
    async with engine.begin() as conn:
        assert await conn.scalar(sa.text("SELECT 1")) == 1


async def rolled_back(engine):
    async with engine.connect() as conn:
        assert await conn.scalar(sa.text("SELECT 2")) == 2


async def autocommit(engine):
    async with engine.connect() as conn:
        await conn.execution_options(isolation_level="AUTOCOMMIT")
        assert await conn.scalar(sa.text("SELECT 3")) == 3


async def streamed(engine):
    async with engine.connect() as conn:
        result = await conn.stream(sa.text("SELECT generate_series(1, 5)"))
        assert [row[0] async for row in result] == [1, 2, 3, 4, 5]


async def session(engine):
    async with AsyncSession(engine) as session, session.begin(), session.begin_nested():
        assert await session.scalar(sa.text("SELECT 4")) == 4


async def two_at_once(engine):
    """Two tasks of one connection: the second statement waits for its turn."""
    async with engine.connect() as conn:
        both = (conn.scalar(sa.text(f"SELECT {n}")) for n in (5, 6))
        assert await asyncio.gather(*both) == [5, 6]


OPERATIONS = [committed, rolled_back, autocommit, streamed, session, two_at_once]


async def a_scope(body):
    with anyio.CancelScope() as scope:
        await body(scope.cancel)


WAYS = {
    "asyncio, once, answered": ("asyncio", its_task, "answered"),
    "uvloop, once, waiting": ("uvloop", its_task, "waiting"),
    "asyncio, a scope, waiting": ("asyncio", a_scope, "waiting"),
    "uvloop, a scope, answered": ("uvloop", a_scope, "answered"),
}


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
@pytest.mark.parametrize(("loop_kind", "within", "when"), WAYS.values(), ids=WAYS)
async def test_cancelled_at_each_suspension(ours, url, side, operation, within, when):
    tasks, before = asyncio.all_tasks(), descriptors()
    named = url.update_query_dict({"application_name": NAME})
    engine = create_async_engine(named, pool_size=1, max_overflow=0)
    for k in range(STEPS):
        reached = await cancelled_at(k, when, operation(engine), within)
        async with engine.connect() as conn:
            assert await conn.scalar(sa.select(1000 + k)) == 1000 + k
        await until(lambda: engine.pool.checkedout() == 0)
        await until(lambda: sessions(side, NAME) <= 1)
        if not reached:
            break
    assert not reached
    assert k > 0
    await engine.dispose()
    gc.collect()
    await until(lambda: sessions(side, NAME) == 0)
    await until(lambda: asyncio.all_tasks() == tasks)
    await until(lambda: descriptors() <= before)
