"""SAConnection.execute(): what it takes, and what the server gets."""

import datetime
import enum
import uuid
from decimal import Decimal

import psycopg2
import pytest
import sqlalchemy.exc
from sa_support import OURS, PERSON, add, rows
from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Date,
    DateTime,
    Enum,
    Float,
    Integer,
    Interval,
    LargeBinary,
    MetaData,
    Numeric,
    Sequence,
    String,
    Table,
    bindparam,
    case,
    cast,
    column,
    delete,
    func,
    insert,
    literal,
    literal_column,
    select,
    table,
    text,
    true,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.schema import CreateTable, DropTable
from sqlalchemy.types import TypeDecorator

pytest_plugins = ("sa_fixtures",)

ONE = (1, "Ann", 30)
TWO = (2, "Bob", None)
BY_ID = select(PERSON).where(PERSON.c.id == bindparam("key"))


# --- text -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parameters",
    [
        ((1, "a"),),
        ([1, "a"],),
        (1, "a"),
        ([(1, "a")],),
        ([[1, "a"]],),
    ],
)
async def test_text_by_position(conn, parameters):
    conn = await conn
    assert await rows(conn, "SELECT %s, %s", *parameters) == [(1, "a")]


@pytest.mark.parametrize("parameters", [({"x": 1},), ([{"x": 1}],), (({"x": 1},),)])
async def test_text_by_name(conn, parameters):
    conn = await conn
    assert await rows(conn, "SELECT %(x)s", *parameters) == [(1,)]


async def test_text_by_keyword(conn):
    conn = await conn
    assert await rows(conn, "SELECT %(x)s, %(y)s", x=1, y="b") == [(1, "b")]


async def test_keywords_give_way_to_arguments(conn):
    conn = await conn
    assert await rows(conn, "SELECT %(x)s", {"x": 1}, x=2) == [(1,)]


@pytest.mark.parametrize("parameters", [(), ([],), ((),), ({},)])
async def test_text_without_parameters(conn, parameters):
    conn = await conn
    assert await rows(conn, "SELECT '%%'", *parameters) == [("%",)]


async def test_one_string_is_one_parameter(conn):
    conn = await conn
    assert await rows(conn, "SELECT %s", "abc") == [("abc",)]
    assert await rows(conn, "SELECT %s", None) == [(None,)]


async def test_too_many_parameters(conn):
    conn = await conn
    with pytest.raises(TypeError, match="not all arguments converted"):
        await conn.execute("SELECT %s", 1, 2)


@pytest.mark.parametrize("query", [5, None, b"SELECT 1", PERSON.metadata])
async def test_neither_text_nor_statement(sa, conn, query):
    conn = await conn
    with pytest.raises(sa.ArgumentError) as info:
        await conn.execute(query)
    assert str(info.value) == (
        "sql statement should be str or SQLAlchemy data selection/modification clause"
    )
    assert await conn.scalar("SELECT 1") == 1


async def test_an_error_of_the_server(conn):
    conn = await conn
    with pytest.raises(psycopg2.errors.UndefinedTable):
        await conn.execute("SELECT * FROM nowhere")
    with pytest.raises(psycopg2.errors.UndefinedTable):
        await conn.execute(select(text("*")).select_from(table("nowhere")))
    assert await conn.scalar(select(literal(1))) == 1


async def test_it_is_lazy_and_awaited_once(conn):
    conn = await conn
    execution = conn.execute("SELECT 1")
    assert await conn.scalar("SELECT 2") == 2
    assert (await (await execution).first())[0] == 1


async def test_async_with_closes_the_result(conn):
    conn = await conn
    async with conn.execute("SELECT 1 AS a") as result:
        assert (await result.fetchone()).a == 1
        assert not result.closed
    assert result.closed


async def test_async_for_on_the_execution(conn):
    conn = await conn
    assert [row.n async for row in conn.execute("SELECT generate_series(1, 3) AS n")] == [1, 2, 3]


