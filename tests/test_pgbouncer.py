"""What works behind PgBouncer, by its modes: docs/pgbouncer.md."""

import asyncio
import contextlib
import subprocess

import psycopg2
import pytest
from bouncer import PROGRAM
from psycopg2.extensions import parse_dsn
from support import asleep, fetch, running, until

pytestmark = [pytest.mark.needs("pgbouncer"), pytest.mark.needs("openssl")]

MODES = ["session", "transaction"]
TYPES = "SELECT typname FROM pg_type WHERE oid = %s"
KEPT = {
    "TimeZone": "Asia/Tokyo",
    "DateStyle": "SQL, DMY",
    "client_encoding": "LATIN1",
    "application_name": "kept",
}
CLASSES = "SELECT relname FROM pg_class WHERE oid = %s"


@pytest.fixture
def behind(pooler, dsn):
    """The DSN of the test's database through a pooler of that mode."""
    return lambda mode, **settings: pooler(mode, **settings).dsn(parse_dsn(dsn)["dbname"])


@pytest.fixture
def pair(behind, connect):
    """Two connections through one pooler."""

    async def make(mode, settings=(), **keywords):
        address = behind(mode, **dict(settings))
        return await connect(address, **keywords), await connect(address, **keywords)

    return make


@contextlib.asynccontextmanager
async def holding(conn):
    """In the block it has the server that was used last, so that others get another."""
    await conn.execute("BEGIN")
    yield
    await conn.execute("COMMIT")


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "kept"), [("session", True), ("transaction", False)])
async def test_set(ours, pair, mode, kept):
    """It belongs to the server, and so to whoever is there next."""
    conn, other = await pair(mode)
    await conn.execute("SET search_path = pg_catalog")
    async with holding(other):
        assert (await fetch(conn, "SHOW search_path") == [("pg_catalog",)]) == kept
        assert (await fetch(other, "SHOW search_path") == [("pg_catalog",)]) != kept


@pytest.mark.parametrize("setting", KEPT)
async def test_settings_that_pgbouncer_keeps(ours, pair, setting):
    """Those that servers report, for each client."""
    value = KEPT[setting]
    conn, other = await pair("transaction", application_name="before")
    await conn.execute(f"SET {setting} = '{value}'")
    async with holding(other):
        assert await fetch(conn, f"SHOW {setting}") == [(value,)]
        assert await fetch(other, f"SHOW {setting}") != [(value,)]


async def test_set_local(ours, pair):
    conn, _ = await pair("transaction")
    async with conn.cursor() as cur, cur.begin():
        await cur.execute("SET LOCAL search_path = pg_catalog")
        assert await fetch(conn, "SHOW search_path") == [("pg_catalog",)]


async def test_the_next_client_of_a_session_inherits_nothing(ours, behind, connect):
    """server_reset_query is DISCARD ALL where nothing is set."""
    address = behind("session", default_pool_size=1)
    conn = await connect(address)
    pid = await fetch(conn, "SELECT pg_backend_pid()")
    await conn.execute("SET search_path = pg_catalog")
    await conn.execute("SELECT pg_advisory_lock(1)")
    await conn.close()
    conn = await connect(address)
    assert await fetch(conn, "SELECT pg_backend_pid()") == pid
    assert await fetch(conn, "SHOW search_path") != [("pg_catalog",)]
    assert await fetch(conn, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == [(0,)]


async def test_startup_parameters(ours, behind, connect):
    options = {"options": "-c statement_timeout=77"}
    with pytest.raises(psycopg2.OperationalError, match=r"unsupported startup parameter.*options"):
        await connect(behind("transaction"), **options)
    ignoring = behind("transaction", ignore_startup_parameters="extra_float_digits,options")
    conn = await connect(ignoring, **options)
    assert await fetch(conn, "SHOW statement_timeout") == [("0",)]  # ignored it is


# --- what belongs to a session --------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "arrives"), [("session", True), ("transaction", False)])
async def test_listen(ours, pair, mode, arrives):
    conn, other = await pair(mode)
    await conn.execute("LISTEN news")
    async with holding(other):
        await fetch(conn, "SELECT pg_notify('news', '')")
        await fetch(other, "SELECT pg_notify('news', '')")
    await fetch(conn, "SELECT 1")
    if arrives:
        assert (await asyncio.wait_for(conn.notifies.get(), 10)).channel == "news"
    else:
        assert conn.notifies.empty()


@pytest.mark.parametrize(("mode", "kept"), [("session", True), ("transaction", False)])
async def test_advisory_locks(ours, pair, mode, kept):
    conn, other = await pair(mode)
    await fetch(conn, "SELECT pg_advisory_lock(2)")
    async with holding(other):
        assert await fetch(conn, "SELECT pg_advisory_unlock(2)") == [(kept,)]
        await fetch(other, "SELECT pg_advisory_unlock_all()")
    async with conn.cursor() as cur, cur.begin():
        await cur.execute("SELECT pg_advisory_xact_lock(2)")  # this kind ends with its transaction


@pytest.mark.parametrize(("mode", "kept"), [("session", True), ("transaction", False)])
async def test_temporary_tables(ours, pair, mode, kept):
    conn, other = await pair(mode)
    await conn.execute("CREATE TEMPORARY TABLE mine (n int)")
    async with holding(other):
        assert (await fetch(conn, "SELECT to_regclass('mine')") == [("mine",)]) == kept
    async with conn.cursor() as cur, cur.begin():
        await cur.execute("CREATE TEMPORARY TABLE brief (n int) ON COMMIT DROP")
        await cur.execute("INSERT INTO brief VALUES (1)")


@pytest.mark.parametrize("mode", MODES)
async def test_named_cursors(ours, pair, mode):
    conn, other = await pair(mode)
    async with conn.cursor(name="numbers") as cur, cur.begin():
        await cur.execute("SELECT generate_series(1, 5000)")
        assert len(await cur.fetchall()) == 5000
    async with conn.cursor(name="held", withhold=True) as cur:
        await cur.execute("SELECT generate_series(1, 5000)")
        async with holding(other):
            if mode == "session":
                assert len(await cur.fetchmany(10)) == 10
            else:
                with pytest.raises(psycopg2.errors.InvalidCursorName):
                    await cur.fetchmany(10)


async def test_statement_mode(ours, behind, connect):
    conn = await connect(behind("statement"))
    assert await fetch(conn, "SELECT 1") == [(1,)]
    with pytest.raises(psycopg2.Error, match="transaction"):
        await conn.execute("BEGIN")


# --- prepared statements --------------------------------------------------------------------------


@pytest.mark.unprepared
@pytest.mark.parametrize("mode", MODES)
async def test_nothing_is_prepared_by_itself(ours, pair, mode):
    """The pooler is noticed, in either mode."""
    conn, other = await pair(mode)
    for _ in range(12):
        async with holding(other):
            assert await fetch(conn, TYPES, (23,)) == [("int4",)]
        async with holding(conn):
            assert await fetch(other, TYPES, (23,)) == [("int4",)]
    count = "SELECT count(*) FROM pg_prepared_statements"
    assert await fetch(conn, count) == await fetch(other, count) == [(0,)]


async def test_no_client_meets_a_statement_of_another(ours, pair):
    """Also where PgBouncer knows no prepared statements, and the program has asked for them."""
    conn, other = await pair("transaction", pooler_settings(), prepare_threshold=2)
    for _ in range(4):
        await fetch(conn, TYPES, (23,))
    async with holding(conn):
        for _ in range(4):
            await fetch(other, CLASSES, (1259,))
    for _ in range(4):
        async with holding(conn):
            assert await fetch(other, CLASSES, (1259,)) == [("pg_class",)]
        async with holding(other):
            assert await fetch(conn, TYPES, (23,)) == [("int4",)]


def pooler_settings():
    """PgBouncer 1.21 and newer keeps prepared statements."""
    shown = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True).stdout
    version = tuple(map(int, shown.split()[1].split(".")[:2]))
    return {"max_prepared_statements": 100} if version >= (1, 21) else {}


