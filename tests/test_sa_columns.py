"""Rows by Column: which column of a result is meant. `reference` is SQLAlchemy's own engine."""

import copy
import pickle
from itertools import product

import pytest
from sa_support import OURS, reference_engine
from sqlalchemy import (
    LABEL_STYLE_DISAMBIGUATE_ONLY,
    LABEL_STYLE_NONE,
    LABEL_STYLE_TABLENAME_PLUS_COL,
    Column,
    Integer,
    MetaData,
    String,
    Table,
    cast,
    column,
    func,
    lambda_stmt,
    literal_column,
    select,
    text,
    union,
)
from sqlalchemy.types import TypeDecorator

pytest_plugins = ("sa_fixtures",)

METADATA = MetaData()
A = Table("a", METADATA, Column("id", Integer), Column("name", String), Column("b_id", Integer))
B = Table("b", METADATA, Column("id", Integer), Column("name", String), Column("a_id", Integer))
STYLES = [LABEL_STYLE_NONE, LABEL_STYLE_DISAMBIGUATE_ONLY, LABEL_STYLE_TABLENAME_PLUS_COL]


@pytest.fixture
def conn(make, tables, side, runner):
    """await it for a connection, with one row in A and two in B."""

    async def connect():
        tables(METADATA)
        with side.cursor() as cursor:
            cursor.execute("INSERT INTO a VALUES (1, 'of a', 20)")
            cursor.execute("INSERT INTO b VALUES (20, 'of b', 1), (30, 'alone', NULL)")
        conn = await (await make()).acquire()
        runner.stack.push_async_callback(conn.close)
        return conn

    return connect()


@pytest.fixture
def reference(dsn):
    with reference_engine(dsn) as engine, engine.connect() as conn:
        yield conn


async def first(conn, query):
    return await (await conn.execute(query)).first()


JOIN = A.join(B, A.c.b_id == B.c.id)


@OURS
@pytest.mark.parametrize("style", STYLES, ids=["none", "deduplicated", "with the table"])
async def test_a_join(conn, style):
    conn = await conn
    for query in (
        select(A, B).select_from(JOIN),
        select(B.c.name, A.c.name, B.c.id, A.c.id, B.c.a_id, A.c.b_id).select_from(JOIN),
    ):
        row = await first(conn, query.set_label_style(style))
        assert (row[A.c.id], row[A.c.name], row[A.c.b_id]) == (1, "of a", 20)
        assert (row[B.c.id], row[B.c.name], row[B.c.a_id]) == (20, "of b", 1)
        assert all(column in row and row.get(column) == row[column] for column in (*A.c, *B.c))


def with_aliases():
    left, right = B.alias(), B.alias()
    return select(left.c.id, right.c.id), left.c.id, right.c.id


def with_swapped_aliases():
    """The same text as with_aliases(): it comes from the cache."""
    right, left = B.alias(), B.alias()
    return select(left.c.id, right.c.id), left.c.id, right.c.id


def with_labels():
    left, right = B.alias(), B.alias()
    x, y = left.c.id.label("x"), right.c.id.label("y")
    return select(x, y).where(left.c.id == left.c.id, right.c.id == right.c.id), x, y


def with_anonymous_labels():
    left, right = B.alias(), B.alias()
    x, y = left.c.id.label(None), right.c.id.label(None)
    return select(x, y), x, y


def with_functions():
    left, right = B.alias(), B.alias()
    x, y = func.abs(left.c.id), func.abs(right.c.id)
    return select(x, y), x, y


def with_a_subquery(form="subquery"):
    query, _, _ = with_aliases()
    made = getattr(query, form)()
    return select(made), *made.c


def with_a_cte():
    return with_a_subquery("cte")


def with_a_union():
    left, right = B.alias(), B.alias()
    query = select(left.c.id, right.c.id)
    return union(query, with_aliases()[0]), left.c.id, right.c.id


LEFT, RIGHT = B.alias("left"), B.alias("right")


def in_a_lambda():
    left, right = LEFT, RIGHT  # SQLAlchemy has the columns of the first call
    return lambda_stmt(lambda: select(left.c.id, right.c.id)), left.c.id, right.c.id


def of_a_text():
    left, right = B.alias(), B.alias()
    query = text('SELECT l.id, r.id FROM b l, b r').columns(left.c.id, right.c.id)  # fmt: skip
    return query, left.c.id, right.c.id


BUILDERS = [
    with_aliases,
    with_swapped_aliases,
    with_labels,
    with_anonymous_labels,
    with_functions,
    with_a_subquery,
    with_a_cte,
    with_a_union,
    in_a_lambda,
    of_a_text,
]


