"""docs/errors.md: each message of it is produced here, and has the class that stands there."""

import asyncio
import gc
import os
import pydoc
import re
import signal
import socket
import warnings
from pathlib import Path

import psycopg2
import pytest
from support import error_response, fetch, greeting, listener, new_loop, shut_down

PAGE = (Path(__file__).parent.parent / "docs" / "errors.md").read_text(encoding="utf-8")
# A message, in which … stands for anything, and the class of the exception.
ENTRIES = re.findall(r"^### `(.+)`\n\n\*(.+?)\*", PAGE, re.MULTILINE)
PRODUCERS = {}


def produces(message):
    """Names the message of which the function raises the error: an async function of (make)."""

    def decorate(function):
        PRODUCERS[message] = function
        return function

    return decorate


class Make:
    """What the producers use."""

    def __init__(self, ours, dsn, connect, pool):
        self.ours = ours
        self.dsn = dsn
        self.connect = connect
        self.pool = pool

    async def cursor(self, **keywords):
        return await (await self.connect(**keywords)).cursor()

    async def execute(self, sql, parameters=None, **keywords):
        return await (await self.cursor(**keywords)).execute(sql, parameters)

    async def answered(self, code, text):
        """Connect to a server that refuses us."""

        async def serve(reader, writer):
            await reader.read(8)
            writer.write(error_response("FATAL", code, text))
            await writer.drain()

        async with listener(serve) as port:
            await self.ours.connect(
                host="127.0.0.1", port=port, user="me", sslmode="disable", gssencmode="disable"
            )


@pytest.fixture
def make(ours, dsn, connect, pool):
    return Make(ours, dsn, connect, pool)


def test_each_message_has_its_producer():
    assert [message for message, _ in ENTRIES] == list(PRODUCERS)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize(("message", "name"), ENTRIES)
async def test_message(make, loop_errors, message, name):
    with pytest.raises(BaseException) as caught:
        await PRODUCERS[message](make)
    error = caught.value
    pattern = ".*".join(map(re.escape, message.split("…")))
    assert re.search(pattern, str(error), re.DOTALL), str(error)
    assert isinstance(error, pydoc.locate(name))
    loop_errors.clear()


# --- connecting -----------------------------------------------------------------------------------


@produces("Connection refused")
async def refused(make):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        await make.connect(host="127.0.0.1", port=unused.getsockname()[1])


@produces("timeout expired")
async def expired(make):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        await make.connect(host="127.0.0.1", port=port, connect_timeout=1)


@produces("could not translate host name … to address")
async def no_such_name(make):
    await make.connect(host="nowhere.invalid")


@produces("password authentication failed for user …")
async def wrong_password(make):
    await make.answered("28P01", 'password authentication failed for user "me"')


@produces("no pg_hba.conf entry for host …")
async def no_entry(make):
    await make.answered("28000", 'no pg_hba.conf entry for host "10.0.0.1", user "me"')


@produces("database … does not exist")
async def no_database(make):
    await make.connect(dbname="no_such_database")


@produces("role … does not exist")
async def no_role(make):
    await make.connect(user="nobody_of_this_name")


@produces("sorry, too many clients already")
async def too_many(make):
    await make.answered("53300", "sorry, too many clients already")


@produces("the database system is starting up")
async def starting_up(make):
    await make.answered("57P03", "the database system is starting up")


@produces("session is read-only")
async def read_only(make):
    options = "-c default_transaction_read_only=on"
    await make.connect(options=options, target_session_attrs="read-write")


@produces("server does not support SSL, but SSL was required")
async def no_tls(make):
    await make.connect(sslmode="require")


@produces("unsupported startup parameter: …")
async def startup_parameter(make):
    await make.answered("08P01", "unsupported startup parameter: options")


@produces("invalid connection option …")
async def unknown_keyword(make):
    await make.ours.connect(make.dsn, max_size=5)


# --- the connection -------------------------------------------------------------------------------


@produces("the server has not answered within … s")
async def out_of_time(make):
    cursor = await make.cursor()
    await cursor.execute("SELECT pg_sleep(9)", timeout=0.05)


@produces("connection already closed")
async def closed(make):
    conn = await make.connect()
    await conn.close()
    await conn.execute("SELECT 1")


@produces("terminating connection due to administrator command")
async def terminated(make):
    await make.execute("SELECT pg_terminate_backend(pg_backend_pid())")


@produces("server closed the connection unexpectedly")
async def gone(make):
    async def serve(reader, writer):
        await reader.read(1000)
        writer.write(greeting())
        await writer.drain()
        await reader.read(1000)

    async with listener(serve) as port:
        conn = await make.ours.connect(
            host="127.0.0.1", port=port, user="me", sslmode="disable", enable_hstore=False
        )
        await conn.execute("SELECT 1")


@produces("… called while another coroutine is already waiting for incoming data")
async def two_at_a_time(make):
    conn = await make.connect()
    await asyncio.gather(conn.execute("SELECT pg_sleep(0.1)"), conn.execute("SELECT 2"))


@produces("… called on another event loop than the connection was made on")
async def other_loop(make):
    conn = await make.connect()

    def use():
        loop = new_loop("asyncio")
        try:
            loop.run_until_complete(fetch(conn, "SELECT 1"))
        finally:
            shut_down(loop)

    await asyncio.to_thread(use)


@produces("… called in a forked child process")
async def forked(make):
    raise RuntimeError(in_a_child(await make.connect()))


