"""COPY: copy_from(), copy_to() and copy_expert() do what psycopg2's do, for any sort of file."""

import asyncio
import io
import logging
import tempfile
import time

import aiofiles
import psycopg2
import psycopg2.extras
import pytest
from conftest import command
from psycopg2 import sql
from support import activity, scalar, until

TABLES = """
    DROP TABLE IF EXISTS copied, "of Ä x";
    CREATE TABLE copied (i int, t text);
    CREATE TABLE "of Ä x" (i int, "a b" text DEFAULT 'default');
    INSERT INTO copied VALUES (1, 'one'), (2, NULL), (3, E'tab\\t back\\\\ line\\n é')
"""
ALL = "1\tone\n2\t\\N\n3\ttab\\t back\\\\ line\\n é\n"


class Source:
    """A readable object that is no file; `given` is what read() returns, or raises."""

    def __init__(self, *given):
        self.given = list(given)

    def read(self, size):
        if not self.given:
            return b""
        if isinstance(self.given[0], BaseException):
            raise self.given[0]
        return self.given.pop(0)


class Sink:
    """A writable object that is no file."""

    def __init__(self):
        self.written = []

    def write(self, data):
        self.written.append(data)


class AsyncSource(Source):
    async def read(self, size):
        await asyncio.sleep(0)
        return super().read(size)


class AsyncSink(Sink):
    async def write(self, data):
        await asyncio.sleep(0)
        super().write(data)


@pytest.fixture(autouse=True)
def tables(side):
    command(side, TABLES)


@pytest.fixture
def cursor(connect):
    async def make(**kwargs):
        return await (await connect(**kwargs)).cursor()

    return make


def rows(side, table="copied"):
    with side.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {table}")
        return cursor.fetchall()


# --- the same as with psycopg2 --------------------------------------------------------------------

