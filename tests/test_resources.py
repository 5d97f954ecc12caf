"""What is left open is told, and what is closed is gone: warnings, cycles, descriptors, memory."""

import asyncio
import contextlib
import gc
import os
import subprocess
import sys
import warnings
import weakref

import psycopg2
import psycopg2.extras
import pytest
from support import activity, fetch, until

UNCLOSED = "Unclosed connection"


# --- dropped connections --------------------------------------------------------------------------


@pytest.mark.all_loops
async def test_dropped_connection(impl, dsn, side, loop_errors):
    """Closed, a ResourceWarning, the exception handler."""
    conn = await impl.connect(dsn)
    pid = await conn.get_backend_pid()
    with pytest.warns(ResourceWarning, match=UNCLOSED) as caught:
        del conn
        gc.collect()
    assert len(caught) == 1
    start = (
        f"Unclosed connection <{impl.__name__}.connection::Connection isexecuting=False, closed="
    )
    assert str(caught[0].message).startswith(start)
    (context,) = [c for c in loop_errors if c["message"] == UNCLOSED]
    assert type(context["connection"]) is impl.Connection
    assert ("source_traceback" in context) == asyncio.get_running_loop().get_debug()
    loop_errors.clear()
    del context
    await until(lambda: activity(side, pid) is None)


async def test_source_traceback(impl, dsn, loop_errors):
    asyncio.get_running_loop().set_debug(True)
    conn = await impl.connect(dsn)
    with pytest.warns(ResourceWarning, match=UNCLOSED):
        del conn
        gc.collect()
    (context,) = [c for c in loop_errors if c["message"] == UNCLOSED]
    assert any(
        frame.filename == __file__ and frame.name == "test_source_traceback"
        for frame in context["source_traceback"]
    )
    loop_errors.clear()


async def test_dropped_by_reference_count(ours, dsn, loop_errors, no_gc):
    """Nothing that a query leaves behind makes a cycle."""
    conn = await ours.connect(dsn)
    async with conn.cursor() as cursor:
        await cursor.execute("SELECT generate_series(1, 10)")
        await cursor.fetchone()
    with contextlib.suppress(psycopg2.errors.DivisionByZero):
        await fetch(conn, "SELECT 1/0")
    del cursor
    with pytest.warns(ResourceWarning, match=UNCLOSED):
        del conn
    loop_errors.clear()


async def test_a_cursor_keeps_its_connection(impl, dsn):
    conn = await impl.connect(dsn)
    cursor = await conn.cursor()
    del conn
    gc.collect()
    await cursor.execute("SELECT 1")
    assert await cursor.fetchone() == (1,)
    await cursor.connection.close()


async def test_a_running_query_keeps_its_connection(impl, dsn):
    async def ask():
        async with impl.connect(dsn) as conn:
            return await fetch(conn, "SELECT pg_sleep(0.05), 1")

    task = asyncio.create_task(ask())
    for _ in range(5):
        await asyncio.sleep(0.01)
        gc.collect()
    assert await task == [("", 1)]


async def test_closed_connection_is_dropped_silently(impl, dsn):
    conn = await impl.connect(dsn)
    ref = weakref.ref(conn)
    await conn.close()
    with warnings.catch_warnings(record=True) as caught:
        del conn
        gc.collect()
    assert ref() is None
    assert caught == []


async def test_connection_in_a_cycle(impl, dsn, loop_errors):
    conn = await impl.connect(dsn)
    conn.me = conn
    with pytest.warns(ResourceWarning, match=UNCLOSED):
        del conn
        gc.collect()
    assert UNCLOSED in [context["message"] for context in loop_errors]
    loop_errors.clear()


async def test_connect_never_awaited(impl, dsn, loop_errors):
    with pytest.warns(ResourceWarning, match=UNCLOSED):
        connecting = impl.connect(dsn)
        del connecting
        gc.collect()
    assert UNCLOSED in [context["message"] for context in loop_errors]
    loop_errors.clear()
    gc.collect()
    # aiopg's own waiter may complain once the connection has gone
    assert [c for c in loop_errors if c["message"] != "Future exception was never retrieved"] == []
    loop_errors.clear()


async def test_failed_connect_is_silent(impl, dsn):
    with warnings.catch_warnings(record=True) as caught:
        with pytest.raises(psycopg2.OperationalError):
            await impl.connect(dsn, dbname="nowhere")
        gc.collect()
    assert [str(w.message) for w in caught] == []


async def test_execute_never_awaited(connect):
    conn = await connect()
    async with conn.cursor() as cursor:
        with pytest.warns(RuntimeWarning, match="was never awaited"):
            cursor.execute("SELECT 1")
            gc.collect()
        await cursor.execute("SELECT 2")
        assert await cursor.fetchone() == (2,)


