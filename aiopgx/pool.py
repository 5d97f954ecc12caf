"""Connection pool.

Who gets which connection is decided by `PoolCore`, at once and without locks; what takes time, a
connect, runs in a task of its own and its result goes to whoever waits first.
"""

import asyncio
import math
import warnings
import weakref
from collections.abc import Awaitable, Callable, Generator
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

import psycopg2
from psycopg2.extensions import TRANSACTION_STATUS_IDLE

from ._buffers import find, held
from ._cancel import LAST
from ._core import check_timeout
from ._pool import PoolCore, is_alive, status_of, why_dead
from ._pool_contexts import _PoolConnectionContextManager
from ._pool_contexts import _PoolCursorContextManager as _PoolCursorContextManager
from ._shared import Sharing
from ._stats import Stats, collect
from .connection import TIMEOUT, Connection, connect
from .connection import Cursor as Cursor
from .guard import guarded, renewed, rest, wake
from .log import logger
from .pool_cursors import PoolCursors
from .pool_hooks import acquire_checked, pass_on, release_reset
from .pool_upkeep import (
    CLOSED,
    TooManyRequests,
    Upkeep,
    check_recycle,
    check_sizes,
    count,
    hook,
)
from .rows import Row, RowFactory, T
from .shared import MAX_IN_FLIGHT
from .tracing import tracing_of
from .utils import CONNECTING, _ContextManager, create_completed_future, get_running_loop, trim

_Hook = Callable[[Connection], Awaitable[Any]]
_P = TypeVar("_P", bound="Pool[Any]")


def create_pool(
    dsn: str | None = None,
    *,
    minsize: int = 1,
    maxsize: int = 10,
    timeout: float = TIMEOUT,
    pool_recycle: float = -1.0,
    max_in_flight: int = MAX_IN_FLIGHT,
    enable_json: bool = True,
    enable_hstore: bool = True,
    enable_uuid: bool = True,
    echo: bool | str = False,
    on_connect: _Hook | None = None,
    name: str | None = None,
    check: _Hook | None = None,
    reset: _Hook | None = None,
    max_waiting: int = 0,
    max_lifetime: float | None = None,
    max_idle: float | None = None,
    reconnect_timeout: float | None = None,
    max_buffer: int | None = None,
    guard: bool = False,
    row_factory: RowFactory[T] | None = None,
    **kwargs: Any,
) -> "_ContextManager[Pool[T]]":
    """Make a pool of connections: await it, or use it in `async with`, which closes the pool.

    minsize: so many connections are made now, all at once; if one fails, its error is raised.
    maxsize: so many connections at most; 0 is no limit.
    timeout: seconds that `acquire()` may take, and the connections' own default timeout.
    pool_recycle: seconds after which an unused connection is closed instead of given out again;
        -1 is never.
    max_in_flight: how many statements of `execute()` may share a connection.
    on_connect: a coroutine function, called with each new connection before it is given out.

    What follows is new in aiopgx and off by default, most of it by psycopg_pool's names. See
    docs/pool.md.

    name: of the pool, in logs and in its repr.
    check: a coroutine function, called with a connection before `acquire()` gives it out; one for
        which it raises is replaced. `aiopgx.check_connection` asks the server.
    reset: a coroutine function, called with a connection that was released, before anyone else
        gets it; one for which it raises, or takes longer than `timeout`, is closed.
        `aiopgx.discard_all` makes the session as good as new.
    max_waiting: so many acquires may wait; the next raises `TooManyRequests`. 0 is no limit.
    max_lifetime: seconds after which a connection is replaced, up to 5% less at random.
    max_idle: seconds after which connections above minsize that were not needed are closed.
    reconnect_timeout: seconds in which failed connects are repeated, with growing pauses, before
        those who wait get the error. Lost connections are replaced in the background.
    max_buffer: bytes; a released connection whose buffers have grown larger is closed.
    guard: refuse the use of a connection, and of its cursors, after its release.
    row_factory: what makes the rows, as for `connect()`.

    Everything else is as for `connect()`. A `tracer` is told of acquires, too, and of how long
    connections are used. A connection that was closed with a query in flight keeps
    its place, `cancel_timeout` seconds at most, until the server has stopped the query.
    """
    if row_factory is not None:  # which functions put in the place of connect() may not know
        kwargs["row_factory"] = row_factory
    coro = Pool.from_pool_fill(
        dsn,
        minsize,
        maxsize,
        timeout,
        enable_json=enable_json,
        enable_hstore=enable_hstore,
        enable_uuid=enable_uuid,
        echo=echo,
        on_connect=on_connect,
        pool_recycle=pool_recycle,
        max_in_flight=max_in_flight,
        name=name,
        check=check,
        reset=reset,
        max_waiting=max_waiting,
        max_lifetime=max_lifetime,
        max_idle=max_idle,
        reconnect_timeout=reconnect_timeout,
        max_buffer=max_buffer,
        guard=guard,
        **kwargs,
    )
    return _ContextManager(coro, _destroy_pool)


