"""Engine, SAConnection as an object, get_dialect, and the names of aiopg.sa."""

import asyncio
import importlib
import inspect
import json
import subprocess
import sys
import types
import weakref

import psycopg2
import pytest
import sqlalchemy
from sa_support import NO_AIOPG, OURS, PERSON, add, rows
from sqlalchemy import JSON, Column, Integer, MetaData, Table, literal, select
from support import underway, until

import aiopgx
import aiopgx.sa

pytest_plugins = ("sa_fixtures",)

MODULES = ["", ".connection", ".engine", ".exc", ".result", ".transaction", ".utils"]


# --- Engine ---------------------------------------------------------------------------------------


async def test_attributes(sa, make, dsn):
    engine = await make(minsize=2, maxsize=5, timeout=20)
    assert type(engine) is sa.Engine
    assert (engine.minsize, engine.maxsize, engine.size, engine.freesize) == (2, 5, 2, 2)
    assert (engine.timeout, engine.closed) == (20, False)
    assert (engine.name, engine.driver) == ("postgresql", "psycopg2")
    assert engine.dialect is sa.engine._dialect
    assert psycopg2.extensions.parse_dsn(engine.dsn) == psycopg2.extensions.parse_dsn(dsn)
    assert type(engine._pool).__name__ == "Pool"


async def test_defaults(engine):
    engine = await engine
    assert (engine.minsize, engine.maxsize, engine.timeout) == (1, 10, 60.0)


async def test_a_dialect_of_ones_own(sa, make):
    dialect = sa.engine.get_dialect()
    engine = await make(dialect=dialect)
    assert engine.dialect is dialect
    assert sa.engine.get_dialect() is not dialect


async def test_without_a_server(sa):
    with pytest.raises(psycopg2.OperationalError):
        await sa.create_engine("host=127.0.0.1 port=1 connect_timeout=1")


async def test_create_engine_as_a_context(sa, dsn):
    async with sa.create_engine(dsn) as engine:
        async with engine.acquire() as conn:
            assert await conn.scalar("SELECT 1") == 1
        assert not engine.closed
    assert engine.closed


async def test_an_engine_as_a_context(sa, dsn):
    async with await sa.create_engine(dsn) as engine:
        assert not engine.closed
    assert engine.closed


async def test_acquire_and_release(sa, engine):
    engine = await engine
    conn = await engine.acquire()
    assert type(conn) is sa.SAConnection
    assert (engine.size, engine.freesize, conn.closed) == (1, 0, False)
    await engine.release(conn)
    assert (engine.size, engine.freesize) == (1, 1)
    async with engine.acquire() as other:
        assert other.connection is conn.connection
        assert other is not conn


async def test_release_takes_effect_at_the_call(engine):
    engine = await engine
    conn = await engine.acquire()
    engine.release(conn)
    assert engine.freesize == 1


async def test_await_engine(engine):
    engine = await engine
    with await engine as conn:
        assert await conn.scalar("SELECT 1") == 1
        assert engine.freesize == 0
    await until(lambda: conn.connection is None)
    assert (conn.closed, engine.freesize) == (True, 1)


async def test_with_engine(engine):
    engine = await engine
    with pytest.raises(RuntimeError) as info, engine:
        pass
    assert str(info.value) == '"await" should be used as context manager expression'


async def test_acquire_times_out(make):
    engine = await make(maxsize=1, timeout=1)
    async with engine.acquire() as conn:
        with pytest.raises(asyncio.TimeoutError):
            await engine.acquire()
        assert await conn.scalar("SELECT 1") == 1
    async with engine.acquire():
        pass


async def test_closing(engine):
    engine = await engine
    conn = await engine.acquire()
    with pytest.raises(RuntimeError):
        await engine.wait_closed()
    engine.close()
    with pytest.raises(RuntimeError):
        await engine.acquire()
    waiter = asyncio.ensure_future(engine.wait_closed())
    await asyncio.sleep(0)
    assert not engine.closed
    await conn.close()
    await waiter
    assert (engine.closed, engine.size) == (True, 0)


