"""connect() in all its forms, and everything a Connection offers or refuses."""

import asyncio
import logging
import os
import time
import uuid
from fractions import Fraction
from inspect import isawaitable

import psycopg2
import psycopg2.extensions
import psycopg2.extras
import pytest
from support import error_response, fetch, listener, scalar, underway

CLOSED = "connection already closed"


@pytest.fixture
def params(dsn):
    return psycopg2.extensions.parse_dsn(dsn)


# --- connect: its forms ---------------------------------------------------------------------------


@pytest.mark.all_loops
async def test_await(impl, dsn):
    conn = await impl.connect(dsn)
    assert type(conn) is impl.Connection
    assert await fetch(conn, "SELECT 'hello'") == [("hello",)]
    await conn.close()


@pytest.mark.all_loops
async def test_async_with_closes(impl, dsn):
    async with impl.connect(dsn) as conn:
        assert type(conn) is impl.Connection
        assert not conn.closed
    assert conn.closed


async def test_async_with_closes_after_an_error(impl, dsn):
    with pytest.raises(KeyError):
        async with impl.connect(dsn) as conn:
            raise KeyError
    assert conn.closed


async def test_connection_is_a_context_manager(impl, dsn):
    async with await impl.connect(dsn) as conn:
        assert not conn.closed
    assert conn.closed


async def test_connect_is_a_coroutine_object(impl, dsn):
    connecting = impl.connect(dsn)
    assert asyncio.iscoroutine(connecting)
    assert isawaitable(connecting)
    assert isinstance(connecting, impl.utils._ContextManager)
    await (await connecting).close()


async def test_connect_in_wait_for_and_as_task(ours, dsn):
    first = await asyncio.wait_for(ours.connect(dsn), 10)
    second, third = await asyncio.gather(asyncio.create_task(ours.connect(dsn)), ours.connect(dsn))
    for conn in first, second, third:
        assert await fetch(conn, "SELECT 1") == [(1,)]
        await conn.close()


async def test_dsn_by_keyword(connect, dsn):
    conn = await connect(dsn=dsn)
    assert await fetch(conn, "SELECT 1") == [(1,)]


async def test_keywords_only(connect, params):
    params["database"] = params.pop("dbname")
    conn = await connect(None, **params)
    assert conn.raw.info.dbname == params["database"]


async def test_keywords_win_over_dsn(connect, dsn):
    conn = await connect(dsn, application_name="from a keyword")
    assert await fetch(conn, "SHOW application_name") == [("from a keyword",)]


async def test_url(connect, params):
    url = "postgresql:///{dbname}?host={host}&port={port}&user={user}".format(**params)
    if "password" in params:
        url += f"&password={params['password']}"
    conn = await connect(url)
    assert await fetch(conn, "SELECT current_database()") == [(params["dbname"],)]


async def test_environment(impl, connect, params, monkeypatch):
    for name, value in params.items():
        key = {"dbname": "PGDATABASE"}.get(name, "PG" + name.upper())
        monkeypatch.setenv(key, value)
    conn = await connect("")
    assert conn.raw.info.dbname == params["dbname"]


async def test_old_keywords_are_swallowed(connect, dsn):
    conn = await connect(dsn, loop=asyncio.get_running_loop(), **{"async": True})
    assert await fetch(conn, "SELECT 1") == [(1,)]


async def test_options_reach_the_server(connect):
    conn = await connect(options="-c statement_timeout=4321")
    assert await fetch(conn, "SHOW statement_timeout") == [("4321ms",)]


async def test_dsn_is_the_only_positional_parameter(impl, dsn):
    with pytest.raises(TypeError, match="positional argument"):
        impl.connect(dsn, 5)


async def test_connection_factory(connect):
    class Traced(psycopg2.extensions.connection):
        pass

    conn = await connect(connection_factory=Traced)
    assert type(conn.raw) is Traced
    assert await fetch(conn, "SELECT 1") == [(1,)]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])  # one address; tried one by one
