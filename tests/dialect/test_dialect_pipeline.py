"""BEGIN and the first statement of a transaction go out together."""

import asyncio

import psycopg2
import pytest
import sqlalchemy as sa
from psycopg2.extensions import TRANSACTION_STATUS_IDLE, TRANSACTION_STATUS_INTRANS
from roads import unknown
from support import running, scalar, until

import aiopgx

# Whether libpq can send the protocol's Close.
CLOSE = aiopgx.capabilities().libpq_version >= 170000


@pytest.fixture
def trips(trips, url):
    """The same, with `trips.url`."""
    trips.url = url.set(host="127.0.0.1", port=trips.proxy.port)
    return trips


@pytest.mark.parametrize(
    ("statement", "parameters", "wanted"),
    [
        ("SELECT 1 + 1", {}, 1),
        ("SELECT typname FROM pg_type WHERE oid = :oid", {"oid": 23}, 1),
        ("SELECT 1; SELECT 2", {}, 2),
        ("SELECT 1 -- and more", {}, 2),
        ("SHOW DateStyle", {}, 2),
    ],
)
async def test_round_trips_of_a_first_statement(engine, trips, statement, parameters, wanted):
    # else one trip more, once in a connection, to ask whether a pooler is in between
    url = trips.url.update_query_dict({"prepare_threshold": "none"})
    async with engine(url=url).connect() as connection:
        await connection.rollback()
        trips()
        for _ in range(3):
            assert len((await connection.execute(sa.text(statement), parameters)).all()) == 1
            assert trips() == wanted
            await connection.execute(sa.text(statement), parameters)
            assert trips() == 1  # the transaction is open
            await connection.rollback()
            assert trips() == 1


async def test_the_same_values_and_errors(engine):
    """As those of a second statement, which goes alone."""
    async with engine().connect() as connection:

        async def seen(statement):
            try:
                result = await connection.execute(sa.text(statement))
            except sa.exc.DBAPIError as error:
                diag = error.orig.diag
                fields = {f: getattr(diag, f) for f in dir(diag) if f[0] != "_"}
                return type(error.orig), str(error.orig), error.orig.cursor is None, fields
            cursor = result.cursor
            rows = result.all() if result.returns_rows else None
            return rows, cursor and cursor.description, result.rowcount

        for statement in [
            "SELECT 1 AS a, 'text' AS b, NULL AS c, 1.50 AS d, now() = now() AS e",
            "SELECT 1 WHERE false",
            "SELECT 1 / 0",
            "SELECT nosuch FROM pg_type",
            "SELEC",
            "SELECT typname, typlen FROM pg_type ORDER BY oid LIMIT 5",
            "INSERT INTO nosuch VALUES (1)",
        ]:
            first = await seen(statement)
            await connection.rollback()
            await connection.execute(sa.text("SELECT 1"))
            assert await seen(statement) == first
            await connection.rollback()


async def test_nothing_is_executed_behind_a_begin_that_fails(engine, side):
    side.cursor().execute("CREATE TABLE IF NOT EXISTS behind (i int)")
    made = engine(pool_size=1)
    async with made.connect() as connection:
        await connection.rollback()

        def body(connection):
            conn = connection.connection.dbapi_connection
            conn._session.opening = b"BEGIN ISOLATION LEVEL NONSENSE"
            with pytest.raises(psycopg2.errors.SyntaxError, match="NONSENSE"):
                conn.cursor().execute("INSERT INTO behind VALUES (1)")
            assert conn.get_transaction_status() == TRANSACTION_STATUS_IDLE
            conn._session.opening = b"BEGIN"
            cursor = conn.cursor()
            cursor.execute("SELECT count(*) FROM behind")
            assert conn.get_transaction_status() == TRANSACTION_STATUS_INTRANS
            return cursor.fetchall()

        assert await connection.run_sync(body) == [(0,)]


async def test_first_statements_of_several_tasks(engine):
    """One BEGIN opens the transaction for all of them."""
    async with engine().connect() as connection:
        raw = (await connection.get_raw_connection()).driver_connection
        for _ in range(3):
            await connection.rollback()
            results = await asyncio.gather(
                *(connection.execute(sa.text(f"SELECT {n}")) for n in range(5))
            )
            assert [result.scalar() for result in results] == list(range(5))
            assert raw.notices == []


