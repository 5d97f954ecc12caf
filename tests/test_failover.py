"""Failover: a primary and its streaming standby, DSNs of several hosts, PgBouncer in between."""

import asyncio
import itertools
import socket
import time

import psycopg2
import pytest
from drills import LOOPS
from psycopg2.extensions import make_dsn
from replicas import Standby, freeze, kill
from support import scalar, side_connection, until

from aiopgx.tools import server

WRITERS = 8
WITHIN = 10.0  # seconds after the promotion, on a machine that is busy


@pytest.fixture(scope="module")
def cluster():
    """Holds the server that is the primary now."""
    with server.Cluster(server.find_binaries(), {"synchronous_commit": "on"}) as first:
        current = {"primary": first}
        with side_connection(first.dsn) as side, side.cursor() as cursor:
            cursor.execute("CREATE TABLE written (run int, n int)")
        yield current
        current["primary"].close()


@pytest.fixture
def pair(cluster):
    """(primary, standby): what is committed on the one is on the other before it is told."""
    primary = cluster["primary"]
    standby = Standby(primary)
    with side_connection(primary.dsn) as side, side.cursor() as cursor:
        cursor.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        cursor.execute("SELECT pg_reload_conf()")
        deadline = time.monotonic() + 10
        while scalar(side, "SELECT count(*) FROM pg_stat_replication WHERE sync_state='sync'") < 1:
            assert time.monotonic() < deadline, standby.log_tail()
            time.sleep(0.01)
    yield primary, standby
    primary.close()
    cluster["primary"] = standby  # the test has promoted it


def both(pair, **more):
    """A DSN of the two."""
    ports = ",".join(str(one.port) for one in pair)
    given = {"host": "127.0.0.1,127.0.0.1", "port": ports, "user": "postgres", "dbname": "postgres"}
    return make_dsn(
        **given,
        target_session_attrs="read-write",
        application_name="failover",
        **more,
    )


class Writers:
    """Tasks that write numbers through a pool, one after the other, as long as they may."""

    runs = itertools.count()

    def __init__(self, pool, count=WRITERS):
        self.pool = pool
        self.run = next(self.runs)
        self.numbers = itertools.count()
        self.told = []  # what was committed, for all that we were told
        self.errors = []
        self.stopping = False
        self.tasks = [asyncio.create_task(self._write()) for _ in range(count)]

    async def _write(self):
        while not self.stopping:
            number = next(self.numbers)
            try:
                async with self.pool.acquire() as conn:
                    await conn.execute("INSERT INTO written VALUES (%s, %s)", (self.run, number))
            except (psycopg2.Error, asyncio.TimeoutError) as error:
                self.errors.append(error)
                await asyncio.sleep(0.02)
            else:
                self.told.append(number)

    async def progress(self, seconds=WITHIN):
        """Wait until each has written again."""
        enough = len(self.told) + 3 * len(self.tasks)
        await until(lambda: len(self.told) >= enough or self.failed(), seconds)
        assert not self.failed()

    def failed(self):
        return [task for task in self.tasks if task.done()]

    async def stop(self):
        self.stopping = True
        await asyncio.wait_for(asyncio.gather(*self.tasks), 20)

    def stored(self, dsn):
        with side_connection(dsn) as side, side.cursor() as cursor:
            cursor.execute("SELECT n FROM written WHERE run = %s", (self.run,))
            return [number for (number,) in cursor.fetchall()]

    def check(self, dsn):
        """Nothing that was told to be committed is lost, nothing was done twice."""
        stored = self.stored(dsn)
        assert len(stored) == len(set(stored))
        assert set(self.told) <= set(stored)
        # of those that failed, the COMMIT of each writer's last one may have been done
        assert len(set(stored) - set(self.told)) <= len(self.tasks)


async def at_rest(pool):
    """Wait until nobody has a connection of the pool, nor waits for one, nor makes one."""
    await until(lambda: pool.size == pool.freesize > 0 and not pool._connects)


@LOOPS
async def test_the_primary_is_killed_and_the_standby_promoted(ours, pool, pair):
    primary, standby = pair
    connections = await pool(both(pair, connect_timeout=2), minsize=5, timeout=5)
    writers = Writers(connections)
    await writers.progress()
    kill(primary)
    await until(lambda: writers.errors)
    await asyncio.to_thread(standby.promote)
    await writers.progress(WITHIN)
    await writers.stop()
    writers.check(standby.dsn)
    await at_rest(connections)
    assert {conn.raw.info.port for conn in connections._free} == {standby.port}
    assert {type(error) for error in writers.errors} <= {
        psycopg2.OperationalError,
        psycopg2.InterfaceError,
        psycopg2.errors.AdminShutdown,
    }
    connections.terminate()
    await connections.wait_closed()
    with side_connection(standby.dsn) as side:
        count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'failover'"
        await until(lambda: scalar(side, count) == 0)


