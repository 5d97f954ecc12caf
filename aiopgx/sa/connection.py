"""SAConnection: executes SQLAlchemy statements on a connection."""

import asyncio
import contextlib
import weakref
from typing import Any

from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.ddl import DDLElement
from sqlalchemy.sql.dml import Insert, Update, UpdateBase

from ..transaction import close_if_left
from ..utils import _ContextManager, _IterableContextManager
from . import exc
from ._statements import Statement, check_parameters, statement_for
from .result import ResultProxy, RowProxy
from .transaction import (
    NestedTransaction,
    RootTransaction,
    Transaction,
    TwoPhaseTransaction,
)


async def _commit_transaction_if_active(transaction: Transaction) -> None:
    if transaction.is_active:
        await transaction.commit()


async def _rollback_transaction(transaction: Transaction) -> None:
    await transaction.rollback()


def without_row_factory(cursor: Any) -> None:
    """Have a cursor give plain rows, which RowProxy needs, whatever its connection was set to."""
    if getattr(cursor, "row_factory", None) is not None:
        cursor.row_factory = None


async def _close_result_proxy(result: ResultProxy) -> None:
    result.close()


class SAConnection:
    """Executes SQLAlchemy statements; `Engine.acquire()` makes it.

    connection: an `aiopgx.Connection`.
    engine: has the `dialect`; its `release()` is called in the end.
    """

    # A subclass that asks for anything else gets its statements compiled each time.
    _QUERY_COMPILE_KWARGS: Any = (("render_postcompile", True),)

    __slots__ = (
        "_connection",
        "_cursors",
        "_dialect",
        "_engine",
        "_query_compile_kwargs",
        "_savepoint_seq",
        "_transaction",
    )

    def __init__(self, connection: Any, engine: Any) -> None:
        self._connection = connection
        self._transaction: Transaction | None = None
        self._savepoint_seq = 0
        self._engine = engine
        self._dialect = engine.dialect
        self._cursors: weakref.WeakSet[Any] = weakref.WeakSet()
        self._query_compile_kwargs = dict(self._QUERY_COMPILE_KWARGS)

    # Execution

    def execute(
        self, query: Any, *multiparams: Any, **params: Any
    ) -> "_IterableContextManager[ResultProxy, RowProxy]":
        """Execute a statement: `await` it for the result.

        `async with` closes the result at the end; `async for` gives the rows.

        query: SQL text, or any SQLAlchemy statement.
        multiparams, params: parameters by name: a dict or keyword arguments; by position, for
            text and for INSERT, UPDATE and DELETE: a tuple, a list or single arguments. Several
            sets, as several arguments or in one list, execute the statement for each of them as
            one unit, as `Cursor.executemany()` does: `rowcount` is the sum, and there are no rows
            (new in aiopgx).

        Raises psycopg2's exceptions, SQLAlchemy's where it can't compile, and ArgumentError.
        """
        return _IterableContextManager(
            self._execute(query, *multiparams, **params), _close_result_proxy
        )

    async def _execute(self, query: Any, *multiparams: Any, **params: Any) -> ResultProxy:
        cursor = await self._open_cursor()
        many, text, parameters, result_map = self._read(query, multiparams, params)
        if many:
            await cursor.executemany(text, parameters)
        else:
            await cursor.execute(text, parameters)
        return ResultProxy(self, cursor, self._dialect, result_map)

    def _read(self, query: Any, multiparams: Any, params: Any) -> tuple[bool, Any, Any, Any]:
        """Whether there are several sets; the text, its parameters or sets, the columns."""
        sets = _distill_params(multiparams, params)
        many = len(sets) > 1
        values = sets[0] if sets else sets
        result_map: Any = None
        if isinstance(query, str):
            text, parameters = query, sets if many else values
        elif not isinstance(query, ClauseElement):
            raise exc.ArgumentError(
                "sql statement should be str or SQLAlchemy data selection/modification clause"
            )
        elif isinstance(query, DDLElement):
            text, parameters = str(query.compile(dialect=self._dialect)), None
            if values:
                raise exc.ArgumentError(
                    "Don't mix sqlalchemy DDL clause and execution with parameters"
                )
        else:
            if many:
                sets = [_by_name(query, values, many) for values in sets]
                values = sets[0]
            elif values and type(values) is not dict:
                values = _by_name(query, values, many)
            statement, extracted, collected = self._compile(query, values, many)
            if isinstance(query, (Insert, Update)):
                check_parameters(
                    query, statement, sets if many else [values], bool(multiparams or params)
                )
            result_map = statement.result_map.of(query)
            if many:
                text, parameters = statement.bind_many(sets, extracted, collected)
            else:
                text, parameters = statement.bind(values, extracted, collected)
        return many, text, parameters, result_map

    def _compile(self, query: Any, values: Any, many: bool) -> tuple[Statement, Any, Any]:
        keywords = self._query_compile_kwargs
        if keywords == _RENDER_POSTCOMPILE:
            return statement_for(query, self._dialect, values, many)
        # Statement itself renders lists, at each execution
        keywords = {name: keywords[name] for name in keywords if name != "render_postcompile"}
        compiled = query.compile(dialect=self._dialect, compile_kwargs=keywords)
        return Statement(compiled), None, None

    def _usable(self) -> Any:
        if self._connection is None:
            raise exc.ResourceClosedError("This connection is closed.")
        return self._connection

    async def _open_cursor(self) -> Any:
        cursor = await self._usable().cursor()
        without_row_factory(cursor)
        cursor._pipelined = False  # its result is looked at when execute() returns
        self._cursors.add(cursor)
        return cursor

    def _close_cursor(self, cursor: Any) -> None:
        self._cursors.discard(cursor)
        cursor.close()

    async def _control(self, command: str, *parameters: Any) -> None:
        """Execute a command of transaction control."""
        cursor = await self._open_cursor()
        try:
            await cursor.execute(command, parameters or None)
        finally:
            self._close_cursor(cursor)

    async def scalar(self, query: Any, *multiparams: Any, **params: Any) -> Any:
        """Execute a statement and return the first value of the first row, None without rows."""
        result = await self.execute(query, *multiparams, **params)
        return await result.scalar()

    @property
    def closed(self) -> bool:
        """Whether this object, or the connection behind it, is closed."""
        return self.connection is None or self.connection.closed

    @property
    def connection(self) -> Any:
        """The `aiopgx.Connection`, None once this object is closed."""
        return self._connection

    # Transactions

    def begin(
        self,
        isolation_level: str | None = None,
        readonly: bool = False,
        deferrable: bool = False,
    ) -> _ContextManager[Transaction]:
        """Open a transaction: `await` it, or `async with` it to commit or roll back at the end.

        Within a transaction it gives a `Transaction` whose commit does nothing, and whose rollback
        rolls back the outer one.

        isolation_level: "SERIALIZABLE", "REPEATABLE READ", "READ COMMITTED" or "READ
            UNCOMMITTED"; the server's default if None.
        readonly, deferrable: the modes of BEGIN.
        """
        return _ContextManager[Transaction](
            self._begin(isolation_level, readonly, deferrable),
            _commit_transaction_if_active,
            _rollback_transaction,
        )

    async def _begin(
        self, isolation_level: str | None, readonly: bool, deferrable: bool
    ) -> Transaction:
        if self._transaction is not None:
            return Transaction(self, self._transaction)
        return await self._begin_root(RootTransaction(self), isolation_level, readonly, deferrable)

    async def _begin_root(self, transaction: Transaction, *modes: Any) -> Transaction:
        self._transaction = transaction
        try:
            await self._begin_impl(*modes)
        except BaseException:
            self._transaction = None
            raise
        return transaction

    async def _begin_impl(
        self, isolation_level: str | None = None, readonly: bool = False, deferrable: bool = False
    ) -> None:
        command = "BEGIN"
        if isolation_level is not None:
            command += f" ISOLATION LEVEL {isolation_level}"
        if readonly:
            command += " READ ONLY"
        if deferrable:
            command += " DEFERRABLE"
        await self._control(command)

    async def _commit_impl(self) -> None:
        cursor = await self._open_cursor()
        try:
            await cursor.execute("COMMIT")
        except asyncio.CancelledError as error:
            close_if_left(self, error)
            raise
        finally:
            self._close_cursor(cursor)
            self._transaction = None

    async def _rollback_impl(self) -> None:
        try:
            if not self._connection.closed:
                await self._control("ROLLBACK")
        except asyncio.CancelledError as error:
            close_if_left(self, error)
            raise
        finally:
            self._transaction = None

    def begin_nested(self) -> _ContextManager[Transaction]:
        """Set a savepoint, or open a transaction if there is none. See `begin()`."""
        return _ContextManager[Transaction](
            self._begin_nested(), _commit_transaction_if_active, _rollback_transaction
        )

    async def _begin_nested(self) -> Transaction:
        parent = self._transaction
        if parent is None:
            return await self._begin_root(RootTransaction(self))
        self._transaction = transaction = NestedTransaction(self, parent)
        try:
            transaction._savepoint = await self._savepoint_impl()
        except BaseException:
            self._transaction = parent
            raise
        return transaction

    async def _savepoint_impl(self) -> str:
        self._savepoint_seq += 1
        name = f"aiopg_sa_savepoint_{self._savepoint_seq}"
        await self._control(f"SAVEPOINT {name}")
        return name

    async def _rollback_to_savepoint_impl(self, name: str, parent: Transaction) -> None:
        try:
            if not self._connection.closed:
                await self._control(f"ROLLBACK TO SAVEPOINT {name}")
        finally:
            self._transaction = parent

    async def _release_savepoint_impl(self, name: str, parent: Transaction) -> None:
        await self._control(f"RELEASE SAVEPOINT {name}")
        self._transaction = parent

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return self._transaction is not None and self._transaction.is_active

    # Two-phase commit

    async def begin_twophase(self, xid: Any = None) -> TwoPhaseTransaction:
        """Open a transaction for two-phase commit.

        xid: its ID, a str of less than 200 bytes; a random one if None.

        Raises InvalidRequestError within a transaction. The server must have
        `max_prepared_transactions` above 0.
        """
        if self._transaction is not None:
            raise exc.InvalidRequestError(
                "Cannot start a two phase transaction when a transaction is already in progress."
            )
        if xid is None:
            xid = self._dialect.create_xid()
        transaction = TwoPhaseTransaction(self, xid)
        await self._begin_root(transaction)
        return transaction

    async def _prepare_twophase_impl(self, xid: Any) -> None:
        await self._control("PREPARE TRANSACTION %s", xid)

    async def _end_twophase_impl(self, transaction: TwoPhaseTransaction, verb: str) -> None:
        """Commit or roll back, prepared or not. On a closed connection a rollback is skipped."""
        if not transaction._is_prepared:
            await (self._commit_impl() if verb == "COMMIT" else self._rollback_impl())
            return
        try:
            if verb == "COMMIT" or not self._connection.closed:
                await self._control(f"{verb} PREPARED %s", transaction.xid)
        finally:
            self._transaction = None

    async def recover_twophase(self) -> list[Any]:
        """Return the IDs of all prepared transactions of the server."""
        result = await self.execute("SELECT gid FROM pg_prepared_xacts")
        return [row[0] for row in await result.fetchall()]

    async def rollback_prepared(self, xid: Any, *, is_prepared: bool = True) -> None:
        """Roll back a prepared transaction; the current one if `is_prepared` is False."""
        if is_prepared:
            await self._end_prepared("ROLLBACK", xid)
        else:
            await self._rollback_impl()

    async def commit_prepared(self, xid: Any, *, is_prepared: bool = True) -> None:
        """Commit a prepared transaction; the current one if `is_prepared` is False."""
        if is_prepared:
            await self._end_prepared("COMMIT", xid)
        else:
            await self._commit_impl()

    async def _end_prepared(self, verb: str, xid: Any) -> None:
        await self._control(f"{verb} PREPARED %s", xid)
        current = self._transaction
        if isinstance(current, TwoPhaseTransaction) and current.xid == xid:
            current._is_active = False
            self._transaction = None

    # Closing

    async def close(self) -> None:
        """Roll back an open transaction, and give the connection back to the engine.

        A prepared transaction stays on the server.
        """
        if self.connection is None:
            return
        if self._transaction is None:
            released = self._release()
            if released is None or (isinstance(released, asyncio.Future) and released.done()):
                return  # most often: nothing to wait for
            await asyncio.shield(_drop_errors(released))
        else:
            await asyncio.shield(self._close())

    async def _close(self) -> None:
        transaction = self._transaction
        while transaction is not None and transaction._parent is not transaction:
            transaction = transaction._parent  # out of the savepoints
        if transaction is not None and not getattr(transaction, "_is_prepared", False):
            with contextlib.suppress(Exception):
                await transaction.rollback()
        self._transaction = None
        await _drop_errors(self._release())

    def _release(self) -> Any:
        """Close the cursors and let go of the connection; return what is to be awaited, if any."""
        for cursor in self._cursors:
            cursor.close()
        self._cursors.clear()
        engine, released = self._engine, None
        if engine is not None:
            with contextlib.suppress(Exception):
                released = engine.release(self)
            self._connection = None
            self._engine = None
        return released


