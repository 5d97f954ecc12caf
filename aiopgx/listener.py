"""Listener: notifications over as many connections as it takes."""

import asyncio
import inspect
import random
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

import psycopg2
from psycopg2.extensions import Notify, parse_dsn

from .connection import Connection, connect
from .inbox import check_channel, named, quoted_channel
from .log import logger

# Seconds until the first try to connect again, at most; each time twice as long.
_FIRST_DELAY = 0.1
# A listening connection only ever hears: without these its peer may vanish unnoticed for hours.
_KEEPALIVES = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}


class Listener:
    """Listens to channels for as long as the program wants, over as many connections as it takes.

        async with aiopgx.Listener(dsn, ["jobs"], on_gap=look_for_jobs) as listener:
            async for notify in listener:
                print(notify.channel, notify.payload)

    When its connection is lost, it connects and listens again, after pauses that grow. What was
    sent meanwhile, nobody has kept: `on_gap` is called then, in the task that iterates and in front
    of the first notification after the gap. New in aiopgx.

    source: a connection string, or a `Pool`, of which one connection is in use until close().
    channels: their names; a str is one.
    on_gap: a function or coroutine function, called with the exception that tells why
        notifications may have been missed. Without it a warning is logged. What it raises is raised
        by the iteration, and it is called again when that goes on.
    max_delay: seconds between two tries to connect, at most.
    kwargs: with a connection string, those of `connect()`. TCP keepalives of 30 s are set unless
        it sets them; those of a pool's connections are the pool's.

    Attributes
    channels: what is listened to, a tuple; see listen() and unlisten().
    """

    def __init__(
        self,
        source: Any = None,
        channels: str | Iterable[str] = (),
        *,
        on_gap: Callable[[BaseException], object] | None = None,
        max_delay: float = 30.0,
        **kwargs: Any,
    ) -> None:
        if on_gap is not None and not callable(on_gap):
            raise TypeError(f"on_gap must be callable or None, not {on_gap!r}")
        if not isinstance(max_delay, (int, float)) or not max_delay > 0:
            raise ValueError(f"max_delay must be a number of seconds, not {max_delay!r}")
        self._pool = source if hasattr(source, "acquire") else None
        if self._pool is not None and kwargs:
            raise TypeError(f"with a pool there is no use for {named(kwargs)}")
        self._dsn = source
        self._kwargs = kwargs
        if not isinstance(channels, Iterable):
            raise TypeError(f"channels must be names, not {channels!r}")
        self._channels = dict.fromkeys([channels] if isinstance(channels, str) else channels)
        for channel in self._channels:
            check_channel(channel)
        self._on_gap = on_gap
        self._max_delay = max_delay
        self._conn: Connection | None = None
        self._gap: BaseException | None = None
        self._iterated = False
        self._started = False
        self._closed = False
        self._starting = asyncio.Lock()
        self._statements = asyncio.Lock()
        self._pause: asyncio.Future[None] | None = None

    @property
    def channels(self) -> tuple[str, ...]:
        return tuple(self._channels)

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._closed

    async def start(self) -> "Listener":
        """Connect and listen; `async with` does it. The first failure is raised, later ones not.

        Raises psycopg2's exceptions and `asyncio.TimeoutError`.
        """
        async with self._starting:  # an iteration may start it, too
            if self._started or self._closed:
                return self
            conn = await self._open()
            if self._closed:
                conn.close()
                self._give_back(conn)
            else:
                self._conn, self._started = conn, True
        return self

    async def close(self) -> None:
        """Stop listening. An iteration ends, and the pool has its connection back."""
        self._closed = True
        if self._pause is not None:
            _wake(self._pause)
        conn, self._conn = self._conn, None
        if conn is None:
            return
        try:
            if self._pool is None or self._iterated or self._statements.locked():
                await conn.close()  # which wakes whoever waits there
            else:
                await conn._command("UNLISTEN *")
        except psycopg2.Error:
            conn.close()  # whatever it was: nobody is to hear of it
        except BaseException:
            conn.close()
            raise
        finally:
            self._give_back(conn)

    async def listen(self, channel: str) -> None:
        """Listen to one more channel: at once, or as soon as there is a connection."""
        check_channel(channel)
        if channel in self._channels:
            return
        self._channels[channel] = None
        try:
            await self._tell("LISTEN", channel)
        except BaseException:
            del self._channels[channel]
            raise

    async def unlisten(self, channel: str) -> None:
        """Listen to a channel no more: nothing of it is given from now on."""
        if channel in self._channels:
            del self._channels[channel]
            await self._tell("UNLISTEN", channel)

    async def _tell(self, verb: str, channel: str) -> None:
        async with self._statements:
            conn = self._conn
            if conn is None:
                return
            try:
                await conn._command(f"{verb} {quoted_channel(conn, channel)}")
            except psycopg2.Error:
                if not conn.closed:
                    raise  # else the next connection does it

    def __aiter__(self) -> "Listener":
        return self

    async def __anext__(self) -> Notify:
        if self._iterated:
            raise RuntimeError("the listener is being iterated by another task")
        self._iterated = True
        try:
            return await self._next()
        finally:
            self._iterated = False

    async def _next(self) -> Notify:
        await self.start()
        while not self._closed:
            if self._conn is None:
                await self._reconnect()
            elif self._gap is not None:
                await self._report_gap(self._gap)
            else:
                notify = await self._get(self._conn)
                if notify is not None and notify.channel in self._channels:
                    return notify
        raise StopAsyncIteration

    async def _get(self, conn: Connection) -> Notify | None:
        """The next notification; None in front of a gap."""
        try:
            notify: Notify = await conn.notifies.get()
        except psycopg2.OperationalError as error:
            self._gap = error.with_traceback(None)
            if conn.closed and self._conn is conn:
                self._conn = None
                self._give_back(conn)
            return None
        return notify

    async def _report_gap(self, error: BaseException) -> None:
        if self._on_gap is None:
            logger.warning(
                "Notifications of %s may have been missed: %s", named(self._channels), error
            )
        else:
            result = self._on_gap(error)
            if inspect.isawaitable(result):
                await result
        if self._gap is error:
            self._gap = None

    async def _open(self) -> Connection:
        """A connection that listens to all channels."""
        if self._pool is not None:
            conn: Connection = await self._pool.acquire()
        else:
            conn = await connect(self._dsn, **_keepalives(self._dsn, self._kwargs))
        try:
            if self._pool is not None:
                conn._inbox.reset()  # of what was left there for others
            listening: dict[str, None] = {}
            while missing := [name for name in self._channels if name not in listening]:
                names = [quoted_channel(conn, name) for name in missing]
                await conn._command("; ".join(f"LISTEN {name}" for name in names))
                listening.update(dict.fromkeys(missing))
        except BaseException:
            conn.close()
            self._give_back(conn)
            raise
        return conn

    def _give_back(self, conn: Connection) -> None:
        if self._pool is not None:
            self._pool.release(conn)

    async def _reconnect(self) -> None:
        delay = min(_FIRST_DELAY, self._max_delay)
        while True:
            await self._wait(random.uniform(0, delay))
            if self._closed:
                return
            try:
                conn = await self._open()
            except (psycopg2.Error, asyncio.TimeoutError, OSError) as error:
                delay = min(2 * delay, self._max_delay)
                logger.warning(
                    "Listening to %s goes on with the next try to connect, in at most %g s: %s",
                    *(named(self._channels), delay, error),
                )
                continue
            if self._closed:
                conn.close()
                self._give_back(conn)
            else:
                self._conn = conn
            return

    async def _wait(self, seconds: float) -> None:
        """Wait for so long, or until close() is called."""
        loop = asyncio.get_running_loop()
        self._pause = pause = loop.create_future()
        timer = loop.call_later(seconds, _wake, pause)
        try:
            await pause
        finally:
            timer.cancel()
            self._pause = None

    async def __aenter__(self) -> "Listener":
        return await self.start()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        await self.close()


def _wake(pause: "asyncio.Future[None]") -> None:
    if not pause.done():
        pause.set_result(None)


def _keepalives(dsn: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of connect(), with keepalives if nothing says anything of them."""
    try:
        given = {**parse_dsn(dsn or ""), **kwargs}
    except (psycopg2.Error, TypeError):
        return kwargs  # connect() refuses it
    if any(name.startswith("keepalives") or name == "service" for name in given):
        return kwargs
    return {**_KEEPALIVES, **kwargs}
