"""The cursors that SQLAlchemy sees, with psycopg2's methods."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from sqlalchemy.connectors.asyncio import AsyncAdapt_dbapi_cursor
from sqlalchemy.util.concurrency import await_only, in_greenlet

from .._rows import Result
from ..cursor import Cursor

if TYPE_CHECKING:
    from .connection import AsyncAdapt_aiopgx_connection


class Description(Sequence[Any]):
    """`Result.description`, made when it is looked at.

    SQLAlchemy asks for it after each statement, and looks at it once a statement that it caches.
    """

    __slots__ = ("_result",)

    def __init__(self, result: Result) -> None:
        self._result = result

    def __getitem__(self, index: Any) -> Any:
        return self._columns()[index]

    def __len__(self) -> int:
        return len(self._columns())

    def __iter__(self) -> Iterator[Any]:
        return iter(self._columns())

    def __eq__(self, other: object) -> bool:
        return self._columns() == (other._columns() if isinstance(other, Description) else other)

    __hash__: ClassVar[None]  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self._columns())

    def _columns(self) -> tuple[Any, ...]:
        return self._result.description or ()


class AsyncAdapt_aiopgx_cursor(AsyncAdapt_dbapi_cursor):
    """A cursor on the client. A result is here when execute() returns: fetching waits for nothing.

    `_cursor` is the `aiopgx.Cursor`, `_cursor.raw` the psycopg2 cursor.
    """

    __slots__ = ()

    _awaitable_cursor_close = False
    _adapt_connection: Any
    _connection: Any
    _cursor: Any

    def __init__(
        self, adapt_connection: "AsyncAdapt_aiopgx_connection", cursor_factory: Any = None
    ) -> None:
        self._adapt_connection = adapt_connection
        self._connection = connection = adapt_connection._connection
        raw = connection._conn
        impl = raw.cursor() if cursor_factory is None else raw.cursor(cursor_factory=cursor_factory)
        self._cursor = Cursor(connection, impl, connection._timeout, connection._echo)
        self._cursor._session = adapt_connection._session

    # Execution

    def execute(self, operation: Any, parameters: Any = None) -> None:
        self._adapt_connection._execute(self._cursor, operation, parameters)

    def executemany(self, operation: Any, seq_of_parameters: Iterable[Any]) -> None:
        """Execute a statement for each of the parameter sets, in order; `rowcount` is the sum.

        In autocommit each is a transaction of its own, as on psycopg2.
        """
        self._adapt_connection._execute_many(self._cursor, operation, seq_of_parameters)

    def callproc(self, procname: str, parameters: Any = None) -> Any:
        """Call a function of the database; gives the parameters back."""
        start = self._cursor._psycopg.callproc
        self._adapt_connection._execute(self._cursor, procname, parameters, start)
        return parameters

    def mogrify(self, operation: Any, parameters: Any = None) -> bytes:
        """Return the statement as execute() would send it, with its parameters."""
        statement: bytes = self._cursor.mogrify(operation, parameters)
        return statement

    def setinputsizes(self, *inputsizes: Any) -> None:
        """Do nothing, as DB-API allows."""

    def nextset(self) -> None:
        """Raise `psycopg2.NotSupportedError`: PostgreSQL has no such thing."""
        self._cursor._psycopg.nextset()

    # Rows

    def fetchone(self) -> Any:
        return self._cursor._result.fetchone()

    def fetchmany(self, size: int | None = None) -> Any:
        cursor = self._cursor
        return cursor._result.fetchmany(cursor.arraysize if size is None else size)

    def fetchall(self) -> Any:
        return self._cursor._result.fetchall()

    def scroll(self, value: int, mode: str = "relative") -> None:
        self._cursor._result.scroll(value, mode)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.fetchone, None)

    def close(self) -> None:
        cursor = self._cursor
        cursor.close()
        if type(cursor._result) is Result:
            cursor._result.outlives = False
        else:
            cursor._result = cursor._psycopg

    # Attributes

    @property
    def connection(self) -> "AsyncAdapt_aiopgx_connection":
        connection: AsyncAdapt_aiopgx_connection = self._adapt_connection
        return connection

    @property
    def description(self) -> Any:
        result = self._cursor._result
        if type(result) is not Result:
            return result.description
        return Description(result) if result.returns_rows else None

    @property
    def rowcount(self) -> int:
        count: int = self._cursor._result.rowcount
        return count

    @property
    def rownumber(self) -> int:
        """The index of the row that is fetched next."""
        number: int = self._cursor.rownumber
        return number

    @property
    def query(self) -> bytes | None:
        """The last statement as it was sent."""
        query: bytes | None = self._cursor.query
        return query

    @property
    def statusmessage(self) -> str | None:
        """The command tag of the last statement."""
        message: str | None = self._cursor.statusmessage
        return message

    @property
    def closed(self) -> bool:
        closed: bool = self._cursor.closed
        return closed

    @property
    def name(self) -> str | None:
        """The name of a server-side cursor."""
        name: str | None = self._cursor.name
        return name


class AsyncAdapt_aiopgx_ss_cursor(AsyncAdapt_aiopgx_cursor):
    """A server-side cursor: rows are fetched from the server when they are asked for.

    `_cursor` is the `aiopgx.named.NamedCursor`.
    """

    __slots__ = ()

    server_side = True

    def __init__(
        self,
        adapt_connection: "AsyncAdapt_aiopgx_connection",
        name: str,
        cursor_factory: Any,
        scrollable: bool | None,
        withhold: bool,
    ) -> None:
        self._adapt_connection = adapt_connection
        self._connection = connection = adapt_connection._connection
        self._cursor = await_only(connection._cursor(name, cursor_factory, scrollable, withhold))
        self._cursor._session = adapt_connection._session

    # Execution

    def execute(self, operation: Any, parameters: Any = None) -> None:
        self._adapt_connection._begin()
        await_only(self._cursor.execute(operation, parameters))

    def executemany(self, operation: Any, seq_of_parameters: Iterable[Any]) -> None:
        """Raise `psycopg2.ProgrammingError`, as callproc() does."""
        await_only(self._cursor.executemany(operation, seq_of_parameters))

    def callproc(self, procname: str, parameters: Any = None) -> Any:
        await_only(self._cursor.callproc(procname, parameters))

    # Rows

    def fetchone(self) -> Any:
        return await_only(self._cursor.fetchone())

    def fetchmany(self, size: int | None = None) -> Any:
        return await_only(self._cursor.fetchmany(size))

    def fetchall(self) -> Any:
        return await_only(self._cursor.fetchall())

    def scroll(self, value: int, mode: str = "relative") -> None:
        await_only(self._cursor.scroll(value, mode))

    def __iter__(self) -> Iterator[Any]:
        """Fetches `itersize` rows at a time."""
        while rows := self.fetchmany(self.itersize):
            yield from rows

    def close(self) -> None:
        """Free the cursor on the server; from outside of SQLAlchemy's calls, in the background."""
        closing = self._cursor.close()
        if not closing.done() and in_greenlet():
            await_only(closing)

    # Attributes

    @property
    def rowcount(self) -> int:
        count: int = self._cursor.rowcount
        return count

    @property
    def itersize(self) -> int:
        """The number of rows that iteration fetches at a time, 2000 at first."""
        size: int = self._cursor.itersize
        return size

    @itersize.setter
    def itersize(self, value: int) -> None:
        self._cursor.itersize = value