# --- SELECT ---------------------------------------------------------------------------------------


async def test_select(conn):
    conn = await conn
    await add(conn, ONE, TWO)
    assert await rows(conn, select(PERSON).order_by(PERSON.c.id)) == [ONE, TWO]
    assert await rows(conn, PERSON.select().where(PERSON.c.id == 2)) == [TWO]
    assert await rows(conn, select(PERSON.c.name).where(PERSON.c.age.is_(None))) == [("Bob",)]


@pytest.mark.parametrize("parameters", [({"key": 2},), ([{"key": 2}],)])
async def test_select_with_parameters(conn, parameters):
    conn = await conn
    await add(conn, ONE, TWO)
    assert await rows(conn, BY_ID, *parameters) == [TWO]
    assert await rows(conn, BY_ID, key=1) == [ONE]
    assert await rows(conn, BY_ID.params(key=2)) == [TWO]
    assert await rows(conn, BY_ID.params(key=2), key=1) == [ONE]


@pytest.mark.parametrize("parameters", [(), ({"other": 1},)])
async def test_a_parameter_without_a_value(conn, parameters):
    conn = await conn
    with pytest.raises(sqlalchemy.exc.InvalidRequestError, match="required for bind parameter"):
        await conn.execute(BY_ID, *parameters)


async def test_a_parameter_with_a_default(conn):
    conn = await conn
    query = select(bindparam("x", 5, Integer), bindparam("y", callable_=lambda: 6, type_=Integer))
    assert await rows(conn, query) == [(5, 6)]
    assert await rows(conn, query, x=1, y=2) == [(1, 2)]
    assert await rows(conn, query, {"unknown": 1}) == [(5, 6)]


async def test_select_by_position_is_refused(sa, conn):
    conn = await conn
    for parameters in ((1,), ([1],), ((1, 2),)):
        with pytest.raises(sa.ArgumentError) as info:
            await conn.execute(BY_ID, *parameters)
        assert str(info.value) == ("Don't mix sqlalchemy SELECT clause with positional parameters")


@pytest.mark.parametrize(
    "wanted, expected",
    [
        ([1, 2], [1, 2]),
        ([2], [2]),
        ([], []),
        ([1, 2, 3, 4], [1, 2]),
    ],
)
async def test_in_a_list(conn, wanted, expected):
    conn = await conn
    await add(conn, ONE, TWO)
    for _ in range(2):
        query = select(PERSON.c.id).where(PERSON.c.id.in_(wanted)).order_by(PERSON.c.id)
        assert [row[0] for row in await rows(conn, query)] == expected
        query = select(PERSON.c.id).where(PERSON.c.id.notin_(wanted))
        assert {row[0] for row in await rows(conn, query)} == {1, 2} - set(expected)


async def test_in_a_list_of_processed_values(conn):
    conn = await conn
    for wanted in (["x"], ["x", "y"]):
        query = select(literal("<x>", String).in_([bindparam(None, w, Marked) for w in wanted]))
        assert await conn.scalar(query)
        assert await conn.scalar(select(literal("x", Marked).in_(wanted)))


@OURS
async def test_in_a_list_of_tuples(conn):
    conn = await conn
    await add(conn, ONE, TWO)
    query = select(PERSON.c.name).where(
        tuple_(PERSON.c.id, PERSON.c.name).in_([(1, "Ann"), (2, "Eve")])
    )
    assert await rows(conn, query) == [("Ann",)]


@OURS
async def test_in_a_list_given_to_execute(conn):
    conn = await conn
    await add(conn, ONE, TWO)
    query = select(PERSON.c.id).where(PERSON.c.id.in_(bindparam("ids", expanding=True)))
    for ids in ([1], [1, 2], [], [3]):
        assert {row[0] for row in await rows(conn, query, ids=ids)} == {1, 2} & set(ids)


