"""What is compiled once, what is not, and that it makes no difference; several parameter sets."""

import operator
import subprocess
import sys

import psycopg2
import pytest
import sqlalchemy.exc
from sa_support import OURS, PERSON, add, rows
from sqlalchemy import (
    Column,
    Integer,
    MetaData,
    String,
    Table,
    and_,
    bindparam,
    column,
    func,
    insert,
    lambda_stmt,
    literal,
    or_,
    select,
    table,
    text,
    tuple_,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.types import TypeDecorator

pytest_plugins = ("sa_fixtures",)

ONE = (1, "Ann", 30)
TWO = (2, "Bob", None)
BY_ID = select(PERSON).where(PERSON.c.id == bindparam("key"))


@pytest.fixture
def compilations(sa, monkeypatch):
    """The texts that were compiled, each time."""
    texts = []
    compiler = sa.engine.APGCompiler_psycopg2

    def init(self, *args, **kwargs):
        super(compiler, self).__init__(*args, **kwargs)
        texts.append(self.string)

    monkeypatch.setattr(compiler, "__init__", init, raising=False)
    return texts


@pytest.fixture
def conn(sa, conn):
    """The fixture's connection, with a dialect, and so a cache, of its own."""

    class Later:
        def __await__(self):
            connection = yield from conn.__await__()
            connection._dialect = sa.engine.get_dialect()
            return connection

    return Later()


class Upper(TypeDecorator):
    impl = String
    cache_ok = True

    def process_bind_param(self, value, dialect):
        return value and value.upper()


# Each makes a statement of one shape out of a number.
SHAPES = {
    "comparison": lambda n: select(PERSON).where(PERSON.c.id == n),
    "columns": lambda n: select(PERSON.c.name, PERSON.c.id).where(PERSON.c.id == n),
    "two comparisons": lambda n: select(PERSON).where(PERSON.c.id >= n, PERSON.c.id < n + 2),
    "reversed": lambda n: select(PERSON).where(n == PERSON.c.id),
    "and": lambda n: select(PERSON).where(and_(PERSON.c.id > n, PERSON.c.name != "x")),
    "or": lambda n: select(PERSON).where(or_(PERSON.c.id == n, PERSON.c.name == "Bob")),
    "in": lambda n: select(PERSON).where(PERSON.c.id.in_([n, n + 1])).order_by(PERSON.c.id),
    "in of another length": lambda n: select(PERSON).where(PERSON.c.id.in_(list(range(n + 1)))),
    "like": lambda n: select(PERSON).where(PERSON.c.name.like(["", "A%", "B%", "%"][n])),
    "null": lambda n: select(PERSON).where(PERSON.c.age.is_(None)).limit(n),
    "limit": lambda n: select(PERSON).order_by(PERSON.c.id).limit(n).offset(n - 1),
    "function": lambda n: select(func.coalesce(None, n)),
    "literal": lambda n: select(literal(n), literal(str(n)), literal("a", Upper)),
    "label": lambda n: select((PERSON.c.id + n).label("more")),
    "callable": lambda n: select(bindparam("x", callable_=lambda: n, type_=Integer)),
    "callable and value": lambda n: select(
        bindparam("x", callable_=lambda: n, type_=Integer)
        if n % 2
        else bindparam("x", n, type_=Integer)
    ),
    "params": lambda n: BY_ID.params(key=n),
    "text": lambda n: text("SELECT * FROM person WHERE id = :key").bindparams(key=n),
    "alias": lambda n: (lambda p: select(p).where(p.c.id == n))(PERSON.alias()),
    "subquery": lambda n: select(select(PERSON).where(PERSON.c.id == n).subquery()),
    "cte": lambda n: select(select(PERSON).where(PERSON.c.id == n).cte("c")),
    "union": lambda n: select(literal(n)).union_all(select(literal(n + 1))),
    "tuple": lambda n: select(PERSON).where(tuple_(PERSON.c.id, PERSON.c.name) == tuple_(n, "Ann")),
    "insert": lambda n: PERSON.insert().values(id=n + 10, name=str(n)).returning(PERSON),
    "update": lambda n: PERSON.update().where(PERSON.c.id == n).values(age=n).returning(PERSON),
    "delete": lambda n: PERSON.delete().where(PERSON.c.id == n).returning(PERSON),
    "lightweight table": lambda n: (
        select(column("id")).select_from(table("person")).where(column("id") == n)
    ),
    "lambda": lambda n: lambda_stmt(lambda: select(PERSON).where(PERSON.c.id == n)),
}


@OURS
@pytest.mark.parametrize("shape", SHAPES)
async def test_a_shape_is_compiled_once(conn, compilations, shape):
    conn = await conn
    await add(conn, ONE, TWO)
    for number in (1, 2, 3):
        await rows(conn, SHAPES[shape](number))
    assert len(compilations) == 1


@pytest.mark.parametrize("shape", SHAPES)
async def test_caching_makes_no_difference(sa, conn, shape):
    conn = await conn
    for number in (1, 2, 1, 2):
        async with conn.begin() as transaction:
            await add(conn, ONE, TWO)
            found = await rows(conn, SHAPES[shape](number))
            await transaction.rollback()
        async with conn.begin() as transaction:
            await add(conn, ONE, TWO)
            compiled = SHAPES[shape](number).compile(
                dialect=sa.engine.get_dialect(), compile_kwargs={"literal_binds": True}
            )
            assert found == await rows(conn, str(compiled))
            await transaction.rollback()


@OURS
async def test_different_shapes(conn, compilations):
    conn = await conn
    await add(conn, ONE, TWO)
    ops = (operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge)
    for op in ops:
        query = select(PERSON.c.id).where(op(PERSON.c.id, 2)).order_by(PERSON.c.id)
        assert [row[0] for row in await rows(conn, query)] == [n for n in (1, 2) if op(n, 2)]
        query = select(PERSON.c.id).where(op(PERSON.c.id, 2))
        assert {row[0] for row in await rows(conn, query)} == {n for n in (1, 2) if op(n, 2)}
    assert len(set(compilations)) == len(compilations) == 2 * len(ops)


@OURS
async def test_close_relatives(conn, compilations):
    """Statements that differ in one thing: each has a text of its own."""
    conn = await conn
    await add(conn, ONE, TWO)
    base = select(PERSON).where(PERSON.c.id == 1)
    relatives = [
        base,
        base.where(PERSON.c.id == 1),
        base.distinct(),
        base.with_for_update(),
        base.limit(1),
        base.order_by(PERSON.c.id),
        base.group_by(PERSON.c.id),
        base.correlate(None).prefix_with("ALL"),
        base.with_only_columns(PERSON.c.id),
        base.suffix_with("-- end"),
        select(PERSON.c.id, PERSON.c.name, PERSON.c.age).where(PERSON.c.id == 1, PERSON.c.id > 0),
        select(PERSON).where(~(PERSON.c.id == 2)),
        select(PERSON).where(PERSON.c.id.op("=")(1)),
        select(PERSON).where((PERSON.c.id == 1) == True),  # noqa: E712
        select(PERSON).where(PERSON.c.id == bindparam("named", 1)),
        select(PERSON).where(PERSON.c.id == bindparam(None, 1, literal_execute=True)),
        select(PERSON).having(PERSON.c.id == 1).group_by(PERSON.c.id),
    ]
    for _ in range(2):
        for query in relatives:
            assert [row[0] for row in await rows(conn, query)] == [1]
    assert len(compilations) == len(relatives)


@OURS
async def test_the_same_shape_of_another_type(conn, compilations):
    conn = await conn
    one = Table("person", MetaData(), Column("id", Integer), Column("name", String))
    other = Table("person", MetaData(), Column("id", Integer), Column("name", Upper))
    await add(conn, (1, "ann", 1), (2, "ANN", 2))
    for _ in range(2):
        for persons, expected in ((one, [(1, "ann")]), (other, [(2, "ANN")])):
            query = select(persons).where(persons.c.name == "ann")
            assert await rows(conn, query) == expected
    assert await rows(conn, select(one).where(one.c.name == literal("ann", Upper))) == [(2, "ANN")]
    assert await rows(conn, select(one).where(one.c.name == "ann")) == [(1, "ann")]


@OURS
async def test_values_of_other_types(conn):
    conn = await conn
    await add(conn, ONE, TWO)
    for value in (1, True, 1.0, "1", 1):
        query = select(PERSON.c.id).where(PERSON.c.id == value)
        if isinstance(value, bool):
            with pytest.raises(psycopg2.errors.UndefinedFunction):
                await rows(conn, query)
        else:
            assert await rows(conn, query) == [(1,)]
    assert await rows(conn, select(PERSON.c.id).where(PERSON.c.age == None)) == [(2,)]  # noqa: E711


@OURS
async def test_the_name_of_a_unique_parameter(conn):
    conn = await conn
    await add(conn, ONE, TWO)
    ids = select(PERSON.c.id)
    assert await rows(conn, ids.where(PERSON.c.id == bindparam("x", 1, unique=True))) == [(1,)]
    assert await rows(conn, ids.where(PERSON.c.id == 1), id_1=2) == [(2,)]
    assert await rows(conn, ids.where(PERSON.c.id == bindparam("x", 1, unique=True)), x_1=2) == [
        (2,)
    ]


@OURS
async def test_the_type_of_a_column_is_changed(conn):
    class Lower(TypeDecorator):
        impl = String
        cache_ok = True

        def process_result_value(self, value, dialect):
            return value.lower()

    person = Table("person", MetaData(), Column("id", Integer), Column("name", String))
    conn = await conn
    await add(conn, ONE)
    query = select(person.c.name).where(person.c.id == 1)
    assert await rows(conn, query) == [("Ann",)]
    person.c.name.type = Lower()
    assert await rows(conn, select(person.c.name).where(person.c.id == 1)) == [("ann",)]


@OURS
async def test_a_missing_value_is_not_taken_from_another(conn):
    conn = await conn
    await add(conn, ONE, TWO)
    for _ in range(2):
        assert await rows(conn, BY_ID.params(key=2)) == [TWO]
        with pytest.raises(sqlalchemy.exc.InvalidRequestError, match="for bind parameter 'key'"):
            await conn.execute(BY_ID)
        assert await rows(conn, BY_ID, key=1) == [ONE]


@OURS
async def test_columns_of_parameters(conn, compilations):
    conn = await conn
    for key in (1, 2):
        await conn.execute(insert(PERSON), {"id": key, "name": "x"})
    for key in (3, 4):
        await conn.execute(insert(PERSON), {"name": "y", "id": key})
    await conn.execute(insert(PERSON), {"id": 5, "age": 1})
    assert len(compilations) == 2
    assert await rows(conn, "SELECT id FROM person ORDER BY 1") == [(n,) for n in range(1, 6)]


@OURS
async def test_an_element_without_cache_key(conn, compilations):
    class Shouted(ColumnElement):
        inherit_cache = False
        type = String()

        def __init__(self, word):
            self.word = word

    @compiles(Shouted)
    def compile_shouted(element, compiler, **kwargs):
        return f"'{element.word.upper()}'"

    conn = await conn
    for word in ("a", "b"):
        assert await rows(conn, select(Shouted(word), literal(1))) == [(word.upper(), 1)]
    assert len(compilations) == 2


def test_no_advice_on_types_without_cache_ok():
    """aiopg gives none. Under pytest every warning is an error, so this has its own process."""
    code = """
from aiopgx.sa._statements import statement_for
from aiopgx.sa.engine import get_dialect
from sqlalchemy import String, literal, select
from sqlalchemy.types import TypeDecorator

class Own(TypeDecorator):
    impl = String

statements = [statement_for(select(literal("a", Own)), get_dialect(), [], False)[0] for _ in "ab"]
print(statements[0] is statements[1])
"""
    found = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=50
    )
    assert (found.stdout, found.stderr) == ("False\n", "")


