"""A server that is gone without a word: no packet of ours is answered any more, not even by TCP.

A `Proxy` that vanishes; what only its programs do not answer is test_links.py's. Keepalives and
`tcp_user_timeout` (milliseconds; Linux) end what nothing else would end before its `timeout`.
"""

import asyncio
import io
import time

import psycopg2
import pytest
from drills import LOOPS, descriptors, is_at_rest, pauses
from proxy import in_front
from psycopg2.extensions import parse_dsn
from support import asleep, fetch, nothing_left, until

BLACK_HOLE = pytest.mark.needs("a black hole")
KEPT = {"keepalives_idle": 1, "keepalives_interval": 1, "keepalives_count": 1}  # 2 seconds
GONE = "timed out|closed the connection unexpectedly"  # who writes hears less than who reads
SOON = 20  # seconds, on a machine that is busy; the connections' own timeouts are longer


@pytest.fixture
def link(dsn):
    with in_front(dsn) as proxy:
        yield proxy


@pytest.fixture
def long_query(side):
    with nothing_left(side, "pg_sleep(600)"):
        yield "SELECT pg_sleep(600)"


async def works(pool):
    async with pool.acquire() as conn:
        assert await fetch(conn, "SELECT 1") == [(1,)]


@BLACK_HOLE
@LOOPS
async def test_keepalives(ours, pool, link, side, long_query):
    """What rests, what listens and what waits for an answer: each is told."""
    made = await pool(link.dsn, minsize=3, maxsize=3, **KEPT)
    listening, asking = await made.acquire(), await made.acquire()
    tasks = [
        asyncio.ensure_future(listening.notifies.get()),
        asyncio.ensure_future(fetch(asking, long_query)),
    ]
    (resting,) = made._free
    await until(lambda: asleep(side, long_query))  # what was sent has come: all is silence now
    link.vanish()
    await asyncio.wait_for(asyncio.wait(tasks), SOON)
    for task in tasks:
        assert isinstance(task.exception(), psycopg2.OperationalError)
        assert "timed out" in str(task.exception())  # libpq's words for ETIMEDOUT
    await until(lambda: resting.closed, SOON)
    link.reappear()
    made.release(listening)
    made.release(asking)
    await works(made)
    await until(lambda: is_at_rest(made))


@BLACK_HOLE
@LOOPS
async def test_tcp_user_timeout(ours, pool, link):
    """A query that nobody acknowledges."""
    made = await pool(link.dsn, minsize=1, maxsize=1, tcp_user_timeout=200)
    link.vanish()
    async with made.acquire() as conn:
        with pytest.raises(psycopg2.OperationalError, match=GONE):
            await asyncio.wait_for(fetch(conn, "SELECT 1"), SOON)
        assert conn.closed
    link.reappear()
    await works(made)


@pytest.mark.needs("tcp_user_timeout")
@LOOPS
@pytest.mark.parametrize("what", ["text", "copy"])
async def test_tcp_user_timeout_of_what_can_not_be_sent(ours, pool, link, what):
    """The other end's kernel is there, and has no room: nobody reads."""

    class Source(io.StringIO):
        def read(self, size=-1):
            link.held = True
            return super().read(size)

    made = await pool(link.dsn, minsize=1, maxsize=1, tcp_user_timeout=200)
    much = "x" * 30_000_000
    async with made.acquire() as conn, conn.cursor() as cur:
        await cur.execute("CREATE TEMP TABLE target (t text)")
        if what == "text":
            link.held = True
            sending = cur.execute("SELECT length(%s)", (much,))
        else:
            sending = cur.copy_expert("COPY target FROM STDIN", Source(much))
        with pytest.raises(psycopg2.OperationalError, match=GONE):
            await asyncio.wait_for(sending, SOON)
        assert conn.closed
    link.held = False
    await works(made)


@BLACK_HOLE
@LOOPS
async def test_a_first_host_that_is_gone(ours, pool, dsn, link):
    """It costs each connect one connect_timeout, and connects run side by side."""
    port = parse_dsn(dsn)["port"]
    hosts = {"host": "127.0.0.1,127.0.0.1", "port": f"{link.port},{port}"}
    made = await pool(dsn, minsize=1, maxsize=6, connect_timeout=1, **hosts)
    link.vanish()
    start = time.monotonic()
    conns = await asyncio.wait_for(asyncio.gather(*(made.acquire() for _ in range(6))), SOON)
    assert 0.9 < time.monotonic() - start < 10
    for conn in conns:
        made.release(conn)
    async with made.acquire() as first, made.acquire() as second:
        assert str(second.raw.info.port) == port
        assert str(first.raw.info.port) in (str(link.port), port)


@BLACK_HOLE
@LOOPS
async def test_close(ours, pool, link, side, long_query):
    """It takes no time, and what it leaves behind is gone after cancel_timeout."""
    made = await pool(link.dsn, minsize=3, maxsize=3, cancel_timeout=0.3)
    before = descriptors()
    conns = [await made.acquire() for _ in range(3)]
    tasks = [asyncio.ensure_future(fetch(conn, long_query)) for conn in conns[1:]]
    await until(lambda: asleep(side, long_query) == 2)
    link.vanish()

    async def close():
        await conns[0].close()
        await conns[1].close()
        tasks[1].cancel()
        await asyncio.wait(tasks)

    loop = asyncio.get_running_loop()
    start = loop.time()
    assert await pauses(close()) < 1  # the event loop goes on
    assert loop.time() - start < 3
    assert isinstance(tasks[0].exception(), psycopg2.OperationalError) and tasks[1].cancelled()
    for conn in conns:
        made.release(conn)
    await until(lambda: is_at_rest(made) and made.size == 0)
    if psycopg2.__libpq_version__ >= 170000:  # else a thread waits in PQcancel, as long as TCP
        await until(lambda: descriptors() <= before - 3)
    made.close()
    await asyncio.wait_for(made.wait_closed(), 5)


@BLACK_HOLE
@LOOPS
@pytest.mark.parametrize("way", ["cancel", "timeout", "shared"])
async def test_the_loop_goes_on(ours, pool, link, side, long_query, way):
    """A request to stop a query connects to who is gone: nobody waits for that but who asked."""
    made = await pool(link.dsn, minsize=1, maxsize=1, cancel_timeout=0.3)

    async def stop():
        if way == "shared":
            with pytest.raises(asyncio.TimeoutError):
                await made.execute(long_query, timeout=0.2)
            return
        async with made.acquire() as conn:
            if way == "timeout":
                with pytest.raises(asyncio.TimeoutError):
                    await conn.execute(long_query, timeout=0.2)
                return
            task = asyncio.ensure_future(fetch(conn, long_query))
            await until(lambda: asleep(side, long_query))
            link.vanish()
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(conn.cancel(), 0.2)
            await conn.close()
            with pytest.raises(psycopg2.OperationalError):
                await task

    stopping = asyncio.ensure_future(stop())
    if way != "cancel":
        await until(lambda: asleep(side, long_query))
        link.vanish()
    assert await pauses(stopping) < 1
    await until(lambda: is_at_rest(made) and made.size == 0)
