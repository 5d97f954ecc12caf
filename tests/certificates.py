"""Certificates for servers and clients, made by the program openssl.

`Certificate` is a self-signed one for 127.0.0.1; an `Authority` signs others.
"""

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


class Authority:
    """A certificate authority: `certificate`, and what it issues, as files for servers."""

    def __init__(self, name):
        self.directory = Path(tempfile.mkdtemp(prefix="aiopgx-", dir=server._parent_directory()))
        self.certificate = self.directory / "authority.pem"
        self.key = self.directory / "authority.key"
        files = ["-out", self.certificate, "-keyout", self.key]
        self._run([*OPENSSL.split(), "-subj", f"/CN={name}", *files])

    def issue(self, name, *, alternatives="", days=2):
        """(certificate, key) for a subject of that name; days: negative for an expired one."""
        paths = [self.directory / f"{name}.{kind}" for kind in ("pem", "key", "request", "names")]
        certificate, key, request, extensions = paths
        extensions.write_text(f"subjectAltName={alternatives}\n" if alternatives else "")
        new = OPENSSL.replace(" -x509", "").replace(" -days 2", "").split()
        self._run([*new, "-subj", f"/CN={name}", "-out", request, "-keyout", key])
        sign = ["openssl", "x509", "-req", "-CAcreateserial", "-days", str(days)]
        sign += ["-CA", self.certificate, "-CAkey", self.key, "-extfile", extensions]
        self._run([*sign, "-in", request, "-out", certificate])
        key.chmod(0o600)
        hand_over(certificate, key)
        return certificate, key

    def _run(self, command):
        subprocess.run(command, check=True, capture_output=True)

    def __enter__(self):
        hand_over(self.directory, self.certificate)
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.directory)


def hand_over(*paths):
    """Give files to the user as whom servers are started."""
    user = server._unprivileged_user()
    if user is not None:
        for path in paths:
            os.chown(path, *user)
