"""executemany(), which aiopg refuses."""

import asyncio

import aiopg
import psycopg2
import psycopg2.errors
import psycopg2.extensions
import pytest
from support import fetch, underway


async def test_executemany_is_refused_by_aiopg(dsn):
    conn = await aiopg.connect(dsn)
    cursor = await conn.cursor()
    with pytest.raises(psycopg2.ProgrammingError) as info:
        await cursor.executemany("SELECT %s", [(1,)])
    assert str(info.value) == "executemany cannot be used in asynchronous mode"
    await conn.close()


@pytest.fixture
def many(connect):
    """A cursor on a connection with a temporary table `many`."""

    async def make():
        cursor = await (await connect()).cursor()
        await cursor.execute("CREATE TEMP TABLE many (i int PRIMARY KEY)")
        return cursor

    return make


async def stored(cursor):
    await cursor.execute("SELECT i FROM many ORDER BY i")
    return [i for (i,) in await cursor.fetchall()]


INSERT = "INSERT INTO many VALUES (%s)"


@pytest.mark.parametrize(
    "parameters",
    [
        [(1,), (2,), (3,)],
        ([1], [2], [3]),
        ((n,) for n in (1, 2, 3)),
        iter([(1,), (2,), (3,)]),
        {(1,): None, (2,): None, (3,): None},
    ],
    ids=["list", "tuple", "generator", "iterator", "dict"],
)
async def test_executemany(ours, many, parameters):
    cursor = await many()
    assert await cursor.executemany(INSERT, parameters) is None
    assert await stored(cursor) == [1, 2, 3]


async def test_executemany_with_mappings(ours, many):
    cursor = await many()
    await cursor.executemany("INSERT INTO many VALUES (%(i)s)", [{"i": 1}, {"i": 2}])
    assert await stored(cursor) == [1, 2]


async def test_executemany_of_nothing(ours, many):
    cursor = await many()
    await cursor.executemany(INSERT, [])
    assert await stored(cursor) == []


async def test_executemany_of_thousands(ours, many):
    cursor = await many()
    await cursor.executemany(INSERT, ((n,) for n in range(3000)))
    assert await stored(cursor) == list(range(3000))


async def test_executemany_is_atomic_and_stops(ours, many):
    cursor = await many()
    taken = []

    def parameters():
        for n in (1, 2, 2, 3):
            taken.append(n)
            yield (n,)

    with pytest.raises(psycopg2.errors.UniqueViolation) as info:
        await cursor.executemany(INSERT, parameters())
    assert info.value.diag.constraint_name == "many_pkey"
    assert taken == [1, 2, 2], "lazily, and not beyond the error"
    assert await stored(cursor) == []


async def test_executemany_with_a_bad_set(ours, many):
    cursor = await many()
    with pytest.raises(TypeError):
        await cursor.executemany(INSERT, [(1,), (2, 3)])
    with pytest.raises(ValueError, match="NUL"):
        await cursor.executemany("INSERT INTO many VALUES (length(%s))", [("a",), ("\0",)])
    assert await stored(cursor) == []


async def test_executemany_when_the_iterable_fails(ours, many):
    def parameters():
        yield (1,)
        raise KeyError("source dried up")

    cursor = await many()
    with pytest.raises(KeyError, match="source dried up"):
        await cursor.executemany(INSERT, parameters())
    status = await cursor.connection.get_transaction_status()
    assert status == psycopg2.extensions.TRANSACTION_STATUS_IDLE
    assert await stored(cursor) == []


async def test_executemany_inside_a_transaction(ours, many):
    cursor = await many()
    with pytest.raises(KeyError):
        async with cursor.begin():
            await cursor.executemany(INSERT, [(1,), (2,)])
            status = await cursor.connection.get_transaction_status()
            assert status == psycopg2.extensions.TRANSACTION_STATUS_INTRANS
            raise KeyError
    assert await stored(cursor) == []
    async with cursor.begin():
        await cursor.executemany(INSERT, [(1,), (2,)])
        await cursor.executemany(INSERT, [(3,)])
    assert await stored(cursor) == [1, 2, 3]


async def test_executemany_error_inside_a_transaction(ours, many):
    cursor = await many()
    await cursor.execute("BEGIN")
    await cursor.execute("INSERT INTO many VALUES (0)")
    with pytest.raises(psycopg2.errors.UniqueViolation):
        await cursor.executemany(INSERT, [(1,), (1,)])
    status = await cursor.connection.get_transaction_status()
    assert status == psycopg2.extensions.TRANSACTION_STATUS_INERROR
    await cursor.execute("ROLLBACK")
    assert await stored(cursor) == []


async def test_executemany_needs_an_iterable(ours, many):
    cursor = await many()
    with pytest.raises(TypeError):
        await cursor.executemany(INSERT, 5)
    assert await stored(cursor) == []


async def test_executemany_while_busy(ours, many):
    cursor = await many()
    task = await underway(cursor.connection, fetch(cursor.connection, "SELECT pg_sleep(0.1)"))
    with pytest.raises(RuntimeError, match="already waiting for incoming data"):
        await cursor.executemany(INSERT, [(1,)])
    await task
    assert await stored(cursor) == []


async def test_executemany_timeout(ours, many):
    cursor = await many()
    with pytest.raises(asyncio.TimeoutError):
        await cursor.executemany("SELECT pg_sleep(%s)", [(30,)], timeout=0.1)
    assert cursor.connection.closed


async def test_commit_that_fails(ours, connect):
    """A deferred constraint: COMMIT itself raises, and there is nothing left to roll back."""
    conn = await connect()
    cursor = await conn.cursor()
    await cursor.execute("CREATE TEMP TABLE late (i int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    with pytest.raises(psycopg2.errors.UniqueViolation):
        await cursor.executemany("INSERT INTO late VALUES (%s)", [(1,), (1,)])
    assert conn.notices == []
    assert await fetch(conn, "SELECT count(*) FROM late") == [(0,)]


STEPS = {
    "no sets": [("execute", "SELECT 1 AS a"), ("executemany", "SELECT %s", [])],
    "nothing to iterate": [("execute", "SELECT 1 AS a"), ("executemany", "SELECT %s", None)],
    "first set refused": [("execute", "SELECT 1 AS a"), ("executemany", "SELECT %s", [()])],
    "then refused": [("executemany", "SELECT %s", [(1,), (2,)]), ("execute", "SELECT %s", ())],
    "then scrolled": [("executemany", "SELECT %s", [(1,), (2,)]), ("scroll", 0), ("scroll", 2)],
}


@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
def test_what_is_left_to_see(roads, steps):
    roads.same_steps(*steps)
    roads.same_steps(*steps, ("fetchone",), ("fetchall",))


async def test_the_sum_stays_behind_raw(ours, connect):
    conn = await connect()
    async with conn.cursor() as cursor:
        await cursor.execute("CREATE TEMP TABLE sums (i int)")
        await cursor.executemany("INSERT INTO sums VALUES (%s)", [(1,), (2,)])
        assert cursor.raw.rowcount == cursor.rowcount == 2
        assert cursor.query == b"INSERT INTO sums VALUES (2)"
        assert cursor.statusmessage == "INSERT 0 1"
