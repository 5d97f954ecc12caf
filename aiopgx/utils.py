"""Awaitable context managers, and a queue that can be closed with an exception."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import psycopg2

from ._context import ContextCore

get_running_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.get_running_loop

_TObj = TypeVar("_TObj")
_TItem = TypeVar("_TItem")

if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault

    _TQueued = TypeVarWithDefault("_TQueued", default=Any)
else:
    _TQueued = TypeVar("_TQueued")


def bounded(
    loop: asyncio.AbstractEventLoop, awaited: "asyncio.Future[Any]", seconds: float
) -> "asyncio.Future[None]":
    """Return a future that is done when `awaited` is, or when the time is over."""
    future: asyncio.Future[None] = loop.create_future()

    def end(_: Any = None) -> None:
        if not future.done():
            future.set_result(None)

    timer = loop.call_later(seconds, end)
    awaited.add_done_callback(end)
    future.add_done_callback(lambda _: timer.cancel())
    return future


def create_completed_future(loop: asyncio.AbstractEventLoop) -> "asyncio.Future[Any]":
    """Return a future of `loop` that is done, with the result None."""
    future = loop.create_future()
    future.set_result(None)
    return future


# Where tracebacks show nothing but a first frame.
_HIDDEN = (
    "aiopgx._",
    "aiopgx.bulk",
    "aiopgx.pipeline",
    "aiopgx.rows",
    "aiopgx.shared",
    "aiopgx.stream",
)


# Of errors of connecting: local variables, which some tools show, would have passwords in them.
CONNECTING = (*_HIDDEN, "aiopgx.connection", "aiopgx.hosts", "aiopgx.pool")


def trim(error: BaseException, hidden: tuple[str, ...] = _HIDDEN) -> None:
    """Take compiled code out of a traceback: an error of psycopg2 shows the caller and no more.

    hidden: how the names of the modules begin that are taken out.
    """
    entry = error.__traceback__
    while entry is not None and entry.tb_next is not None:
        if entry.tb_next.tb_frame.f_globals.get("__name__", "").startswith(hidden):
            entry.tb_next = entry.tb_next.tb_next
        else:
            entry = entry.tb_next


class _ContextManager(ContextCore[_TObj], Coroutine[Any, None, _TObj]):
    """What `connect()`, `create_pool()`, `acquire()`, `cursor()` ... return.

    Await it for the object, or use it in `async with`, which releases the object at the end. It
    passes for a coroutine, so that it can be made a task.

    coro: an awaitable that gives the object.
    release: called with the object on leaving the block; what it returns is awaited.
    release_on_exception: the same, when the block raised; `release` by default.
    """

    __slots__ = ()

    async def __aenter__(self) -> _TObj:
        obj: _TObj = await self._coro
        self._obj = obj
        return obj


class _IterableContextManager(_ContextManager[_TObj], Generic[_TObj, _TItem]):
    """A context manager whose object may also be iterated; it is released after the last item."""

    __slots__ = ()

    def __aiter__(self) -> "_IterableContextManager[_TObj, _TItem]":
        return self

    async def __anext__(self) -> _TItem:
        if self._obj is None:
            self._obj = await self._coro
        try:
            return await self._obj.__anext__()  # type: ignore[no-any-return]
        except StopAsyncIteration:
            await self.__aexit__(None, None, None)
            raise


class Missing:
    """In a queue of notifications, in the place of those that were thrown away: `count` of them."""

    __slots__ = ("_limit", "count")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.count: int = 0

    def error(self) -> psycopg2.OperationalError:
        return psycopg2.OperationalError(
            f"{self.count} notifications were thrown away here, since {self._limit} were unread"
        )


class ClosableQueue(Generic[_TQueued]):
    """The reading side of an `asyncio.Queue` that can be closed with an exception.

    What is in the queue when it is closed can still be read; after that every read raises the
    exception. `async for item in queue` reads until then, and ends with that exception.
    """

    __slots__ = ("_close_event", "_loop", "_queue")

    def __init__(self, queue: "asyncio.Queue[_TQueued]", loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._queue = queue
        self._close_event: asyncio.Future[Any] = loop.create_future()

    def close(self, exception: BaseException) -> None:
        """Let reads of the empty queue raise `exception`. Only the first call counts."""
        if self._close_event.done():
            return
        self._close_event.set_exception(exception)
        self._close_event.exception()  # else the loop complains when nobody ever reads
        for getter in self._getters():
            if not getter.done():
                getter.set_result(None)

    def when_closed(self, callback: Callable[[Any], object]) -> None:
        """Have `callback` called, by the loop, once this is closed."""
        self._close_event.add_done_callback(callback)

    async def get(self) -> _TQueued:
        """Return the next item; wait for one if there is none."""
        while True:
            try:
                return self.get_nowait()
            except asyncio.QueueEmpty:
                if self._close_event.done():
                    raise  # this is the exception that the queue was closed with
            await self._wait()

    def get_nowait(self) -> _TQueued:
        """Return the next item.

        Raises `asyncio.QueueEmpty` if there is none, or what the queue was closed with.
        """
        if self._queue.empty() and self._close_event.done():
            return self._close_event.result()  # type: ignore[no-any-return]
        item: Any = self._queue.get_nowait()
        if type(item) is Missing:
            raise item.error()
        return item  # type: ignore[no-any-return]

    def empty(self) -> bool:
        return self._queue.empty()

    def qsize(self) -> int:
        return self._queue.qsize()

    def __aiter__(self) -> "ClosableQueue[_TQueued]":
        return self

    async def __anext__(self) -> _TQueued:
        return await self.get()

    def _getters(self) -> Any:
        # The queue wakes the first of these futures at each put. Waiting there ourselves, instead
        # of in Queue.get(), lets close() wake us without a task for each read.
        return self._queue._getters  # type: ignore[attr-defined]

    async def _wait(self) -> None:
        getters = self._getters()
        getter = self._loop.create_future()
        getters.append(getter)
        try:
            await getter
        except BaseException:
            if getter.cancelled():
                with contextlib.suppress(ValueError):  # a put() has just passed it over
                    getters.remove(getter)
            elif not self._queue.empty():
                self._wake_next()  # we were woken for an item that we shall not take
            raise

    def _wake_next(self) -> None:
        getters = self._getters()
        while getters:
            getter = getters.popleft()
            if not getter.done():
                getter.set_result(None)
                break
