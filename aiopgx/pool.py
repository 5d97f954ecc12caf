"""Connection pool.

Who gets which connection is decided by `PoolCore`, at once and without locks; what takes time, a
connect, runs in a task of its own and its result goes to whoever waits first.
"""

import asyncio
import inspect
import sys
import warnings
import weakref
from collections.abc import Awaitable, Callable, Generator
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

import psycopg2
from psycopg2.extensions import TRANSACTION_STATUS_IDLE

from ._pool import PoolCore, status_of
from ._shared import Sharing
from .connection import TIMEOUT, Connection, Cursor, connect
from .cursor import _close_cursor
from .log import logger
from .rows import RowFactory
from .shared import MAX_IN_FLIGHT, SharedCursor, execute
from .tracing import tracing_of
from .utils import _ContextManager, create_completed_future, get_running_loop

_OnConnect = Callable[[Connection], Awaitable[Any]]
_P = TypeVar("_P", bound="Pool")

_CLOSED = "Cannot acquire connection after closing pool"


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
    on_connect: _OnConnect | None = None,
    **kwargs: Any,
) -> "_ContextManager[Pool]":
    """Make a pool of connections: await it, or use it in `async with`, which closes the pool.

    minsize: so many connections are made now, all at once; if one fails, its error is raised.
    maxsize: so many connections at most; 0 is no limit.
    timeout: seconds that `acquire()` may take, and the connections' own default timeout.
    pool_recycle: seconds after which an unused connection is closed instead of given out again;
        -1 is never.
    max_in_flight: how many statements of `execute()` may share a connection.
    on_connect: a coroutine function, called with each new connection before it is given out.

    Everything else is as for `connect()`. A `tracer` is told of acquires, too, and of how long
    connections are used. A connection that was closed with a query in flight keeps
    its place, `cancel_timeout` seconds at most, until the server has stopped the query.
    """
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
        **kwargs,
    )
    return _ContextManager(coro, _destroy_pool)


async def _destroy_pool(pool: "Pool") -> None:
    pool.close()
    await pool.wait_closed()


class _PoolConnectionContextManager:
    """What `await pool` gives: `with (await pool) as conn` releases the connection at the end."""

    __slots__ = ("_conn", "_pool")

    def __init__(self, pool: "Pool", conn: Connection) -> None:
        self._pool: Pool | None = pool
        self._conn: Connection | None = conn

    def __enter__(self) -> Connection:
        assert self._conn is not None
        return self._conn

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        pool, conn = self._pool, self._conn
        self._pool = self._conn = None
        if pool is not None and conn is not None:
            pool.release(conn)

    async def __aenter__(self) -> Connection:
        return self.__enter__()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.__exit__(exc_type, exc, tb)


class _PoolCursorContextManager:
    """What `await pool.cursor()` gives: `with` closes the cursor and releases the connection."""

    __slots__ = ("_conn", "_cursor", "_pool")

    def __init__(self, pool: "Pool", conn: Connection, cursor: Cursor) -> None:
        self._pool: Any = pool
        self._conn: Any = conn
        self._cursor: Any = cursor

    def __enter__(self) -> Cursor:
        return self._cursor  # type: ignore[no-any-return]

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        pool, conn, cursor = self._pool, self._conn, self._cursor
        self._pool = self._conn = self._cursor = None
        try:
            cursor.close()
        except psycopg2.ProgrammingError:
            conn.close()  # a cursor that can't be closed: its connection is not to be used again
            raise
        finally:
            pool.release(conn)


class _PoolCursor(_ContextManager[_PoolCursorContextManager]):
    """What `pool.cursor()` returns: await it for the manager, `async with` gives the cursor."""

    __slots__ = ()

    async def __aenter__(self) -> Cursor:  # type: ignore[override]
        return (await super().__aenter__()).__enter__()


async def _exit(manager: _PoolCursorContextManager) -> None:
    manager.__exit__(None, None, None)


