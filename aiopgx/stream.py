"""RowStream: the rows of a statement as they arrive; `Cursor.stream()` makes it."""

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Generic

import psycopg2
from psycopg2.sql import Composable

from ._nul import written
from ._rows import SHAPE_FOREIGN, Unready
from ._stream import NOTHING, Stream, start
from .log import logger
from .rows import Row
from .utils import trim

if TYPE_CHECKING:
    from .cursor import Cursor


def _nothing() -> Any:
    return NOTHING


def _next_row(cursor: "Cursor[Any]", stream: Any) -> Any:
    """The next row of a stream, NOTHING if it is not here."""
    try:
        return stream.next()
    except Unready:
        stream.make(cursor._maker())
    return stream.next()


class RowStream(Generic[Row]):
    """The rows of one statement, for one `async for`. See `Cursor.stream()`.

    The statement is sent when the first row is asked for. Whoever leaves the loop early has ended
    the stream, unless the object is kept: then it is open until aclose().
    """

    def __init__(
        self,
        cursor: "Cursor[Row]",
        operation: Any,
        parameters: Any,
        size: int,
        timeout: float | None,
    ) -> None:
        self._cursor = cursor
        self._arguments: Any = (operation, parameters, size, timeout)  # None once it is sent
        self._stream: Stream | None = None
        self._next: Any = _nothing  # gives the next row, NOTHING if it is not here
        self._waiting = False  # some coroutine waits for the next row
        self._ended = False

    def __aiter__(self) -> "RowStream[Row]":
        return self

    async def __anext__(self) -> Row:
        try:
            try:
                row = self._next()
            except Unready:
                row = _next_row(self._cursor, self._stream)
            if row is NOTHING:
                row = await self._advance()
        except BaseException as exc:
            if not self._waiting:  # another coroutine
                self._end()
            trim(exc)
            raise
        if row is NOTHING:
            raise StopAsyncIteration
        return row  # type: ignore[no-any-return]

    async def _advance(self) -> Any:
        """The next row, when it is here; NOTHING behind the last."""
        if self._waiting:
            raise RuntimeError("the next row is already being waited for by another coroutine")
        self._waiting = True
        try:
            if self._arguments is not None:
                await self._start()
            if self._ended or self._stream is None:
                return self._next()
            return await self._wait(self._stream)
        finally:
            self._waiting = False

    async def _start(self) -> None:
        cursor = self._cursor
        operation, parameters, size, timeout = self._arguments
        await cursor._settle()
        refusal = cursor._wire.refusal("cursor.stream", cursor._session)
        if refusal is not None:
            raise refusal
        self._arguments = None
        if cursor._shape == SHAPE_FOREIGN:
            await cursor.execute(operation, parameters, timeout=timeout)
            self._next = partial(next, iter(await cursor.fetchall()), NOTHING)
            return
        if cursor._echo:
            logger.info(operation)
            logger.info("%r", parameters)
        if timeout is None:
            timeout = cursor._timeout
        try:
            if isinstance(operation, Composable):
                operation = written(operation, cursor._psycopg)
            stream = start(
                cursor._wire,
                cursor._psycopg,
                cursor._shape,
                operation,
                parameters,
                size,
                timeout,
            )
        except BaseException:
            cursor._refused(operation)
            raise
        cursor._result = self._stream = stream
        self._next = stream.next

    async def _wait(self, stream: Stream) -> Any:
        while (row := _next_row(self._cursor, stream)) is NOTHING and not stream.over:
            if (waiter := stream.wait()) is not None:
                await waiter
        if row is not NOTHING:
            return row
        error = stream.take_failure()
        try:
            if error is not None:
                self._cursor._failed(error, stream.waiter)
                raise error
        finally:
            del error  # an exception must not hold itself, by way of this frame
        if not self._ended and stream.description is None:
            raise psycopg2.ProgrammingError("no results to fetch")
        return NOTHING

    def _end(self) -> None:
        self._ended = True
        self._arguments = None
        self._next = _nothing
        if self._stream is not None:
            self._stream.stop()

    async def aclose(self) -> None:
        """End the stream, if it is not over: wait until the connection can be used.

        The statement is cancelled on the server. In an open transaction, which that would abort,
        the rest is read and thrown away instead. What takes longer than the connection's
        `cancel_timeout` closes the connection.
        """
        self._end()
        if self._stream is not None and not self._stream.over:
            await asyncio.wait([self._stream.waiter])

    def __del__(self) -> None:
        if self._stream is not None:
            self._stream.stop()
