"""What the drills cancel: one operation of each kind, of right outcome if nothing happens to it.

Each takes a pool of one connection, the package, and a dsn for connections of its own.
"""

from __future__ import annotations

import asyncio
import io

from psycopg2.extensions import TRANSACTION_STATUS_IDLE
from support import fetch, underway

import aiopgx.sa.engine

SETUP = """
    CREATE TABLE drilled (n int, t text);
    CREATE FUNCTION twice(n int) RETURNS int LANGUAGE sql AS 'SELECT n + n'
"""


# --- statements -----------------------------------------------------------------------------------


async def text(pool, impl, dsn):
    async with pool.acquire() as conn:
        conn.prepare_threshold = None
        assert await fetch(conn, "SELECT %s::int, pg_sleep(0)::text", (5,)) == [(5, "")]


async def prepared(pool, impl, dsn):
    async with pool.acquire() as conn:
        conn.prepare_threshold = 0
        assert await fetch(conn, "SELECT %s::int + 1", (5,)) == [(6,)]


async def psycopg2s_road(pool, impl, dsn):
    async with pool.acquire() as conn, conn.cursor() as cur:
        assert cur.raw
        await cur.execute("SELECT %s::int + 2", (5,))
        assert await cur.fetchall() == [(7,)]


async def callproc(pool, impl, dsn):
    async with pool.cursor() as cur:
        await cur.callproc("twice", (21,))
        assert await cur.fetchone() == (42,)


async def committed(pool, impl, dsn):
    async with pool.acquire() as conn, conn.cursor() as cur, cur.begin():
        await cur.execute("INSERT INTO drilled VALUES (1)")


async def rolled_back(pool, impl, dsn):
    async with pool.cursor() as cur:
        transaction = impl.Transaction(cur, impl.IsolationLevel.repeatable_read)
        await transaction.begin()
        try:
            await cur.execute("INSERT INTO drilled VALUES (2)")
        finally:
            await transaction.rollback()


async def savepoints(pool, impl, dsn):
    async with pool.cursor() as cur, cur.begin(), cur.begin_nested():
        await cur.execute("SELECT 3")
        assert await cur.fetchone() == (3,)


async def named(pool, impl, dsn):
    async with pool.acquire() as conn:
        raw = await conn.cursor()
        async with raw.begin(), conn.cursor("drill") as cur:
            await cur.execute("SELECT generate_series(1, 5)")
            assert await cur.fetchmany(2) == [(1,), (2,)]
            assert [row async for row in cur] == [(3,), (4,), (5,)]


async def stream(pool, impl, dsn):
    async with pool.cursor() as cur:
        rows = cur.stream("SELECT generate_series(1, 5)", size=2)
        assert [row async for row in rows] == [(n,) for n in range(1, 6)]


async def pipeline(pool, impl, dsn):
    async with pool.acquire() as conn:
        cursors = [await conn.cursor() for _ in range(3)]
        async with conn.pipeline():
            for number, cur in enumerate(cursors):
                await cur.execute("SELECT %s::int", (number,))
        assert [await cur.fetchone() for cur in cursors] == [(0,), (1,), (2,)]


async def executemany(pool, impl, dsn):
    async with pool.cursor() as cur:
        await cur.executemany("INSERT INTO drilled VALUES (%s)", [(n,) for n in range(5)])
        assert cur.rowcount == 5


async def execute_values(pool, impl, dsn):
    async with pool.cursor() as cur:
        await cur.execute_values("INSERT INTO drilled (n) VALUES %s", [(n,) for n in range(5)])


async def copy_from(pool, impl, dsn):
    async with pool.cursor() as cur:
        await cur.copy_from(io.StringIO("1\ta\n2\tb\n"), "drilled")
        assert cur.rowcount == 2


async def copy_to(pool, impl, dsn):
    async with pool.cursor() as cur:
        file = io.StringIO()
        await cur.copy_expert("COPY (SELECT generate_series(1, 3)) TO STDOUT", file)
        assert file.getvalue() == "1\n2\n3\n"


async def copy_records(pool, impl, dsn):
    async with pool.acquire() as conn:
        await conn.copy_records_to_table("drilled", records=[(1, "a"), (2, "b")])


async def shared(pool, impl, dsn):
    cur = await pool.execute("SELECT %s::int", (8,))
    assert await cur.fetchall() == [(8,)]


async def shared_on_its_own(pool, impl, dsn):
    cur = await pool.execute("SELECT %s::int", (9,), shared=False)
    assert await cur.fetchall() == [(9,)]


async def connected(pool, impl, dsn):
    async with impl.connect(dsn) as conn:
        assert await fetch(conn, "SELECT 1") == [(1,)]


async def closed(pool, impl, dsn):
    conn = await impl.connect(dsn)
    try:
        await conn.close()
    finally:
        conn.close()


async def whole_pool(pool, impl, dsn):
    async with impl.create_pool(dsn, minsize=2) as other:
        try:
            async with other.acquire() as conn:
                assert await fetch(conn, "SELECT 1") == [(1,)]
            await other.clear()
        except BaseException:
            other.terminate()
            raise