async def test_cursors_are_freed_by_reference_count(ours, connect, no_gc):
    class Tracked(psycopg2.extras.DictCursor):
        pass

    conn = await connect()
    for factory in (None, psycopg2.extras.DictCursor, Tracked):
        cursor = await conn.cursor(cursor_factory=factory)
        await cursor.execute("SELECT 1 AS a")
        await cursor.fetchall()
        ref = weakref.ref(cursor)
        cursor.close()
        del cursor
        assert ref() is None


PROGRAM = """
import asyncio, sys
import {name} as aiopg

async def main():
    conn = await aiopg.connect(sys.argv[1])

asyncio.run(main())
"""


def test_warning_is_shown_without_asking(impl, dsn):
    """ResourceWarnings are hidden by default; this one is not."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(name=impl.__name__), dsn],
        capture_output=True,
        text=True,
        env={k: v for k, v in os.environ.items() if k != "PYTHONWARNINGS"},
        check=True,
    )
    assert "ResourceWarning: Unclosed connection" in done.stderr


INTERRUPTED = """
import asyncio, sys
import {name} as aiopg

async def main():
    conn = await aiopg.connect(sys.argv[1])
    cursor = await conn.cursor()
    task = asyncio.create_task(cursor.execute("SELECT pg_sleep(30)"))
    await asyncio.sleep(0.1)

asyncio.run(main())
print("done")
"""


def test_exit_with_a_query_under_way(impl, dsn):
    """The interpreter ends at once, and in good order."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", INTERRUPTED.format(name=impl.__name__), dsn],
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert (done.returncode, done.stdout) == (0, "done\n")
    assert "Fatal" not in done.stderr


# --- nothing piles up -----------------------------------------------------------------------------


def descriptors():
    return len(os.listdir("/dev/fd"))


async def test_connections_leave_no_descriptor(impl, dsn):
    await (await impl.connect(dsn)).close()
    count = descriptors()
    for _ in range(10):
        async with impl.connect(dsn) as conn:
            await fetch(conn, "SELECT 1")
    await until(lambda: descriptors() <= count)


async def test_cancelled_queries_leave_no_descriptor(impl, dsn):
    async def cancelled():
        async with impl.connect(dsn) as conn:
            task = asyncio.create_task(fetch(conn, "SELECT pg_sleep(5)"))
            await asyncio.sleep(0.02)
            task.cancel()
            await asyncio.wait([task])

    await cancelled()
    await asyncio.sleep(0.1)
    count = descriptors()
    for _ in range(5):
        await cancelled()
    await until(lambda: descriptors() <= count)


async def growth(ask, times=300):
    """Blocks of memory that some more calls take, at the best of three tries."""
    await ask(times)
    grown = []
    for _ in range(3):
        gc.collect()
        before = sys.getallocatedblocks()
        await ask(times)
        gc.collect()
        grown.append(sys.getallocatedblocks() - before)
    return min(grown)


@pytest.mark.parametrize(
    ("factory", "sql", "parameters"),
    [
        (None, "SELECT 1", None),
        (None, "SELECT %s, %s::text", (1, "x")),
        (psycopg2.extras.DictCursor, "SELECT 1 AS a, 'x' AS b", None),
        (psycopg2.extras.RealDictCursor, "SELECT 1 AS a, 'x' AS b", None),
        (psycopg2.extras.NamedTupleCursor, "SELECT 1 AS a, 'x' AS b", None),
        (None, "SELECT now(), 1.5::numeric, ARRAY[1, 2], '{}'::json, 'x'::bytea, NULL", None),
        (None, "SELECT 1/0", None),
        (None, "SELECT %s", ()),
    ],
)
async def test_queries_leave_no_memory(ours, connect, factory, sql, parameters):
    conn = await connect()

    async def ask(times):
        for _ in range(times):
            async with conn.cursor(cursor_factory=factory) as cursor:
                with contextlib.suppress(psycopg2.Error, IndexError):
                    await cursor.execute(sql, parameters)
                    await cursor.fetchall()

    assert await growth(ask) < 100


async def test_notices_and_notifies_leave_no_memory(ours, connect):
    conn = await connect()
    cursor = await conn.cursor()
    await cursor.execute("LISTEN news")

    async def ask(times):
        for _ in range(times):
            await cursor.execute("DO $$ BEGIN RAISE NOTICE 'x'; END $$")
            await cursor.execute("NOTIFY news")
            await conn.notifies.get()

    assert await growth(ask, 200) < 100
