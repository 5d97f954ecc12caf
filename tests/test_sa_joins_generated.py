"""Generated joins: rows are read as SQLAlchemy's own of the same statement, or not at all.

Each value tells which column of which row it is, and its type's mark which column was taken for it.
"""

import importlib
import re
from dataclasses import dataclass

import psycopg2
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st
from sa_support import NO_AIOPG, reference_engine
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
    func,
    select,
    type_coerce,
    union,
)
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.schema import CreateTable
from sqlalchemy.types import TypeDecorator
from support import new_loop, shut_down


class Marked(TypeDecorator):
    impl = String
    cache_ok = True

    def __init__(self, mark):
        self.mark = mark
        super().__init__()

    def process_result_value(self, value, dialect):
        return f"{value} as {self.mark}"


PACKAGES = ["aiopgx.sa"] if NO_AIOPG else ["aiopgx.sa", "aiopg.sa"]
AMBIGUOUS = (
    InvalidRequestError,
    *(importlib.import_module(package).InvalidRequestError for package in PACKAGES),
)
METADATA = MetaData()


def make_table(name, *columns):
    """Columns are named by (name, key)."""
    typed = [Column(column, Marked(f"{name}.{column}"), key=key) for column, key in columns]
    return Table(name, METADATA, Column("row", Integer, primary_key=True), *typed)


# Names that are the labels of other columns, keys that are names of others.
A = make_table("a", ("id", "id"), ("name", "name"), ("b_id", "b_id"), ("x", "id_1"))
B = make_table("b", ("id", "id"), ("name", "name"), ("a_id", "a_id"), ("y", "x"))
STYLES = [LABEL_STYLE_NONE, LABEL_STYLE_DISAMBIGUATE_ONLY, LABEL_STYLE_TABLENAME_PLUS_COL]


@dataclass
class Source:
    """Something to select from, of one row.

    tables: those that are in it, maybe as aliases.
    columns: its columns, without `row`, and for each the value in the table.
    """

    selectable: object
    tables: set
    criteria: list
    columns: list


def of_table(selectable, table, row):
    columns = [(selectable.c[c.key], f"{table.name}.{c.name}#{row}") for c in table.c][1:]
    return Source(selectable, {table}, [selectable.c.row == row], columns)


def of_join(form, row):
    """A subquery or CTE that has columns of two tables, one of them as an alias."""
    left, right = of_table(A.alias(), A, row), of_table(B, B, 1)
    inner = select(*[column for source in (left, right) for column, _ in source.columns])
    made = getattr(inner.where(*left.criteria, *right.criteria), form)()
    values = [value for source in (left, right) for _, value in source.columns]
    return Source(made, {A, B}, [], list(zip(made.c, values, strict=True)))


SOURCES = {
    "a": lambda: of_table(A, A, 1),
    "b": lambda: of_table(B, B, 1),
    "alias of a": lambda: of_table(A.alias(), A, 2),
    "other alias of a": lambda: of_table(A.alias(), A, 3),
    "named alias of b": lambda: of_table(B.alias("named"), B, 2),
    "subquery": lambda: of_join("subquery", 1),
    "cte": lambda: of_join("cte", 2),
}
WRAPS = {
    "": lambda column: column,
    "label": lambda column: column.label("label"),
    "label id": lambda column: column.label("id"),
    "label a_id": lambda column: column.label("a_id"),
    "anonymous label": lambda column: column.label(None),
    "cast": lambda column: cast(column, Marked("cast")),
    "coerced": lambda column: type_coerce(column, Marked("coerced")),
    "function": lambda column: func.lower(column, type_=Marked("function")),
}
FORMS = ["", "", "", "subquery", "cte", "union"]
PLANS = st.fixed_dictionaries(
    {
        "sources": st.lists(st.sampled_from(list(SOURCES)), min_size=1, max_size=3, unique=True),
        "columns": st.lists(
            st.tuples(st.integers(0, 2), st.integers(0, 7), st.sampled_from([*[""] * 8, *WRAPS])),
            min_size=1,
            max_size=6,
        ),
        "style": st.sampled_from(STYLES),
        "form": st.sampled_from(FORMS),
    }
)


