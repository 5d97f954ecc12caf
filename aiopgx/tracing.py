"""Tracers: what the library tells of its work. New in aiopgx.

A tracer is called when an operation starts, and what it returns, if anything, when it has ended:

    def tracer(operation):
        def ended(error):
            print(operation.method, operation.duration, operation.rows, error)

        return ended

The log of slow statements and `echo="statements"` are tracers, too.
"""

import asyncio
import weakref
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from inspect import iscoroutinefunction
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeVar

from psycopg2.sql import SQL, Composable, Composed, Identifier, Placeholder

from .log import logger

if TYPE_CHECKING:
    from .connection import Connection
    from .pool import Pool

_T = TypeVar("_T")

STATEMENTS = "statements"

Kind = Literal["connect", "acquire", "use", "query"]
Ended = Callable[[BaseException | None], object]


class Server(NamedTuple):
    """Where a connection leads to; the host is a directory where it is a Unix socket."""

    host: str | None
    port: int | None
    database: str | None
    user: str | None


class Operation:
    """What a tracer is told of.

    kind: "query" is a statement, or several that one call executes; "connect" making a connection;
        "acquire" waiting for a connection of a pool; "use" from then on until it is given back.
    method: what the program called: "execute", "executemany", "callproc", "stream", "copy_records"
        ...; "fetch" of a server-side cursor; the kind, if it is no query.
    statement: the text with its placeholders, without parameters; None if it is no query.
    parameters: as the program gave them, None where they are an iterator. They may be secret.
    connection: the `Connection`; None of "acquire" and of `Pool.execute()`.
    pool: the `Pool` of "acquire" and "use", else None.
    server: a `Server`; None as long as it is not known which.
    duration: seconds, None until the operation has ended.
    rows: how many the statement gave or changed; None if that is not known, and until the end.
    status: the server's command tag, such as "INSERT 0 1", of the last statement; the same.
    """

    __slots__ = (
        "_pool",
        "connection",
        "duration",
        "kind",
        "method",
        "parameters",
        "rows",
        "server",
        "statement",
        "status",
    )

    def __init__(
        self,
        kind: Kind,
        method: str,
        connection: "Connection | None" = None,
        server: Server | None = None,
        statement: str | None = None,
        parameters: Any = None,
        pool: "Pool | None" = None,
    ) -> None:
        self.kind: Kind = kind
        self.method: str = method
        self.connection: Connection | None = connection
        self.server: Server | None = server
        self.statement: str | None = statement
        self.parameters: Any = parameters
        self.duration: float | None = None
        self.rows: int | None = None
        self.status: str | None = None
        # the pool holds those of "use": it must go when the program drops it
        self._pool = None if pool is None else weakref.ref(pool)

    @property
    def pool(self) -> "Pool | None":
        return None if self._pool is None else self._pool()

    def __repr__(self) -> str:
        """Without the parameters."""
        text = "" if self.statement is None else f" {self.statement!r}"
        took = "" if self.duration is None else f" {self.duration:.6f} s"
        return f"<Operation {self.method}{text}{took}>"


class Tracer(Protocol):
    """What `tracer=` takes: any function of one argument.

    It is called in the task, and so in the context (`contextvars`), that starts the operation. It
    returns a function, or None. That is called once, when the operation has ended, with the
    exception or None; also with `asyncio.TimeoutError` and `asyncio.CancelledError`. Neither may
    wait. What they raise goes to the event loop's exception handler, and changes nothing else.
    """

    def __call__(self, operation: Operation, /) -> Ended | None: ...


class Trace:
    """An operation under way, for the time of a `with` block, or until end()."""

    __slots__ = ("_began", "_loop", "_told", "kept", "operation")

    def __init__(
        self, tracers: Sequence[Tracer], loop: asyncio.AbstractEventLoop, operation: Operation
    ) -> None:
        self.operation: Operation = operation
        self.kept: bool = False  # the block does not end it, unless by an exception
        self._loop = loop
        self._told: list[Ended] = []
        for tracer in tracers:
            ended = self._call(tracer, operation)
            if ended is not None:
                self._told.append(ended)
        self._began = perf_counter()

    def _call(self, function: Any, argument: Any) -> Any:
        try:
            return function(argument)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._loop.call_exception_handler(
                {"message": f"a tracer has failed: {function!r}", "exception": error}
            )
            return None

    def answered(self, source: Any) -> None:
        """Note what the server has said. source: a cursor, or a result."""
        with suppress(Exception):  # of cursor classes of the program's
            count = source.rowcount
            self.operation.rows = count if count >= 0 else None
            self.operation.status = source.statusmessage or None

    def end(self, error: BaseException | None = None) -> None:
        """Tell the tracers; only the first call counts."""
        if self.operation.duration is not None:
            return
        self.operation.duration = perf_counter() - self._began
        for ended in self._told:
            self._call(ended, error)

    def __enter__(self) -> "Trace":
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if exc is not None or not self.kept:
            self.end(exc)


