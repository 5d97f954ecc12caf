"""The connection that SQLAlchemy sees: psycopg2's synchronous one, over an `aiopgx.Connection`."""

import asyncio
import re
from collections.abc import Iterable
from typing import Any

import psycopg2
from psycopg2.extensions import (
    STATUS_BEGIN,
    STATUS_PREPARED,
    STATUS_READY,
    Xid,
)
from psycopg2.extensions import cursor as plain_cursor
from sqlalchemy.connectors.asyncio import AsyncAdapt_dbapi_connection
from sqlalchemy.util.concurrency import await_only, in_greenlet

from .._nul import refuse_nul
from .._prepared import execute
from .._requests import Session, begin, command, end, execute_foreign, pause
from .._rows import SHAPE_FOREIGN, Result
from ..cursor import Cursor
from ..log import logger
from ..shared import FetchedRows
from ..tracing import Trace, call_of
from ..utils import trim
from .cursor import AsyncAdapt_aiopgx_cursor, AsyncAdapt_aiopgx_ss_cursor
from .session import Characteristics, level_of, switch_of

_UNCHANGED: Any = object()


class AsyncAdapt_aiopgx_connection(AsyncAdapt_dbapi_connection):
    """A connection with psycopg2's methods, to be called where SQLAlchemy calls its drivers.

    As on psycopg2, a transaction is opened by the first statement, with the isolation level that
    was set, unless `autocommit` is set. `driver_connection` is the `aiopgx.Connection`; what isn't
    found here (`info`, `encoding`, `server_version` ...) is that of its `raw`, the psycopg2
    connection.
    """

    __slots__ = (
        "_autocommit",
        "_characteristics",
        "_session",
        "_wire",
        "_xid",
    )

    _connection: Any

    def __init__(self, dbapi: Any, connection: Any) -> None:
        self.dbapi = dbapi
        self._connection = connection
        connection._raise_query_canceled = True
        connection._row_factory = None
        connection._reports_unclosed = False
        self._wire = connection._wire
        self._session = Session()
        self._xid: Any = None
        self._autocommit = False
        self._characteristics = Characteristics()
        self._session.opening = self._characteristics.begin()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self._connection.raw, name)

    def cursor(  # type: ignore[override]
        self,
        name: str | None = None,
        cursor_factory: Any = None,
        scrollable: bool | None = None,
        withhold: bool = False,
    ) -> AsyncAdapt_aiopgx_cursor:
        """Make a cursor, a server-side one if it has a name.

        In autocommit a server-side cursor is WITH HOLD: no transaction keeps it open.
        """
        if name is None:
            return AsyncAdapt_aiopgx_cursor(self, cursor_factory)
        withhold = withhold or self._autocommit
        return AsyncAdapt_aiopgx_ss_cursor(self, name, cursor_factory, scrollable, withhold)

    # Execution

    def _execute(self, cursor: Cursor, operation: Any, parameters: Any, start: Any = None) -> None:
        """What `await cursor.execute()` does, without a coroutine, in a transaction if wanted.

        start: a method of the psycopg2 cursor, to execute with it.
        """
        _need_greenlet()
        wire, session = self._wire, self._session
        self._refuse_prepared("execute")
        self._refuse_others()
        if start is None and cursor._shape == SHAPE_FOREIGN:
            start = cursor._psycopg.execute
        if cursor._echo:
            self._log_opening()
            logger.info(operation)
            logger.info("%r", parameters)
        waiter = outcome = None
        try:
            if start is None:
                waiter = execute(
                    wire,
                    cursor._psycopg,
                    cursor._shape,
                    operation,
                    parameters,
                    cursor._timeout,
                    session,
                )
            else:
                refuse_nul(operation)
                cursor._hand_over()
                waiter = execute_foreign(
                    wire, start, operation, parameters, cursor._timeout, session
                )
            outcome = await_only(waiter).pop()
            if type(outcome) is Result:
                outcome.outlives = True
                cursor._result = outcome
            elif outcome is not None:
                raise outcome
            elif cursor._psycopg.description is not None:
                cursor._result = FetchedRows(cursor._psycopg)
        except BaseException as exc:
            trim(exc)
            if waiter is not None:
                cursor._failed(exc, waiter)
            elif start is None:
                cursor._refused(operation)
            raise
        finally:
            del waiter, outcome  # an exception must not hold itself, by way of this frame

    def _execute_many(self, cursor: Cursor, operation: Any, rows: Iterable[Any]) -> None:
        """What `await cursor.executemany()` does, in a transaction if wanted."""
        _need_greenlet()
        self._refuse_prepared("execute")
        if cursor._echo:
            self._log_opening()
        await_only(cursor.executemany(operation, rows))

    def _log_opening(self) -> None:
        if self._session.status == STATUS_READY and self._session.opening is not None:
            logger.info(self._session.opening)

    def _begin(self) -> None:
        """Open a transaction if none is open and one is wanted."""
        _need_greenlet()
        self._refuse_prepared("execute")
        if self._session.opening is not None:
            if self._connection.echo:
                self._log_opening()
            self._wait(begin)

    def _command(self, operation: str, parameters: Any = None) -> None:
        _need_greenlet()
        self._log(operation, parameters)
        self._wait(command, operation, parameters)

    def _log(self, operation: Any, parameters: Any = None) -> None:
        if self._connection.echo:
            logger.info(operation)
            logger.info("%r", parameters)

    def _wait(self, ask: Any, *arguments: Any) -> None:
        """Wait for a request without a cursor. ask: what makes it, in `_requests`."""
        connection, wire = self._connection, self._wire
        self._refuse_others()
        waiter = outcome = None
        try:
            waiter = ask(wire, *arguments, connection.timeout, self._session)
            outcome = await_only(waiter).pop()
            if isinstance(outcome, BaseException):
                raise outcome
        except BaseException as exc:
            trim(exc)
            if waiter is not None:
                wire.give_up(waiter, exc)
            raise
        finally:
            del waiter, outcome  # as above

    def _settle(self) -> None:
        """Wait for what other tasks execute here."""
        if not self._wire.busy:
            return
        _need_greenlet()
        self._refuse_others()
        await_only(pause(self._wire, self._session))

    def _refuse_others(self) -> None:
        """Raise while somebody uses the driver's connection past this one, and in other loops."""
        refusal = self._wire.refusal("cursor.execute", self._session)
        if refusal is not None:
            raise refusal

    # Transactions

    def commit(self) -> None:
        self._check()
        self._refuse_two_phase("commit")
        if self._session.status == STATUS_BEGIN:
            self._end("COMMIT")

    def rollback(self) -> None:
        self._check()
        self._refuse_two_phase("rollback")
        if self._autocommit:
            self._free_cursors()  # SQLAlchemy's pool takes the connection back
        self._rollback()

    def _free_cursors(self) -> None:
        """Close the server-side cursors that no transaction closes."""
        portals = self._connection._portals
        closing = None if portals is None else portals.close_all()
        if closing is not None:
            await_only(closing)

    def _rollback(self) -> None:
        if self._session.status == STATUS_BEGIN:
            self._end("ROLLBACK")

    def _end(self, operation: str) -> None:
        _need_greenlet()
        self._log(operation)
        self._wait(end, operation)

    @property
    def status(self) -> int:
        """psycopg2's STATUS_READY, STATUS_BEGIN or STATUS_PREPARED."""
        return self._session.status

    def _check(self) -> None:
        """Raise if closed. Waits for another task's statement: it may open or end a transaction."""
        self._settle()
        if self.closed:
            raise psycopg2.InterfaceError("connection already closed")

    def _refuse_two_phase(self, name: str) -> None:
        if self._xid is not None:
            raise psycopg2.ProgrammingError(f"{name} cannot be used during a two-phase transaction")

    def _refuse_prepared(self, name: str) -> None:
        if self._session.status == STATUS_PREPARED:
            raise psycopg2.ProgrammingError(
                f"{name} cannot be used with a prepared two-phase transaction"
            )

    # Two-phase transactions

    def tpc_begin(self, xid: Any) -> None:
        """Open a transaction that tpc_prepare() can prepare; xid: str, or what xid() gives."""
        xid = _xid_of(xid)
        self._check()
        if self._session.status != STATUS_READY:
            raise psycopg2.ProgrammingError("tpc_begin cannot be used inside a transaction")
        if self._autocommit:
            raise psycopg2.ProgrammingError("tpc_begin can't be called in autocommit mode")
        self._begin()
        self._xid = xid

    def tpc_prepare(self) -> None:
        self._check()
        self._refuse_prepared("tpc_prepare")
        if self._xid is None:
            raise psycopg2.ProgrammingError("prepare must be called inside a two-phase transaction")
        self._command("PREPARE TRANSACTION %s", (str(self._xid),))
        self._session.status = STATUS_PREPARED

    def tpc_commit(self, xid: Any = None) -> None:
        """End the two-phase transaction, or that of another session with the given xid."""
        self._finish_two_phase("COMMIT", xid)

    def tpc_rollback(self, xid: Any = None) -> None:
        """As tpc_commit()."""
        self._finish_two_phase("ROLLBACK", xid)

    def _finish_two_phase(self, verb: str, xid: Any) -> None:
        self._check()
        if xid is not None:
            if self._session.status != STATUS_READY:
                raise psycopg2.ProgrammingError(
                    "tpc_commit/tpc_rollback with a xid must be called outside a transaction"
                )
            self._command(f"{verb} PREPARED %s", (str(_xid_of(xid)),))
            return
        if self._xid is None:
            raise psycopg2.ProgrammingError(
                "tpc_commit/tpc_rollback with no parameter must be called "
                "in a two-phase transaction"
            )
        if self._session.status == STATUS_PREPARED:
            self._command(f"{verb} PREPARED %s", (str(self._xid),))
            self._session.status = STATUS_READY
        else:
            self._end(verb)
        self._xid = None

    def tpc_recover(self) -> list[Any]:
        """The transactions that are prepared on the server, as psycopg2.extensions.Xid."""
        self._check()
        self._refuse_prepared("tpc_recover")
        cursor = self.cursor(cursor_factory=plain_cursor)
        was = self._session.status
        cursor.execute("SELECT gid FROM pg_prepared_xacts")
        xids = [Xid.from_string(gid) for (gid,) in cursor.fetchall()]  # type: ignore[no-untyped-call, unused-ignore]
        cursor.close()
        if was == STATUS_READY:
            self._rollback()
        return xids

    # The session's characteristics

    @property
    def autocommit(self) -> bool:
        """Whether no transactions are opened. Set it outside a transaction only."""
        return self._autocommit

    @autocommit.setter
    def autocommit(self, value: bool) -> None:
        self.set_session(autocommit=value)

    @property
    def isolation_level(self) -> int | None:
        """psycopg2's number, None for the server's default."""
        return self._characteristics.level

    @isolation_level.setter
    def isolation_level(self, value: Any) -> None:
        self._set_session(level=level_of(value))

    def set_isolation_level(self, level: int | None) -> None:
        """Roll back; then set an isolation level by psycopg2's number, or 0 for autocommit."""
        self._check()
        self._refuse_prepared('"isolation_level"')
        if level is not None and not 0 <= level <= 4:
            raise ValueError("isolation level must be between 0 and 4")
        self._rollback()
        if level == 0:
            self._set_session(autocommit=True)
        else:
            self._set_session(level=level, autocommit=False)

    @property
    def readonly(self) -> bool | None:
        """Whether transactions are read-only, None for the server's default."""
        return self._characteristics.readonly

    @readonly.setter
    def readonly(self, value: Any) -> None:
        self._set_session(readonly=switch_of(value))

    @property
    def deferrable(self) -> bool | None:
        """Whether transactions are deferrable, None for the server's default."""
        return self._characteristics.deferrable

    @deferrable.setter
    def deferrable(self, value: Any) -> None:
        self._set_session(deferrable=switch_of(value))

    def set_session(
        self,
        isolation_level: Any = None,
        readonly: Any = None,
        deferrable: Any = None,
        autocommit: Any = None,
    ) -> None:
        """Set several at once, as psycopg2 does; None leaves one as it is."""
        self._set_session(
            _UNCHANGED if isolation_level is None else level_of(isolation_level),
            _UNCHANGED if readonly is None else switch_of(readonly),
            _UNCHANGED if deferrable is None else switch_of(deferrable),
            _UNCHANGED if autocommit is None else bool(autocommit),
        )

    def _set_session(
        self,
        level: Any = _UNCHANGED,
        readonly: Any = _UNCHANGED,
        deferrable: Any = _UNCHANGED,
        autocommit: Any = _UNCHANGED,
    ) -> None:
        self._check()
        if self._session.status != STATUS_READY:
            raise psycopg2.ProgrammingError("set_session cannot be used inside a transaction")
        old = self._characteristics
        new = Characteristics(
            old.level if level is _UNCHANGED else level,
            old.readonly if readonly is _UNCHANGED else readonly,
            old.deferrable if deferrable is _UNCHANGED else deferrable,
        )
        was = self._autocommit
        becomes = was if autocommit is _UNCHANGED else autocommit
        # without BEGIN they are in the server's settings; as psycopg2, only what changes is sent
        if becomes:
            self._configure(old, new)
        elif was:
            self._free_cursors()
            self._configure(old, Characteristics())
        self._characteristics, self._autocommit = new, becomes
        self._session.opening = None if becomes else new.begin()

    def _configure(self, old: Characteristics, new: Characteristics) -> None:
        before = old.settings()
        for name, value in new.settings().items():
            if value != before[name]:
                self._command(f"SET {name} TO {value}")

    def set_client_encoding(self, encoding: str) -> None:
        """Refused, unless it is the connection's: give `client_encoding` when connecting."""
        self._check()
        if re.sub(r"[^0-9A-Z]", "", encoding.upper()) != self._connection.encoding:
            raise psycopg2.ProgrammingError(
                "set_client_encoding cannot be used in asynchronous mode: "
                f"give client_encoding={encoding!r} to create_async_engine()"
            )

    # What needs no server

    @property
    def notices(self) -> Any:
        """The last messages of the server below an error, 50 at most."""
        return self._connection._conn.notices

    @notices.setter
    def notices(self, value: Any) -> None:
        self._connection.raw.notices = value

    @property
    def closed(self) -> int:
        """0 while the connection is open, else not 0."""
        closed: int = self._wire.closed
        return closed

    def close(self) -> None:
        """Close the connection; an open transaction is lost.

        Waits until the server has stopped a query that is in flight, `cancel_timeout` seconds at
        most, so that SQLAlchemy's pool opens no other session meanwhile.
        """
        self._connection.close()
        leaving = self._wire.leaving
        if leaving is not None and not leaving.done() and in_greenlet():
            await_only(asyncio.wait([leaving]))

    def terminate(self) -> None:
        """The same, for SQLAlchemy's pool, from anywhere: also when the loop is gone."""
        self.close()


