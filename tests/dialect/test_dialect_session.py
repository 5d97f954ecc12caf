"""Transactions of the adapted connection, beside psycopg2's synchronous one."""

import asyncio

import psycopg2
import pytest
import sqlalchemy as sa
from psycopg2.extensions import STATUS_BEGIN, TRANSACTION_STATUS_INTRANS, Xid
from support import scalar

import aiopgx


def state(conn):
    return (
        conn.status,
        conn.get_transaction_status(),
        conn.autocommit,
        conn.isolation_level,
        conn.readonly,
        conn.deferrable,
    )


def attempt(step):
    try:
        return step()
    except Exception as error:
        return type(error), str(error)


def show(conn, name):
    with conn.cursor() as cursor:
        cursor.execute(f"SHOW {name}")
        return cursor.fetchone()[0]


def put(name, *values):
    return [lambda conn, value=value: setattr(conn, name, value) for value in values]


def run(text):
    def step(conn):
        with conn.cursor() as cursor:
            cursor.execute(text)
            return cursor.statusmessage, cursor.rowcount

    return step


def look(conn):
    names = ("transaction_isolation", "transaction_read_only", "transaction_deferrable")
    seen = [show(conn, name) for name in names]
    seen += [show(conn, f"default_{name}") for name in names]
    return seen


def commit(conn):
    return conn.commit()


def rollback(conn):
    return conn.rollback()


SESSIONS = {
    "plain": [run("SELECT 1"), commit, run("SELECT 2"), rollback, rollback, commit],
    "an error": [run("SELECT 1/0"), run("SELECT 1"), commit, run("SELECT 1"), rollback],
    "a syntax error": [run("selec"), rollback],
    "deferred constraint": [
        run("CREATE TEMP TABLE t (a int UNIQUE DEFERRABLE INITIALLY DEFERRED)"),
        run("INSERT INTO t VALUES (1), (1)"),
        commit,
        rollback,
    ],
    "levels": [
        step
        for value in (1, 2, 3, 4, 0, 5, True, 2.5, "SERIALIZABLE", "read uncommitted", "default")
        for step in (*put("isolation_level", value), look, rollback)
    ],
    "levels as bytes or None": [
        *put("isolation_level", 3, b"repeatable read", "x", None),
        look,
        rollback,
    ],
    "set_isolation_level": [
        step
        for value in (3, 0, 1, 0, None, 5, -1)
        for step in (lambda c, v=value: c.set_isolation_level(v), look)
    ],
    "switches": [
        step
        for value in (True, False, None, "default", "DEFAULT", b"default", "x", 1, "")
        for step in (
            *put("readonly", value),
            *put("deferrable", value),
            look,
            rollback,
        )
    ],
    "autocommit": [
        *put("isolation_level", 3),
        *put("readonly", True),
        *put("autocommit", True),
        look,
        run("SELECT 1"),
        commit,
        rollback,
        *put("readonly", False),
        look,
        *put("deferrable", True),
        look,
        *put("isolation_level", None),
        look,
        *put("autocommit", False),
        look,
    ],
    "in a transaction": [
        run("SELECT 1"),
        *put("autocommit", True),
        *put("isolation_level", 1),
        *put("readonly", True),
        lambda conn: conn.set_session(deferrable=True),
        lambda conn: conn.set_isolation_level(1),
    ],
    "set_session": [
        lambda conn: conn.set_session("repeatable read", True, False),
        look,
        rollback,
        lambda conn: conn.set_session(autocommit=True),
        look,
        lambda conn: conn.set_session("default", "default", "default", False),
        look,
    ],
    "transactions in SQL": [
        run("SELECT 1"),
        run("COMMIT"),
        run("SELECT 2"),
        commit,
        *put("autocommit", True),
        run("BEGIN"),
        rollback,
        commit,
        run("ROLLBACK"),
    ],
}


@pytest.mark.parametrize("name", SESSIONS)
async def test_it_does_what_psycopg2_does(engine, url, name):
    def body(conn):
        done = []
        for step in SESSIONS[name]:
            done.append((attempt(lambda step=step: step(conn)), state(conn)))
        return done

    reference = psycopg2.connect(url.set(drivername="postgresql").render_as_string(False))
    expected = body(reference)
    reference.close()

    def ours(connection):
        return body(connection.connection.dbapi_connection)

    async with engine(poolclass=sa.NullPool).connect() as connection:
        connection.sync_connection.dialect.do_rollback(connection.sync_connection.connection)
        assert await connection.run_sync(ours) == expected


