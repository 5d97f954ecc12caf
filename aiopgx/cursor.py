"""Cursor: executes statements and fetches rows, with psycopg2's attributes."""

import asyncio
import contextlib
import datetime
from collections.abc import AsyncIterable, Callable, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast

import psycopg2
from psycopg2.extensions import QueryCanceledError
from psycopg2.sql import Composable

from ._core import Wire, check_timeout
from ._nul import refuse_nul, written
from ._prepared import execute
from ._requests import Session, command, execute_foreign
from ._rows import SHAPE_FOREIGN, Result, Unready, shape_of
from ._stream import Stream
from .bulk import execute_batch, execute_many, execute_values
from .copy import copy_expert, copy_from, copy_records, copy_to
from .log import logger
from .pipeline import Pending, Pipeline
from .rows import PsycopgRows, Row, RowFactory, shape_of_factory
from .stream import RowStream
from .transaction import (
    IsolationLevel,
    Transaction,
    _commit_transaction,
    _rollback_transaction,
)
from .utils import _ContextManager, trim

if TYPE_CHECKING:
    from .connection import Connection  # what `Cursor.connection` is for those who use it


_C = TypeVar("_C", bound="Cursor[Any]")


class Owner(Protocol):
    """What a cursor asks of its connection."""

    _wire: Wire
    _raise_query_canceled: bool

    @property
    def closed(self) -> int: ...

    def close(self) -> Any: ...


