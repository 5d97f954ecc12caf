"""What a pool may do besides giving out connections: by keyword, nothing of it is done by default.

`check=` and `reset=` are called by the pool, where somebody waits for what comes of them. What
nobody waits for is here: connections that are unused or old are closed, and missing ones are made,
with pauses where the server can't be reached.
"""

from __future__ import annotations

import asyncio
import math
import operator
import random
import weakref
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import psycopg2

from .log import logger

if TYPE_CHECKING:
    from .connection import Connection
    from .pool import Pool

# Seconds between the attempts to connect to a server that can't be reached: doubled each time. So
# the pool has connections at most about a second after the server's return.
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 1.0

# A connection lives up to this part shorter than max_lifetime, so that those which were made
# together don't end together.
JITTER = 0.05

# The error of who asks a pool that is closed, or waits for one that is terminated.
CLOSED = "Cannot acquire connection after closing pool"


class TooManyRequests(psycopg2.OperationalError):  # type: ignore[misc, unused-ignore]
    """Raised by `Pool.acquire()` when `max_waiting` others wait already.

    psycopg_pool has it by the same name. New in aiopgx.
    """


async def check_connection(conn: Connection) -> None:
    """Ask the server for an answer: for `check=` of a pool. New in aiopgx."""
    (await conn.execute("SELECT 1")).close()


async def discard_all(conn: Connection) -> None:
    """Make a session as good as new by `Connection.reset()`: for `reset=` of a pool.

    Settings (search_path, TimeZone ...), LISTENs, temporary tables, advisory locks, the role,
    prepared statements and named cursors are gone, and so are notifications and notices that nobody
    has read. What `on_connect` has SET is gone as well: give that as `options="-c name=value"`.
    New in aiopgx.
    """
    await conn.reset()
    del conn.notices[:]


def seconds(name: str, value: float | None) -> float | None:
    """The value of an argument that is a time, or None."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds or None, not {value!r}")
    if not value > 0:
        raise ValueError(f"{name} must be above 0, but is {value!r}")
    return value


def check_sizes(minsize: int, maxsize: int | None) -> None:
    """Raise TypeError or ValueError for sizes that no pool can have. maxsize: None is no limit."""
    for name, size in (("minsize", minsize), ("maxsize", maxsize or 0)):
        try:
            operator.index(size)
        except TypeError:
            raise TypeError(f"{name} must be an int, not {size!r}") from None
    if minsize < 0:
        raise ValueError("minsize should be zero or greater")
    if maxsize and maxsize < minsize:
        raise ValueError("maxsize should be not less than minsize")


def check_recycle(pool_recycle: float) -> None:
    """Raise TypeError for what can't be compared with seconds, as it will be."""
    try:
        pool_recycle > 0.0  # noqa: B015
    except TypeError:
        text = f"pool_recycle must be a number of seconds, not {pool_recycle!r}"
        raise TypeError(text) from None


