"""Inbox: what becomes of the notifications of a connection, for its callbacks and its queue."""

import asyncio
import inspect
import weakref
from collections.abc import Callable, Iterable
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any

from psycopg2.extensions import Notify

from ._nul import identifier
from .log import logger
from .utils import Missing

if TYPE_CHECKING:
    from .connection import Connection

# Bytes of a name that PostgreSQL keeps.
_MAX_NAME = 63

_Callback = Callable[["Connection", int, str, str], object]


def check_channel(channel: str) -> None:
    """Raise TypeError or ValueError for what can't be the name of a channel.

    What is too long would be cut off by the server: nothing would ever be heard there.
    """
    if not isinstance(channel, str):
        raise TypeError(f"channel must be a str, not {channel!r}")
    if not channel:
        raise ValueError("channel must not be empty")
    if "\0" in channel:
        raise ValueError("channel cannot contain NUL (0x00) characters")
    if len(channel.encode()) > _MAX_NAME:
        raise ValueError(f"channel must not be longer than {_MAX_NAME} bytes: {channel!r}")


def quoted_channel(conn: "Connection", channel: str) -> str:
    """The name of a channel as an identifier of SQL, for an open connection."""
    check_channel(channel)
    if conn.closed:
        raise conn._wire.closed_error("connection already closed")
    return identifier(channel, conn._wire.raw)


class Inbox:
    """Where a connection puts its notifications: callbacks hear them, the queue keeps them.

    queue: what `Connection.notifies` reads.
    limit: how many the queue keeps unread; what comes then is counted, and told in its place.
    wanted: `Connection.notifies` was asked for, so it gets what callbacks hear, too.
    """

    def __init__(
        self,
        conn: "Connection",
        queue: "asyncio.Queue[Any]",
        limit: int | None,
    ) -> None:
        self._conn = weakref.ref(conn)
        self._queue = queue
        self._limit = limit
        self._missing: Missing | None = None
        self._tasks: set[asyncio.Future[Any]] = set()
        self._listening: set[str] = set()
        self._watching = False
        self.callbacks: dict[str, dict[_Callback, Context]] = {}
        self.wanted = False

    def put_nowait(self, notify: Notify) -> None:
        callbacks = self.callbacks.get(notify.channel)
        conn = self._conn()
        if callbacks and conn is not None:
            for callback, context in callbacks.items():
                conn._loop.call_soon(self._call, conn, callback, notify, context=context.copy())
        if callbacks is None or self.wanted:
            self._keep(notify)

    def _keep(self, notify: Notify) -> None:
        if self._limit is None or self._queue.qsize() < self._limit:
            self._missing = None
            self._queue.put_nowait(notify)
            return
        if self._missing is None:
            self._missing = Missing(self._limit)
            self._queue.put_nowait(self._missing)
            logger.warning(
                "%r has %d notifications unread: what comes now is lost", self._conn(), self._limit
            )
        self._missing.count += 1

    def _call(self, conn: "Connection", callback: _Callback, notify: Notify) -> None:
        if callback not in self.callbacks.get(notify.channel, ()):
            return  # removed meanwhile
        try:
            result = callback(conn, notify.pid, notify.channel, notify.payload)
        except Exception as error:
            _report(conn, notify.channel, error)
            return
        if not inspect.isawaitable(result):
            return

        def ended(task: "asyncio.Future[Any]") -> None:
            self._tasks.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                _report(conn, notify.channel, error)

        task = asyncio.ensure_future(result)
        self._tasks.add(task)  # the loop itself does not hold it
        task.add_done_callback(ended)

    async def add(self, conn: "Connection", channel: str, callback: _Callback) -> None:
        """See `Connection.add_listener()`."""
        identifier = quoted_channel(conn, channel)
        if not callable(callback):
            raise TypeError(f"callback must be callable, not {callback!r}")
        if not self._watching:
            self._watching = True
            conn._notifies._close_event.add_done_callback(self._ended)
        callbacks = self.callbacks.setdefault(channel, {})
        callbacks.setdefault(callback, copy_context())  # before LISTEN: nothing is missed
        conn._note_left()
        if channel in self._listening:
            return
        try:
            await conn._command(f"LISTEN {identifier}")
        except BaseException:
            callbacks.pop(callback, None)
            self._forget_unused(conn, channel)
            raise
        self._listening.add(channel)

    async def remove(self, conn: "Connection", channel: str, callback: _Callback) -> None:
        """See `Connection.remove_listener()`."""
        callbacks = self.callbacks.get(channel, {})
        context = callbacks.pop(callback, None)
        if context is None or callbacks:
            return
        self._listening.discard(channel)
        try:
            if not conn.closed:
                await conn._command(f"UNLISTEN {quoted_channel(conn, channel)}")
        except BaseException:
            callbacks[callback] = context  # the server listens on
            self._listening.add(channel)
            raise
        self._forget_unused(conn, channel)

    def _forget_unused(self, conn: "Connection", channel: str) -> None:
        if not self.callbacks.get(channel, True):
            del self.callbacks[channel]
        conn._note_left()

    def reset(self) -> None:
        """The server does not listen any more: forget the callbacks, and what is unread."""
        self.callbacks.clear()
        self._listening.clear()
        self._missing = None
        while not self._queue.empty():
            self._queue.get_nowait()

    @property
    def left(self) -> str | None:
        """Which callbacks there are, None if there are none."""
        return f"Listeners left: {named(self.callbacks)}" if self.callbacks else None

    def _ended(self, closing: "asyncio.Future[Any]") -> None:
        """The connection is closed: say so, if nobody wanted that and callbacks wait."""
        conn = self._conn()
        if conn is not None and self.callbacks and conn._wire.reason is not None:
            logger.warning(
                "%r is lost: no more notifications of %s: %s",
                *(conn, named(self.callbacks), conn._wire.reason),
            )


def named(channels: Iterable[str]) -> str:
    return ", ".join(map(repr, channels))


def _report(conn: "Connection", channel: str, error: BaseException) -> None:
    conn._loop.call_exception_handler(
        {
            "message": f"Exception in a listener of channel {channel!r}",
            "exception": error,
            "connection": conn,
        }
    )
