"""ResultProxy and RowProxy."""

import copy
import gc
import pickle
from collections.abc import Mapping

import psycopg2
import psycopg2.extras
import pytest
from sa_support import OURS, PERSON, add
from sqlalchemy import (
    LABEL_STYLE_TABLENAME_PLUS_COL,
    Column,
    Integer,
    MetaData,
    String,
    Table,
    bindparam,
    func,
    literal,
    select,
    text,
)
from sqlalchemy.types import TypeDecorator

pytest_plugins = ("sa_fixtures",)

ONE = (1, "Ann", 30)
TWO = (2, "Bob", None)
ALL = select(PERSON).order_by(PERSON.c.id)


@pytest.fixture
def row(conn):
    """await it for the row ONE."""

    async def first():
        connection = await conn
        await add(connection, ONE)
        return await (await connection.execute(ALL)).first()

    return first()


# --- RowProxy -------------------------------------------------------------------------------------


async def test_a_value_by_each_kind_of_key(row):
    row = await row
    assert (row.id, row.name, row.age) == ONE
    assert (row["id"], row["name"], row["age"]) == ONE
    assert (row[0], row[1], row[2]) == ONE
    assert (row[PERSON.c.id], row[PERSON.c.name], row[PERSON.c.age]) == ONE
    assert row[True] == "Ann"  # as an index


async def test_a_row_is_a_mapping(row):
    row = await row
    assert isinstance(row, Mapping)
    assert dict(row) == {"id": 1, "name": "Ann", "age": 30}
    assert {**row} == dict(row)
    assert list(row) == list(row.keys()) == ["id", "name", "age"]
    assert list(row.values()) == [1, "Ann", 30]
    assert list(row.items()) == [("id", 1), ("name", "Ann"), ("age", 30)]
    assert len(row) == 3
    assert row.get("name") == "Ann"
    assert row.get("nothing", 5) == 5
    first, *others = row
    assert (first, others) == ("id", ["name", "age"])


async def test_contains(row):
    row = await row
    assert "id" in row and 2 in row and PERSON.c.age in row
    assert "nothing" not in row and 3 not in row and -1 not in row
    assert Table("other", MetaData(), Column("nothing", Integer)).c.nothing not in row


@pytest.mark.parametrize("key", ["nothing", 3, -1, None, 1.5, ("id",), b"id"])
async def test_no_such_column(sa, row, key):
    row = await row
    with pytest.raises(sa.NoSuchColumnError) as info:
        row[key]
    expected = f"Could not locate column in row for column {str(key)!r}"
    assert info.value.args == (expected,)
    assert isinstance(info.value, (KeyError, sa.InvalidRequestError))


async def test_no_such_column_object(sa, row):
    row = await row
    other = Table("other", MetaData(), Column("nothing", Integer)).c.nothing
    with pytest.raises(sa.NoSuchColumnError) as info:
        row[other]
    assert info.value.args == ("Could not locate column in row for column 'other.nothing'",)


async def test_no_such_attribute(row):
    row = await row
    with pytest.raises(AttributeError) as info:
        row.nothing  # noqa: B018
    assert str(info.value) == "Could not locate column in row for column 'nothing'"
    assert not hasattr(row, "nothing")
    assert getattr(row, "nothing", 5) == 5


async def test_an_unhashable_key(row):
    with pytest.raises(TypeError, match="unhashable"):
        (await row)[["id"]]


async def test_a_column_of_the_same_name_in_another_table(row):
    other = Table("other", MetaData(), Column("id", Integer), Column("key", String, key="name"))
    row = await row
    assert (row[other.c.id], row[other.c.name]) == (1, "Ann")
    assert row[PERSON.alias().c.age] == 30


async def test_as_tuple_and_repr(row):
    row = await row
    assert row.as_tuple() == ONE
    assert type(row.as_tuple()) is tuple
    assert repr(row) == str(row) == repr(ONE)


async def test_equality(conn, row):
    row = await row
    other = await (await (await conn).execute("SELECT 1 AS a, 'Ann' AS b, 30 AS c")).first()
    assert row == other and other == row
    assert row == ONE and ONE == row  # noqa: SIM300
    assert not row != ONE  # noqa: SIM202
    assert row != TWO and row != list(ONE) and row != dict(row) and row != 5
    assert row.__eq__(5) is NotImplemented


async def test_a_row_cannot_be_hashed(row):
    with pytest.raises(TypeError, match="unhashable"):
        hash(await row)


async def test_a_row_takes_no_attributes(row):
    row = await row
    with pytest.raises(AttributeError):
        row.note = 1
    with pytest.raises(TypeError):
        row["id"] = 1