class Traced_aiopgx_connection(AsyncAdapt_aiopgx_connection):
    """The same, of a connection with tracers. BEGIN goes with the statement behind it."""

    __slots__ = ()

    def _trace(self, method: str, statement: Any, parameters: Any = None) -> Trace:
        connection = self._connection
        trace: Trace = connection._tracing.query(
            method, connection, self._wire.raw, statement, parameters
        )
        return trace

    def _execute(self, cursor: Cursor, operation: Any, parameters: Any, start: Any = None) -> None:
        method, statement = "execute", operation
        if start is not None:
            method, statement = "callproc", call_of(operation, parameters)
        with self._trace(method, statement, parameters) as trace:
            super()._execute(cursor, operation, parameters, start)
            trace.answered(cursor)

    def _execute_many(self, cursor: Cursor, operation: Any, rows: Iterable[Any]) -> None:
        with self._trace("executemany", operation, rows) as trace:
            super()._execute_many(cursor, operation, rows)
            trace.answered(cursor)

    def _wait(self, ask: Any, *arguments: Any) -> None:
        statement, parameters = (*arguments, None, None)[:2]
        with self._trace("execute", statement or self._session.opening, parameters):
            super()._wait(ask, *arguments)


def _need_greenlet() -> None:
    if not in_greenlet():
        await_only(None)  # type: ignore[arg-type]  # raises SQLAlchemy's MissingGreenlet


def _xid_of(value: Any) -> Any:
    if isinstance(value, Xid):
        return value
    if isinstance(value, bytes):
        value = value.decode()
    if not isinstance(value, str):
        raise TypeError("not a valid transaction id")
    return Xid.from_string(value)  # type: ignore[no-untyped-call, arg-type, unused-ignore]