async def test_limit_and_offset(conn):
    conn = await conn
    numbers = func.generate_series(1, 5).alias("n")
    query = select(literal_column("n")).select_from(numbers)
    assert await rows(conn, query.limit(2).offset(1)) == [(2,), (3,)]
    assert await rows(conn, query.limit(1).offset(3)) == [(4,)]


async def test_functions_casts_and_cases(conn):
    conn = await conn
    query = select(
        func.upper("abc"),
        cast("12", Integer),
        case((true(), "yes"), else_="no"),
        func.coalesce(None, 7),
        literal("50%"),
        literal_column("'100%'"),
    )
    assert await rows(conn, query) == [("ABC", 12, "yes", 7, "50%", "100%")]


async def test_textual_statements(conn):
    conn = await conn
    await add(conn, ONE)
    query = text("SELECT id, name, '10%' FROM person WHERE id = :key")
    assert await rows(conn, query, key=1) == [(1, "Ann", "10%")]
    assert await rows(conn, query.bindparams(key=1)) == [(1, "Ann", "10%")]
    typed = text("SELECT '<a>' AS m").columns(column("m", Marked))
    assert await rows(conn, typed) == [("a",)]


async def test_unions_subqueries_and_ctes(conn):
    conn = await conn
    await add(conn, ONE, TWO)
    cte = select(PERSON.c.id).where(PERSON.c.id > 1).cte("late")
    assert await rows(conn, select(cte)) == [(2,)]
    inner = select(PERSON.c.id.label("x")).where(PERSON.c.id < 2).subquery()
    assert await rows(conn, select(inner.c.x + 10)) == [(11,)]
    union = select(literal(1)).union_all(select(literal(2)))
    assert sorted(await rows(conn, union)) == [(1,), (2,)]
    left, right = PERSON.alias(), PERSON.alias()
    joined = select(left.c.id, right.c.id).select_from(left.join(right, left.c.id < right.c.id))
    assert await rows(conn, joined) == [(1, 2)]


async def test_parameters_with_odd_names(conn):
    conn = await conn
    odd = table("odd", column("a(b)", Marked), column("50%", Integer), column("x y"))
    await conn.execute('CREATE TEMP TABLE odd ("a(b)" text, "50%%" int, "x y" int)', [])
    await conn.execute(insert(odd).values({"50%": 2, "x y": 3}))
    query = select(odd.c["50%"], odd.c["x y"]).where(odd.c["50%"] == 2)
    assert await rows(conn, query) == [(2, 3)]


# --- INSERT, UPDATE, DELETE -----------------------------------------------------------------------


async def everyone(conn):
    return await rows(conn, "SELECT * FROM person ORDER BY id")


@pytest.mark.parametrize(
    "parameters",
    [
        ({"id": 1, "name": "Ann", "age": 30},),
        ([{"id": 1, "name": "Ann", "age": 30}],),
        (ONE,),
        (list(ONE),),
        ([ONE],),
        ONE,
        ({"id": 1, "name": "Ann", "age": 30, "unknown": 5},),
    ],
)
async def test_insert_of_all_columns(conn, parameters):
    conn = await conn
    result = await conn.execute(PERSON.insert(), *parameters)
    assert (result.rowcount, result.returns_rows, result.closed) == (1, False, True)
    assert await everyone(conn) == [ONE]


async def test_insert_by_keyword(conn):
    conn = await conn
    await conn.execute(PERSON.insert(), id=1, name="Ann", age=30)
    assert await everyone(conn) == [ONE]


async def test_insert_of_values(conn):
    conn = await conn
    await conn.execute(PERSON.insert().values(id=1, name="Ann", age=30))
    await conn.execute(insert(PERSON).values((2, "Bob", None)))
    await conn.execute(insert(PERSON).values([(3, "C", 1), (4, "D", 2)]))
    await conn.execute(insert(PERSON).values([{"id": 5, "name": "E"}, {"id": 6, "name": "F"}]))
    assert [row[0] for row in await everyone(conn)] == [1, 2, 3, 4, 5, 6]


