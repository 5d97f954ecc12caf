"""A standby server that follows a primary by streaming replication, started by the tests.

with server.Cluster(bindir) as primary, Standby(primary) as standby:
    primary.kill(); standby.promote()
"""

from __future__ import annotations

import os
import signal

from support import scalar, side_connection

from aiopgx.tools import server


class Standby(server.Cluster):
    """A copy of the primary's data that receives what is committed there, open for reading."""

    def __init__(self, primary):
        self.primary = primary
        super().__init__(primary.bindir)

    def _initdb(self, settings):
        """Copy the primary's data. What its ALTER SYSTEM has set is not taken over."""
        copy = self._popen(
            str(self.bindir / "pg_basebackup"),
            *("-h", str(self.primary.directory), "-p", str(self.primary.port), "-U", "postgres"),
            *("-D", str(self.data), "--checkpoint=fast", "--write-recovery-conf", "--no-sync"),
        )
        if copy.wait() != 0:
            raise self._failure("pg_basebackup failed")
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.write(f"unix_socket_directories = '{self.directory}'\n")
        lines = (self.data / "postgresql.auto.conf").read_text().splitlines(keepends=True)
        kept = [line for line in lines if "synchronous_standby_names" not in line]
        (self.data / "postgresql.auto.conf").write_text("".join(kept))

    def promote(self):
        """Make it the primary; return when it takes writes."""
        with side_connection(self.dsn) as conn:
            assert scalar(conn, "SELECT pg_promote()")


def kill(cluster):
    """End a server as a power failure does: all of its processes at once, without a word."""
    os.killpg(cluster.pid, signal.SIGKILL)  # each server has a session of its own
    cluster.stop()


def freeze(cluster):
    """Let a server's processes stop where they are; the kernel goes on accepting connections."""
    os.killpg(cluster.pid, signal.SIGSTOP)
