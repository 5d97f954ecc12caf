"""Two-phase commit, as psycopg2's synchronous connections have it; reset()."""

import asyncio
import inspect

import psycopg2
import psycopg2.errors
import pytest
from psycopg2.extensions import Xid
from support import fetch, scalar, side_connection, underway, until


@pytest.fixture(scope="module")
def preparing(dsn):
    with side_connection(dsn) as conn, conn.cursor() as cursor:
        cursor.execute("CREATE TABLE account (name text, UNIQUE (name) DEFERRABLE)")
    return dsn


@pytest.fixture
def onlooker(preparing):
    """A synchronous connection; afterwards nothing is prepared."""
    with side_connection(preparing) as conn:
        yield conn
        with conn.cursor() as cursor:
            cursor.execute("SELECT gid FROM pg_prepared_xacts")
            for (gid,) in cursor.fetchall():
                cursor.execute("ROLLBACK PREPARED %s", (gid,))
            cursor.execute("TRUNCATE account")


@pytest.fixture
def two_phase(ours, preparing, runner):
    async def make(**kwargs):
        conn = await ours.connect(preparing, **kwargs)
        runner.stack.callback(conn.close)
        return conn

    return make


# --- as psycopg2 ----------------------------------------------------------------------------------

XID = Xid(7, "global", "branch")
INSERT = ("execute", "INSERT INTO account VALUES ('a')")
TWICE = ("execute", "SET CONSTRAINTS ALL DEFERRED; INSERT INTO account VALUES ('b'), ('b')")
FAIL = ("execute", "SELECT 1/0")

# What is called one after the other, on both.
SEQUENCES = {
    "commit": [("tpc_begin", XID), INSERT, ("tpc_prepare",), ("tpc_commit",)],
    "rollback": [("tpc_begin", XID), INSERT, ("tpc_prepare",), ("tpc_rollback",)],
    "commit in one phase": [("tpc_begin", XID), INSERT, ("tpc_commit",), ("tpc_begin", "x")],
    "rollback in one phase": [("tpc_begin", XID), INSERT, ("tpc_rollback",), ("tpc_begin", "x")],
    "a str": [("tpc_begin", "it's é \\ %s"), ("tpc_prepare",), ("tpc_recover",), ("tpc_commit",)],
    "no text at all": [("tpc_begin", ""), ("tpc_prepare",), ("tpc_rollback",)],
    "long": [("tpc_begin", "x" * 250), ("tpc_prepare",), ("tpc_rollback",), ("tpc_begin", "y")],
    "not an xid": [("tpc_begin", 5), ("tpc_begin", None), ("tpc_commit", 5), ("tpc_rollback", 5)],
    "out of order": [("tpc_prepare",), ("tpc_commit",), ("tpc_rollback",), ("tpc_recover",)],
    "begun twice": [("tpc_begin", XID), ("tpc_begin", XID), ("tpc_commit",)],
    "an xid inside": [("tpc_begin", XID), ("tpc_commit", XID), ("tpc_rollback", XID)],
    "prepared twice": [("tpc_begin", XID), ("tpc_prepare",), ("tpc_prepare",), ("tpc_begin", "x")],
    "an xid when prepared": [("tpc_begin", XID), ("tpc_prepare",), ("tpc_commit", XID)],
    "executed when prepared": [
        *(("tpc_begin", XID), INSERT, ("tpc_prepare",), INSERT, ("tpc_recover",)),
        *(("tpc_commit",), INSERT),
    ],
    "of others": [("tpc_commit", "nope"), ("tpc_rollback", XID), ("tpc_recover",)],
    "recovered": [
        *(("tpc_begin", XID), INSERT, ("tpc_prepare",), ("reset",), ("tpc_recover",)),
        *(("tpc_commit", XID), ("tpc_recover",), ("tpc_commit", XID)),
    ],
    "rolled back by its xid": [
        *(("tpc_begin", "x"), INSERT, ("tpc_prepare",), ("reset",)),
        *(("tpc_rollback", "x"), ("tpc_recover",)),
    ],
    "after an error": [("tpc_begin", XID), FAIL, ("tpc_rollback",), ("tpc_begin", XID)],
    "a COMMIT that fails": [("tpc_begin", XID), TWICE, ("tpc_commit",), ("tpc_begin", "x")],
    "a PREPARE that fails": [
        *(("tpc_begin", XID), TWICE, ("tpc_prepare",), ("tpc_rollback",), ("tpc_begin", XID)),
    ],
    "an ID that is taken": [
        *(("tpc_begin", XID), ("tpc_prepare",), ("reset",), ("tpc_begin", XID), ("tpc_prepare",)),
        *(("tpc_rollback",), ("tpc_rollback", XID)),
    ],
    "COMMIT PREPARED that fails": [
        *(("tpc_begin", XID), ("tpc_prepare",), ("finished elsewhere",), ("tpc_commit",)),
        *(("tpc_rollback",), ("tpc_begin", "x"), ("reset",), ("tpc_begin", "x")),
    ],
    "closed": [
        *(("close",), ("tpc_begin", XID), ("tpc_prepare",), ("tpc_commit", XID), ("tpc_commit",)),
        *(("tpc_rollback",), ("tpc_recover",), ("reset",)),
    ],
    "a transaction of SQL's": [("tpc_begin", XID), INSERT, ("reset",), ("tpc_begin", XID)],
}


