"""Helpers of the tests that are not fixtures."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import re
import select
import socket
import struct
import sys
import time

import psycopg2
import psycopg2.extensions as ext

LOOP_KINDS = ["asyncio", "debug", "uvloop"]

# Whether the tests with generated values may take many minutes.
LONG = os.environ.get("AIOPGX_LONG") == "1"


def is_coroutine_function(function):
    """As unittest.mock asks before it makes an AsyncMock."""
    ask = inspect if sys.version_info >= (3, 12) else asyncio
    return ask.iscoroutinefunction(function)


def new_loop(kind):
    """A new event loop of one of `LOOP_KINDS`."""
    if kind == "uvloop":
        import uvloop

        return uvloop.new_event_loop()
    loop = asyncio.SelectorEventLoop()
    loop.set_debug(kind == "debug")
    loop.slow_callback_duration = float("inf")  # a busy machine is not to be told of in logs
    return loop


def shut_down(loop):
    """Close a loop that has stopped, as `asyncio.run` does."""
    try:
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()


# A query that swallows cancel requests as long as somebody else has the advisory lock of a number.
STUBBORN_WHILE_LOCKED = """
    CREATE OR REPLACE FUNCTION stubborn_while_locked(number int) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        LOOP
            BEGIN
                PERFORM pg_advisory_xact_lock(number);
                RETURN;
            EXCEPTION WHEN query_canceled THEN NULL;
            END;
        END LOOP;
    END $$
"""


# A query that swallows cancel requests until its time is over.
STUBBORN = """
    CREATE OR REPLACE FUNCTION stubborn(seconds float) RETURNS void LANGUAGE plpgsql AS $$
    DECLARE until timestamptz := clock_timestamp() + seconds * interval '1 s';
    BEGIN
        WHILE clock_timestamp() < until LOOP
            BEGIN
                PERFORM pg_sleep(extract(epoch FROM until - clock_timestamp()));
            EXCEPTION WHEN query_canceled THEN NULL;
            END;
        END LOOP;
    END $$
"""


def shown(value):
    """A value in the name of a test, which is the same in each process."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


async def until(condition, seconds=10.0):
    """Wait until condition() is true and return its value; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not so within {seconds} s"
        await asyncio.sleep(0.01)
    return value


async def underway(conn, statement):
    """A task of the statement, which has begun on `conn`, and whose answer nobody has read yet."""
    task = asyncio.ensure_future(statement)
    while not conn.isexecuting():
        assert not task.done(), task
        await asyncio.sleep(0)
    return task


def blocked_until_it_ends(conn):
    """Let the event loop stand still until the end of the stream, or a reset, is here."""
    poll = select.poll()
    poll.register(conn.raw, select.POLLRDHUP)
    assert poll.poll(10_000), "it has not ended"


@contextlib.contextmanager
def side_connection(dsn, **kwargs):
    """A synchronous connection in autocommit."""
    conn = psycopg2.connect(dsn, **kwargs)
    conn.autocommit = True
    try:
        yield conn
    finally:
        conn.close()


def scalar(conn, sql, parameters=None):
    """The first value of a query on a synchronous connection."""
    with conn.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchone()[0]


def activity(conn, pid):
    """(state, query) of a backend, or None when it has gone."""
    with conn.cursor() as cursor:
        cursor.execute("SELECT state, query FROM pg_stat_activity WHERE pid = %s", (pid,))
        return cursor.fetchone()


async def fetch(conn, sql, parameters=None):
    """All rows of one statement on an asynchronous connection."""
    async with conn.cursor() as cursor:
        await cursor.execute(sql, parameters)
        return await cursor.fetchall()


REGISTERED = [
    *("UUID", "UUIDARRAY", "INET", "INETARRAY"),
    *("JSON", "JSONARRAY", "JSONB", "JSONBARRAY"),
]


@contextlib.contextmanager
def registries_restored():
    """Whatever is registered for everyone, or set in psycopg2's module, is gone afterwards."""
    dicts = [ext.string_types, ext.binary_types, ext.adapters, ext.encodings]
    before = [dict(registry) for registry in dicts]
    names = {name: getattr(ext, name) for name in REGISTERED if hasattr(ext, name)}
    yield
    for registry, content in zip(dicts, before, strict=True):
        registry.clear()
        registry.update(content)
    for name in REGISTERED:
        if name in names:
            setattr(ext, name, names[name])
        elif hasattr(ext, name):
            delattr(ext, name)


@contextlib.contextmanager
def busy_socket(number):
    """Two connected sockets, the first of which has this file descriptor."""
    left, right = socket.socketpair()
    if right.fileno() == number:
        left, right = right, left
    with right:
        if left.fileno() != number:
            os.dup2(left.fileno(), number)
            left.close()
            left = socket.socket(fileno=number)
        with left:
            yield left, right


@contextlib.asynccontextmanager
async def listener(serve):
    """The port of a TCP server on 127.0.0.1 that gives each connection to serve(reader, writer)."""

    async def handle(reader, writer):
        try:
            await serve(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for _ in range(5):  # a connection that was accepted just now has its handler, to be closed
            await asyncio.sleep(0)


def message(kind, body):
    """A message of PostgreSQL's protocol."""
    return kind + struct.pack("!i", len(body) + 4) + body


def greeting():
    """What a server says to a client that it lets in without a password."""
    parameters = {
        "server_version": "15.0",
        "server_encoding": "UTF8",
        "client_encoding": "UTF8",
        "DateStyle": "ISO, MDY",
        "standard_conforming_strings": "on",
        "integer_datetimes": "on",
    }
    return b"".join(
        [
            message(b"R", struct.pack("!i", 0)),
            *(message(b"S", f"{k}\0{v}\0".encode()) for k, v in parameters.items()),
            message(b"K", struct.pack("!ii", 1, 2)),
            message(b"Z", b"I"),
        ]
    )


def error_response(severity, sqlstate, text, encoding="utf-8"):
    """The message with which a server refuses."""
    fields = {"S": severity, "V": severity, "C": sqlstate, "M": text}
    body = b"".join(f"{key}{value}\0".encode(encoding) for key, value in fields.items()) + b"\0"
    return message(b"E", body)


def running(conn, mark):
    """How many statements with this text in them the server executes, seen from outside."""
    sql = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE state = 'active' AND query LIKE %s AND pid <> pg_backend_pid()"
    )
    return scalar(conn, sql, (f"%{mark}%",))


def asleep(conn, mark):
    """How many statements with this text in them are in pg_sleep(): a cancel request meets that."""
    sql = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE wait_event = 'PgSleep' AND query LIKE %s AND pid <> pg_backend_pid()"
    )
    return scalar(conn, sql, (f"%{mark}%",))


def blocked(conn, mark):
    """How many statements with this text in them wait for a lock."""
    sql = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE wait_event_type = 'Lock' AND query LIKE %s AND pid <> pg_backend_pid()"
    )
    return scalar(conn, sql, (f"%{mark}%",))


@contextlib.contextmanager
def nothing_left(conn, mark):
    """End whatever still runs with this text in it after the block, for the next test."""
    yield
    scalar(
        conn,
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
        "WHERE query LIKE %s AND pid <> pg_backend_pid()",
        (f"%{mark}%",),
    )
