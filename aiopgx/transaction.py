"""Transactions and savepoints, as SQL sent through a cursor."""

import asyncio
import enum
import uuid
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol

import psycopg2
from psycopg2.extensions import TRANSACTION_STATUS_IDLE

from .utils import _ContextManager


class _Executor(Protocol):
    @property
    def closed(self) -> bool: ...

    async def execute(self, operation: str) -> Any: ...


class IsolationCompiler:
    """Writes the SQL of transaction control for one isolation level.

    isolation_level: the level's name, None for the server's default.
    readonly, deferrable: the modes of BEGIN.
    """

    __slots__ = ("_deferrable", "_isolation_level", "_readonly")

    def __init__(self, isolation_level: str | None, readonly: bool, deferrable: bool) -> None:
        self._isolation_level = isolation_level
        self._readonly = readonly
        self._deferrable = deferrable

    @property
    def name(self) -> str:
        return self._isolation_level or "Unknown"

    def begin(self) -> str:
        words = ["BEGIN"]
        if self._isolation_level is not None:
            words += ["ISOLATION LEVEL", self._isolation_level.upper()]
        if self._readonly:
            words.append("READ ONLY")
        if self._deferrable:
            words.append("DEFERRABLE")
        return " ".join(words)

    def commit(self) -> str:
        return "COMMIT"

    def rollback(self) -> str:
        return "ROLLBACK"

    def savepoint(self, unique_id: str) -> str:
        return f"SAVEPOINT {unique_id}"

    def release_savepoint(self, unique_id: str) -> str:
        return f"RELEASE SAVEPOINT {unique_id}"

    def rollback_savepoint(self, unique_id: str) -> str:
        return f"ROLLBACK TO SAVEPOINT {unique_id}"

    def __repr__(self) -> str:
        return self.name


class ReadCommittedCompiler(IsolationCompiler):
    """Each statement sees what was committed before it began."""

    __slots__ = ()

    def __init__(self, readonly: bool, deferrable: bool) -> None:
        super().__init__("Read committed", readonly, deferrable)


class RepeatableReadCompiler(IsolationCompiler):
    """All statements see what was committed before the first of them began."""

    __slots__ = ()

    def __init__(self, readonly: bool, deferrable: bool) -> None:
        super().__init__("Repeatable read", readonly, deferrable)


class SerializableCompiler(IsolationCompiler):
    """The outcome is as if transactions ran one after the other; where it is not, one fails."""

    __slots__ = ()

    def __init__(self, readonly: bool, deferrable: bool) -> None:
        super().__init__("Serializable", readonly, deferrable)


class DefaultCompiler(IsolationCompiler):
    """Leaves the isolation level to the server's `default_transaction_isolation`."""

    __slots__ = ()

    def __init__(self, readonly: bool, deferrable: bool) -> None:
        super().__init__(None, readonly, deferrable)

    @property
    def name(self) -> str:
        return "Default"


class IsolationLevel(enum.Enum):
    """The isolation levels; a member is called with (readonly, deferrable) for its compiler."""

    serializable = SerializableCompiler
    repeatable_read = RepeatableReadCompiler
    read_committed = ReadCommittedCompiler
    default = DefaultCompiler

    def __call__(self, readonly: bool, deferrable: bool) -> IsolationCompiler:
        compiler: IsolationCompiler = self.value(readonly, deferrable)
        return compiler