@pytest.mark.parametrize("place", ["keyword", "dsn"])
async def test_the_password_is_not_kept(ours, connect, params, host, place):
    """psycopg2's own connection has it; ours needs it no more."""
    given = {**params, "host": host, "password": "not to be kept"}
    if place == "keyword":
        conn = await connect(None, **given)
    else:
        conn = await connect(psycopg2.extensions.make_dsn(**given))
    assert "not to be kept" not in repr(vars(conn))
    assert conn.raw.info.password == "not to be kept"


async def test_default_cursor_factory(connect):
    conn = await connect(cursor_factory=psycopg2.extras.DictCursor)
    assert conn.cursor_factory is psycopg2.extras.DictCursor
    (row,) = await fetch(conn, "SELECT 1 AS one")
    assert type(row) is psycopg2.extras.DictRow
    assert row["one"] == 1


async def test_many_at_once(impl, dsn):
    connections = await asyncio.gather(*(impl.connect(dsn).__aenter__() for _ in range(10)))
    try:
        rows = await asyncio.gather(*(fetch(c, "SELECT pg_backend_pid()") for c in connections))
        assert len({pid for ((pid,),) in rows}) == 10
    finally:
        for conn in connections:
            conn.close()


# --- connect: what goes wrong ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dsn", "keywords", "text"),
    [
        ("gibberish", {}, 'invalid dsn: missing "=" after "gibberish"'),
        ("", {"no_such_option": 1}, 'invalid dsn: invalid connection option "no_such_option"'),
        ("postgresql://[::1/", {}, "invalid dsn: "),
        ("dbname='open", {}, "invalid dsn: unterminated quoted string in connection info string"),
    ],
)
async def test_bad_dsn_raises_at_the_call(impl, dsn, keywords, text):
    with pytest.raises(psycopg2.ProgrammingError) as info:
        impl.connect(dsn, **keywords)
    assert str(info.value).startswith(text)


def test_connect_needs_a_running_loop(impl, dsn):
    with pytest.raises(RuntimeError, match="no running event loop"):
        impl.connect(dsn)


@pytest.mark.all_loops
async def test_no_such_database(impl, dsn):
    with pytest.raises(psycopg2.OperationalError, match='database "nowhere" does not exist'):
        await impl.connect(dsn, dbname="nowhere")


async def test_no_such_role(impl, dsn):
    with pytest.raises(psycopg2.OperationalError):
        await impl.connect(dsn, user="nobody at all")


@pytest.mark.all_loops
async def test_wrong_password(impl):
    async def serve(reader, writer):
        await reader.read(4096)
        text = 'password authentication failed for user "me"'
        writer.write(error_response("FATAL", "28P01", text))

    async with listener(serve) as port:
        with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
            await impl.connect(
                host="127.0.0.1", port=port, user="me", password="wrong", sslmode="disable"
            )


@pytest.mark.all_loops
async def test_server_closes_while_connecting(impl):
    async def serve(reader, writer):
        await reader.read(1)

    async with listener(serve) as port:
        with pytest.raises(psycopg2.OperationalError, match="closed the connection unexpectedly"):
            await impl.connect(host="127.0.0.1", port=port, user="me", sslmode="disable")


async def test_server_speaks_nonsense(impl):
    async def serve(reader, writer):
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()

    async with listener(serve) as port:
        with pytest.raises(psycopg2.OperationalError):
            await impl.connect(host="127.0.0.1", port=port, user="me", sslmode="disable")


@pytest.mark.all_loops
async def test_nobody_listens(impl, refused):
    with pytest.raises(psycopg2.OperationalError, match="refused"):
        await impl.connect(host="127.0.0.1", port=refused, user="me")


async def test_no_such_socket(impl, tmp_path):
    with pytest.raises(psycopg2.OperationalError, match="No such file or directory"):
        await impl.connect(host=str(tmp_path), user="me")


