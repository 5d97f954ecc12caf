"""What aiopg's README and documentation show, as programs: same calls, on both packages.

`aiopg` stands for the package under test in each of them.
"""

# ruff: noqa: SIM117 - nested as the documentation shows it

import asyncio
import logging
import os
import subprocess
import sys

import psycopg2
import psycopg2.extensions
import psycopg2.extras
import pytest
from support import new_loop, shut_down


@pytest.fixture
def aiopg(impl):
    return impl


@pytest.fixture(scope="module", autouse=True)
def tables(dsn):
    conn = psycopg2.connect(dsn)
    with conn, conn.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE tbl (id serial PRIMARY KEY, val text);"
            "CREATE TABLE docs (val jsonb);"
            "INSERT INTO tbl (val) VALUES ('one'), ('two'), ('three');"
        )
    conn.close()


def test_opening_example(aiopg, dsn, loop_kind):
    """A pool from create_pool, a connection from acquire, rows by async for."""

    async def go():
        pool = await aiopg.create_pool(dsn)
        async with pool.acquire() as conn, conn.cursor() as cur:
            await cur.execute("SELECT 1")
            got = [row async for row in cur]
        pool.close()
        await pool.wait_closed()
        return got

    loop = new_loop(loop_kind)
    try:
        assert loop.run_until_complete(go()) == [(1,)]
    finally:
        shut_down(loop)


@pytest.mark.all_loops
async def test_pool_as_context(aiopg, dsn):
    async with aiopg.create_pool(dsn) as pool:
        async with pool.acquire() as conn:
            async with conn.cursor() as cur:
                await cur.execute("SELECT 1")
                got = []
                async for row in cur:
                    got.append(row)
                assert got == [(1,)]
    assert pool.closed


async def test_connection_by_keywords(aiopg, dsn):
    given = psycopg2.extensions.parse_dsn(dsn)
    given["database"] = given.pop("dbname")
    conn = await aiopg.connect(**given)
    cur = await conn.cursor()
    await cur.execute("SELECT val FROM tbl ORDER BY id")
    assert await cur.fetchall() == [("one",), ("two",), ("three",)]
    cur.close()
    await conn.close()


async def test_fetches(aiopg, dsn):
    async with aiopg.connect(dsn) as conn, conn.cursor() as cur:
        await cur.execute("SELECT id, val FROM tbl WHERE id = %s", (3,))
        assert await cur.fetchone() == (3, "three")
        await cur.execute("SELECT id FROM tbl ORDER BY id")
        assert await cur.fetchmany(2) == [(1,), (2,)]
        assert await cur.fetchmany(2) == [(3,)]
        assert await cur.fetchmany(2) == []
        try:
            await cur.scroll(1000 * 1000)
        except (psycopg2.ProgrammingError, IndexError) as error:
            assert "out of bounds" in str(error)
        else:
            pytest.fail("scrolled beyond the end")


async def test_query_and_mogrify(aiopg, dsn):
    """mogrify is no coroutine any more."""
    async with aiopg.connect(dsn) as conn, conn.cursor() as cur:
        statement = "INSERT INTO tbl (val) VALUES (%s)"
        text = b"INSERT INTO tbl (val) VALUES ('four')"
        assert cur.mogrify(statement, ("four",)) == text
        async with cur.begin():
            await cur.execute(statement, ("four",))
            assert cur.query == text
            assert cur.statusmessage == "INSERT 0 1"
            await cur.execute("DELETE FROM tbl WHERE val = 'four'")


async def test_notices(aiopg, dsn):
    async with aiopg.connect(dsn) as conn, conn.cursor() as cur:
        await cur.execute("CREATE TABLE IF NOT EXISTS tbl ()")
        assert conn.notices == ['NOTICE:  relation "tbl" already exists, skipping\n']


@pytest.mark.all_loops
async def test_listen_and_notify(aiopg, dsn):
    received = []

    async def notify(conn):
        async with conn.cursor() as cur:
            for i in range(5):
                await cur.execute("NOTIFY channel, %s", (f"message {i}",))
            await cur.execute("NOTIFY channel, 'finish'")

    async def listen(conn, listening):
        async with conn.cursor() as cur:
            await cur.execute("LISTEN channel")
            listening.set()
            while True:
                msg = await conn.notifies.get()
                if msg.payload == "finish":
                    return
                received.append(msg.payload)

    async with aiopg.connect(dsn) as conn, aiopg.create_pool(dsn) as pool:
        async with pool.acquire() as other:
            listening = asyncio.Event()
            task = asyncio.create_task(listen(conn, listening))
            await listening.wait()
            await asyncio.wait_for(asyncio.gather(task, notify(other)), 10)
    assert received == [f"message {i}" for i in range(5)]


