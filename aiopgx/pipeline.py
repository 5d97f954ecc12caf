"""Pipeline: statements that are in flight together; `Connection.pipeline()` makes it."""

import asyncio
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ._pipeline import enqueue
from ._requests import execute_foreign
from ._rows import SHAPE_FOREIGN, Unready
from .log import logger
from .utils import trim

if TYPE_CHECKING:
    from .connection import Connection
    from .cursor import Cursor

# Statements that are not over, with which execute() waits.
_MAX_PENDING = 512


class InFlight(Unready):
    """The statement of a cursor is in flight, or its error has not been raised."""


class Pending:
    """What a cursor reads from while its statement is in flight: nothing, yet."""

    __slots__ = ("_cursor", "_error", "_waiter", "here")

    description = None
    query = None
    rowcount = -1
    rownumber = 0
    lastrowid = 0
    statusmessage = None

    def __init__(self, cursor: "Cursor", waiter: "asyncio.Future[list[Any]]") -> None:
        self._cursor = cursor
        self._waiter = waiter
        self._error: BaseException | None = None  # that nobody has seen
        self.here: bool = False
        waiter.add_done_callback(self._arrived)

    def _arrived(self, waiter: "asyncio.Future[list[Any]]") -> None:
        outcome = waiter.result().pop()
        self.here = True
        if isinstance(outcome, BaseException):
            self._error = outcome
        elif self._cursor._result is self:
            self._cursor._result = self._cursor._from_psycopg() if outcome is None else outcome

    async def arrive(self) -> None:
        """Wait for the outcome. Who is cancelled meanwhile has given the statement up."""
        try:
            while not self.here:
                await asyncio.wait([self._waiter])
        except asyncio.CancelledError:
            self.abandon()
            raise

    def abandon(self) -> None:
        """Drop the statement, if nothing of it was sent; else close the connection."""
        if not self._waiter.done() and self._cursor._wire.abandon(self._waiter):
            self._cursor._conn.close()

    @property
    def failed(self) -> bool:
        """Whether there is an error that nobody has seen."""
        return self._error is not None

    def show(self) -> None:
        """Raise the error as execute() does, if nobody has seen it."""
        cursor, error = self._cursor, self._error
        self._error = None
        reads_from = cursor._from_psycopg() if cursor._result is self else cursor._result
        try:
            if error is not None:
                cursor._failed(error, self._waiter)
                raise error
        finally:
            cursor._result = reads_from
            del error  # an exception must not hold itself, by way of this frame

    def fetchone(self) -> Any:
        raise InFlight

    def fetchmany(self, size: int) -> Any:
        raise InFlight

    def fetchall(self) -> Any:
        raise InFlight

    def scroll(self, value: int, mode: str = "relative") -> None:
        raise InFlight


class Late:
    """psycopg2's execute(), called at the statement's turn; the cursor may be closed by then.

    That does not take the statement back: another cursor of the class executes it.
    """

    __slots__ = ("_impl",)

    def __init__(self, impl: Any) -> None:
        self._impl = impl

    @property
    def __self__(self) -> Any:
        """The cursor that executes, as a bound method has it."""
        return self._impl

    def __call__(self, operation: Any, parameters: Any) -> None:
        if self._impl.closed:
            # kept here until the statement is over: psycopg2 holds it weakly
            self._impl = self._impl.connection.cursor(cursor_factory=self._impl.__class__)
        self._impl.execute(operation, parameters)


class Pipeline:
    """Lets several statements of a connection be in flight. See `Connection.pipeline()`."""

    def __init__(self, conn: "Connection") -> None:
        self._conn = conn
        self._depth = 0
        self._pending: deque[Pending] = deque()
        self._failed: list[Pending] = []

    async def _execute(
        self, cursor: "Cursor", operation: Any, parameters: Any, timeout: float | None
    ) -> None:
        """Queue a statement. Waits only where many are not over."""
        wire, impl, shape = cursor._wire, cursor._psycopg, cursor._shape
        if shape == SHAPE_FOREIGN:
            if cursor.closed:
                raise wire.closed_error("cursor already closed")
            if type(parameters) in (list, dict):
                parameters = parameters.copy()  # as it is now
            waiter = execute_foreign(wire, Late(impl), operation, parameters, timeout)
        else:
            waiter = enqueue(wire, impl, shape, operation, parameters, timeout)
        pending = cursor._result = cursor._pending(cursor, waiter)
        self._pending.append(pending)
        self._pass_by()
        if len(self._pending) > _MAX_PENDING:
            try:  # for half of them: the next go out together, too
                await self._pending[_MAX_PENDING // 2].arrive()
            except asyncio.CancelledError:
                pending.abandon()
                raise

    def _pass_by(self) -> None:
        """Let go of the statements that are over."""
        while self._pending and self._pending[0].here:
            pending = self._pending.popleft()
            if pending.failed:
                self._failed.append(pending)

    async def _arrivals(self) -> None:
        """Wait until all statements are over; their errors are left for sync()."""
        for pending in list(self._pending):
            await pending.arrive()
        self._pass_by()

    async def sync(self) -> None:
        """Wait until all statements are over that have been executed up to now.

        Raises the first error that nobody has seen, neither by a fetch nor here. If there are
        more, a note of the exception says how many (`add_note()`, Python 3.11).
        """
        await self._arrivals()
        failed = [pending for pending in self._failed if pending.failed]
        self._failed = []
        if not failed:
            return
        try:
            failed[0].show()
        except BaseException as error:
            trim(error)
            if len(failed) > 1 and hasattr(error, "add_note"):
                error.add_note(f"{len(failed) - 1} more of the statements failed")
            raise

    async def __aenter__(self) -> "Pipeline":
        wire = self._conn._wire
        if wire.closed:
            raise wire.closed_error("connection already closed")
        refusal = wire.misplaced("pipeline")
        if refusal is not None:
            raise refusal
        if wire.shared is None:
            wire.shared = self
        pipeline: Pipeline = wire.shared  # that of the block around this one
        pipeline._depth += 1
        self._wire = wire  # by the block's end, `guard=` may have taken it away from `_conn`
        self._conn._note_left()
        return pipeline

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        wire = self._wire
        pipeline: Pipeline = wire.shared
        try:
            if exc is None or isinstance(exc, Exception):
                await pipeline.sync()
            else:
                pipeline._abandon()
        except Exception as error:
            if exc is None:
                raise
            logger.warning("an error of a pipeline is hidden by %r: %r", exc, error)
        except BaseException:
            pipeline._abandon()  # what is behind that which was waited for
            raise
        finally:
            pipeline._depth -= 1
            if pipeline._depth == 0:
                wire.shared = None
                if not wire.closed and self._conn._wire is wire:
                    self._conn._note_left()

    def _abandon(self) -> None:
        for pending in reversed(self._pending):  # what was not sent is dropped first
            pending.abandon()
