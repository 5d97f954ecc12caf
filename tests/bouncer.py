"""PgBouncer, a pooler in front of a server, started by the tests.

with PgBouncer(server_dsn, "transaction", certificate) as pooler:
    psycopg2.connect(pooler.dsn("database"))
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from certificates import hand_over
from psycopg2.extensions import make_dsn, parse_dsn

from aiopgx.tools import server

MODES = ["session", "transaction", "statement"]
# Debian has it where only root looks for programs.
PROGRAM = shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin")

CONFIGURATION = """
[databases]
* = {server}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
pool_mode = {mode}
auth_type = any
max_client_conn = 500
default_pool_size = 60
ignore_startup_parameters = extra_float_digits
server_tls_sslmode = disable
client_tls_sslmode = allow
client_tls_cert_file = {certificate}
client_tls_key_file = {key}
{more}
"""


class PgBouncer:
    """One pooler, which lets everybody in, with TLS or without, as the user of `server_dsn`.

    settings: more of its settings, in the place of those above.
    """

    def __init__(self, server_dsn, mode, certificate, **settings):
        self.directory = Path(
            tempfile.mkdtemp(prefix="aiopgx-bouncer-", dir=server._parent_directory())
        )
        self.log = self.directory / "log"
        options = parse_dsn(server_dsn)
        given = {
            name: options[name] for name in ("host", "port", "user", "password") if name in options
        }
        self.settings = {
            "server": make_dsn(**given),
            "mode": mode,
            "certificate": certificate.certificate,
            "key": certificate.key,
            "more": "\n".join(f"{name} = {value}" for name, value in settings.items()),
        }

    def _start(self):
        """Start it on a free port. It refuses to run as root."""
        self.port = server._free_port()
        configuration = self.directory / "ini"
        configuration.write_text(CONFIGURATION.format(port=self.port, **self.settings))
        hand_over(self.directory, configuration)
        user = server._unprivileged_user()
        identity = {}
        if user is not None:
            identity = {"user": user[0], "group": user[1], "extra_groups": []}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [PROGRAM, str(configuration)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
                **identity,
            )

    def __enter__(self):
        self._start()
        deadline = time.monotonic() + 20
        while f"listening on 127.0.0.1:{self.port}" not in (log := self.log.read_text()):
            assert time.monotonic() < deadline, f"pgbouncer does not listen:\n{log}"
            if not self.alive:  # somebody else has taken the port meanwhile
                assert "in use" in log, f"pgbouncer did not start:\n{log}"
                self._start()
            time.sleep(0.01)
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)  # at once: it does not wait for its clients
        self.process.wait(10)
        shutil.rmtree(self.directory)

    @property
    def alive(self):
        return self.process.poll() is None

    def dsn(self, dbname, sslmode="disable"):
        return make_dsn(
            host="127.0.0.1", port=self.port, user="postgres", dbname=dbname, sslmode=sslmode
        )
