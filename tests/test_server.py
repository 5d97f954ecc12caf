"""The throw-away server: found, started, stopped, restarted, and never left behind."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psycopg2
import pytest

from aiopgx.tools import server

# The ports that the system gives to who asks for any.
EPHEMERAL = "/proc/sys/net/ipv4/ip_local_port_range"


def query(dsn, sql, **kwargs):
    conn = psycopg2.connect(dsn, **kwargs)
    try:
        conn.autocommit = True
        with conn.cursor() as cur:
            cur.execute(sql)
            return cur.fetchone() if cur.description else None
    finally:
        conn.close()


def until(done, seconds=10):
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def program(directory, name, output):
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    path.write_text(f"#!/bin/sh\necho '{output}'\n")
    path.chmod(0o755)


def installation(directory, version):
    program(directory, "initdb", "")
    program(directory, "postgres", f"postgres (PostgreSQL) {version}")
    return directory


@pytest.fixture
def binaries():
    try:
        return server.find_binaries()
    except server.ServerError:
        pytest.skip("no PostgreSQL binaries here")


@pytest.fixture
def cluster(binaries):
    with server.Cluster(binaries) as running:
        yield running


def test_answers_on_tcp_and_on_its_unix_socket(cluster):
    assert cluster.owned
    assert cluster.host == "127.0.0.1"
    assert str(cluster.port) in cluster.dsn
    for kwargs in ({}, {"host": str(cluster.directory)}):
        assert query(cluster.dsn, "SELECT 1", **kwargs) == (1,)


def test_settings(binaries):
    with server.Cluster(binaries, {"max_connections": 33}) as srv:
        for name, value in (
            ("max_connections", "33"),
            ("fsync", "off"),
            ("wal_level", "logical"),
            ("max_prepared_transactions", "20"),
            ("server_encoding", "UTF8"),
            ("TimeZone", "UTC"),
        ):
            assert query(srv.dsn, f"SHOW {name}") == (value,)


def test_restart_keeps_the_port_and_the_data(cluster):
    query(cluster.dsn, "CREATE TABLE kept AS SELECT 7 AS n")
    dsn, pid = cluster.dsn, cluster.pid
    cluster.restart()
    assert cluster.dsn == dsn
    assert cluster.pid != pid
    assert query(dsn, "SELECT n FROM kept") == (7,)


def test_stop_may_be_repeated_and_ends_in_restart_or_close(cluster):
    cluster.stop()
    cluster.stop()
    assert cluster.pid is None
    with pytest.raises(psycopg2.OperationalError):
        query(cluster.dsn, "SELECT 1")
    cluster.restart()
    assert query(cluster.dsn, "SELECT 1") == (1,)
    cluster.close()
    cluster.close()
    assert not cluster.directory.exists()


@pytest.mark.skipif(not Path(EPHEMERAL).exists(), reason="Linux says which ports it gives away")
def test_its_port_is_given_to_nobody_while_it_is_stopped():
    low, high = map(int, Path(EPHEMERAL).read_text().split())
    ports = {server._free_port() for _ in range(50)}
    assert len(ports) > 40
    assert not any(low <= port <= high for port in ports)


def test_takes_another_port_if_the_first_is_taken_meanwhile(binaries, monkeypatch):
    free_port = server._free_port
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = iter([taken.getsockname()[1], free_port()])
        monkeypatch.setattr(server, "_free_port", lambda: next(ports))
        with server.Cluster(binaries) as srv:
            assert srv.port != taken.getsockname()[1]
            assert query(srv.dsn, "SELECT 1") == (1,)


def test_error_has_the_end_of_the_log_and_leaves_nothing(binaries, monkeypatch):
    # not below pytest's own directory, which the server's user can't enter
    with tempfile.TemporaryDirectory(dir="/tmp") as parent:
        Path(parent).chmod(0o755)
        monkeypatch.setattr(server, "_parent_directory", lambda: parent)
        with pytest.raises(server.ServerError, match="max_connections"):
            server.Cluster(binaries, {"max_connections": "many"})
        assert list(Path(parent).iterdir()) == []


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_goes_away_when_its_process_is_killed(binaries, signum):
    code = (
        "import time; from aiopgx.tools import server\n"
        f"srv = server.Cluster(server.Path({str(binaries)!r}))\n"
        "print(srv.pid, srv.directory, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as proc:
        pid, directory = proc.stdout.readline().split()
        proc.send_signal(signum)
    until(lambda: not Path(directory).exists())
    until(lambda: not running(int(pid)))


def running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # An orphan that ended counts until somebody takes note of it.
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return not state.stdout.strip().startswith("Z")


def test_a_server_from_the_environment_is_left_alone(cluster, monkeypatch):
    monkeypatch.setenv("SOME_DSN", cluster.dsn)
    with server.start("SOME_DSN") as srv:
        assert (srv.dsn, srv.host, srv.port) == (cluster.dsn, cluster.host, cluster.port)
        assert not srv.owned
        srv.stop()
        with pytest.raises(server.ServerError, match="not started here"):
            srv.restart()
    assert query(cluster.dsn, "SELECT 1") == (1,)


def test_the_newest_installation_is_found(tmp_path, monkeypatch):
    installations = {
        version: installation(tmp_path / version, version) for version in ("9.6.3", "16.2", "16.10")
    }
    program(tmp_path / "client-only", "postgres", "postgres (PostgreSQL) 99.1")
    monkeypatch.setattr(server, "PLACES", (f"{tmp_path}/*",))
    monkeypatch.setattr(server, "_pg_config_bindir", lambda: None)
    monkeypatch.setenv("PATH", str(installations["9.6.3"]))
    # The programs are shell scripts, whose shell is named by its path.
    assert server.find_binaries() == installations["16.10"]


def test_the_package_is_used_without_being_imported(tmp_path, monkeypatch):
    package = tmp_path / server.PACKAGE
    bindir = installation(package / "pginstall" / "bin", "17.1")
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.setattr(server, "_installed", lambda: iter([("nowhere", None)]))
    monkeypatch.syspath_prepend(tmp_path)
    assert server.find_binaries() == bindir
    assert server.PACKAGE not in sys.modules


def test_the_error_names_all_that_was_tried(monkeypatch):
    monkeypatch.setattr(server, "PLACES", ("/nowhere/*/bin",))
    monkeypatch.setattr(server, "PACKAGE", "no_such_package")
    monkeypatch.setattr(server, "_pg_config_bindir", lambda: None)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(server.ServerError) as caught:
        server.find_binaries("SOME_DSN")
    for tried in ("SOME_DSN", "PATH", "pg_config", "/nowhere/*/bin", "no_such_package"):
        assert tried in str(caught.value)