# (method, what makes its arguments, more arguments)
CASES = {
    "from": ("copy_from", lambda: [io.StringIO("7\tx\n8\t\\N\n"), "copied"]),
    "from bytes": ("copy_from", lambda: [io.BytesIO("7\té\n".encode()), "copied"]),
    "from an object": ("copy_from", lambda: [Source("7\tx", b"y\n8", "\tz"), "copied"]),
    "from nothing": ("copy_from", lambda: [io.StringIO(), "copied"]),
    "columns": ("copy_from", lambda: [io.StringIO("7\n"), "of Ä x", "\t", "\\N", 8192, ["i"]]),
    "columns, a tuple": ("copy_from", lambda: [io.StringIO("7\n"), "copied", "\t", "", 5, ("i",)]),
    "columns, a str": ("copy_from", lambda: [io.StringIO("7\tx"), "copied", "\t", "", 5, "it"]),
    "columns, bytes": ("copy_from", lambda: [io.StringIO("7\n"), "copied", "\t", "", 5, [b"i"]]),
    "columns, any": (
        "copy_from",
        lambda: [io.StringIO("7\tx"), "copied", "\t", "", 5, (c for c in "it")],
    ),
    "no columns": ("copy_from", lambda: [io.StringIO("7\tx"), "copied", "\t", "", 5, []]),
    "no such columns": ("copy_from", lambda: [io.StringIO(""), "copied", "\t", "", 5, ['"']]),
    "columns, int": ("copy_from", lambda: [io.StringIO(""), "copied", "\t", "", 5, 3]),
    "columns, ints": ("copy_from", lambda: [io.StringIO(""), "copied", "\t", "", 5, [3]]),
    "sep, null": ("copy_from", lambda: [io.StringIO("7|''\n"), "copied", "|", "''"]),
    "sep \\": ("copy_from", lambda: [io.StringIO("7|\\\\\n"), "copied", "|", "\\\\"]),
    "long sep": ("copy_from", lambda: [io.StringIO("7"), "copied", "ab"]),
    "sep None": ("copy_from", lambda: [io.StringIO("7"), "copied", None]),
    "null None": ("copy_from", lambda: [io.StringIO("7"), "copied", "|", None]),
    "no file": ("copy_from", lambda: [5, "copied"]),
    "a str": ("copy_from", lambda: ["7\tx\n", "copied"]),
    "table int": ("copy_from", lambda: [io.StringIO(), 5]),
    "table bytes": ("copy_from", lambda: [io.StringIO(), b"copied"]),
    "table NUL": ("copy_from", lambda: [io.StringIO(), "cop\0ied"]),
    "no table": ("copy_from", lambda: [io.StringIO("7\n"), "public.copied"]),
    "size str": ("copy_from", lambda: [io.StringIO("7\n"), "copied", "\t", "", "5"]),
    "size 1": ("copy_from", lambda: [io.StringIO("7\té\n"), "copied", "\t", "", 1]),
    "size 0": ("copy_from", lambda: [io.StringIO("7\té\n"), "copied", "\t", "", 0]),
    "size -1": ("copy_from", lambda: [io.StringIO("7\té\n"), "copied", "\t", "", -1]),
    "bad data": ("copy_from", lambda: [io.StringIO("7\tx\nx\ty\n"), "copied"]),
    "too many columns": ("copy_from", lambda: [io.StringIO("7\tx\ty\n"), "copied"]),
    "bad UTF-8": ("copy_from", lambda: [io.BytesIO(b"7\t\xff\n"), "copied"]),
    "to": ("copy_to", lambda: [io.StringIO(), "copied"]),
    "to bytes": ("copy_to", lambda: [io.BytesIO(), "copied"]),
    "to an object": ("copy_to", lambda: [Sink(), "copied"]),
    "to, sep, null": ("copy_to", lambda: [io.StringIO(), "copied", "|", "-", ["t"]]),
    "to no file": ("copy_to", lambda: [io.StringIO, 5]),
    "to int": ("copy_to", lambda: [5, "copied"]),
    "to, table int": ("copy_to", lambda: [Sink(), 5]),
    "to, no table": ("copy_to", lambda: [Sink(), "no"]),
    "to, closed file": ("copy_to", lambda: [closed_file(), "copied"]),
    "expert from": ("copy_expert", lambda: ["COPY copied FROM STDIN CSV", io.StringIO("7,x")]),
    "expert from, size": ("copy_expert", lambda: ["COPY copied FROM STDIN", Source(b"7\tx"), 3]),
    "expert to": ("copy_expert", lambda: ["COPY copied TO STDOUT CSV HEADER", io.StringIO()]),
    "expert binary": ("copy_expert", lambda: ["COPY copied TO STDOUT BINARY", io.BytesIO()]),
    "expert bytes": ("copy_expert", lambda: [b"COPY copied TO STDOUT", Sink()]),
    "expert sql": (
        "copy_expert",
        lambda: [sql.SQL("COPY {} TO STDOUT").format(sql.Identifier("of Ä x")), io.StringIO()],
    ),
    "expert percent": ("copy_expert", lambda: ["COPY copied TO STDOUT -- %s", io.StringIO()]),
    "expert no file": ("copy_expert", lambda: ["COPY copied TO STDOUT", 5]),
    "expert int": ("copy_expert", lambda: [5, io.StringIO()]),
    "expert None": ("copy_expert", lambda: [None, io.StringIO()]),
    "expert empty": ("copy_expert", lambda: ["", io.StringIO()]),
    "expert comment": ("copy_expert", lambda: ["--", io.StringIO()]),
    "expert syntax": ("copy_expert", lambda: ["COPY", io.StringIO()]),
    "expert size": ("copy_expert", lambda: ["COPY copied FROM STDIN", io.StringIO("7\tx"), "x"]),
    "expert select": ("copy_expert", lambda: ["SELECT 1 AS one, 'b'", io.StringIO()]),
    "expert update": ("copy_expert", lambda: ["UPDATE copied SET i = 5", io.StringIO()]),
    "expert of a program": ("copy_expert", lambda: ["COPY copied TO PROGRAM 'cat'", Sink()]),
    "expert behind": ("copy_expert", lambda: ["SELECT 1; COPY copied TO STDOUT", Sink()]),
    "expert in front": ("copy_expert", lambda: ["COPY copied TO STDOUT; SELECT 1", Sink()]),
    "expert fails behind": ("copy_expert", lambda: ["COPY copied TO STDOUT; SELECT 1/0", Sink()]),
    "expert query": (
        "copy_expert",
        lambda: ["COPY (SELECT 6 / (3 - i) FROM copied) TO STDOUT", Sink()],
    ),
}