@OURS
@pytest.mark.parametrize("build", BUILDERS)
async def test_columns_of_a_statement(conn, reference, build):
    conn = await conn
    for _ in range(3):  # the later ones from the cache, with columns of their own
        query, left, right = build()
        expected = {(row._mapping[left], row._mapping[right]) for row in reference.execute(query)}
        assert len(expected) == 4
        found = await (await conn.execute(query)).fetchall()
        assert {(row[left], row[right]) for row in found} == expected
        assert {(row[0], row[1]) for row in found} == expected


@OURS
async def test_columns_of_a_kept_statement(conn):
    conn = await conn
    query, left, right = with_aliases()
    await first(conn, with_swapped_aliases()[0])
    for _ in range(3):
        rows = await (await conn.execute(query)).fetchall()
        assert {(row[left], row[right]) for row in rows} == set(product((20, 30), repeat=2))


@OURS
async def test_columns_that_are_returned(conn, reference):
    conn = await conn
    update = A.update().values(name="new").where(A.c.b_id == B.c.id).returning(A.c.id, B.c.id)
    delete = B.delete().where(A.c.b_id == B.c.id).returning(B.c.id, A.c.id)
    row = await first(conn, update)
    assert (row[A.c.id], row[B.c.id]) == (1, 20)
    row = await first(conn, delete)
    assert (row[A.c.id], row[B.c.id]) == (1, 20)
    row = await first(conn, B.insert().values(id=5, a_id=6).returning(B.c.a_id, B.c.id.label("a")))
    assert (row[B.c.id.label("a")], row[B.c.a_id]) == (5, 6)


@OURS
async def test_columns_within_a_subquery(conn):
    """SQLAlchemy has none of the inner columns; aiopg goes by their names."""
    conn = await conn
    for form in ("subquery", "cte"):
        made = getattr(select(A, B).select_from(JOIN), form)()
        row = await first(conn, select(made))
        assert (row[A.c.id], row[A.c.name]) == (1, "of a")
        assert (row[B.c.id], row[B.c.name]) == (20, "of b")


@OURS
@pytest.mark.parametrize("style", STYLES[:2], ids=["none", "deduplicated"])
async def test_what_could_be_either(sa, conn, style):
    conn = await conn
    left, right = B.alias(), B.alias()
    row = await first(conn, select(left.c.id, right.c.id).set_label_style(style))
    elsewhere = Table("elsewhere", MetaData(), Column("id", Integer))
    for key in (B.c.id, B.alias().c.id, elsewhere.c.id):
        with pytest.raises(sa.InvalidRequestError, match=r"^Ambiguous column name .*id") as info:
            row[key]
        assert not isinstance(info.value, KeyError)
        assert key in row


@OURS
async def test_another_column_of_the_statement_is_not_meant(sa, conn):
    conn = await conn
    other = A.alias()
    for query, key in (
        (select(A.c.id, B.c.name).select_from(JOIN), B.c.id),
        (select(A.c.id).select_from(JOIN), B.c.id),
        (select(B.c.id.label("name")).select_from(JOIN), A.c.name),
        (select(A.c.id).where(A.c.id == other.c.id), other.c.id),
        (select(other.c.id).where(A.c.id == other.c.id), A.c.id),
        (select(A.c.b_id, B.c.name).select_from(JOIN), B.c.id),
        (select(A.c.id).where(select(B.c.id).exists()), B.c.id),
        (select(select(other.c.id).where(A.c.id == other.c.id).subquery()), A.c.id),
    ):
        for _ in range(2):
            row = await first(conn, query)
            with pytest.raises(sa.NoSuchColumnError):
                row[key]
            assert key not in row and row.get(key, "none") == "none"


async def test_columns_that_the_statement_does_not_know(conn):
    """They are found by their names, as in aiopg."""
    elsewhere = Table("elsewhere", MetaData(), Column("id", Integer), Column("a_id", Integer))
    conn = await conn
    row = await first(conn, select(A.c.id, A.c.name))
    assert (row[elsewhere.c.id], row[A.alias().c.name], row[column("id")]) == (1, "of a", 1)
    query = select(func.max(A.c.id).label("id"), cast(A.c.b_id, String)).group_by(A.c.b_id)
    row = await first(conn, query)
    assert (row[A.c.id], row[A.c.b_id]) == (1, "20")
    row = await first(conn, "SELECT id, name FROM a")
    assert (row[A.c.id], row[B.c.name]) == (1, "of a")
    row = await first(conn, select(A.c.id, A.c.name).set_label_style(STYLES[2]))
    assert row[Table("a", MetaData(), Column("id", Integer)).c.id] == 1


