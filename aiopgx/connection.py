"""Connection: a psycopg2 connection driven by the event loop.

The names that aiopg keeps here can be imported from here.
"""

import asyncio
import sys
import traceback
import warnings
from collections.abc import Callable, Generator, Iterable, Sequence
from types import TracebackType
from typing import Any, Generic, TypeVar, overload

import psycopg2
import psycopg2.extensions
from psycopg2.extensions import TRANSACTION_STATUS_IDLE

from . import _psycopg
from ._cancel import LAST
from ._connecting import reach, register_types
from ._core import Wire, check_timeout
from ._plans import DEFAULT_MAXIMUM, DEFAULT_THRESHOLD, Plans
from ._redact import make_clear, without_passwords
from ._stop import stop
from ._traced import TracedCursor, TracedNamedCursor
from .cursor import Cursor, _close_cursor
from .hosts import plan
from .inbox import Inbox
from .named import NamedCursor, Portals, close_after_error, psycopg_named
from .pipeline import Pipeline
from .rows import Row, RowFactory, T, shape_of_factory
from .tracing import STATEMENTS, Tracer, Tracing, tracing_of
from .transaction import (
    DefaultCompiler,
    IsolationCompiler,
    IsolationLevel,
    ReadCommittedCompiler,
    RepeatableReadCompiler,
    SerializableCompiler,
    Transaction,
)
from .utils import (
    CONNECTING,
    ClosableQueue,
    _ContextManager,
    bounded,
    create_completed_future,
    get_running_loop,
    trim,
)

__all__ = (
    "TIMEOUT",
    "Connection",
    "Cursor",
    "DefaultCompiler",
    "IsolationCompiler",
    "IsolationLevel",
    "ReadCommittedCompiler",
    "RepeatableReadCompiler",
    "SerializableCompiler",
    "Transaction",
    "connect",
    "disconnect",
)

TIMEOUT = 60.0
CANCEL_TIMEOUT = 10.0


class _Default(int):
    """A default that is told apart from the same number given by the user."""


PREPARE_THRESHOLD = _Default(DEFAULT_THRESHOLD)

_C = TypeVar("_C", bound="Connection[Any]")


@overload
def connect(
    dsn: str | None = None,
    *,
    row_factory: RowFactory[T],
    timeout: float | None = TIMEOUT,
    enable_json: bool = True,
    enable_hstore: bool = True,
    enable_uuid: bool = True,
    echo: bool | str = False,
    cancel_timeout: float = CANCEL_TIMEOUT,
    raise_query_canceled: bool = False,
    prepare_threshold: int | None = PREPARE_THRESHOLD,
    prepared_max: int | None = DEFAULT_MAXIMUM,
    notifies_max: int | None = None,
    tracer: Tracer | Sequence[Tracer] | None = None,
    slow_query: float | None = None,
    **kwargs: Any,
) -> "_ContextManager[Connection[T]]": ...


@overload
def connect(
    dsn: str | None = None,
    *,
    timeout: float | None = TIMEOUT,
    enable_json: bool = True,
    enable_hstore: bool = True,
    enable_uuid: bool = True,
    echo: bool | str = False,
    cancel_timeout: float = CANCEL_TIMEOUT,
    raise_query_canceled: bool = False,
    prepare_threshold: int | None = PREPARE_THRESHOLD,
    prepared_max: int | None = DEFAULT_MAXIMUM,
    notifies_max: int | None = None,
    tracer: Tracer | Sequence[Tracer] | None = None,
    slow_query: float | None = None,
    row_factory: None = None,
    **kwargs: Any,
) -> "_ContextManager[Connection[Any]]": ...