async def test_values_are_overridden_by_parameters(conn):
    conn = await conn
    await conn.execute(PERSON.insert().values(id=1, name="Ann", age=30), {"name": "Eve"})
    await conn.execute(PERSON.insert().values(id=2, name="Bob"), {"age": 99})  # not in the values
    assert await everyone(conn) == [(1, "Eve", 30), TWO]


@OURS
async def test_insert_of_some_columns_by_parameters(conn):
    conn = await conn
    await conn.execute(PERSON.insert(), {"id": 2, "name": "Bob"})
    await conn.execute(PERSON.insert(), name="C")
    assert await everyone(conn) == [(1, "C", None), TWO]


async def test_insert_gives_the_key(conn):
    conn = await conn
    assert await conn.scalar(PERSON.insert().values(name="Ann")) == 1
    result = await conn.execute(PERSON.insert().values(name="Bob"))
    assert result.keys() == ("id",)
    assert (await result.first()).id == 2


async def test_insert_returning(conn):
    conn = await conn
    query = PERSON.insert().values(name="Ann", age=30).returning(PERSON.c.id, PERSON.c.name)
    row = await (await conn.execute(query)).first()
    assert (row.id, row[PERSON.c.name]) == (1, "Ann")
    everything = PERSON.insert().values(name="Bob").returning(PERSON)
    assert (await (await conn.execute(everything)).first()).as_tuple() == TWO


async def test_insert_from_select(conn):
    conn = await conn
    source = select(literal(1), literal("Ann"), literal(30))
    await conn.execute(PERSON.insert().from_select(["id", "name", "age"], source))
    assert await everyone(conn) == [ONE]


async def test_insert_on_conflict(conn):
    conn = await conn
    for name in ("Ann", "Eve"):
        query = pg.insert(PERSON).values(id=1, name=name)
        query = query.on_conflict_do_update(
            index_elements=[PERSON.c.id], set_={"name": query.excluded.name}
        )
        await conn.execute(query)
    assert await everyone(conn) == [(1, "Eve", None)]
    await conn.execute(pg.insert(PERSON).values(id=1).on_conflict_do_nothing())
    assert len(await everyone(conn)) == 1


async def test_update(conn):
    conn = await conn
    await add(conn, ONE, TWO)
    result = await conn.execute(PERSON.update().where(PERSON.c.id == 1).values(age=31))
    assert (result.rowcount, result.returns_rows) == (1, False)
    await conn.execute(update(PERSON).values(age=PERSON.c.age + 1, name=func.upper(PERSON.c.name)))
    assert await everyone(conn) == [(1, "ANN", 32), (2, "BOB", None)]


async def test_update_with_parameters(conn):
    conn = await conn
    await add(conn, ONE, TWO)
    query = PERSON.update().where(PERSON.c.id == bindparam("id")).values(name=bindparam("n"))
    await conn.execute(query, {"id": 1, "n": "Eve"})
    query = PERSON.update().where(PERSON.c.id == bindparam("key")).values(age=1)
    await conn.execute(query, {"key": 2, "age": 50})
    assert await everyone(conn) == [(1, "Eve", 30), (2, "Bob", 50)]


async def test_update_of_all_columns_by_parameters(conn):
    conn = await conn
    await add(conn, ONE)
    query = PERSON.update().where(PERSON.c.id == bindparam("key"))
    await conn.execute(query, {"key": 1, "id": 2, "name": "Bob", "age": None})
    assert await everyone(conn) == [TWO]


@OURS
async def test_update_of_some_columns_by_parameters(conn):
    conn = await conn
    await add(conn, ONE, TWO)
    await conn.execute(PERSON.update().where(PERSON.c.id == bindparam("key")), key=1, name="Eve")
    assert await everyone(conn) == [(1, "Eve", 30), TWO]


