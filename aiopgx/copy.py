"""COPY between a table and the program's files: what `Cursor.copy_from()` and its like do.

The server's side is a `Copy`; here are the statements as psycopg2 writes them, and the files, which
may be psycopg2's (with read() or write()) or asynchronous, iterables of chunks, or callables.
"""

import asyncio
import codecs
import inspect
import io
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

import psycopg2
from psycopg2.extensions import TRANSACTION_STATUS_INERROR, QuotedString, encodings

from ._copy import COPY_FROM, COPY_TO, Copy, look_up, open_copy
from ._encode import Encoder
from ._nul import identifier, refuse_nul
from ._rows import SHAPE_FOREIGN, SHAPE_TUPLE, Result, set_rowcount
from ._structs import genuine_cursor
from .log import logger
from .utils import trim

if TYPE_CHECKING:
    from .cursor import Cursor

PIECE = 1 << 17  # bytes of a chunk that are given to libpq at a time
FEW = 1 << 20  # bytes: a COPY TO that nobody wants any more may end by itself within these
SOON = 0.05  # seconds, the same


# psycopg2 checks the arguments of its methods before it says that they are not for asynchronous
# connections.
_checks = suppress(psycopg2.ProgrammingError)


async def copy_from(
    cursor: "Cursor",
    file: Any,
    table: str,
    sep: str,
    null: str,
    size: int,
    columns: Iterable[str] | None,
    timeout: float | None,
) -> None:
    """What `Cursor.copy_from()` does."""
    with _checks:
        stand_in = _Readable if _gives_chunks(file) else file
        genuine_cursor(cursor._psycopg).copy_from(stand_in, table, sep, null, size)
    sql = _statement(cursor, "FROM stdin", table, sep, null, columns)
    await perform(cursor, "copy_from", sql, file, size, timeout)


async def copy_to(
    cursor: "Cursor",
    file: Any,
    table: str,
    sep: str,
    null: str,
    columns: Iterable[str] | None,
    timeout: float | None,
) -> None:
    """What `Cursor.copy_to()` does."""
    with _checks:
        stand_in = _Writable if callable(file) else file
        genuine_cursor(cursor._psycopg).copy_to(stand_in, table, sep, null)
    sql = _statement(cursor, "TO stdout", table, sep, null, columns)
    await perform(cursor, "copy_to", sql, file, 0, timeout)


async def copy_expert(
    cursor: "Cursor", sql: Any, file: Any, size: int, timeout: float | None
) -> None:
    """What `Cursor.copy_expert()` does."""
    refuse_nul(sql)
    with _checks:
        genuine_cursor(cursor._psycopg).copy_expert(sql, _Readable, size)
    text = cursor._psycopg.mogrify(sql)
    if not (
        hasattr(file, "read") or hasattr(file, "write") or callable(file) or _gives_chunks(file)
    ):
        raise TypeError(
            "file must be a readable file-like object for COPY FROM; a writable file-like "
            "object for COPY TO."
        )
    await perform(cursor, "copy_expert", text, file, size, timeout)


class _Readable:
    """Stands for what is no file, where psycopg2 looks for one."""

    read = None


class _Writable:
    write = None


def _gives_chunks(file: Any) -> bool:
    """Whether it is an (async) iterable of chunks. A str or bytes is a mistake."""
    if hasattr(file, "read") or isinstance(file, str | bytes | bytearray | memoryview):
        return False
    return hasattr(file, "__aiter__") or hasattr(file, "__iter__")


def _statement(
    cursor: "Cursor", to: str, table: str, sep: str, null: str, columns: Iterable[str] | None
) -> bytes:
    """The statement as psycopg2 writes it, but in the client's encoding."""
    raw = cursor._wire.raw
    names = ""
    if columns is not None:
        # psycopg2 forgets the first parenthesis if there are none
        names = "(" * bool(quoted := [identifier(name, raw) for name in columns])
        names += ",".join(quoted) + ")"
    text = f"COPY {identifier(table, raw)}{names} {to} WITH DELIMITER AS "
    encode = codecs.getencoder(encodings[raw.encoding])
    return b"%b%b NULL AS %b" % (encode(text)[0], _quoted(sep, raw), _quoted(null, raw))


def _quoted(text: str, raw: Any) -> bytes:
    literal = QuotedString(text)
    literal.prepare(raw)
    quoted: bytes = literal.getquoted()
    return quoted


async def perform(
    cursor: "Cursor", caller: str, sql: bytes, file: Any, size: int, timeout: float | None
) -> None:
    """Execute a statement, and let the data flow if it is a COPY.

    An exception of the program's own code ends the COPY, leaves the connection usable, and is
    raised.
    """
    codec = codecs.lookup(encodings[cursor._wire.raw.encoding])

    async def move(request: Copy) -> None:
        if request.direction == COPY_FROM:
            await _send(request, file, size, codec.encode)
        else:
            await _receive(request, file, codec.decode)

    await converse(cursor, caller, sql, move, timeout)