async def on_connect(pool, impl, dsn):
    async def prepare(conn):
        assert await fetch(conn, "SELECT 2") == [(2,)]

    async with impl.create_pool(dsn, minsize=0, on_connect=prepare) as other, other.cursor() as cur:
        await cur.execute("SELECT 1")


async def notified(pool, impl, dsn):
    async with impl.connect(dsn) as conn, conn.cursor() as cur:
        await cur.execute("LISTEN drill")
        await cur.execute("NOTIFY drill, 'heard'")
        assert (await conn.notifies.get()).payload == "heard"


# --- what waits for something else than its own answer --------------------------------------------


async def waited_for_the_pool(pool, impl, dsn):
    first = await pool.acquire()
    asyncio.get_running_loop().call_soon(pool.release, first)
    async with pool.acquire() as conn:
        assert await fetch(conn, "SELECT 4") == [(4,)]


async def stream_left(pool, impl, dsn):
    async with pool.cursor() as cur:
        rows = cur.stream("SELECT n FROM generate_series(1, 9) n", size=1)
        async for row in rows:
            assert row == (1,)
            break
        await rows.aclose()


async def portal_left(pool, impl, dsn):
    async with pool.acquire() as conn:
        cur = await conn.cursor("drill", withhold=True)
        await cur.execute("SELECT generate_series(1, 5)")
        assert await cur.fetchone() == (1,)


async def checked_and_reset(pool, impl, dsn):
    hooks = {"check": impl.check_connection, "reset": impl.discard_all}
    async with impl.create_pool(dsn, minsize=1, maxsize=1, **hooks) as other:
        for _ in range(2):
            async with other.acquire() as conn:
                assert await fetch(conn, "SELECT 5") == [(5,)]


async def pool_closed_with_a_user(pool, impl, dsn):
    other = await impl.create_pool(dsn, minsize=1)
    try:
        conn = await other.acquire()
        other.close()
        asyncio.get_running_loop().call_soon(other.release, conn)
        await other.wait_closed()
    finally:
        other.terminate()


async def closed_in_flight(pool, impl, dsn):
    conn = await impl.connect(dsn)
    try:
        await begun(conn, "SELECT pg_sleep(30)")
        await conn.close()
    finally:
        conn.close()


async def cancelled_by_hand(pool, impl, dsn):
    async with pool.acquire() as conn:
        try:
            await begun(conn, "SELECT pg_sleep(30)")
            await conn.cancel()
            assert await fetch(conn, "SELECT 6") == [(6,)]
        except BaseException:
            conn.close()  # its release would warn
            raise


async def begun(conn, sql):
    """Wait until a statement is in flight, whose outcome nobody will look at."""
    task = asyncio.ensure_future(fetch(conn, sql))
    task.add_done_callback(lambda task: task.cancelled() or task.exception())
    await underway(conn, task)


# --- above connections ----------------------------------------------------------------------------


async def two_phase(pool, impl, dsn):
    """What was prepared outlives its connection: the next try begins with its end."""
    async with pool.acquire() as conn:
        for xid in await conn.tpc_recover():
            if xid.gtrid == "drill":
                await conn.tpc_rollback(xid)
        try:
            await conn.tpc_begin(await conn.xid(1, "drill", "b"))
            await conn.execute("INSERT INTO drilled VALUES (3)")
            await conn.tpc_prepare()
            await conn.tpc_commit()
        except BaseException:
            conn.close()  # its release would warn
            raise


async def reset(pool, impl, dsn):
    async with pool.acquire() as conn:
        try:
            await conn.execute("BEGIN")
            await conn.reset()
        finally:
            if await conn.get_transaction_status() != TRANSACTION_STATUS_IDLE:
                conn.close()  # its release would warn


async def listened(pool, impl, dsn):
    async with impl.Listener(dsn, ["drill"]) as listener:
        await pool.execute("SELECT pg_notify('drill', 'heard')")
        assert (await anext(listener)).payload == "heard"


async def listened_in_the_pool(pool, impl, dsn):
    async with impl.Listener(pool, ["drill"]) as listener:
        await listener.listen("other")
        await listener.unlisten("other")


async def engine(pool, impl, dsn):
    result = await engine_of(pool).execute("SELECT 11")
    assert (await result.fetchone()).as_tuple() == (11,)


async def engine_transaction(pool, impl, dsn):
    async with engine_of(pool).acquire() as conn, conn.begin(), conn.begin_nested():
        assert await conn.scalar("SELECT 12") == 12


def engine_of(pool):
    return aiopgx.sa.engine.Engine(aiopgx.sa.engine.get_dialect(), pool, "")


OPERATIONS = [
    *(text, prepared, psycopg2s_road, callproc, committed, rolled_back, savepoints, named),
    *(stream, executemany, execute_values, copy_from, copy_to, copy_records),
    *(pipeline, shared, shared_on_its_own, connected, closed, whole_pool, on_connect, notified),
    *(waited_for_the_pool, stream_left, portal_left, checked_and_reset, pool_closed_with_a_user),
    *(closed_in_flight, cancelled_by_hand, two_phase, reset, listened, listened_in_the_pool),
    *(engine, engine_transaction),
]
