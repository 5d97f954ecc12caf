"""Drills: results that do not fit into the memory a process may take; values of 1 GiB and more.

The long form (`make drill`) does it with 2 GB, and 1.6 GB for the process.
"""

import asyncio
import io
import subprocess
import sys
from pathlib import Path

import psycopg2
import pytest
from drills import resident
from support import LONG, fetch

RESULT, LIMIT = (2000, 1600) if LONG else (32, 20)  # MB

# libpq's own words, in the class that psycopg2 gives them: its road has the same.
NO_RESULT = "DatabaseError out of memory for query result, usable"
OUTCOMES = {
    **dict.fromkeys(["text", "prepared", "pipeline", "dicts", "shared", "named"], NO_RESULT),
    "psycopg2s": NO_RESULT,
    # in the long form the buffer has room for PostgreSQL's largest value, and the result none
    "one_value": NO_RESULT
    if LONG
    else "OperationalError cannot allocate memory for input buffer, closed",
    **dict.fromkeys(["objects", "object_dicts", "object_records"], "MemoryError, usable"),
    "stream": "no error, usable",
}


@pytest.mark.timeout(3600 if LONG else 60)
@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_results_that_do_not_fit(dsn, kind):
    """An error each time, and the connection can be used, or is closed; a stream needs no room."""
    program = str(Path(__file__).with_name("confined.py"))
    command = [sys.executable, program, dsn, str(RESULT), str(LIMIT), kind]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout + ended.stderr
    told = dict(line.split(": ", 1) for line in ended.stdout.splitlines())
    # the program's own file had no room: what is left of the COPY is stopped, or its connection
    assert told.pop("copy_out") in ("MemoryError, usable", "MemoryError, closed")
    assert told == OUTCOMES


# --- values of 1 GiB ------------------------------------------------------------------------------

GIB = 2**30


async def text(conn, pool, value):
    conn.prepare_threshold = None
    await fetch(conn, "SELECT length(%s)", (value,))


async def named_values(conn, pool, value):
    await fetch(conn, "SELECT length(%(a)s)", {"a": value})


async def prepared(conn, pool, value):
    conn.prepare_threshold = 0
    await fetch(conn, "SELECT length(%s)", (value,))


async def psycopg2s_road(conn, pool, value):
    async with conn.cursor() as cur:
        assert cur.raw
        await cur.execute("SELECT length(%s)", (value,))


async def named(conn, pool, value):
    async with conn.cursor() as cur, cur.begin(), conn.cursor("huge") as pages:
        await pages.execute("SELECT length(%s)", (value,))


async def stream(conn, pool, value):
    async with conn.cursor() as cur:
        assert [row async for row in cur.stream("SELECT length(%s)", (value,))]


async def pipeline(conn, pool, value):
    """The others have their results."""
    async with conn.cursor() as cur, conn.cursor() as huge, conn.pipeline():
        await cur.execute("SELECT 1")
        try:
            await huge.execute("SELECT length(%s)", (value,))
        finally:
            assert await cur.fetchall() == [(1,)]


async def shared(conn, pool, value):
    other = asyncio.ensure_future(pool.execute("SELECT 1"))
    try:
        await pool.execute("SELECT length(%s)", (value,))
    finally:
        assert await (await other).fetchall() == [(1,)]


async def executemany(conn, pool, value):
    async with conn.cursor() as cur:
        await cur.executemany("SELECT length(%s)", [("a",), (value,), ("b",)])


async def execute_batch(conn, pool, value):
    async with conn.cursor() as cur:
        await cur.execute_batch("SELECT length(%s)", [("a",), (value,), ("b",)])


async def copy_records(conn, pool, value):
    async with conn.cursor() as cur:
        await cur.execute("CREATE TEMP TABLE IF NOT EXISTS huge (t bytea)")
        await cur.copy_records("huge", [(b"a",), (value,)])


WAYS = [
    *(text, named_values, prepared, psycopg2s_road, named, stream, pipeline, shared, executemany),
    *(execute_batch, copy_records),
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_a_parameter_of_1_gib(ours, pool, way):
    """Refused at once: it is not even copied, so that its memory is never touched."""
    connections = await pool(minsize=1, maxsize=2)
    before = resident()
    async with connections.acquire() as conn:
        pid = conn.raw.info.backend_pid
        with pytest.raises(psycopg2.DataError, match=r"1 GiB|too long for COPY"):
            await way(conn, connections, bytes(GIB))
        assert await fetch(conn, "SELECT pg_backend_pid()") == [(pid,)]
    assert resident() - before < 100
    assert connections.size == connections.freesize


async def text_of_1_gib(conn, pool):
    await conn.execute("SELECT length('" + "x" * GIB + "')")


async def escaped(conn, pool):
    """As a literal, twice as large as it is."""
    conn.prepare_threshold = None
    await fetch(conn, "SELECT length(%s)", (bytes(GIB // 2),))


async def together(conn, pool):
    conn.prepare_threshold = 0
    await fetch(conn, "SELECT length(%s), length(%s)", (bytes(GIB // 2), bytes(GIB // 2)))


async def str_of_1_gib(conn, pool):
    await fetch(conn, "SELECT length(%s)", ("x" * GIB,))


async def line_of_1_gib(conn, pool):
    async with conn.cursor() as cur:
        await cur.execute("CREATE TEMP TABLE IF NOT EXISTS huge (t bytea)")
        await cur.copy_from(io.BytesIO(b"x" * GIB + b"\n"), "huge")


async def piece_of_1_gib(conn, pool):
    async def pieces():
        yield b"x" * GIB

    async with conn.cursor() as cur:
        await cur.execute("CREATE TEMP TABLE IF NOT EXISTS huge (t bytea)")
        await cur.copy_expert("COPY huge FROM STDIN", pieces())


if LONG:  # some gigabytes each

    @pytest.mark.timeout(3600)
    @pytest.mark.parametrize(
        "way",
        [text_of_1_gib, escaped, together, str_of_1_gib, line_of_1_gib, piece_of_1_gib],
        ids=lambda way: way.__name__,
    )
    async def test_a_statement_of_1_gib(ours, pool, way):
        connections = await pool(minsize=1, maxsize=1, timeout=600)
        async with connections.acquire() as conn:
            with pytest.raises(psycopg2.Error) as error:
                await way(conn, connections)
            print(type(error.value), str(error.value)[:100])
            assert await fetch(conn, "SELECT 1") == [(1,)]