class Pool(PoolCore):
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
        on_connect: _OnConnect | None = None,
        pool_recycle: float = -1.0,
        max_in_flight: int = MAX_IN_FLIGHT,
        **kwargs: Any,
    ) -> None:
        if minsize < 0:
            raise ValueError("minsize should be zero or greater")
        if maxsize and maxsize < minsize:
            raise ValueError("maxsize should be not less than minsize")
        if not isinstance(max_in_flight, int) or max_in_flight < 1:
            raise ValueError(f"max_in_flight should be a positive number, not {max_in_flight!r}")
        super().__init__(get_running_loop(), minsize, maxsize, pool_recycle)
        self._sharing = Sharing(max_in_flight)
        self._dsn = dsn
        self._timeout = timeout
        self._enable_json = enable_json
        self._enable_hstore = enable_hstore
        self._enable_uuid = enable_uuid
        self._echo = echo
        self._on_connect = on_connect
        self._tracing = tracing_of(self._loop, kwargs.get("tracer"), kwargs.get("slow_query"), echo)
        self._conn_kwargs = kwargs
        self._released = create_completed_future(self._loop)
        self._closers: list[asyncio.Future[None]] = []

    @classmethod
    async def from_pool_fill(cls: type[_P], *args: Any, **kwargs: Any) -> _P:
        """Make a pool of this class and its first `minsize` connections."""
        self = cls(*args, **kwargs)
        connects = [self._loop.create_task(self._open()) for _ in range(self._minsize)]
        try:
            if connects:
                await asyncio.wait(connects, return_when=asyncio.FIRST_EXCEPTION)
            failed = [task for task in connects if task.done() and task.exception() is not None]
            for task in failed or connects:
                self._free.append(task.result())
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

    def acquire(self) -> _ContextManager[Connection]:
        """Get a connection: await it, or use it in `async with`, which releases it.

        Raises `asyncio.TimeoutError`, RuntimeError if the pool is closed, or the error of a failed
        connect.
        """
        return _ContextManager(self._acquire(), self.release)

    def _check_open(self) -> None:
        if self._closing:
            raise RuntimeError(_CLOSED)
        self._check_loop()

    async def _acquire(self, traced: bool = False) -> Connection:
        if self._tracing is not None and not traced:
            return await self._tracing.acquire(self, Pool._acquire(self, True))
        self._check_open()
        conn = self._take_good()
        if conn is None:
            return await self._wait()  # type: ignore[no-any-return]
        if self._short:
            self._top_up()
        return conn  # type: ignore[no-any-return]

    def release(self, conn: Connection) -> "asyncio.Future[None]":
        """Give a connection back. This happens at the call; what is returned need not be awaited.

        A connection with an open transaction is closed, with a ResourceWarning. One with open
        server-side cursors, or with a stream that was left early, is free once they have ended.
        Raises AssertionError if the connection is not one in use of this pool.
        """
        if self._tracing is not None:
            self._tracing.release(conn)
        conn = self._put_back(conn)
        if conn is None:
            return self._released
        portals = getattr(conn, "_portals", None)  # stand-ins for connections have none
        if portals is not None:
            cleared = portals.close_all()
            if cleared is not None:
                return self._release_later(conn, cleared)
        ending = getattr(getattr(conn, "_wire", None), "ending", None)
        if ending is not None:
            return self._release_later(conn, ending)
        self._free_or_close(conn)
        return self._released

    def _release_later(
        self, conn: Connection, cleared: "asyncio.Future[None]"
    ) -> "asyncio.Future[None]":
        """Release a connection when its portals are freed, or its last stream has ended."""
        released: asyncio.Future[None] = self._loop.create_future()

        def release(_: "asyncio.Future[None]") -> None:
            del self._clearing[cleared]
            if conn._portals is not None and not conn._portals.clean:
                self._discard(conn)
            else:
                self._free_or_close(conn)
            self._settle()
            if not released.done():
                released.set_result(None)

        self._clearing[cleared] = conn
        cleared.add_done_callback(release)
        return released

    def _free_or_close(self, conn: Connection) -> None:
        if conn.closed:
            self._part(conn)
            return
        status = status_of(conn)
        if status != TRANSACTION_STATUS_IDLE:
            self._discard(conn)
            warnings.warn(  # noqa: B028
                f"Invalid transaction status on released connection: {status}", ResourceWarning
            )
        elif not self._keep(conn):
            self._discard(conn)

    def _unshare(self, conn: Connection) -> None:
        """A connection is not shared any more."""
        self._shared.remove(conn)
        self._free_or_close(conn)
        self._settle()

    def _discard(self, conn: Connection) -> None:
        conn.close()
        self._part(conn)

    def _part(self, conn: Any) -> None:
        """A connection is closed. Its place is taken until the server has stopped its query."""
        leaving = getattr(getattr(conn, "_wire", None), "leaving", None)
        if leaving is not None and not leaving.done() and not self._closing:
            self._leaving.add(leaving)
            leaving.add_done_callback(partial(_left, weakref.ref(self)))
        self._settle()

    async def _wait(self) -> Any:
        """Queue up for a connection."""
        waiter: asyncio.Future[Any] = self._loop.create_future()
        self._waiters.append(waiter)
        timer = None
        if self._timeout is not None:
            timer = self._loop.call_later(self._timeout, self._expire, waiter)
        try:
            self._settle()
            self._top_up()
            conn = await waiter
            if conn in self._terminated:
                raise RuntimeError(_CLOSED)
            return conn
        except BaseException as exc:
            self._leave(waiter, exc)
            raise
        finally:
            if timer is not None:
                timer.cancel()
            del waiter  # it holds the error, whose traceback holds this frame

    def _leave(self, waiter: "asyncio.Future[Any]", reason: BaseException) -> None:
        """Let others have the use of what came, or is to come, to an acquire that ends so."""
        task = self._surplus(waiter)
        if task is not None:
            task.cancel()
        if waiter.cancelled() or not waiter.done():
            return
        exc = waiter.exception()
        if exc is None:
            Pool.release(self, waiter.result())
        elif exc is not reason and not isinstance(exc, asyncio.TimeoutError):
            self._failed(None, exc)

    def _expire(self, waiter: "asyncio.Future[Any]") -> None:
        if waiter.done():
            return
        waiting = sum(not other.done() for other in self._waiters)
        ending = f", {len(self._leaving)} being ended" if self._leaving else ""
        waiter.set_exception(
            asyncio.TimeoutError(
                f"no connection within {self._timeout:g} s: {len(self._used)} of {self.maxsize} in "
                f"use, {len(self._connects)} being connected{ending}, {waiting} waiting"
            )
        )

    def _settle(self) -> None:
        """Do what the state asks for: start connects, wake those who wait for the pool's end."""
        for waiter in self._unserved():
            self._start_connect(waiter)
        while (unserved := self._sharing.unserved(self)) is not None:
            self._start_connect(unserved)
        self._sharing.settle(self)
        if self._closing and not self._has_users():
            for closer in self._closers:
                if not closer.done():
                    closer.set_result(None)

    def _has_users(self) -> bool:
        return bool(self._used or self._shared or self._connects or self._clearing)

    def _top_up(self) -> None:
        for _ in range(self._short):
            self._start_connect(None)

    def _start_connect(self, waiter: "asyncio.Future[Any] | None") -> None:
        task = self._loop.create_task(self._open())
        self._connects[task] = waiter
        task.add_done_callback(self._connected)
        if self._timeout is not None:
            timer = self._loop.call_later(self._timeout, self._overdue, task)
            task.add_done_callback(lambda task: timer.cancel())

    def _overdue(self, task: "asyncio.Task[Connection]") -> None:
        """Give a connect up, so that an `on_connect` that hangs doesn't hold its place for ever."""
        if task in self._connects:
            waiter = self._connects[task]
            if waiter is None or not waiter.done():  # else its own timeout has told it
                text = f"a connect was not ready within {self._timeout:g} s"
                self._failed(waiter, asyncio.TimeoutError(text))
            task.cancel()

    def _connected(self, task: "asyncio.Task[Connection]") -> None:
        """Give the outcome of a connect to those who wait for it."""
        waiter = self._connects.pop(task)
        if task.cancelled():
            if waiter is not None:
                waiter.cancel()
        elif (exc := task.exception()) is not None:
            self._failed(waiter, exc)
        elif not self._keep(task.result()):
            task.result().close()
        self._settle()

    def _failed(self, waiter: "asyncio.Future[Any] | None", exc: BaseException) -> None:
        if waiter is not None and not waiter.done():
            waiter.set_exception(exc)
        else:
            logger.warning("A connect of %r failed", self, exc_info=exc)

    async def _open(self) -> Connection:
        conn: Connection = await connect(
            self._dsn,
            timeout=self._timeout,
            enable_json=self._enable_json,
            enable_hstore=self._enable_hstore,
            enable_uuid=self._enable_uuid,
            echo=self._echo,
            **self._conn_kwargs,
        )
        if self._on_connect is not None:
            try:
                await self._on_connect(conn)
            except BaseException:
                conn.close()
                self._part(conn)
                raise
        return conn

    async def clear(self) -> None:
        """Close the free connections."""
        self._check_loop()
        while self._free:
            await self._free.popleft().close()

    def close(self) -> None:
        """Give out no more connections, except to those who wait; close what comes back."""
        if not self._closed:
            self._closing = True

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
        for conn in self._used:
            if not conn.closed:
                conn.close()
        self._terminated |= self._used
        self._used.clear()
        self._sharing.end(RuntimeError(_CLOSED))
        for conn in list(self._shared):
            conn.close()
        for task in self._connects:
            task.cancel()
        for conn in list(self._clearing.values()):
            conn.close()
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(RuntimeError(_CLOSED))
        self._waiters.clear()
        self._settle()

    async def wait_closed(self) -> None:
        """Close the free connections, and wait until all others have come back.

        Raises RuntimeError if `close()` was not called.
        """
        if self._closed:
            return
        if not self._closing:
            raise RuntimeError(".wait_closed() should be called after .close()")
        await self.clear()
        while self._has_users():
            closer = self._loop.create_future()
            self._closers.append(closer)
            try:
                await closer
            finally:
                self._closers.remove(closer)
        self._closed = True

    def cursor(
        self,
        name: str | None = None,
        cursor_factory: Any = None,
        scrollable: bool | None = None,
        withhold: bool = False,
        *,
        timeout: float | None = None,
        row_factory: RowFactory[Any] | None = None,
    ) -> _PoolCursor:
        """Get a cursor of a connection of its own, which is released with it.

        `async with pool.cursor() as cur` or `with (await pool.cursor()) as cur`. The parameters are
        those of `Connection.cursor()`.
        """
        return _PoolCursor(
            self._cursor(
                name=name,
                cursor_factory=cursor_factory,
                scrollable=scrollable,
                withhold=withhold,
                timeout=timeout,
                row_factory=row_factory,
            ),
            _exit,
        )

    async def _cursor(self, **kwargs: Any) -> _PoolCursorContextManager:
        conn = await self.acquire()
        try:
            cursor = await conn.cursor(**kwargs)
        except BaseException:
            self.release(conn)
            raise
        return _PoolCursorContextManager(self, conn, cursor)

    def execute(
        self,
        operation: Any,
        parameters: Any = None,
        *,
        timeout: float | None = None,
        cursor_factory: Any = None,
        shared: bool | None = None,
    ) -> _ContextManager[SharedCursor]:
        """Execute one statement, a transaction of its own, on any connection of the pool.

        `cur = await pool.execute(...)` or `async with pool.execute(...) as cur`. The result is here
        then: fetching waits for nothing, and the cursor has no connection. Statements of many
        tasks share connections: they travel together, and are executed one after the other. What
        may leave something behind in the session, or needs a connection of its own for other
        reasons, gets one for the time. New in aiopgx.

        operation, parameters: as for `Cursor.execute()`.
        timeout: seconds for all of it, the pool's if None. When they are over, or the task is
            cancelled, the others on the connection go on. The statement is cancelled on the server
            if it is still executed when nothing else is.
        cursor_factory: a class of psycopg2 cursor, for the shape of the rows.
        shared: False to have a connection of its own, for statements that take long; None and True
            share where that may be.

        Raises psycopg2's exceptions, `asyncio.TimeoutError`, and RuntimeError of a closed pool.
        """
        executing = execute(self, operation, parameters, timeout, cursor_factory, shared)
        if self._tracing is not None:
            executing = self._tracing.execute(executing, operation, parameters)
        return _ContextManager[SharedCursor](executing, _close_cursor)

    def __await__(self) -> Generator[Any, Any, _PoolConnectionContextManager]:
        conn = yield from self._acquire().__await__()
        return _PoolConnectionContextManager(self, conn)

    def __enter__(self) -> "Pool":
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

    def __del__(self) -> None:
        left = len(self._free)
        while self._free:
            self._free.popleft().close()
        if left:
            warnings.warn(  # noqa: B028
                f"Unclosed {left} connections in {self!r}", ResourceWarning
            )


# It is a coroutine function in aiopg, and mocks choose their kind by this.
if sys.version_info >= (3, 12):
    inspect.markcoroutinefunction(Pool.cursor)
else:
    Pool.cursor._is_coroutine = asyncio.coroutines._is_coroutine


def _close_connected(task: "asyncio.Task[Connection]") -> None:
    """What was connected for a pool that came to nothing."""
    if not task.cancelled() and task.exception() is None:
        task.result().close()


def _left(pool: "weakref.ref[Pool]", leaving: "asyncio.Future[None]") -> None:
    """The server has stopped a query: the place of its connection is free."""
    self = pool()
    if self is not None:
        self._leaving.discard(leaving)
        self._settle()
