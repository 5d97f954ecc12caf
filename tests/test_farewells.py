"""Ends that others feel: of a forked child, of sessions whose queries are still being cancelled."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from proxy import proxy
from psycopg2.extensions import make_dsn
from support import activity, fetch, underway, until

PROGRAM = Path(__file__).parent / "forking.py"
SLEEP = "SELECT pg_sleep(30)"


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
@pytest.mark.parametrize("how", ["sys.exit", "exception"])
def test_end_of_a_forked_child(ours, dsn, how, kind):
    """Both have the same epoll, out of which a loop that ends takes its sockets."""
    command = [sys.executable, str(PROGRAM), how, kind, dsn]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert (done.stdout.splitlines()[-1:], done.stderr) == (["the parent is unharmed"], "")


@pytest.mark.all_loops
async def test_awaited_close_waits_for_the_end_of_the_query(ours, connect, side):
    conn = await connect()
    pid = conn.raw.get_backend_pid()
    running = await underway(conn, fetch(conn, SLEEP))
    await conn.close()
    assert activity(side, pid) is None
    await asyncio.gather(running, return_exceptions=True)
    await conn.close()


@pytest.mark.all_loops
async def test_a_block_that_ends_waits(ours, dsn, side):
    async with ours.connect(dsn) as conn:
        pid = conn.raw.get_backend_pid()
        running = await underway(conn, fetch(conn, SLEEP))
    assert activity(side, pid) is None
    await asyncio.gather(running, return_exceptions=True)


@pytest.mark.all_loops
@pytest.mark.parametrize("end", ["terminate", "timeout"])
async def test_closed_pool_waits(ours, dsn, side, end):
    async with ours.create_pool(dsn, minsize=1) as pool:
        conn = await pool.acquire()
        pid = conn.raw.get_backend_pid()
        running = await underway(conn, fetch(conn, SLEEP))
        if end == "terminate":
            pool.terminate()
            await asyncio.gather(running, return_exceptions=True)
        else:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            pool.release(conn)
    assert activity(side, pid) is None


@pytest.fixture
def deaf(dsn, side):
    """A DSN over a proxy that swallows cancel requests."""
    with proxy(side.info.port, deaf=True) as port:
        yield make_dsn(dsn, host="127.0.0.1", port=port, sslmode="disable", gssencmode="disable")


async def test_nobody_waits_for_long(ours, deaf):
    conn = await ours.connect(deaf, cancel_timeout=60)
    running = await underway(conn, fetch(conn, SLEEP))
    await asyncio.wait_for(conn.close(), 10)
    assert not conn._wire.leaving.done()
    await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("block", ["connect", "connection"])
async def test_an_exception_is_seen_at_once(ours, deaf, block):
    """Whoever is cancelled does not wait for a server that is deaf."""
    used = []

    async def use():
        connecting = ours.connect(deaf, cancel_timeout=60)
        async with connecting if block == "connect" else await connecting as conn:
            used.append(conn)
            await fetch(conn, SLEEP)

    using = asyncio.create_task(use())
    await until(lambda: used and used[0].isexecuting())
    using.cancel()
    for _ in range(20):
        await asyncio.sleep(0)
    assert using.cancelled()
    assert not used[0]._wire.leaving.done()
