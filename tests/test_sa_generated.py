"""Generated SELECTs: executed through the cache and compiled afresh, they give the same."""

import random
from decimal import Decimal

import pytest
from sa_support import OURS, SQLALCHEMY_2
from sqlalchemy import (
    Boolean,
    Column,
    Integer,
    MetaData,
    Numeric,
    String,
    Table,
    and_,
    bindparam,
    or_,
    select,
)
from support import LONG

pytest_plugins = ("sa_fixtures",)

THING = Table(
    "thing",
    MetaData(),
    Column("a", Integer, primary_key=True),
    Column("b", String),
    Column("c", Numeric),
    Column("d", Boolean),
)
ALIAS = THING.alias("other")
VALUES = {
    "a": [1, 2, 3, 1.5, "2"],
    "b": ["x", "y%", "it's", ""],
    "c": [1, 2, Decimal("1.5"), 0.5],
    "d": [True, False],
}
EQUALITY = [lambda a, b: a == b, lambda a, b: a != b]
ORDER = [lambda a, b: a < b, lambda a, b: b >= a]


class Generator(random.Random):
    def criterion(self, table, depth=0):
        column = self.choice(list(table.c))
        values = VALUES[column.name]
        value = self.choice(values)
        kind = self.choice(
            ["compare"] * 5 + ["in", "null", "named", "unique", "callable", "nested"]
        )
        if kind == "in":
            return column.in_(self.choices(values, k=self.randrange(4)))
        if kind == "null":
            return column.is_(None)
        if kind == "named":
            return column == bindparam("p", value)
        if kind == "unique":
            return column == bindparam(None, value, unique=True)
        if kind == "callable":
            return column == bindparam("q", callable_=lambda: value, type_=column.type)
        if kind == "nested" and depth < 2:
            parts = [self.criterion(table, depth + 1) for _ in range(2)]
            return self.choice([and_, or_])(*parts)
        return self.choice(EQUALITY if column.name == "d" else EQUALITY + ORDER)(column, value)

    def statement(self):
        table = self.choice([THING, THING, THING, ALIAS])
        c = table.c
        columns = self.choice(
            [[table], [c.a], [c.b, c.a], [c.c, (c.a + self.randrange(3)).label("n")]]
        )
        query = select(*columns)
        for _ in range(self.randrange(4)):
            query = query.where(self.criterion(table))
        for change in self.sample(
            [
                lambda q: q.order_by(c.a),
                lambda q: q.limit(self.randrange(1, 4)),
                lambda q: q.with_for_update(),
                lambda q: q.where(),
            ],
            k=self.randrange(3),
        ):
            query = change(query)
        return query


async def outcome(conn, query):
    """The rows, sorted, since not all statements say how; or the class of the error."""
    try:
        result = await conn.execute(query)
        found = [row.as_tuple() for row in await result.fetchall()]
    except Exception as exc:
        return type(exc)
    return result.keys(), sorted(found, key=repr)


@OURS
@pytest.mark.parametrize("seed", range(60 if LONG else 3))
async def test_the_same_from_the_cache(make, tables, seed):
    tables(THING.metadata)
    generator = Generator(f"{seed} {SQLALCHEMY_2}")
    engine = await make()
    async with engine.acquire() as conn:
        for key in range(6):
            await conn.execute(
                THING.insert().values(a=key, b="xy%"[key % 3], c=Decimal(key) / 2, d=key % 2 == 0)
            )
        options = conn._query_compile_kwargs
        failed = 0
        for _ in range(300):
            query = generator.statement()
            cached = await outcome(conn, query)
            conn._query_compile_kwargs = {"anything": "else"}  # is compiled each time
            fresh = await outcome(conn, query)
            conn._query_compile_kwargs = options
            assert cached == fresh, str(query)
            failed += isinstance(cached, type)
        assert failed < 100