def connect(
    dsn: str | None = None,
    *,
    timeout: float | None = TIMEOUT,
    enable_json: bool = True,
    enable_hstore: bool = True,
    enable_uuid: bool = True,
    echo: bool | str = False,
    cancel_timeout: float = CANCEL_TIMEOUT,
    raise_query_canceled: bool = False,
    prepare_threshold: int | None = PREPARE_THRESHOLD,
    prepared_max: int | None = DEFAULT_MAXIMUM,
    notifies_max: int | None = None,
    tracer: Tracer | Sequence[Tracer] | None = None,
    slow_query: float | None = None,
    row_factory: RowFactory[Any] | None = None,
    **kwargs: Any,
) -> "_ContextManager[Connection[Any]]":
    """Connect to PostgreSQL: `await` it, or `async with` it to close the connection at the end.

    dsn, kwargs: as for `psycopg2.connect()`: a URL or `key=value` pairs, and single parameters.
    timeout: seconds, for connecting and as the default of each statement; None for no limit.
    enable_json, enable_hstore, enable_uuid: give values of these types as Python objects.
    echo: log each statement, with its parameters, to the logger "aiopg" at level INFO. "statements"
        (new in aiopgx) logs them without parameters.
    cancel_timeout: seconds that the server gets to stop a query whose connection was closed; then
        it is left to itself. Nobody waits for that, but a pool counts the connection until then.
        New in aiopgx.
    raise_query_canceled: when the server cancels a statement (statement_timeout,
        pg_cancel_backend()), raise `psycopg2.errors.QueryCanceled` as psycopg2 does, instead of
        aiopg's `asyncio.CancelledError`. New in aiopgx.
    prepare_threshold: how often a statement is executed before it is prepared on the server; 0 for
        at once (from the second execution on: the first shows its columns), None for never. Given,
        it holds behind a connection pooler, too, where nothing is prepared by default. See
        docs/prepared.md. New in aiopgx, by psycopg 3's name.
    prepared_max: how many statements stay prepared on a connection; None for no limit. New in
        aiopgx, by psycopg 3's name.
    notifies_max: how many notifications may be unread; None for no limit. Those that come then are
        thrown away, and in their place `notifies.get()` raises an `OperationalError` that tells how
        many; the connection goes on. New in aiopgx.
    row_factory: what makes the rows of its cursors, such as `aiopgx.rows.dict_row`; see
        docs/rows.md. New in aiopgx, by psycopg 3's name.
    tracer: a function, or a list of them, that is told of all operations: see
        `aiopgx.tracing.Tracer` and docs/observability.md. New in aiopgx.
    slow_query: seconds; a statement that takes as long is logged at level WARNING, without its
        parameters. New in aiopgx.

    Raises psycopg2's exceptions, those about the arguments at once, and `asyncio.TimeoutError`.
    """
    try:
        connection = Connection(
            dsn,
            timeout,
            echo,
            enable_hstore=enable_hstore,
            enable_uuid=enable_uuid,
            enable_json=enable_json,
            cancel_timeout=cancel_timeout,
            raise_query_canceled=raise_query_canceled,
            prepare_threshold=prepare_threshold,
            prepared_max=prepared_max,
            notifies_max=notifies_max,
            row_factory=row_factory,
            tracer=tracer,
            slow_query=slow_query,
            **kwargs,
        )
    except BaseException as error:
        trim(error, CONNECTING)
        raise
    finally:
        del dsn, kwargs  # the traceback of an error holds this frame
    return _ContextManager[Connection](connection, disconnect, _drop)


async def disconnect(c: "Connection[Any]") -> None:
    """Close a connection."""
    await c.close()


async def _drop(c: "Connection") -> None:
    """Close a connection because of an exception, which is to be seen at once."""
    c.close()


