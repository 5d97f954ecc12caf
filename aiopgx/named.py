"""Server-side cursors: a portal on the server, from which rows are fetched in batches.

`conn.cursor(name=...)` makes a `NamedCursor`. What cursors leave behind on the server is freed by
the `Portals` of their connection, at moments when it disturbs nobody.
"""

import asyncio
import contextlib
from collections.abc import Iterable
from functools import partial
from types import TracebackType
from typing import Any

import psycopg2
from psycopg2.extensions import (
    TRANSACTION_STATUS_IDLE,
    TRANSACTION_STATUS_INERROR,
    TRANSACTION_STATUS_INTRANS,
)
from psycopg2.extensions import cursor as PsycopgCursor

from ._core import Wire
from ._errors import make_error
from ._nul import refuse_nul
from ._requests import check_size, end_portal
from ._rows import Unready, c_int, scroll_target
from ._structs import genuine_cursor
from .cursor import Cursor, Owner, _close_cursor
from .rows import Row
from .transaction import IsolationLevel
from .utils import create_completed_future, trim

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
        self.name: bytes = name.encode()
        self.quoted: bytes = quoted(name)
        self.rests: int | None = rests
        self.closed: bool = False


def quoted(name: str) -> bytes:
    """The name as an identifier. psycopg2 has seen that it is one in the client encoding."""
    return b'"%b"' % name.encode().replace(b'"', b'""')


def psycopg_named(raw: Any, name: str, scrollable: bool | None, withhold: bool) -> Any:
    """psycopg2's named cursor, made past its own `cursor()`, which refuses here."""
    named = PsycopgCursor(raw, name)
    if ("\0" if isinstance(name, str) else b"\0") in name:  # psycopg2 has cut it off there
        raise ValueError("the name of a cursor cannot contain NUL (0x00) characters")
    named.withhold = withhold
    named.scrollable = scrollable
    return named


class Portals:
    """The portals of one connection that are open, as far as is known.

    A portal is freed as soon as nobody is disturbed: at once if the connection is idle, else behind
    the statement that is being executed.
    """

    def __init__(self, wire: Wire, timeout: float | None) -> None:
        self._wire = wire
        self._timeout = timeout
        self._open: dict[bytes, Portal] = {}
        self._ending: set[Portal] = set()  # those that are being freed now
        self._listeners: list[asyncio.Future[None]] = []  # told when there are none
        self.nothing: asyncio.Future[Any] = create_completed_future(wire.loop)

    def add(self, portal: Portal) -> Portal:
        """Note a portal that is there. If there was one of its name before, that one is gone."""
        self._open = {key: other for key, other in self._open.items() if self.valid(other)}
        self._open[portal.quoted] = portal
        return portal

    def valid(self, portal: Portal) -> bool:
        """Whether the portal can still be there."""
        return not portal.closed and self.lasts(portal)

    def lasts(self, portal: Portal) -> bool:
        """Whether the transaction that the portal goes with is still open."""
        return portal.rests is None or portal.rests == self._wire.rests

    def check_loop(self) -> None:
        """Raise RuntimeError where another thread runs the event loop, or another loop runs."""
        wire, running = self._wire, asyncio._get_running_loop()
        if running is not wire.loop and (running is not None or wire.loop.is_running()):
            raise RuntimeError(
                "cursor.close() called on another event loop than the connection was made on"
            )

    def close(self, portal: Portal) -> "asyncio.Future[None]":
        """Free a portal. Awaiting the result waits for it, if it can be done now.

        The result gets the error if one comes: of a timeout, of a connection that is lost.
        """
        ours = self._open.get(portal.quoted) is portal and self.valid(portal)
        portal.closed = True
        if not ours or self._wire.closed or self._wire.forked:
            return self.nothing
        del self._open[portal.quoted]
        self._ending.add(portal)
        try:
            waiter = end_portal(self._wire, self, portal, self._timeout)
        except psycopg2.Error as error:
            self.freed(portal, error)
            waiter = self._wire.loop.create_future()
            waiter.set_exception(error)
            waiter.exception()  # else the loop complains when nobody awaits it
        if waiter is None:
            self._ending.discard(portal)  # it has to wait for others
        return waiter or self.nothing

    def close_all(self) -> "asyncio.Future[None] | None":
        """Free all portals. None if nothing has to be waited for."""
        for portal in list(self._open.values()):
            self.close(portal)
        if not self._ending:
            return None
        listener = self._wire.loop.create_future()
        self._listeners.append(listener)
        return listener

    def freed(self, portal: Portal, error: BaseException | None) -> None:
        """The server is done with a portal. If it failed, a pool's release shall try again."""
        if error is not None:
            self._open.setdefault(portal.quoted, portal)
            portal.closed = False
        self._ending.discard(portal)
        if not self._ending:
            listeners, self._listeners = self._listeners, []
            for listener in listeners:
                if not listener.done():
                    listener.set_result(None)

    @property
    def clean(self) -> bool:
        """Whether none is open."""
        return not any(map(self.valid, self._open.values()))