async def test_update_returning(conn):
    conn = await conn
    await add(conn, ONE)
    query = PERSON.update().values(age=31).returning(PERSON.c.age)
    assert await conn.scalar(query) == 31


async def test_delete(conn):
    conn = await conn
    await add(conn, ONE, TWO)
    result = await conn.execute(PERSON.delete().where(PERSON.c.id == 1))
    assert result.rowcount == 1
    assert await rows(conn, delete(PERSON).returning(PERSON.c.id)) == [(2,)]


async def test_ddl(sa, conn):
    conn = await conn
    made = Table("made", MetaData(), Column("id", Integer, primary_key=True))
    result = await conn.execute(CreateTable(made))
    assert (result.returns_rows, result.closed, result.keys()) == (False, True, ())
    assert await conn.scalar(select(func.count()).select_from(made)) == 0
    with pytest.raises(sa.ArgumentError) as info:
        await conn.execute(DropTable(made), {"x": 1})
    assert str(info.value) == "Don't mix sqlalchemy DDL clause and execution with parameters"
    await conn.execute(DropTable(made))
    with pytest.raises(psycopg2.errors.UndefinedTable):
        await conn.execute(DropTable(made))


async def refused(conn, query, *parameters):
    """The text of the error at once: a transaction goes on after it."""
    async with conn.begin():
        with pytest.raises(sqlalchemy.exc.InvalidRequestError) as info:
            await conn.execute(query, *parameters)
        assert await conn.scalar("SELECT 1") == 1
    return str(info.value)


TOUCHED = Table(
    "person",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("name", String(40)),
    Column("age", Integer, onupdate=7),
)


@pytest.mark.parametrize(
    "query, parameters",
    [
        (PERSON.insert(), {"id": 3, "nmae": "x"}),
        (PERSON.insert(), {"nmae": "x"}),
        (PERSON.update().where(PERSON.c.id == 1), {"nmae": "x"}),
        (PERSON.update().where(PERSON.c.id == bindparam("key")), {"key": 1, "age": 5, "nmae": "x"}),
        (TOUCHED.update().where(TOUCHED.c.id == 1), {"nmae": "x"}),
    ],
)
async def test_an_unknown_name(sa, conn, query, parameters):
    conn = await conn
    await add(conn, ONE, TWO)
    for _ in range(2):
        message = await refused(conn, query, parameters)
    if sa.__name__ == "aiopgx.sa":
        assert message == (
            "parameter 'nmae' is neither a column of person nor a bind parameter of the statement"
        )
    assert await everyone(conn) == [ONE, TWO]


async def test_columns_are_no_names(conn):
    conn = await conn
    await refused(conn, PERSON.insert(), {PERSON.c.id: 1, PERSON.c.name: "x"})


@pytest.mark.parametrize("parameters", [([],), ((),), ({},), ([{}],), ([()],)])
async def test_empty_parameters(conn, parameters):
    conn = await conn
    await add(conn, ONE)
    for query in (PERSON.insert(), PERSON.update(), TOUCHED.update()):
        await refused(conn, query, *parameters)
    await conn.execute(PERSON.update().values(age=31), *parameters)
    assert await everyone(conn) == [(1, "Ann", 31)]


async def test_an_update_of_nothing(sa, conn):
    conn = await conn
    await add(conn, ONE)
    await refused(conn, PERSON.update())
    await refused(conn, TOUCHED.update())
    query = PERSON.update().where(PERSON.c.id == bindparam("key"))
    await refused(conn, query, {"key": 1})
    if sa.__name__ == "aiopgx.sa":
        await refused(conn, PERSON.update().values({}))  # a SyntaxError of the server in aiopg
    assert await everyone(conn) == [ONE]


@OURS
async def test_an_update_of_what_is_updated_anyway(conn):
    conn = await conn
    await add(conn, ONE)
    await conn.execute(TOUCHED.update().values({}))
    assert await everyone(conn) == [(1, "Ann", 7)]