class Tracing:
    """The tracers of a connection, or of a pool."""

    def __init__(
        self, tracers: list[Tracer], loop: asyncio.AbstractEventLoop, echoes: bool = False
    ) -> None:
        self.echoes = echoes
        self._tracers = tracers
        self._loop = loop
        self.server: Server | None = None  # of a connection
        self._uses: dict[Any, Trace] = {}  # of a pool: by connection

    def query(
        self,
        method: str,
        connection: "Connection | None",
        context: Any,
        statement: Any,
        parameters: Any,
    ) -> Trace:
        """Start to execute something. context: a psycopg2 connection or cursor, to quote with."""
        operation = Operation(
            "query",
            method,
            connection,
            self.server,
            _text_of(statement, context),
            None if _is_consumed(parameters) else parameters,
        )
        return Trace(self._tracers, self._loop, operation)

    async def connect(self, connection: "Connection", connecting: Awaitable[_T]) -> _T:
        """Await a connection's dialogue."""
        operation = Operation("connect", "connect", connection, _server_of(connection))
        with Trace(self._tracers, self._loop, operation):
            result = await connecting
            operation.server = self.server = _server_of(connection)
            return result

    async def acquire(self, pool: "Pool", acquiring: "Awaitable[Connection]") -> "Connection":
        """Await a connection of a pool, whose use begins then."""
        with Trace(self._tracers, self._loop, Operation("acquire", "acquire", pool=pool)):
            connection = await acquiring
        server = getattr(getattr(connection, "_tracing", None), "server", None)
        operation = Operation("use", "use", connection, server, pool=pool)
        self._uses[connection] = Trace(self._tracers, self._loop, operation)
        return connection

    async def execute(self, executing: Awaitable[_T], statement: Any, parameters: Any) -> _T:
        """Await a statement of `Pool.execute()`, on whichever connection."""
        with self.query("execute", None, None, statement, parameters) as trace:
            cursor = await executing
            trace.answered(cursor)
            return cursor

    def release(self, connection: Any) -> None:
        """End the use of a connection, if it is in use."""
        trace = self._uses.pop(connection, None)
        if trace is not None:
            trace.end()


def tracing_of(
    loop: asyncio.AbstractEventLoop,
    tracer: Any,
    slow_query: float | None = None,
    echo: bool | str = False,
) -> Tracing | None:
    """The tracers that these arguments of `connect()` ask for; None if they ask for none."""
    tracers: list[Tracer] = []
    if echo == STATEMENTS:
        tracers.append(log_statement)
    elif isinstance(echo, str) and echo.lower().startswith("statement"):
        # any other text is true, as in aiopg, but this one would log the parameters
        raise ValueError(f'echo must be True, False or "statements", not {echo!r}')
    if slow_query is not None:
        tracers.append(SlowQueryLog(slow_query))
    if tracer is not None:
        given = tracer if isinstance(tracer, list | tuple) else [tracer]
        for each in given:
            if not callable(each) or iscoroutinefunction(each):
                raise TypeError(f"tracer must be a function, or a list of them, not {each!r}")
        tracers.extend(given)
    return Tracing(tracers, loop, echo == STATEMENTS) if tracers else None


def log_statement(operation: Operation) -> None:
    """A tracer that logs statements at level INFO, without their parameters."""
    if operation.kind == "query":
        logger.info("%s", operation.statement)


class SlowQueryLog:
    """A tracer that logs what takes long at level WARNING, without parameters.

    seconds: how long that is. Of streams and COPY the program's own share counts, too.
    """

    def __init__(self, seconds: float) -> None:
        if not isinstance(seconds, int | float) or isinstance(seconds, bool):
            raise TypeError(f"slow_query must be a number of seconds or None, not {seconds!r}")
        if not seconds >= 0:
            raise ValueError(f"slow_query must not be negative, but is {seconds!r}")
        self.seconds = seconds

    def __call__(self, operation: Operation) -> Ended | None:
        if operation.kind != "query":
            return None

        def ended(error: BaseException | None) -> None:
            assert operation.duration is not None
            if operation.duration < self.seconds:
                return
            # not the error's text: the server's often have values in them
            outcome = "" if error is None else f", {type(error).__name__}"
            if error is None and operation.rows is not None:
                outcome = f", {operation.rows} rows"
            logger.warning(
                "slow query: %.3f s%s: %s", operation.duration, outcome, operation.statement
            )

        return ended


def call_of(procname: Any, parameters: Any) -> str:
    """What callproc() sends, with placeholders."""
    count = len(parameters) if hasattr(parameters, "__len__") else 0
    return f"SELECT * FROM {procname}({', '.join(['%s'] * count)})"


def _is_consumed(parameters: Any) -> bool:
    """Whether a look at them would take them away from who executes."""
    return hasattr(parameters, "__next__") or hasattr(parameters, "__aiter__")


def _text_of(statement: Any, context: Any) -> str | None:
    """A statement as text, without values."""
    if isinstance(statement, str):
        return statement
    if isinstance(statement, bytes):
        return statement.decode("utf-8", "replace")
    with suppress(Exception):  # execute() will tell
        return _written(statement, context)
    return None


def _written(part: Any, context: Any) -> str | None:
    """What `as_string()` gives, with a placeholder for each literal."""
    if isinstance(part, Composed):
        return "".join(_written(each, context) or "" for each in part.seq)
    if isinstance(part, SQL | Identifier | Placeholder):
        text: str = part.as_string(context)
        return text
    return "%s" if isinstance(part, Composable) else None


def _server_of(connection: Any) -> Server | None:
    """Asked of psycopg2, which knows nothing of connections that are closed or not yet begun."""
    with suppress(Exception):
        info = connection._wire.raw.info
        if info.host is not None:
            return Server(info.host, info.port, info.dbname, info.user)
    return None
