"""The programs that the documentation shows (docs/code), as their readers start them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import quote

import pytest
from aiopgx.tools import server
from psycopg2.extensions import parse_dsn

from service import SECONDS, rows, until

CODE = Path(__file__).parents[2] / "docs" / "code"

UVICORN = ("-m", "uvicorn", "--log-level", "warning", "--app-dir", str(CODE))
PROGRAMS = {
    "fastapi_app": (*UVICORN, "fastapi_app:app", "--port", "{port}"),
    "starlette_app": (*UVICORN, "starlette_app:app", "--port", "{port}"),
    "aiohttp_app": (str(CODE / "aiohttp_app.py"),),
    "tornado_app": (str(CODE / "tornado_app.py"),),
}


def url_of(dsn, scheme="postgresql"):
    """A URL that shows up in the server's list of connections by the name of the application."""
    options = parse_dsn(dsn)
    user = quote(options["user"])
    if "password" in options:
        user += ":" + quote(options["password"], safe="")
    place = f"{user}@{options['host']}:{options['port']}/{options['dbname']}"
    return f"{scheme}://{place}?application_name=docs_code"


def listens(process, port):
    assert process.poll() is None, process.stderr.read()
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def ask(port, method, path, body=None):
    connection = HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    headers = {"Content-Type": "application/json", "Connection": "close"}
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    with connection.getresponse() as response:
        text = response.read()
        return response.status, json.loads(text) if response.status < 400 else None


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_web_framework(name, dsn, side):
    """It serves, answers as it says, and has closed its pool when it ends."""
    rows(side, "DROP TABLE IF EXISTS note")
    port = server._free_port()
    with subprocess.Popen(
        [sys.executable, "-W", "error", *(part.format(port=port) for part in PROGRAMS[name])],
        env={**os.environ, "DATABASE_URL": url_of(dsn), "PORT": str(port)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            until(lambda: listens(process, port))
            assert ask(port, "POST", "/notes", {"text": "a"}) == (201, {"id": 1, "text": "a"})
            assert ask(port, "POST", "/notes", {"text": "a"}) == (409, None)
            assert ask(port, "GET", "/notes/1") == (200, {"id": 1, "text": "a"})
            assert ask(port, "GET", "/notes/7") == (404, None)
            process.send_signal(signal.SIGTERM)
            assert process.wait(SECONDS) in (0, -signal.SIGTERM)
            errors = process.stderr.read()
            assert "Error" not in errors and "Unclosed" not in errors, errors
        finally:
            process.kill()
    sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'docs_code'"
    assert until(lambda: rows(side, sql) == [(0,)])


def test_alembic(dsn, side, tmp_path):
    """`models`, the async template and the URL: nothing else is changed."""

    def alembic(*arguments):
        environment = {**os.environ, "PYTHONPATH": str(CODE)}
        command = [sys.executable, "-m", "alembic", *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=SECONDS
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def tables():
        sql = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
        return [name for (name,) in rows(side, sql)]

    def change(file, before, after):
        text = (tmp_path / file).read_text()
        assert before in text
        (tmp_path / file).write_text(text.replace(before, after))

    rows(side, "DROP TABLE IF EXISTS note")
    alembic("init", "--template", "async", "migrations")
    url = url_of(dsn, "postgresql+aiopgx").replace("%", "%%")
    change("alembic.ini", "driver://user:pass@localhost/dbname", url)
    change("migrations/env.py", "target_metadata = None", "from models import Base")
    change("migrations/env.py", "import Base\n", "import Base\n\ntarget_metadata = Base.metadata\n")
    alembic("revision", "--autogenerate", "-m", "first tables")
    alembic("upgrade", "head")
    assert tables() == ["alembic_version", "author", "book"]
    alembic("check")  # nothing is left to be migrated
    alembic("downgrade", "base")
    assert tables() == ["alembic_version"]