def seen(value):
    """What a program sees of what was returned."""
    if isinstance(value, list):
        return [
            (type(xid), repr(xid), [*xid], type(xid.prepared), xid.owner, xid.database)
            for xid in value
        ]
    return value


async def play(conn, sequence, preparing):
    """The outcomes of a sequence: value or error, and status; `conn` is of either kind."""
    outcomes = []
    for name, *args in sequence:
        try:
            if name == "finished elsewhere":
                with side_connection(preparing) as side, side.cursor() as cursor:
                    cursor.execute("ROLLBACK PREPARED %s", (str(XID),))
                continue
            if name == "execute" and isinstance(conn, psycopg2.extensions.connection):
                with conn.cursor() as cursor:
                    cursor.execute(*args)
                value = None
            elif name == "execute":
                async with conn.cursor() as cursor:
                    value = await cursor.execute(*args)
            else:
                value = getattr(conn, name)(*args)
                if inspect.isawaitable(value):
                    value = await value
            outcome = seen(value)
        except Exception as error:
            outcome = (type(error), str(error), getattr(error, "pgcode", None))
        status = conn.closed or (conn.status == psycopg2.extensions.STATUS_PREPARED)
        outcomes.append((name, args, outcome, status))
    return outcomes


@pytest.mark.parametrize("sequence", SEQUENCES.values(), ids=SEQUENCES)
async def test_as_psycopg2(two_phase, preparing, onlooker, sequence):
    model = psycopg2.connect(preparing)
    try:
        expected = await play(model, sequence, preparing)
    finally:
        model.close()
    with onlooker.cursor() as cursor:
        cursor.execute("SELECT name FROM account")
        rows = cursor.fetchall()
        cursor.execute("SELECT gid FROM pg_prepared_xacts")
        for (gid,) in cursor.fetchall():
            cursor.execute("ROLLBACK PREPARED %s", (gid,))
        cursor.execute("TRUNCATE account")
    conn = await two_phase()
    assert await play(conn, sequence, preparing) == expected
    await conn.close()
    assert [(name,) for (name,) in rows] == named(onlooker)


def named(onlooker):
    with onlooker.cursor() as cursor:
        cursor.execute("SELECT name FROM account")
        return cursor.fetchall()


# --- what psycopg2 does not do --------------------------------------------------------------------


@pytest.mark.all_loops
@pytest.mark.parametrize("end", ["an error", "ROLLBACK"])
async def test_prepare_tells_that_nothing_was_prepared(two_phase, onlooker, end):
    """psycopg2 says nothing, and fails when all others have been told to commit."""
    conn = await two_phase()
    async with conn.cursor() as cursor:
        await conn.tpc_begin(XID)
        await cursor.execute(INSERT[1])
        if end == "ROLLBACK":
            await cursor.execute("ROLLBACK")
        else:
            with pytest.raises(psycopg2.errors.DivisionByZero):
                await cursor.execute("SELECT 1/0")
        with pytest.raises(psycopg2.errors.InFailedSqlTransaction, match="ROLLBACK"):
            await conn.tpc_prepare()
        await cursor.execute("SELECT 1")
    assert await conn.tpc_recover() == []
    await conn.tpc_begin(XID)
    await conn.tpc_rollback()


async def test_after_a_crash(two_phase, onlooker):
    """The server keeps what is prepared; any connection ends it."""
    conn = await two_phase()
    await conn.tpc_begin(XID)
    await conn.execute(INSERT[1])
    await conn.tpc_prepare()
    scalar(onlooker, "SELECT pg_terminate_backend(%s)", (conn.raw.get_backend_pid(),))
    await until(lambda: conn.closed)
    other = await two_phase()
    (xid,) = await other.tpc_recover()
    assert (xid.format_id, xid.gtrid, xid.bqual) == (7, "global", "branch")
    assert (xid.owner, xid.database) == ("postgres", conn.raw.info.dbname)
    await other.tpc_commit(xid)
    assert named(onlooker) == [("a",)]


