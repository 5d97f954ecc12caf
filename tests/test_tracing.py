"""Tracers, the log of slow statements, echo="statements"."""

import asyncio
import contextvars
import io
import logging
import weakref

import psycopg2
import pytest
from psycopg2.extras import DictCursor
from psycopg2.sql import SQL, Identifier, Literal
from support import underway, until

import aiopgx
from aiopgx._traced import TracedCursor

WHO = contextvars.ContextVar("who", default=None)


class Recorder:
    """A tracer that keeps what it is told."""

    def __init__(self):
        self.started = []
        self.ended = []

    def __call__(self, operation):
        assert operation.duration is None
        self.started.append((operation, WHO.get()))

        def ended(error):
            assert operation.duration >= 0
            self.ended.append((operation, error, WHO.get()))

        return ended

    def queries(self):
        """Method, statement, rows, status and error's class of the statements that have ended."""
        return [
            (each.method, each.statement, each.rows, each.status, error and type(error))
            for each, error, _ in self.ended
            if each.kind == "query"
        ]

    def forget(self):
        assert len(self.started) == len(self.ended)
        self.started.clear()
        self.ended.clear()


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def traced(ours, connect, recorder):
    """``await traced(**kw)`` -> a connection with the recorder, and a table of its own."""

    async def make(**kwargs):
        conn = await connect(tracer=recorder, **kwargs)
        async with conn.cursor() as cur:
            await cur.execute("CREATE TEMP TABLE t (n int, text text)")
            await cur.execute("INSERT INTO t VALUES (1, 'one'), (2, 'two'), (3, 'three')")
        recorder.forget()
        return conn

    return make


async def rows_of(stream):
    return [row async for row in stream]


COUNT = "SELECT * FROM generate_series(1, %s)"
INSERT = "INSERT INTO t VALUES (%s, %s)"
SETS = [(i, "x") for i in range(5)]