async def test_terminate(engine):
    engine = await engine
    conn = await engine.acquire()
    engine.terminate()
    assert conn.closed
    await conn.close()
    await engine.wait_closed()
    assert engine.closed


async def test_a_replaced_create_pool(sa, dsn, monkeypatch):
    package = importlib.import_module(sa.__name__.partition(".")[0])
    calls = []
    create_pool = package.create_pool
    monkeypatch.setattr(
        package, "create_pool", lambda *args, **kw: calls.append(args) or create_pool(*args, **kw)
    )
    async with sa.create_engine(dsn):
        assert calls == [(dsn,)]


# --- SAConnection ---------------------------------------------------------------------------------


async def test_a_connection_closes_once(sa, conn):
    conn = await conn
    engine = conn._engine
    assert (conn.closed, conn.connection is conn._connection) == (0, True)
    await conn.close()
    await conn.close()
    assert (conn.closed, conn.connection, engine.freesize) == (True, None, 1)
    for use in (lambda: conn.execute("SELECT 1"), conn.begin, conn.begin_nested):
        with pytest.raises(sa.ResourceClosedError, match=r"^This connection is closed\.$"):
            await use()


async def test_it_is_lazy(sa, conn):
    conn = await conn
    execution = conn.execute("SELECT 1")
    await conn.close()
    with pytest.raises(sa.ResourceClosedError):
        await execution


async def test_a_connection_that_is_gone(conn):
    conn = await conn
    conn.connection.close()
    assert conn.closed
    with pytest.raises(psycopg2.InterfaceError):
        await conn.execute("SELECT 1")
    await conn.close()


async def test_close_closes_the_results(conn):
    conn = await conn
    results = [await conn.execute("SELECT 1") for _ in range(3)]
    cursor = results[0].cursor
    await conn.close()
    assert [result.closed for result in results] == [True] * 3
    assert cursor.closed
    with pytest.raises(psycopg2.InterfaceError):
        await results[0].fetchone()


async def test_a_second_execution_meanwhile(conn):
    conn = await conn
    task = await underway(conn.connection, conn.scalar("SELECT pg_sleep(0.1)"))
    with pytest.raises(RuntimeError, match="another coroutine is already waiting"):
        await conn.execute("SELECT 1")
    await task


async def test_a_connection_made_by_hand(sa, make):
    engine = await make()
    raw = await engine._pool.acquire()
    released = []

    class Stand:
        dialect = sa.engine._dialect

        async def release(self, conn):
            released.append(conn)

    conn = sa.SAConnection(raw, Stand())
    assert await conn.scalar(select(literal(5))) == 5
    async with conn.begin():
        pass
    await conn.close()
    assert released == [conn]
    bare = sa.SAConnection(raw, types.SimpleNamespace(dialect=sa.engine._dialect))
    assert await bare.scalar(select(literal(6))) == 6
    await bare.close()
    assert bare.closed
    await engine._pool.release(raw)


async def test_a_subclass_that_leaves_out_init(sa, make):
    engine = await make()
    raw = await engine._pool.acquire()

    class Own(sa.SAConnection):
        def __init__(self, connection, dialect):
            self._connection = connection
            self._transaction = None
            self._savepoint_seq = 0
            self._engine = None
            self._dialect = dialect
            self._cursors = weakref.WeakSet()
            self._query_compile_kwargs = {"render_postcompile": True}
            self.note = "mine"

    conn = Own(raw, sa.engine.get_dialect())
    for _ in range(2):
        assert await conn.scalar(select(literal(5))) == 5
    async with conn.begin(), conn.begin_nested():
        pass
    await conn.close()
    assert conn.connection is raw  # without an engine nobody takes it back
    await engine._pool.release(raw)