async def test_ambiguous_names(sa, conn):
    conn = await conn
    row = await (await conn.execute("SELECT 1 AS a, 2 AS b, 3 AS a, 4 AS a")).first()
    assert (row[0], row[1], row[2], row[3], row.b) == (1, 2, 3, 4, 2)
    assert (len(row), list(row), "a" in row) == (4, ["a", "b", "a", "a"], True)
    message = (
        "Ambiguous column name 'a' in result set! try 'use_labels' option on select statement."
    )
    for look in (
        lambda: row["a"],
        lambda: row.a,
        lambda: row.get("a"),
        lambda: dict(row),
        lambda: hasattr(row, "a"),
    ):
        with pytest.raises(sa.InvalidRequestError) as info:
            look()
        assert not isinstance(info.value, KeyError)
        assert str(info.value) == message


@OURS
async def test_a_row_with_equal_names(conn):
    conn = await conn
    row = await (await conn.execute("SELECT 1 AS a, 2 AS b, 3 AS a")).first()
    assert row.as_tuple() == row == (1, 2, 3) and row != (3, 2, 1)
    assert repr(row) == str(row) == "(1, 2, 3)"
    assert list(row.values()) == [1, 2, 3] and list(row.items()) == [("a", 1), ("b", 2), ("a", 3)]
    assert (len(row.values()), len(row.items()), len(row.keys())) == (3, 3, 3)
    assert 3 in row.values() and 4 not in row.values()
    assert ("a", 1) in row.items() and ("a", 3) in row.items() and ("a", 2) not in row.items()
    assert ("b", 2) in row.items() and ("c", 2) not in row.items()
    assert row.items() & {("a", 3), ("c", 4)} == {("a", 3)}
    for other in (copy.copy(row), copy.deepcopy(row), pickle.loads(pickle.dumps(row))):
        assert other == row and list(other.items()) == list(row.items())


async def test_values_and_items(conn, row):
    row = await row
    assert repr(row.values()) == "ValuesView((1, 'Ann', 30))"
    assert repr(row.items()) == "ItemsView((1, 'Ann', 30))"
    assert "Ann" in row.values() and "Bob" not in row.values()
    assert ("id", 1) in row.items() and ("id", 2) not in row.items()
    assert ("nothing", 1) not in row.items() and (0, 1) in row.items()
    assert (PERSON.c.id, 1) in row.items()
    assert row.items() == {("id", 1), ("name", "Ann"), ("age", 30)}


async def test_names_that_are_methods(conn):
    conn = await conn
    row = await (await conn.execute("SELECT 1 AS keys, 2 AS as_tuple, 3 AS _row")).first()
    assert (row["keys"], row["as_tuple"], row["_row"]) == (1, 2, 3)
    assert callable(row.keys) and callable(row.as_tuple)
    assert row._row == (1, 2, 3)


async def test_keys_of_columns_and_labels(conn):
    keyed = Table("person", MetaData(), Column("id", Integer, key="number"), Column("name", String))
    conn = await conn
    await add(conn, ONE)
    row = await (await conn.execute(select(keyed))).first()
    assert list(row) == ["number", "name"]
    assert (row.number, row[keyed.c.number], row["name"]) == (1, 1, "Ann")
    query = select(PERSON.c.id.label("x"), (PERSON.c.age + 1).label("y"), func.max(5))
    row = await (await conn.execute(query.group_by(PERSON.c.id))).first()
    x, y, _ = query.selected_columns
    assert (row.x, row.y, row[x], row[y], row[2]) == (1, 31, 1, 31, 5)
    assert row["max_1"] == row.max_1 == 5


async def test_labels_with_the_table(sa, conn):
    conn = await conn
    await add(conn, ONE, TWO)
    left, right = PERSON.alias("l"), PERSON.alias("r")
    query = select(left.c.id, left.c.name, right.c.id).where(left.c.id < right.c.id)
    query = query.set_label_style(LABEL_STYLE_TABLENAME_PLUS_COL)
    row = await (await conn.execute(query)).first()
    assert list(row) == ["l_id", "l_name", "r_id"]
    assert (row.l_id, row["l_name"], row[left.c.id], row[left.c.name]) == (1, "Ann", 1, "Ann")
    assert row[right.c.id] == 2
    for key in ("id", "name", PERSON.c.id):
        with pytest.raises(sa.NoSuchColumnError):
            row[key]


async def test_deduplicated_names(sa, conn):
    conn = await conn
    await add(conn, ONE, TWO)
    left, right = PERSON.alias("l"), PERSON.alias("r")
    query = select(left.c.id, right.c.id).where(left.c.id < right.c.id)
    row = await (await conn.execute(query)).first()
    assert (list(row), row[0], row[1]) == (["id", "id_1"], 1, 2)
    # aiopg looks at its name alone
    assert row[right.c.id] == (2 if sa.__name__ == "aiopgx.sa" else 1)