class Cursor(Generic[Row]):
    """A cursor of a `Connection`; `await conn.cursor()` makes it.

    conn: the connection.
    impl: the psycopg2 cursor behind this one.
    timeout: the default of execute() and callproc() in seconds, None for no limit.
    echo: log each statement at level INFO.
    isolation_level: of the transactions that begin() opens.
    """

    _session: Session | None = None  # whose requests wait for each other
    _row_factory: RowFactory[Any] | None = None
    _raises_canceled = False  # a QueryCanceledError as such; see `connect()`
    _pipelined = True  # in a pipeline() of the connection, execute() waits for nothing
    _is_part = False  # of an operation that is traced already
    _pending = Pending
    _row_stream = RowStream

    def __init__(
        self,
        conn: Owner,
        impl: Any,
        timeout: float | None,
        echo: bool,
        isolation_level: IsolationLevel | None = None,
    ) -> None:
        self._conn = conn
        self._wire = conn._wire
        self._psycopg = impl
        # What rows and attributes are read from: a Result of the native road, else psycopg2.
        self._result: Any = impl
        self._shape = shape_of(type(impl)) if self._wire.native else SHAPE_FOREIGN
        self._timeout = timeout
        self._echo = echo
        self._isolation_level = isolation_level
        self._own_transaction: Any = None

    # Execution

    async def execute(
        self,
        operation: Any,
        parameters: Any = None,
        *,
        timeout: float | None = None,
        prepare: bool | None = None,
    ) -> None:
        """Execute a statement, or several separated by semicolons: the last result counts.

        operation: str, bytes or psycopg2.sql object, with `%s` or `%(name)s` placeholders.
        parameters: sequence or mapping for the placeholders; None leaves `%` alone.
        timeout: seconds, the cursor's default if None. When it is over, or the task is
            cancelled, the query is cancelled on the server and the connection closed.
        prepare: True to prepare the statement now, False not to; None if it is executed often:
            see `Connection.prepare_threshold`. New in aiopgx.

        Raises psycopg2's exceptions, `asyncio.TimeoutError`, and `RuntimeError` while another
        statement is being executed on the connection.
        """
        wire, session = self._wire, self._session
        refusal = wire.refusal("cursor.execute", session)
        if refusal is not None:
            raise refusal
        if self._echo:
            self._log(parameters, operation)
        if timeout is None:
            timeout = self._timeout
        if wire.shared is not None and self._pipelined and session is None:
            await self._execute_piped(wire.shared, operation, parameters, timeout)
            return
        if self._shape == SHAPE_FOREIGN:
            await self._execute_foreign(self._psycopg.execute, operation, parameters, timeout)
            return
        waiter = outcome = None
        try:
            if isinstance(operation, Composable):
                operation = written(operation, self._psycopg)
            waiter = execute(
                wire, self._psycopg, self._shape, operation, parameters, timeout, session, prepare
            )
            outcome = (await waiter).pop()
            if type(outcome) is not Result:
                raise outcome
            self._result = outcome
        except BaseException as exc:
            trim(exc)
            if waiter is None:
                self._refused(operation)
            else:
                self._failed(exc, waiter)
            raise
        finally:
            del waiter, outcome  # an exception must not hold itself, by way of this frame

    async def _execute_piped(
        self, pipeline: Pipeline, operation: Any, parameters: Any, timeout: float | None
    ) -> None:
        try:
            if self._shape == SHAPE_FOREIGN:
                refuse_nul(operation)
            elif isinstance(operation, Composable):
                operation = written(operation, self._psycopg)
            await pipeline._execute(self, operation, parameters, timeout)
        except BaseException as exc:
            trim(exc)
            raise

    async def executemany(
        self,
        operation: Any,
        seq_of_parameters: Iterable[Any] | AsyncIterable[Any],
        *,
        timeout: float | None = None,
    ) -> None:
        """Execute a statement for each of the parameter sets, in order and as one unit.

        Outside a transaction it makes one of its own: at the first error nothing has been done.
        The iterable, an asynchronous one too, is consumed lazily, up to some hundred sets ahead of
        the server. `rowcount` is the sum; there are no rows to fetch. The notes of an exception
        (its `__notes__`) tell the index of the set that failed. New in aiopgx.

        timeout: seconds for each execution; see execute().
        """
        refusal = self._wire.refusal("cursor.executemany", self._session)
        if refusal is not None:
            raise refusal
        try:
            await execute_many(self, operation, seq_of_parameters, timeout)
        except BaseException as exc:
            trim(exc)
            raise

    async def execute_batch(
        self, sql: Any, argslist: Iterable[Any] | AsyncIterable[Any], page_size: int = 100
    ) -> None:
        """Execute a statement for each of the argument sets, `page_size` of them in a message.

        As `psycopg2.extras.execute_batch()`: outside a transaction each page is one. executemany()
        is faster, and one unit. New in aiopgx.
        """
        try:
            await execute_batch(self, sql, argslist, page_size)
        except BaseException as exc:
            trim(exc)
            raise

    async def execute_values(
        self,
        sql: Any,
        argslist: Iterable[Any] | AsyncIterable[Any],
        template: Any = None,
        page_size: int = 100,
        fetch: bool = False,
    ) -> list[Any] | None:
        """Execute a statement with a list of values in the place of its one `%s`.

        As `psycopg2.extras.execute_values()`: outside a transaction each page is one. New in
        aiopgx.

        template: what is written for each of the argument sets, "(%s, %s ...)" by default.
        page_size: how many of them are in a statement, at most.
        fetch: return the rows of all statements; else None.
        """
        try:
            return await execute_values(self, sql, argslist, template, page_size, fetch)
        except BaseException as exc:
            trim(exc)
            raise

    def stream(
        self,
        operation: Any,
        parameters: Any = None,
        *,
        size: int = 100,
        timeout: float | None = None,
    ) -> RowStream[Row]:
        """Execute a statement and give its rows as they arrive: `async for row in cur.stream(...)`.

        The server sends as fast as the rows are used, so that a result of any size needs the memory
        of a few batches. No transaction is needed. The statement is sent when the first row is
        asked for; until the last is given, the connection executes nothing else. New in aiopgx.

        Leaving the loop early cancels the statement on the server; the next one waits for its end.
        See `RowStream.aclose()` for transactions. An error of the server is raised where it
        happened, except that the rows of its batch are not given.

        operation, parameters: as for execute(). Of several statements one may give rows.
        size: rows of a batch; 1 gives each row as soon as it is here.
        timeout: seconds that the server may take until the next batch; the cursor's default if
            None. When they are over, the connection is closed, as by execute().

        Cursor classes other than psycopg2's own, and psycopg2's road, execute the statement as
        execute() does: the same rows, but all of them in memory.
        """
        check_timeout(timeout)
        if not isinstance(size, int):
            raise TypeError(f"size must be a number of rows, not {size!r}")
        if size < 1:
            raise ValueError(f"size must be a positive number of rows, not {size!r}")
        return self._row_stream(self, operation, parameters, size, timeout)

    async def _command(self, operation: str | bytes) -> None:
        """Execute something on behalf of a method; this cursor does not show it."""
        refusal = self._wire.refusal("cursor.execute", self._session)
        if refusal is not None:
            raise refusal
        if self._echo:
            self._log(None, operation)
        waiter = outcome = None
        try:
            waiter = command(self._wire, operation, None, self._timeout, self._session)
            outcome = (await waiter).pop()
            if isinstance(outcome, BaseException):
                raise outcome
        except BaseException as exc:
            trim(exc)
            if waiter is not None:
                self._failed(exc, waiter)
            raise
        finally:
            del waiter, outcome  # as above

    async def callproc(
        self,
        procname: str,
        parameters: Any = None,
        *,
        timeout: float | None = None,
    ) -> None:
        """Call a function of the database; its result is fetched as that of a SELECT.

        parameters: sequence, or mapping of argument names.
        timeout: seconds; see execute().
        """
        refusal = self._wire.refusal("cursor.callproc", self._session)
        if refusal is not None:
            raise refusal
        if self._echo:
            self._log(parameters, "CALL %s", procname)
        if timeout is None:
            timeout = self._timeout
        names = parameters if isinstance(parameters, dict) else ()
        await self._execute_foreign(self._psycopg.callproc, procname, parameters, timeout, names)

    async def _execute_foreign(
        self,
        start: Any,
        operation: Any,
        parameters: Any,
        timeout: float | None,
        names: Iterable[str] = (),
    ) -> None:
        waiter = error = None
        try:
            for text in (operation, *names):
                refuse_nul(text)
            self._hand_over()
            waiter = execute_foreign(
                self._wire, start, operation, parameters, timeout, self._session
            )
            error = (await waiter).pop()
            if error is not None:
                raise error
        except BaseException as exc:
            trim(exc)
            if waiter is not None:
                self._failed(exc, waiter)
            raise
        finally:
            del waiter, error  # as above

    def _log(self, parameters: Any, *operation: Any) -> None:
        logger.info(*operation, stacklevel=2)
        logger.info("%r", parameters, stacklevel=2)

    def _refused(self, operation: Any) -> None:
        """Nothing was sent: leave what psycopg2 leaves of the statement before."""
        if self.closed or isinstance(operation, Composable):
            return  # no text came out
        try:
            self._psycopg.mogrify(operation)
        except Exception:
            return  # no statement at all: nothing is forgotten
        self._hand_over()
        with contextlib.suppress(IndexError, psycopg2.Error):
            self._psycopg.execute("%s", ())  # refused, too: lets go of the rows and the text

    async def _settle(self) -> None:
        """In a pipeline, wait for what has been executed before; raise its error.

        Does nothing for what will be refused.
        """
        if self._wire.shared is not None and self._wire.misplaced("cursor") is None:
            await self._wire.shared.sync()

    def _failed(self, exc: BaseException, waiter: "asyncio.Future[Any]") -> None:
        """Leave no rows behind, and close what is not proved clean."""
        self._result = self._from_psycopg()
        if self._wire.give_up(waiter, exc):
            self._conn.close()
        elif isinstance(exc, asyncio.TimeoutError) and self._wire.closed:
            self._conn.close()
            self._psycopg.close()
        elif isinstance(exc, QueryCanceledError) and not (
            self._raises_canceled
            or self._conn._raise_query_canceled
            or waiter in self._wire.stopped  # by Connection.cancel()
        ):
            # aiopg's way: the task sees its query cancelled as if it were cancelled itself
            self._wire.loop.call_exception_handler(
                {"message": exc.pgerror, "exception": exc, "future": waiter}
            )
            raise asyncio.CancelledError

    def mogrify(self, operation: Any, parameters: Any = None) -> bytes:
        """Return the statement as execute() would send it, with its parameters."""
        statement: bytes = self._psycopg.mogrify(operation, parameters)
        return statement

    async def setinputsizes(self, sizes: Any) -> None:
        """Do nothing, as DB-API allows."""
        self._psycopg.setinputsizes(sizes)

    async def setoutputsize(self, size: int, column: int | None = None) -> None:
        """Do nothing, as DB-API allows."""
        self._psycopg.setoutputsize(size, column)

    async def nextset(self) -> None:
        """Raise `psycopg2.NotSupportedError`: PostgreSQL has no such thing."""
        self._psycopg.nextset()

    # COPY

    async def copy_from(
        self,
        file: Any,
        table: str,
        sep: str = "\t",
        null: str = "\\N",
        size: int = 8192,
        columns: Iterable[str] | None = None,
        *,
        timeout: float | None = None,
    ) -> None:
        r"""Append what a file holds to a table, in the text format: psycopg2's method.

        file: has read(size), which gives str or bytes, or such an awaitable; or an iterable or
            asynchronous iterable of str or bytes, cut anywhere.
        table: the name, which is quoted: without a schema. See copy_expert() otherwise.
        sep, null: what is between columns, what stands for NULL.
        columns: names, all columns by default.
        timeout: seconds for all of it, the cursor's default if None.

        `rowcount` is the number of rows. An exception of the file's ends the COPY and is raised:
        nothing is stored. New in aiopgx.
        """
        await copy_from(self, file, table, sep, null, size, columns, timeout)

    async def copy_to(
        self,
        file: Any,
        table: str,
        sep: str = "\t",
        null: str = "\\N",
        columns: Iterable[str] | None = None,
        *,
        timeout: float | None = None,
    ) -> None:
        """Write the rows of a table to a file, in the text format: psycopg2's method.

        file: has write(), or is a callable; either may return an awaitable. Text files get str,
            all others bytes. Files and coroutine functions get several whole rows at a time,
            other objects and callables one, as from psycopg2.

        The other arguments are those of copy_from(). An exception of the file's ends the COPY and
        is raised. New in aiopgx.
        """
        await copy_to(self, file, table, sep, null, columns, timeout)

    async def copy_expert(
        self, sql: Any, file: Any, size: int = 8192, *, timeout: float | None = None
    ) -> None:
        """Execute a COPY ... FROM STDIN or COPY ... TO STDOUT of your own: psycopg2's method.

        sql: str, bytes or psycopg2.sql object.
        file, timeout: see copy_from() and copy_to().
        size: of what is read from a file at a time.

        New in aiopgx.
        """
        await copy_expert(self, sql, file, size, timeout)

    async def copy_records(
        self,
        table: str,
        records: Any,
        columns: Iterable[str] | None = None,
        *,
        schema_name: str | None = None,
        timeout: float | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> None:
        """Append records to a table, by COPY: the quickest way to store many.

        table, schema_name: the names, which are quoted; without a schema, the search path counts.
        records: iterable or asynchronous iterable of sequences, one value for each column. It is
            consumed as the server takes it. A value is stored as by an INSERT with psycopg2.
        columns: names, all columns by default that are not generated.
        timeout: seconds for all of it, the cursor's default if None.
        progress: called now and then, and at the end, with the records and bytes sent so far.

        `rowcount` is the number of rows. An exception of the iterable's ends the COPY and is
        raised; so does a record of another length, or a value that can't be stored, whose
        `psycopg2.DataError` says which: nothing is stored. New in aiopgx.
        """
        await copy_records(self, table, records, columns, schema_name, timeout, progress)

    # Transactions

    @property
    def _transaction(self) -> Any:
        if self._own_transaction is None:
            self._own_transaction = Transaction(
                self._executor(), self._isolation_level or IsolationLevel.default
            )
        return self._own_transaction

    @_transaction.setter
    def _transaction(self, transaction: Any) -> None:
        self._own_transaction = transaction

    def _executor(self) -> "Cursor[Any]":
        """What executes the statements of transactions."""
        return self

    def begin(self) -> _ContextManager[Transaction]:
        """Open a transaction: `await` it, or `async with` it to commit or roll back at the end."""
        return _ContextManager[Transaction](
            self._transaction.begin(), _commit_transaction, _rollback_transaction
        )

    def begin_nested(self) -> _ContextManager[Transaction]:
        """Open a transaction, or a savepoint if one is open."""
        if self._transaction.is_begin:
            point: _ContextManager[Transaction] = self._transaction.point()
            return point
        return self.begin()

    # Rows

    async def fetchone(self) -> Row | None:
        """Return the next row, None after the last."""
        try:
            return self._result.fetchone()  # type: ignore[no-any-return]
        except Unready:
            pass
        except BaseException as error:
            trim(error)
            raise
        await self._arrive()
        return await Cursor.fetchone(self)

    async def _arrive(self) -> None:
        """Wait for the statement of a pipeline, and raise its error; or find the rows' maker."""
        result = self._result
        try:
            if not isinstance(result, Pending):
                result.maker = self._maker()
                return
            await result.arrive()
            result.show()
        except BaseException as error:
            trim(error)
            raise

    async def fetchmany(self, size: int | None = None) -> list[Row]:
        """Return the next rows, at most `size` of them (`arraysize` by default)."""
        if size is None:
            size = self._psycopg.arraysize
        try:
            rows: list[Row] = self._result.fetchmany(size)
            return rows
        except Unready:
            pass
        except BaseException as error:
            trim(error)
            raise
        await self._arrive()
        return await Cursor.fetchmany(self, size)

    async def fetchall(self) -> list[Row]:
        """Return the rows that are left."""
        try:
            rows: list[Row] = self._result.fetchall()
            return rows
        except Unready:
            pass
        except BaseException as error:
            trim(error)
            raise
        await self._arrive()
        return await Cursor.fetchall(self)

    async def scroll(self, value: int, mode: str = "relative") -> None:
        """Move in the result by `value` rows, or to row `value` if mode is "absolute"."""
        try:
            self._result.scroll(value, mode)
            return
        except Unready:
            pass
        except BaseException as error:
            trim(error)
            raise
        await self._arrive()
        await Cursor.scroll(self, value, mode)

    def __aiter__(self) -> "Cursor[Row]":
        return self

    async def __anext__(self) -> Row:
        # a fetchone() put in its place, by a subclass or a patch, gets to see these rows, too
        if type(self).fetchone is _fetchone and "fetchone" not in self.__dict__:
            try:
                row: Any = self._result.fetchone()
            except Unready:
                row = self
            except BaseException as error:
                trim(error)
                raise
            if row is self:
                row = await Cursor.fetchone(self)
        else:
            row = await self.fetchone()
        if row is None and (self._row_factory is None or self._result.exhausted):
            raise StopAsyncIteration
        return row  # type: ignore[no-any-return]

    # Attributes

    @property
    def raw(self) -> Any:
        """The psycopg2 cursor, with the result of the last execution.

        Once it has been asked for, psycopg2 executes the statements of this cursor itself, so
        that whoever keeps it sees their results.
        """
        if isinstance(self._result, Pending):
            raise RuntimeError("the statement is in flight: fetch from the cursor before")
        self._hand_over()
        self._shape = SHAPE_FOREIGN
        return self._psycopg

    _impl = raw

    def _hand_over(self) -> None:
        if isinstance(self._result, Result | Stream):
            self._result.hand_over(self._psycopg)
        self._read_from(self._from_psycopg())

    def _from_psycopg(self) -> Any:
        """What rows and attributes are read from when psycopg2 has the result."""
        return self._psycopg if self._row_factory is None else PsycopgRows(self._psycopg)

    def _read_from(self, rows: Any) -> None:
        self._result = rows

    @property
    def row_factory(self) -> RowFactory[Row] | None:
        """What makes the rows, such as `aiopgx.rows.dict_row`; None: the cursor class does.

        Can be set, also between fetches from a result. New in aiopgx, by psycopg 3's name.
        """
        return self._row_factory

    @row_factory.setter
    def row_factory(self, val: RowFactory[Any] | None) -> None:
        if isinstance(self._result, Pending):
            raise RuntimeError("the statement is in flight: fetch from the cursor before")
        shape = shape_of(type(self._psycopg)) if val is None else shape_of_factory(val)
        native = isinstance(self._result, Result | Stream)
        if native:
            self._result.reshape(shape)
        if self._shape != SHAPE_FOREIGN:
            self._shape = shape
        self._row_factory = val
        if not native:
            self._read_from(self._from_psycopg())

    def _maker(self) -> Any:
        """What makes the rows of the result, by the row factory."""
        assert self._row_factory is not None
        maker = self._row_factory(self)
        if not callable(maker):
            raise TypeError(f"a row factory must return a callable, not {maker!r}")
        return maker

    @property
    def connection(self) -> "Connection[Any]":
        """The `Connection` of this cursor."""
        return cast("Connection[Any]", self._conn)

    @property
    def echo(self) -> bool:
        """Whether statements are logged."""
        return self._echo

    @property
    def timeout(self) -> float | None:
        """The default timeout in seconds."""
        return self._timeout

    @property
    def description(self) -> Sequence[Any] | None:
        """The columns of the result as `psycopg2.extensions.Column`, None if there is none."""
        columns: Sequence[Any] | None = self._result.description
        return columns

    @property
    def rowcount(self) -> int:
        """The number of rows that the last statement gave or changed, -1 if unknown."""
        count: int = self._result.rowcount
        return count

    @property
    def rownumber(self) -> int:
        """The position in the result: the index of the row that is fetched next."""
        number: int = self._result.rownumber
        return number

    @property
    def lastrowid(self) -> int:
        """The OID of the last inserted row, 0 where tables have no OIDs."""
        oid: int = self._result.lastrowid
        return oid

    @property
    def query(self) -> bytes | None:
        """The last statement as it was sent, None before the first."""
        query: bytes | None = self._result.query
        return query

    @property
    def statusmessage(self) -> str | None:
        """The command tag of the last statement, such as "UPDATE 3"."""
        message: str | None = self._result.statusmessage
        return message

    @property
    def name(self) -> str | None:
        """The name of a server-side cursor, else None."""
        name: str | None = self._psycopg.name
        return name

    @property
    def scrollable(self) -> bool | None:
        scrollable: bool | None = self._psycopg.scrollable
        return scrollable

    @scrollable.setter
    def scrollable(self, val: bool | None) -> None:
        self._psycopg.scrollable = val

    @property
    def withhold(self) -> bool:
        withhold: bool = self._psycopg.withhold
        return withhold

    @withhold.setter
    def withhold(self, val: bool) -> None:
        self._psycopg.withhold = val

    @property
    def arraysize(self) -> int:
        """The default number of rows of fetchmany(), 1 at first."""
        size: int = self._psycopg.arraysize
        return size

    @arraysize.setter
    def arraysize(self, val: int) -> None:
        self._psycopg.arraysize = val

    @property
    def itersize(self) -> int:
        """Rows that a server-side cursor fetches at a time; no effect on this cursor."""
        size: int = self._psycopg.itersize
        return size

    @itersize.setter
    def itersize(self, val: int) -> None:
        self._psycopg.itersize = val

    @property
    def tzinfo_factory(self) -> Any:
        """What makes the tzinfo of times with time zone: called with the offset (timedelta)."""
        return self._psycopg.tzinfo_factory

    @tzinfo_factory.setter
    def tzinfo_factory(self, val: datetime.tzinfo | Any) -> None:
        self._psycopg.tzinfo_factory = val

    @property
    def closed(self) -> bool:
        """Whether the cursor or its connection is closed."""
        closed: bool = self._psycopg.closed
        return closed

    def close(self) -> "asyncio.Future[None] | None":
        """Close the cursor. Takes effect at once; only server-side cursors give what to await."""
        if not self.closed:
            self._psycopg.close()
        return None

    async def __aenter__(self: _C) -> _C:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        cls = type(self)
        return f"<{cls.__module__}::{cls.__name__} name={self.name}, closed={self.closed}>"


_fetchone = Cursor.fetchone


async def _close_cursor(cursor: Cursor[Any]) -> None:
    closing = cursor.close()
    if asyncio.isfuture(closing):
        await closing