@pytest.mark.all_loops
async def test_timeout(impl):
    async def serve(reader, writer):
        await reader.read()

    async with listener(serve) as port:
        connecting = impl.connect(
            host="127.0.0.1", port=port, user="me", sslmode="disable", timeout=0.1
        )
        start = time.monotonic()
        with pytest.raises(asyncio.TimeoutError):
            await connecting
    assert 0.09 < time.monotonic() - start < 2


@pytest.mark.all_loops
async def test_cancelled(impl):
    come, gone = asyncio.Event(), asyncio.Event()

    async def serve(reader, writer):
        come.set()
        await reader.read()
        gone.set()

    async def connect(port):
        await impl.connect(host="127.0.0.1", port=port, user="me", sslmode="disable")

    async with listener(serve) as port:
        task = asyncio.create_task(connect(port))
        await come.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(gone.wait(), 10)


@pytest.mark.all_loops
async def test_first_host_is_dead(ours, params, refused):
    host = params.pop("host")
    port = params.pop("port")
    async with ours.connect(
        host=f"127.0.0.1,{host}", port=f"{refused},{port}", timeout=5, **params
    ) as conn:
        assert await fetch(conn, "SELECT 1") == [(1,)]
        assert conn.raw.info.host == host


async def test_first_host_is_starting_up(ours, params):
    async def serve(reader, writer):
        await reader.read(4096)
        writer.write(error_response("FATAL", "57P03", "the database system is starting up"))

    host = params.pop("host")
    port = params.pop("port")
    async with listener(serve) as other:
        keywords = {"host": f"127.0.0.1,{host}", "port": f"{other},{port}", "sslmode": "disable"}
        async with ours.connect(timeout=5, **keywords, **params) as conn:
            assert await fetch(conn, "SELECT 1") == [(1,)]
            assert conn.raw.info.port == int(port)


async def test_localhost(ours, params):
    """A name with two addresses, of which the server may listen on only one."""
    params["host"] = "localhost"
    try:
        psycopg2.connect(**params).close()
    except psycopg2.OperationalError:
        pytest.skip("the server does not listen on localhost")
    async with ours.connect(timeout=5, **params) as conn:
        assert await fetch(conn, "SELECT 1") == [(1,)]


async def test_failed_connects_leave_no_descriptor(ours, refused):
    """On uvloop aiopg fails with "the handler is closed"."""

    async def fail(times):
        for _ in range(times):
            with pytest.raises(psycopg2.OperationalError):
                await ours.connect(host="127.0.0.1", port=refused, user="me")
        return len(os.listdir("/dev/fd"))

    assert await fail(1) == await fail(5)


# --- json, uuid, hstore ---------------------------------------------------------------------------


async def test_json_uuid_hstore_enabled(connect):
    conn = await connect()
    value = uuid.uuid4()
    sql = """SELECT '{"a": [1]}'::json, '{"b": null}'::jsonb, %s, '"a"=>"1", "b"=>NULL'::hstore,
                    ARRAY['"x"=>"y"'::hstore]"""
    assert await fetch(conn, sql, (value,)) == [
        ({"a": [1]}, {"b": None}, value, {"a": "1", "b": None}, [{"x": "y"}])
    ]
    assert await fetch(conn, "SELECT %s", ({"a": "1"},)) == [({"a": "1"},)]


async def test_json_uuid_hstore_disabled(connect):
    conn = await connect(enable_json=False, enable_uuid=False, enable_hstore=False)
    value = "e9a9b3d2-bb9d-4d2b-a5c2-1a6b1a4c8f7e"
    sql = """SELECT %s::uuid, '"a"=>"1"'::hstore"""
    assert await fetch(conn, sql, (value,)) == [(value, '"a"=>"1"')]


async def test_json_disabled_is_psycopgs_own_rule(connect, side):
    conn = await connect(enable_json=False)
    sql = """SELECT '{"a": 1.10}'::json"""
    assert await fetch(conn, sql) == [(scalar(side, sql),)]


