"""TLS and passwords: who is let in, who is believed to be the server, what goes in clear."""

import asyncio
import contextlib
import socket

import psycopg2
import psycopg2.extensions
import pytest
from certificates import Authority
from drills import LOOPS
from middle import SSL_REQUEST, middle
from proxy import CANCEL_REQUEST, Proxy
from roads import unknown
from support import fetch, running, scalar, side_connection, underway, until

from aiopgx import _libpq
from aiopgx.tools import server

pytestmark = pytest.mark.needs("openssl")

HERE = "IP:127.0.0.1,DNS:localhost,DNS:db.test"
ACCESS = """
local   all postgres trust
host    all scram    127.0.0.1/32 scram-sha-256
hostssl all clear    127.0.0.1/32 password
hostssl all alice    127.0.0.1/32 cert
host    all postgres 127.0.0.1/32 trust
"""
SETUP = """
    CREATE ROLE scram LOGIN PASSWORD 'right';
    CREATE ROLE clear LOGIN PASSWORD 'right';
    CREATE ROLE alice LOGIN;
"""


@pytest.fixture(scope="module")
def authority():
    with Authority("an authority that we trust") as authority:
        yield authority


@pytest.fixture(scope="module")
def stranger():
    with Authority("an authority that nobody knows") as authority:
        yield authority


@pytest.fixture(scope="module")
def certificates(authority, stranger):
    """(certificate, key) of servers, by what is the matter with them."""
    return {
        "good": authority.issue("good.test", alternatives=HERE),
        "wrong name": authority.issue("other.test"),
        "expired": authority.issue("expired.test", alternatives=HERE, days=-1),
        "unknown authority": stranger.issue("good.test", alternatives=HERE),
    }


@pytest.fixture(scope="module")
def secure(authority, certificates):
    """A server with TLS that looks at passwords and certificates."""
    access = authority.directory / "pg_hba.conf"
    access.write_text(ACCESS)
    certificate, key = certificates["good"]
    settings = {
        "ssl": "on",
        "ssl_cert_file": certificate,
        "ssl_key_file": key,
        "ssl_ca_file": authority.certificate,
        "password_encryption": "scram-sha-256",
        "hba_file": access,
    }
    access.chmod(0o644)
    with server.Cluster(server.find_binaries(), settings) as running:
        with side_connection(running.dsn) as side, side.cursor() as cursor:
            cursor.execute(SETUP)
        yield running


@pytest.fixture
def enter(impl, secure, runner):
    """Connect to the secure server as somebody; a port of another in front of it may be given."""

    async def enter(user, port=None, *, host="127.0.0.1", **options):
        conn = await impl.connect(
            host=host, port=port or secure.port, user=user, dbname="postgres", **options
        )
        runner.stack.callback(conn.close)
        return conn

    return enter


async def refused(connecting, text):
    with pytest.raises(psycopg2.OperationalError, match=text):
        await connecting


# --- whether it is the server ---------------------------------------------------------------------

VERDICTS = {
    # certificate: what sslmode=verify-full, verify-ca and require say to it
    "good": (None, None, None),
    "wrong name": ('certificate for "other.test" does not match', None, None),
    "expired": ("certificate has expired|certificate verify failed",) * 2 + (None,),
    "unknown authority": ("certificate verify failed",) * 2 + (None,),
}
MODES = ["verify-full", "verify-ca", "require"]


@LOOPS
@pytest.mark.parametrize("kind", VERDICTS)
async def test_certificates_of_servers(enter, secure, authority, certificates, kind):
    with middle(secure.port, certificate=certificates[kind]) as port:
        for mode, text in zip(MODES, VERDICTS[kind], strict=True):
            root = authority.certificate if mode != "require" else "/nowhere"
            connecting = enter("postgres", port, sslmode=mode, sslrootcert=str(root))
            if text is None:
                assert await fetch(await connecting, "SELECT 1") == [(1,)]
            else:
                await refused(connecting, text)


async def test_the_name_is_checked_that_was_given(ours, enter, secure, authority, monkeypatch):
    """Not the address which it has, that we ask the resolver for."""
    loop = asyncio.get_running_loop()

    async def getaddrinfo(self, host, *args, **kwargs):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]

    options = {"sslmode": "verify-full", "sslrootcert": str(authority.certificate)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(loop), "getaddrinfo", getaddrinfo)
        await enter("postgres", host="db.test", **options)
        await refused(
            enter("postgres", host="evil.test", **options), 'does not match host name "evil.test"'
        )


