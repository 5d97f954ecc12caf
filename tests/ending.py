"""A program that ends while its queries run: `python ending.py HOW LOOP MARK DSN...`.

It connects to each DSN, sends a query that takes 30 seconds over each connection, and gives them up
as HOW says, which is the last that it does.
"""

import asyncio
import signal
import sys

import aiopgx
from aiopgx import _cancel

# A shell that runs the tests in the background has switched it off.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Seconds for which the queries run, unless somebody else ends them.
WHILE = 1.0

# What the interpreter collects last.
kept = []


async def queries(mark, dsns):
    """Connections, and tasks in which their queries run."""
    conns = [await aiopgx.connect(dsn, enable_hstore=False, cancel_timeout=60) for dsn in dsns]
    cursors = [await conn.cursor() for conn in conns]
    sql = f"SELECT pg_sleep(30) {mark}"
    return conns, [asyncio.create_task(cursor.execute(sql)) for cursor in cursors]


async def interrupted(mark, dsns):
    """Ctrl-C ends the program."""
    _, tasks = await queries(mark, dsns)
    await asyncio.gather(*tasks)


async def out_of_time(mark, dsns):
    _, tasks = await queries(mark, dsns)
    try:
        await asyncio.wait_for(asyncio.gather(*tasks), WHILE)
    except asyncio.TimeoutError:
        return
    raise AssertionError("the queries are over")


async def closed(mark, dsns):
    conns, tasks = await queries(mark, dsns)
    await asyncio.wait(tasks, timeout=WHILE)
    for conn in conns:
        conn.close()
    await asyncio.gather(*tasks, return_exceptions=True)


async def left(mark, dsns):
    """Nothing is closed, and the interpreter ends."""
    conns, tasks = await queries(mark, dsns)
    kept.extend([conns, tasks])
    _cancel.LAST = 5.0  # what is still being stopped then is not collected, nor told
    await asyncio.wait(tasks, timeout=WHILE)


def run_as_before(body, module):
    """As programs did it before there was asyncio.run()."""
    loop = module.new_event_loop()
    try:
        loop.run_until_complete(body)
    finally:
        loop.close()


def main(how, loop_kind, mark, *dsns):
    if loop_kind == "uvloop":
        import uvloop as module
    else:
        module = asyncio
    name, _, before = how.partition(", ")
    bodies = {"Ctrl-C": interrupted, "wait_for": out_of_time, "close": closed, "left": left}
    body = bodies[name](mark, dsns)
    if name == "left":
        kept.append(module.new_event_loop())
        kept[0].run_until_complete(body)
    elif before:
        run_as_before(body, module)
    else:
        module.run(body)


if __name__ == "__main__":
    main(*sys.argv[1:])