async def test_an_empty_dict_of_values(conn):
    conn = await conn
    for parameters in ((), ({},), ([],)):
        await conn.execute(PERSON.insert().values({}), *parameters)
    assert await everyone(conn) == [(n, None, None) for n in (1, 2, 3)]


# --- defaults -------------------------------------------------------------------------------------

COUNTED = iter(range(100, 200))
NUMBER = Sequence("person_number", start=7)
DEFAULTS = Table(
    "defaults",
    MetaData(),
    Column("id", Integer, primary_key=True, default=lambda: next(COUNTED)),
    Column("plain", Integer, default=5),
    Column("called", String, default=lambda: "called"),
    Column("marked", String, default="m"),
    Column("sql", Integer, default=func.length("four")),
    Column("served", Integer, server_default="3"),
    Column("number", Integer, NUMBER),
)


@pytest.fixture
def defaults(side, tables):
    with side.cursor() as cursor:
        cursor.execute("DROP SEQUENCE IF EXISTS person_number")
        cursor.execute("CREATE SEQUENCE person_number START 7")
    tables(DEFAULTS.metadata)


async def test_defaults_of_columns(conn, defaults):
    conn = await conn
    for number in (7, 8):
        await conn.execute(DEFAULTS.insert().values(plain=number))
    found = await rows(conn, "SELECT * FROM defaults ORDER BY number")
    assert [row[1:] for row in found] == [
        (7, "called", "m", 4, 3, 7),
        (8, "called", "m", 4, 3, 8),
    ]
    assert found[0][0] + 1 == found[1][0]  # the callable was called for each


async def test_defaults_of_several_rows_in_one_statement(conn, defaults):
    conn = await conn
    await conn.execute(DEFAULTS.insert().values([{"plain": 1}, {"plain": 2}]))
    found = await rows(conn, "SELECT plain, called, sql, served, number FROM defaults ORDER BY 1")
    assert found == [(1, "called", 4, 3, 7), (2, "called", 4, 3, 8)]


@OURS
async def test_all_defaults(conn, defaults):
    conn = await conn
    await conn.execute(DEFAULTS.insert())
    assert [row[1:] for row in await rows(conn, "SELECT * FROM defaults")] == [
        (5, "called", "m", 4, 3, 7)
    ]


async def test_a_default_is_called_with_the_dialect(conn, tables):
    seen = []
    table = Table(
        "contextual",
        MetaData(),
        Column("a", Integer),
        Column("b", Integer, default=lambda context: seen.append(context) or 1),
    )
    tables(table.metadata)
    conn = await conn
    await conn.execute(table.insert().values(a=1))
    assert seen == [conn._dialect]


UPDATED = Table(
    "updated",
    MetaData(),
    Column("id", Integer),
    Column("both", Integer, default=1, onupdate=2),
)


async def test_an_update_takes_the_default(conn, tables):
    tables(UPDATED.metadata)
    conn = await conn
    await conn.execute(UPDATED.insert().values(id=1, both=0))
    await conn.execute(UPDATED.update().values(id=2))
    assert await rows(conn, select(UPDATED)) == [(2, 1)]


@OURS
async def test_an_update_without_a_default(conn, tables):
    table = Table(
        "touched", MetaData(), Column("id", Integer), Column("at", Integer, onupdate=lambda: 9)
    )
    tables(table.metadata)
    conn = await conn
    await conn.execute(table.insert().values(id=1))
    await conn.execute(table.update().values(id=2))
    assert await rows(conn, select(table)) == [(2, 9)]


async def test_a_sequence(conn, defaults):
    conn = await conn
    assert await conn.scalar(select(NUMBER.next_value())) == 7
    assert await conn.scalar(select(func.nextval("person_number"))) == 8


# --- types ----------------------------------------------------------------------------------------


