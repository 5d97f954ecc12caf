"""Engine: a pool of connections and the SQLAlchemy dialect that compiles their statements."""

import asyncio
import json
from collections.abc import Callable, Generator
from types import TracebackType
from typing import Any

from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2

import aiopgx

from ..connection import TIMEOUT
from ..utils import _ContextManager, _IterableContextManager, get_running_loop
from ._statements import APGCompiler_psycopg2
from .connection import SAConnection, _close_result_proxy, without_row_factory
from .result import ResultProxy, RowProxy


def get_dialect(
    json_serializer: Callable[[Any], str] = json.dumps,
    json_deserializer: Callable[[Any], Any] = lambda x: x,
) -> Any:
    """Make a dialect for `create_engine()`.

    json_serializer: makes the text of a JSON or JSONB parameter.
    json_deserializer: given to SQLAlchemy's dialect, which leaves JSON results to psycopg2; what
        psycopg2 makes of them is set with `psycopg2.extras.register_default_json()`.
    """
    dialect: Any = PGDialect_psycopg2(  # type: ignore[no-untyped-call]
        json_serializer=json_serializer, json_deserializer=json_deserializer
    )
    dialect.statement_compiler = APGCompiler_psycopg2
    # What SQLAlchemy would ask a server: all that are supported have it.
    dialect.implicit_returning = True
    dialect.supports_native_enum = True
    dialect.supports_smallserial = True
    dialect.supports_sane_multi_rowcount = True
    dialect._backslash_escapes = False
    dialect._has_native_hstore = True
    return dialect


_dialect = get_dialect()


def create_engine(
    dsn: str | None = None,
    *,
    minsize: int = 1,
    maxsize: int = 10,
    dialect: Any = _dialect,
    timeout: float = TIMEOUT,
    pool_recycle: float = -1,
    **kwargs: Any,
) -> "_ContextManager[Engine]":
    """Make an engine: await it, or use it in `async with`, which closes the engine.

    dialect: a SQLAlchemy dialect of PostgreSQL by psycopg2, such as `get_dialect()` makes.

    Everything else is as for `aiopgx.create_pool()`.
    """
    coro = _create_engine(
        dsn=dsn,
        minsize=minsize,
        maxsize=maxsize,
        dialect=dialect,
        timeout=timeout,
        pool_recycle=pool_recycle,
        **kwargs,
    )
    return _ContextManager(coro, _close_engine)


async def _create_engine(
    dsn: str | None = None,
    *,
    minsize: int = 1,
    maxsize: int = 10,
    dialect: Any = _dialect,
    timeout: float = TIMEOUT,
    pool_recycle: float = -1,
    **kwargs: Any,
) -> "Engine":
    if kwargs.get("row_factory") is not None:
        raise TypeError("row_factory: the rows of aiopgx.sa are RowProxy objects")
    # looked up in the package, where programs put functions of their own in its place
    making = aiopgx.create_pool(
        dsn,
        minsize=minsize,
        maxsize=maxsize,
        timeout=timeout,
        pool_recycle=pool_recycle,
        **kwargs,
    )
    del dsn, kwargs  # the traceback of an error holds this frame
    pool = await making
    conn = await pool.acquire()
    try:
        return Engine(dialect, pool, conn.dsn)
    finally:
        await pool.release(conn)


async def _close_engine(engine: "Engine") -> None:
    engine.close()
    await engine.wait_closed()


async def _close_connection(conn: SAConnection) -> None:
    await conn.close()