METHODS = {
    "execute": (lambda cur: cur.execute(COUNT, (3,)), "execute", COUNT, 3, "SELECT 3"),
    "keywords": (
        lambda cur: cur.execute(operation=COUNT, parameters=(2,), timeout=5, prepare=True),
        "execute", COUNT, 2, "SELECT 2",
    ),
    "bytes": (lambda cur: cur.execute(b"SELECT 1"), "execute", "SELECT 1", 1, "SELECT 1"),
    "sql": (
        lambda cur: cur.execute(SQL("SELECT {} FROM t").format(Identifier("n"))),
        "execute", 'SELECT "n" FROM t', 3, "SELECT 3",
    ),
    "ddl": (
        lambda cur: cur.execute("CREATE TEMP TABLE u ()"),
        "execute", "CREATE TEMP TABLE u ()", None, "CREATE TABLE",
    ),
    "many": (lambda cur: cur.executemany(INSERT, SETS), "executemany", INSERT, 5, "INSERT 0 1"),
    "many of an iterator": (
        lambda cur: cur.executemany(INSERT, iter(SETS)), "executemany", INSERT, 5, "INSERT 0 1",
    ),
    "many with odd sets": (
        lambda cur: cur.executemany("SELECT 1; " + INSERT, SETS),
        "executemany", "SELECT 1; " + INSERT, 5, "INSERT 0 1",
    ),
    "batch": (
        lambda cur: cur.execute_batch(INSERT, SETS, 2), "execute_batch", INSERT, None, "INSERT 0 1",
    ),
    "values": (
        lambda cur: cur.execute_values("INSERT INTO t VALUES %s", SETS, page_size=2),
        "execute_values", "INSERT INTO t VALUES %s", 5, "INSERT 0 1",
    ),
    "callproc": (
        lambda cur: cur.callproc("generate_series", (1, 4)),
        "callproc", "SELECT * FROM generate_series(%s, %s)", 4, "SELECT 4",
    ),
    "stream": (
        lambda cur: rows_of(cur.stream(COUNT, (250,))), "stream", COUNT, 250, None,
    ),
    "copy_from": (
        lambda cur: cur.copy_from(io.StringIO("7\tx\n"), "t"),
        "copy_from", 'COPY "t" FROM STDIN', 1, None,
    ),
    "copy_to": (
        lambda cur: cur.copy_to(io.StringIO(), "t"), "copy_to", 'COPY "t" TO STDOUT', 3, None,
    ),
    "copy_expert": (
        lambda cur: cur.copy_expert("COPY t TO STDOUT CSV", io.StringIO()),
        "copy_expert", "COPY t TO STDOUT CSV", 3, None,
    ),
    "copy_records": (
        lambda cur: cur.copy_records("t", SETS), "copy_records", 'COPY "t" FROM STDIN', 5, None,
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    "factory", [None, DictCursor, type("Own", (psycopg2.extensions.cursor,), {})]
)
@pytest.mark.parametrize("name", METHODS)
async def test_methods(traced, recorder, name, factory):
    call, *expected = METHODS[name]
    conn = await traced()
    async with conn.cursor(cursor_factory=factory) as cur:
        await call(cur)
    assert recorder.queries() == [(*expected, None)]
    (operation, _), *others = recorder.started
    assert not others and operation.connection is conn
    assert repr(operation).startswith(f"<Operation {operation.method} '{operation.statement[:9]}")


ERRORS = {
    "execute": lambda cur: cur.execute("SELECT 1/0"),
    "not adapted": lambda cur: cur.execute("SELECT %s", (object(),)),
    "no text": lambda cur: cur.execute(SQL("SELECT {}").format(Identifier("none"))),
    "executemany": lambda cur: cur.executemany("SELECT 1/%s", [(1,), (0,)]),
    "execute_values": lambda cur: cur.execute_values("INSERT INTO t VALUES %s", [("x", 1)]),
    "callproc": lambda cur: cur.callproc("none"),
    "stream": lambda cur: rows_of(cur.stream("SELECT 1/(3 - n) FROM t")),
    "copy_from": lambda cur: cur.copy_from(io.StringIO("x"), "t"),
    "copy_to": lambda cur: cur.copy_to(io.StringIO(), "none"),
    "copy_records": lambda cur: cur.copy_records("none", SETS),
}


@pytest.mark.parametrize("name", ERRORS)
async def test_errors(ours, dsn, recorder, no_gc, loop_errors, name):
    """Nothing holds them afterwards: a connection that is dropped is closed at once."""
    conn = await ours.connect(dsn, tracer=recorder)
    async with conn.cursor() as cur:
        await cur.execute("CREATE TEMP TABLE t AS SELECT 3 AS n, 'x'::text AS text")
        recorder.forget()
        with pytest.raises(psycopg2.Error) as raised:
            await ERRORS[name](cur)
    ((operation, error, _),) = recorder.ended
    assert error is raised.value and operation.status is None
    recorder.forget()
    del operation, error, raised
    with pytest.warns(ResourceWarning, match="Unclosed connection"):
        del conn, cur
    loop_errors.clear()


# --- when it ends ---------------------------------------------------------------------------------


SLEEP = "SELECT pg_sleep(30)"
WAITING = {
    "execute": lambda cur: cur.execute(SLEEP),
    "executemany": lambda cur: cur.executemany("SELECT pg_sleep(%s)", [(30,)]),
    "callproc": lambda cur: cur.callproc("pg_sleep", (30,)),
    "stream": lambda cur: rows_of(cur.stream(SLEEP)),
    "copy_expert": lambda cur: cur.copy_expert("COPY (SELECT pg_sleep(30)) TO STDOUT", print),
}


@pytest.mark.parametrize("name", WAITING)
async def test_cancelled(traced, recorder, name):
    conn = await traced()
    cur = await conn.cursor()
    task = await underway(conn, WAITING[name](cur))
    assert len(recorder.started) == 1 and not recorder.ended
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert recorder.queries()[0][4] is asyncio.CancelledError
    recorder.forget()


@pytest.mark.parametrize("name", WAITING)
async def test_timed_out(traced, recorder, name):
    conn = await traced()
    cur = await conn.cursor(timeout=0.05)
    with pytest.raises(asyncio.TimeoutError):
        await WAITING[name](cur)
    assert recorder.queries()[0][4] is asyncio.TimeoutError
    recorder.forget()


async def test_connection_lost(traced, recorder, side):
    conn = await traced()
    cur = await conn.cursor()
    task = await underway(conn, cur.execute(SLEEP))
    conn.close()
    with pytest.raises(psycopg2.OperationalError):
        await task
    assert recorder.queries() == [("execute", SLEEP, None, None, psycopg2.OperationalError)]


async def test_refused_while_another_is_executed(traced, recorder):
    conn = await traced()
    first, second = await conn.cursor(), await conn.cursor()
    task = await underway(conn, first.execute("SELECT pg_sleep(0.05)"))
    with pytest.raises(RuntimeError):
        await second.execute("SELECT 2")
    assert recorder.queries() == [("execute", "SELECT 2", None, None, RuntimeError)]
    with pytest.raises(RuntimeError):
        await first.execute("SELECT 3")
    await task
    assert recorder.queries()[-1][1:] == ("SELECT pg_sleep(0.05)", 1, "SELECT 1", None)
    recorder.forget()


async def test_stream_left(traced, recorder):
    conn = await traced()
    async with conn.cursor() as cur:
        async for _ in cur.stream(COUNT, (10000,)):
            break
        assert recorder.queries() == [("stream", COUNT, 1, None, None)]
        stream = cur.stream(COUNT, (10000,))
        for _ in range(3):
            await anext(stream)
        await stream.aclose()
        assert recorder.queries()[1:] == [("stream", COUNT, 3, None, None)]
        cur.stream(COUNT, (10000,))  # never begun
        async for _ in cur.stream(COUNT, (5,)):
            assert len(recorder.ended) == 2
    recorder.forget()


async def test_stream_of_two_coroutines(traced, recorder):
    conn = await traced()
    async with conn.cursor() as cur:
        stream = cur.stream("SELECT pg_sleep(0.05)")
        task = await underway(conn, anext(stream))
        if conn._wire.native:
            with pytest.raises(RuntimeError):
                await anext(stream)
        assert not recorder.ended
        await task
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
    assert recorder.queries() == [("stream", "SELECT pg_sleep(0.05)", 1, None, None)]


# --- pipelines ------------------------------------------------------------------------------------


async def test_pipeline(traced, recorder):
    conn = await traced()
    async with conn.cursor() as cur, conn.pipeline():
        for count in range(3):
            await cur.execute(COUNT, (count,))
        assert len(recorder.started) == 3 and not recorder.ended
        await cur.fetchall()
        told = [("execute", COUNT, count, f"SELECT {count}", None) for count in range(3)]
        if aiopgx.capabilities().native:
            assert recorder.queries() == told
        else:  # psycopg2's one cursor may be two statements further when it is asked
            assert len(recorder.queries()) == 3 and recorder.queries()[-1] == told[-1]


async def test_pipeline_with_an_error(traced, recorder):
    conn = await traced()
    async with conn.cursor() as first, conn.cursor() as second:
        with pytest.raises(psycopg2.errors.DivisionByZero):
            async with conn.pipeline():
                await first.execute("SELECT 1/0")
                await second.execute("SELECT 2")
        assert [query[1:] for query in recorder.queries()] == [
            ("SELECT 1/0", None, None, psycopg2.errors.DivisionByZero),
            ("SELECT 2", 1, "SELECT 1", None),
        ]


async def test_pipeline_given_up(traced, recorder):
    conn = await traced()
    cursors = [await conn.cursor() for _ in range(2)]

    async def body():
        async with conn.pipeline():
            await cursors[0].execute(SLEEP)
            await cursors[1].execute("SELECT 2")

    task = asyncio.ensure_future(body())
    await until(conn.isexecuting)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: len(recorder.ended) == 2)
    assert asyncio.CancelledError in [query[4] for query in recorder.queries()]
    assert None not in [query[4] for query in recorder.queries()]


