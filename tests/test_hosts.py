"""Several hosts, several addresses of a name, names, and the time each of them gets."""

import asyncio
import contextlib
import socket
import threading
import time

import psycopg2
import pytest
from support import fetch, until

from aiopgx.hosts import plan
from aiopgx.tools import server


@contextlib.contextmanager
def silence():
    """The port of a listener that lets clients connect, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def resolver(monkeypatch):
    """Names that the test knows: name -> addresses; they are found once `go_on` is set."""
    real = socket.getaddrinfo

    class Resolver(dict):
        asked, go_on = threading.Event(), threading.Event()

    names = Resolver()

    def getaddrinfo(host, port, *args, **kwargs):
        if host not in names:
            return real(host, port, *args, **kwargs)
        names.asked.set()
        assert names.go_on.wait(20), "the loop stands still"
        if not names[host]:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port or 0))
            for address in names[host]
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return names


def ports(*numbers):
    return {"host": ",".join(["127.0.0.1"] * len(numbers)), "port": ",".join(map(str, numbers))}


@pytest.mark.all_loops
async def test_a_silent_host_costs_its_connect_timeout(ours, connect, side):
    with silence() as silent:
        start = time.monotonic()
        conn = await connect(**ports(silent, side.info.port), connect_timeout=1)
        assert 0.9 < time.monotonic() - start < 3
    assert await fetch(conn, "SELECT 1") == [(1,)]
    assert conn.raw.info.port == side.info.port


async def test_a_silent_host_alone(ours, connect):
    with silence() as silent:
        start = time.monotonic()
        with pytest.raises(psycopg2.OperationalError, match=rf"port {silent} failed: timeout exp"):
            await connect(**ports(silent), connect_timeout=1)
        assert time.monotonic() - start < 3


async def test_connect_timeout_from_the_environment(ours, connect, monkeypatch):
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "1")
    with silence() as silent, pytest.raises(psycopg2.OperationalError, match="timeout expired"):
        await connect(**ports(silent))


async def test_the_whole_has_its_own_timeout(ours, connect, side):
    with silence() as silent, pytest.raises(asyncio.TimeoutError):
        await connect(**ports(silent, side.info.port), connect_timeout=30, timeout=0.3)


async def test_a_refused_host(ours, connect, side, refused):
    conn = await connect(**ports(refused, side.info.port))
    assert await fetch(conn, "SELECT 1") == [(1,)]


async def test_each_host_is_named_with_its_reason(ours, connect, refused):
    with silence() as silent, pytest.raises(psycopg2.OperationalError) as caught:
        await connect(
            host="127.0.0.1,127.0.0.1,nowhere.invalid",
            port=f"{refused},{silent},1",
            connect_timeout=1,
        )
    text = str(caught.value)
    assert f'"127.0.0.1", port {refused} failed: ' in text
    assert "Connection refused" in text
    assert f'"127.0.0.1", port {silent} failed: timeout expired' in text
    assert 'could not translate host name "nowhere.invalid" to address' in text


async def test_one_address_has_the_text_of_psycopg2(ours, connect, dsn, refused):
    with pytest.raises(psycopg2.OperationalError) as expected:
        psycopg2.connect(dsn, host="127.0.0.1", port=refused)
    with pytest.raises(psycopg2.OperationalError) as caught:
        await connect(host="127.0.0.1", port=refused)
    assert "Connection refused" in str(caught.value)
    assert "Connection refused" in str(expected.value)


async def test_a_server_that_refuses_ends_the_search(ours, connect, side):
    """As libpq: only servers that can't be reached, or have no time, are passed over."""
    with pytest.raises(psycopg2.OperationalError, match=r'role "nobody_of_this_name"') as caught:
        await connect(**ports(side.info.port, side.info.port), user="nobody_of_this_name")
    assert str(caught.value).count("nobody_of_this_name") == 1
    assert f"port {side.info.port} failed: FATAL:  role" in str(caught.value)


@pytest.fixture(scope="module")
def read_only():
    """The port of a server whose sessions are read-only."""
    settings = {"default_transaction_read_only": "on"}
    with server.Cluster(server.find_binaries(), settings) as cluster:
        yield cluster.port


@pytest.mark.parametrize(
    ("wanted", "found"), [("read-write", 1), ("read-only", 0), ("any", 0), ("primary", 0)]
)
async def test_target_session_attrs(ours, connect, server_dsn, side, read_only, wanted, found):
    numbers = [read_only, side.info.port]
    conn = await connect(server_dsn, **ports(*numbers), target_session_attrs=wanted)
    assert conn.raw.info.port == numbers[found]


async def test_prefer_standby_takes_a_primary_in_the_end(ours, connect, side, refused):
    conn = await connect(**ports(refused, side.info.port), target_session_attrs="prefer-standby")
    assert await fetch(conn, "SELECT 1") == [(1,)]