class Transaction:
    """A transaction of a cursor's connection, with at most one savepoint open in it.

    cursor: anything with a coroutine method `execute(sql)` and an attribute `closed`.
    isolation_level: called with (readonly, deferrable), gives an `IsolationCompiler`.

    As a context manager it begins, and commits at the end, or rolls back if the block raised.
    Calls out of order raise `psycopg2.ProgrammingError`.
    """

    __slots__ = ("_commit_failed", "_cursor", "_is_begin", "_isolation", "_unique_id")

    def __init__(
        self,
        cursor: _Executor,
        isolation_level: Callable[[bool, bool], IsolationCompiler],
        readonly: bool = False,
        deferrable: bool = False,
    ) -> None:
        self._cursor = cursor
        self._is_begin = False
        self._unique_id: str | None = None
        self._commit_failed = False
        self._isolation = isolation_level(readonly, deferrable)

    @property
    def is_begin(self) -> bool:
        """Whether a transaction is open."""
        return self._is_begin

    async def begin(self) -> "Transaction":
        """Open the transaction."""
        if self._is_begin:
            raise psycopg2.ProgrammingError(
                "You are trying to open a new transaction, use the save point"
            )
        self._is_begin = True
        self._commit_failed = False
        try:
            await self._cursor.execute(self._isolation.begin())
        except BaseException:
            self._is_begin = False
            raise
        return self

    async def commit(self) -> None:
        """Commit the transaction."""
        self._check_begun()
        try:
            await self._cursor.execute(self._isolation.commit())
        except BaseException as exc:
            close_if_left(self._cursor, exc)
            # A server that refuses to commit has rolled back; so it has if the connection is gone.
            if self._cursor.closed or _is_refused(self._cursor, exc):
                self._end()
                self._commit_failed = True
            raise
        self._end()

    async def rollback(self) -> None:
        """Roll the transaction back.

        Nothing is sent if the cursor or its connection is closed, so that the error that closed
        it is the one seen, nor after a COMMIT that the server has already turned into a rollback.
        """
        if self._commit_failed:
            self._commit_failed = False
            return
        self._check_begun()
        try:
            if not self._cursor.closed:
                await self._cursor.execute(self._isolation.rollback())
        except BaseException as exc:
            close_if_left(self._cursor, exc)
            if self._cursor.closed:
                self._end()
            raise
        self._end()

    async def savepoint(self) -> "Transaction":
        """Set a savepoint."""
        self._check_begun()
        if self._unique_id is not None:
            raise psycopg2.ProgrammingError("You do not shut down savepoint")
        self._unique_id = f"s{uuid.uuid1().hex}"
        try:
            await self._cursor.execute(self._isolation.savepoint(self._unique_id))
        except BaseException:
            self._unique_id = None
            raise
        return self

    async def release_savepoint(self) -> None:
        """Keep what was done since the savepoint, and forget the savepoint."""
        await self._end_savepoint(self._isolation.release_savepoint)

    async def rollback_savepoint(self) -> None:
        """Undo what was done since the savepoint, and forget the savepoint.

        As with `rollback()`, nothing is sent if the cursor or its connection is closed.
        """
        await self._end_savepoint(self._isolation.rollback_savepoint, skip=self._cursor.closed)

    def point(self) -> "_ContextManager[Transaction]":
        """Set a savepoint for an `async with` block; roll back to it if the block raises."""
        return _ContextManager(self.savepoint(), _release_savepoint, _rollback_savepoint)

    async def _end_savepoint(self, compile: Callable[[str], str], skip: bool = False) -> None:
        self._check_begun()
        if self._unique_id is None:
            raise psycopg2.ProgrammingError("You do not start savepoint")
        try:
            if not skip:
                await self._cursor.execute(compile(self._unique_id))
        except BaseException:
            if self._cursor.closed:
                self._unique_id = None
            raise
        self._unique_id = None

    def _check_begun(self) -> None:
        if not self._is_begin:
            raise psycopg2.ProgrammingError(
                "You are trying to commit the transaction does not open"
            )

    def _end(self) -> None:
        self._is_begin = False
        self._unique_id = None  # the server has dropped it with the transaction

    def __repr__(self) -> str:
        return f"<{type(self).__name__} transaction={self._isolation} id={id(self):#x}>"

    def __del__(self) -> None:
        # Only two arguments: programs put functions of two in the place of warnings.warn.
        if self._is_begin:
            warnings.warn(f"You have not closed transaction {self!r}", ResourceWarning)  # noqa: B028
        if self._unique_id is not None:
            warnings.warn(f"You have not closed savepoint {self!r}", ResourceWarning)  # noqa: B028

    async def __aenter__(self) -> "Transaction":
        return await self.begin()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if exc_type is None:
            await self.commit()
        else:
            await self.rollback()


def _is_refused(cursor: Any, exc: BaseException) -> bool:
    """Whether the server has answered COMMIT so. What it cancels is told as CancelledError."""
    if isinstance(exc, asyncio.CancelledError):
        wire = getattr(getattr(cursor, "connection", None), "_wire", None)
        return wire is not None and wire.status == TRANSACTION_STATUS_IDLE
    return getattr(exc, "pgcode", None) is not None


def close_if_left(cursor: Any, exc: BaseException) -> None:
    """Close the connection if a COMMIT or ROLLBACK was cancelled, and its transaction is open.

    So it ends as it does when the statement is in flight: this one was to be sent behind another.
    """
    conn: Any = getattr(cursor, "connection", None)
    wire = getattr(conn, "_wire", None)
    if wire is None or wire.closed or not isinstance(exc, asyncio.CancelledError):
        return
    if wire.status != TRANSACTION_STATUS_IDLE:
        conn.close()


async def _commit_transaction(transaction: Transaction) -> None:
    await transaction.commit()


async def _rollback_transaction(transaction: Transaction) -> None:
    await transaction.rollback()


async def _release_savepoint(transaction: Transaction) -> None:
    await transaction.release_savepoint()


async def _rollback_savepoint(transaction: Transaction) -> None:
    await transaction.rollback_savepoint()