async def test_everything_is_refused_when_prepared(two_phase, onlooker):
    conn = await two_phase()
    cursor = await conn.cursor()
    await conn.tpc_begin(XID)
    await conn.tpc_prepare()
    text = "cannot be used with a prepared two-phase transaction"
    uses = [
        cursor.execute("SELECT 1"),
        cursor.executemany("SELECT 1", [()]),
        cursor.callproc("now"),
        cursor.copy_records("account", [("x",)]),
        cursor.stream("SELECT 1").__anext__(),
        conn.add_listener("news", print),
        conn.tpc_recover(),
    ]
    for use in uses:
        with pytest.raises(psycopg2.ProgrammingError, match=text):
            await use
    await conn.tpc_rollback()
    await cursor.execute("SELECT 1")


async def test_in_a_transaction_of_sql(two_phase):
    conn = await two_phase()
    await conn.execute("BEGIN")
    for use in (conn.tpc_begin(XID), conn.tpc_commit(XID)):
        with pytest.raises(psycopg2.ProgrammingError, match="transaction"):
            await use
    await conn.execute("ROLLBACK")


async def test_in_a_pipeline(two_phase, onlooker):
    conn = await two_phase()
    async with conn.pipeline():
        await conn.tpc_begin(XID)
        await conn.execute(INSERT[1])
        with pytest.raises(psycopg2.ProgrammingError, match="in a pipeline"):
            await conn.tpc_prepare()
        with pytest.raises(psycopg2.ProgrammingError, match="in a pipeline"):
            await conn.reset()
        await conn.tpc_commit()
    assert named(onlooker) == [("a",)]


async def test_released_when_prepared(ours, preparing, onlooker):
    """The transaction stays prepared; nobody else gets the connection."""
    async with ours.create_pool(preparing, minsize=1, maxsize=1) as pool:
        conn = await pool.acquire()
        await conn.tpc_begin(XID)
        await conn.tpc_prepare()
        with pytest.warns(ResourceWarning, match=r"^Prepared transaction 7_\S+ left on released"):
            pool.release(conn)
        assert conn.closed
        async with pool.acquire() as conn:
            await conn.tpc_commit(XID)


# --- reset() --------------------------------------------------------------------------------------


@pytest.mark.all_loops
@pytest.mark.parametrize("state", ["idle", "in a transaction", "after an error"])
async def test_reset(ours, connect, state):
    conn = await connect(prepare_threshold=0)
    pid = conn.raw.get_backend_pid()
    async with conn.cursor() as cursor:
        for sql in (
            *("SET search_path = nowhere", "CREATE TEMP TABLE mine (a int)", "LISTEN news"),
            *("SELECT pg_advisory_lock(1)", "PREPARE p AS SELECT 1", "NOTIFY news, 'old'"),
        ):
            await cursor.execute(sql)
        for _ in range(3):
            await cursor.execute("SELECT count(*) FROM pg_class WHERE oid < %s", (5,))
        await conn.add_listener("other", print)
        await until(lambda: conn.notifies.qsize())
        if state != "idle":
            await cursor.execute("BEGIN")
        if state == "after an error":
            with pytest.raises(psycopg2.errors.DivisionByZero):
                await cursor.execute("SELECT 1/0")
        await conn.reset()
        assert await conn.get_transaction_status() == 0
        assert conn.notifies.empty()
        await cursor.execute("""
            SELECT current_setting('search_path'), to_regclass('mine'), pg_backend_pid(),
                array(SELECT pg_listening_channels()),
                (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'),
                (SELECT count(*) FROM pg_prepared_statements WHERE name = 'p')
        """)
        assert await cursor.fetchone() == ('"$user", public', None, pid, [], 0, 0)
        for _ in range(3):
            await cursor.execute("SELECT count(*) FROM pg_class WHERE oid < %s", (5,))
        heard = asyncio.Event()
        await conn.add_listener("other", lambda *args: heard.set())
        await cursor.execute("NOTIFY other")
        await asyncio.wait_for(heard.wait(), 5)
        await conn.reset()


async def test_reset_of_a_busy_connection(ours, connect):
    conn = await connect()
    running = await underway(conn, fetch(conn, "SELECT pg_sleep(0.05)"))
    with pytest.raises(RuntimeError, match="another coroutine"):
        await conn.reset()
    await running
    await conn.reset()


async def test_reset_out_of_time(ours, connect, side):
    conn = await connect()
    with pytest.raises(asyncio.TimeoutError):
        await conn.reset(timeout=0)
    assert conn.closed
