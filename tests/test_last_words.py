"""Why a connection ended: what the server said, or what the program's own code raised."""

import asyncio

import psycopg2
import pytest
from support import (
    activity,
    blocked_until_it_ends,
    error_response,
    fetch,
    greeting,
    listener,
    scalar,
    underway,
    until,
)

LATIN1 = error_response("FATAL", "57P01", "arrêt du serveur sur ordre", "latin-1")
ANSWERS = {
    "FATAL in LATIN1": (LATIN1, "du serveur sur ordre"),
    "garbage": (bytes(range(256)) * 4, "expected authentication|lost synchronization"),
    "half a message": (LATIN1[:20], "closed the connection unexpectedly"),
}
SLEEP = "SELECT pg_sleep(30)"


# --- a server that says strange things ------------------------------------------------------------


async def strange_server(ours, answer, when, use):
    """Connect to a server that gives this answer, and ends, and use(connection)."""

    async def serve(reader, writer):
        await reader.read(4096)
        if when != "connect":
            writer.write(greeting())
        if when == "query":
            await reader.read(4096)
        elif when == "idle":
            await asyncio.sleep(0.1)
        writer.write(answer)
        writer.write_eof()
        await reader.read()

    async with listener(serve) as port:
        dsn = f"host=127.0.0.1 port={port} user=me sslmode=disable gssencmode=disable"
        conn = await asyncio.wait_for(ours.connect(dsn, enable_hstore=False), 5)
        with pytest.raises(psycopg2.DatabaseError) as info:
            await asyncio.wait_for(use(conn), 5)
        assert conn.closed
        with pytest.raises(psycopg2.InterfaceError, match="already closed"):
            await fetch(conn, "SELECT 1")
        raise info.value


@pytest.mark.all_loops
@pytest.mark.parametrize(("answer", "text"), ANSWERS.values(), ids=ANSWERS)
async def test_answer_to_connect(ours, answer, text):
    with pytest.raises(psycopg2.OperationalError, match=text):
        await strange_server(ours, answer, "connect", None)


@pytest.mark.all_loops
@pytest.mark.parametrize(("answer", "text"), ANSWERS.values(), ids=ANSWERS)
async def test_answer_to_a_query(ours, answer, text):
    with pytest.raises(psycopg2.OperationalError, match=text):
        await strange_server(ours, answer, "query", lambda conn: fetch(conn, "SELECT 1"))


@pytest.mark.all_loops
@pytest.mark.parametrize(("answer", "text"), ANSWERS.values(), ids=ANSWERS)
async def test_answer_on_psycopg2s_road(ours, answer, text):
    async def use(conn):
        async with conn.cursor() as cursor:
            assert cursor.raw
            await cursor.execute("SELECT 1")

    with pytest.raises(psycopg2.OperationalError, match=text):
        await strange_server(ours, answer, "query", use)


@pytest.mark.all_loops
@pytest.mark.parametrize(("answer", "text"), ANSWERS.values(), ids=ANSWERS)
async def test_answer_to_nothing(ours, answer, text):
    with pytest.raises(psycopg2.OperationalError, match=text):
        await strange_server(ours, answer, "idle", lambda conn: conn.notifies.get())


async def test_end_in_the_middle_of_an_answer_reads_as_psycopg2s(ours):
    """Nothing is added to what libpq says."""
    with pytest.raises(psycopg2.OperationalError) as info:
        await strange_server(ours, b"T\0\0", "query", lambda conn: fetch(conn, "SELECT 1"))
    assert str(info.value).splitlines() == [
        "server closed the connection unexpectedly",
        "\tThis probably means the server terminated abnormally",
        "\tbefore or while processing the request.",
    ]


# --- a server that ends the session ---------------------------------------------------------------

# psycopg2 itself drops the reason that libpq 14 and newer have given it before the end of stream.
LIMITS = {
    "SET idle_in_transaction_session_timeout = 20; BEGIN": (
        psycopg2.errors.IdleInTransactionSessionTimeout
    ),
    "SET idle_session_timeout = 20": psycopg2.errors.IdleSessionTimeout,
}
CODES = {
    psycopg2.errors.AdminShutdown: "57P01",
    psycopg2.errors.IdleInTransactionSessionTimeout: "25P03",
    psycopg2.errors.IdleSessionTimeout: "57P05",
}


def terminate(side, pid):
    scalar(side, "SELECT pg_terminate_backend(%s)", (pid,))


async def execute(conn, sql):
    async with conn.cursor() as cursor:
        await cursor.execute(sql)


async def check_end(conn, error, kind):
    """The error, and that of the next statement, tell what the server has said.

    Who waits for notifications gets an OperationalError, in any case.
    """
    if not issubclass(kind, psycopg2.OperationalError):
        assert type(error) is psycopg2.OperationalError
        error = error.__cause__
    reads = "administrator command" if kind is psycopg2.errors.AdminShutdown else "timeout"
    assert (type(error), error.pgcode) == (kind, CODES[kind])
    assert reads in str(error)
    await until(lambda: conn.closed)
    for _ in range(2):
        with pytest.raises(psycopg2.InterfaceError, match=f"already closed(.|\n)*{reads}") as info:
            await execute(conn, "SELECT 1")
        cause = info.value.__cause__
        assert (type(cause), cause.pgcode) == (kind, CODES[kind])