TWO_PHASE = {
    "committed": ["begin", "run", "prepare", "run", "commit", "rollback", "tpc_commit", "run"],
    "rolled back": ["begin", "run", "prepare", "recover", "prepare", "begin", "tpc_rollback"],
    "in one phase": ["begin", "run", "commit", "rollback", "autocommit", "tpc_commit", "state"],
    "not begun": ["prepare", "tpc_commit", "tpc_rollback", "run", "begin", "commit_x", "rollback"],
    "in autocommit": ["autocommit", "begin", "tpc_commit"],
    "unknown": ["commit_x", "state", "rollback_x", "commit_5", "begin_5"],
    "too long": ["begin_long", "run", "prepare", "tpc_rollback", "run"],
    "levels": ["begin", "level", "prepare", "level", "tpc_rollback"],
}

XID = "it's an xid"

TWO_PHASE_STEPS = {
    "begin": lambda conn: conn.tpc_begin(XID),
    "begin_5": lambda conn: conn.tpc_begin(5),
    "begin_long": lambda conn: conn.tpc_begin("a" * 300),
    "run": run("SELECT 1"),
    "prepare": lambda conn: conn.tpc_prepare(),
    "tpc_commit": lambda conn: conn.tpc_commit(),
    "tpc_rollback": lambda conn: conn.tpc_rollback(),
    "commit_x": lambda conn: conn.tpc_commit("nobody's"),
    "rollback_x": lambda conn: conn.tpc_rollback("nobody's"),
    "commit_5": lambda conn: conn.tpc_commit(5),
    "commit": commit,
    "rollback": rollback,
    "recover": lambda conn: [str(xid) for xid in conn.tpc_recover()],
    "autocommit": lambda conn: setattr(conn, "autocommit", True),
    "level": lambda conn: conn.set_isolation_level(0) if conn.status == 5 else None,
    "state": state,
}


@pytest.mark.parametrize("name", TWO_PHASE)
async def test_two_phase_as_on_psycopg2(engine, url, name):
    def body(conn):
        steps = [TWO_PHASE_STEPS[step] for step in TWO_PHASE[name]]
        return [(attempt(lambda step=step: step(conn)), state(conn)) for step in steps]

    reference = psycopg2.connect(url.set(drivername="postgresql").render_as_string(False))
    expected = body(reference)
    reference.close()
    async with engine(poolclass=sa.NullPool).connect() as connection:
        connection.sync_connection.dialect.do_rollback(connection.sync_connection.connection)
        assert await connection.run_sync(lambda c: body(c.connection.dbapi_connection)) == expected


async def test_two_phase_transaction_of_another_session(engine, side):
    with side.cursor() as cursor:
        cursor.execute("CREATE TABLE things (a int)")
    maker = engine(poolclass=sa.NullPool)
    async with maker.connect() as connection:

        def prepare(connection):
            transaction = connection.begin_twophase("elsewhere")
            connection.execute(sa.text("INSERT INTO things VALUES (1)"))
            transaction.prepare()
            connection.invalidate()

        await connection.run_sync(prepare)
    async with maker.connect() as connection:
        assert await connection.run_sync(lambda c: c.recover_twophase()) == ["elsewhere"]
        await connection.rollback()
        await connection.run_sync(lambda c: c.commit_prepared("elsewhere", recover=True))
        assert await connection.scalar(sa.text("SELECT count(*) FROM things")) == 1
        raw = await connection.get_raw_connection()
        xid = raw.dbapi_connection.xid(1, "g", "b")
        assert isinstance(xid, Xid) and str(xid) == "1_Zw==_Yg=="
    with side.cursor() as cursor:
        cursor.execute("DROP TABLE things")


async def test_isolation_level_of_engine_connection_and_autocommit(both):
    def level(connection):
        return connection.exec_driver_sql("SHOW transaction_isolation").scalar()

    def body(connection):
        seen = [level(connection), connection.default_isolation_level]
        connection.rollback()
        for name in ("READ COMMITTED", "REPEATABLE READ", "AUTOCOMMIT", "READ UNCOMMITTED"):
            connection.execution_options(isolation_level=name)
            seen += [connection.get_isolation_level(), level(connection)]
            seen.append(connection.connection.dbapi_connection.autocommit)
            connection.rollback()
        return seen

    assert (await both(body, isolation_level="SERIALIZABLE"))[0] == "serializable"
    await both(body)
    await both(body, isolation_level="AUTOCOMMIT")


async def test_readonly_and_deferrable_options(both):
    def body(connection):
        connection.execution_options(
            isolation_level="SERIALIZABLE", postgresql_readonly=True, postgresql_deferrable=True
        )
        seen = [
            connection.exec_driver_sql(f"SHOW transaction_{name}").scalar()
            for name in ("isolation", "read_only", "deferrable")
        ]
        connection.exec_driver_sql("CREATE TABLE nothing ()")
        return seen

    kind, cause, code, _ = await both(body)
    assert (kind, cause) == (sa.exc.InternalError, psycopg2.errors.ReadOnlySqlTransaction)
    assert code == "25006"


