"""Transactions of an `SAConnection`: its `begin*()` methods make them."""

from types import TracebackType
from typing import TYPE_CHECKING, Any, Optional, TypeVar

from . import exc

if TYPE_CHECKING:
    from .connection import SAConnection

_T = TypeVar("_T", bound="Transaction")


class Transaction:
    """A transaction within another: rolling it back rolls back the outer, a commit does nothing.

    In `async with` it is committed at the end, or rolled back if the block raised.

    connection: the `SAConnection`.
    parent: the transaction around this one, None if there is none.
    """

    __slots__ = ("_connection", "_is_active", "_parent")

    def __init__(self, connection: "SAConnection", parent: Optional["Transaction"]) -> None:
        self._connection = connection
        self._parent = parent or self
        self._is_active = True

    @property
    def is_active(self) -> bool:
        """Whether neither `commit()` nor `rollback()` nor `close()` has ended it."""
        return self._is_active

    @property
    def connection(self) -> "SAConnection":
        """The connection that the transaction is on."""
        return self._connection

    async def close(self) -> None:
        """Roll back if this is the outermost transaction, else only end this one."""
        if not self._parent._is_active:
            return
        if self._parent is self:
            await self.rollback()
        else:
            self._is_active = False

    async def rollback(self) -> None:
        """Roll back. Does nothing if the outer transaction has ended."""
        if not self._parent._is_active:
            return
        await self._do_rollback()
        self._is_active = False

    async def _do_rollback(self) -> None:
        await self._parent.rollback()

    async def commit(self) -> None:
        """Commit. Raises InvalidRequestError if the outer transaction has ended."""
        if not self._parent._is_active:
            raise exc.InvalidRequestError("This transaction is inactive")
        await self._do_commit()
        self._is_active = False

    async def _do_commit(self) -> None:
        pass

    async def __aenter__(self: _T) -> _T:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        if exc_type:
            await self.rollback()
        elif self._is_active:
            await self.commit()


class RootTransaction(Transaction):
    """The outermost transaction."""

    __slots__ = ()

    def __init__(self, connection: "SAConnection") -> None:
        super().__init__(connection, None)

    async def _do_rollback(self) -> None:
        await self._connection._rollback_impl()

    async def _do_commit(self) -> None:
        await self._connection._commit_impl()


class NestedTransaction(Transaction):
    """A savepoint."""

    __slots__ = ("_savepoint",)

    def __init__(self, connection: "SAConnection", parent: Transaction) -> None:
        super().__init__(connection, parent)
        self._savepoint: str | None = None

    async def _do_rollback(self) -> None:
        assert self._savepoint is not None, "Broken transaction logic"
        if self._is_active:
            await self._connection._rollback_to_savepoint_impl(self._savepoint, self._parent)

    async def _do_commit(self) -> None:
        assert self._savepoint is not None, "Broken transaction logic"
        if self._is_active:
            await self._connection._release_savepoint_impl(self._savepoint, self._parent)


class TwoPhaseTransaction(Transaction):
    """A transaction for two-phase commit.

    Once `prepare()` has succeeded it belongs to the server, not to the connection: `commit()` and
    `rollback()` end it, and so do `SAConnection.commit_prepared()` and `rollback_prepared()` of
    any other connection. Committed without `prepare()` it is an ordinary transaction.

    xid: its ID, a str of less than 200 bytes.
    """

    __slots__ = ("_is_prepared", "_xid")

    def __init__(self, connection: "SAConnection", xid: Any) -> None:
        super().__init__(connection, None)
        self._is_prepared = False
        self._xid = xid

    @property
    def xid(self) -> Any:
        """The transaction's ID."""
        return self._xid

    async def prepare(self) -> None:
        """Prepare the transaction to be committed.

        Raises InvalidRequestError if it has ended. If the server refuses, it has rolled back.
        """
        if not self._parent.is_active:
            raise exc.InvalidRequestError("This transaction is inactive")
        await self._connection._prepare_twophase_impl(self._xid)
        self._is_prepared = True

    async def _do_rollback(self) -> None:
        await self._connection._end_twophase_impl(self, "ROLLBACK")

    async def _do_commit(self) -> None:
        await self._connection._end_twophase_impl(self, "COMMIT")