async def test_hstore_with_mapping_rows(connect):
    """The look-up of hstore's OIDs must cope with rows that are mappings."""
    conn = await connect(cursor_factory=psycopg2.extras.RealDictCursor)
    assert await fetch(conn, """SELECT '"a"=>"1"'::hstore AS h""") == [{"h": {"a": "1"}}]


async def test_hstore_absent(connect, side):
    with side.cursor() as cursor:
        cursor.execute("CREATE DATABASE aiopgx_bare TEMPLATE template0")
    try:
        conn = await connect(dbname="aiopgx_bare")
        assert await fetch(conn, "SELECT 1") == [(1,)]
        await conn.close()
    finally:
        with side.cursor() as cursor:
            cursor.execute("DROP DATABASE aiopgx_bare WITH (FORCE)")


# --- attributes -----------------------------------------------------------------------------------


async def test_closed_and_close(impl, dsn):
    conn = await impl.connect(dsn)
    assert conn.closed == 0
    waiting = conn.close()
    assert conn.closed == 1, "close() takes effect at the call"
    assert isinstance(waiting, asyncio.Future)
    assert await waiting is None
    assert conn.raw.closed == 1


async def test_close_twice(impl, dsn):
    conn = await impl.connect(dsn)
    await conn.close()
    await conn.close()
    assert conn.closed == 1


async def test_close_twice_spares_the_next_connection(ours, dsn):
    """The descriptor of a closed connection may belong to another one."""
    first = await ours.connect(dsn)
    await first.close()
    async with ours.connect(dsn, timeout=5) as second:
        await first.close()
        assert await fetch(second, "SELECT 1") == [(1,)]


async def test_close_during_a_query(connect):
    conn = await connect()
    task = await underway(conn, fetch(conn, "SELECT pg_sleep(10)"))
    conn.close()
    with pytest.raises(psycopg2.OperationalError, match="Connection closed"):
        await task


async def test_raw(connect, dsn):
    conn = await connect()
    assert isinstance(conn.raw, psycopg2.extensions.connection)
    assert conn.raw is conn._conn
    assert conn.raw.async_ == 1
    with pytest.raises(AttributeError):
        conn.raw = None


async def test_private_names_in_the_wild(connect):
    conn = await connect(timeout=7)
    assert conn._loop is asyncio.get_running_loop()
    assert conn._conn.info.port > 0
    assert conn._timeout == 7
    cursor = await conn._cursor()
    await cursor.execute("SELECT 1")
    assert await cursor.fetchone() == (1,)
    cursor.close()


async def test_plain_attributes(connect, side):
    conn = await connect()
    assert conn.timeout == 60.0
    assert conn.echo is False
    assert conn.dsn == conn.raw.dsn
    assert conn.autocommit is True
    assert conn.isolation_level == side.isolation_level
    assert conn.encoding == "UTF8"
    assert conn.protocol_version == 3
    assert conn.server_version == side.server_version
    assert conn.status == psycopg2.extensions.STATUS_READY
    assert conn.cursor_factory is None
    assert conn.notices == []
    assert conn.isexecuting() is False


@pytest.mark.parametrize(
    "name",
    [
        *("closed", "raw", "dsn", "isolation_level", "encoding", "notices", "cursor_factory"),
        *("protocol_version", "server_version", "status", "timeout", "last_usage", "echo"),
        "notifies",
    ],
)
async def test_read_only(connect, name):
    conn = await connect()
    with pytest.raises(AttributeError):
        setattr(conn, name, 1)


async def test_password_is_hidden_in_dsn(connect):
    conn = await connect(password="hunter2")
    assert "hunter2" not in conn.dsn
    assert "password=xxx" in conn.dsn


async def test_autocommit_assigned(connect):
    conn = await connect()
    with pytest.raises(psycopg2.ProgrammingError) as info:
        conn.autocommit = False
    assert str(info.value) == "set_session cannot be used in asynchronous mode"