class NamedCursor(Cursor[Row]):
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

    _pipelined = False

    def __init__(
        self,
        conn: Owner,
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
        prepare: bool | None = None,
    ) -> None:
        """Declare the cursor for a query: DECLARE name CURSOR FOR operation.

        Possible once, in a transaction or with `withhold`, else `psycopg2.ProgrammingError` is
        raised. The arguments and other errors are those of `Cursor.execute()`; DECLARE is not
        prepared, whatever `prepare` is.
        """
        if self._declaration is not None:
            self._refuse("can't call .execute() on named cursors more than once")
        await self._settle()
        self._ready("cursor.execute")
        withhold = self.withhold
        if not withhold and self._wire.status == TRANSACTION_STATUS_IDLE:
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
        refuse_nul(operation)
        check_size(parameters)
        statement = b"DECLARE %b %bCURSOR %b HOLD FOR %b" % (
            quoted(self._named.name),
            _SCROLL[self.scrollable],
            b"WITH" if self.withhold else b"WITHOUT",
            self.mogrify(operation, parameters),
        )
        refuse_nul(statement)
        return statement

    async def executemany(self, *args: Any, **kwargs: Any) -> None:
        """Raise `psycopg2.ProgrammingError`: a named cursor executes one query."""
        self._check_open()
        self._refuse("can't call .executemany() on named cursors")

    def stream(self, *args: Any, **kwargs: Any) -> Any:
        """Raise `psycopg2.ProgrammingError`: `async for` over a named cursor is a stream."""
        self._check_open()
        self._refuse("can't call .stream() on named cursors: iterate over the cursor itself")

    async def callproc(self, *args: Any, **kwargs: Any) -> None:
        """Raise `psycopg2.ProgrammingError`: a named cursor executes one query."""
        self._check_open()
        self._refuse("can't call .callproc() on named cursors")

    async def _execute_foreign(
        self,
        start: Any,
        operation: Any,
        parameters: Any,
        timeout: float | None,
        names: Iterable[str] = (),
    ) -> None:
        if operation is not self._declaration:
            # what psycopg2 sends for a fetch isn't seen by execute() of cursor classes either
            start = partial(PsycopgCursor.execute, genuine_cursor(self._psycopg))
        await super()._execute_foreign(start, operation, parameters, timeout, names)

    def _check_open(self) -> None:
        if self.closed:
            raise psycopg2.InterfaceError("cursor already closed")

    def _refuse(self, reason: str) -> None:
        raise make_error(psycopg2.ProgrammingError, reason, self._psycopg)

    def _ready(self, caller: str) -> None:
        """Raise if somebody else uses the connection."""
        refusal = self._wire.refusal(caller, self._session)
        if refusal is not None:
            raise refusal

    def _transaction_mark(self) -> int | None:
        """What tells the transaction that is open from later ones, None if none is known to be."""
        return self._wire.rests if self._wire.status in _OPEN else None

    def _own(self, rests: int | None) -> None:
        """Note that the portal is there."""
        self._portal = self._portals.add(Portal(self._named.name, rests))
        if self.closed:  # while the server was at work
            self._portals.close(self._portal)

    def _executor(self) -> Cursor[Any]:
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
            await self._settle()
            self._ready(caller)
            if not self._valid():
                raise psycopg2.ProgrammingError("named cursor isn't valid anymore")
            self._batch = None
            self._moved = False
            await super().execute(b"%b FROM %b" % (command, quoted(self._named.name)))
            if portal is None:
                self._own(None)
        finally:
            self._fetching = False

    def _valid(self) -> bool:
        """Whether the cursor is of this transaction or held, as far as is known."""
        if self._mark is None:
            self._mark = self._transaction_mark()
        elif self._mark != self._wire.rests and not self.withhold:
            return False
        return self._portal is None or self._portals.valid(self._portal)

    async def fetchone(self) -> Row | None:
        """Fetch the next row from the server, None after the last."""
        await self._move("cursor.fetchone", b"FETCH FORWARD 1")
        return await super().fetchone()

    async def fetchmany(self, size: int | None = None) -> list[Row]:
        """Fetch the next rows from the server, at most `size` of them (`arraysize` by default)."""
        size = c_int(self._psycopg.arraysize if size is None else size)
        await self._move("cursor.fetchmany", b"FETCH FORWARD %d" % size)
        return await super().fetchmany(size)

    async def fetchall(self) -> list[Row]:
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

    async def __anext__(self) -> Row:
        batch = self._batch
        if batch is not None:
            try:
                row: Any = batch.fetchone()
            except Unready:
                row = await Cursor.fetchone(self)
            except BaseException as error:
                trim(error)
                raise
            if row is not None or not (self._row_factory is None or batch.exhausted):
                return row  # type: ignore[no-any-return]
        await self._move("cursor.__anext__", b"FETCH FORWARD %d" % self._psycopg.itersize)
        self._batch = self._result
        row = await super().fetchone()
        if row is None and (self._row_factory is None or self._result.exhausted):
            raise StopAsyncIteration
        return row  # type: ignore[no-any-return]

    def _read_from(self, rows: Any) -> None:
        if self._batch is self._result:
            self._batch = rows
        self._result = rows

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

        The server frees the cursor now, or behind the statement that is being executed; awaiting
        waits for that in the first case. What a transaction or a closed
        connection has taken away needs no closing.
        """
        if self.closed:
            return self._portals.nothing
        if not self._wire.forked:
            self._portals.check_loop()
        self._psycopg.close()
        portal = self._portal
        if self._wire.closed:  # or released, and the session may have cursors of another
            return self._portals.nothing
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
