"""The link to the server: keepalives, a link that is frozen, a forked process."""

import asyncio
import os
import socket
import sys

import psycopg2
import pytest
from drills import LOOPS
from proxy import Proxy
from psycopg2.extensions import parse_dsn
from support import fetch, new_loop, shut_down, until

KEPT = {"keepalives_idle": 30, "keepalives_interval": 7, "keepalives_count": 3}
if sys.platform == "linux":
    OPTIONS = {
        "SO_KEEPALIVE": (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        "keepalives_idle": (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
        "keepalives_interval": (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
        "keepalives_count": (socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
        "tcp_user_timeout": (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
    }
    KEPT["tcp_user_timeout"] = 5000
else:
    OPTIONS = {"SO_KEEPALIVE": (socket.SOL_SOCKET, socket.SO_KEEPALIVE)}


def options_of(conn):
    """Whether and how the kernel looks after its socket."""
    with socket.socket(fileno=os.dup(conn.raw.fileno())) as sock:
        return {name: sock.getsockopt(*option) for name, option in OPTIONS.items()}


async def test_keepalives(connect):
    assert options_of(await connect())["SO_KEEPALIVE"] != 0  # libpq's default
    assert options_of(await connect(keepalives=0))["SO_KEEPALIVE"] == 0


async def test_keepalive_options(ours, pool, dsn):
    """They reach the socket from a pool and with several hosts as well."""
    port = parse_dsn(dsn)["port"]
    several = {"host": "127.0.0.1,localhost", "port": f"{port},{port}"}
    for keywords in ({}, several):
        connections = await pool(dsn, **KEPT, **keywords)
        async with connections.acquire() as conn:
            options = options_of(conn)
            assert options.pop("SO_KEEPALIVE") != 0
            assert options == {name: KEPT[name] for name in options}


@pytest.fixture
def frozen(dsn):
    """A `Proxy` in front of the server; `held` freezes what clients send."""
    proxy = Proxy(int(parse_dsn(dsn)["port"]))
    yield proxy
    proxy.stop()


@LOOPS
async def test_a_frozen_link(ours, pool, frozen):
    """Each is told by its own timeout, the event loop goes on, and the pool lives on after that."""
    port = frozen.listener.getsockname()[1]
    connections = await pool(port=port, minsize=2, maxsize=2, cancel_timeout=0.2)
    for limited in (connections, *connections._free):
        limited._timeout = 0.3
    frozen.held = True
    loop = asyncio.get_running_loop()
    start = loop.time()

    async def query():
        async with connections.acquire() as conn:
            await conn.execute("SELECT 1")

    tasks = [asyncio.ensure_future(query()) for _ in range(4)]
    await asyncio.wait(tasks)
    assert [type(task.exception()) for task in tasks] == [asyncio.TimeoutError] * 4
    texts = sorted(str(task.exception()) for task in tasks)
    assert [text.split(" ")[0] for text in texts] == ["no", "no", "the", "the"]
    assert loop.time() - start < 5
    frozen.held = False
    connections._timeout = 10
    await until(lambda: not connections._leaving and not connections._connects)
    async with connections.acquire() as conn:
        assert await fetch(conn, "SELECT 1") == [(1,)]
    await until(lambda: connections.size == connections.freesize)


@LOOPS
async def test_closing_a_frozen_link_takes_no_time(ours, connect, frozen):
    conn = await connect(port=frozen.listener.getsockname()[1], cancel_timeout=0.2)
    frozen.held = True
    task = asyncio.ensure_future(conn.execute("SELECT 1"))
    await asyncio.sleep(0)
    await conn.close()
    with pytest.raises(psycopg2.OperationalError):
        await asyncio.wait_for(task, 10)


def leave_a_child():
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_a_forked_child_that_leaves_at_once(ours, dsn, kind):
    """Its parent's pool goes on."""
    loop = new_loop(kind)

    async def use(pool):
        async with pool.acquire() as conn:
            return await fetch(conn, "SELECT 1")

    async def forks():
        async with ours.create_pool(dsn) as pool:
            leave_a_child()
            assert await asyncio.wait_for(use(pool), 5) == [(1,)]

    try:
        loop.run_until_complete(forks())
    finally:
        shut_down(loop)
