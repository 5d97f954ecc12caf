"""What callable defaults are called with: as by SQLAlchemy's own engine, which is `reference`."""

import copy

import pytest
import sqlalchemy.exc
from sa_support import OURS, reference_engine
from sqlalchemy import Column, Integer, MetaData, String, Table, bindparam, func, text

from aiopgx.sa._defaults import DefaultContext

pytest_plugins = ("sa_fixtures",)

CALLS = []


def called(context):
    """A default that notes what it sees; its value depends on it."""
    given = dict(context.get_current_parameters())
    CALLS.append((context.current_column.key, given, context.get_current_parameters(False).copy()))
    return sum(value for value in given.values() if isinstance(value, int))


TABLE = Table(
    "with_defaults",
    MetaData(),
    Column("id", Integer),
    Column("plain", Integer, default=7),
    Column("first", Integer, key="one", default=called),
    Column("second", Integer, default=called),
    Column("of (x)", Integer, default=called),
    Column("note", String),
    Column("changed", Integer, onupdate=called),
)


@pytest.fixture
def conn(make, tables, runner):
    async def connect():
        tables(TABLE.metadata)
        conn = await (await make()).acquire()
        runner.stack.push_async_callback(conn.close)
        return conn

    return connect()


@pytest.fixture
def reference(dsn):
    with reference_engine(dsn) as engine:
        yield engine


@OURS
@pytest.mark.parametrize(
    "statement, parameters",
    [
        (TABLE.insert().values(id=1), ()),
        (TABLE.insert().values({TABLE.c.id: 1, "of (x)": 5}), ()),
        (TABLE.insert().values(id=1, one=2, note="x"), ()),
        (TABLE.insert(), ()),
        (TABLE.insert(), ({"id": 1, "second": 3},)),
        (TABLE.insert(), ([{"id": 1, "second": 3}, {"id": 2, "second": 4}],)),
        (TABLE.insert().values([{"id": 1}, {"id": 2}, {"id": 3}]), ()),
        (TABLE.insert().values([{"id": 1, "one": 2}, {"id": 3, "one": 4}]), ()),
        (TABLE.update().values(note="new").where(TABLE.c.id == 1), ()),
        (TABLE.update().values(one=5, second=6).where(TABLE.c.id == bindparam("k")), ({"k": 1},)),
        (TABLE.update().where(TABLE.c.id == bindparam("k")),
         ([{"k": 1, "plain": 3, "one": 4, "second": 5, "of (x)": 6},
           {"k": 2, "plain": 4, "one": 5, "second": 6, "of (x)": 7}],)),
    ],
)  # fmt: skip
async def test_current_parameters(conn, reference, statement, parameters):
    conn = await conn
    await conn.execute("INSERT INTO with_defaults (id, plain) VALUES (1, 0), (2, 0)")
    seen, written = [], []
    for run in range(3):  # the last one from the cache
        CALLS.clear()
        if run == 0:
            with reference.connect() as other:
                other.execute(statement, *parameters)
                found = other.execute(TABLE.select()).fetchall()
        else:
            async with conn.begin() as transaction:
                await conn.execute(statement, *parameters)
                found = await (await conn.execute(TABLE.select())).fetchall()
                await transaction.rollback()
        seen.append(CALLS.copy())
        written.append(sorted(map(repr, found)))
    assert seen[0] and seen == [seen[0]] * 3
    assert written == [written[0]] * 3


@OURS
async def test_rows_of_columns_and_expressions(conn):
    """SQLAlchemy raises KeyError for these."""
    conn = await conn
    CALLS.clear()
    rows = [{TABLE.c.id: 1, "note": func.lower("A")}, {TABLE.c.id: 2, "note": text("'b'")}]
    await conn.execute(TABLE.insert().values(rows))
    assert [given for _, given, _ in CALLS[::3]] == [{"one": None, "id": 1}, {"one": None, "id": 2}]


@OURS
async def test_parameters_that_a_default_sets(conn, tables):
    def set_other(context):
        context.current_parameters["a"] = 5
        return 6

    table = Table(
        "setting", MetaData(), Column("a", Integer), Column("b", Integer, default=set_other)
    )
    tables(table.metadata)
    conn = await conn
    await conn.execute(table.insert().values(a=1))
    assert (await (await conn.execute(table.select())).first()).as_tuple() == (5, 6)


async def test_the_context_stands_for_the_dialect(sa, conn, tables):
    seen = []
    table = Table(
        "of_dialect",
        MetaData(),
        Column("a", Integer),
        Column("b", String, default=lambda context: seen.append(context) or context.name),
    )
    tables(table.metadata)
    conn = await conn
    await conn.execute(table.insert().values(a=1))
    assert await conn.scalar("SELECT b FROM of_dialect") == "postgresql"
    (context,) = seen
    dialect = conn._dialect
    assert context == dialect and dialect == context and hash(context) == hash(dialect)
    assert {dialect: 1}[context] == 1 and context != sa.engine.get_dialect()
    assert context.identifier_preparer is dialect.identifier_preparer
    assert not hasattr(context, "nothing")


@OURS
async def test_more_of_the_context(conn, tables):
    seen = []
    table = Table(
        "of_context",
        MetaData(),
        Column("a", Integer),
        Column("b", Integer, default=lambda context: seen.append(context) or 1),
        Column("c", Integer, onupdate=lambda context: seen.append(context) or 2),
    )
    tables(table.metadata)
    conn = await conn
    await conn.execute(table.insert().values(a=1))
    await conn.execute(table.update().values(a=2, b=3))
    inserted, updated = seen
    assert (inserted.isinsert, inserted.isupdate) == (True, False)
    assert (updated.isinsert, updated.isupdate) == (False, True)
    assert (inserted.current_column, updated.current_column) == (table.c.b, table.c.c)
    assert inserted.dialect is conn._dialect
    assert inserted.compiled.statement.table is table
    assert inserted != updated and inserted == inserted
    assert copy.copy(inserted) == conn._dialect


def test_there_is_no_current_column():
    compiled = TABLE.insert().compile()
    with pytest.raises(sqlalchemy.exc.InvalidRequestError, match="no current column"):
        DefaultContext(compiled, {}).get_current_parameters()