@pytest.mark.parametrize("more", [(), (("render_postcompile", True),)])
async def test_compile_options_of_a_subclass(sa, make, more):
    engine = await make()

    class Literal(sa.SAConnection):
        _QUERY_COMPILE_KWARGS = (("literal_binds", True), *more)

    raw = await engine._pool.acquire()
    conn = Literal(raw, engine)
    result = await conn.execute(select(literal(5)).where(literal(1).in_([1, 2])))
    assert b"SELECT 5" in result.cursor.query or b"SELECT 5" in result.cursor._impl.query
    assert await result.scalar() == 5
    await conn.close()


@OURS
async def test_unknown_compile_options(sa, make):
    engine = await make()
    async with engine.acquire() as conn:
        conn._query_compile_kwargs = {"render_postcompile": True, "note": 1}
        for wanted in ([1], [1, 2], []):
            assert await conn.scalar(select(literal(1).in_(wanted))) is (1 in wanted)


async def test_replaced_methods_are_called(sa, conn, monkeypatch):
    conn = await conn
    calls = []
    for cls, name in (
        (type(conn.connection), "cursor"),
        (importlib.import_module(sa.__name__.partition(".")[0]).Cursor, "execute"),
        (importlib.import_module(sa.__name__.partition(".")[0]).Cursor, "fetchone"),
    ):
        original = getattr(cls, name)

        def replaced(self, *args, _original=original, _name=name, **kwargs):
            calls.append(_name)
            return _original(self, *args, **kwargs)

        monkeypatch.setattr(cls, name, replaced)
    for _ in range(2):
        assert await conn.scalar(select(literal(5))) == 5
    assert calls == ["cursor", "execute", "fetchone"] * 2


async def test_notifications(conn):
    conn = await conn
    await conn.execute("LISTEN channel")
    await conn.execute("NOTIFY channel, 'hello'")
    notify = await asyncio.wait_for(conn.connection.notifies.get(), 5)
    assert notify.payload == "hello"


# --- get_dialect ----------------------------------------------------------------------------------


async def test_a_json_serializer(sa, make, tables):
    stored = Table("stored", MetaData(), Column("id", Integer), Column("data", JSON))
    tables(stored.metadata)
    dialect = sa.engine.get_dialect(
        json_serializer=lambda value: json.dumps({"wrapped": value}),
        json_deserializer=lambda value: pytest.fail("psycopg2 parses JSON"),
    )
    engine = await make(dialect=dialect)
    async with engine.acquire() as conn:
        await conn.execute(stored.insert().values(id=1, data=[1]))
        assert await conn.scalar(select(stored.c.data)) == {"wrapped": [1]}


def test_attributes_of_the_dialect(sa):
    dialect = sa.engine.get_dialect()
    assert dialect.statement_compiler is sa.engine.APGCompiler_psycopg2
    for name in (
        "implicit_returning",
        "supports_native_enum",
        "supports_smallserial",
        "supports_sane_multi_rowcount",
        "_has_native_hstore",
    ):
        assert getattr(dialect, name) is True
    assert dialect._backslash_escapes is False


async def test_a_compiler_of_ones_own(sa, make, tables):
    tables(PERSON.metadata)

    class Compiler(sa.engine.APGCompiler_psycopg2):
        def construct_params(self, *args, **kwargs):
            return {
                name: value + 100 if isinstance(value, int) else value
                for name, value in super().construct_params(*args, **kwargs).items()
            }

    dialect = sa.engine.get_dialect()
    dialect.statement_compiler = Compiler
    engine = await make(dialect=dialect)
    async with engine.acquire() as conn:
        for _ in range(2):
            assert await conn.scalar(select(literal(5))) == 105
        await add(conn, (1, "Ann", 30))
        assert await rows(conn, select(PERSON.c.id).where(PERSON.c.id == -99)) == [(1,)]


# --- names ----------------------------------------------------------------------------------------