# --- what has always worked -----------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
async def test_the_rest(ours, pair, mode):
    """COPY, pipelines, executemany() and streams are each within a transaction of their own."""
    conn, other = await pair(mode)
    await conn.execute("CREATE TABLE thing (n int, t text)")
    async with holding(other), conn.cursor() as cur:
        await cur.copy_records("thing", [(n, "copied") for n in range(100)])
        await cur.executemany(
            "INSERT INTO thing VALUES (%s, %s)", [(n, "many") for n in range(100)]
        )
        async with conn.pipeline():
            for n in range(100):
                await cur.execute("INSERT INTO thing VALUES (%s, 'piped')", (n,))
        assert len([row async for row in cur.stream("SELECT * FROM thing")]) == 300
        async for _ in cur.stream("SELECT generate_series(1, 10000000)"):
            break  # it is cancelled through the pooler
        await cur.execute("SELECT t, count(*) FROM thing GROUP BY t ORDER BY t")
        assert await cur.fetchall() == [("copied", 100), ("many", 100), ("piped", 100)]
    await conn.execute("DROP TABLE thing")


async def test_too_many_clients(ours, behind, connect):
    address = behind("transaction", max_client_conn=2)
    with pytest.raises(psycopg2.OperationalError, match="no more connections allowed"):
        for _ in range(3):
            await connect(address)


async def test_no_server_in_time(ours, behind, connect):
    address = behind("transaction", default_pool_size=1, query_wait_timeout=1)
    conn, other = await connect(address), await connect(address)
    async with holding(conn):
        with pytest.raises(psycopg2.OperationalError, match="query_wait_timeout"):
            await other.execute("SELECT 1")


# --- Pool.execute() -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "keywords"),
    [
        ("session", {}),
        ("session", {"prepare_threshold": 1}),
        ("transaction", {}),
        ("statement", {}),
    ],
)
async def test_shared_statements(ours, pool, behind, side, mode, keywords):
    made = await pool(behind(mode), maxsize=3, **keywords)

    async def one(number):
        if number % 10 == 9:
            with pytest.raises(psycopg2.errors.DivisionByZero):
                await made.execute("SELECT %s / 0", (number,))
        else:
            cur = await made.execute(
                "SELECT %s::int, typname FROM pg_type WHERE oid = 23", (number,)
            )
            assert await cur.fetchall() == [(number, "int4")]

    await asyncio.gather(*map(one, range(100)))
    task = asyncio.ensure_future(made.execute("SELECT pg_sleep(60) AS given_up"))
    await until(lambda: asleep(side, "AS given_up"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not running(side, "AS given_up"))
    await asyncio.gather(*map(one, range(50)))
    await until(lambda: made.size == made.freesize)
