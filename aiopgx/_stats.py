"""What a pool counts, by psycopg_pool's names."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .pool import Pool


class Stats:
    """The counters of a pool, but for those that each acquire and release keeps in `PoolCore`."""

    __slots__ = (
        "connections_errors",
        "connections_lost",
        "connections_num",
        "connections_seconds",
        "requests_errors",
        "requests_queued",
        "requests_wait_seconds",
        "returns_bad",
    )

    def __init__(self) -> None:
        self.requests_queued = self.requests_errors = self.returns_bad = 0
        self.connections_num = self.connections_errors = self.connections_lost = 0
        self.requests_wait_seconds = self.connections_seconds = 0.0


def collect(pool: Pool, reset: bool) -> dict[str, int]:
    """The statistics of a pool. reset: count from 0 after this."""
    stats, requests = pool._stats, pool._requests
    usage = pool._used_for(reset)
    if reset:
        pool._stats, pool._requests = Stats(), 0
    return {
        "pool_min": pool._minsize,
        "pool_max": pool.maxsize or 0,
        "pool_size": pool.size,
        "pool_available": pool.freesize,
        "requests_waiting": pool._waiting,
        "requests_num": requests,
        "requests_queued": stats.requests_queued,
        "requests_wait_ms": int(stats.requests_wait_seconds * 1000),
        "requests_errors": stats.requests_errors,
        "usage_ms": int(usage * 1000),
        "returns_bad": stats.returns_bad,
        "connections_num": stats.connections_num,
        "connections_ms": int(stats.connections_seconds * 1000),
        "connections_errors": stats.connections_errors,
        "connections_lost": stats.connections_lost,
    }
