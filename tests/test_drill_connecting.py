"""Drills: given up in the midst of connecting, in TLS' handshake, SCRAM, and what follows.

See test_drill_cancel.py for what connect() and pools do beyond that (on_connect, hstore).
"""

import asyncio
import contextlib
import threading
import time

import pytest
from drills import LOOPS, nothing_left
from proxy import Proxy
from psycopg2.extensions import make_dsn
from support import LONG, side_connection, until

from aiopgx.tools import server

pytestmark = pytest.mark.needs("openssl")

PIECES = 30  # no dialogue has as many
ACCESS = """
local   all postgres trust
hostssl all scram    127.0.0.1/32 scram-sha-256
host    all postgres 127.0.0.1/32 trust
"""


class Halting(Proxy):
    """Passes on so many pieces of what the server sends, and holds back what follows.

    `halted` tells whether something is held back.
    """

    def __init__(self, port, pieces):
        self.pieces = pieces
        self.halted = threading.Event()
        super().__init__(port, half_close=False)

    def _answer(self, link, data):
        if self.pieces:
            self.pieces -= 1
            super()._answer(link, data)
            return
        self.halted.set()
        while not (link.ended or self.stopping.is_set()):
            time.sleep(0.005)


@contextlib.contextmanager
def halting(port, pieces):
    running = Halting(port, pieces)
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def secure(certificate):
    """A server that lets `scram` in with TLS and a password."""
    access = certificate.certificate.parent / "pg_hba.conf"
    access.write_text(ACCESS)
    access.chmod(0o644)
    settings = {
        "ssl": "on",
        "ssl_cert_file": certificate.certificate,
        "ssl_key_file": certificate.key,
        "password_encryption": "scram-sha-256",
        "hba_file": access,
    }
    with server.Cluster(server.find_binaries(), settings) as running:
        with side_connection(running.dsn) as side, side.cursor() as cursor:
            cursor.execute("CREATE ROLE scram LOGIN PASSWORD 'right'")
        yield running


@pytest.fixture
def looks_on(secure):
    with side_connection(secure.dsn) as conn:
        yield conn


async def connected(ours, pool, dsn, timeout):
    async with ours.connect(dsn, timeout=timeout, cancel_timeout=0.1) as conn:
        await one(conn, timeout)


async def acquired(ours, pool, dsn, timeout):
    async with pool.acquire(timeout=timeout) as conn:
        await one(conn, timeout)


async def one(conn, timeout):
    async with conn.cursor() as cur:
        await cur.execute("SELECT 1", timeout=timeout)
        assert await cur.fetchall() == [(1,)]


async def shared(ours, pool, dsn, timeout):
    cur = await pool.execute("SELECT 1", timeout=timeout)
    assert await cur.fetchall() == [(1,)]


WORKS = pytest.mark.parametrize(
    "work", [connected, acquired, shared], ids=lambda work: work.__name__
)
PLACE = {"host": "127.0.0.1", "user": "scram", "password": "right", "sslmode": "require"}


@contextlib.asynccontextmanager
async def behind(proxy, ours, secure, looks_on):
    """A pool of one connection, of which nothing is left, and a dsn for others of its name."""
    dsn = make_dsn(secure.dsn, port=proxy.port, **PLACE)
    options = {"minsize": 0, "maxsize": 1, "cancel_timeout": 0.1}
    async with nothing_left(ours, dsn, looks_on, **options) as pool:
        name = pool._conn_kwargs["application_name"]
        yield pool, make_dsn(dsn, application_name=name)
        proxy.pieces = PIECES  # for whoever comes next
        await acquired(ours, pool, dsn, 60)


@LOOPS
@WORKS
async def test_cancelled_at_each_piece(ours, secure, looks_on, work):
    """From a server that says nothing at all to one whose last word is held back."""
    for pieces in range(PIECES):
        with halting(secure.port, pieces) as proxy:
            async with behind(proxy, ours, secure, looks_on) as (pool, dsn):
                if not await cancelled_when_halted(work(ours, pool, dsn, 60), proxy):
                    break
    assert 3 < pieces < PIECES - 1  # TLS, SCRAM, let in, an answer


async def cancelled_when_halted(coro, proxy):
    """Await a coroutine, and cancel it when something is held back; whether that was."""
    task = asyncio.ensure_future(coro)
    await until(lambda: task.done() or proxy.halted.is_set())
    if task.done():
        task.result()
        return False
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return True


@LOOPS
@WORKS
async def test_out_of_time(ours, secure, looks_on, work):
    for pieces in range(7):
        with halting(secure.port, pieces) as proxy:
            async with behind(proxy, ours, secure, looks_on) as (pool, dsn):
                with contextlib.suppress(asyncio.TimeoutError):
                    await work(ours, pool, dsn, 0.2 if LONG else 0.03)