async def test_named_cursor(traced, recorder):
    conn = await traced()
    async with conn.cursor() as cur, cur.begin(), conn.cursor(name="mine") as named:
        await named.execute("SELECT * FROM t WHERE n > %s", (0,))
        await named.fetchone()
        await named.scroll(1)
        await named.fetchall()
        async with named.begin_nested():
            pass
    assert recorder.queries() == [
        ("execute", "BEGIN", None, "BEGIN", None),
        ("execute", "SELECT * FROM t WHERE n > %s", None, "DECLARE CURSOR", None),
        ("fetch", 'FETCH FORWARD 1 FROM "mine"', 1, "FETCH 1", None),
        ("fetch", 'MOVE 1 FROM "mine"', 1, "MOVE 1", None),
        ("fetch", 'FETCH FORWARD ALL FROM "mine"', 1, "FETCH 1", None),
        ("execute", "BEGIN", None, "BEGIN", None),
        ("execute", "COMMIT", None, "COMMIT", None),
        ("execute", "COMMIT", None, "COMMIT", None),
    ]


# --- connections and pools ------------------------------------------------------------------------


async def test_connect(ours, dsn, connect, recorder):
    conn = await connect(tracer=recorder)
    ((operation, error, _),) = recorder.ended
    assert (operation.kind, operation.method, error) == ("connect", "connect", None)
    info = conn.raw.info
    assert operation.server == (info.host, info.port, info.dbname, info.user)
    assert operation.connection is conn and operation.statement is operation.rows is None
    recorder.forget()
    await conn.execute("SELECT 1")
    conn.close()
    assert recorder.ended[0][0].server == operation.server