class Marked(TypeDecorator):
    """Text that is in angle brackets in the database."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value, dialect):
        return value and f"<{value}>"

    def process_result_value(self, value, dialect):
        return value and value.strip("<>")


class Colour(enum.Enum):
    red = 1
    blue = 2


WHEN = datetime.datetime(2024, 2, 29, 12, 30, 15, 123456)
ID = uuid.UUID(int=7)
VALUES = [
    (Integer(), 5),
    (String(), "Zoë's 100% \\ text"),
    (Boolean(), True),
    (Numeric(10, 2), Decimal("1.25")),
    (Numeric(10, 2, asdecimal=False), 1.25),
    (Float(), 0.5),
    (DateTime(), WHEN),
    (DateTime(timezone=True), WHEN.replace(tzinfo=datetime.timezone.utc)),
    (Date(), WHEN.date()),
    (Interval(), datetime.timedelta(days=1, seconds=5)),
    (Enum("a", "b", name="letter"), "b"),
    (Enum(Colour, name="colour"), Colour.blue),
    (JSON(), {"a": [1, None, "x"]}),
    (pg.JSONB(), {"a": [1, None, "x"]}),
    (pg.ARRAY(Integer), [1, None, 3]),
    (pg.ARRAY(String), ["a", 'b"c']),
    (pg.UUID(as_uuid=True), ID),
    (pg.INET(), "10.0.0.1"),
    (pg.HSTORE(), {"a": "1", "b": None}),
    (Marked(), "x"),
    (pg.ARRAY(Marked), ["x", "y"]),
]


@pytest.mark.parametrize("type_, value", VALUES, ids=[repr(type_) for type_, _ in VALUES])
async def test_a_type_there_and_back(conn, tables, side, type_, value):
    if isinstance(type_, Enum):
        with side.cursor() as cursor:
            cursor.execute(f"DROP TYPE IF EXISTS {type_.name} CASCADE")
            labels = ", ".join(f"'{label}'" for label in type_.enums)
            cursor.execute(f"CREATE TYPE {type_.name} AS ENUM ({labels})")
    typed = Table("typed", MetaData(), Column("id", Integer), Column("v", type_))
    tables(typed.metadata)
    conn = await conn
    for number in (1, 2):
        await conn.execute(typed.insert().values(id=number, v=value))
    await conn.execute(typed.insert(), {"id": 3, "v": None})
    for number, expected in ((1, value), (2, value), (3, None)):
        query = select(typed.c.v).where(typed.c.id == number)
        row = await (await conn.execute(query)).first()
        assert (row.v, type(row.v)) == (expected, type(expected))
        assert (row[0], row[typed.c.v]) == (expected, expected)


async def test_binary(conn, tables):
    typed = Table("typed", MetaData(), Column("v", LargeBinary))
    tables(typed.metadata)
    conn = await conn
    await conn.execute(typed.insert().values(v=b"\0ab"))
    assert await conn.scalar(select(typed)) == b"\0ab"
    assert await conn.scalar(select(func.length(typed.c.v))) == 3


async def test_bind_processors_of_literals(conn):
    conn = await conn
    assert await conn.scalar("SELECT %s", "x") == "x"
    assert await rows(conn, select(literal("x", Marked), cast(literal("x", Marked), String))) == [
        ("x", "<x>")
    ]


async def test_an_error_in_a_processor(conn):
    class Broken(TypeDecorator):
        impl = String
        cache_ok = True

        def process_bind_param(self, value, dialect):
            raise ZeroDivisionError

        def process_result_value(self, value, dialect):
            raise KeyError("broken")

    conn = await conn
    for _ in range(2):
        with pytest.raises(Exception) as info:
            await conn.execute(select(literal("x", Broken)))
        assert isinstance(info.value, ZeroDivisionError)
    row = await (await conn.execute(text("SELECT 1 AS a").columns(column("a", Broken)))).first()
    with pytest.raises(KeyError, match="broken"):
        row["a"]
    with pytest.raises(AttributeError, match="broken"):
        row.a  # noqa: B018