async def test_require_with_a_file_of_authorities(enter, secure, authority, certificates):
    """It is verify-ca then."""
    options = {"sslmode": "require", "sslrootcert": str(authority.certificate)}
    for kind in ("wrong name", "unknown authority"):
        with middle(secure.port, certificate=certificates[kind]) as port:
            if kind == "wrong name":
                await enter("postgres", port, **options)
            else:
                await refused(enter("postgres", port, **options), "certificate verify failed")


async def test_verify_full_needs_an_authority(enter):
    await refused(
        enter("postgres", sslmode="verify-full", sslrootcert="/nowhere"), "root certificate file"
    )


# --- a man in the middle --------------------------------------------------------------------------


@LOOPS
async def test_who_downgrades_is_refused(enter, secure, authority):
    """He says that the server has no TLS."""
    with middle(secure.port, answer=b"N") as port:
        for mode in MODES:
            root = {"sslrootcert": str(authority.certificate)} if mode != "require" else {}
            await refused(
                enter("postgres", port, sslmode=mode, **root), "server does not support SSL"
            )
        conn = await enter("postgres", port, sslmode="prefer")  # which asks for no more
        assert await fetch(conn, "SELECT ssl FROM pg_stat_ssl WHERE pid=pg_backend_pid()") == [
            (False,)
        ]


async def test_what_stands_in_clear_behind_the_answer_is_refused(enter, secure, certificates):
    """It could have been put there by anybody (CVE-2021-23222)."""
    with middle(secure.port, certificate=certificates["good"], answer=b"SZ\0\0\0\5I") as port:
        await refused(enter("postgres", port, sslmode="require"), "unencrypted data")


async def test_channel_binding_finds_him_out(enter, secure, certificates):
    """He has a certificate that the client takes, and the client's password goes through him."""
    with middle(secure.port, certificate=certificates["unknown authority"]) as port:
        given = {"sslmode": "require", "password": "right"}
        await enter("scram", port, **given)
        await refused(enter("scram", port, channel_binding="require", **given), "channel binding")


# --- passwords ------------------------------------------------------------------------------------


@LOOPS
@pytest.mark.parametrize("binding", ["disable", "prefer", "require"])
async def test_scram(enter, binding):
    options = {"sslmode": "require", "channel_binding": binding}
    conn = await enter("scram", password="right", **options)
    assert await fetch(conn, "SELECT user::text") == [("scram",)]
    await refused(
        enter("scram", password="wrong", **options), "password authentication failed for user"
    )
    await refused(enter("scram", **options, passfile="/nowhere"), "no password supplied")


async def test_channel_binding_where_there_is_none(enter):
    text = "channel binding required"
    required = {"channel_binding": "require", "password": "right"}
    await refused(enter("postgres", sslmode="disable", **required), text)
    await refused(enter("clear", sslmode="require", **required), text)


async def test_a_server_that_asks_for_less(enter):
    """libpq 16 can insist on a method, so that an impostor can't ask for the password itself."""
    asked = {"sslmode": "require", "password": "right", "require_auth": "scram-sha-256"}
    if psycopg2.extensions.libpq_version() < 160000:
        with pytest.raises(psycopg2.ProgrammingError, match="require_auth"):
            await enter("scram", **asked)
        return
    await enter("scram", **asked)
    await refused(enter("clear", **asked), "requirement")
    await refused(enter("postgres", **asked), "requirement")


@LOOPS
async def test_certificates_of_clients(impl, enter, authority, stranger):
    def files(pair):
        return {"sslmode": "require", "sslcert": str(pair[0]), "sslkey": str(pair[1])}

    conn = await enter("alice", **files(authority.issue("alice")))
    assert await fetch(conn, "SELECT user::text") == [("alice",)]
    await refused(enter("alice", sslmode="require"), "valid client certificate")
    await refused(enter("alice", **files(authority.issue("bob"))), "certificate authentication")
    if impl.__name__ == "aiopgx":  # aiopg may wait for a socket that libpq has closed
        foreign = files(stranger.issue("alice"))
        await refused(enter("alice", **foreign), "unknown ca|SSL error|closed")
    certificate, key = authority.issue("alice")
    key.chmod(0o644)
    await refused(enter("alice", **files((certificate, key))), "group or world access")


