"""What `await pool` and `pool.cursor()` give: a connection, or a cursor of one, for a block."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

import psycopg2

from .cursor import Cursor
from .utils import _ContextManager

if TYPE_CHECKING:
    from .connection import Connection
    from .pool import Pool


class _PoolConnectionContextManager:
    """What `await pool` gives: `with (await pool) as conn` releases the connection at the end."""

    __slots__ = ("_conn", "_pool")

    def __init__(self, pool: Pool, conn: Connection) -> None:
        self._pool: Pool | None = pool
        self._conn: Connection | None = conn

    def __enter__(self) -> Connection:
        assert self._conn is not None
        return self._conn

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        pool, conn = self._pool, self._conn
        self._pool = self._conn = None
        if pool is not None and conn is not None:
            pool.release(conn)

    async def __aenter__(self) -> Connection:
        return self.__enter__()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.__exit__(exc_type, exc, tb)


class _PoolCursorContextManager:
    """What `await pool.cursor()` gives: `with` closes the cursor and releases the connection."""

    __slots__ = ("_conn", "_cursor", "_pool")

    def __init__(self, pool: Pool, conn: Connection, cursor: Cursor) -> None:
        self._pool: Any = pool
        self._conn: Any = conn
        self._cursor: Any = cursor

    def __enter__(self) -> Cursor:
        return self._cursor  # type: ignore[no-any-return]

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        pool, conn, cursor = self._pool, self._conn, self._cursor
        self._pool = self._conn = self._cursor = None
        try:
            cursor.close()
        except psycopg2.ProgrammingError:
            conn.close()  # a cursor that can't be closed: its connection is not to be used again
            raise
        finally:
            pool.release(conn)


class _PoolCursor(_ContextManager[_PoolCursorContextManager]):
    """What `pool.cursor()` returns: await it for the manager, `async with` gives the cursor."""

    __slots__ = ()

    async def __aenter__(self) -> Cursor:  # type: ignore[override]
        return (await super().__aenter__()).__enter__()


async def _exit(manager: _PoolCursorContextManager) -> None:
    manager.__exit__(None, None, None)