async def test_timeouts_that_are_numbers(impl, dsn):
    async with impl.connect(dsn, timeout=Fraction(10)) as conn:
        assert await fetch(conn, "SELECT 1") == [(1,)]
    for none_left in (0, -1):
        with pytest.raises(asyncio.TimeoutError) as caught:
            await impl.connect(dsn, timeout=none_left)
        assert str(caught.value) in ("", "the server has not connected within 0 s")


async def test_timeouts_that_are_none(impl, dsn):
    with pytest.raises(TypeError) as caught:
        await impl.connect(dsn, timeout="1")
    assert impl.__name__ == "aiopg" or "timeout must be a number" in str(caught.value)


async def test_timeout_and_echo_given(connect):
    conn = await connect(timeout=12.5, echo=True)
    assert conn.timeout == 12.5
    assert conn.echo is True
    cursor = await conn.cursor()
    assert cursor.timeout == 12.5
    assert cursor.echo is True


async def test_last_usage(connect):
    conn = await connect()
    loop = asyncio.get_running_loop()
    assert conn.last_usage <= loop.time()
    before = conn.last_usage
    await asyncio.sleep(0.01)
    async with conn.cursor():
        assert before < conn.last_usage <= loop.time()
    conn._last_usage = 42.0
    assert conn.last_usage == 42.0


async def test_get_backend_pid(connect):
    conn = await connect()
    assert await fetch(conn, "SELECT pg_backend_pid()") == [(await conn.get_backend_pid(),)]


async def test_get_parameter_status(connect):
    conn = await connect()
    assert await conn.get_parameter_status("client_encoding") == "UTF8"
    assert await conn.get_parameter_status("no_such_parameter") is None
    await fetch(conn, "SELECT set_config('application_name', 'changed', false)")
    assert await conn.get_parameter_status("application_name") == "changed"


async def test_get_transaction_status(connect):
    ext = psycopg2.extensions
    conn = await connect()
    async with conn.cursor() as cursor:
        assert await conn.get_transaction_status() == ext.TRANSACTION_STATUS_IDLE
        await cursor.execute("BEGIN")
        assert await conn.get_transaction_status() == ext.TRANSACTION_STATUS_INTRANS
        with pytest.raises(psycopg2.errors.DivisionByZero):
            await cursor.execute("SELECT 1/0")
        assert await conn.get_transaction_status() == ext.TRANSACTION_STATUS_INERROR
        await cursor.execute("ROLLBACK")
        assert await conn.get_transaction_status() == ext.TRANSACTION_STATUS_IDLE


async def test_isexecuting_during_a_query(connect):
    conn = await connect()
    task = asyncio.create_task(fetch(conn, "SELECT pg_sleep(0.1)"))
    await asyncio.sleep(0)
    assert conn.isexecuting() is True
    await task
    assert conn.isexecuting() is False


async def test_xid(connect):
    conn = await connect()
    xid = await conn.xid(1, "global", "branch")
    assert (xid.format_id, xid.gtrid, xid.bqual) == (1, "global", "branch")


async def test_repr(impl, connect):
    conn = await connect(echo=True)
    start = f"<{impl.__name__}.connection::Connection isexecuting="
    assert repr(conn) == start + "False, closed=0, echo=True, >"
    await conn.close()
    assert repr(conn) == start + "False, closed=1, echo=True, >"


async def test_encoding_is_that_of_the_start(connect):
    """psycopg2 does not notice a SET of client_encoding on an asynchronous connection."""
    conn = await connect()
    await fetch(conn, "SELECT set_config('client_encoding', 'LATIN1', false)")
    assert conn.encoding == "UTF8"
    assert await conn.get_parameter_status("client_encoding") == "LATIN1"
    with pytest.raises(UnicodeDecodeError):
        await fetch(conn, r"SELECT U&'\00e9'")


async def test_client_encoding_from_the_start(connect):
    conn = await connect(client_encoding="EUC_JP")
    assert conn.encoding == "EUCJP"
    assert await fetch(conn, "SELECT %s", ("日本",)) == [("日本",)]


# --- what is refused ------------------------------------------------------------------------------

