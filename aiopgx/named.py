"""Server-side cursors: a portal on the server, from which rows are fetched in batches.

`conn.cursor(name=...)` makes a `NamedCursor`. What cursors leave behind on the server is freed by
the `Portals` of their connection, at moments when it disturbs nobody.
"""

import asyncio
import contextlib
from collections import deque
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

import psycopg2
from psycopg2.extensions import (
    TRANSACTION_STATUS_IDLE,
    TRANSACTION_STATUS_INERROR,
    TRANSACTION_STATUS_INTRANS,
    QuotedString,
)
from psycopg2.extensions import cursor as PsycopgCursor

from ._core import Wire
from ._errors import make_error
from ._rows import SHAPE_TUPLE, c_int, scroll_target
from ._structs import genuine_cursor
from .cursor import Cursor, _close_cursor, _refuse_nul
from .transaction import IsolationLevel
from .utils import create_completed_future, trim

if TYPE_CHECKING:
    from .connection import Connection

_OPEN = (TRANSACTION_STATUS_INTRANS, TRANSACTION_STATUS_INERROR)
_SCROLL = {None: b"", False: b"NO SCROLL ", True: b"SCROLL "}


class Portal:
    """A portal on the server: one that a cursor has declared, or has found there.

    name: as psycopg2 sends it, in UTF-8 whatever the client encoding is.
    rests: the Wire's count at the declaration, if the portal goes with its transaction; None for
        one that is held, and for one whose kind is not known.
    """

    __slots__ = ("closed", "name", "quoted", "rests")

    def __init__(self, name: str, rests: int | None) -> None:
        self.name = name.encode()
        self.quoted = quoted(name)
        self.rests = rests
        self.closed = False


def quoted(name: str) -> bytes:
    """The name as an identifier. psycopg2 has seen that it is one in the client encoding."""
    return b'"%b"' % name.encode().replace(b'"', b'""')