async def test_processors_run_when_a_value_is_read(conn):
    calls = []

    class Counted(TypeDecorator):
        impl = Integer
        cache_ok = True

        def process_result_value(self, value, dialect):
            calls.append(value)
            return value * 10

    conn = await conn
    row = await (await conn.execute(select(literal(1, Counted).label("a")))).first()
    assert calls == []
    assert (row.a, row[0], row["a"]) == (10, 10, 10)
    assert calls == [1, 1, 1]
    assert (row.as_tuple(), repr(row), dict(row)) == ((10,), "(10,)", {"a": 10})


@pytest.mark.parametrize("fetch", ["fetchone", "fetchmany", "fetchall"])
async def test_a_row_class_of_the_program(sa, conn, monkeypatch, fetch):
    class Own(sa.result.RowProxy):
        __slots__ = ("seen",)

        def __init__(self, *args):
            super().__init__(*args)
            self.seen = len(args)

    monkeypatch.setattr(sa.result, "RowProxy", Own)
    found = await getattr(await (await conn).execute("SELECT 1 AS a"), fetch)()
    row = found if fetch == "fetchone" else found[0]
    assert (type(row), row.seen, row.a) == (Own, 4, 1)


async def test_a_function_makes_the_rows(sa, conn, monkeypatch):
    monkeypatch.setattr(sa.result, "RowProxy", lambda metadata, row, *rest: row)
    result = await (await conn).execute("SELECT 1 AS a")
    assert await result.fetchall() == [(1,)]


@pytest.mark.parametrize("fetch", ["fetchone", "fetchmany", "fetchall"])
async def test_a_result_class_that_processes_the_rows(sa, conn, fetch):
    class Own(sa.result.ResultProxy):
        def _process_rows(self, rows):
            return [row[0] for row in super()._process_rows(rows)]

    conn = await conn
    cursor = await conn.connection.cursor()
    await cursor.execute("SELECT 5")
    found = await getattr(Own(conn, cursor, conn._dialect), fetch)()
    assert found == (5 if fetch == "fetchone" else [5])


async def test_a_row_made_by_hand(sa, row):
    row = await row
    metadata = row._result_proxy
    made = sa.result.RowProxy(metadata, TWO, metadata._processors, metadata._keymap)
    assert (made.name, made[PERSON.c.id], made.as_tuple()) == ("Bob", 2, TWO)
    keymap = {"other": metadata._keymap["name"]}
    assert sa.result.RowProxy(metadata, TWO, metadata._processors, keymap)["other"] == "Bob"


@OURS
async def test_a_row_that_was_not_initialized(sa):
    row = sa.result.RowProxy.__new__(sa.result.RowProxy)
    for read in (lambda: row["x"], lambda: row.x, lambda: len(row)):
        with pytest.raises(TypeError):
            read()


@OURS
async def test_copies_and_pickles(row):
    row = await row
    for other in (copy.copy(row), copy.deepcopy(row), pickle.loads(pickle.dumps(row))):
        assert type(other) is type(row)
        assert other == row
        assert (other.id, other[1], dict(other)) == (1, "Ann", dict(row))
        assert other[PERSON.c.age] == 30


async def test_rows_outlive_the_result(conn, no_gc):
    conn = await conn
    await add(conn, ONE, TWO)
    result = await conn.execute(ALL)
    kept = await result.fetchall()
    del result
    await conn.close()
    assert [tuple(row[key] for key in row) for row in kept] == [ONE, TWO]


@OURS
async def test_no_cycles(conn, no_gc):
    conn = await conn
    await add(conn, ONE)
    gc.collect()
    for _ in range(3):
        row = await (await conn.execute(ALL)).first()
        result = await conn.execute(ALL)
        del row, result
    assert gc.collect() == 0


# --- ResultProxy ----------------------------------------------------------------------------------


async def test_a_result_with_rows(conn):
    conn = await conn
    await add(conn, ONE, TWO)
    result = await conn.execute(ALL)
    assert (result.returns_rows, result.closed, result.rowcount) == (True, False, 2)
    assert result.keys() == ("id", "name", "age")
    assert result.dialect is conn._dialect
    assert result.cursor.rowcount == 2
    assert [row.as_tuple() for row in await result.fetchall()] == [ONE, TWO]
    assert (result.returns_rows, result.closed, result.cursor) == (True, True, None)
    assert (result.keys(), result.rowcount) == (("id", "name", "age"), 2)


