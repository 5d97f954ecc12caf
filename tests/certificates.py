"""A self-signed certificate for 127.0.0.1, made by the program openssl."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from aiopgx.tools import server

OPENSSL = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
SUBJECT = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]


class Certificate:
    """Two files, `certificate` and `key`, that a server started by the tests may read."""

    def __init__(self):
        self.directory = Path(tempfile.mkdtemp(prefix="aiopgx-", dir=server._parent_directory()))
        self.certificate = self.directory / "certificate.pem"
        self.key = self.directory / "key.pem"
        subprocess.run(
            [*OPENSSL.split(), *SUBJECT, "-out", self.certificate, "-keyout", self.key],
            check=True,
            capture_output=True,
        )
        self.key.chmod(0o600)
        hand_over(self.directory, self.certificate, self.key)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.directory)


def hand_over(*paths):
    """Give files to the user as whom servers are started."""
    user = server._unprivileged_user()
    if user is not None:
        for path in paths:
            os.chown(path, *user)