class Portals:
    """The portals of one connection: those that are open and those that are to be closed.

    A portal is closed at once if the connection is idle, else before its next statement, which
    waits for it. The server is asked first whether the portal is still there: a CLOSE that fails
    would abort the transaction that it runs in.
    """

    def __init__(self, wire: Wire, timeout: float | None) -> None:
        self._wire = wire
        self._timeout = timeout
        self._control: Any = PsycopgCursor(wire.raw)
        self._open: dict[bytes, Portal] = {}
        self._doomed: deque[Portal] = deque()
        self._waiter: asyncio.Future[Any] | None = None  # of the statement that is being executed
        self._listeners: list[asyncio.Future[None]] = []  # told when no such statement is left
        self._error: BaseException | None = None  # what they are told, the first that came
        self.nothing = create_completed_future(wire.loop)

    @property
    def busy(self) -> bool:
        """Whether a portal is being closed."""
        return self._waiter is not None

    @property
    def unsettled(self) -> bool:
        """Whether there is something to do before the next statement."""
        return self._waiter is not None or bool(self._doomed)

    def add(self, portal: Portal) -> Portal:
        """Note a portal that is there. If there was one of its name before, that one is gone."""
        self._open = {key: other for key, other in self._open.items() if self.valid(other)}
        self._open[portal.quoted] = portal
        return portal

    def valid(self, portal: Portal) -> bool:
        """Whether the portal can still be there."""
        return not portal.closed and self._lasts(portal)

    def _lasts(self, portal: Portal) -> bool:
        return portal.rests is None or portal.rests == self._wire.rests

    def close(self, portal: Portal) -> "asyncio.Future[None]":
        """Free a portal. Awaiting the result waits for it, if it can be done now.

        The result gets the error if one comes: of a timeout, of a connection that is lost.
        """
        if self._open.get(portal.quoted) is portal and self.valid(portal):
            del self._open[portal.quoted]
            self._doomed.append(portal)
        portal.closed = True
        return self._proceed() or self.nothing

    def close_all(self) -> "asyncio.Future[None] | None":
        """Free all portals. None if nothing has to be waited for."""
        for portal in list(self._open.values()):
            self.close(portal)
        return self._proceed()

    async def settle(self, timeout: float | None) -> None:
        """Do what is to be done before the next statement, as far as it can be done.

        Raises `asyncio.TimeoutError`, and closes the connection, if it takes too long.
        """
        wire = self._wire
        if wire.forked or asyncio.get_running_loop() is not wire.loop:
            return  # the statement is going to be refused
        while (listener := self._proceed()) is not None:
            # a statement that is cancelled here has not begun: the connection stays open
            await asyncio.wait([listener], timeout=timeout)
            if not listener.done():
                wire.close()
                raise asyncio.TimeoutError

    def _proceed(self) -> "asyncio.Future[None] | None":
        """Go on closing. Return what is done when that is over, None if there is nothing to do."""
        self.advance()
        if self._waiter is None:
            return None
        listener = self._wire.loop.create_future()
        self._listeners.append(listener)
        return listener

    def advance(self) -> None:
        """Start to close the next portal, if the server can do that now."""
        while self._waiter is None and self._doomed and self._may_send():
            portal = self._doomed[0]
            if self._lasts(portal):
                literal = QuotedString(portal.name)
                literal.prepare(self._wire.raw)
                self._send(
                    b"SELECT FROM pg_catalog.pg_cursors WHERE name = %b::name::text"
                    % literal.getquoted(),
                    self._looked,
                )
            else:
                self._doomed.popleft()  # its transaction has ended meanwhile

    def _may_send(self) -> bool:
        wire = self._wire
        return (
            not (wire.closed or wire.busy)
            and wire.refusal("cursor.close") is None
            # a transaction that is aborted may still be rolled back to where it has the portal
            and wire.raw.get_transaction_status()
            in (TRANSACTION_STATUS_IDLE, TRANSACTION_STATUS_INTRANS)
        )

    def _send(self, statement: bytes, then: Any) -> None:
        wire, control = self._wire, self._control
        try:
            if wire.native:
                waiter = wire.execute(control, SHAPE_TUPLE, statement, None, self._timeout)
            else:
                waiter = wire.execute_foreign(control.execute, statement, None, self._timeout)
        except psycopg2.Error as error:
            self._over(error)
        else:
            self._waiter = waiter
            waiter.add_done_callback(then)

    def _looked(self, waiter: "asyncio.Future[Any]") -> None:
        (outcome,) = waiter.result()
        self._waiter = None
        if isinstance(outcome, BaseException):
            self._over(outcome)
        elif not (outcome or self._control).rowcount:
            self._over(None)
        elif self._may_send():
            self._send(b"CLOSE " + self._doomed[0].quoted, self._closed)
        else:
            self._tell()

    def _closed(self, waiter: "asyncio.Future[Any]") -> None:
        (outcome,) = waiter.result()
        self._waiter = None
        self._over(outcome if isinstance(outcome, BaseException) else None)

    def _over(self, error: BaseException | None) -> None:
        """One portal is done with; go on with the next."""
        portal = self._doomed.popleft()
        if error is not None:
            self._error = self._error or error
            self._open.setdefault(portal.quoted, portal)  # a pool's release shall try again
            portal.closed = False
            if self._wire.busy:
                self._wire.close()  # a timeout: the answer was not read
        self.advance()
        if self._waiter is None:
            self._tell()

    def _tell(self) -> None:
        listeners, self._listeners = self._listeners, []
        error, self._error = self._error, None
        for listener in listeners:
            if listener.done():
                continue
            if error is None:
                listener.set_result(None)
            else:
                listener.set_exception(error)
                listener.exception()  # else the loop complains when nobody awaits it


