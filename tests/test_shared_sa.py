"""`Engine.execute()`: SAConnection.execute() on any connection, which others may share."""

import asyncio

import psycopg2
import pytest
from sa_support import OURS, PERSON, add
from sqlalchemy import select

import aiopgx

pytest_plugins = ("sa_fixtures",)
pytestmark = OURS


@pytest.fixture
def people(sa, make, tables):
    async def people(**kwargs):
        tables(PERSON.metadata)
        engine = await make(**kwargs)
        async with engine.acquire() as conn:
            await add(conn, (1, "Ann", 30), (2, "Bob", 40))
        return engine

    return people


async def test_it_is_as_on_a_connection(people):
    engine = await people(maxsize=2)
    for arguments in [
        (select(PERSON).order_by(PERSON.c.id),),
        (select(PERSON.c.name).where(PERSON.c.id == 2),),
        ("SELECT name, age FROM person WHERE id = %s", 1),
        (PERSON.update().values(age=31).where(PERSON.c.id == 1),),
        (PERSON.delete().where(PERSON.c.id == 7),),
    ]:
        async with engine.acquire() as conn:
            expected = await conn.execute(*arguments)
            expected_rows = [row async for row in expected] if expected.returns_rows else None
        result = await engine.execute(*arguments)
        assert result.rowcount == expected.rowcount
        assert result.keys() == expected.keys()
        if expected_rows is None:
            assert not result.returns_rows
            assert result.closed
        else:
            assert await result.fetchall() == expected_rows
    assert engine.size == engine.freesize


async def test_a_row_factory_that_on_connect_has_set(make):
    async def on_connect(conn):
        conn.row_factory = aiopgx.rows.dict_row

    engine = await make(on_connect=on_connect)
    assert await (await engine.execute("SELECT 1 AS a")).fetchall() == [(1,)]
    async with engine.acquire() as conn:
        assert await (await conn.execute("SELECT 1 AS a")).fetchall() == [(1,)]
        assert await conn.scalar("SELECT 1 AS a") == 1


async def test_ways_to_use_it(people):
    engine = await people()
    assert [row.name async for row in engine.execute(select(PERSON).order_by(PERSON.c.id))] == [
        "Ann",
        "Bob",
    ]
    async with engine.execute(select(PERSON.c.age).where(PERSON.c.name == "Bob")) as result:
        assert (await result.first())[PERSON.c.age] == 40
    assert (await engine.execute(PERSON.insert().values(id=3, name="Eve"))).rowcount == 1
    result = await engine.execute(PERSON.insert(), [{"id": 4}, {"id": 5}])
    assert result.rowcount == 2


async def test_many_tasks(people):
    engine = await people(minsize=2, maxsize=2)

    async def one(number):
        result = await engine.execute(select(PERSON.c.id, PERSON.c.name), {})
        assert len(await result.fetchall()) == 2
        return await (await engine.execute("SELECT %s::int", number)).scalar()

    assert await asyncio.gather(*map(one, range(200))) == list(range(200))
    assert (engine.size, engine.freesize) == (2, 2)


async def test_errors(sa, people):
    engine = await people()
    with pytest.raises(sa.ArgumentError, match="str or SQLAlchemy"):
        await engine.execute(1)
    with pytest.raises(psycopg2.errors.UndefinedTable):
        await engine.execute("SELECT * FROM nowhere")
    engine.close()
    with pytest.raises(RuntimeError, match="after closing pool"):
        await engine.execute("SELECT 1")
