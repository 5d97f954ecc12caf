"""Cursors that a pool gives by itself: of a connection for a block, or of none."""

import asyncio
import inspect
import sys
from typing import Any, Generic, overload

from ._pool_contexts import _exit, _PoolCursor, _PoolCursorContextManager
from .cursor import _close_cursor
from .rows import Row, RowFactory, T, shape_of_factory
from .shared import SharedCursor, execute
from .utils import _ContextManager


class PoolCursors(Generic[Row]):
    """The methods of `Pool` that give cursors."""

    @overload
    def cursor(
        self,
        name: str | None = None,
        cursor_factory: Any = None,
        scrollable: bool | None = None,
        withhold: bool = False,
        *,
        timeout: float | None = None,
        row_factory: RowFactory[T],
    ) -> _PoolCursor[T]: ...

    @overload
    def cursor(
        self,
        name: str | None = None,
        cursor_factory: None = None,
        scrollable: bool | None = None,
        withhold: bool = False,
        *,
        timeout: float | None = None,
        row_factory: None = None,
    ) -> _PoolCursor[Row]: ...

    @overload
    def cursor(
        self,
        name: str | None = None,
        cursor_factory: Any = None,
        scrollable: bool | None = None,
        withhold: bool = False,
        *,
        timeout: float | None = None,
        row_factory: None = None,
    ) -> _PoolCursor[Any]: ...

    def cursor(
        self,
        name: str | None = None,
        cursor_factory: Any = None,
        scrollable: bool | None = None,
        withhold: bool = False,
        *,
        timeout: float | None = None,
        row_factory: RowFactory[Any] | None = None,
    ) -> _PoolCursor[Any]:
        """Get a cursor of a connection of its own, which is released with it.

        `async with pool.cursor() as cur` or `with (await pool.cursor()) as cur`. The parameters are
        those of `Connection.cursor()`.
        """
        if row_factory is not None:
            shape_of_factory(row_factory)
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

    async def _cursor(self, **kwargs: Any) -> _PoolCursorContextManager[Any]:
        pool: Any = self
        conn = await pool.acquire()
        if kwargs["row_factory"] is None:  # which stand-ins for connections do not know
            del kwargs["row_factory"]
        try:
            cursor = await conn.cursor(**kwargs)
        except BaseException:
            pool.release(conn)
            raise
        return _PoolCursorContextManager(pool, conn, cursor)

    @overload
    def execute(
        self,
        operation: Any,
        parameters: Any = None,
        *,
        timeout: float | None = None,
        cursor_factory: Any = None,
        shared: bool | None = None,
        row_factory: RowFactory[T],
    ) -> _ContextManager[SharedCursor[T]]: ...

    @overload
    def execute(
        self,
        operation: Any,
        parameters: Any = None,
        *,
        timeout: float | None = None,
        cursor_factory: None = None,
        shared: bool | None = None,
        row_factory: None = None,
    ) -> _ContextManager[SharedCursor[Row]]: ...

    @overload
    def execute(
        self,
        operation: Any,
        parameters: Any = None,
        *,
        timeout: float | None = None,
        cursor_factory: Any = None,
        shared: bool | None = None,
        row_factory: None = None,
    ) -> _ContextManager[SharedCursor[Any]]: ...

    def execute(
        self,
        operation: Any,
        parameters: Any = None,
        *,
        timeout: float | None = None,
        cursor_factory: Any = None,
        shared: bool | None = None,
        row_factory: RowFactory[Any] | None = None,
    ) -> _ContextManager[SharedCursor[Any]]:
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
        row_factory: what makes the rows, such as `aiopgx.rows.dict_row`; without one it is the
            cursor class given here, else the connection's `row_factory`.

        Raises psycopg2's exceptions, `asyncio.TimeoutError`, and RuntimeError of a closed pool.
        """
        if row_factory is not None:
            shape_of_factory(row_factory)
        pool: Any = self
        executing = execute(
            pool, operation, parameters, timeout, cursor_factory, shared, row_factory
        )
        if pool._tracing is not None:
            executing = pool._tracing.execute(executing, operation, parameters)
        return _ContextManager[SharedCursor[Any]](executing, _close_cursor)


# It is a coroutine function in aiopg, and mocks choose their kind by this.
if sys.version_info >= (3, 12):
    inspect.markcoroutinefunction(PoolCursors.cursor)
else:
    PoolCursors.cursor._is_coroutine = asyncio.coroutines._is_coroutine
