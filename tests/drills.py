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
import resource
import time
import types

import pytest
from support import scalar, until

# A drill is done on both.
LOOPS = pytest.mark.parametrize("loop_kind", ["asyncio", "uvloop"])

names = itertools.count()


def descriptors():
    """How many file descriptors are open."""
    return len(os.listdir("/dev/fd"))


def resident():
    """The process' resident memory in MB, where there is a /proc; else 0."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize() / 1e6
    except OSError:
        return 0.0


def own_time():
    """Seconds of a clock that stands still while this thread waits for a processor (on Linux)."""
    waited = 0
    with contextlib.suppress(OSError), open("/proc/thread-self/schedstat") as file:
        waited = int(file.read().split()[1])
    return time.monotonic() - waited / 1e9


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


async def pauses(during):
    """The longest time, in seconds, for which the event loop ran nothing else while this ran."""
    task = asyncio.ensure_future(during)
    loop = asyncio.get_running_loop()
    longest, last = 0.0, loop.time()
    while not task.done():
        await asyncio.sleep(0.002)
        longest, last = max(longest, loop.time() - last), loop.time()
    task.result()
    return longest


async def its_task(body):
    await body(asyncio.current_task().cancel)


class Cancelled:
    """Awaits a coroutine, and calls `cancel` when it is suspended for the k-th time, from 0.

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
    def steps(self, cancel):
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
                if self.when == "waiting" or awaited is None:
                    cancel()
                else:
                    awaited.add_done_callback(lambda _: cancel())
            try:
                step, value = steps.send, (yield awaited)
            except BaseException as exc:
                step, value = steps.throw, exc

    async def run(self, cancel):
        return await self.steps(cancel)


async def cancelled_at(k, when, coro, within=its_task):
    """Run a coroutine in a task that is cancelled so; whether it was, and had not ended before.

    within: awaits the function that it is called with, giving it what cancels.
    """
    cancelled = Cancelled(coro, k, when)
    task = asyncio.ensure_future(within(cancelled.run))
    await asyncio.wait_for(asyncio.wait([task]), 20)
    if not cancelled.reached:
        task.result()  # the operation itself is right
    elif not task.cancelled() and task.exception() is not None:
        raise task.exception()
    return cancelled.reached
