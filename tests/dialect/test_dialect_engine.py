"""Engines: URLs, options, the pool, lost connections, cancellation."""

import asyncio
import gc
import logging
import socket
import time
import warnings

import psycopg2
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool
from support import activity, running, underway, until

import aiopgx
import aiopgx.cursor

ONE = sa.text("SELECT 1")
PID = sa.text("SELECT pg_backend_pid()")
SLEEP = sa.text("SELECT pg_sleep(30)")


async def driver_connection(connection):
    return (await connection.get_raw_connection()).driver_connection


# --- connecting -----------------------------------------------------------------------------------


async def test_entry_point_and_driver(engine, url):
    made = engine(url.render_as_string(False))
    assert made.dialect.driver == "aiopgx" and made.dialect.is_async
    assert made.dialect.psycopg2_version >= (2, 9)
    assert isinstance(made.pool, AsyncAdaptedQueuePool)
    async with made.connect() as connection:
        assert await connection.scalar(ONE) == 1
        inner = await driver_connection(connection)
        assert type(inner) is aiopgx.Connection
        assert inner.timeout is None
        raw = await connection.get_raw_connection()
        assert isinstance(raw.cursor()._cursor, aiopgx.cursor.Cursor)


async def test_parameters_of_the_url(engine, url):
    query = {"application_name": "mine", "timeout": "7.5", "echo": "true", "enable_json": "1"}
    async with engine(url.update_query_dict(query)).connect() as connection:
        assert await connection.scalar(sa.text("SHOW application_name")) == "mine"
        inner = await driver_connection(connection)
        assert (inner.timeout, inner.echo, inner._enable_json) == (7.5, True, True)
        assert (inner._enable_hstore, inner._enable_uuid) == (False, False)


async def test_connect_args_go_before_the_url(engine, url):
    made = engine(
        url.update_query_dict({"application_name": "one"}),
        connect_args={"application_name": "two", "timeout": 3},
    )
    async with made.connect() as connection:
        assert await connection.scalar(sa.text("SHOW application_name")) == "two"
        assert (await driver_connection(connection)).timeout == 3


async def test_unknown_parameters_are_psycopg2s_error(engine, url):
    with pytest.raises(sa.exc.ProgrammingError, match='invalid connection option "nonsense"'):
        async with engine(url.update_query_dict({"nonsense": "1"})).connect():
            pass


async def test_several_hosts(engine, url, refused):
    places = [f"127.0.0.1:{refused}", f"{url.host}:{url.port}"]
    several = sa.make_url(f"postgresql+aiopgx://{url.username}@/{url.database}").update_query_dict(
        {"host": places}
    )
    async with engine(several).connect() as connection:
        assert (await driver_connection(connection)).raw.info.port == url.port
    two = several.update_query_dict({"target_session_attrs": "read-write"})
    async with engine(two).connect() as connection:
        assert await connection.scalar(ONE) == 1


async def test_no_server(engine, url, refused):
    with pytest.raises(sa.exc.OperationalError, match="Connection refused") as caught:
        async with engine(url.set(port=refused)).connect():
            pass
    assert isinstance(caught.value.orig, psycopg2.OperationalError)


