"""`check=` and `reset=` of a pool: the program's code around the use of a connection."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import psycopg2
from psycopg2.extensions import TRANSACTION_STATUS_IDLE

from ._pool import PoolCore, status_of
from .guard import rest
from .log import logger
from .pool_upkeep import CLOSED, Pauses, within

if TYPE_CHECKING:
    from .connection import Connection
    from .pool import Pool


async def acquire_checked(pool: Pool, timeout: float | None) -> Connection:
    """Take connections, until there is one that `check` finds nothing wrong with."""
    if timeout is None:
        timeout = pool._timeout
    if timeout == math.inf:
        timeout = None
    end = math.inf if timeout is None else pool._loop.time() + timeout
    pauses = Pauses()
    conn = pool._good
    while True:
        left = None if timeout is None else max(0.0, end - pool._loop.time())
        new = conn is None
        if new:
            conn = await pool._wait(left)
        error = await _find_fault(pool, conn, left)
        if error is None:
            return conn  # type: ignore[no-any-return]
        try:
            if pool._closing:
                raise RuntimeError(CLOSED) from error
            logger.warning("%r replaces a connection that failed its check: %r", pool, error)
            now = pool._loop.time()
            pause = pauses.next() if new else 0.0
            if now + pause >= end:
                text = f"no connection that passed its check within {timeout:g} s"
                raise asyncio.TimeoutError(text) from error
        finally:
            del error  # an exception must not hold itself, by way of this frame
        await asyncio.sleep(pause)
        if pool._closing:
            raise RuntimeError(CLOSED)
        conn = pool._take_good()


async def scout(pool: Pool) -> None:
    """Acquire a connection for statements of `execute()` that wait, and share it."""
    if not pool._sharing.waiting():  # by now: the pool was terminated, or they have been given up
        pool._requests += 1  # send_scout() relies on it
        pool._sharing.scouted(pool, None, None)
        return
    try:
        conn = await acquire_checked(pool, None)
    except BaseException as exc:
        pool._sharing.scouted(pool, None, exc)
        if not isinstance(exc, Exception):
            raise
    else:
        pool._sharing.scouted(pool, conn, None)


async def _find_fault(pool: Pool, conn: Any, limit: float | None) -> Exception | None:
    """What `check` raises. Then the connection is closed."""
    try:
        assert pool._check is not None
        await within(limit, pool._check(conn))
        if conn.closed:
            raise psycopg2.InterfaceError("the check has closed the connection")
        if pool._short:
            pool._top_up()
        return None
    except BaseException as exc:
        pool._stats.connections_lost += 1
        if conn not in pool._terminated:
            conn.close()
        PoolCore.release(pool, conn)
        if not isinstance(exc, Exception):
            raise
        return exc


def release_reset(pool: Pool, conn: Connection) -> asyncio.Future[None]:
    """Release a connection when `reset` is done with it."""
    assert pool._reset is not None
    released: asyncio.Future[None] = pool._loop.create_future()

    def release(task: asyncio.Future[Any]) -> None:
        if pool._clearing.pop(task, None) is None:
            return
        if timer is not None:
            timer.cancel()
        reason: object = None
        if not task.done():
            reason = f"not done within {pool._timeout:g} s"
            task.cancel()
        elif task.cancelled():
            reason = "cancelled"
        elif task.exception() is not None:
            reason = task.exception()
        elif conn.closed or (status := status_of(conn)) != TRANSACTION_STATUS_IDLE:
            reason = "closed" if conn.closed else f"left in transaction status {status}"
        if reason is not None:
            logger.warning("%r closes a connection whose reset failed: %r", pool, reason)
        if reason is not None or not pool._keep(conn):
            pool._discard(conn)
        elif pool._rests and conn in pool._free:
            rest(conn)
        pool._settle()
        pass_on(released)

    task = pool._loop.create_task(_awaited(pool._reset, conn))
    pool._clearing[task] = conn
    task.add_done_callback(release)
    timer = None
    if pool._timeout is not None:
        timer = pool._loop.call_later(pool._timeout, release, task)
    return released


async def _awaited(function: Callable[[Connection], Awaitable[Any]], conn: Connection) -> None:
    """Call it within the task, so that whatever is wrong with it is the task's error."""
    await function(conn)


def pass_on(released: asyncio.Future[None], _: object = None) -> None:
    """Wake who waits for a release."""
    if not released.done():
        released.set_result(None)