@LOOPS
async def test_a_frozen_primary_costs_one_connect_timeout_per_connect(ours, pool, pair):
    """It accepts connections and says nothing: a host whose power or network is gone."""
    primary, standby = pair
    freeze(primary)
    await asyncio.to_thread(standby.promote)
    start = time.monotonic()
    connections = await pool(both(pair, connect_timeout=1), minsize=4)
    assert time.monotonic() - start < 3.9  # all at once
    assert {conn.raw.info.port for conn in connections._free} == {standby.port}
    kill(primary)


async def test_while_there_is_no_primary(ours, pool, pair):
    """The error names each host with its reason, and nobody waits for longer than that takes."""
    primary, standby = pair
    connections = await pool(both(pair, connect_timeout=2), minsize=1)
    kill(primary)
    await until(lambda: any(conn.closed for conn in connections._free))
    with pytest.raises(psycopg2.OperationalError) as caught:
        await asyncio.wait_for(connections.acquire(), 10)
    lines = str(caught.value).splitlines()
    assert f'"127.0.0.1", port {primary.port} failed: ' in lines[0]
    assert "Connection refused" in lines[0]
    assert f'"127.0.0.1", port {standby.port} failed: session is read-only' in str(caught.value)
    assert connections.size == 0
    standby.promote()
    async with connections.acquire() as conn:
        await conn.execute("INSERT INTO written VALUES (-1, -1)")
    await at_rest(connections)


async def test_a_primary_that_was_demoted(ours, pool, pair):
    """It lives and refuses to write: its connections have to be closed by those who see that."""
    primary, standby = pair
    connections = await pool(both(pair), minsize=3)
    with side_connection(primary.dsn) as side, side.cursor() as cursor:
        cursor.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        cursor.execute("SELECT pg_reload_conf()")

    @ours.retry(delay=0.05, errors=(psycopg2.errors.ReadOnlySqlTransaction,))
    async def write():
        async with connections.acquire() as conn:
            written_to.append(conn.raw.info.port)
            try:
                await conn.execute("INSERT INTO written VALUES (-1, -1)")
            except psycopg2.errors.ReadOnlySqlTransaction:
                conn.close()
                raise

    written_to = []
    await asyncio.to_thread(standby.promote)
    for _ in range(3):
        await write()
    assert written_to[-1] == standby.port
    await at_rest(connections)


@LOOPS
async def test_a_restart(ours, pool, cluster):
    """The same server comes back: the pool works again at once."""
    primary = cluster["primary"]
    connections = await pool(primary.dsn, minsize=5)
    writers = Writers(connections)
    await writers.progress()
    await asyncio.to_thread(primary.restart)
    await writers.progress()
    await writers.stop()
    writers.check(primary.dsn)
    await at_rest(connections)


@pytest.mark.needs("pgbouncer")
@pytest.mark.needs("openssl")
@LOOPS
async def test_behind_pgbouncer(ours, pool, cluster, bouncer):
    """Its server goes away and comes back."""
    primary = cluster["primary"]
    before = bouncer(primary.dsn, "transaction", server_login_retry=0.2)
    connections = await pool(before.dsn("postgres"), minsize=5, timeout=5)
    writers = Writers(connections)
    await writers.progress()
    kill(primary)
    await until(lambda: writers.errors)
    await asyncio.to_thread(primary.restart)
    await writers.progress(WITHIN)
    await writers.stop()
    writers.check(primary.dsn)
    await at_rest(connections)


async def test_a_name_is_looked_up_at_each_connect(ours, dsn, pool, monkeypatch):
    """So a failover by DNS needs no restart of the program."""
    loop = asyncio.get_running_loop()
    real = loop.getaddrinfo
    address = "127.0.0.1"

    async def getaddrinfo(self, host, *args, **kwargs):
        if host != "db.test":
            return await real(host, *args, **kwargs)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0))]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(loop), "getaddrinfo", getaddrinfo)
        connections = await pool(dsn, host="db.test", minsize=1)
        address = "127.0.0.77"  # nobody there
        with pytest.raises(psycopg2.OperationalError, match="Connection refused"):
            async with connections.acquire(), connections.acquire():
                pass
        address = "127.0.0.1"
        async with connections.acquire(), connections.acquire():
            assert connections.size == 2