REFUSED = [
    ("commit", ()),
    ("rollback", ()),
    ("set_session", ()),
    ("lobject", ()),
]


@pytest.mark.parametrize(("name", "args"), REFUSED, ids=[name for name, _ in REFUSED])
async def test_refused(connect, name, args):
    conn = await connect()
    with pytest.raises(psycopg2.ProgrammingError) as info:
        await getattr(conn, name)(*args)
    assert str(info.value) == f"{name} cannot be used in asynchronous mode"
    assert type(info.value) is psycopg2.ProgrammingError
    assert await fetch(conn, "SELECT 1") == [(1,)]


async def test_refused_only_when_awaited(connect):
    conn = await connect()
    refusal = conn.commit()
    refusal.close()


async def test_set_client_encoding(connect):
    conn = await connect()
    with pytest.raises(psycopg2.ProgrammingError) as info:
        await conn.set_client_encoding("LATIN1")
    assert str(info.value) == "set_client_encoding cannot be used in asynchronous mode"


@pytest.mark.parametrize("level", [1, 2, 3, 4])
async def test_set_isolation_level(connect, level):
    conn = await connect()
    with pytest.raises(psycopg2.ProgrammingError) as info:
        await conn.set_isolation_level(level)
    assert str(info.value) == '"isolation_level" cannot be used in asynchronous mode'


async def test_set_isolation_level_autocommit(ours, connect):
    """The sheet's `set_isolation_level(0)` names what is so already."""
    conn = await connect()
    assert await conn.set_isolation_level(0) is None
    assert conn.autocommit is True


async def test_commit_loses_nothing_silently(connect):
    """A commit() that did nothing would hide that an open transaction stays open."""
    conn = await connect()
    async with conn.cursor() as cursor:
        await cursor.execute("BEGIN")
        with pytest.raises(psycopg2.ProgrammingError):
            await conn.commit()
        status = await conn.get_transaction_status()
        assert status == psycopg2.extensions.TRANSACTION_STATUS_INTRANS
        await cursor.execute("ROLLBACK")


# --- cursor() -------------------------------------------------------------------------------------


async def test_cursor_forms(impl, connect):
    conn = await connect()
    awaited = await conn.cursor()
    assert type(awaited) is impl.Cursor
    async with conn.cursor() as entered:
        assert type(entered) is impl.Cursor
        assert entered.connection is conn
    assert entered.closed
    assert not awaited.closed
    async with awaited:
        pass
    assert awaited.closed


async def test_cursor_is_a_coroutine_object(impl, connect):
    conn = await connect()
    making = conn.cursor()
    assert asyncio.iscoroutine(making)
    assert isinstance(making, impl.utils._ContextManager)
    cursor = await asyncio.create_task(making)
    cursor.close()


async def test_cursor_positional(impl, connect):
    conn = await connect()
    level = impl.IsolationLevel.serializable
    cursor = await conn.cursor(None, psycopg2.extras.DictCursor, None, False, 3.5, level)
    assert cursor.timeout == 3.5
    assert isinstance(cursor.raw, psycopg2.extras.DictCursor)
    async with cursor.begin():
        await cursor.execute("SHOW transaction_isolation")
        assert await cursor.fetchone() == ["serializable"]


@pytest.mark.parametrize("factory", [int, object, "DictCursor"])
async def test_cursor_factory_that_is_none(connect, factory):
    conn = await connect()
    with pytest.raises(TypeError):
        await conn.cursor(cursor_factory=factory)


async def test_cursor_on_a_closed_connection(connect):
    conn = await connect()
    await conn.close()
    with pytest.raises(psycopg2.InterfaceError) as info:
        await conn.cursor()
    assert str(info.value) == CLOSED


async def test_two_cursors_keep_their_results(connect):
    conn = await connect()
    async with conn.cursor() as one, conn.cursor() as two:
        await one.execute("SELECT 1")
        await two.execute("SELECT 2")
        assert await one.fetchone() == (1,)
        assert await two.fetchone() == (2,)