def closed_file():
    file = io.StringIO()
    file.close()
    return file


def shown(error):
    if error is None:
        return None
    diag = getattr(error, "diag", None)
    return type(error), str(error), getattr(error, "pgcode", None), diag and diag.context


def attributes(cursor):
    return {
        name: getattr(cursor, name)
        for name in ("rowcount", "statusmessage", "query", "description", "lastrowid", "rownumber")
    }


def content(arguments):
    """What the sink among the arguments got."""
    for file in arguments:
        if isinstance(file, Sink):
            return file.written
        if isinstance(file, io.StringIO | io.BytesIO) and not file.closed:
            return file.getvalue()
    return None


@pytest.mark.parametrize("case", CASES)
async def test_as_psycopg2(ours, cursor, dsn, side, case):
    method, make = CASES[case]
    theirs, error = make(), None
    with psycopg2.connect(dsn) as sync:
        sync.autocommit = True
        expected = sync.cursor()
        try:
            assert getattr(expected, method)(*theirs) is None
        except Exception as caught:
            error = caught
    sync.close()
    tables = [rows(side), rows(side, '"of Ä x"')]
    command(side, TABLES)
    own, seen, actual = make(), None, await cursor()
    try:
        assert await getattr(actual, method)(*own) is None
    except Exception as caught:
        seen = caught
    assert shown(seen) == shown(error)
    assert content(own) == content(theirs)
    assert attributes(actual) == attributes(expected)
    assert [rows(side), rows(side, '"of Ä x"')] == tables
    await actual.execute("SELECT 1")
    assert await actual.fetchall() == [(1,)]


async def test_result_of_another_statement(ours, cursor):
    cur = await cursor()
    await cur.copy_expert("SELECT i FROM copied", io.StringIO())
    assert await cur.fetchall() == [(1,), (2,), (3,)]
    await cur.copy_to(io.StringIO(), "copied")
    with pytest.raises(psycopg2.ProgrammingError, match="no results to fetch"):
        await cur.fetchone()


@pytest.mark.parametrize("encoding", ["latin1", "euc_jp"])
async def test_client_encoding(ours, cursor, side, encoding):
    letter = {"latin1": "é", "euc_jp": "水"}[encoding]
    cur = await cursor(client_encoding=encoding)
    await cur.execute("DELETE FROM copied")
    await cur.copy_from(io.StringIO(f"1\t{letter}\n"), "copied")
    assert rows(side) == [(1, letter)]
    file = io.StringIO()
    await cur.copy_to(file, "copied")
    assert file.getvalue() == f"1\t{letter}\n"
    with pytest.raises(UnicodeEncodeError):
        await cur.copy_from(io.StringIO("2\t\u20ac\u0939"), "copied")
    assert rows(side) == [(1, letter)]


async def test_cursor_factories(ours, connect):
    for factory in (psycopg2.extras.DictCursor, psycopg2.extras.LoggingCursor):
        conn = await connect()
        cur = await conn.cursor(cursor_factory=factory)
        file = io.StringIO()
        await cur.copy_to(file, "copied")
        assert (file.getvalue(), cur.rowcount, cur.raw.rowcount) == (ALL, 3, 3), factory


async def test_named_cursor(ours, connect):
    conn = await connect()
    file = io.StringIO()
    async with conn.cursor("named") as cur:
        await cur.copy_to(file, "copied")
    assert file.getvalue() == ALL


async def test_echo(ours, cursor, caplog):
    cur = await cursor(echo=True)
    with caplog.at_level(logging.INFO, logger="aiopg"):
        await cur.copy_expert("COPY copied TO STDOUT", io.StringIO())
    assert [record.getMessage() for record in caplog.records][-1] == "COPY copied TO STDOUT"