async def test_connect_fails(ours, dsn, recorder):
    with pytest.raises(psycopg2.OperationalError) as raised:
        await ours.connect(dsn, dbname="none", tracer=recorder)
    assert recorder.ended[0][1] is raised.value
    recorder.forget()


async def test_connect_to_the_second_host(ours, dsn, connect, recorder):
    options = psycopg2.extensions.parse_dsn(dsn)
    await connect(host=f"127.0.0.9,{options['host']}", tracer=recorder)
    ((operation, _, _),) = recorder.ended
    assert operation.server.host == options["host"]


async def test_pool(ours, pool, recorder):
    made = await pool(minsize=1, tracer=recorder)
    assert [each.kind for each, _ in recorder.started] == ["connect"]
    recorder.forget()
    async with made.acquire() as conn:
        await conn.execute("SELECT 1")
    with await made as conn:
        pass
    async with made.cursor() as cur:
        await cur.execute("SELECT 2")
    assert [(each.kind, error) for each, error, _ in recorder.ended] == [
        (kind, None)
        for kind in ("acquire", "query", "use", "acquire", "use", "acquire", "query", "use")
    ]
    for operation, _, _ in recorder.ended:
        assert operation.pool is (None if operation.kind == "query" else made)
        assert (operation.connection is None) == (operation.kind == "acquire")
        assert (operation.server is None) == (operation.kind == "acquire")
    recorder.forget()


async def test_subclass_of_pool(ours, dsn, recorder):
    class Pool(ours.Pool):
        async def _acquire(self):
            return await super()._acquire()

    made = await Pool.from_pool_fill(dsn, minsize=1, tracer=recorder)
    async with made.acquire():
        pass
    made.close()
    await made.wait_closed()
    assert [each.kind for each, _, _ in recorder.ended] == ["connect", "acquire", "use"]


async def test_acquire_in_vain(ours, pool, recorder):
    made = await pool(minsize=1, maxsize=1, tracer=recorder)
    recorder.forget()
    async with made.acquire():
        with pytest.raises(asyncio.TimeoutError):
            await made.acquire(timeout=0.05)
        task = asyncio.ensure_future(made.acquire())
        await until(lambda: len(recorder.started) == 4)
        task.cancel()
        await asyncio.wait([task])
    assert [(each.kind, error and type(error)) for each, error, _ in recorder.ended] == [
        ("acquire", None),
        ("acquire", asyncio.TimeoutError),
        ("acquire", asyncio.CancelledError),
        ("use", None),
    ]


async def test_acquire_cancelled_when_it_is_served(ours, pool, recorder):
    """Nobody uses the connection: no use begins, and the pool has it back."""
    made = await pool(minsize=1, maxsize=1, tracer=recorder)
    conn = await made.acquire()
    task = asyncio.ensure_future(made.acquire())
    await until(lambda: made._waiters)
    made.release(conn)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled() and made.freesize == 1
    recorder.forget()


async def test_pool_is_let_go(ours, dsn, recorder, no_gc):
    """By reference count alone, also while connections are in use."""
    made = await ours.create_pool(dsn, minsize=2, tracer=recorder)
    conn = await made.acquire()
    gone = weakref.ref(made)
    recorder.started.clear()
    recorder.ended.clear()
    with pytest.warns(ResourceWarning, match="Unclosed 1 connections"):
        del made
    assert gone() is None
    conn.close()


