"""An example in a process of its own, and HTTP spoken to it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent
SECONDS = 20


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: str

    def json(self):
        assert self.headers["Content-Type"].startswith("application/json"), self
        return json.loads(self.body)


class Service:
    """An example that was started; see `starting` and `running`.

    output: what it printed until it listened.
    """

    def __init__(self, name, dsn, port, errors):
        self.errors = errors
        environment = {k: v for k, v in os.environ.items() if k != "AIOPGX_DSN"}
        if dsn is not None:
            environment["AIOPGX_DSN"] = dsn
        command = [sys.executable, "-W", "default::ResourceWarning"]
        self.process = subprocess.Popen(
            [*command, str(EXAMPLES / name), "--port", str(port)],
            cwd=tempfile.gettempdir(),
            env=environment,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )
        self.output = ""

    def wait_until_it_listens(self):
        while not (found := re.search(r"http://127\.0\.0\.1:(\d+)\b", self.output)):
            line = self.process.stdout.readline()
            assert line, f"it ended with {self.process.wait(SECONDS)}: {self.read_errors()}"
            self.output += line
        self.url, self.port = found[0], int(found[1])

    def read_errors(self):
        self.errors.seek(0)
        return self.errors.read()

    def stop(self, number=signal.SIGTERM):
        """End it with a signal, cleanly, and return what it wrote to standard error."""
        self.process.send_signal(number)
        assert self.process.wait(SECONDS) == 0, self.read_errors()
        return self.read_errors()

    def open(self, method, path, body=None, headers=()):
        """Send a request, and return the response as it begins: `read`, `readline`, `close`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        headers = {"Connection": "close", **dict(headers)}
        if body is not None and not isinstance(body, str):
            body, headers = json.dumps(body), {"Content-Type": "application/json", **headers}
        connection.request(method, path, body, headers)
        return connection.getresponse()

    def ask(self, method, path, body=None, headers=()):
        with self.open(method, path, body, headers) as response:
            return Answer(response.status, response.headers, response.read().decode())

    def get(self, path):
        return self.ask("GET", path)

    def post(self, path, body):
        return self.ask("POST", path, body)

    def submit(self, path, form):
        return self.ask("POST", path, form, {"Content-Type": "application/x-www-form-urlencoded"})


@contextlib.contextmanager
def starting(name, dsn, port=0):
    """Start a service, on a throw-away PostgreSQL if there is no DSN, and end it, however."""
    with tempfile.TemporaryFile("w+") as errors:
        service = Service(name, dsn, port, errors)
        with service.process as process:
            try:
                yield service
            finally:
                process.kill()


@contextlib.contextmanager
def running(name, dsn, port=0):
    """A service that listens; it must end cleanly and have complained of nothing."""
    with starting(name, dsn, port) as service:
        service.wait_until_it_listens()
        yield service
        if service.process.poll() is None:
            complaints = service.stop()
            assert not complaints, complaints


def until(condition):
    """Wait until condition() is true and return its value; fail after SECONDS."""
    deadline = time.monotonic() + SECONDS
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not so within {SECONDS} s"
        time.sleep(0.01)
    return value


def rows(conn, sql, parameters=None):
    """All rows of one statement on a synchronous connection."""
    with conn.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchall() if cursor.description else None
