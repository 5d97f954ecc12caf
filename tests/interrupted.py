"""A program whose loop is interrupted at random instants, and used further: who holds places then?

    python interrupted.py DSN KIND_OF_LOOP ROUNDS

prints how many connections are in use by nobody. Tasks whose wakeup was lost by asyncio itself,
interrupted between taking a callback and calling it, hold theirs for ever, rightly.
"""

import asyncio
import random
import signal
import sys

from support import new_loop

import aiopgx

MAXSIZE = 4


async def make(dsn):
    return await aiopgx.create_pool(dsn, minsize=MAXSIZE, maxsize=MAXSIZE, timeout=5)


async def work(pool):
    while True:
        async with pool.acquire():
            await asyncio.sleep(0)


def interrupted(loop, pool, seconds):
    """Let workers be interrupted after so many seconds, and end them. Return those that don't."""
    tasks = [loop.create_task(work(pool)) for _ in range(2 * MAXSIZE)]
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        loop.run_until_complete(asyncio.wait(tasks, timeout=0.1))  # __del__ may have swallowed it
    except KeyboardInterrupt:
        pass
    signal.setitimer(signal.ITIMER_REAL, 0)
    for task in tasks:
        task.cancel()
    loop.run_until_complete(asyncio.wait(tasks, timeout=0.2))
    for task in tasks:
        if task.done() and not task.cancelled():
            task.exception()
    return [task for task in tasks if not task.done()]


def main(dsn, kind, rounds):
    loop = new_loop(kind)
    loop.set_exception_handler(lambda _, context: None)
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    instants = random.Random(5)
    pool = loop.run_until_complete(make(dsn))
    lost = 0
    for _ in range(int(rounds)):
        stuck = interrupted(loop, pool, instants.uniform(0.0005, 0.002))
        loop.run_until_complete(asyncio.sleep(0.001))
        lost += max(0, len(pool._used) - len(stuck))
        if pool._used:
            pool.terminate()
            pool = loop.run_until_complete(make(dsn))
    pool.close()
    loop.run_until_complete(asyncio.wait_for(pool.wait_closed(), 5))
    print("lost", lost)


if __name__ == "__main__":
    main(*sys.argv[1:])