async def test_sa(ours, dsn, recorder):
    from aiopgx.sa import create_engine

    async with create_engine(dsn, tracer=recorder) as engine:
        recorder.started.clear()
        recorder.ended.clear()
        async with engine.acquire() as conn, conn.begin():
            assert await conn.scalar("SELECT %s::int", (1,)) == 1
    assert [query[1] for query in recorder.queries()] == ["BEGIN", "SELECT %s::int", "COMMIT"]
    assert [each.kind for each, _ in recorder.started] == ["acquire", "use", *["query"] * 3]
    recorder.forget()


# --- context, and tracers that fail ---------------------------------------------------------------


async def test_context(traced, recorder, pool):
    """Each operation starts in the context of the task that called."""
    conn = await traced()

    async def one(who, statement):
        WHO.set(who)
        await (await conn.cursor()).execute(statement)

    async with conn.pipeline():
        await asyncio.gather(*(one(name, f"SELECT '{name}'") for name in "abc"))
    await asyncio.create_task(one("d", "SELECT 'd'"))
    assert {(each.statement, who) for each, who in recorder.started} == {
        (f"SELECT '{name}'", name) for name in "abcd"
    }
    assert {(each.statement, who) for each, _, who in recorder.ended} == {
        (f"SELECT '{name}'", name) for name in "abcd"
    }
    recorder.forget()
    WHO.set("e")
    made = await pool(minsize=0, tracer=recorder)
    async with made.acquire() as conn:
        pass
    assert [(each.kind, who) for each, who in recorder.started] == [
        ("acquire", "e"), ("connect", "e"), ("use", "e"),
    ]  # fmt: skip


@pytest.mark.parametrize("failure", [ZeroDivisionError, asyncio.CancelledError])
@pytest.mark.parametrize("when", ["start", "end"])
async def test_tracer_that_raises(ours, connect, pool, loop_errors, when, failure):
    def tracer(operation):
        if when == "start":
            raise failure
        return ended

    def ended(error):
        raise failure

    made = await pool(minsize=1, maxsize=1, tracer=tracer)
    for _ in range(2):
        async with made.acquire() as conn, conn.cursor() as cur:
            await cur.execute("SELECT 1")
            assert await cur.fetchall() == [(1,)]
            assert [row async for row in cur.stream("SELECT 2")] == [(2,)]
            async with conn.pipeline():
                await cur.execute("SELECT 3")
            assert await cur.fetchone() == (3,)
            with pytest.raises(psycopg2.errors.DivisionByZero):
                await cur.execute("SELECT 1/0")
    assert made.freesize == 1
    # once for the connect, and twice for: acquire, use, four statements
    assert len(loop_errors) == 13
    assert all(type(context["exception"]) is failure for context in loop_errors)
    assert all("a tracer has failed" in context["message"] for context in loop_errors)
    loop_errors.clear()


async def test_several_tracers(ours, connect, loop_errors):
    recorders = Recorder(), Recorder()

    def broken(operation):
        raise ZeroDivisionError

    conn = await connect(tracer=[recorders[0], broken, recorders[1]])
    await conn.execute("SELECT 1")
    for each in recorders:
        assert each.queries() == [("execute", "SELECT 1", 1, "SELECT 1", None)]
    assert len(loop_errors) == 2
    loop_errors.clear()


async def test_tracer_that_keeps_nothing(ours, connect):
    seen = []
    conn = await connect(tracer=seen.append)
    await conn.execute("SELECT 1")
    assert [each.kind for each in seen] == ["connect", "query"]


async def test_iterators_are_left_alone(ours, connect):
    parameters = []
    conn = await connect(tracer=lambda operation: parameters.append(operation.parameters))
    async with conn.cursor() as cur:
        await cur.execute("SELECT %s", (1,))
        await cur.executemany("SELECT %s", [(1,), (2,)])
        await cur.executemany("SELECT %s", ((i,) for i in range(2)))
    assert parameters == [None, (1,), [(1,), (2,)], None]


@pytest.mark.parametrize("tracer", [1, "x", [print, None]], ids=["number", "text", "one of two"])
async def test_bad_tracer(ours, dsn, tracer):
    with pytest.raises(TypeError, match="tracer must be a function"):
        ours.connect(dsn, tracer=tracer)
    with pytest.raises(TypeError, match="tracer must be a function"):
        await ours.create_pool(dsn, tracer=tracer)