async def test_connect_timeout(engine, url, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(sa.exc.OperationalError, match="timeout expired"):
            async with engine(url.set(port=port), connect_args={"connect_timeout": 1}).connect():
                pass
        monkeypatch.setenv("PGCONNECT_TIMEOUT", "1")
        with pytest.raises(sa.exc.OperationalError, match="timeout expired"):
            async with engine(url.set(port=port)).connect():
                pass
    waiting = url.update_query_dict({"connect_timeout": "20"})
    async with engine(waiting).connect() as connection:
        assert await connection.scalar(ONE) == 1


async def test_bad_options_are_named(engine, url):
    wrong = url.update_query_dict({"connect_timeout": "1.5"})
    with pytest.raises(sa.exc.OperationalError, match=r'invalid integer value "1\.5"'):
        async with engine(wrong).connect():
            pass
    for name in "timeout", "echo":
        with pytest.raises(sa.exc.ArgumentError, match=f"^{name} in the URL: .*soon"):
            async with engine(url.update_query_dict({name: "soon"})).connect():
                pass


async def test_async_creator(engine, url, dsn):
    async def create():
        return await aiopgx.connect(dsn, application_name="created")

    async with engine("postgresql+aiopgx://", async_creator=create).connect() as connection:
        assert await connection.scalar(sa.text("SHOW application_name")) == "created"


async def test_client_encoding(both):
    def body(connection):
        raw = connection.connection.dbapi_connection
        raw.set_client_encoding("latin-1")
        return raw.encoding, connection.exec_driver_sql("SELECT 'ü'").scalar()

    assert await both(body, client_encoding="latin1") == ("LATIN1", "ü")


async def test_the_client_encoding_of_an_open_connection_stays(engine):
    async with engine().connect() as connection:
        raw = (await connection.get_raw_connection()).dbapi_connection
        with pytest.raises(psycopg2.ProgrammingError, match="client_encoding='latin1'"):
            await connection.run_sync(lambda _: raw.set_client_encoding("latin1"))


async def test_attributes_that_do_not_exist(engine):
    async with engine().connect() as connection:
        raw = (await connection.get_raw_connection()).dbapi_connection
        for name in ("_nothing", "nothing"):
            with pytest.raises(AttributeError, match=name):
                getattr(raw, name)


# --- events ---------------------------------------------------------------------------------------


async def test_events_get_a_connection_that_works_like_psycopg2s(engine):
    made = engine(pool_size=1)
    seen = []

    @sa.event.listens_for(made.sync_engine, "connect")
    def on_connect(dbapi_connection, record):
        assert record.driver_connection is dbapi_connection.driver_connection
        with dbapi_connection.cursor() as cursor:
            cursor.execute("SET application_name TO %s", ("by event",))
        dbapi_connection.commit()
        cursor = dbapi_connection.execute("SELECT %s", (1,))
        seen.append(cursor.fetchall())
        dbapi_connection.rollback()
        seen.append(dbapi_connection.run_async(lambda conn: conn.execute("SELECT 2")).rowcount)

    @sa.event.listens_for(made.sync_engine, "before_cursor_execute", retval=True)
    def before(conn, cursor, statement, parameters, context, executemany):
        return statement.replace("before", "after"), parameters

    @sa.event.listens_for(made.sync_engine, "checkout")
    def on_checkout(dbapi_connection, record, proxy):
        seen.append(dbapi_connection.autocommit)

    async with made.connect() as connection:
        assert await connection.scalar(sa.text("SHOW application_name")) == "by event"
        assert await connection.scalar(sa.text("SELECT 'before'")) == "after"
    assert seen == [[(1,)], 1, False]


# --- lost connections -----------------------------------------------------------------------------


def kill(side, pid):
    with side.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))


async def test_pre_ping_replaces_a_killed_connection(engine, side):
    made = engine(pool_pre_ping=True, pool_size=1, max_overflow=0)
    async with made.connect() as connection:
        first = await connection.scalar(PID)
    kill(side, first)
    async with made.connect() as connection:
        second = await connection.scalar(PID)
        raw = (await connection.get_raw_connection()).dbapi_connection
        assert raw.autocommit is False
    assert second != first
    async with made.connect() as connection:
        assert await connection.scalar(PID) == second


async def test_a_killed_connection_is_a_disconnect(engine, side):
    made = engine()
    async with made.connect() as connection:
        kill(side, await connection.scalar(PID))
        with pytest.raises(sa.exc.DBAPIError) as caught:
            await connection.scalar(ONE)
        assert caught.value.connection_invalidated
        with pytest.raises(sa.exc.PendingRollbackError):
            await connection.scalar(ONE)
        await connection.rollback()
        assert await connection.scalar(ONE) == 1


async def test_killed_while_it_executes(engine, side):
    async with engine().connect() as connection:
        pid = await connection.scalar(PID)
        task = asyncio.create_task(connection.scalar(SLEEP))
        await until(lambda: activity(side, pid)[0] == "active")
        kill(side, pid)
        with pytest.raises(sa.exc.OperationalError, match="terminating connection") as caught:
            await task
        assert caught.value.connection_invalidated


async def test_closed_behind_sqlalchemys_back(engine):
    async with engine().connect() as connection:
        await connection.scalar(ONE)
        (await driver_connection(connection)).close()
        with pytest.raises(sa.exc.InterfaceError) as caught:
            await connection.scalar(ONE)
        assert caught.value.connection_invalidated


async def test_other_errors_are_no_disconnect(engine):
    async with engine().connect() as connection:
        pid = await connection.scalar(PID)
        for statement in ("SELECT 1/0", "SELECT 'server closed the connection'::int", "selec"):
            with pytest.raises(sa.exc.DBAPIError) as caught:
                await connection.execute(sa.text(statement))
            assert not caught.value.connection_invalidated
            await connection.rollback()
        assert await connection.scalar(PID) == pid


# --- cancellation and timeouts --------------------------------------------------------------------