async def test_transactions(aiopg, dsn):
    async with aiopg.create_pool(dsn) as pool:
        async with pool.acquire() as conn, conn.cursor() as cur:
            await cur.execute("CREATE TEMP TABLE steps (i int)")
            for level in (
                aiopg.IsolationLevel.repeatable_read,
                aiopg.IsolationLevel.read_committed,
                aiopg.IsolationLevel.serializable,
            ):
                async with aiopg.Transaction(cur, level) as transaction:
                    await cur.execute("INSERT INTO steps VALUES (1)")
                    async with transaction.point():
                        await cur.execute("INSERT INTO steps VALUES (3)")
                    await cur.execute("INSERT INTO steps VALUES (4)")
            await cur.execute("SELECT count(*), sum(i) FROM steps")
            assert await cur.fetchone() == (9, 24)


async def test_nested_transactions(aiopg, dsn):
    async with aiopg.connect(dsn) as conn, conn.cursor() as cur:
        await cur.execute("CREATE TEMP TABLE steps (i int)")
        async with cur.begin_nested():
            await cur.execute("INSERT INTO steps VALUES (1)")
            with pytest.raises(psycopg2.DataError):
                async with cur.begin_nested():
                    await cur.execute("INSERT INTO steps VALUES (1/0)")
            async with cur.begin_nested():
                await cur.execute("INSERT INTO steps VALUES (2)")
        async with cur.begin():
            await cur.execute("SELECT i FROM steps ORDER BY i")
            assert await cur.fetchall() == [(1,), (2,)]


async def test_cursor_of_a_pool(aiopg, dsn):
    async with aiopg.create_pool(dsn) as pool:
        with await pool.cursor() as cur:
            await cur.execute("SELECT 1")
            assert await cur.fetchone() == (1,)
        with await pool as conn:
            cur = await conn.cursor()
            await cur.execute("SELECT 2")
            assert await cur.fetchone() == (2,)
            cur.close()
        assert pool.freesize == pool.size == 1


async def test_json(aiopg, dsn):
    data = {"list": [1, 2, {"deep": None}], "text": "grüße"}
    async with aiopg.connect(dsn) as conn, conn.cursor() as cur:
        await cur.execute("INSERT INTO docs VALUES (%s)", [psycopg2.extras.Json(data)])
        await cur.execute("SELECT val FROM docs")
        assert await cur.fetchone() == (data,)


async def test_rows_as_dicts(aiopg, dsn):
    async with aiopg.connect(dsn) as conn:
        async with conn.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cur:
            await cur.execute("SELECT id, val FROM tbl WHERE id = 1")
            assert await cur.fetchone() == {"id": 1, "val": "one"}


async def test_echo(aiopg, dsn, caplog):
    with caplog.at_level(logging.INFO, logger="aiopg"):
        async with aiopg.create_pool(dsn, minsize=1, maxsize=1, echo=True) as pool:
            async with pool.acquire() as conn, conn.cursor() as cur:
                await cur.execute("SELECT %s", (1,))
    assert "SELECT %s" in [record.getMessage() for record in caplog.records]


async def test_timeout(aiopg, dsn):
    async with aiopg.connect(dsn) as conn, conn.cursor(timeout=0.1) as cur:
        with pytest.raises(asyncio.TimeoutError):
            await cur.execute("SELECT pg_sleep(10)")


SERVICE = '''
"""A small worker: jobs in a table, several tasks, one listener."""
import asyncio
import sys

import psycopg2.extras
import {name} as aiopg


async def work(pool, done):
    while True:
        async with pool.acquire() as conn:
            async with conn.cursor(cursor_factory=psycopg2.extras.DictCursor) as cur:
                async with cur.begin():
                    await cur.execute(
                        "SELECT id, n FROM jobs WHERE NOT done ORDER BY id LIMIT 1"
                        " FOR UPDATE SKIP LOCKED")
                    job = await cur.fetchone()
                    if job is None:
                        return
                    await cur.execute(
                        "UPDATE jobs SET done = true, result = %(r)s WHERE id = %(id)s",
                        {{"r": job["n"] ** 2, "id": job["id"]}})
                    await cur.execute("SELECT pg_notify('done', %s)", (str(job["id"]),))
        done.append(job["id"])


async def main(dsn):
    async with aiopg.create_pool(dsn, minsize=2, maxsize=4) as pool:
        async with aiopg.connect(dsn) as listener:
            async with listener.cursor() as cur:
                await cur.execute("LISTEN done")
            with await pool.cursor() as cur:
                await cur.execute("DROP TABLE IF EXISTS jobs")
                await cur.execute("CREATE TABLE jobs (id serial, n int, result int,"
                                  " done bool DEFAULT false)")
                await cur.execute("INSERT INTO jobs (n) SELECT generate_series(1, 40)")
            done = []
            await asyncio.gather(*(work(pool, done) for _ in range(4)))
            heard = [int((await listener.notifies.get()).payload) for _ in range(40)]
            with await pool.cursor() as cur:
                await cur.execute("SELECT sum(result), bool_and(done) FROM jobs")
                print(*(await cur.fetchone()), sorted(heard) == sorted(done), pool.freesize)

asyncio.run(main(sys.argv[1]))
'''


def test_a_whole_program(impl, dsn):
    """Nothing but the name in the import line differs."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SERVICE.format(name=impl.__name__), dsn],
        capture_output=True,
        text=True,
        timeout=50,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert done.stderr == ""
    assert done.stdout.split()[:3] == ["22140", "True", "True"]