async def _destroy_pool(pool: "Pool[Any]") -> None:
    pool.close()
    await pool.wait_closed()


class Pool(PoolCore, PoolCursors[Row]):
    """A pool of connections; made by `create_pool()`.

    Connections are given out first in, first out, and so are waiting acquires served. `async with
    pool` closes the pool at the end; `with (await pool) as conn` takes a connection for a block.
    """

    def __init__(
        self,
        dsn: str | None = None,
        minsize: int = 1,
        maxsize: int | None = 10,
        timeout: float | None = TIMEOUT,
        *,
        enable_json: bool = True,
        enable_hstore: bool = True,
        enable_uuid: bool = True,
        echo: bool | str = False,
        on_connect: _Hook | None = None,
        pool_recycle: float = -1.0,
        max_in_flight: int = MAX_IN_FLIGHT,
        name: str | None = None,
        check: _Hook | None = None,
        reset: _Hook | None = None,
        max_waiting: int = 0,
        max_lifetime: float | None = None,
        max_idle: float | None = None,
        reconnect_timeout: float | None = None,
        max_buffer: int | None = None,
        guard: bool = False,
        **kwargs: Any,
    ) -> None:
        check_sizes(minsize, maxsize)
        check_timeout(timeout)
        check_recycle(pool_recycle)
        if not isinstance(max_in_flight, int) or max_in_flight < 1:
            raise ValueError(f"max_in_flight should be a positive number, not {max_in_flight!r}")
        super().__init__(get_running_loop(), minsize, maxsize, pool_recycle)
        self._name = name
        self._check = hook("check", check)
        self._reset = hook("reset", reset)
        self._max_waiting = count("max_waiting", max_waiting)
        self._upkeep: Upkeep | None = None
        if not (max_lifetime is max_idle is reconnect_timeout is None):
            self._upkeep = Upkeep(self, max_lifetime, max_idle, reconnect_timeout)
        self._max_buffer = count("max_buffer", max_buffer)
        self._guard = bool(guard)
        self._rests = self._loop.get_debug() and not guard
        self._wake = wake if self._rests else None
        self._hooked = bool(
            reset is not None
            or max_lifetime is not None
            or max_buffer is not None
            or guard
            or self._rests
        )
        self._stats = Stats()
        self._sharing = Sharing(max_in_flight)
        self._dsn = dsn
        self._timeout = timeout
        self._enable_json = enable_json
        self._enable_hstore = enable_hstore
        self._enable_uuid = enable_uuid
        self._echo = echo
        self._on_connect = hook("on_connect", on_connect)
        self._tracing = tracing_of(self._loop, kwargs.get("tracer"), kwargs.get("slow_query"), echo)
        self._conn_kwargs = kwargs
        self._released = create_completed_future(self._loop)
        self._closers: list[asyncio.Future[None]] = []
        self._endings: set[asyncio.Future[None]] = set()  # as _leaving, while the pool is closing

    @classmethod
    async def from_pool_fill(cls: type[_P], *args: Any, **kwargs: Any) -> _P:
        """Make a pool of this class and its first `minsize` connections."""
        try:
            self = cls(*args, **kwargs)
        except BaseException as error:
            trim(error, CONNECTING)
            raise
        finally:
            del args, kwargs  # the traceback of an error holds this frame
        connects = [self._loop.create_task(self._open()) for _ in range(self._minsize)]
        try:
            if connects:
                await asyncio.wait(connects, return_when=asyncio.FIRST_EXCEPTION)
            failed = [task for task in connects if task.done() and task.exception() is not None]
            for task in failed or connects:
                self._free.append(task.result())
            self._unused = len(self._free)
            if self._upkeep is not None:
                self._upkeep.start()
        except BaseException:
            self._free.clear()
            for task in connects:
                if task.done():
                    _close_connected(task)
                else:
                    task.cancel()
                    task.add_done_callback(_close_connected)
            raise
        finally:
            del connects  # an error holds this frame
        return self

    @property
    def echo(self) -> bool:
        """Whether the connections log what they execute."""
        return bool(self._echo)

    @property
    def timeout(self) -> float | None:
        """Seconds that `acquire()` may take; None if there is no limit."""
        return self._timeout

    @property
    def name(self) -> str | None:
        """What the pool was named. New in aiopgx."""
        return self._name

    def get_stats(self) -> dict[str, int]:
        """Return psycopg_pool's statistics: sizes now, and counters. New in aiopgx.

        As it is now: pool_min, pool_max (0 is no limit), pool_size, pool_available,
        requests_waiting.

        Counters: requests_num, requests_queued, requests_wait_ms and requests_errors are acquires
        and statements of `execute()`, those that had to wait, how long they did in sum, those that
        failed. usage_ms is how long connections were in use, in sum, those that still are until
        now. returns_bad counts connections that were released closed or not idle. connections_num,
        connections_ms and connections_errors are connects, their duration in sum (of those that
        succeeded), those that failed. connections_lost counts connections found broken before
        somebody used them.
        """
        return collect(self, False)

    def pop_stats(self) -> dict[str, int]:
        """Return the statistics, and let the counters start again from 0. New in aiopgx."""
        return collect(self, True)

    def acquire(self, *, timeout: float | None = None) -> _ContextManager[Connection[Row]]:
        """Get a connection: await it, or use it in `async with`, which releases it.

        timeout: seconds that it may take; the pool's if None, no limit if infinite. New in aiopgx.

        Raises `asyncio.TimeoutError`, RuntimeError if the pool is closed, the error of a failed
        connect, or `TooManyRequests`.
        """
        if timeout is None:
            return _ContextManager(self._acquire(), self.release)
        check_timeout(timeout)
        return _ContextManager(self._acquire(timeout), self.release)

    def _check_open(self) -> None:
        if self._closing:
            raise RuntimeError(CLOSED)
        self._check_loop()

    async def _acquire(self, timeout: float | None = None, traced: bool = False) -> Connection[Row]:
        if self._tracing is not None and not traced:
            return await self._tracing.acquire(self, Pool._acquire(self, timeout, True))
        self._check_open()
        if self._check is not None:
            return await acquire_checked(self, timeout)
        conn = self._good
        if conn is None:
            return await self._wait(self._timeout if timeout is None else timeout)  # type: ignore[no-any-return]
        if self._short:
            self._top_up_before(conn)
        return conn  # type: ignore[no-any-return]

    def _take_back(self, conn: Connection) -> "asyncio.Future[None]":
        """What release() does with a connection that is not simply free again."""
        if self._guard:
            conn = renewed(conn)
        portals = getattr(conn, "_portals", None)  # stand-ins for connections have none
        if portals is not None:
            cleared = portals.close_all()
            if cleared is not None:
                return self._release_later(conn, cleared)
        ending = getattr(getattr(conn, "_wire", None), "ending", None)
        if ending is not None:
            return self._release_later(conn, ending)
        return self._free_or_close(conn)

    def _release_later(
        self, conn: Connection, cleared: "asyncio.Future[None]"
    ) -> "asyncio.Future[None]":
        """Release a connection when its portals are freed, or its last stream has ended."""
        released: asyncio.Future[None] = self._loop.create_future()

        def release(_: "asyncio.Future[None]") -> None:
            if self._clearing.pop(cleared, None) is None:
                return
            if conn._portals is not None and not conn._portals.clean:
                self._discard(conn)
            else:
                followed = self._free_or_close(conn)
                if not followed.done():
                    followed.add_done_callback(partial(pass_on, released))
                    return
            self._settle()
            pass_on(released)

        self._clearing[cleared] = conn
        cleared.add_done_callback(release)
        return released

    def _free_or_close(self, conn: Connection, clean: bool = False) -> "asyncio.Future[None]":
        """Let others have a connection. clean: nothing is left behind in its session."""
        if not is_alive(conn):
            self._stats.returns_bad += 1
            self._discard(conn)
            return self._released
        status = status_of(conn)
        if status != TRANSACTION_STATUS_IDLE:
            self._stats.returns_bad += 1
            self._discard(conn)
            warnings.warn(  # noqa: B028
                f"Invalid transaction status on released connection: {status}", ResourceWarning
            )
        elif (left := getattr(conn, "_left", None)) is not None:
            self._discard(conn)
            warnings.warn(f"{left} on released connection", ResourceWarning)  # noqa: B028
        elif self._is_spent(conn):
            self._discard(conn)
        elif self._reset is not None and not clean and not (self._closing and not self._waiting):
            return release_reset(self, conn)
        elif not self._keep(conn):
            self._discard(conn)
        elif self._rests and conn in self._free:
            rest(conn)
        return self._released

    def _is_spent(self, conn: Connection) -> bool:
        """Whether a connection is too old, or too large, to be kept."""
        if self._upkeep is not None and self._upkeep.expired(conn):
            return True
        return self._max_buffer is not None and held(conn.raw) > self._max_buffer

    def _unshare(self, conn: Connection) -> None:
        """A connection is not shared any more."""
        self._shared.remove(conn)
        self._free_or_close(conn, clean=True)
        self._settle()

    def _discard(self, conn: Connection) -> None:
        conn.close()
        self._part(conn)

    def _part(self, conn: Any) -> None:
        """A connection is closed. Its place is taken until the server has stopped its query."""
        self._note_end(conn)
        self._settle()

    def _note_end(self, conn: Any) -> None:
        leaving = getattr(getattr(conn, "_wire", None), "leaving", None)
        if leaving is not None and not leaving.done():
            if self._closing:
                self._endings.add(leaving)
            else:
                self._leaving.add(leaving)
                leaving.add_done_callback(partial(_left, weakref.ref(self)))

    async def _wait(self, timeout: float | None) -> Any:
        """Queue up for a connection."""
        if self._max_waiting and self._waiting >= self._max_waiting:
            self._stats.requests_errors += 1
            raise TooManyRequests(f"{self._waiting} requests wait already for {self!r}")
        self._stats.requests_queued += 1
        start = self._loop.time()
        waiter: asyncio.Future[Any] = self._loop.create_future()
        timer = None
        turn = 0
        left = limit = math.inf if timeout is None else timeout
        try:
            try:
                while True:
                    turn = self._queue_up(waiter, turn)
                    if limit != math.inf:
                        timer = self._loop.call_later(left, self._expire, waiter, limit)
                    self._catch_up()
                    self._settle()
                    self._top_up()
                    conn = await waiter
                    if conn in self._terminated:
                        raise RuntimeError(CLOSED)
                    if is_alive(conn):
                        return conn
                    # it died between its hand-over and now: once more, at the same place
                    waiter = self._loop.create_future()
                    self._drop(conn)
                    self._note_end(conn)
                    if timer is not None:
                        timer.cancel()
                        left = max(0.0, start + limit - self._loop.time())
            finally:
                if timer is not None:
                    timer.cancel()
                self._stats.requests_wait_seconds += self._loop.time() - start
        except BaseException as exc:
            self._stats.requests_errors += 1
            self._leave(waiter, exc)
            raise
        finally:
            del waiter  # it holds the error, whose traceback holds this frame

    def _leave(self, waiter: "asyncio.Future[Any]", reason: BaseException) -> None:
        """Let others have the use of what came, or is to come, to an acquire that ends so."""
        task = self._surplus(waiter)
        if task is not None:
            task.cancel()
        if not waiter.cancelled() and waiter.done():
            exc = waiter.exception()
            if exc is None:
                Pool.release(self, waiter.result())
            elif exc is not reason and not isinstance(exc, asyncio.TimeoutError):
                self._failed(None, exc)
        self._check_end()

    def _expire(self, waiter: "asyncio.Future[Any]", timeout: float) -> None:
        if not waiter.done():
            waiter.set_exception(self._none_within(timeout))

    def _none_within(self, timeout: float) -> asyncio.TimeoutError:
        """The error of an acquire, or a statement of `execute()`, that has waited for so long."""
        limit = f" of {self.maxsize}" if self.maxsize else ""
        shared = f", {len(self._shared)} shared" if self._shared else ""
        ending = f", {len(self._leaving)} being ended" if self._leaving else ""
        error = asyncio.TimeoutError(
            f"no connection within {timeout:g} s: {len(self._used)}{limit} in use{shared}"
            f", {len(self._connects)} being connected{ending}"
            f", {self._waiting + self._sharing.waiting()} waiting"
        )
        if self._upkeep is not None and self._upkeep.outage is not None:
            error.__cause__ = self._upkeep.outage.error
            error.args = (f"{error}; connects fail: {str(error.__cause__).strip()}",)
        return error

    @property
    def _repeating(self) -> Upkeep | None:
        """Who sees to it that failed connects are repeated, if they are to be."""
        upkeep = self._upkeep
        return None if upkeep is None or upkeep.reconnect_timeout is None else upkeep

    def _settle(self) -> None:
        """Do what the state asks for: start connects, wake those who wait for the pool's end."""
        if self._upkeep is None or not self._upkeep.pausing:
            for waiter in self._unserved():
                self._start_connect(waiter)
            while (unserved := self._sharing.unserved(self)) is not None:
                self._start_connect(unserved)
        self._sharing.settle(self)
        self._check_end()

    def _check_end(self) -> None:
        """Wake those who wait for the pool's end, if it is there."""
        if self._closing and not self._has_users():
            for closer in self._closers:
                if not closer.done():
                    closer.set_result(None)

    def _catch_up(self) -> None:
        """Free the places whose callbacks were not run: KeyboardInterrupt came in their place."""
        for task in [task for task in self._connects if task.done()]:
            self._connected(task)  # type: ignore[arg-type]
        self._leaving -= {leaving for leaving in self._leaving if leaving.done()}

    def _has_users(self) -> bool:
        """Whether somebody has a connection, or is to have one yet."""
        held = self._used or self._shared or self._connects or self._clearing
        return bool(held or self._waiting or self._sharing.waiting())

    def _top_up(self) -> None:
        if self._upkeep is None or not self._upkeep.pausing:
            for _ in range(self._short):
                self._start_connect(None)

    def _top_up_before(self, conn: Connection) -> None:
        """The same, for somebody who is about to get this connection."""
        try:
            self._top_up()
        except BaseException:
            Pool.release(self, conn)
            raise

    def _start_connect(self, waiter: "asyncio.Future[Any] | None") -> None:
        task = self._loop.create_task(self._open())
        self._connects[task] = waiter
        task.add_done_callback(self._connected)
        if self._timeout is not None:
            timer = self._loop.call_later(self._timeout, self._overdue, task)
            task.add_done_callback(lambda task: timer.cancel())

    def _overdue(self, task: "asyncio.Task[Connection[Any]]") -> None:
        """Give a connect up, so that an `on_connect` that hangs doesn't hold its place for ever."""
        if task in self._connects:
            waiter = self._connects[task]
            if waiter is None or not waiter.done():  # else its own timeout has told it
                text = f"a connect was not ready within {self._timeout:g} s"
                self._failed(waiter, asyncio.TimeoutError(text))
            task.cancel()

    def _connected(self, task: "asyncio.Task[Connection[Any]]") -> None:
        """Give the outcome of a connect to those who wait for it."""
        if task not in self._connects:
            return
        waiter = self._connects.pop(task)
        repeating = self._repeating
        if task.cancelled():
            if waiter is not None and repeating is None:
                waiter.cancel()
        elif (exc := task.exception() or why_dead(task.result())) is not None:
            self._stats.connections_errors += 1
            self._failed(waiter, exc)
        else:
            if repeating is not None:
                repeating.succeeded(self)
            if not self._keep(task.result()):
                task.result().close()
        self._settle()
        if repeating is not None and not self._closing:
            self._top_up()
            repeating.go_on(self)

    def _failed(self, waiter: "asyncio.Future[Any] | None", exc: BaseException) -> None:
        if (repeating := self._repeating) is not None and not self._closing:
            repeating.failed(self, exc)
        elif waiter is not None and not waiter.done():
            waiter.set_exception(exc)
        else:
            logger.warning("A connect of %r failed", self, exc_info=exc)

    def _give_up(self, error: BaseException, after: float) -> None:
        """Connects have failed for `reconnect_timeout`: tell those who wait."""
        for waiter in [*self._waiters, *(ticket.waiter for ticket in self._sharing.queue)]:
            if not waiter.done():
                told = psycopg2.OperationalError(
                    f"no connect within {after:.1f} s: {str(error).strip()}"
                )
                told.__cause__ = error
                waiter.set_exception(told)

    async def _open(self) -> Connection[Row]:
        start = self._loop.time()
        self._stats.connections_num += 1
        conn: Connection[Any] = await connect(
            self._dsn,
            timeout=self._timeout,
            enable_json=self._enable_json,
            enable_hstore=self._enable_hstore,
            enable_uuid=self._enable_uuid,
            echo=self._echo,
            **self._conn_kwargs,
        )
        if self._max_buffer is not None and not find(conn.raw):
            conn.close()
            raise psycopg2.NotSupportedError("max_buffer: this libpq doesn't show its buffers")
        if self._guard:
            conn = guarded(conn)
        if self._on_connect is not None:
            try:
                await self._on_connect(conn)
                await asyncio.sleep(0)  # a task that it has cancelled must not end with `conn`
            except BaseException:
                conn.close()
                self._part(conn)
                raise
        self._stats.connections_seconds += self._loop.time() - start
        if self._upkeep is not None:
            self._upkeep.welcome(conn)
        return conn

    async def resize(self, minsize: int, maxsize: int) -> None:
        """Change the sizes. New in aiopgx.

        Free connections that are too many are closed, those in use when they come back; missing
        ones are made in the background.
        """
        check_sizes(minsize, maxsize)
        self._check_loop()
        for conn in self._limit(minsize, maxsize):
            conn.close()
        self._settle()
        if not self._closing:
            self._top_up()

    async def clear(self) -> None:
        """Close the free connections."""
        self._check_loop()
        while self._free:
            await self._free.popleft().close()

    def close(self) -> None:
        """Give out no more connections, except to those who wait; close what comes back."""
        if not self._closed:
            self._closing = True
            if self._upkeep is not None and self._upkeep.stop() and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._settle)  # who waits is told, by a last try

    def terminate(self) -> None:
        """Close the pool, and at once the connections that are in use. Any thread may call this.

        Acquires that wait get a RuntimeError.
        """
        self.close()
        if not self._loop.is_running() or asyncio._get_running_loop() is self._loop:
            self._cut_off()
            return
        for conn in [*self._used, *self._shared]:
            conn.close()
        self._loop.call_soon_threadsafe(self._cut_off)

    def _cut_off(self) -> None:
        used = set(self._used)
        self._cut()
        for conn in used:
            if not conn.closed:
                conn.close()
            self._note_end(conn)
        self._sharing.end(RuntimeError(CLOSED))
        for conn in list(self._shared):
            conn.close()
            self._note_end(conn)
        for task in self._connects:
            task.cancel()
        for future, conn in list(self._clearing.items()):
            conn.close()
            if isinstance(future, asyncio.Task):
                future.cancel()
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(RuntimeError(CLOSED))
        self._waiters.clear()
        self._settle()

    async def wait_closed(self) -> None:
        """Close the free connections, and wait until all others have come back.

        What was cancelled with its connection is waited for, too, for a second at most.

        Raises RuntimeError if `close()` was not called.
        """
        if self._closed:
            return
        if not self._closing:
            raise RuntimeError(".wait_closed() should be called after .close()")
        await self.clear()
        self._catch_up()
        while self._has_users():
            closer = self._loop.create_future()
            self._closers.append(closer)
            try:
                await closer
            finally:
                self._closers.remove(closer)
        if endings := self._leaving | self._endings:
            await asyncio.wait(endings, timeout=LAST)
        self._closed = True

    def __await__(self) -> Generator[Any, Any, _PoolConnectionContextManager[Row]]:
        conn = yield from self._acquire().__await__()
        return _PoolConnectionContextManager(self, conn)

    def __enter__(self) -> "Pool[Row]":
        raise RuntimeError('"await" should be used as context manager expression')

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Never called; there is no `with` statement without it."""

    async def __aenter__(self: _P) -> _P:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()
        await self.wait_closed()

    def __repr__(self) -> str:
        name = "" if self._name is None else f" {self._name!r}"
        cls = type(self)
        return f"<{cls.__module__}.{cls.__qualname__}{name} object at {id(self):#x}>"

    def __del__(self) -> None:
        left = len(self._free)
        while self._free:
            self._free.popleft().close()
        if left:
            warnings.warn(  # noqa: B028
                f"Unclosed {left} connections in {self!r}", ResourceWarning
            )


def _close_connected(task: "asyncio.Task[Connection[Any]]") -> None:
    """What was connected for a pool that came to nothing."""
    if not task.cancelled() and task.exception() is None:
        task.result().close()


def _left(pool: "weakref.ref[Pool[Any]]", leaving: "asyncio.Future[None]") -> None:
    """The server has stopped a query: the place of its connection is free."""
    self = pool()
    if self is not None:
        self._leaving.discard(leaving)
        self._settle()