async def test_characteristics_are_reset_when_a_connection_goes_back(engine):
    maker = engine(pool_size=1, max_overflow=0)
    async with maker.connect() as connection:
        await connection.execution_options(isolation_level="SERIALIZABLE")
        show = sa.text("SHOW transaction_isolation")
        assert await connection.scalar(show) == "serializable"
    async with maker.connect() as connection:
        assert await connection.scalar(show) == "read committed"


async def test_savepoints(both):
    def body(connection):
        connection.exec_driver_sql("CREATE TEMP TABLE s (a int PRIMARY KEY)")
        insert = sa.text("INSERT INTO s VALUES (:a)")
        connection.execute(insert, {"a": 1})
        with connection.begin_nested():
            connection.execute(insert, {"a": 2})
        nested = connection.begin_nested()
        with pytest.raises(sa.exc.IntegrityError):
            connection.execute(insert, {"a": 2})
        nested.rollback()
        with connection.begin_nested() as nested:
            connection.execute(insert, {"a": 3})
            nested.rollback()
        return connection.exec_driver_sql("SELECT a FROM s ORDER BY a").scalars().all()

    assert await both(body) == [1, 2]


async def test_nothing_is_sent_for_a_connection_that_was_not_used(engine, side):
    maker = engine()
    async with maker.connect() as connection:
        pid = await connection.scalar(sa.text("SELECT pg_backend_pid()"))
    async with maker.connect():
        pass
    with side.cursor() as cursor:
        cursor.execute("SELECT query FROM pg_stat_activity WHERE pid = %s", (pid,))
        assert cursor.fetchone() == ("ROLLBACK",)


async def test_statements_are_sent_as_they_are(engine):
    async with engine().connect() as connection:
        with pytest.raises(sa.exc.ProgrammingError) as caught:
            await connection.execute(sa.text("SELECT nothing"))
    assert caught.value.orig.diag.statement_position == "8"
    assert caught.value.orig.cursor.query == b"SELECT nothing"


async def test_a_begin_that_fails_is_the_statements_error(engine):
    async with engine().connect() as connection:

        def body(connection):
            conn = connection.connection.dbapi_connection
            conn._session.opening = b"BEGIN ISOLATION LEVEL NONSENSE"
            cursor = conn.cursor()
            with pytest.raises(psycopg2.errors.SyntaxError) as caught:
                cursor.execute("SELECT 1")
            return str(caught.value), conn.status, conn.get_transaction_status()

        text, *states = await connection.run_sync(body)
        assert "NONSENSE" in text and states == [1, 0]


async def test_a_parameter_that_cannot_be_adapted_opens_no_transaction(engine, url):
    def body(conn):
        with pytest.raises(psycopg2.ProgrammingError):
            conn.cursor().execute("SELECT %s", (object,))
        return state(conn)

    reference = psycopg2.connect(url.set(drivername="postgresql").render_as_string(False))
    expected = body(reference)
    reference.close()
    async with engine().connect() as connection:
        await connection.rollback()
        ours = await connection.run_sync(lambda c: body(c.connection.dbapi_connection))
    if aiopgx.capabilities().native:
        assert ours == expected
    else:  # psycopg2 adapts them when the transaction is open
        assert ours[:2] == (STATUS_BEGIN, TRANSACTION_STATUS_INTRANS)


SLOW = "INSERT INTO taken SELECT i FROM generate_series(1, 1) AS i, pg_sleep(0.1)"


@pytest.fixture
def taken(side):
    with side.cursor() as cursor:
        cursor.execute("CREATE TABLE taken (i int)")
        yield lambda: scalar(side, "SELECT array_agg(i) FROM taken")
        cursor.execute("DROP TABLE taken")


async def test_rollback_waits_for_the_first_statement(engine, side, taken):
    """A rollback that comes while another task's BEGIN and INSERT run undoes them."""

    async def fail():
        await asyncio.sleep(0.03)
        raise KeyError

    pool = engine(pool_size=1)
    with pytest.raises(KeyError):
        async with pool.begin() as connection:
            await asyncio.gather(connection.execute(sa.text(SLOW)), fail())
    async with pool.begin() as connection:
        await connection.execute(sa.text("INSERT INTO taken VALUES (100)"))
    assert taken() == [100]


async def test_commit_waits_for_the_first_statement(engine, taken):
    async with engine().connect() as connection:
        await asyncio.gather(connection.execute(sa.text(SLOW)), connection.commit())
        assert taken() == [1]


async def test_commit_between_the_answer_and_its_task(engine, taken):
    """The answer is here, but the task that waits for it has not run since."""
    async with engine().connect() as connection:
        raw = (await connection.get_raw_connection()).dbapi_connection

        async def commit():
            await asyncio.sleep(0.01)
            while raw._wire.busy:  # noqa: ASYNC110
                await asyncio.sleep(0)
            await connection.commit()

        await asyncio.gather(connection.execute(sa.text(SLOW)), commit())
        assert taken() == [1]