async def test_round_trips_behind_a_server_side_cursor(engine, trips):
    async with engine(url=trips.url).connect() as connection:
        for _ in range(3):
            result = await connection.stream(sa.text("SELECT generate_series(1, 10)"))
            await result.fetchone()
            trips()
            await result.close()
            assert trips() == (1 if CLOSE else 2)
            await connection.execute(sa.text("SELECT 1"))
            assert trips() == 1
            await connection.rollback()


async def test_begin_behind_a_server_side_cursor_that_is_closed(engine, trips):
    """The end of the cursor, BEGIN and the statement take one round trip."""
    async with engine(url=trips.url).connect() as connection:
        await connection.rollback()
        raw = (await connection.get_raw_connection()).driver_connection
        held = await raw.cursor("held", withhold=True)
        await held.execute("SELECT generate_series(1, 10)")
        trips()
        held.close()
        assert (await connection.execute(sa.text("SELECT 1"))).scalar() == 1
        assert trips() == (1 if CLOSE else 3)
        held = "SELECT count(*) FROM pg_cursors WHERE name = 'held'"
        assert (await connection.execute(sa.text(held))).scalar() == 0
        await connection.rollback()


@pytest.mark.parametrize("how", ["cancel", "timeout"])
async def test_a_first_statement_that_is_given_up_stops(engine, side, how):
    made = engine(connect_args={"timeout": 1 if how == "timeout" else 60})
    async with made.connect() as connection:
        task = asyncio.ensure_future(connection.execute(sa.text("SELECT pg_sleep(30) AS given_up")))
        await until(lambda: running(side, "given_up") or task.done())
        if how == "cancel":
            task.cancel()
        with pytest.raises(asyncio.CancelledError if how == "cancel" else asyncio.TimeoutError):
            await task
        await until(lambda: not running(side, "given_up"))


async def test_a_backend_that_is_killed(engine, side):
    async with engine().connect() as connection:
        task = asyncio.ensure_future(connection.execute(sa.text("SELECT pg_sleep(30) AS killed")))
        await until(lambda: running(side, "killed"))
        scalar(
            side,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE %s "
            "AND pid <> pg_backend_pid()",
            ("%killed%",),
        )
        with pytest.raises(sa.exc.DBAPIError) as caught:
            await task
        assert caught.value.orig.pgcode == "57P01" and caught.value.connection_invalidated


async def test_psycopg2_finds_its_connection(engine):
    """Pipeline mode is left: psycopg2 executes by itself, and hears notifications."""
    async with engine().connect() as connection:
        for _ in range(3):
            await connection.execute(sa.text("SELECT 1"))
            raw = (await connection.get_raw_connection()).dbapi_connection
            foreign = raw.cursor(cursor_factory=unknown(psycopg2.extensions.cursor))
            await connection.run_sync(lambda _, cursor=foreign: cursor.execute("SELECT 2"))
            assert foreign.fetchall() == [(2,)]
            await connection.rollback()


@pytest.mark.parametrize(("rows", "wanted"), [(2, 1), (1000, 4)])
async def test_round_trips_of_executemany(engine, trips, rows, wanted):
    """BEGIN is in them."""
    numbers = sa.Table("numbers", sa.MetaData(), sa.Column("n", sa.Integer))
    async with engine(url=trips.url).connect() as connection:
        await connection.execute(sa.text("CREATE TEMP TABLE numbers (n int)"))
        await connection.commit()
        trips()
        result = await connection.execute(numbers.insert(), [{"n": n} for n in range(rows)])
        assert 1 <= trips() <= wanted
        assert result.rowcount == rows
        await connection.rollback()
        assert await connection.scalar(sa.select(sa.func.count()).select_from(numbers)) == 0


async def test_executemany_in_autocommit(engine):
    """Each row is a transaction, as on psycopg2."""
    async with engine(isolation_level="AUTOCOMMIT").connect() as connection:
        await connection.execute(sa.text("CREATE TEMP TABLE numbers (n int PRIMARY KEY)"))
        statement, sets = sa.text("INSERT INTO numbers VALUES (:n)"), [1, 2, 2, 3]
        with pytest.raises(sa.exc.IntegrityError):
            await connection.execute(statement, [{"n": n} for n in sets])
        assert await connection.scalar(sa.text("SELECT sum(n) FROM numbers")) == 3