class Connection(_psycopg.Connection, Generic[Row]):
    """A session with the server; `await aiopgx.connect(...)` makes it. See there for arguments.

    It is in autocommit, as every asynchronous connection of psycopg2: transactions are opened
    with `Cursor.begin()` or in SQL.
    """

    _source_traceback: traceback.StackSummary | None = None
    _portals: Portals | None = None  # once there was a server-side cursor
    _begun = False
    _left: str | None = None  # see _note_left()
    _tracing: Tracing | None = None  # if somebody wants to be told
    _reports_unclosed = True  # to the loop's exception handler; not in the SQLAlchemy dialect

    def __init__(
        self,
        dsn: str | None,
        timeout: float | None,
        echo: bool | str = False,
        enable_json: bool = True,
        enable_hstore: bool = True,
        enable_uuid: bool = True,
        cancel_timeout: float = CANCEL_TIMEOUT,
        raise_query_canceled: bool = False,
        prepare_threshold: int | None = PREPARE_THRESHOLD,
        prepared_max: int | None = DEFAULT_MAXIMUM,
        notifies_max: int | None = None,
        row_factory: RowFactory[Any] | None = None,
        tracer: Tracer | Sequence[Tracer] | None = None,
        slow_query: float | None = None,
        **kwargs: Any,
    ) -> None:
        check_timeout(timeout)
        self.row_factory = row_factory
        self._plans = Plans(
            _checked("prepare_threshold", prepare_threshold),
            _checked("prepared_max", prepared_max),
            prepare_threshold is not PREPARE_THRESHOLD,
        )
        if not isinstance(cancel_timeout, (int, float)) or not cancel_timeout > 0:
            raise ValueError(f"cancel_timeout must be a number of seconds, not {cancel_timeout!r}")
        self._notifies_max = _checked("notifies_max", notifies_max)
        self._enable_json = enable_json
        self._enable_hstore = enable_hstore
        self._enable_uuid = enable_uuid
        self._loop = get_running_loop()
        self._tracing = tracing_of(self._loop, tracer, slow_query, echo)
        kwargs["async_"] = kwargs.pop("async", True)
        kwargs.pop("loop", None)  # an argument of aiopg's before 1.0
        self._timeout = timeout
        self._last_usage = self._loop.time()
        self._echo = bool(echo) and echo != STATEMENTS  # which its tracer logs
        self._cancel_timeout = cancel_timeout
        self._raise_query_canceled = bool(raise_query_canceled)
        self._arguments = (dsn, kwargs)
        try:
            self._plan = plan(dsn, kwargs)
            if self._plan is None:
                self._open()
        except psycopg2.Error as error:
            make_clear(error, dsn)
            raise
        self._dsn = without_passwords(self._conn.dsn if self._plan is None else self._plan.dsn)
        if self._loop.get_debug():
            self._source_traceback = traceback.extract_stack(sys._getframe(1))

    def __await__(self: _C) -> Generator[Any, None, _C]:
        connecting: Any = self._connect()
        if self._tracing is not None:
            connecting = self._tracing.connect(self, connecting)
        return connecting.__await__()  # type: ignore[no-any-return]

    def _open(self, **server: str) -> None:
        """Let psycopg2 start to connect. server: parameters that name one of several servers."""
        dsn, arguments = self._arguments
        self._conn = psycopg2.connect(dsn, **{**arguments, **server})
        assert self._conn.isexecuting(), "Is conn an async at all???"
        queue: asyncio.Queue[Any] = asyncio.Queue()
        self._notifies = ClosableQueue(queue, self._loop)
        self._inbox = Inbox(self, queue, self._notifies_max)
        self._wire = Wire(self._conn, self._loop, self._inbox, self._notifies, self._cancel_timeout)
        self._wire.plans = self._plans

    def _refusal(self) -> Exception | None:
        """The error for connecting twice, or in another event loop or process."""
        if self._begun:
            return RuntimeError("connect() called on a connection that was connected before")
        if self._plan is None:
            return self._wire.refusal("connect")
        if get_running_loop() is not self._loop:
            return RuntimeError(
                "connect() called on another event loop than the connection was made on"
            )
        return None

    async def _connect(self: _C) -> _C:
        refusal = self._refusal()
        if refusal is not None:
            raise refusal
        self._begun = True
        try:
            try:
                await reach(self)
            except psycopg2.Error as error:
                make_clear(error, self._arguments[0])
                raise
            finally:
                del self._arguments  # there may be a password in them
            await register_types(self)
        except BaseException as exc:
            trim(exc, CONNECTING)
            self.close()
            raise
        return self

    # Cursors

    def _plain_cursor(self, timeout: float | None) -> Cursor:
        """A cursor of our own: the connection's factory may give rows of any kind."""
        if self._wire.closed:
            raise self._wire.closed_error("connection already closed")
        impl = self._conn.cursor(cursor_factory=psycopg2.extensions.cursor)
        return Cursor(self, impl, timeout, self._echo)

    async def _command(self, operation: str | bytes, timeout: float | None = None) -> None:
        """Execute something on behalf of a method."""
        cursor = self._plain_cursor(self._timeout if timeout is None else timeout)
        try:
            await cursor._command(operation)
        finally:
            cursor.close()

    @overload
    def cursor(
        self,
        name: str,
        cursor_factory: Any = None,
        scrollable: bool | None = None,
        withhold: bool = False,
        timeout: float | None = None,
        isolation_level: IsolationLevel | None = None,
        *,
        row_factory: RowFactory[T],
    ) -> _ContextManager[NamedCursor[T]]: ...

    @overload
    def cursor(
        self,
        name: str,
        cursor_factory: None = None,
        scrollable: bool | None = None,
        withhold: bool = False,
        timeout: float | None = None,
        isolation_level: IsolationLevel | None = None,
        *,
        row_factory: None = None,
    ) -> _ContextManager[NamedCursor[Row]]: ...

    @overload
    def cursor(
        self,
        name: str,
        cursor_factory: Any,
        scrollable: bool | None = None,
        withhold: bool = False,
        timeout: float | None = None,
        isolation_level: IsolationLevel | None = None,
        *,
        row_factory: None = None,
    ) -> _ContextManager[NamedCursor[Any]]: ...

    @overload
    def cursor(
        self,
        name: type | None = None,
        cursor_factory: Any = None,
        scrollable: bool | None = None,
        withhold: bool = False,
        timeout: float | None = None,
        isolation_level: IsolationLevel | None = None,
        *,
        row_factory: RowFactory[T],
    ) -> _ContextManager[Cursor[T]]: ...

    @overload
    def cursor(
        self,
        name: None = None,
        cursor_factory: None = None,
        scrollable: bool | None = None,
        withhold: bool = False,
        timeout: float | None = None,
        isolation_level: IsolationLevel | None = None,
        *,
        row_factory: None = None,
    ) -> _ContextManager[Cursor[Row]]: ...

    @overload
    def cursor(
        self,
        name: type | None = None,
        cursor_factory: Any = None,
        scrollable: bool | None = None,
        withhold: bool = False,
        timeout: float | None = None,
        isolation_level: IsolationLevel | None = None,
        *,
        row_factory: None = None,
    ) -> _ContextManager[Cursor[Any]]: ...

    def cursor(
        self,
        name: Any = None,
        cursor_factory: Any = None,
        scrollable: bool | None = None,
        withhold: bool = False,
        timeout: float | None = None,
        isolation_level: IsolationLevel | None = None,
        *,
        row_factory: RowFactory[Any] | None = None,
    ) -> Any:
        """Make a cursor: `await` it, or `async with` it to close the cursor at the end.

        name: makes it a server-side cursor, a `NamedCursor`. New in aiopgx.
        cursor_factory: a class of psycopg2 cursor; may be given first, in place of the name.
        scrollable: of a server-side cursor: whether it can go backwards, None if that is left to
            PostgreSQL.
        withhold: of a server-side cursor: whether it can be used outside of transactions.
        timeout: the cursor's default in seconds, the connection's if None.
        isolation_level: of the transactions that the cursor begins.
        row_factory: what makes the rows, such as `aiopgx.rows.dict_row`; without one it is the
            cursor class given here, else the connection's `row_factory`. New in aiopgx.
        """
        self._last_usage = self._loop.time()
        if row_factory is not None:
            shape_of_factory(row_factory)
        coro = self._cursor(
            name,
            cursor_factory,
            scrollable,
            withhold,
            timeout,
            isolation_level,
            row_factory=row_factory,
        )
        return _ContextManager[Cursor](
            coro,
            _close_cursor,
            None if name is None or isinstance(name, type) else close_after_error,
        )

    async def _cursor(
        self,
        name: Any = None,
        cursor_factory: Any = None,
        scrollable: bool | None = None,
        withhold: bool = False,
        timeout: float | None = None,
        isolation_level: IsolationLevel | None = None,
        *,
        row_factory: RowFactory[Any] | None = None,
    ) -> Cursor[Any]:
        # tracers call this in place of cursor(), with all of its arguments
        if isinstance(name, type):
            name, cursor_factory = None, name
        rows = row_factory
        if rows is None and cursor_factory is None:
            rows = self._row_factory
        if timeout is None:
            timeout = self._timeout
        if self._wire.reason is not None:
            raise self._wire.closed_error("connection already closed")
        # a connection's own cursor() may take None for a cursor factory
        factory: Any = {} if cursor_factory is None else {"cursor_factory": cursor_factory}
        if name is not None:
            impl = self._conn.cursor(**factory)
            named = psycopg_named(self._wire.raw, name, scrollable, withhold)
            if self._portals is None:
                self._portals = Portals(self._wire, self._timeout)
            kind = NamedCursor if self._tracing is None else TracedNamedCursor
            cursor: Cursor[Any] = kind(
                self, impl, named, self._portals, timeout, self._echo, isolation_level
            )
        else:
            if scrollable is not None or withhold:
                factory.update(scrollable=scrollable, withhold=withhold)
            impl = self._conn.cursor(**factory)
            plain = Cursor if self._tracing is None else TracedCursor
            cursor = plain(self, impl, timeout, self._echo, isolation_level)
        if rows is not None:
            cursor.row_factory = rows
        return cursor

    @overload
    def execute(
        self,
        operation: Any,
        parameters: Any = None,
        *,
        row_factory: RowFactory[T],
        timeout: float | None = None,
        prepare: bool | None = None,
    ) -> _ContextManager[Cursor[T]]: ...

    @overload
    def execute(
        self,
        operation: Any,
        parameters: Any = None,
        *,
        timeout: float | None = None,
        prepare: bool | None = None,
        row_factory: None = None,
    ) -> _ContextManager[Cursor[Row]]: ...

    def execute(
        self,
        operation: Any,
        parameters: Any = None,
        *,
        timeout: float | None = None,
        prepare: bool | None = None,
        row_factory: RowFactory[Any] | None = None,
    ) -> _ContextManager[Cursor[Any]]:
        """Execute a statement on a new cursor, which is what awaiting it gives.

        row_factory: as for cursor().

        See `Cursor.execute()` for the other arguments. New in aiopgx.
        """
        return _ContextManager[Cursor](
            self._execute(operation, parameters, timeout, prepare, row_factory), _close_cursor
        )

    async def _execute(
        self,
        operation: Any,
        parameters: Any,
        timeout: float | None,
        prepare: bool | None,
        row_factory: RowFactory[Any] | None,
    ) -> Cursor[Any]:
        cursor = await self.cursor()
        if row_factory is not None:
            cursor.row_factory = row_factory
        await cursor.execute(operation, parameters, timeout=timeout, prepare=prepare)
        return cursor

    def pipeline(self) -> Pipeline:
        """Let statements be in flight together: `async with conn.pipeline():`.

        In the block `execute()` returns when its statement is queued. All go out without waiting
        for answers, and come back in order: the first fetch on a cursor waits for its result, and
        the end of the block for all. Errors are raised there. Each statement is a transaction of
        its own, unless one was opened with BEGIN. New in aiopgx.
        """
        return Pipeline(self)

    async def copy_records_to_table(
        self,
        table_name: str,
        *,
        records: Any,
        columns: Iterable[str] | None = None,
        schema_name: str | None = None,
        timeout: float | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> str:
        """Append records to a table by COPY: asyncpg's name. Returns "COPY" and how many.

        See `Cursor.copy_records()` for the arguments. New in aiopgx.
        """
        async with self.cursor() as cursor:
            await cursor.copy_records(
                table_name,
                records,
                columns,
                schema_name=schema_name,
                timeout=timeout,
                progress=progress,
            )
            return f"COPY {cursor.rowcount}"

    async def cancel(self, *, timeout: float | None = None) -> None:
        """Stop the statement that is being executed, and wait until it has ended; psycopg2's name.

        Whoever executes it gets `psycopg2.errors.QueryCanceled`, and the connection stays open. It
        is sure not to hit a later statement: those wait meanwhile. In a `pipeline()` it may be any
        of those that were sent. Does nothing if nothing is being executed.

        timeout: seconds, the connection's `cancel_timeout` if None. When they are over,
            `asyncio.TimeoutError` is raised; the statement runs on, except where the server has not
            even taken the request: then the connection is closed. New in aiopgx.
        """
        check_timeout(timeout)
        refusal = self._wire.misplaced("cancel")
        if refusal is not None:
            raise refusal
        if self.closed:
            raise self._wire.closed_error("connection already closed")
        limit = self._cancel_timeout if timeout is None else timeout
        stopping = stop(self._wire, limit)
        if stopping is None:
            return
        await asyncio.wait([stopping.done])
        if not stopping.done.result():
            raise asyncio.TimeoutError(f"the server has not stopped the statement in {limit:g} s")

    async def reset(self, *, timeout: float | None = None) -> None:
        """Make the session as good as new; asyncpg's and psycopg2's name.

        Rolls back, and then DISCARD ALL: settings, LISTENs, temporary tables, advisory locks,
        prepared statements and server-side cursors are gone, and with them the callbacks of
        add_listener() and unread notifications. A prepared two-phase transaction stays prepared.

        timeout: seconds for each of the two statements, the connection's if None. New in aiopgx.
        """
        wire = self._wire
        self._refuse_in_pipeline("reset")
        prepared, wire.prepared = wire.prepared, False
        try:
            if wire.status != TRANSACTION_STATUS_IDLE:
                await self._command("ROLLBACK", timeout)
            await self._command("DISCARD ALL", timeout)
        except BaseException:
            wire.prepared = prepared
            raise
        self._xid = None
        self._inbox.reset()
        self._note_left()

    def _refuse_in_pipeline(self, name: str) -> None:
        if self._wire.shared is not None:
            raise psycopg2.ProgrammingError(f"{name} cannot be used in a pipeline")

    # Closing

    def close(self) -> "asyncio.Future[None]":
        """Close the connection. Takes effect at the call; awaiting the result is allowed.

        A query in flight is cancelled on the server, and whoever waits for it gets an
        `psycopg2.OperationalError`. An open transaction is lost. Whoever awaits the result waits
        until the server has stopped the query, a second at most.
        """
        wire = self._wire
        if wire is not None:
            wire.close()
            leaving = wire.leaving
            if leaving is not None and asyncio._get_running_loop() is self._loop:
                return bounded(self._loop, leaving, LAST)
        return create_completed_future(self._loop)

    @property
    def closed(self) -> int:
        """0 while the connection is open, else not 0."""
        return 0 if self._wire is None else self._wire.closed

    async def __aenter__(self: _C) -> _C:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        closing = self.close()
        if exc_type is None:  # else it is to be seen at once
            await closing

    def __del__(self) -> None:
        wire = self._wire
        if wire is None or wire.forked:  # psycopg2 refused the arguments, or was not asked yet
            return
        was_closed = wire.closed and not wire.left
        wire.close()  # also if `raw` was closed: the loop still watches its socket
        if was_closed:
            return
        warnings.warn(f"Unclosed connection {self!r}", ResourceWarning, stacklevel=1)
        if not self._reports_unclosed:
            return
        context: dict[str, Any] = {"connection": self, "message": "Unclosed connection"}
        if self._source_traceback is not None:
            context["source_traceback"] = self._source_traceback
        self._loop.call_exception_handler(context)

    def __repr__(self) -> str:
        cls = type(self)
        return (
            f"<{cls.__module__}::{cls.__name__} isexecuting={self.isexecuting()}, "
            f"closed={self.closed}, echo={self.echo}, >"
        )

    # Notifications and notices

    @property
    def notifies(self) -> ClosableQueue[psycopg2.extensions.Notify]:
        """The notifications of LISTEN: `await conn.notifies.get()`, `async for`.

        It raises `psycopg2.OperationalError` when the connection is gone. From the first use of
        this attribute on it gets those, too, that are given to the callbacks of add_listener().
        """
        self._inbox.wanted = True
        return self._notifies

    async def add_listener(
        self, channel: str, callback: "Callable[[Connection, int, str, str], object]"
    ) -> None:
        """Listen to a channel: `callback(connection, pid, channel, payload)` for each notification.

        asyncpg's method. A coroutine function runs in a task of its own. What a callback raises is
        told to the loop's exception handler. In a transaction LISTEN takes effect with COMMIT. New
        in aiopgx.

        channel: its name as it is: LISTEN is sent with the name quoted.
        """
        await self._inbox.add(self, channel, callback)

    async def remove_listener(
        self, channel: str, callback: "Callable[[Connection, int, str, str], object]"
    ) -> None:
        """End what add_listener() began; the last callback of a channel is followed by UNLISTEN.

        Nothing is done if it was not added, or the connection is closed. New in aiopgx.
        """
        await self._inbox.remove(self, channel, callback)

    def _note_left(self) -> None:
        """Note what the next user must not find: callbacks, a prepared transaction, a pipeline."""
        self._left = self._inbox.left
        if self._wire.prepared:
            self._left = f"Prepared transaction {self._xid} left"
        elif isinstance(self._wire.shared, Pipeline):
            self._left = "Pipeline left open"

    # Attributes

    @property
    def timeout(self) -> float | None:
        """The default timeout in seconds."""
        return self._timeout

    @property
    def row_factory(self) -> RowFactory[Row] | None:
        """What makes the rows of new cursors, None if the cursor class does; can be set.

        New in aiopgx, by psycopg 3's name.
        """
        return self._row_factory

    @row_factory.setter
    def row_factory(self, val: RowFactory[Any] | None) -> None:
        if val is not None:
            shape_of_factory(val)
        self._row_factory = val

    @property
    def prepare_threshold(self) -> int | None:
        """How often a statement is executed before it is prepared, None for never; can be set.

        New in aiopgx, by psycopg 3's name.
        """
        return self._plans.prepare_threshold

    @prepare_threshold.setter
    def prepare_threshold(self, val: int | None) -> None:
        self._plans.prepare_threshold = _checked("prepare_threshold", val)
        self._plans.given = True

    @property
    def prepared_max(self) -> int | None:
        """How many statements stay prepared on the server, None for no limit; can be set.

        New in aiopgx, by psycopg 3's name.
        """
        return self._plans.maximum

    @prepared_max.setter
    def prepared_max(self, val: int | None) -> None:
        self._plans.maximum = _checked("prepared_max", val)
        self._plans.shrink()

    @property
    def last_usage(self) -> float:
        """The event loop's time when a cursor was last made."""
        return self._last_usage

    @property
    def echo(self) -> bool:
        """Whether statements are logged."""
        return self._echo or (self._tracing is not None and self._tracing.echoes)


def _checked(name: str, value: int | None) -> int | None:
    """The value of an argument that is a number or None."""
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int or None, not {value!r}")
    if value < 0:
        raise ValueError(f"{name} must not be negative, but is {value}")
    return int(value)