def build(sources, columns, style, form):
    """A statement of new objects, and the columns that there are: with the value each may have."""
    made = [SOURCES[name]() for name in sources]
    chosen = []
    keys = [(column, value) for source in made for column, value in source.columns]
    for number, position, wrap in columns:
        source = made[number % len(made)]
        column, value = source.columns[position % len(source.columns)]
        if form in ("subquery", "cte") and wrap in ("cast", "coerced"):
            wrap = ""  # SQLAlchemy writes the name of another column then
        chosen.append(WRAPS[wrap](column))
        keys.append((chosen[-1], value))
    statement = select(*chosen).select_from(*[source.selectable for source in made])
    statement = statement.where(*[part for source in made for part in source.criteria])
    if form in ("", "union"):
        statement = statement.set_label_style(style)
    if form == "union":
        statement = union(statement, build(sources, columns, style, "")[0])
    elif form:
        within = getattr(statement, form)()
        try:
            list(within.c), str(within.element)
        except (InvalidRequestError, AssertionError):  # SQLAlchemy can't tell them apart
            reject()
        statement = select(within).set_label_style(style)
        keys += [(column, None) for column in within.c]
    for table in set().union(*[source.tables for source in made]):
        if not any(source.selectable is table for source in made):
            keys += [(column, f"{table.name}.{column.name}#") for column in table.c][1:]
    return statement, keys


@pytest.fixture(scope="module")
def world(dsn):
    """Runs a statement everywhere: `await world.row(package, statement)`, `world.reference`."""

    class World:
        async def row(self, package, statement):
            async with engines[package].acquire() as conn:
                return await (await conn.execute(statement)).first()

    with psycopg2.connect(dsn) as raw, raw.cursor() as cursor:
        for table in (A, B):
            cursor.execute(str(CreateTable(table)))
            for row in (1, 2, 3):
                values = [f"{table.name}.{column.name}#{row}" for column in table.c][1:]
                cursor.execute(f"INSERT INTO {table.name} VALUES (%s, %s, %s, %s, %s)",
                               [row, *values])  # fmt: skip
    raw.close()
    loop = new_loop("asyncio")
    engines = {}
    for package in PACKAGES:
        create_engine = importlib.import_module(package).create_engine
        engines[package] = loop.run_until_complete(create_engine(dsn))
    found = World()
    found.run = loop.run_until_complete
    with reference_engine(dsn) as engine, engine.connect() as found.reference:
        yield found
    for engine in engines.values():
        engine.terminate()
        loop.run_until_complete(engine.wait_closed())
    shut_down(loop)


def read(row, key):
    """The value, or the class of the error."""
    try:
        return row[key]
    except KeyError:
        return KeyError
    except AMBIGUOUS:
        return AMBIGUOUS


def check_row(row, expected):
    values = tuple(expected)
    keys = list(row)
    assert row.as_tuple() == values and row == values and repr(row) == repr(values)
    assert tuple(row[index] for index in range(len(row))) == values
    assert tuple(row.values()) == values and len(row) == len(row.values()) == len(values)
    assert list(row.items()) == list(zip(keys, values, strict=True))
    assert list(row.keys()) == keys
    for pair in row.items():
        assert pair in row.items() and pair[1] in row.values() and pair[0] in row
    for key in keys:
        unique = keys.count(key) == 1
        assert read(row, key) == (values[keys.index(key)] if unique else AMBIGUOUS)


def check_column(row, expected, key, value):
    found, correct = read(row, key), read(expected._mapping, key)
    assert (key in row) == (found is not KeyError)
    if isinstance(correct, str):
        assert found == correct
    elif isinstance(found, str):  # by its name, as in aiopg
        assert value is None or found.startswith(value), (key, found)


@given(PLANS)
def test_columns_of_joins(world, plan):
    for _ in range(2):  # the second time from the cache, with columns of its own
        statement, keys = build(**plan)
        expected = world.reference.execute(statement).first()
        row = world.run(world.row("aiopgx.sa", statement))
        check_row(row, expected)
        for key, value in keys:
            check_column(row, expected, key, value)


def without_ids(name):
    """Names that SQLAlchemy makes up have the id of an object in them."""
    return re.sub(r"%\(\d+", "%(", name)


@given(PLANS)
def test_names_are_those_of_aiopg(world, plan):
    statement, _ = build(**plan)
    rows = {}
    for package in PACKAGES:
        try:
            rows[package] = world.run(world.row(package, statement))
        except IndexError:  # aiopg can't select a column twice
            assert package == "aiopg.sa"
    ours, aiopgs = rows["aiopgx.sa"], rows.get("aiopg.sa", rows["aiopgx.sa"])
    assert [without_ids(name) for name in ours] == [without_ids(name) for name in aiopgs]
    for name in {*ours, "id", "name", "x", "id_1", "a_id", "label", "nothing"}:
        if "%(" in name:
            continue
        assert read(ours, name) == read(aiopgs, name)
        assert (name in ours) == (name in aiopgs)