async def test_coroutine_function_as_tracer(ours, dsn):
    async def tracer(operation):
        pass

    with pytest.raises(TypeError, match="tracer must be a function"):
        ours.connect(dsn, tracer=tracer)


# --- those who have none --------------------------------------------------------------------------


async def test_without_tracer(ours, connect, pool):
    """Their cursors are of the usual class, whose methods know nothing of tracers."""
    conn = await connect()
    async with conn.cursor() as cur, cur.begin(), conn.cursor(name="n") as named:
        assert type(cur) is ours.Cursor and type(named) is ours.NamedCursor
    conn = await connect(tracer=print)
    assert type(conn) is ours.Connection
    async with conn.cursor() as cur, cur.begin(), conn.cursor(name="n") as named:
        assert isinstance(cur, TracedCursor) and isinstance(named, ours.NamedCursor)
    assert type(await pool(tracer=print)) is ours.Pool


async def test_patched_methods_are_called(ours, connect, recorder, monkeypatch):
    """What agents put in the place of a method of the class."""
    calls = []
    original = ours.Cursor.execute

    async def execute(self, operation, *args, **kwargs):
        calls.append(operation)
        await original(self, operation, *args, **kwargs)

    monkeypatch.setattr(ours.Cursor, "execute", execute)
    conn = await connect(tracer=recorder, enable_hstore=False)
    await conn.execute("SELECT 1")
    assert calls == ["SELECT 1"] == [query[1] for query in recorder.queries()]


# --- logs -----------------------------------------------------------------------------------------


async def use_secrets(conn):
    """All methods, with a parameter that is not to be seen; returns the statements."""
    async with conn.cursor() as cur:
        await cur.execute("CREATE TEMP TABLE s (text text UNIQUE)")
        await cur.execute("SELECT %s::text", ("secret",))
        await cur.execute(SQL("SELECT {}, {}").format(Literal("secret"), SQL("1")))
        await cur.executemany("INSERT INTO s VALUES (%s)", [("secret",)])
        with pytest.raises(psycopg2.errors.UniqueViolation):
            await cur.executemany("INSERT INTO s VALUES (%s)", [("secret",)])
        await cur.execute("TRUNCATE s")
        await cur.execute_values("INSERT INTO s VALUES %s", [("secret",)])
        with pytest.raises(psycopg2.errors.UniqueViolation):
            await cur.execute_batch("INSERT INTO s VALUES (%s)", [("secret",)])
        with pytest.raises(psycopg2.errors.UniqueViolation):
            await cur.copy_records("s", [("secret",)])
        await cur.callproc("lower", ["secret"])
        assert await rows_of(cur.stream("SELECT * FROM s WHERE text = %s", ("secret",)))
        await cur.copy_expert(
            SQL("COPY (SELECT {}) TO STDOUT").format(Literal("secret")), io.StringIO()
        )
        async with cur.begin(), conn.cursor(name="n") as named:
            await named.execute("SELECT * FROM s WHERE text = %(t)s", {"t": "secret"})
            assert await named.fetchall() == [("secret",)]
        async with conn.pipeline():
            await cur.execute("SELECT %s::text", ("secret",))
    return [
        "CREATE TEMP TABLE s (text text UNIQUE)",
        "SELECT %s::text",
        "SELECT %s, 1",
        "INSERT INTO s VALUES (%s)",
        "INSERT INTO s VALUES (%s)",
        "TRUNCATE s",
        "INSERT INTO s VALUES %s",
        "INSERT INTO s VALUES (%s)",
        'COPY "s" FROM STDIN',
        "SELECT * FROM lower(%s)",
        "SELECT * FROM s WHERE text = %s",
        "COPY (SELECT %s) TO STDOUT",
        "BEGIN",
        "SELECT * FROM s WHERE text = %(t)s",
        'FETCH FORWARD ALL FROM "n"',
        "COMMIT",
        "SELECT %s::text",
    ]


