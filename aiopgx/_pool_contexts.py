"""What `await pool` and `pool.cursor()` give: a connection, or a cursor of one, for a block."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic

import psycopg2

from .cursor import Cursor
from .rows import Row
from .utils import _ContextManager

if TYPE_CHECKING:
    from .connection import Connection
    from .pool import Pool


class _PoolConnectionContextManager(Generic[Row]):
    """What `await pool` gives: `with (await pool) as conn` releases the connection at the end."""

    __slots__ = ("_conn", "_pool")

    def __init__(self, pool: Pool[Row], conn: Connection[Row]) -> None:
        self._pool: Pool[Row] | None = pool
        self._conn: Connection[Row] | None = conn

    def __enter__(self) -> Connection[Row]:
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

    async def __aenter__(self) -> Connection[Row]:
        return self.__enter__()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.__exit__(exc_type, exc, tb)


class _PoolCursorContextManager(Generic[Row]):
    """What `await pool.cursor()` gives: `with` closes the cursor and releases the connection."""

    __slots__ = ("_conn", "_cursor", "_pool")

    def __init__(self, pool: Pool[Any], conn: Connection[Any], cursor: Cursor[Row]) -> None:
        self._pool: Any = pool
        self._conn: Any = conn
        self._cursor: Any = cursor

    def __enter__(self) -> Cursor[Row]:
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


class _PoolCursor(_ContextManager[_PoolCursorContextManager[Row]], Generic[Row]):
    """What `pool.cursor()` returns: await it for the manager, `async with` gives the cursor."""

    __slots__ = ()

    async def __aenter__(self) -> Cursor[Row]:  # type: ignore[override]
        return (await super().__aenter__()).__enter__()


async def _exit(manager: _PoolCursorContextManager[Any]) -> None:
    manager.__exit__(None, None, None)