async def converse(
    cursor: "Cursor",
    caller: str,
    sql: bytes,
    move: Callable[[Copy], Awaitable[None]],
    timeout: float | None,
) -> None:
    """The same, with `move` to let the data flow."""
    wire = cursor._wire
    refusal = wire.refusal(f"cursor.{caller}", cursor._session)
    if refusal is not None:
        raise refusal
    if cursor._echo:
        logger.info(sql.decode("utf-8", "replace"))
    if timeout is None:
        timeout = cursor._timeout
    shape = SHAPE_TUPLE if cursor._shape == SHAPE_FOREIGN else cursor._shape
    waiter = outcome = failure = None
    try:
        request = open_copy(wire, cursor._psycopg, sql, shape, timeout)
        waiter = request.waiter
        while not (request.direction or request.over):
            await request.changed()
        try:
            if request.direction:
                with _Interruption(waiter):
                    await move(request)
        except Exception as error:
            failure = error
            request.give_up(_reason(error))
            await _stop(request, wire.loop)
        outcome = (await waiter).pop()
        cursor._result = cursor._from_psycopg()
        if failure is not None:
            request.failed()
            if request.direction == COPY_TO and wire.status == TRANSACTION_STATUS_INERROR:
                wire.unseen = outcome  # it is not raised here
        if isinstance(outcome, Result):  # no COPY at all
            cursor._result = outcome
            if cursor._shape == SHAPE_FOREIGN:
                cursor._hand_over()
        elif outcome is not None and failure is None:
            raise outcome
    except BaseException as exc:
        trim(exc)
        if waiter is not None:
            cursor._failed(exc, waiter)
        raise
    finally:
        del waiter, outcome  # an exception must not hold itself, by way of this frame
    try:
        if failure is not None:
            raise failure.with_traceback(_of_the_program(failure.__traceback__))
    finally:
        del failure  # as above


def _of_the_program(entry: TracebackType | None) -> TracebackType | None:
    """The part of a traceback below this file."""
    while entry is not None and entry.tb_frame.f_globals.get("__name__", "").startswith("aiopgx."):
        entry = entry.tb_next
    return entry


async def _stop(request: Copy, loop: asyncio.AbstractEventLoop) -> None:
    """Have the server end a COPY TO whose rows nobody wants, if its end is not near."""
    if request.direction != COPY_TO:
        return
    end = 0.0 if request.in_transaction else loop.time() + SOON
    while not request.over and request.discarded < FEW and (left := end - loop.time()) > 0:
        await asyncio.wait([request.changed()], timeout=left)
    request.stop()


def _reason(error: Exception) -> bytes:
    """What the server is told, in psycopg2's words."""
    text = f"error in .read() call: {type(error).__name__} {error}"
    return text.encode("ascii", "backslashreplace").replace(b"\0", b"")[:1000]


class _Interruption:
    """Cancels what the program's code waits for, once the COPY has failed: nobody needs it."""

    def __init__(self, waiter: "asyncio.Future[list[Any]]") -> None:
        self._waiter = waiter
        self._task = asyncio.current_task()
        self._left = False
        self._cancelled = False

    def __enter__(self) -> None:
        self._waiter.add_done_callback(self._interrupt)

    def _interrupt(self, waiter: "asyncio.Future[list[Any]]") -> None:
        if self._left or self._task is None or waiter.cancelled():
            return
        if isinstance(waiter.result()[0], BaseException):
            self._cancelled = True
            self._task.cancel()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> bool:
        self._waiter.remove_done_callback(self._interrupt)
        self._left = True  # should it be on its way already
        if not self._cancelled:
            return False
        others = 0
        if sys.version_info >= (3, 11) and self._task is not None:
            others = self._task.uncancel()
        return others == 0 and exc_type is asyncio.CancelledError


# COPY FROM


async def _send(
    request: Copy, file: Any, size: int, encode: Callable[[str], tuple[bytes, int]]
) -> None:
    async with aclosing(_chunks(file, size)) as chunks:  # type: ignore[type-var]
        async for chunk in chunks:
            data = encode(chunk)[0] if isinstance(chunk, str) else _bytes(chunk)
            for start in range(0, len(data), PIECE):
                if not request.put(data if len(data) <= PIECE else data[start : start + PIECE]):
                    await request.room()
            if request.over:
                return
    request.end()


async def _chunks(file: Any, size: int) -> AsyncIterator[Any]:
    """What a file gives until it gives nothing; or the items of an iterable."""
    if _gives_chunks(file):
        if hasattr(file, "__aiter__"):
            async for chunk in file:
                yield chunk
        else:
            for chunk in file:
                yield chunk
        return
    read = file.read
    while True:
        chunk = read(size)
        if inspect.isawaitable(chunk):
            chunk = await chunk
        if isinstance(chunk, str | bytes | bytearray | memoryview) and not len(chunk):
            return
        yield chunk


def _bytes(chunk: Any) -> bytes:
    if isinstance(chunk, bytes | bytearray | memoryview):
        return bytes(chunk)
    raise TypeError(f"COPY FROM takes str or bytes from the file, not {type(chunk).__name__}")


# COPY TO


