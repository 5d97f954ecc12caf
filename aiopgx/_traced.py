"""The cursors of connections that have tracers: each method, and what `tracing` is told of it.

They are classes of their own, so that those of other connections pay nothing.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from psycopg2.extensions import quote_ident

from .cursor import Cursor
from .named import NamedCursor, quoted
from .pipeline import Pending
from .stream import RowStream
from .tracing import Trace, Tracing, call_of

_T = TypeVar("_T")

_PAGED = ("execute_batch", "execute_values")


class TracedPending(Pending):
    """A statement of a pipeline, whose operation ends when its outcome is here."""

    __slots__ = ("_trace",)

    def __init__(self, cursor: Any, waiter: "asyncio.Future[list[Any]]") -> None:
        super().__init__(cursor, waiter)
        self._trace = cursor._within
        if self._trace is not None:
            self._trace.kept = True

    def _arrived(self, waiter: "asyncio.Future[list[Any]]") -> None:
        outcome = waiter.result()[0]
        super()._arrived(waiter)
        trace, self._trace = self._trace, None
        if trace is None:
            return
        if isinstance(outcome, BaseException):
            trace.end(outcome)
            return
        trace.answered(self._cursor._psycopg if outcome is None else outcome)
        trace.end()

    def abandon(self) -> None:
        trace, self._trace = self._trace, None
        if trace is not None:
            trace.end(asyncio.CancelledError())
        super().abandon()


class TracedRowStream(RowStream):
    """A stream, whose operation ends with the last row that is used."""

    _cursor: "TracedCursor"
    _trace: Trace | None = None
    _given = 0

    async def _start(self) -> None:
        cursor = self._cursor
        self._trace = cursor._within = cursor._begin("stream", *self._arguments[:2])
        try:
            await super()._start()
        finally:
            cursor._within = None

    async def __anext__(self) -> Any:
        try:
            row = await super().__anext__()
        except StopAsyncIteration:
            self._over()
            raise
        except BaseException as error:
            if self._ended:  # else another coroutine waits for the row
                self._over(error)
            raise
        self._given += 1
        return row

    def _over(self, error: BaseException | None = None) -> None:
        if self._trace is not None:
            self._trace.operation.rows = self._given
            self._trace.end(error)

    async def aclose(self) -> None:
        try:
            await super().aclose()
        finally:
            self._over()

    def __del__(self) -> None:
        super().__del__()
        self._over()


class TracedCursor(Cursor):
    """A cursor whose methods are operations. What they do by way of others is a part of them."""

    _pending = TracedPending
    _row_stream = TracedRowStream

    _within: Trace | None = None  # the operation that is under way
    _executed = 0  # rows of its parts

    def __init__(self, conn: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(conn, *args, **kwargs)
        self._tracing: Tracing = conn._tracing

    def _begin(self, method: str, statement: Any, parameters: Any = None) -> Trace:
        return self._tracing.query(method, self.connection, self._psycopg, statement, parameters)

    async def _traced(
        self,
        execution: Coroutine[Any, Any, _T],
        method: str,
        statement: Any,
        parameters: Any = None,
    ) -> _T:
        if self._is_part or self._within is not None:
            result = await execution
            self._executed += max(self.rowcount, 0)
            return result
        with self._begin(method, statement, parameters) as trace:
            self._within, self._executed = trace, 0
            try:
                result = await execution
                if not trace.kept:
                    trace.answered(self)
                if method in _PAGED:  # where the cursor tells of the last page
                    trace.operation.rows = self._executed if method == "execute_values" else None
                return result
            finally:
                self._within = None

    async def execute(self, operation: Any, parameters: Any = None, **options: Any) -> None:
        execution = super().execute(operation, parameters, **options)
        await self._traced(execution, "execute", operation, parameters)

    async def executemany(
        self, operation: Any, seq_of_parameters: Any, *, timeout: float | None = None
    ) -> None:
        execution = super().executemany(operation, seq_of_parameters, timeout=timeout)
        await self._traced(execution, "executemany", operation, seq_of_parameters)

    async def execute_batch(self, sql: Any, argslist: Any, page_size: int = 100) -> None:
        execution = super().execute_batch(sql, argslist, page_size)
        await self._traced(execution, "execute_batch", sql, argslist)

    async def execute_values(
        self,
        sql: Any,
        argslist: Any,
        template: Any = None,
        page_size: int = 100,
        fetch: bool = False,
    ) -> list[Any] | None:
        execution = super().execute_values(sql, argslist, template, page_size, fetch)
        return await self._traced(execution, "execute_values", sql, argslist)

    async def callproc(self, procname: str, parameters: Any = None, **options: Any) -> None:
        execution = super().callproc(procname, parameters, **options)
        await self._traced(execution, "callproc", call_of(procname, parameters), parameters)

    async def copy_from(self, file: Any, table: str, *args: Any, **kwargs: Any) -> None:
        execution = super().copy_from(file, table, *args, **kwargs)
        await self._traced(execution, "copy_from", f"COPY {self._quoted(table)} FROM STDIN")

    async def copy_to(self, file: Any, table: str, *args: Any, **kwargs: Any) -> None:
        execution = super().copy_to(file, table, *args, **kwargs)
        await self._traced(execution, "copy_to", f"COPY {self._quoted(table)} TO STDOUT")

    async def copy_expert(self, sql: Any, file: Any, *args: Any, **kwargs: Any) -> None:
        execution = super().copy_expert(sql, file, *args, **kwargs)
        await self._traced(execution, "copy_expert", sql)

    async def copy_records(
        self,
        table: str,
        records: Any,
        columns: Any = None,
        *,
        schema_name: str | None = None,
        **options: Any,
    ) -> None:
        execution = super().copy_records(
            table, records, columns, schema_name=schema_name, **options
        )
        name = "" if schema_name is None else f"{self._quoted(schema_name)}."
        statement = f"COPY {name}{self._quoted(table)} FROM STDIN"
        await self._traced(execution, "copy_records", statement)

    def _quoted(self, name: Any) -> str:
        try:
            return str(quote_ident(name, self._wire.raw))
        except Exception:
            return "..."  # the method will tell

    @property
    def echo(self) -> bool:
        return self._echo or self._tracing.echoes


class TracedNamedCursor(TracedCursor, NamedCursor):
    """The same, of a server-side cursor: each fetch is an operation."""

    async def _move(self, caller: str, command: bytes) -> None:
        statement = b"%b FROM %b" % (command, quoted(self._named.name))
        await self._traced(super()._move(caller, command), "fetch", statement)

    def _executor(self) -> Cursor:
        executor = super()._executor()
        return TracedCursor(self._conn, executor._psycopg, self._timeout, self._echo)