@OURS
async def test_a_dialect_that_does_not_say_so(sa, make, compilations):
    class Own(type(sa.engine.get_dialect())):
        pass

    dialect = Own()
    dialect.statement_compiler = sa.engine.APGCompiler_psycopg2
    engine = await make(dialect=dialect)
    async with engine.acquire() as conn:
        for number in (1, 2):
            assert await conn.scalar(select(literal(number))) == number
    assert len(compilations) == 2


@OURS
async def test_engines_share_the_cache_of_their_dialect(sa, make, compilations):
    dialect = sa.engine.get_dialect()
    for _ in range(2):
        engine = await make(dialect=dialect)
        async with engine.acquire() as conn:
            assert await conn.scalar(select(literal(1))) == 1
    assert len(compilations) == 1


@OURS
async def test_the_cache_is_bounded(conn):
    conn = await conn
    for number in range(800):
        await conn.execute(select(literal(1).label(f"n{number}")))
    assert len(conn._dialect._aiopgx_compiled_cache) < 800


@OURS
async def test_remembered_columns_are_bounded(conn):
    conn = await conn
    await add(conn, ONE)
    for _ in range(400):
        row = await (await conn.execute(BY_ID, key=1)).first()
        assert row[PERSON.alias().c.id] == 1
    assert len(row._result_proxy._keymap) < 300


