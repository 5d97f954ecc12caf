"""What `python -m aiopgx check` prints: this installation, and the server of a DSN."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from statistics import median
from typing import Any

import aiopgx

PACKAGES = ("uvloop", "SQLAlchemy", "aiopg", "asyncpg", "psycopg")
ROUND_TRIPS = 21

NO_SERVER = f"{'server':<15}not looked at: name one with --dsn, or by AIOPGX_DSN"

Line = tuple[str, object]


def installation() -> str:
    """Return what is installed here, and what the roads of aiopgx can do with it."""
    found = aiopgx.capabilities()
    version = found.libpq_version if found.native else 0
    lines: list[Line] = [
        ("aiopgx", aiopgx.__version__),
        ("Python", f"{platform.python_version()}, {platform.platform()}"),
    ]
    can: list[Line] = [
        ("prepared", "yes" if found.native else "no, on psycopg2's road"),
        ("pipeline", "yes" if version >= 140000 else "no, one statement after the other"),
        ("chunked rows", "yes" if version >= 170000 else "no, one by one" if version else "no"),
        *((name, known) for name in PACKAGES if (known := _version(name))),
    ]
    return "\n".join([_text(lines), str(found), _text(can)])


async def server(dsn: str, timeout: float = 10.0) -> str:
    """Connect, and return what is seen of the server and of the way to it. The password is not.

    timeout: seconds for the connection, and for each statement.
    Raises what `aiopgx.connect()` raises.
    """
    began = time.perf_counter()
    async with aiopgx.connect(dsn, timeout=timeout) as conn:
        connected = time.perf_counter() - began
        async with conn.cursor() as cur:
            lines = [
                *await _place(conn, cur),
                ("TLS", _tls(conn.raw.info)),
                ("connecting", f"{connected * 1e3:.1f} ms"),
                ("latency", f"{await _latency(cur) * 1e3:.2f} ms, the median of {ROUND_TRIPS}"),
                ("pooler", await _pooler(conn, cur)),
            ]
    return _text(lines)


def _text(lines: list[Line]) -> str:
    return "\n".join(f"{name:<15}{value}" for name, value in lines)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


async def _place(conn: Any, cur: Any) -> list[Line]:
    await cur.execute("SELECT version(), pg_is_in_recovery()")
    version, standby = await cur.fetchone()
    info = conn.raw.info
    where = f"{info.host}:{info.port}, database {info.dbname}, user {info.user}"
    return [("server", where), ("version", version), ("role", "standby" if standby else "primary")]


def _tls(info: Any) -> str:
    if not info.ssl_in_use:
        return "no"
    return f"{info.ssl_attribute('protocol')}, {info.ssl_attribute('cipher')}"


async def _latency(cur: Any) -> float:
    """Return the median of some round trips, in seconds."""

    async def trip() -> float:
        began = time.perf_counter()
        await cur.execute("SELECT")
        return time.perf_counter() - began

    return median([await trip() for _ in range(ROUND_TRIPS)])


async def _pooler(conn: Any, cur: Any) -> str:
    """Tell whether who answered the connection is who executes the statements."""
    await cur.execute("SELECT pg_backend_pid()")
    (pid,) = await cur.fetchone()
    if pid == conn.raw.info.backend_pid:
        return "none seen"
    return "between (statements run in another session than the one that was connected to)"
