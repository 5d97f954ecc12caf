"""The end of a program whose queries still run: they are stopped, and nothing holds the end up."""

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

import pytest
from proxy import proxy
from psycopg2.extensions import make_dsn, parse_dsn
from support import nothing_left, running, scalar, side_connection, until

PROGRAM = Path(__file__).with_name("ending.py")
MARK = "at the end: "
LOOPS = ["asyncio", "uvloop"]
WAYS = [
    *("Ctrl-C", "wait_for", "close", "wait_for, run_until_complete", "close, run_until_complete"),
    "left",
]


@pytest.fixture
def looked_at(side):
    with nothing_left(side, MARK):
        yield side


async def end_of_each(looked_at, dsns, stopped=True):
    """Run a program for each way and loop, all at once.

    looked_at: connections that see the queries of all `dsns`.
    stopped: whether the queries are to be over soon after the end.
    """
    ends = [(way, kind) for way in WAYS for kind in LOOPS]
    outcomes = await asyncio.gather(
        *(end_of(way, kind, looked_at, dsns, stopped) for way, kind in ends),
        return_exceptions=True,
    )
    failed = {end: outcome for end, outcome in zip(ends, outcomes, strict=True) if outcome}
    assert not failed


async def end_of(way, kind, looked_at, dsns, stopped):
    mark = f"/* {MARK}{way} {kind} */"

    def count():
        return sum(running(side, mark) for side in looked_at)

    process = await asyncio.create_subprocess_exec(
        sys.executable, PROGRAM, way, kind, mark, *dsns, stderr=asyncio.subprocess.PIPE
    )
    said = asyncio.create_task(process.stderr.read())
    try:
        await until(lambda: said.done() or count() == len(dsns), 20)
        if way == "Ctrl-C":
            process.send_signal(signal.SIGINT)
        await asyncio.wait_for(process.wait(), 20)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    errors = (await said).decode()
    if way == "Ctrl-C":
        assert errors.strip().endswith("KeyboardInterrupt"), errors
    elif way != "left":
        assert errors == ""
    elif kind == "asyncio" and stopped:  # else, and by uvloop, they are never collected
        assert errors.count("Unclosed connection\n") == len(dsns), errors
    assert way == "Ctrl-C" or process.returncode == 0, errors
    if stopped:
        await until(lambda: count() == 0)


def unix_socket(dsn, side):
    """The same server, over its Unix socket if it has one here."""
    directory = scalar(side, "SHOW unix_socket_directories").split(",")[0].strip()
    if not os.path.exists(f"{directory}/.s.PGSQL.{side.info.port}"):
        return []
    return [make_dsn(dsn, host=directory)]


async def test_servers(dsn, looked_at):
    """Plain connections, over TCP and a Unix socket."""
    await end_of_each([looked_at], [dsn, *unix_socket(dsn, looked_at)])


@pytest.mark.needs("openssl")
@pytest.mark.needs("pgbouncer")
async def test_pooler_and_tls(dsn, looked_at, pooler, tls_server):
    """Behind PgBouncer, in the clear and over TLS; and a server over TLS."""
    bouncer, database = pooler("transaction"), parse_dsn(dsn)["dbname"]
    dsns = [bouncer.dsn(database), bouncer.dsn(database, sslmode="require"), tls_server.dsn]
    with side_connection(tls_server.dsn) as other, nothing_left(other, MARK):
        await end_of_each([looked_at, other], dsns)
    assert bouncer.alive


async def test_nobody_answers_the_request(dsn, looked_at):
    """The end is put off for a moment, not for as long as the peer likes."""
    with proxy(looked_at.info.port, deaf=True) as port:
        dsns = [make_dsn(dsn, host="127.0.0.1", port=port, sslmode="disable")]
        await end_of_each([looked_at], dsns, stopped=False)