@pytest.mark.all_loops
async def test_a_cancelled_statement_ends_on_the_server_and_its_connection_goes(engine, side):
    made = engine(pool_size=1, max_overflow=0)
    async with made.connect() as connection:
        pid = await connection.scalar(PID)
        task = asyncio.create_task(connection.execute(SLEEP))
        await until(lambda: activity(side, pid)[0] == "active")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert connection.invalidated
    await until(lambda: activity(side, pid) is None)
    async with made.connect() as connection:
        assert await connection.scalar(PID) != pid


async def test_cancelled_in_a_session(engine, side):
    made = engine(pool_size=1, max_overflow=0)

    async def work():
        async with AsyncSession(made) as session, session.begin():
            await session.execute(SLEEP)

    task = asyncio.create_task(work())
    await until(lambda: running(side, "pg_sleep(30)"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with made.connect() as connection:
        assert await connection.scalar(ONE) == 1


async def test_timeout_of_statements(engine):
    made = engine(pool_size=1, max_overflow=0, connect_args={"timeout": 1})
    async with made.connect() as connection:
        pid = await connection.scalar(PID)
        with pytest.raises(asyncio.TimeoutError):
            await connection.execute(SLEEP)
        assert connection.invalidated
    async with made.connect() as connection:
        assert await connection.scalar(PID) != pid


async def test_tasks_take_turns_on_a_connection(engine, caplog):
    caplog.set_level(logging.INFO, "sqlalchemy.dialects.postgresql")
    async with engine().connect() as connection:
        query = sa.text("SELECT pg_backend_pid(), CAST(:i AS int), pg_sleep(0.01)")
        rows = await asyncio.gather(*(connection.execute(query, {"i": i}) for i in range(10)))
        assert [row.one()[1] for row in rows] == list(range(10))
    assert not caplog.records  # there was one BEGIN


async def test_streams_and_statements_take_turns(engine, caplog):
    caplog.set_level(logging.INFO, "sqlalchemy.dialects.postgresql")

    async def stream(connection, n):
        result = await connection.stream(sa.text(f"SELECT g FROM generate_series(1, {n}) g"))
        return len([row async for row in result])

    async with engine().connect() as connection:
        lengths = [stream(connection, n) for n in (3, 700, 20, 3000)]
        values = [connection.scalar(ONE) for _ in range(20)]
        assert await asyncio.gather(*lengths, *values) == [3, 700, 20, 3000, *[1] * 20]
    assert not caplog.records


async def test_outside_of_a_greenlet_nothing_is_sent(engine):
    async with engine().connect() as connection:
        raw = (await connection.get_raw_connection()).dbapi_connection
        cursor = raw.cursor()
        with pytest.raises(sa.exc.MissingGreenlet):
            cursor.execute("SELECT 1")
        assert await connection.scalar(ONE) == 1


async def test_raw_driver_connection_in_use_is_an_error_not_a_hang(engine):
    async with engine().connect() as connection:
        inner = await driver_connection(connection)
        task = await underway(inner, inner.execute("SELECT pg_sleep(0.2)"))
        with pytest.raises(RuntimeError, match="another coroutine"):
            await connection.execute(ONE)
        await task


# --- the end --------------------------------------------------------------------------------------


async def test_dispose_closes_connections(engine, side):
    made = engine()
    async with made.connect() as connection:
        pid = await connection.scalar(PID)
        inner = await driver_connection(connection)
    await made.dispose()
    assert inner.closed
    await until(lambda: activity(side, pid) is None)


async def test_a_connection_that_was_forgotten_is_terminated(engine, side, loop_errors):
    made = engine()
    connection = await made.connect()
    pid = await connection.scalar(PID)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        del connection
        gc.collect()
    await until(lambda: activity(side, pid) is None)


def test_terminate_when_the_loop_is_gone(url):
    async def main():
        made = create_async_engine(url)
        connection = await made.connect()
        await connection.scalar(ONE)
        return made, connection, (await connection.get_raw_connection()).dbapi_connection

    _made, connection, raw = asyncio.run(main())
    raw.terminate()
    assert raw.closed
    raw.close()
    connection.sync_connection.detach()


async def test_another_loop_is_refused(engine):
    made = engine(pool_size=1)
    async with made.connect() as connection:
        await connection.scalar(ONE)

    def elsewhere():
        async def main():
            async with made.connect() as connection:
                await connection.scalar(ONE)

        started = time.monotonic()
        with pytest.raises(RuntimeError, match="another event loop"):
            asyncio.run(main())
        return time.monotonic() - started

    assert await asyncio.to_thread(elsewhere) < 10