class NamedCursor(Cursor):
    """A server-side cursor; `await conn.cursor(name=...)` makes it. New in aiopgx.

    execute() declares the cursor on the server; fetches get its rows from there, `async for` in
    batches of `itersize` rows (2000 at first). Attributes are those of psycopg2's named cursors:
    `description` is None until rows are fetched, `rowcount` and `rownumber` are about the last
    fetch, and a fetch after an `async for` that was left goes on behind its batch.

    Unless it is declared `withhold`, the cursor needs a transaction, and goes with it. Without
    execute() it fetches from a cursor of its name that is there already, such as one that a
    function has opened.

    named: a psycopg2 cursor with the name, scrollable and withhold. It executes nothing: psycopg2's
        named cursors would block the event loop.

    The other parameters are those of `Cursor`.
    """

    def __init__(
        self,
        conn: "Connection",
        impl: Any,
        named: Any,
        portals: Portals,
        timeout: float | None,
        echo: bool,
        isolation_level: IsolationLevel | None = None,
    ) -> None:
        super().__init__(conn, impl, timeout, echo, isolation_level)
        self._named = named
        self._portals = portals
        self._portal: Portal | None = None
        self._declaration: bytes | None = None
        self._batch: Any = None  # what `async for` reads from
        self._moved = False
        # of the transaction it was made in, was declared in or first fetched in
        self._mark = self._transaction_mark()
        self._fetching = False  # from the start of a fetch until its task has gone on

    # Execution

    async def execute(
        self,
        operation: Any,
        parameters: Any = None,
        *,
        timeout: float | None = None,
    ) -> None:
        """Declare the cursor for a query: DECLARE name CURSOR FOR operation.

        Possible once, in a transaction or with `withhold`, else `psycopg2.ProgrammingError` is
        raised. The arguments and other errors are those of `Cursor.execute()`.
        """
        if self._declaration is not None:
            self._refuse("can't call .execute() on named cursors more than once")
        await self._ready("cursor.execute", timeout)
        withhold = self.withhold
        if not withhold and self._transaction_status() == TRANSACTION_STATUS_IDLE:
            self._refuse(
                "can't use a named cursor outside of transactions: open one, with `async with "
                "cursor.begin()` or BEGIN, or make the cursor with withhold=True"
            )
        self._check_open()
        statement = self._declare(operation, parameters)
        self._declaration = statement
        self._batch = None
        self._mark = self._transaction_mark()
        rests = None if withhold else self._wire.rests
        try:
            await super().execute(statement, timeout=timeout)
        except TypeError:
            self._declaration = None  # a timeout that is none: nothing was sent
            raise
        self._own(rests)

    def _declare(self, operation: Any, parameters: Any) -> bytes:
        statement = b"DECLARE %b %bCURSOR %b HOLD FOR %b" % (
            quoted(self._named.name),
            _SCROLL[self.scrollable],
            b"WITH" if self.withhold else b"WITHOUT",
            self.mogrify(operation, parameters),
        )
        _refuse_nul(statement)
        return statement

    async def executemany(self, *args: Any, **kwargs: Any) -> None:
        """Raise `psycopg2.ProgrammingError`: a named cursor executes one query."""
        self._check_open()
        self._refuse("can't call .executemany() on named cursors")

    async def callproc(self, *args: Any, **kwargs: Any) -> None:
        """Raise `psycopg2.ProgrammingError`: a named cursor executes one query."""
        self._check_open()
        self._refuse("can't call .callproc() on named cursors")

    async def _execute_foreign(
        self, start: Any, operation: Any, parameters: Any, timeout: float | None
    ) -> None:
        if operation is not self._declaration:
            # what psycopg2 sends for a fetch isn't seen by execute() of cursor classes either
            start = partial(PsycopgCursor.execute, genuine_cursor(self._psycopg))
        await super()._execute_foreign(start, operation, parameters, timeout)

    def _check_open(self) -> None:
        if self.closed:
            raise psycopg2.InterfaceError("cursor already closed")

    def _refuse(self, reason: str) -> None:
        raise make_error(psycopg2.ProgrammingError, reason, self._psycopg)

    async def _ready(self, caller: str, timeout: float | None = None) -> None:
        """Wait until the connection is free; raise if somebody else uses it."""
        await self._settle(timeout)
        refusal = self._wire.refusal(caller)
        if refusal is not None:
            raise refusal

    def _transaction_mark(self) -> int | None:
        """What tells the transaction that is open from later ones, None if none is known to be."""
        return self._wire.rests if self._transaction_status() in _OPEN else None

    def _own(self, rests: int | None) -> None:
        """Note that the portal is there."""
        self._portal = self._portals.add(Portal(self._named.name, rests))
        if self.closed:  # while the server was at work
            self._portals.close(self._portal)

    def _executor(self) -> Cursor:
        return Cursor(self._conn, PsycopgCursor(self._wire.raw), self._timeout, self._echo)

    # Rows

    async def _move(self, caller: str, command: bytes) -> None:
        """Send a FETCH or MOVE. Its rows are to be taken before the task awaits anything else."""
        self._check_open()
        if self._fetching:
            # also if the wire is free already: the rows that have come are the other's
            raise self._wire.refusal(caller) or RuntimeError(
                f"{caller}() called while another coroutine is already waiting for incoming data"
            )
        self._fetching = True
        try:
            portal = self._portal
            await self._ready(caller)
            if not self._valid():
                raise psycopg2.ProgrammingError("named cursor isn't valid anymore")
            self._batch = None
            self._moved = False
            await super().execute(b"%b FROM %b" % (command, quoted(self._named.name)))
            if portal is None:
                self._own(None)
            elif self._portals.unsettled:
                self._portals.advance()
        finally:
            self._fetching = False

    def _valid(self) -> bool:
        """Whether the cursor is of this transaction or held, as far as is known."""
        if self._mark is None:
            self._mark = self._transaction_mark()
        elif self._mark != self._wire.rests and not self.withhold:
            return False
        return self._portal is None or self._portals.valid(self._portal)

    async def fetchone(self) -> Any:
        """Fetch the next row from the server, None after the last."""
        await self._move("cursor.fetchone", b"FETCH FORWARD 1")
        return await super().fetchone()

    async def fetchmany(self, size: int | None = None) -> list[Any]:
        """Fetch the next rows from the server, at most `size` of them (`arraysize` by default)."""
        size = c_int(self._psycopg.arraysize if size is None else size)
        await self._move("cursor.fetchmany", b"FETCH FORWARD %d" % size)
        return await super().fetchmany(size)

    async def fetchall(self) -> list[Any]:
        """Fetch the rows that are left from the server."""
        await self._move("cursor.fetchall", b"FETCH FORWARD ALL")
        return await super().fetchall()

    async def scroll(self, value: int, mode: str = "relative") -> None:
        """Move on the server by `value` rows, or to row `value` if mode is "absolute".

        Backwards only if the cursor was declared so; PostgreSQL stops at either end. To be in
        front of the first row is to be at row 0.
        """
        value = scroll_target(value, mode)
        command = b"MOVE ABSOLUTE %d" if mode == "absolute" else b"MOVE %d"
        await self._move("cursor.scroll", command % value)
        self._moved = True

    async def __anext__(self) -> Any:
        batch = self._batch
        if batch is not None:
            try:
                row = batch.fetchone()
            except BaseException as error:
                trim(error)
                raise
            if row is not None:
                return row
        await self._move("cursor.__anext__", b"FETCH FORWARD %d" % self._psycopg.itersize)
        self._batch = self._result
        row = await super().fetchone()
        if row is None:
            raise StopAsyncIteration
        return row

    # Attributes

    @property
    def query(self) -> bytes | None:
        """The DECLARE statement as it was sent, None before execute()."""
        return self._declaration

    @property
    def rowcount(self) -> int:
        """The number of rows that the last fetch gave, -1 if the last statement was no fetch."""
        return -1 if self._moved else super().rowcount

    @property
    def name(self) -> str:
        """The name of the cursor."""
        name: str = self._named.name
        return name

    @property
    def scrollable(self) -> bool | None:
        """Whether it is declared SCROLL (True), NO SCROLL (False) or neither (None)."""
        scrollable: bool | None = self._named.scrollable
        return scrollable

    @scrollable.setter
    def scrollable(self, val: bool | None) -> None:
        self._named.scrollable = val

    @property
    def withhold(self) -> bool:
        """Whether it is declared WITH HOLD: not bound to a transaction."""
        withhold: bool = self._named.withhold
        return withhold

    @withhold.setter
    def withhold(self, val: bool) -> None:
        self._named.withhold = val

    def close(self) -> "asyncio.Future[None]":
        """Close the cursor. Takes effect at the call; awaiting the result is allowed.

        The server frees the cursor now, or before the connection's next statement if it is busy
        with another; awaiting waits for that in the first case. What a transaction or a closed
        connection has taken away needs no closing.
        """
        if self.closed:
            return self._portals.nothing
        self._psycopg.close()
        portal = self._portal
        if portal is None:
            if self._declaration is not None:
                return self._portals.nothing  # refused by the server, or not yet there
            # not executed: psycopg2 closes what somebody else has opened under its name
            portal = self._portals.add(Portal(self._named.name, None))
        return self._portals.close(portal)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if exc_type is None:
            await self.close()
        else:
            await close_after_error(self)


async def close_after_error(cursor: Any) -> None:
    """Close a cursor at the end of a block that raised: that is the error to be seen."""
    with contextlib.suppress(Exception):
        await _close_cursor(cursor)