# --- what comes -----------------------------------------------------------------------------------


@pytest.fixture(params=[99, 16], ids=["libpq", "libpq16"])
def libpq(request):
    """What is there, and what libpq 16 has."""
    _libpq.limit(request.param)
    yield
    _libpq.limit(99)


# The last record of the answer is larger than what libpq has room for behind the row before it.
ROWS = "SELECT repeat('x', 6500) FROM generate_series(1, 5)"


@LOOPS
@pytest.mark.parametrize("way", ["execute", "stream", "copy", "pipeline", "cursor class"])
async def test_large_records(ours, enter, secure, certificates, way, libpq):
    """An older libpq leaves a part in OpenSSL, of which no event tells.

    That of psycopg2-binary 2.9.10 (16.0) does, that of 2.9.13 (17.11) does not.
    """
    with middle(secure.port, certificate=certificates["good"], gather=True) as port:
        conn = await enter("postgres", port, sslmode="require", timeout=10)
        for _ in range(3):
            assert await taken(conn, way) == [6500] * 5
        conn.close()


async def taken(conn, way):
    """The lengths of the rows, that come in one of several ways."""
    factory = unknown(psycopg2.extensions.cursor) if way == "cursor class" else None
    async with conn.cursor(cursor_factory=factory) as cursor:
        if way == "copy":
            lines = []
            await cursor.copy_expert(f"COPY ({ROWS}) TO STDOUT", lines.append)
            return [len(line.strip()) for line in lines]
        if way == "stream":
            return [len(text) async for (text,) in cursor.stream(ROWS, size=1)]
        if way == "pipeline":
            async with conn.pipeline(), conn.cursor() as other:
                await other.execute(ROWS)
                await cursor.execute(ROWS)
        else:
            await cursor.execute(ROWS)
        return [len(text) for (text,) in await cursor.fetchall()]


# --- cancel requests ------------------------------------------------------------------------------


@contextlib.contextmanager
def listening(port):
    proxy = Proxy(port)
    try:
        yield proxy, proxy.listener.getsockname()[1]
    finally:
        proxy.stop()


@LOOPS
@pytest.mark.parametrize("way", ["cancel", "timeout", "close"])
async def test_cancel_requests_are_encrypted(ours, enter, secure, way):
    """Where the session is, with libpq 17; an older one knows them only in clear."""
    with listening(secure.port) as (proxy, port), side_connection(secure.dsn) as side:
        conn = await enter("postgres", port, sslmode="require")
        cursor = await conn.cursor()
        mark = f"/* {way} */"
        timeout = 0.3 if way == "timeout" else None
        task = await underway(conn, cursor.execute(f"SELECT pg_sleep(30) {mark}", timeout=timeout))
        await until(lambda: running(side, mark) or task.done())
        if way == "cancel":
            task.cancel()
        elif way == "close":
            conn.close()
        await asyncio.wait([task])
        with pytest.raises((asyncio.CancelledError, asyncio.TimeoutError, psycopg2.Error)):
            await task
        await until(lambda: running(side, mark) == 0)
        asked = proxy.starts[1:]
    assert asked
    expected = SSL_REQUEST if ours.capabilities().async_cancel else CANCEL_REQUEST
    assert {start[: len(expected)] for start in asked} == {expected}


