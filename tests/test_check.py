"""`python -m aiopgx check`: what it says of the installation and of a server."""

import re

import psycopg2
import pytest
from psycopg2.extensions import make_dsn, parse_dsn

from aiopgx import __main__ as commands
from aiopgx.tools import check


def lines(capsys):
    """What was printed: each line's name, and the rest of it."""
    return {line[:15].strip(): line[15:] for line in capsys.readouterr().out.splitlines()}


@pytest.fixture(autouse=True)
def no_server_named(monkeypatch):
    monkeypatch.delenv("AIOPGX_DSN", raising=False)


def test_the_installation(capsys):
    assert commands.main(["check"]) == 0
    found = lines(capsys)
    assert {"aiopgx", "Python", "native road", "libpq", "psycopg2"} <= set(found)
    assert {"prepared", "pipeline", "chunked rows", "SQLAlchemy"} <= set(found)
    assert "--dsn" in found["server"]


@pytest.mark.parametrize(
    "native, libpq, pipeline, chunked",
    [(True, 170004, "yes", "yes"), (True, 160001, "yes", "no, one by one"),
     (True, 130001, "no, one statement after the other", "no, one by one"),
     (False, 170004, "no, one statement after the other", "no")],
)  # fmt: skip
def test_what_a_libpq_can_do(capsys, monkeypatch, native, libpq, pipeline, chunked):
    found = check.aiopgx.capabilities()
    fields = {**vars(found), "native": native, "libpq_version": libpq}
    monkeypatch.setattr(check.aiopgx, "capabilities", lambda: type(found)(**fields))
    assert commands.main(["check"]) == 0
    seen = lines(capsys)
    assert (seen["pipeline"], seen["chunked rows"]) == (pipeline, chunked)
    assert seen["prepared"].startswith("yes" if native else "no")


@pytest.mark.parametrize("named", ["option", "environment"])
def test_a_server(dsn, capsys, monkeypatch, named):
    if named == "environment":
        monkeypatch.setenv("AIOPGX_DSN", dsn)
    assert commands.main(["check", *(["--dsn", dsn] if named == "option" else [])]) == 0
    found = lines(capsys)
    wanted = parse_dsn(dsn)
    assert wanted["dbname"] in found["server"]
    assert found["version"].startswith("PostgreSQL")
    assert found["role"] == "primary"
    assert found["TLS"] == "no"
    assert re.fullmatch(r"[\d.]+ ms, the median of 21", found["latency"])
    assert found["pooler"] == "none seen"


@pytest.mark.needs("openssl")
def test_the_version_of_tls(tls_server, capsys):
    assert commands.main(["check", "--dsn", tls_server.dsn]) == 0
    assert re.match(r"TLSv1\.\d, \w+", lines(capsys)["TLS"])


@pytest.mark.needs("openssl")
@pytest.mark.needs("pgbouncer")
@pytest.mark.parametrize("mode", ["session", "transaction", "statement"])
def test_a_pooler_is_seen(dsn, pooler, capsys, mode):
    assert commands.main(["check", "--dsn", pooler(mode).dsn(parse_dsn(dsn)["dbname"])]) == 0
    assert lines(capsys)["pooler"].startswith("between")


def test_who_does_not_answer(capsys):
    where = "host=127.0.0.1 port=1 user=nobody password=geheim"
    assert commands.main(["check", "--dsn", where]) == 1
    captured = capsys.readouterr()
    assert "aiopgx" in captured.out
    assert captured.err.startswith("OperationalError")
    assert "geheim" not in captured.out + captured.err


def test_who_says_nothing(silent, capsys):
    where = f"host=127.0.0.1 port={silent} user=nobody sslmode=disable"
    assert commands.main(["check", "--timeout", "0.1", "--dsn", where]) == 1
    assert capsys.readouterr().err.startswith("TimeoutError")


@pytest.fixture
def silent():
    """The port of one that accepts connections, and no more."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def test_the_password_is_not_shown(dsn, capsys):
    assert commands.main(["check", "--dsn", make_dsn(dsn, password="geheim")]) == 0
    captured = capsys.readouterr()
    assert "geheim" not in captured.out + captured.err


@pytest.mark.parametrize(
    "command, wrong",
    [(command, wrong) for command in ("check", "bench") for wrong in (
        "postgres:geheim@host/db", "postgresql://u:geheim@[host/db", "host=h password='geheim",
        "postgresql://u:geheim@h:port:2/db%zz", "postgresql://u:geheim@h/db?nonsense=1",
    )],
)  # fmt: skip
def test_what_is_no_dsn(capsys, command, wrong):
    with pytest.raises(psycopg2.Error):
        parse_dsn(wrong)
    with pytest.raises(SystemExit) as ended:
        commands.main([command, "--dsn", wrong])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert "argument --dsn" in error
    assert "geheim" not in error


@pytest.mark.parametrize("wrong", ["postgresql://u:geh/eim@[::1/db", "host=h,i port=1,2"])
def test_the_port_is_no_number(capsys, wrong):
    """Where a "/" of a password was not quoted, a part of it stands in its place."""
    assert commands.main(["bench", "--dsn", wrong, "--rounds", "1"]) != 0
    captured = capsys.readouterr()
    assert "number of its port" in captured.err
    assert "geh" not in captured.out + captured.err


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "soon"])
def test_timeout_that_is_none(capsys, seconds):
    with pytest.raises(SystemExit):
        commands.main(["check", "--timeout", seconds])
    assert "argument --timeout" in capsys.readouterr().err