class Engine:
    """A pool and a dialect; made by `create_engine()`.

    `async with engine` closes the engine at the end; `with (await engine) as conn` takes a
    connection for a block.
    """

    __slots__ = ("_dialect", "_dsn", "_loop", "_pool")

    def __init__(self, dialect: Any, pool: Any, dsn: str) -> None:
        self._dialect = dialect
        self._pool = pool
        self._dsn = dsn
        self._loop = get_running_loop()

    @property
    def dialect(self) -> Any:
        """The SQLAlchemy dialect."""
        return self._dialect

    @property
    def name(self) -> str:
        """The dialect's name."""
        name: str = self._dialect.name
        return name

    @property
    def driver(self) -> str:
        """The dialect's driver."""
        driver: str = self._dialect.driver
        return driver

    @property
    def dsn(self) -> str:
        """The connection string, without the password."""
        return self._dsn

    @property
    def timeout(self) -> float | None:
        """The pool's timeout in seconds."""
        timeout: float | None = self._pool.timeout
        return timeout

    @property
    def minsize(self) -> int:
        """The least number of connections."""
        size: int = self._pool.minsize
        return size

    @property
    def maxsize(self) -> int | None:
        """The greatest number of connections; None or 0 if there is no limit."""
        size: int | None = self._pool.maxsize
        return size

    @property
    def size(self) -> int:
        """The number of connections."""
        size: int = self._pool.size
        return size

    @property
    def freesize(self) -> int:
        """The number of connections that are not in use."""
        size: int = self._pool.freesize
        return size

    @property
    def closed(self) -> bool:
        """Whether `wait_closed()` has come to its end."""
        closed: bool = self._pool.closed
        return closed

    def close(self) -> None:
        """Give out no more connections; close what comes back."""
        self._pool.close()

    def terminate(self) -> None:
        """Close the engine, and at once the connections that are in use."""
        self._pool.terminate()

    async def wait_closed(self) -> None:
        """Close the free connections, and wait until all others have come back.

        Raises RuntimeError if `close()` was not called.
        """
        await self._pool.wait_closed()

    def get_stats(self) -> dict[str, int]:
        """Return the statistics of the pool, see `Pool.get_stats()`. New in aiopgx."""
        stats: dict[str, int] = self._pool.get_stats()
        return stats

    def pop_stats(self) -> dict[str, int]:
        """Return the statistics, and let the counters start again from 0. New in aiopgx."""
        stats: dict[str, int] = self._pool.pop_stats()
        return stats

    async def resize(self, minsize: int, maxsize: int) -> None:
        """Change the sizes of the pool, see `Pool.resize()`. New in aiopgx."""
        await self._pool.resize(minsize, maxsize)

    def acquire(self, *, timeout: float | None = None) -> _ContextManager[SAConnection]:
        """Get a connection: await it, or use it in `async with`, which closes it.

        timeout: seconds that it may take; the pool's if None. New in aiopgx.

        Raises what `Pool.acquire()` raises.
        """
        coro = self._acquire() if timeout is None else self._acquire(timeout=timeout)
        return _ContextManager[SAConnection](coro, _close_connection)

    async def _acquire(self, **kwargs: float) -> SAConnection:
        return SAConnection(await self._pool.acquire(**kwargs), self)

    def execute(
        self, query: Any, *multiparams: Any, **params: Any
    ) -> "_IterableContextManager[ResultProxy, RowProxy]":
        """Execute one statement, a transaction of its own, on any connection of the pool.

        `await` it for the result, `async with` it to close the result at the end, or `async for`
        its rows. The arguments are those of `SAConnection.execute()`. Statements of many tasks
        share connections: see `aiopgx.Pool.execute()`. New in aiopgx.
        """
        return _IterableContextManager(
            self._execute(query, multiparams, params), _close_result_proxy
        )

    async def _execute(self, query: Any, multiparams: Any, params: Any) -> ResultProxy:
        reader = SAConnection(None, self)
        many, text, parameters, result_map = reader._read(query, multiparams, params)
        if many:
            async with self.acquire() as conn:
                return await conn.execute(query, *multiparams, **params)
        cursor = await self._pool.execute(text, parameters)
        without_row_factory(cursor)
        return ResultProxy(reader, cursor, self._dialect, result_map)

    def release(self, conn: SAConnection) -> "asyncio.Future[None]":
        """Give the connection behind `conn` back to the pool, at the call.

        What is returned need not be awaited. Better is `conn.close()`, which rolls back first.
        """
        released: asyncio.Future[None] = self._pool.release(conn.connection)
        return released

    def __enter__(self) -> "Engine":
        raise RuntimeError('"await" should be used as context manager expression')

    def __exit__(self, *args: object) -> None:
        """Never called; there is no `with` statement without it."""

    def __await__(self) -> Generator[Any, Any, "_ConnectionContextManager"]:
        conn = yield from self._acquire().__await__()
        return _ConnectionContextManager(conn, self._loop)

    async def __aenter__(self) -> "Engine":
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self.close()
        await self.wait_closed()


_closing: set[asyncio.Task[None]] = set()


class _ConnectionContextManager:
    """What `await engine` gives: `with (await engine) as conn` closes the connection in the end."""

    __slots__ = ("_conn", "_loop")

    def __init__(self, conn: SAConnection, loop: asyncio.AbstractEventLoop) -> None:
        self._conn: Any = conn
        self._loop = loop

    def __enter__(self) -> SAConnection:
        return self._conn  # type: ignore[no-any-return]

    def __exit__(self, *args: object) -> None:
        task = asyncio.ensure_future(self._conn.close(), loop=self._loop)
        _closing.add(task)  # the loop itself would let it be collected
        task.add_done_callback(_closing.discard)
        self._conn = None