_RENDER_POSTCOMPILE = dict(SAConnection._QUERY_COMPILE_KWARGS)


async def _drop_errors(awaitable: Any) -> None:
    with contextlib.suppress(Exception):
        await awaitable


def _by_name(query: Any, values: Any, many: bool) -> Any:
    """Parameters by position as parameters by name, in the order of the table's columns."""
    if not values or not isinstance(values, (list, tuple)):
        return values
    if isinstance(query, UpdateBase):
        if many and len(values) > len(query.table.c):  # aiopg drops them from a single one
            raise exc.ArgumentError(
                f"{len(values)} parameters for the {len(query.table.c)} columns of {query.table}"
            )
        return {column.key: value for column, value in zip(query.table.c, values, strict=False)}
    raise exc.ArgumentError("Don't mix sqlalchemy SELECT clause with positional parameters")


def _distill_params(multiparams: Any, params: Any) -> Any:
    """Return the parameter sets that the arguments of execute() mean."""
    if not multiparams:
        return [params] if params else []
    first = multiparams[0]
    if len(multiparams) > 1:
        return multiparams if _is_set(first) else [multiparams]
    if isinstance(first, (list, tuple)):
        return first if not first or _is_set(first[0]) else [first]
    return [first] if hasattr(first, "keys") else [[first]]


def _is_set(value: Any) -> bool:
    """Whether it is a set of parameters, not a value: iterable, but no string."""
    return hasattr(value, "__iter__") and not hasattr(value, "strip")