async def test_notices(ours, cursor, side):
    command(
        side,
        "CREATE OR REPLACE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "RAISE NOTICE 'row %', new.i; RETURN new; END $$;"
        "CREATE TRIGGER tells BEFORE INSERT ON copied FOR EACH ROW EXECUTE FUNCTION tell()",
    )
    cur = await cursor()
    await cur.copy_from(io.StringIO("7\tx\n8\ty\n"), "copied")
    assert cur.connection.notices == ["NOTICE:  row 7\n", "NOTICE:  row 8\n"]
    assert (cur.rowcount, len(rows(side))) == (2, 5)


# --- files of other sorts -------------------------------------------------------------------------


async def chunks(*items):
    for item in items:
        await asyncio.sleep(0)
        yield item


SOURCES = {
    "list": lambda: ["7\tx\n", b"8\ty\n"],
    "generator": lambda: (piece for piece in ("7\t", "x\n8", "", "\ty")),
    "asynchronous generator": lambda: chunks("7\t", b"x\n8\t", bytearray(b"y"), memoryview(b"\n")),
    "asynchronous read()": lambda: AsyncSource("7\tx\n", "8\ty\n"),
    "read() of bytearray": lambda: Source(bytearray(b"7\tx\n"), memoryview(b"8\ty\n")),
}


@pytest.mark.all_loops
@pytest.mark.parametrize("source", SOURCES)
async def test_sources(ours, cursor, side, source):
    cur = await cursor()
    await cur.execute("DELETE FROM copied")
    await cur.copy_from(SOURCES[source](), "copied")
    assert (cur.rowcount, rows(side)) == (2, [(7, "x"), (8, "y")])
    await cur.copy_expert("COPY copied FROM STDIN", SOURCES[source]())
    assert (cur.rowcount, rows(side)) == (2, [(7, "x"), (8, "y")] * 2)


@pytest.mark.all_loops
async def test_sinks(ours, cursor):
    cur = await cursor()
    sink = AsyncSink()
    await cur.copy_to(sink, "copied")
    assert b"".join(sink.written).decode() == ALL
    written = []
    await cur.copy_to(written.append, "copied")
    assert [line.decode() for line in written] == ALL.splitlines(True)
    written = []

    async def write(data):
        written.append(data)

    await cur.copy_expert("COPY copied TO STDOUT", write)
    assert b"".join(written).decode() == ALL


@pytest.mark.parametrize("mode", ["w+", "w+b"])
async def test_aiofiles(ours, cursor, side, tmp_path, mode):
    cur = await cursor()
    async with aiofiles.open(tmp_path / "copied", mode) as file:
        await cur.copy_to(file, "copied")
        await file.seek(0)
        await cur.copy_from(file, "copied")
    assert rows(side)[:3] == rows(side)[3:]
    assert (tmp_path / "copied").read_text(encoding="utf-8") == ALL


@pytest.mark.parametrize("mode", ["w+", "w+b"])
async def test_temporary_file(ours, cursor, side, mode):
    """Its wrapper is no file of the `io` module."""
    cur = await cursor()
    with tempfile.NamedTemporaryFile(mode) as file:
        await cur.copy_to(file, "copied")
        file.seek(0)
        await cur.copy_from(file, "copied")
    assert rows(side)[:3] == rows(side)[3:]


@pytest.mark.parametrize("item", [None, 5, ["7", "x"]])
async def test_chunks_of_another_type(ours, cursor, side, item):
    cur = await cursor()
    with pytest.raises(TypeError, match=f"str or bytes from the file, not {type(item).__name__}"):
        await cur.copy_from(["7\tx\n", item], "copied")
    with pytest.raises(TypeError, match=f"str or bytes from the file, not {type(item).__name__}"):
        await cur.copy_from(Source("7\tx\n", item), "copied")
    assert len(rows(side)) == 3