# --- several parameter sets -----------------------------------------------------------------------

SETS = [{"id": 1, "name": "Ann", "age": 30}, {"id": 2, "name": "Bob", "age": None}]


@OURS
@pytest.mark.parametrize(
    "query, parameters",
    [
        (PERSON.insert(), (SETS,)),
        (PERSON.insert(), (tuple(SETS),)),
        (PERSON.insert(), tuple(SETS)),
        (PERSON.insert(), ([ONE, TWO],)),
        (PERSON.insert(), (ONE, TWO)),
        (PERSON.insert().values(id=bindparam("id"), name=bindparam("name"), age=bindparam("age")),
         (SETS,)),
        ("INSERT INTO person VALUES (%s, %s, %s)", ([ONE, TWO],)),
        ("INSERT INTO person VALUES (%s, %s, %s)", (ONE, TWO)),
        ("INSERT INTO person VALUES (%(id)s, %(name)s, %(age)s)", (SETS,)),
    ],
)  # fmt: skip
async def test_several_sets(conn, query, parameters):
    conn = await conn
    result = await conn.execute(query, *parameters)
    assert (result.rowcount, result.returns_rows, result.closed) == (2, False, True)
    assert await rows(conn, select(PERSON).order_by(PERSON.c.id)) == [ONE, TWO]