def test_hosts_in_random_order(ours):
    hosts = plan("host=127.0.0.1,127.0.0.2,127.0.0.3 load_balance_hosts=random", {})
    orders = {tuple(host.host for host in hosts.in_order(hosts.hosts)) for _ in range(200)}
    assert len(orders) == 6


@pytest.mark.parametrize(
    ("dsn", "hosts"),
    [
        ("postgresql://a:1,b:2/db", [("a", None, "1"), ("b", None, "2")]),
        ("host=a,b port=7", [("a", None, "7"), ("b", None, "7")]),
        ("hostaddr=127.0.0.1,::1", [(None, "127.0.0.1", None), (None, "::1", None)]),
        ("host=/tmp,localhost", [("/tmp", None, None), ("localhost", None, None)]),
        ("host=db.example", [("db.example", None, None)]),
    ],
)
def test_plans(ours, dsn, hosts):
    assert plan(dsn, {}).hosts == hosts


@pytest.mark.parametrize(
    "dsn", ["", "host=127.0.0.1", "host=::1", "host=/tmp", "host=a hostaddr=127.0.0.1", "dbname=x"]
)
def test_one_address_is_left_to_libpq(ours, dsn):
    assert plan(dsn, {}) is None


def test_hosts_of_the_environment(ours, monkeypatch):
    monkeypatch.setenv("PGHOST", "a,b")
    monkeypatch.setenv("PGPORT", "1,2")
    assert plan("dbname=x", {}).hosts == [("a", None, "1"), ("b", None, "2")]
    assert plan("host=127.0.0.1 port=1", {}) is None


@pytest.mark.parametrize("arguments", [{"no_such_option": 1}, {"dsn": "host='"}])
async def test_bad_arguments_are_refused_at_once(impl, arguments):
    with pytest.raises(psycopg2.ProgrammingError):
        impl.connect(**arguments)


async def test_ports_that_do_not_match(ours, connect):
    with pytest.raises(psycopg2.OperationalError, match="could not match"):
        await connect(host="a,b", port="1,2,3")


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.all_loops
async def test_a_name_with_several_addresses(ours, dsn, side, monkeypatch):
    """Each address is tried; the name stays, for TLS and passwords."""
    loop = asyncio.get_running_loop()
    real = loop.getaddrinfo
    found = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0))
        for address in ("127.0.0.99", "127.0.0.1")
    ]

    async def getaddrinfo(host, *args, **kwargs):
        return found if host == "db.test" else await real(host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(loop), "getaddrinfo", lambda self, *a, **k: getaddrinfo(*a, **k))
        conn = await ours.connect(dsn, host="db.test")
    assert conn.raw.info.host == "db.test"
    assert "hostaddr" not in conn.dsn
    assert "db.test" in conn.dsn
    assert await fetch(conn, "SELECT 1") == [(1,)]
    await conn.close()


# uvloop resolves names in libuv, where no test can make it slow
@pytest.mark.parametrize("loop_kind", ["asyncio"])
async def test_a_slow_resolver_does_not_stop_the_loop(ours, connect, resolver):
    resolver["slow.test"] = ["127.0.0.1"]
    task = asyncio.ensure_future(connect(host="slow.test"))
    await until(resolver.asked.is_set)
    assert not task.done()
    resolver.go_on.set()
    assert await fetch(await task, "SELECT 1") == [(1,)]


# uvloop resolves names in libuv, where no test can make it slow
@pytest.mark.parametrize("loop_kind", ["asyncio"])
async def test_a_slow_resolver_and_a_timeout(ours, connect, resolver):
    resolver["slow.test"] = ["127.0.0.1"]
    with pytest.raises(asyncio.TimeoutError, match=r"slow\.test"):
        await connect(host="slow.test", timeout=0.1)
    resolver.go_on.set()


async def test_an_unknown_name(ours, connect):
    with pytest.raises(psycopg2.OperationalError) as expected:
        psycopg2.connect("host=nowhere.invalid")
    with pytest.raises(psycopg2.OperationalError) as caught:
        await connect(host="nowhere.invalid")
    assert str(caught.value).strip() == str(expected.value).strip()


async def test_the_dsn_shows_no_password(ours, connect, dsn):
    conn = await connect(dsn, host="localhost", password="secret")
    assert "secret" not in conn.dsn
    assert "localhost" in conn.dsn
    assert "secret" not in repr(vars(conn).get("_plan"))


async def test_cancelled_in_the_middle(ours, dsn):
    with silence() as silent:
        task = asyncio.ensure_future(ours.connect(**ports(silent, silent), connect_timeout=5))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_never_awaited(ours):
    connection = ours.connection.Connection("host=a,b", 1)
    assert not connection.closed
    assert "Connection" in repr(connection)
    connection.close()
    del connection


async def test_awaited_twice(ours, dsn):
    connection = ours.connection.Connection(dsn, 5, host="localhost")
    await connection
    with pytest.raises(RuntimeError, match="connected before"):
        await connection
    assert await fetch(connection, "SELECT 1") == [(1,)]
    await connection.close()