SEMI_PRIVATE = {"_connection", "_pool", "_dialect", "_dsn", "_loop", "_transaction", "__init__"}
# The row has fewer of its parameters; what commits and releases in contexts is nobody's business.
OTHER_SIGNATURE = {"RowProxy.__init__"}
FUNCTIONS = {"create_engine", "_create_engine", "get_dialect"}


def pairs():
    """(name, aiopg's, ours) of all classes, their members and functions; ours is None if missing"""
    for suffix in MODULES:
        theirs = importlib.import_module(f"aiopg.sa{suffix}")
        ours = importlib.import_module(f"aiopgx.sa{suffix}")
        for name, value in vars(theirs).items():
            other = getattr(ours, name, None)
            if inspect.isclass(value) and value.__module__.startswith("aiopg.sa"):
                yield name, value, other
                for member in vars(value):
                    if not member.startswith("_") or member in SEMI_PRIVATE:
                        there = inspect.getattr_static(value, member)
                        yield f"{name}.{member}", there, inspect.getattr_static(other, member, None)
            elif name in FUNCTIONS:
                yield name, value, other


if NO_AIOPG is None:
    PAIRS = [pair for pair in pairs() if pair[0] not in OTHER_SIGNATURE]

    def test_enough_is_compared():
        assert len(PAIRS) > 80

    @pytest.mark.parametrize("name, theirs, ours", PAIRS, ids=[pair[0] for pair in PAIRS])
    def test_a_name_is_there(name, theirs, ours):
        assert ours is not None
        if not inspect.isfunction(theirs):
            assert type(theirs) is type(ours)
            return
        assert inspect.iscoroutinefunction(theirs) == inspect.iscoroutinefunction(ours)
        one, two = (inspect.signature(f).parameters.values() for f in (theirs, ours))
        if name == "Engine.acquire":
            two = [p for p in two if p.name != "timeout"]  # new in aiopgx
        assert [(p.name, p.kind) for p in one] == [(p.name, p.kind) for p in two]
        for p, q in zip(one, two, strict=True):
            if p.name not in ("dialect", "json_serializer", "json_deserializer"):
                assert p.default == q.default


def test_exceptions(sa):
    exc = sa.exc
    assert exc.Error.__bases__ == (Exception,)
    assert exc.ArgumentError.__bases__ == (exc.Error,)
    assert exc.InvalidRequestError.__bases__ == (exc.ArgumentError,)
    assert exc.NoSuchColumnError.__bases__ == (KeyError, exc.InvalidRequestError)
    assert exc.ResourceClosedError.__bases__ == (exc.InvalidRequestError,)
    namespace = {}
    exec(f"from {exc.__name__} import *", namespace)
    assert namespace["NoSuchColumnError"] is sa.NoSuchColumnError


def test_names_of_the_package(sa):
    assert sorted(sa.__all__) == [
        *("ArgumentError", "Engine", "Error", "InvalidRequestError", "NoSuchColumnError"),
        *("ResourceClosedError", "SAConnection", "create_engine"),
    ]
    version = sa.utils.SQLALCHEMY_VERSION
    assert version == sqlalchemy.__version__.split(".")


def run(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=True
    ).stdout


def test_aiopgx_does_not_import_sqlalchemy():
    assert run("import aiopgx, sys; print('sqlalchemy' in sys.modules)") == "False\n"


def test_without_sqlalchemy():
    code = """
import sys
sys.modules["sqlalchemy"] = None
import aiopgx
try:
    from aiopgx import sa
except ImportError as exc:
    print(exc)
"""
    assert run(code) == "aiopgx.sa needs SQLAlchemy 1.4, 2.0 or 2.1: pip install sqlalchemy\n"


@OURS
def test_the_package_is_ours(sa):
    assert sa is aiopgx.sa
    assert aiopgx.sa.connection.SAConnection is aiopgx.sa.SAConnection