@OURS
async def test_several_sets_of_some_columns(conn):
    conn = await conn
    await conn.execute(PERSON.insert(), [{"name": "Ann"}, {"name": "Bob"}])
    assert await rows(conn, select(PERSON.c.id, PERSON.c.name)) == [(1, "Ann"), (2, "Bob")]


@OURS
async def test_several_sets_with_defaults(conn, tables):
    numbers = iter(range(10, 20))
    numbered = Table(
        "numbered",
        MetaData(),
        Column("id", Integer),
        Column("number", Integer, default=lambda: next(numbers)),
        Column("name", Upper),
    )
    tables(numbered.metadata)
    conn = await conn
    await conn.execute(numbered.insert(), [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}])
    assert await rows(conn, select(numbered)) == [(1, 10, "A"), (2, 11, "B")]


@OURS
async def test_several_sets_of_an_update(conn):
    conn = await conn
    await conn.execute(PERSON.insert(), SETS)
    query = PERSON.update().where(PERSON.c.id == bindparam("key")).values(age=bindparam("new"))
    result = await conn.execute(query, [{"key": 1, "new": 5}, {"key": 2, "new": 6}])
    assert result.rowcount == 2
    assert await rows(conn, select(PERSON.c.age).order_by(PERSON.c.id)) == [(5,), (6,)]


