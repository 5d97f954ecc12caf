"""`Pool.execute()`: a statement on any connection of a pool, and the cursor with its result."""

import asyncio
from typing import TYPE_CHECKING, Any, NoReturn

import psycopg2

from ._core import check_timeout
from ._rows import SHAPE_FOREIGN, Result, scroll_target
from ._shared import ALONE, Ticket, may_share
from .cursor import Cursor
from .log import logger
from .rows import PsycopgRows, Row, RowFactory, plain_rows
from .tracing import STATEMENTS
from .utils import trim

if TYPE_CHECKING:
    from .pool import Pool

# Statements that share a connection, at most.
MAX_IN_FLIGHT = 16


class FetchedRows:
    """The rows of a psycopg2 cursor that has executed by itself: they outlive its connection.

    What is not found here is the cursor's. plain: the rows are for a row factory.
    """

    def __init__(self, impl: Any, plain: bool = False) -> None:
        self._impl = impl
        self.description: Any = impl.description
        self.rowcount: int = impl.rowcount
        self.rownumber: int = 0
        self._rows: Any = None
        if impl.description is not None:
            self._rows = plain_rows(impl, "fetchall") if plain else impl.fetchall()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._impl, name)

    def fetchone(self) -> Any:
        rows = self.fetchmany(1)
        return rows[0] if rows else None

    def fetchmany(self, size: int) -> list[Any]:
        if self._rows is None:
            raise psycopg2.ProgrammingError("no results to fetch")
        end = len(self._rows) if size < 0 else self.rownumber + size
        rows: list[Any] = self._rows[self.rownumber : end]
        self.rownumber += len(rows)
        return rows

    def fetchall(self) -> list[Any]:
        return self.fetchmany(-1)

    def scroll(self, value: int, mode: str = "relative") -> None:
        target = scroll_target(value, mode) + (self.rownumber if mode == "relative" else 0)
        if not 0 <= target < self.rowcount:
            raise IndexError("scroll destination out of bounds")
        self.rownumber = target


async def execute(
    pool: "Pool[Any]",
    operation: Any,
    parameters: Any,
    timeout: float | None,
    cursor_factory: Any,
    shared: bool | None,
    row_factory: RowFactory[Any] | None,
) -> "SharedCursor[Any]":
    """See `Pool.execute()`."""
    check_timeout(timeout)
    if timeout is None:
        timeout = pool.timeout
    end = None if timeout is None else pool._loop.time() + timeout
    try:
        pool._check_open()
        if pool.echo and pool._echo != STATEMENTS:  # which its tracer logs
            logger.info(operation, stacklevel=2)
            logger.info("%r", parameters, stacklevel=2)
        if shared is False or not may_share(operation, parameters is not None):
            return await _execute_alone(
                pool, operation, parameters, timeout, end, cursor_factory, row_factory
            )
        ticket = Ticket(pool, pool._sharing, operation, parameters, cursor_factory, timeout)
        outcome = None
        pool._requests += 1
        try:
            pool._sharing.submit(pool, ticket)
            outcome = (await ticket.waiter).pop()
            if type(outcome) is Result:
                rows = row_factory
                if rows is None and cursor_factory is None:
                    rows = ticket.row_factory
                return SharedCursor(ticket.impl, outcome, timeout, pool.echo, rows)
            if outcome is not ALONE:
                raise outcome
        except BaseException:
            ticket.abandon()
            if (connecting := pool._surplus(ticket.waiter)) is not None:
                connecting.cancel()
            pool._check_end()
            pool._stats.requests_errors += ticket.impl is None  # it had no connection
            raise
        finally:
            del ticket, outcome  # an exception must not hold itself, by way of this frame
        pool._requests -= 1  # it is counted again
        return await _execute_alone(
            pool, operation, parameters, timeout, end, cursor_factory, row_factory
        )
    except BaseException as exc:
        trim(exc)
        raise


async def _execute_alone(
    pool: "Pool[Any]",
    operation: Any,
    parameters: Any,
    timeout: float | None,
    end: float | None,
    cursor_factory: Any,
    row_factory: RowFactory[Any] | None,
) -> "SharedCursor[Any]":
    """Execute a statement on a connection that nobody else has meanwhile.

    end: when the timeout is over, in the loop's time.
    """
    if type(parameters) in (list, dict):
        parameters = parameters.copy()  # as it is now
    conn = await pool._acquire(_until(end, pool))
    try:
        cursor = await conn.cursor(cursor_factory=cursor_factory)
        cursor._raises_canceled = True
        cursor._is_part = True
        cursor._echo = False  # it has been logged
        left = _until(end, pool)
        if left is not None and left <= 0:
            raise asyncio.TimeoutError(f"the statement was not executed within {timeout:g} s")
        await cursor.execute(operation, parameters, timeout=left)
        rows = cursor.row_factory if row_factory is None else row_factory
        impl, result = cursor._psycopg, cursor._result
        if type(result) is not Result:
            result = FetchedRows(impl, rows is not None)
        return SharedCursor(impl, result, timeout, pool.echo, rows)
    finally:
        pool.release(conn)


def _until(end: float | None, pool: "Pool[Any]") -> float | None:
    """The seconds that are left, to the millisecond: errors show them."""
    return None if end is None else round(end - pool._loop.time(), 3)


class SharedCursor(Cursor[Row]):
    """What `Pool.execute()` gives: a result to fetch from, which belongs to no connection.

    It executes nothing more: `psycopg2.InterfaceError` tells what does.
    """

    _shape = SHAPE_FOREIGN

    def __init__(
        self,
        impl: Any,
        result: Any,
        timeout: float | None,
        echo: bool,
        row_factory: RowFactory[Any] | None,
    ) -> None:
        self._psycopg = impl
        self._result = self._held = result
        self._timeout = timeout
        self._echo = echo
        self._is_closed = False
        if type(result) is Result:
            result.outlives = True
        if row_factory is not None:
            self.row_factory = row_factory

    @property
    def connection(self) -> None:  # type: ignore[override]
        """None: the cursor has no connection."""
        return None

    @property
    def closed(self) -> bool:
        """Whether `close()` was called."""
        return self._is_closed

    def close(self) -> None:
        """Let go of the result."""
        if not self._is_closed:
            self._is_closed = True
            self._psycopg.close()
            if type(self._result) is Result:
                self._result.outlives = False
            else:
                self._result = self._held = self._psycopg

    def _from_psycopg(self) -> Any:
        return self._held if self._row_factory is None else PsycopgRows(self._held)

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise psycopg2.InterfaceError(
            "the cursor of Pool.execute() holds a result and has no connection: execute with "
            "Pool.execute() again, or on a cursor of a connection from Pool.acquire()"
        )

    async def _refuse_later(self, *args: Any, **kwargs: Any) -> NoReturn:
        self._refuse()

    execute: Any = _refuse_later
    executemany: Any = _refuse_later
    execute_batch: Any = _refuse_later
    execute_values: Any = _refuse_later
    callproc: Any = _refuse_later
    copy_from: Any = _refuse_later
    copy_to: Any = _refuse_later
    copy_expert: Any = _refuse_later
    copy_records: Any = _refuse_later
    nextset: Any = _refuse_later
    stream: Any = _refuse
    begin: Any = _refuse
    begin_nested: Any = _refuse
    mogrify: Any = _refuse

    @property
    def raw(self) -> NoReturn:
        """Refused: the psycopg2 cursor is that of a connection."""
        self._refuse()

    _impl = raw
