"""What the drills (test_drill_*.py) share: nothing is left behind, cancelling at each step.

The standing criterion, after each drill: all connections of the pool are free, none is being made,
the server has no other sessions of ours, and there are as many file descriptors and tasks as
before. That nothing was reported to the loop's exception handler, and that there was no warning,
holds for every test (see conftest.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import os
import types

from support import scalar, until

names = itertools.count()


def descriptors():
    """How many file descriptors are open."""
    return len(os.listdir("/dev/fd"))


def sessions(side, name):
    """How many sessions the server has with this application_name."""
    sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
    return scalar(side, sql, (name,))


def is_at_rest(pool):
    """Whether all places of a pool are those of free connections, and nobody waits."""
    idle = not pool._connects and not pool._waiters and not pool._leaving
    return idle and pool.size == pool.freesize


@contextlib.asynccontextmanager
async def nothing_left(impl, dsn, side, **kwargs):
    """A new pool, for which the criterion holds at the end of the block, and when it is closed.

    side: a connection that looks on from outside.
    """
    name = f"drill {next(names)}"
    tasks = asyncio.all_tasks()
    before = descriptors()
    async with impl.create_pool(dsn, application_name=name, **kwargs) as pool:
        yield pool
        await until(lambda: is_at_rest(pool))
        await until(lambda: sessions(side, name) == pool.size)
    gc.collect()
    await until(lambda: sessions(side, name) == 0)
    await until(lambda: asyncio.all_tasks() == tasks)
    await until(lambda: descriptors() <= before)


class Cancelled:
    """Awaits a coroutine whose task is cancelled when it is suspended for the k-th time, from 0.

    when: "waiting": at once; "answered": when what it waits for is there, but it has not run
        since, so that an answer and the cancellation meet in one turn of the event loop.

    `reached` tells whether there was a k-th time.
    """

    def __init__(self, coro, k, when):
        self.coro = coro
        self.k = k
        self.when = when
        self.reached = False

    @types.coroutine
    def run(self):
        steps = self.coro.__await__()
        step = steps.send
        value = None
        for count in itertools.count():
            try:
                awaited = step(value)
            except StopIteration as stop:
                return stop.value
            if count == self.k:
                self.reached = True
                self._cancel(asyncio.current_task(), awaited)
            try:
                step, value = steps.send, (yield awaited)
            except BaseException as exc:
                step, value = steps.throw, exc

    def _cancel(self, task, awaited):
        if self.when == "waiting" or awaited is None:
            task.cancel()
        else:
            awaited.add_done_callback(lambda _: task.cancel())


async def cancelled_at(k, when, coro):
    """Run a coroutine in a task that is cancelled so; whether it was, and had not ended before."""
    cancelled = Cancelled(coro, k, when)

    async def run():
        return await cancelled.run()

    task = asyncio.ensure_future(run())
    await asyncio.wait_for(asyncio.wait([task]), 20)
    if not cancelled.reached:
        task.result()  # the operation itself is right
    elif not task.cancelled() and task.exception() is not None:
        raise task.exception()
    return cancelled.reached