@OURS
async def test_several_sets_are_one_unit(conn):
    conn = await conn
    with pytest.raises(psycopg2.errors.UniqueViolation):
        await conn.execute(PERSON.insert(), [SETS[0], SETS[1], SETS[0]])
    assert await rows(conn, select(PERSON)) == []
    async with conn.begin():
        await conn.execute(PERSON.insert(), SETS)
    assert len(await rows(conn, select(PERSON))) == 2


@OURS
async def test_a_set_that_lacks_a_value(conn):
    conn = await conn
    with pytest.raises(sqlalchemy.exc.InvalidRequestError, match="'name'"):
        await conn.execute(PERSON.insert(), [{"id": 1, "name": "a"}, {"id": 2}])
    assert await rows(conn, select(PERSON)) == []


@OURS
@pytest.mark.parametrize(
    "query, sets, reason",
    [
        (PERSON.insert(), [{"id": 1}, {"id": 2, "age": 3}], "'age' is not in the first"),
        (PERSON.insert(), [{"id": 1}, {"id": 2, "nmae": "x"}], "'nmae' is neither a column of"),
        (PERSON.insert(), [{**SETS[0], "nmae": "x"}, SETS[1]], "'nmae' is neither a column of"),
        (PERSON.insert(), [{}, {}], "are empty"),
        (PERSON.insert(), [{}, {"name": "x"}], "'name' is not in the first"),
        (PERSON.insert(), [{"name": "x"}, {}], "required for bind parameter 'name'"),
        (PERSON.insert().values(name="f"), [{"age": 1}, {"age": 2}], "'age' is not among the"),
        (PERSON.update(), [{"nmae": "x"}, {"nmae": "y"}], "'nmae' is neither a column of"),
        (PERSON.update(), [{}, {}], "no value for any column"),
    ],
)
async def test_several_sets_that_do_not_fit(conn, query, sets, reason):
    conn = await conn
    await add(conn, (9, "Zoe", 90))
    for _ in range(2):
        with pytest.raises(sqlalchemy.exc.InvalidRequestError, match=reason):
            await conn.execute(query, sets)
    assert await rows(conn, select(PERSON)) == [(9, "Zoe", 90)]


@OURS
async def test_a_default_overrides_nothing_in_several_sets(conn):
    defaults = Table(
        "person", MetaData(), Column("id", Integer), Column("age", Integer, default=18)
    )
    conn = await conn
    with pytest.raises(sqlalchemy.exc.InvalidRequestError, match="'age' is not in the first"):
        await conn.execute(defaults.insert(), [{"id": 1}, {"id": 2, "age": 30}])
    await conn.execute(defaults.insert(), [{"id": 1, "age": 20}, {"id": 2, "age": 30}])
    assert await rows(conn, select(PERSON.c.age)) == [(20,), (30,)]


@OURS
async def test_several_sets_with_too_many_values(sa, conn):
    conn = await conn
    with pytest.raises(sa.ArgumentError, match="4 parameters for the 3 columns of person"):
        await conn.execute(PERSON.insert(), [ONE, (*TWO, 5)])
    assert await rows(conn, select(PERSON)) == []


@OURS
async def test_several_sets_where_they_cannot_be(sa, conn):
    conn = await conn
    query = PERSON.delete().where(PERSON.c.id.in_(bindparam("ids", expanding=True)))
    with pytest.raises(sa.ArgumentError, match="several parameter sets"):
        await conn.execute(query, [{"ids": [1]}, {"ids": [2]}])
    assert await conn.scalar("SELECT 1") == 1