def count(name: str, value: int | None) -> int | None:
    """The value of an argument that is a number of things, or None."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {value!r}")
    if value < 0:
        raise ValueError(f"{name} must not be negative, but is {value!r}")
    return value


def hook(name: str, value: Any) -> Any:
    """The value of an argument that is a coroutine function, or None."""
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be a coroutine function or None, not {value!r}")
    return value


async def within(limit: float | None, awaitable: Awaitable[Any]) -> None:
    """Await for so many seconds, or raise `asyncio.TimeoutError`.

    asyncio.wait_for() may swallow a cancellation before Python 3.12.
    """
    task = asyncio.ensure_future(awaitable)
    try:
        await asyncio.wait([task], timeout=limit)
    finally:
        task.add_done_callback(_heard)  # also if it is done, and the wait was cancelled
        if not task.done():
            task.cancel()
    if not task.done():
        raise asyncio.TimeoutError(f"not done within {limit:g} s")
    task.result()


def _heard(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()


class Pauses:
    """The pauses between attempts: each is twice the one before, shortened at random."""

    def __init__(self) -> None:
        self._next = FIRST_PAUSE

    def next(self) -> float:
        pause = self._next * random.uniform(0.5, 1.0)
        self._next = min(2 * self._next, LONGEST_PAUSE)
        return pause


class Outage:
    """The time in which connects fail: one attempt at a time, with pauses."""

    def __init__(self, start: float, limit: float) -> None:
        self.start = start
        self.give_up_at: float = start + limit
        self.attempts = 0
        self.error: BaseException | None = None
        self.timer: asyncio.TimerHandle | None = None
        self._pauses = Pauses()

    def pause(self, now: float) -> float:
        return min(self._pauses.next(), max(0.0, self.give_up_at - now))


class Upkeep:
    """The settings of a pool that are for the background, and the timers that see to them.

    max_lifetime, max_idle, reconnect_timeout: as for `create_pool()`.

    The loop holds the timers, these hold the pool weakly: it ends by its reference count.
    """

    def __init__(
        self,
        pool: Pool,
        max_lifetime: float | None,
        max_idle: float | None,
        reconnect_timeout: float | None,
    ) -> None:
        self.max_lifetime: float | None = seconds("max_lifetime", max_lifetime)
        self.max_idle: float | None = seconds("max_idle", max_idle)
        self.reconnect_timeout: float | None = seconds("reconnect_timeout", reconnect_timeout)
        self.outage: Outage | None = None
        self._pool = weakref.ref(pool)
        self._loop = pool._loop
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self.started: bool = False

    def start(self) -> None:
        """The pool has its first connections: from now on they are seen to."""
        self.started = True
        if self.max_idle is not None:
            self._every("idle", self.max_idle, Upkeep._shrink)
        if self.max_lifetime is not None:
            self._every("lifetime", self.max_lifetime * JITTER, Upkeep._close_expired)

    def _every(self, name: str, period: float, action: Callable[[Upkeep, Pool], None]) -> None:
        if math.isinf(period):
            return

        def run(me: weakref.ref[Upkeep]) -> None:
            self = me()
            pool = None if self is None else self._pool()
            if self is not None and pool is not None and not pool._closing:
                self._timers[name] = self._loop.call_later(period, run, me)
                action(self, pool)

        self._timers[name] = self._loop.call_later(period, run, weakref.ref(self))

    def stop(self) -> bool:
        """Do nothing more; whether that ends the pause between two attempts to connect."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        outage, self.outage = self.outage, None
        if outage is None or outage.timer is None:
            return False
        outage.timer.cancel()
        return True

    # Old and unused connections

    def welcome(self, conn: Any) -> None:
        """A new connection: it has a last day, and its end is heard of."""
        if self.max_lifetime is not None:
            lifetime = self.max_lifetime * (1 - JITTER * random.random())
            conn._expires_at = self._loop.time() + lifetime
        conn._notifies.when_closed(_Lost(self._pool))

    def expired(self, conn: Any) -> bool:
        return self._loop.time() >= getattr(conn, "_expires_at", math.inf)

    def _shrink(self, pool: Pool) -> None:
        """Close what was not needed at any time since the last look, down to `minsize`."""
        for _ in range(min(pool._unused, pool.size - pool._minsize, len(pool._free))):
            pool._free.popleft().close()
        pool._unused = len(pool._free)

    def _close_expired(self, pool: Pool) -> None:
        for conn in [conn for conn in pool._free if self.expired(conn)]:
            pool._free.remove(conn)
            conn.close()
        pool._top_up()

    # Outages

    @property
    def pausing(self) -> bool:
        """Whether no connect may be started: the server could not be reached just now."""
        return self.outage is not None

    def failed(self, pool: Pool, error: BaseException) -> None:
        """A connect has failed: try again after a pause, or give up."""
        assert self.reconnect_timeout is not None
        now = self._loop.time()
        if self.outage is None:
            self.outage = Outage(now, self.reconnect_timeout)
            logger.warning("%r can't connect, tries again: %s", pool, _line(error))
        outage = self.outage
        outage.error = error
        outage.attempts += 1
        if now >= outage.give_up_at:
            self.outage = None
            logger.error(
                "%r gives up to connect after %d attempts in %.1f s: %s",
                pool,
                outage.attempts,
                now - outage.start,
                _line(error),
            )
            pool._give_up(error, now - outage.start)

    def succeeded(self, pool: Pool) -> None:
        """A connect has come to its end: whatever waits may be started."""
        outage, self.outage = self.outage, None
        if outage is None:
            return
        if outage.timer is not None:
            outage.timer.cancel()
        logger.warning(
            "%r connects again, after %d attempts in %.1f s",
            pool,
            outage.attempts,
            self._loop.time() - outage.start,
        )

    def go_on(self, pool: Pool) -> None:
        """See to the next attempt, if none is under way."""
        outage = self.outage
        if outage is None or outage.timer is not None or pool._connects:
            return
        pause = outage.pause(self._loop.time())
        outage.timer = self._loop.call_later(pause, _try_again, self._pool)


def _try_again(ref: weakref.ref[Pool]) -> None:
    pool = ref()
    if pool is None or pool._upkeep is None or (outage := pool._upkeep.outage) is None:
        return
    outage.timer = None
    unserved = pool._unserved()
    if not unserved and (ticket := pool._sharing.unserved(pool)) is not None:
        unserved = [ticket]
    if unserved:
        pool._start_connect(unserved[0])
    elif pool._short and not pool._closing:
        pool._start_connect(None)
    elif not pool._connects:
        pool._upkeep.outage = None  # nobody needs a connection


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or repr(error)


class _Lost:
    """Called when a connection has come to its end: others take its place."""

    def __init__(self, pool: weakref.ref[Pool]) -> None:
        self._pool = pool

    def __call__(self, _: object) -> None:
        pool = self._pool()
        if pool is None or pool._closing or pool._upkeep is None or not pool._upkeep.started:
            return
        for conn in [conn for conn in pool._free if conn.closed]:
            pool._free.remove(conn)
            conn.close()
            pool._stats.connections_lost += 1
        pool._top_up()
