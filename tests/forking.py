"""A program that forks with a connection open: `python forking.py HOW LOOP DSN`.

The child ends as HOW says; the parent then uses its connection, its loop and a new connection.
"""

import asyncio
import os
import sys
import warnings

import aiopgx


class Over(BaseException):
    pass


def end_child(how):
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what is left there is no news
    if how == "sys.exit":
        sys.exit(0)
    raise Over


async def main(how, dsn):
    conn = await aiopgx.connect(dsn)
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    pid = os.fork()
    if pid == 0:
        if sys.version_info >= (3, 14):
            # it forgets them in a child, where no task can end then, with or without us
            asyncio._set_running_loop(loop)
            asyncio._enter_task(loop, task)
        end_child(how)
    os.waitpid(pid, 0)  # noqa: ASYNC222
    await asyncio.wait_for(use(conn, dsn), 10)
    await conn.close()
    print("the parent is unharmed")


async def use(conn, dsn):
    for _ in range(3):
        cursor = await conn.execute("SELECT pg_sleep(0.01), 1")
        assert await cursor.fetchall() == [("", 1)]
    async with aiopgx.connect(dsn) as other:
        await other.execute("SELECT 1")
    await asyncio.get_running_loop().run_in_executor(None, os.getpid)


if __name__ == "__main__":
    how, loop_kind, dsn = sys.argv[1:]
    warnings.simplefilter("ignore")
    if loop_kind == "uvloop":
        import uvloop as module
    else:
        module = asyncio
    module.run(main(how, dsn))