async def test_echo_of_statements(ours, connect, caplog):
    conn = await connect(echo="statements")
    assert conn.echo is True
    async with conn.cursor() as cur:
        assert cur.echo is True
    with caplog.at_level(logging.DEBUG):
        statements = await use_secrets(conn)
    assert [record.getMessage() for record in caplog.records] == statements
    assert {(record.name, record.levelname) for record in caplog.records} == {("aiopg", "INFO")}
    assert "secret" not in caplog.text


@pytest.mark.parametrize("echo", [True, "yes", 1])
async def test_echo_with_parameters(impl, connect, caplog, echo):
    """As in aiopg, whatever is true."""
    conn = await connect(echo=echo)
    with caplog.at_level(logging.INFO, "aiopg"):
        async with conn.cursor() as cur:
            assert cur.echo is conn.echo is True
            await cur.execute("SELECT %s", ("seen",))
    assert [record.getMessage() for record in caplog.records][-2:] == ["SELECT %s", "('seen',)"]


async def test_echo_misspelt(ours, dsn, pool):
    """Which would log the parameters."""
    with pytest.raises(ValueError, match='echo must be True, False or "statements"'):
        ours.connect(dsn, echo="statement")
    with pytest.raises(ValueError, match="not 'Statements'"):
        await pool(echo="Statements")


async def test_echo_of_a_pool(ours, pool, caplog):
    made = await pool(echo="statements")
    assert made.echo is True
    with caplog.at_level(logging.INFO, "aiopg"):
        async with made.cursor() as cur:
            await cur.execute("SELECT %s", ("secret",))
    assert caplog.messages == ["SELECT %s"]


async def test_slow_query(ours, connect, caplog):
    conn = await connect(slow_query=0.05)
    async with conn.cursor() as cur:
        await cur.execute("SELECT 1")
        await cur.execute("SELECT pg_sleep(%s)", (0.06,))
        with pytest.raises(asyncio.TimeoutError):
            await cur.execute("SELECT pg_sleep(%s)", (30,), timeout=0.1)
    first, second = (record for record in caplog.records if "pg_sleep" in record.args[2])
    assert all(record.args[0] >= 0.05 for record in caplog.records)
    assert (first.name, first.levelname) == ("aiopg", "WARNING")
    duration = first.args[0]
    assert 0.06 <= duration < 5
    assert first.getMessage() == f"slow query: {duration:.3f} s, 1 rows: SELECT pg_sleep(%s)"
    duration = second.args[0]
    assert second.getMessage() == f"slow query: {duration:.3f} s, TimeoutError: SELECT pg_sleep(%s)"


async def test_slow_query_shows_no_parameters(ours, connect, caplog):
    """Nor the server's texts, which have values in them."""
    conn = await connect(slow_query=0)
    statements = await use_secrets(conn)
    assert [record.args[2] for record in caplog.records] == statements
    assert "secret" not in caplog.text
    assert "UniqueViolation" in caplog.text


async def test_slow_query_of_a_pool(ours, pool, caplog):
    made = await pool(slow_query=0)
    async with made.cursor() as cur:
        await cur.execute("SELECT 1")
    assert [record.args[2] for record in caplog.records] == ["SELECT 1"]


@pytest.mark.parametrize(
    ("value", "error"),
    [("1", TypeError), (True, TypeError), (-1, ValueError), (float("nan"), ValueError)],
)
async def test_bad_slow_query(ours, dsn, value, error):
    with pytest.raises(error, match="slow_query must"):
        ours.connect(dsn, slow_query=value)
    with pytest.raises(error, match="slow_query must"):
        await ours.create_pool(dsn, minsize=0, slow_query=value)


@pytest.mark.parametrize("shared", [None, False])
async def test_pool_execute(ours, pool, recorder, caplog, shared):
    """One operation, whichever connection it is."""
    made = await pool(minsize=1, tracer=recorder, echo="statements")
    recorder.forget()
    with caplog.at_level(logging.INFO, "aiopg"):
        async with made.execute(COUNT, (3,), shared=shared) as cur:
            assert len(await cur.fetchall()) == 3
    with pytest.raises(psycopg2.errors.DivisionByZero):
        await made.execute("SELECT 1/0", shared=shared)
    assert recorder.queries() == [
        ("execute", COUNT, 3, "SELECT 3", None),
        ("execute", "SELECT 1/0", None, None, psycopg2.errors.DivisionByZero),
    ]
    assert caplog.messages == [COUNT]