async def test_large_chunks(ours, cursor, side):
    cur = await cursor()
    await cur.copy_from(["7\t" + 3_000_000 * "x" + "\n", 300_000 * "8\ty\n"], "copied")
    assert cur.rowcount == 300_001
    assert scalar(side, "SELECT sum(length(t)) FROM copied WHERE i > 3") == 3_300_000
    file = io.BytesIO()
    await cur.copy_to(file, "copied")
    assert len(file.getvalue()) == len(ALL.encode()) + 3_000_003 + 4 * 300_000


# --- what goes wrong ------------------------------------------------------------------------------

BIG = "COPY (SELECT i, repeat('x', 1000) FROM generate_series(1, {}) AS i) TO STDOUT"


class Broken(Exception):
    pass


async def failing(*items):
    for item in items:
        yield item
    raise Broken("of the program")


@pytest.mark.all_loops
@pytest.mark.parametrize("in_transaction", [False, True])
async def test_exception_of_the_source(ours, cursor, side, in_transaction):
    cur = await cursor()
    if in_transaction:
        await cur.execute("BEGIN")
    with pytest.raises(Broken) as info:
        await cur.copy_from(failing("7\tx\n", 100_000 * "8\ty\n"), "copied")
    assert info.value.__context__ is None
    assert cur.rowcount == -1
    if in_transaction:
        with pytest.raises(psycopg2.errors.InFailedSqlTransaction):
            await cur.execute("SELECT 1")
        await cur.execute("ROLLBACK")
    await cur.execute("SELECT count(*) FROM copied")
    assert await cur.fetchall() == [(3,)]


async def test_canceled_elsewhere(ours, cursor):
    """psycopg2's error from another connection is no cancellation of this one."""
    cur = await cursor()
    with pytest.raises(psycopg2.errors.QueryCanceled, match="of the program"):
        await cur.copy_from(Source(psycopg2.errors.QueryCanceled("of the program")), "copied")
    assert not cur.connection.closed


@pytest.mark.all_loops
@pytest.mark.parametrize("count", [1, 500, 500_000])
async def test_exception_of_the_sink(ours, cursor, side, count):
    """Whatever is left of the answer, it does not take long, and the connection is usable."""
    cur = await cursor()
    pid = cur.connection.raw.get_backend_pid()

    def write(data):
        raise Broken("of the program")

    began = time.monotonic()
    with pytest.raises(Broken) as info:
        await cur.copy_expert(BIG.format(count), write)
    assert time.monotonic() - began < 5
    assert info.value.__context__ is None
    await cur.execute("SELECT pg_backend_pid()")
    assert await cur.fetchone() == (pid,)


async def test_error_stops_the_source(ours, cursor):
    """The server's error ends what the program still waits for, or would give for ever."""
    cur = await cursor()
    ended = []

    async def endless():
        try:
            yield 10_000 * "x\ty\n"
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    with pytest.raises(psycopg2.errors.InvalidTextRepresentation):
        await cur.copy_from(endless(), "copied")
    assert ended == [True]

    def forever():
        while True:
            yield 10_000 * "x\ty\n"

    with pytest.raises(psycopg2.errors.InvalidTextRepresentation):
        await cur.copy_from(forever(), "copied")
    assert asyncio.current_task().cancelled() is False
    await asyncio.sleep(0)
    await cur.execute("SELECT 1")


@pytest.mark.all_loops
@pytest.mark.parametrize("way", ["cancel", "timeout"])
async def test_given_up(ours, cursor, side, way):
    """The connection is closed, nothing is stored, and the server does nothing for us any more."""
    cur = await cursor()
    pid = cur.connection.raw.get_backend_pid()

    async def slow():
        yield "7\tx\n"
        await asyncio.sleep(60)

    if way == "cancel":
        task = asyncio.ensure_future(cur.copy_from(slow(), "copied"))
        await until(lambda: (activity(side, pid) or "?")[0] == "active")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        with pytest.raises(asyncio.TimeoutError, match=r"within 0\.2 s"):
            await cur.copy_from(slow(), "copied", timeout=0.2)
    assert cur.connection.closed
    await until(lambda: activity(side, pid) is None)
    assert len(rows(side)) == 3


