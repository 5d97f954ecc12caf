"""One statement for many parameter sets: executemany(), execute_batch(), execute_values().

What travels, and how, is `_batch`'s. Here is who waits for it, and what becomes of the transaction.
"""

import asyncio
import operator
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import psycopg2
from psycopg2.extensions import TRANSACTION_STATUS_IDLE as IDLE
from psycopg2.extensions import TRANSACTION_STATUS_INTRANS as INTRANS
from psycopg2.extensions import encodings
from psycopg2.extras import _paginate, _split_sql  # type: ignore[attr-defined, unused-ignore]
from psycopg2.sql import Composable

from ._batch import Batch, literal
from ._nul import refuse_nul, written
from ._rows import SHAPE_FOREIGN, set_rowcount, set_total
from .utils import trim

if TYPE_CHECKING:
    from .cursor import Cursor

FIRST = 3  # sets that go alone: most mistakes show there, and then no more are taken
FEW = 16  # sets that go at once, if it is known that there are no more
MOST = 500  # sets that travel together


class _Many:
    """An executemany() under way: takes parameter sets, sends them, waits for what is in flight."""

    def __init__(self, cursor: "Cursor", operation: Any, rows: Any, timeout: float | None) -> None:
        self.cursor, self.operation = cursor, operation
        self.timeout = cursor._timeout if timeout is None else timeout
        wire, session = cursor._wire, cursor._session
        status = wire.status
        self.own = session is None and status == IDLE
        opens = session is not None and session.opening is not None
        native = cursor._shape != SHAPE_FOREIGN and (self.own or opens or status == INTRANS)
        if session is not None and not opens:
            native = False  # psycopg2's autocommit: each set is a transaction
        self.iterator: Iterator[Any] | None = None
        self.source: AsyncIterator[Any] | None = None
        if hasattr(rows, "__aiter__") and not hasattr(rows, "__iter__"):
            self.source = aiter(rows)
        else:
            self.iterator = iter(rows)
        self.limit = FIRST
        if hasattr(rows, "__len__") and len(rows) <= FEW:
            self.limit = FEW + 1  # to hear of the end
        self.batch = Batch(
            wire,
            cursor._psycopg,
            operation,
            self.timeout,
            session,
            self.own,
            native,
            cursor._echo,
        )
        self.pending: deque[asyncio.Future[list[Any]]] = deque()
        self.busy_since = 0.0

    async def run(self) -> None:
        """Execute everything; raises the first error, with nothing in flight unless cancelled."""
        batch, failure = self.batch, None
        while not batch.exhausted:
            try:
                await self.fill()
            except Exception as error:  # what was taken before has its turn first
                failure = error
            try:
                if batch.filled:
                    await self.send()
                if batch.odd:
                    await self.execute_odd()
                if failure is not None:
                    await self.drain()
                    raise failure
            finally:
                failure = None
        await self.drain()
        if self.own and self.cursor._wire.status != IDLE:
            await self.cursor._command("COMMIT")

    async def fill(self) -> None:
        batch = self.batch
        if self.iterator is not None:
            batch.fill(self.iterator, self.limit)
            return
        assert self.source is not None
        while batch.wants(self.limit):
            try:
                parameters = await anext(self.source)
            except StopAsyncIteration:
                batch.end()
                return
            batch.take(parameters)

    async def send(self) -> None:
        """Send what was taken. Two of them are in flight, the first is alone."""
        batch = self.batch
        if not self.pending:
            self.check()
            self.busy_since = self.cursor._wire.loop.time()
        sent = batch.put(batch.exhausted and not batch.odd)
        self.pending.extend(sent)
        # nothing is sent behind a trial, which may fail
        allowed = 1 if batch.executed and len(sent) == 1 else 0
        while len(self.pending) > allowed:
            await self.receive()

    def check(self) -> None:
        """Others may use the connection while nothing is in flight; not while we do."""
        refusal = self.cursor._wire.refusal("cursor.executemany", self.cursor._session)
        if refusal is not None:
            raise refusal

    async def receive(self) -> None:
        """Wait for the first of what is in flight."""
        waiter = self.pending.popleft()
        outcome: Any = None
        try:
            outcome = (await waiter).pop()
            if isinstance(outcome, BaseException):
                await self.let_pass()
                raise outcome
            self.measure(outcome)
        except BaseException as exc:
            trim(exc)
            self.cursor._failed(exc, waiter)
            raise
        finally:
            del waiter, outcome  # an exception must not hold itself, by way of this frame

    async def let_pass(self) -> None:
        """After an error: what is behind it fails, too."""
        while self.pending:
            await self.pending[0]
            self.pending.popleft()

    def measure(self, count: int) -> None:
        """Let no more travel together than are executed in a quarter of the timeout."""
        now = self.cursor._wire.loop.time()
        if count and self.timeout is not None:
            seconds = max(now - self.busy_since, 1e-6)
            self.limit = max(1, min(MOST, int(count * self.timeout / 4 / seconds)))
        elif count:
            self.limit = MOST
        self.busy_since = now

    async def drain(self) -> None:
        while self.pending:
            await self.receive()

    async def execute_odd(self) -> None:
        """Execute a set that is none for the pipeline."""
        cursor = self.cursor
        await self.drain()
        if self.own and cursor._wire.status == IDLE:
            await cursor._command("BEGIN")
        self.batch.show(False)  # it may be refused
        try:
            await cursor.execute(self.operation, self.batch.parameters, timeout=self.timeout)
        except Exception as error:
            _add_index(error, self.batch.count)
            raise
        self.batch.note_odd(cursor.rowcount)

    async def clean_up(self, error: BaseException) -> BaseException:
        """Leave nothing behind; what is to be raised for `error`."""
        cursor, batch = self.cursor, self.batch
        if isinstance(error, GeneratorExit):
            if self.pending or (self.own and cursor._wire.status != IDLE):
                cursor._conn.close()  # nothing can be awaited any more
            return error
        if self.pending and not cursor._wire.closed:
            for waiter in self.pending:
                if cursor._wire.abandon(waiter):
                    cursor._conn.close()
                    break
        # a COMMIT that failed has ended the transaction itself
        if self.own and not cursor._conn.closed and cursor._wire.status != IDLE:
            await cursor._command("ROLLBACK")
            if batch.suspect is not None and isinstance(error, psycopg2.Error):
                error = await self.told_by_text(batch.suspect) or error
        if batch.failed_at is not None:
            _add_index(error, batch.failed_at)
        return error

    async def told_by_text(self, text: bytes) -> BaseException | None:
        """psycopg2's error for a set that was refused before it was executed, if there is one."""
        cursor = self.cursor
        await cursor._command("BEGIN")
        told = None
        try:
            await cursor.execute(text)
        except psycopg2.Error as error:
            told = error.with_traceback(None)
        try:
            await cursor._command("ROLLBACK")
            return told
        finally:
            told = None

    def finish(self) -> None:
        cursor, batch = self.cursor, self.batch
        if not batch.executed:
            set_rowcount(cursor._psycopg, 0)
        elif not batch.show(True):
            set_total(cursor._psycopg, cursor._result, batch.total)
        cursor._result = cursor._from_psycopg()