def in_a_child(conn):
    """The text of the error that a forked child gets."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            conn.execute("SELECT 1").send(None)
        except RuntimeError as error:
            os.write(writing, str(error).encode())
        os.kill(os.getpid(), signal.SIGKILL)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    return text


@produces("… cannot be used in asynchronous mode")
async def not_asynchronous(make):
    await (await make.connect()).commit()


# --- statements -----------------------------------------------------------------------------------


@produces("no results to fetch")
async def no_results(make):
    cursor = await make.cursor()
    await cursor.execute("SET work_mem = 1000")
    await cursor.fetchall()


@produces("cursor already closed")
async def cursor_closed(make):
    conn = await make.connect()
    async with conn.cursor() as cursor:
        pass
    await cursor.execute("SELECT 1")


@produces("not all arguments converted during string formatting")
async def too_many_values(make):
    await make.execute("SELECT %s", (1, 2))


@produces("tuple index out of range")
async def too_few_values(make):
    await make.execute("SELECT %s, %s", (1,))


@produces("unsupported format character …")
async def percent(make):
    await make.execute("SELECT 1 WHERE 'x' LIKE '%y'", (1,))


@produces("can't adapt type …")
async def no_adapter(make):
    await make.execute("SELECT %s", (object(),))


@produces("operator does not exist: …")
async def no_operator(make):
    await make.execute("SELECT 1 WHERE 5 = 'x'::text")


@produces("a statement cannot contain NUL (0x00) characters")
async def nul(make):
    await make.execute("SELECT 1\0")


@produces("canceling statement due to statement timeout")
async def canceled(make):
    cursor = await make.cursor(raise_query_canceled=True)
    await cursor.execute("SET statement_timeout = 20")
    await cursor.execute("SELECT pg_sleep(9)")


@produces("can't use a named cursor outside of transactions")
async def no_transaction(make):
    conn = await make.connect()
    async with conn.cursor(name="numbers") as cursor:
        await cursor.execute("SELECT 1")


# --- transactions ---------------------------------------------------------------------------------


@produces("current transaction is aborted, commands ignored until end of transaction block")
async def aborted(make):
    cursor = await make.cursor()
    async with cursor.begin():
        with pytest.raises(psycopg2.errors.DivisionByZero):
            await cursor.execute("SELECT 1 / 0")
        await cursor.execute("SELECT 1")


@produces("could not serialize access due to …")
async def serialization(make):
    conn, other = await make.connect(), await make.connect()
    await conn.execute("CREATE TABLE IF NOT EXISTS counter (n int)")
    await conn.execute("INSERT INTO counter VALUES (1)")
    cursor = await conn.cursor(isolation_level=make.ours.IsolationLevel.repeatable_read)
    async with cursor.begin():
        await cursor.execute("SELECT * FROM counter")
        await other.execute("UPDATE counter SET n = n + 1")
        await cursor.execute("UPDATE counter SET n = n + 1")


@produces("deadlock detected")
async def deadlock(make):
    conns = [await make.connect(), await make.connect()]
    for key, conn in enumerate(conns):
        await conn.execute("SET deadlock_timeout = 10")
        await conn.execute("BEGIN")
        await conn.execute("SELECT pg_advisory_xact_lock(%s)", (key,))
    waiting = [
        asyncio.ensure_future(conn.execute("SELECT pg_advisory_xact_lock(%s)", (1 - key,)))
        for key, conn in enumerate(conns)
    ]
    done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_EXCEPTION)
    for conn in conns:
        conn.close()
    await asyncio.gather(*waiting, return_exceptions=True)
    (failed,) = (task for task in done if task.exception())
    raise failed.exception()


@produces("duplicate key value violates unique constraint …")
async def duplicate(make):
    await make.execute("CREATE TEMP TABLE t (n int PRIMARY KEY); INSERT INTO t VALUES (1), (1)")


@produces("cannot execute … in a read-only transaction")
async def read_only_transaction(make):
    await make.execute("BEGIN READ ONLY; CREATE TABLE t (n int)")


@produces("You are trying to open a new transaction, use the save point")
async def begun_twice(make):
    cursor = await make.cursor()
    async with cursor.begin(), cursor.begin():
        pass


@produces("You do not shut down savepoint")
async def savepoint_in_savepoint(make):
    cursor = await make.cursor()
    async with cursor.begin(), cursor.begin_nested(), cursor.begin_nested():
        pass


# --- the pool -------------------------------------------------------------------------------------


@produces("no connection within … s: … in use")
async def exhausted(make):
    pool = await make.pool(minsize=1, maxsize=1)
    async with pool.acquire(), pool.acquire(timeout=0.2):
        pass


@produces("Cannot acquire connection after closing pool")
async def pool_closed(make):
    pool = await make.pool()
    pool.close()
    await pool.acquire()


@produces("Invalid transaction status on released connection: …")
async def released_in_a_transaction(make):
    pool = await make.pool()
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        async with pool.acquire() as conn:
            await conn.execute("BEGIN")


@produces("Unclosed connection …")
async def unclosed(make):
    conn = await make.ours.connect(make.dsn)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del conn
        gc.collect()
    raise caught[0].message


@produces("the pool belongs to another event loop")
async def pool_of_another_loop(make):
    pool = await make.pool()

    async def acquire():
        await pool.acquire()

    def use():
        loop = new_loop("asyncio")
        try:
            loop.run_until_complete(acquire())
        finally:
            shut_down(loop)

    await asyncio.to_thread(use)