async def _receive(request: Copy, file: Any, decode: Callable[[bytes], tuple[str, int]]) -> None:
    write = file if callable(file) and not hasattr(file, "write") else file.write
    text, whole = _is_text(file), _takes_many(file, write)
    while True:
        rows = request.fetch()
        if not rows:
            if request.over:
                return
            await request.changed()
            continue
        for data in [b"".join(rows)] if whole else rows:
            written = write(decode(data)[0] if text else data)
            if inspect.isawaitable(written):
                await written


def _is_text(file: Any) -> bool:
    """Whether a file takes str. psycopg2 asks the class alone; wrappers have the `encoding`."""
    return isinstance(file, io.TextIOBase) or isinstance(getattr(file, "encoding", None), str)


def _takes_many(file: Any, write: Any) -> bool:
    """Whether rows may be written together. What is no known file gets them one by one, as
    from psycopg2."""
    return isinstance(file, io.IOBase) or inspect.iscoroutinefunction(write)


# Records

Progress = Callable[[int, int], object]


async def copy_records(
    cursor: "Cursor",
    table: str,
    records: Any,
    columns: Iterable[str] | None,
    schema_name: str | None,
    timeout: float | None,
    progress: Progress | None,
) -> None:
    """What `Cursor.copy_records()` does."""
    if not (hasattr(records, "__aiter__") or hasattr(records, "__iter__")):
        raise TypeError(
            f"records must be an iterable or asynchronous iterable, not {type(records).__name__}"
        )
    if isinstance(columns, str | bytes):
        raise TypeError(f"columns must be a sequence of names, not {columns!r}")
    if not isinstance(table, str):
        raise TypeError(f"the name of the table must be a str, not {table!r}")
    timeout = cursor._timeout if timeout is None else timeout
    loop = cursor._wire.loop
    began = loop.time()
    raw = cursor._wire.raw
    name = identifier(table, raw)
    if schema_name is not None:
        name = f"{identifier(schema_name, raw)}.{name}"
    types = await _types(cursor, name, timeout)
    cursor._hand_over()
    set_rowcount(cursor._psycopg, -1)
    names = list(types) if columns is None else list(columns)
    encoder = Encoder(raw, names, [types.get(column, (0, "")) for column in names])
    source = _Records(records)
    encoder.begin(await source.first())

    async def move(request: Copy) -> None:
        await _send_records(request, encoder, source, progress)

    quoted = ", ".join(identifier(column, raw) for column in names)
    sql = f"COPY {name} ({quoted}) FROM STDIN" + " WITH (FORMAT binary)" * encoder.binary
    encode = codecs.getencoder(encodings[raw.encoding])
    left = None if timeout is None else began + timeout - loop.time()
    await converse(cursor, "copy_records", encode(sql)[0], move, left)


async def _types(cursor: "Cursor", table: str, timeout: float | None) -> dict[str, tuple[int, str]]:
    """The columns of a table that can be written: type, and its category.

    Of a domain, what it is of.
    """
    wire = cursor._wire
    refusal = wire.refusal("cursor.copy_records", cursor._session)
    if refusal is not None:
        raise refusal
    query = _COLUMNS % _quoted(table, wire.raw)
    waiter = outcome = None
    try:
        waiter = look_up(wire, query, timeout)
        outcome = (await waiter).pop()
        if isinstance(outcome, BaseException):
            raise outcome
        try:
            return {name: (int(oid), category) for name, oid, category in outcome}
        except ValueError:
            raise psycopg2.DatabaseError(
                "the server's answer about the columns of the table can't be understood"
            ) from None
    except BaseException as exc:
        trim(exc)
        if waiter is not None:
            cursor._failed(exc, waiter)
        raise
    finally:
        del waiter, outcome  # as in converse()


_COLUMNS = b"""\
SELECT a.attname, t.oid, t.typcategory
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = (
    WITH RECURSIVE base AS (
        SELECT oid, typbasetype FROM pg_catalog.pg_type WHERE oid = a.atttypid
        UNION ALL SELECT b.oid, b.typbasetype
        FROM base JOIN pg_catalog.pg_type b ON b.oid = base.typbasetype)
    SELECT oid FROM base WHERE typbasetype = 0)
WHERE a.attrelid = %b::pg_catalog.regclass
AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
ORDER BY a.attnum"""


class _Records:
    """An iterable or asynchronous iterable, whose first record is looked at before the others."""

    def __init__(self, records: Any) -> None:
        self.is_async = hasattr(records, "__aiter__")
        self.iterator = aiter(records) if self.is_async else iter(records)

    async def first(self) -> list[Any]:
        try:
            return [await anext(self.iterator) if self.is_async else next(self.iterator)]
        except (StopIteration, StopAsyncIteration):
            return []


async def _send_records(
    request: Copy, encoder: Encoder, source: _Records, progress: Progress | None
) -> None:
    async def send() -> None:
        ready = request.put_encoded(encoder)
        if progress is not None:
            progress(encoder.count, request.sent)
        if not ready:
            await request.room()

    if source.is_async:
        async for record in source.iterator:
            if encoder.append_record(record):
                await send()
                if request.over:
                    return
    else:
        while encoder.fill(source.iterator):
            await send()
            if request.over:
                return
    encoder.end()
    await send()
    request.end()