@OURS
async def test_the_same_column_twice(conn):
    conn = await conn
    for style in STYLES:
        row = await first(conn, select(A.c.id, A.c.id).set_label_style(style))
        assert (row[A.c.id], row.as_tuple()) == (1, (1, 1))
    row = await first(conn, select(A.c.id.label("id"), A.c.id.label("x")))
    assert (row[A.c.id], row["id"], row["x"]) == (1, 1, 1)


class Times(TypeDecorator):
    impl = Integer
    cache_ok = True

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def process_result_value(self, value, dialect):
        return value * self.factor


@OURS
async def test_each_column_has_its_own_type(conn, reference):
    conn = await conn
    ten = Table("a", MetaData(), Column("id", Times(10)))
    hundred = Table("b", MetaData(), Column("id", Times(100)))
    for query in (
        *[select(ten.c.id, hundred.c.id).set_label_style(style) for style in STYLES],
        text("SELECT a.id, b.id FROM a, b").columns(ten.c.id, hundred.c.id),
        text("SELECT a.id AS x, b.id AS y FROM a, b").columns(ten.c.id, hundred.c.id),
    ):
        row = await first(conn, query)
        assert row.as_tuple() == tuple(reference.execute(query).first())
        assert (row[ten.c.id], row[hundred.c.id]) == (10, 2000)


async def test_columns_of_a_text_go_by_unique_names(conn):
    """SQLAlchemy goes by their order."""
    conn = await conn
    row = await first(conn, text("SELECT name, id FROM a").columns(A.c.id, A.c.name))
    assert (row[A.c.id], row[A.c.name], list(row)) == (1, "of a", ["name", "id"])
    row = await first(conn, text("SELECT name, id FROM a").columns(id=Integer, name=String))
    assert (row[A.c.id], row.name) == (1, "of a")


@OURS
async def test_more_columns_than_were_compiled(sa, conn):
    conn = await conn
    row = await first(conn, select(literal_column("a.*"), B.c.id).select_from(JOIN))
    assert (row[A.c.name], row[0], row[3]) == ("of a", 1, 20)
    for key in (A.c.id, B.c.id, "id"):
        with pytest.raises(sa.InvalidRequestError, match="Ambiguous"):
            row[key]
    row = await first(conn, select(text("a.name"), B.c.id).select_from(JOIN))
    assert (row["name"], row[B.c.id]) == ("of a", 20)


@OURS
@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda row: pickle.loads(pickle.dumps(row))]
)
async def test_copies(sa, conn, copied):
    conn = await conn
    for style in STYLES:
        row = copied(await first(conn, select(A, B).select_from(JOIN).set_label_style(style)))
        for again in (row, copied(row)):
            assert (again[A.c.id], again[B.c.id]) == (1, 20)
            assert (again[A.c.b_id], again[B.c.a_id]) == (20, 1)
    query = select(A.c.id, B.c.name, func.abs(-5).label("five"), A.c.b_id.label("x"))
    row = copied(await first(conn, query.select_from(JOIN)))
    assert (row[A.c.id], row[column("five")], row[A.c.b_id.label("x")]) == (1, 5, 20)
    for key in (B.c.id, A.c.name, A.alias().c.id):
        with pytest.raises(sa.NoSuchColumnError):
            row[key]
    row = copied(await first(conn, "SELECT 1 AS id, 2 AS id, 3 AS name"))
    assert row[A.c.name] == 3
    with pytest.raises(sa.InvalidRequestError, match="Ambiguous"):
        row[A.c.id]


@OURS
async def test_a_copy_from_an_earlier_release(sa):
    row = sa.result._restore(("id", "name"), (1, "x"))
    assert (row[A.c.id], row["name"], pickle.loads(pickle.dumps(row))) == (1, "x", (1, "x"))


@OURS
async def test_a_result_map_made_by_hand(sa, conn):
    conn = await conn
    query = select(A.c.id, B.c.name.label("x")).select_from(JOIN)
    compiled = query.compile(dialect=conn._dialect)
    cursor = await conn.connection.cursor()
    await cursor.execute(str(compiled))
    result = sa.result.ResultProxy(conn, cursor, conn._dialect, compiled._result_columns)
    row = await result.first()
    assert (row[A.c.id], row["x"], row.as_tuple()) == (1, "of b", (1, "of b"))