def _add_index(error: BaseException, index: int) -> None:
    """Say which set it was. Python 3.10 knows no notes: there it is just the attribute."""
    note = f"executemany: the parameters at index {index}"
    if hasattr(error, "add_note"):
        error.add_note(note)
    else:
        error.__notes__ = [note]


async def execute_many(
    cursor: "Cursor",
    operation: Any,
    rows: Iterable[Any] | AsyncIterable[Any],
    timeout: float | None,
) -> None:
    """What Cursor.executemany() says."""
    if isinstance(operation, Composable):
        operation = written(operation, cursor._psycopg)
    if cursor._wire.shared is not None and cursor._session is None:
        await cursor._wire.shared._arrivals()
    cursor._hand_over()
    set_rowcount(cursor._psycopg, -1)
    many = _Many(cursor, operation, rows, timeout)
    pipelined, cursor._pipelined = cursor._pipelined, False  # its executions are waited for
    failure: BaseException | None = None
    try:
        await many.run()
    except BaseException as error:
        failure = error
    try:
        if failure is not None:
            failure = await many.clean_up(failure)
            raise failure
    finally:
        del failure
        cursor._pipelined = pipelined
    many.finish()


# --- pages, as psycopg2.extras makes them ---------------------------------------------------------


async def _pages(argslist: Any, page_size: int) -> AsyncIterator[list[Any]]:
    """Lists of at most `page_size` items."""
    if hasattr(argslist, "__iter__") or not hasattr(argslist, "__aiter__"):
        for page in _paginate(argslist, page_size=page_size):
            yield page
        return
    size = operator.index(page_size)
    if size < 1:
        raise ValueError(f"page_size must be at least 1, not {page_size}")
    page = []
    async for args in argslist:
        page.append(args)
        if len(page) == size:
            yield page
            page = []
    if page:
        yield page


async def execute_batch(cursor: "Cursor", sql: Any, argslist: Any, page_size: int) -> None:
    """What Cursor.execute_batch() says."""
    refuse_nul(sql)
    wire, impl = cursor._wire, cursor._psycopg
    async for page in _pages(argslist, page_size):
        await cursor.execute(b";".join([literal(wire, impl, sql, args) for args in page]))


async def execute_values(
    cursor: "Cursor", sql: Any, argslist: Any, template: Any, page_size: int, fetch: bool
) -> list[Any] | None:
    """What Cursor.execute_values() says."""
    wire, impl = cursor._wire, cursor._psycopg
    if isinstance(sql, Composable):
        refuse_nul(sql)
        sql = sql.as_string(impl)
    if not isinstance(sql, bytes):
        sql = sql.encode(encodings[impl.connection.encoding])
    before, after = (b"".join(parts) for parts in _split_sql(sql))
    result: list[Any] | None = [] if fetch else None
    async for page in _pages(argslist, page_size):
        if template is None:
            template = "(" + ",".join(["%s"] * len(page[0])) + ")"
        values = b",".join([literal(wire, impl, template, args) for args in page])
        await cursor.execute(before + values + after)
        if result is not None:
            result.extend(await cursor.fetchall())
    return result