@pytest.mark.all_loops
async def test_killed_while_idle(ours, connect, side):
    conn = await connect()
    waiting = asyncio.create_task(conn.notifies.get())
    await asyncio.sleep(0)
    terminate(side, await conn.get_backend_pid())
    with pytest.raises(psycopg2.OperationalError) as info:
        await asyncio.wait_for(waiting, 10)
    await check_end(conn, info.value, psycopg2.errors.AdminShutdown)


@pytest.mark.all_loops
@pytest.mark.parametrize(("limit", "kind"), LIMITS.items())
async def test_idle_for_too_long(ours, connect, limit, kind):
    conn = await connect()
    await execute(conn, limit)
    with pytest.raises(psycopg2.OperationalError) as info:
        await asyncio.wait_for(conn.notifies.get(), 10)
    await check_end(conn, info.value, kind)


@pytest.mark.all_loops
@pytest.mark.parametrize(("limit", "kind"), LIMITS.items())
async def test_idle_for_too_long_before_the_answer_is_read(ours, connect, limit, kind):
    """The reason stands right behind the answer."""
    conn = await connect()
    task = await underway(conn, execute(conn, f"SELECT pg_sleep(0.1); {limit}"))
    blocked_until_it_ends(conn)
    await task
    with pytest.raises(psycopg2.OperationalError) as info:
        await asyncio.wait_for(conn.notifies.get(), 10)
    await check_end(conn, info.value, kind)


@pytest.mark.all_loops
@pytest.mark.parametrize("raw", [False, True], ids=["native", "psycopg2"])
async def test_killed_while_busy(ours, connect, side, raw):
    conn = await connect()
    pid = await conn.get_backend_pid()
    cursor = await conn.cursor()
    if raw:
        assert cursor.raw  # psycopg2 executes from now on
    task = asyncio.create_task(cursor.execute(SLEEP))
    await until(lambda: (activity(side, pid) or ("",))[0] == "active")
    terminate(side, pid)
    with pytest.raises(psycopg2.OperationalError, match="administrator command") as info:
        await asyncio.wait_for(task, 10)
    if not raw and ours.capabilities().native:
        await check_end(conn, info.value, psycopg2.errors.AdminShutdown)
    else:
        await until(lambda: conn.closed)
        with pytest.raises(psycopg2.InterfaceError, match="administrator command"):
            await execute(conn, "SELECT 1")


# --- code of the program that raises --------------------------------------------------------------


class Unwell(Exception):
    """What the program's own code raises."""


class Failing(psycopg2.extensions.connection):
    """A connection of which one attribute fails while it is `ill`."""

    ill = None

    def __getattribute__(self, name):
        if name == object.__getattribute__(self, "ill"):
            raise Unwell(name)
        return object.__getattribute__(self, name)


def told(error):
    """Whether an exception is that of the program's own code, or tells of it."""
    return isinstance(error, Unwell) or Unwell.__name__ in str(error)


@pytest.mark.all_loops
@pytest.mark.parametrize("name", ["poll", "fileno"])
async def test_connect_when_the_connection_fails(ours, dsn, name):
    class Ill(Failing):
        ill = name

    with pytest.raises((Unwell, psycopg2.OperationalError)) as info:
        await asyncio.wait_for(ours.connect(dsn, connection_factory=Ill), 5)
    assert told(info.value)


@pytest.mark.all_loops
@pytest.mark.parametrize("raw", [False, True], ids=["native", "psycopg2"])
@pytest.mark.parametrize(
    "name", ["poll", "fileno", "notifies", "notices", "isexecuting", "get_transaction_status"]
)
async def test_query_when_the_connection_fails(ours, connect, loop_errors, name, raw):
    """It succeeds, where that attribute is not needed, or it ends at once with what was raised."""
    conn = await connect(connection_factory=Failing)
    async with conn.cursor() as cursor:
        if raw:
            assert cursor.raw
        sql = "DO $$ BEGIN NOTIFY news; RAISE NOTICE 'x'; PERFORM pg_sleep(0.05); END $$"
        await cursor.execute("LISTEN news")
        task = asyncio.create_task(cursor.execute(sql))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        conn.raw.ill = name
        await asyncio.wait([task], timeout=5)
        assert task.done(), "it waits for a timer"
        assert task.exception() is None or told(task.exception())
    conn.raw.ill = None
    if not conn.closed:
        assert await fetch(conn, "SELECT 1") == [(1,)]
    assert all(told(context["exception"]) for context in loop_errors)
    loop_errors.clear()


@pytest.mark.all_loops
@pytest.mark.parametrize("name", ["poll", "notifies"])
async def test_waiting_for_notifies_when_the_connection_fails(
    ours, connect, side, loop_errors, name
):
    conn = await connect(connection_factory=Failing)
    await execute(conn, "LISTEN news")
    waiting = asyncio.create_task(conn.notifies.get())
    await asyncio.sleep(0)
    conn.raw.ill = name
    with side.cursor() as cursor:
        cursor.execute("NOTIFY news")
    with pytest.raises((Unwell, psycopg2.OperationalError)) as info:
        await asyncio.wait_for(waiting, 5)
    assert told(info.value)
    conn.raw.ill = None
    assert conn.closed
    assert all(told(context["exception"]) for context in loop_errors)
    loop_errors.clear()