@pytest.mark.parametrize("name", ["DictCursor", "RealDictCursor", "NamedTupleCursor"])
async def test_cursor_class_first(ours, connect, name):
    conn = await connect()
    factory = getattr(psycopg2.extras, name)
    assert getattr(ours, name) is factory
    async with conn.cursor(getattr(ours, name)) as cursor:
        await cursor.execute("SELECT 1 AS one")
        row = await cursor.fetchone()
        assert isinstance(cursor.raw, factory)
        assert (row.one if name == "NamedTupleCursor" else row["one"]) == 1


async def test_connection_execute(ours, connect):
    conn = await connect()
    cursor = await conn.execute("SELECT %s + 1", (41,))
    assert type(cursor) is ours.Cursor
    assert await cursor.fetchall() == [(42,)]
    cursor.close()
    with pytest.raises(psycopg2.errors.UndefinedTable):
        await conn.execute("SELECT * FROM nowhere")
    assert await fetch(conn, "SELECT 1") == [(1,)]


# --- notices --------------------------------------------------------------------------------------


def raise_notices(level, count=1):
    return f"""DO $$ BEGIN FOR i IN 1..{count} LOOP
               RAISE {level} 'number %', i; END LOOP; END $$"""


@pytest.mark.parametrize("level", ["WARNING", "NOTICE", "INFO", "LOG", "DEBUG"])
async def test_notice_levels(connect, level):
    conn = await connect(options="-c client_min_messages=debug1")
    await fetch_none(conn, raise_notices(level))
    assert conn.notices[-1] == f"{level}:  number 1\n"


async def fetch_none(conn, sql):
    async with conn.cursor() as cursor:
        await cursor.execute(sql)


async def test_last_fifty_notices(connect):
    conn = await connect()
    await fetch_none(conn, raise_notices("NOTICE", 70))
    assert conn.notices == [f"NOTICE:  number {n}\n" for n in range(21, 71)]
    assert conn.notices is conn.raw.notices


async def test_notices_add_up_and_may_be_cleared(connect):
    conn = await connect()
    await fetch_none(conn, raise_notices("NOTICE", 2))
    await fetch_none(conn, raise_notices("WARNING"))
    assert conn.notices == ["NOTICE:  number 1\n", "NOTICE:  number 2\n", "WARNING:  number 1\n"]
    del conn.notices[:]
    await fetch_none(conn, raise_notices("NOTICE"))
    assert conn.notices == ["NOTICE:  number 1\n"]


async def test_notices_of_a_failed_statement(connect):
    conn = await connect()
    with pytest.raises(psycopg2.errors.RaiseException):
        await fetch_none(conn, "DO $$ BEGIN RAISE NOTICE 'before'; RAISE EXCEPTION 'after'; END $$")
    assert conn.notices == ["NOTICE:  before\n"]


async def test_notices_replaced_by_a_list_of_ones_own(connect):
    conn = await connect()
    own = conn.raw.notices = []
    await fetch_none(conn, raise_notices("NOTICE"))
    assert own == ["NOTICE:  number 1\n"]


# --- echo -----------------------------------------------------------------------------------------


async def test_echo(impl, connect, caplog):
    conn = await connect(echo=True)
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="aiopg"):
        await fetch(conn, "SELECT %s", ("x",))
        async with conn.cursor() as cursor:
            await cursor.callproc("abs", [-1])
    assert [record.getMessage() for record in caplog.records] == [
        "SELECT %s",
        "('x',)",
        "CALL abs",
        "[-1]",
    ]
    assert {record.levelno for record in caplog.records} == {logging.INFO}
    assert {record.name.split(".")[0] for record in caplog.records} == {"aiopg"}


async def test_no_echo(connect, caplog):
    conn = await connect()
    with caplog.at_level(logging.DEBUG, logger="aiopg"):
        await fetch(conn, "SELECT 1")
    assert [r for r in caplog.records if r.name.startswith("aiopg")] == []