async def test_sessions_are_encrypted(ours, secure):
    """All of a pool."""
    sql = (
        "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) "
        "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    async with ours.create_pool(secure.dsn, sslmode="require", minsize=3) as connections:
        with side_connection(secure.dsn, sslmode="disable") as side:
            assert connections.size == 3
            assert scalar(side, sql)


# --- the same for all connections of a program ----------------------------------------------------


class Swapped:
    """What stands on one port: the server at first, somebody else from some time on."""

    def __init__(self, proxy, port):
        self.proxy, self.port = proxy, port

    def stand_in(self, port):
        """From now on this one answers; who is connected is cut off."""
        self.proxy.server_port = port
        self.proxy.end()


@pytest.fixture
def swapped(secure):
    with listening(secure.port) as (proxy, port):
        yield Swapped(proxy, port)


@LOOPS
async def test_a_pool_that_connects_again_asks_for_no_less(
    ours, secure, swapped, authority, certificates
):
    """He comes later: with a certificate of somebody else, or with none."""
    options = {"sslmode": "verify-full", "sslrootcert": str(authority.certificate)}
    place = {"host": "127.0.0.1", "port": swapped.port, "user": "postgres", "dbname": "postgres"}
    async with ours.create_pool(**place, **options, minsize=2, maxsize=2) as pool:
        for certificate, answer in [
            (certificates["wrong name"], b"S"),
            (certificates["unknown authority"], b"S"),
            (None, b"N"),
        ]:
            with middle(secure.port, certificate=certificate, answer=answer) as port:
                swapped.stand_in(port)
                await until(lambda: all(conn.closed for conn in pool._free))
                with pytest.raises(psycopg2.OperationalError):
                    async with pool.acquire():
                        pass
                with pytest.raises(psycopg2.OperationalError):
                    await pool.execute("SELECT 1")
                await until(lambda: not pool._connects)
        swapped.stand_in(secure.port)
        async with pool.acquire() as conn:
            assert await fetch(conn, "SELECT 1") == [(1,)]


@LOOPS
async def test_each_of_several_hosts_is_verified(ours, secure, authority, certificates):
    """The first is somebody else: the second one is asked, and nothing was said to the first."""
    options = {"sslmode": "verify-full", "sslrootcert": str(authority.certificate)}
    for certificate, answer in [(certificates["unknown authority"], b"S"), (None, b"N")]:
        with middle(secure.port, certificate=certificate, answer=answer) as port:
            conn = await ours.connect(
                **{"host": "127.0.0.1,localhost", "port": f"{port},{secure.port}"},
                **{"user": "scram", "password": "right", "dbname": "postgres", **options},
            )
            assert conn.raw.info.port == secure.port
            assert await fetch(conn, "SELECT ssl FROM pg_stat_ssl WHERE pid=pg_backend_pid()") == [
                (True,)
            ]
            await conn.close()


@LOOPS
@pytest.mark.parametrize("way", ["cancel()", "task", "close"])
async def test_cancel_requests_go_to_nobody_else(
    ours, secure, swapped, authority, certificates, way
):
    """They are verified as the session was: who stands there now learns no key by which to cancel.

    libpq 17; an older one sends them in clear.
    """
    if not ours.capabilities().async_cancel:
        return
    options = {"sslmode": "verify-full", "sslrootcert": str(authority.certificate)}
    for certificate, answer, mode in [
        (certificates["unknown authority"], b"S", "verify-full"),
        (None, b"N", "verify-full"),
        (None, b"N", "require"),
        (None, b"N", "prefer"),  # which asks for no more
    ]:
        options["sslmode"] = mode
        conn = await ours.connect(
            **{"host": "127.0.0.1", "port": swapped.port, "user": "postgres"},
            **{"dbname": "postgres", "cancel_timeout": 0.2, **options},
        )
        told = bytearray()
        with (
            side_connection(secure.dsn) as side,
            middle(secure.port, certificate=certificate, answer=answer, told=told) as port,
        ):
            mark = f"/* {way} {answer} {mode} */"
            task = await underway(conn, fetch(conn, f"SELECT pg_sleep(30) {mark}"))
            await until(lambda: running(side, mark))  # noqa: B023
            swapped.proxy.server_port = port
            asked = len(swapped.proxy.starts)
            if way == "cancel()":
                with pytest.raises(asyncio.TimeoutError):
                    await conn.cancel()
            elif way == "task":
                task.cancel()
            else:
                conn.close()
            await until(lambda: len(swapped.proxy.starts) > asked)  # noqa: B023
            assert swapped.proxy.starts[asked][:8] == SSL_REQUEST
            task.cancel()
            await asyncio.wait([task])
            await conn.close()
            if mode == "prefer":
                await until(lambda: told.startswith(CANCEL_REQUEST))  # noqa: B023
            else:
                assert not told
            scalar(
                side,
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                "WHERE query LIKE %s AND pid <> pg_backend_pid()",
                (f"%{mark}%",),
            )
        swapped.proxy.server_port = secure.port