@pytest.mark.parametrize("way", ["cancel", "timeout"])
async def test_given_up_by_the_reader(ours, cursor, side, way):
    cur = await cursor()
    pid = cur.connection.raw.get_backend_pid()

    async def slow(data):
        await asyncio.sleep(60)

    statement = BIG.format(500_000)
    if way == "cancel":
        task = asyncio.ensure_future(cur.copy_expert(statement, slow))
        await until(lambda: (activity(side, pid) or "?")[0] == "active")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        with pytest.raises(asyncio.TimeoutError, match=r"within 0\.2 s"):
            await cur.copy_expert(statement, slow, timeout=0.2)
    assert cur.connection.closed
    await until(lambda: activity(side, pid) is None)


@pytest.mark.parametrize("direction", ["from", "to"])
async def test_connection_lost(ours, cursor, side, direction):
    cur = await cursor()
    pid = cur.connection.raw.get_backend_pid()

    async def terminate(*_):
        scalar(side, "SELECT pg_terminate_backend(%s)", (pid,))

    async def source():
        yield "7\tx\n"
        await terminate()
        await asyncio.sleep(60)

    # the server has no place for its last words where we have not read what is in front
    error = psycopg2.errors.AdminShutdown if direction == "from" else psycopg2.OperationalError
    with pytest.raises(error):
        if direction == "from":
            await cur.copy_from(source(), "copied")
        else:
            await cur.copy_expert(BIG.format(500_000), terminate)
    assert cur.connection.closed
    assert len(rows(side)) == 3


async def test_closed_meanwhile(ours, cursor):
    cur = await cursor()

    def source():
        yield "7\tx\n"
        cur.connection.close()
        yield "8\tx\n"

    with pytest.raises(psycopg2.OperationalError, match="Connection closed"):
        await cur.copy_from(source(), "copied")


async def test_raw_closed_meanwhile(ours, cursor):
    cur = await cursor()

    def source():
        yield "7\tx\n"
        cur.connection.raw.close()
        yield "8\tx\n"

    with pytest.raises(psycopg2.OperationalError, match="Connection closed"):
        await cur.copy_from(source(), "copied")
    assert cur.connection.closed


async def test_two_at_a_time(ours, connect):
    conn = await connect()
    one, other = await conn.cursor(), await conn.cursor()
    text = "cursor.{}() called while another coroutine is already waiting for incoming data"

    async def source():
        with pytest.raises(RuntimeError) as info:
            await other.execute("SELECT 1")
        assert str(info.value) == text.format("execute")
        with pytest.raises(RuntimeError) as info:
            await other.copy_to(io.StringIO(), "copied")
        assert str(info.value) == text.format("copy_to")
        yield "7\tx\n"

    await one.copy_from(source(), "copied")
    assert one.rowcount == 1


async def test_two_in_one_statement(ours, cursor, side):
    cur = await cursor()
    for two in ("COPY copied FROM STDIN; COPY copied FROM STDIN", "; ".join(2 * [BIG.format(9)])):
        with pytest.raises(psycopg2.ProgrammingError, match="more than one COPY"):
            await cur.copy_expert(two, io.StringIO("7\tx\n"))
    assert len(rows(side)) == 3


@pytest.mark.parametrize("which", ["cursor", "connection"])
async def test_closed(ours, cursor, which):
    cur = await cursor()
    (cur if which == "cursor" else cur.connection).close()
    for call in (
        cur.copy_from(io.StringIO(), "copied"),
        cur.copy_to(io.StringIO(), "copied"),
        cur.copy_expert("COPY copied TO STDOUT", io.StringIO()),
    ):
        with pytest.raises(psycopg2.InterfaceError, match="cursor already closed"):
            await call


async def test_other_arguments(ours, cursor):
    cur = await cursor()
    with pytest.raises(TypeError, match="timeout must be a number of seconds or None, not '1'"):
        await cur.copy_to(io.StringIO(), "copied", timeout="1")
    with pytest.raises(ValueError, match="a statement cannot contain NUL"):
        await cur.copy_expert("COPY copied TO STDOUT\0", io.StringIO())