async def test_a_result_without_rows(sa, conn):
    conn = await conn
    await add(conn, ONE, TWO)
    result = await conn.execute("DELETE FROM person")
    assert (result.returns_rows, result.closed, result.rowcount) == (False, True, 2)
    assert (result.keys(), result.cursor) == ((), None)
    for fetch in (result.fetchone, result.fetchmany, result.fetchall, result.first, result.scalar):
        with pytest.raises(sa.ResourceClosedError) as info:
            await fetch()
        assert str(info.value) == (
            "This result object does not return rows. It has been closed automatically."
        )


async def test_a_closed_result(sa, conn):
    conn = await conn
    result = await conn.execute(ALL)
    cursor = result.cursor
    result.close()
    result.close()
    assert (result.closed, cursor.closed, result.cursor) == (True, True, None)
    for fetch in (result.fetchone, result.fetchmany, result.fetchall, result.first, result.scalar):
        with pytest.raises(sa.ResourceClosedError) as info:
            await fetch()
        assert str(info.value) == "This result object is closed."


async def test_fetchone(conn):
    conn = await conn
    await add(conn, ONE, TWO)
    result = await conn.execute(ALL)
    assert [(await result.fetchone()).id, (await result.fetchone()).id] == [1, 2]
    assert not result.closed
    assert await result.fetchone() is None
    assert result.closed


async def test_fetchmany(conn):
    conn = await conn
    result = await conn.execute("SELECT generate_series(1, 6) AS n")
    assert [row.n for row in await result.fetchmany()] == [1]
    assert [row.n for row in await result.fetchmany(2)] == [2, 3]
    assert [row.n for row in await result.fetchmany(size=9)] == [4, 5, 6]
    assert not result.closed
    assert await result.fetchmany(2) == []
    assert result.closed


async def test_first(conn):
    conn = await conn
    result = await conn.execute("SELECT generate_series(1, 6) AS n")
    assert (await result.first()).n == 1
    assert result.closed
    result = await conn.execute("SELECT 1 WHERE false")
    assert await result.first() is None
    assert result.closed


async def test_scalar(conn):
    conn = await conn
    assert await (await conn.execute("SELECT 5, 6")).scalar() == 5
    assert await (await conn.execute("SELECT 5 WHERE false")).scalar() is None
    assert await conn.scalar("SELECT %s", 7) == 7
    assert await conn.scalar(select(bindparam("x", type_=Integer)), {"x": 8}) == 8
    assert await conn.scalar(select(bindparam("x", type_=Integer)), x=9) == 9
    assert await conn.scalar("SELECT 5 WHERE false") is None


async def test_async_iteration(conn):
    conn = await conn
    await add(conn, ONE, TWO)
    result = await conn.execute(ALL)
    assert [row.id async for row in result] == [1, 2]
    assert result.closed


async def test_no_rows_at_all(conn):
    conn = await conn
    result = await conn.execute(ALL)
    assert (result.returns_rows, result.closed, result.rowcount) == (True, False, 0)
    assert await result.fetchall() == []
    assert result.closed


async def test_rows_of_dict_cursors(make, tables):
    tables(PERSON.metadata)
    engine = await make(cursor_factory=psycopg2.extras.DictCursor)
    async with engine.acquire() as conn:
        await add(conn, ONE)
        row = await (await conn.execute(ALL)).first()
        assert (row.id, row[1], row[PERSON.c.age], row.as_tuple()) == (*ONE[:2], 30, ONE)


async def test_two_results_at_once(conn):
    conn = await conn
    await add(conn, ONE, TWO)
    one, two = await conn.execute(ALL), await conn.execute("SELECT 7 AS seven")
    assert (await one.fetchone()).id == 1
    assert (await two.fetchone()).seven == 7
    assert (await one.fetchone()).id == 2


async def test_the_columns_of_an_altered_table(conn):
    conn = await conn
    query = text("SELECT * FROM person")
    await add(conn, ONE)
    assert (await (await conn.execute(query)).first()).as_tuple() == ONE
    await conn.execute("ALTER TABLE person ADD COLUMN extra text DEFAULT 'e'")
    row = await (await conn.execute(query)).first()
    assert (row.as_tuple(), row.extra) == ((*ONE, "e"), "e")
    await conn.execute("ALTER TABLE person ALTER COLUMN age TYPE numeric")
    row = await (await conn.execute(ALL)).first()
    assert type(row.age).__name__ == "Decimal"


async def test_a_result_made_by_hand(sa, conn):
    conn = await conn
    cursor = await conn.connection.cursor()
    await cursor.execute("SELECT 1 AS a")
    result = sa.result.ResultProxy(conn, cursor, conn._dialect)
    assert (await result.first()).a == 1
