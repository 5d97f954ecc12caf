"""Results that outlive their connection, streams, values that psycopg2's dialect lacks."""

import asyncio
import datetime
import gc
import ipaddress
import time

import psycopg2.extras
import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.dialects.postgresql import Range
from sqlalchemy.dialects.postgresql.ranges import MultiRange
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.pool import NullPool
from support import STUBBORN, scalar, until

SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'counted'"
ROWS = "SELECT i, 'row ' || i AS t FROM generate_series(1, 5) i"


# --- the rows belong to the result ----------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"poolclass": NullPool}], ids=["pool", "NullPool"])
async def test_rows_after_the_connection(engine, options):
    made = engine(**options)
    async with made.connect() as conn:
        result = await conn.execute(sa.text(ROWS))
        one = await conn.execute(sa.text("SELECT 42"))
    await made.dispose()
    assert one.scalar_one() == 42
    assert result.keys() == {"i": 0, "t": 1}.keys()
    assert result.fetchone() == (1, "row 1")
    assert result.fetchmany(2) == [(2, "row 2"), (3, "row 3")]
    assert result.all() == [(4, "row 4"), (5, "row 5")]


async def test_rows_after_a_session(engine):
    made = engine(poolclass=NullPool)
    async with AsyncSession(made) as session:
        result = await session.execute(sa.text("SELECT ARRAY[1.5, 2], now()"))
    numbers, now = result.one()
    assert sum(numbers) == 3.5
    assert isinstance(now, datetime.datetime)


async def test_rows_under_load(engine):
    made = engine()

    async def one(number):
        async with made.connect() as conn:
            result = await conn.execute(sa.text("SELECT CAST(:n AS int)"), {"n": number})
        await asyncio.sleep(0.01)
        return result.scalar_one()

    assert await asyncio.gather(*map(one, range(30))) == list(range(30))


async def test_rows_of_other_cursors(engine):
    """psycopg2 executes for classes that we don't know."""

    class Own(psycopg2.extras.DictCursor):
        pass

    made = engine(poolclass=NullPool, connect_args={"cursor_factory": Own})
    async with made.connect() as conn:
        result = await conn.execute(sa.text(ROWS))
    assert result.fetchone()[1] == "row 1"
    assert len(result.all()) == 4


async def test_a_closed_result_stays_closed(engine):
    async with engine().connect() as conn:
        result = await conn.execute(sa.text(ROWS))
        result.close()
        with pytest.raises(sa.exc.ResourceClosedError):
            result.fetchone()


async def test_an_engine_that_is_dropped(engine, url, loop_errors):
    """Nothing is logged; one warning, as with asyncpg's and psycopg's dialects."""
    made = sa.ext.asyncio.create_async_engine(url)
    async with made.connect() as conn:
        await conn.execute(sa.text("SELECT 1"))
    with pytest.warns() as caught:
        del made, conn
        gc.collect()
        await asyncio.sleep(0)
    assert [(w.category, str(w.message).split(" <")[0]) for w in caught] == [
        (ResourceWarning, "Unclosed connection")
    ]
    assert not loop_errors


async def test_an_invalidated_connection_is_closed(engine, no_gc):
    """What the pool has closed is not reported."""
    async with engine().connect() as conn:
        await conn.execute(sa.text("SELECT 1"))
        await conn.invalidate()
    del conn
    gc.collect()


# --- streaming without a transaction --------------------------------------------------------------


async def test_stream_in_autocommit(engine):
    async with engine(isolation_level="AUTOCOMMIT").connect() as conn:
        rows = []
        result = await conn.stream(sa.text(ROWS))
        async for row in result:
            rows.append(row.i)
        assert rows == [1, 2, 3, 4, 5]
        assert (await conn.execute(sa.text("SELECT count(*) FROM pg_cursors"))).scalar_one() == 0


@pytest.mark.parametrize("level", ["engine", "connection"])
async def test_a_stream_that_is_left_in_autocommit(engine, level):
    """The pool gets the connection back without the cursor."""
    options = {"isolation_level": "AUTOCOMMIT"}
    made = engine(pool_size=1, max_overflow=0, **(options if level == "engine" else {}))
    async with made.connect() as conn:
        if level == "connection":
            await conn.execution_options(**options)
        async for row in await conn.stream(sa.text(ROWS)):
            assert row.i == 1
            break
    async with made.connect() as conn:
        left = await conn.execute(sa.text("SELECT name FROM pg_cursors"))
        assert left.all() == []


# --- the server still works -----------------------------------------------------------------------


async def test_no_more_sessions_than_the_pool_has(engine, side):
    """A query that is given up, and does not stop at once, keeps its place in the pool."""
    side.cursor().execute(STUBBORN)
    made = engine(pool_size=2, max_overflow=0, connect_args={"application_name": "counted"})

    async def use():
        async with made.connect() as conn:
            await asyncio.wait_for(conn.execute(sa.text("SELECT stubborn(0.7)")), 0.05)

    async def client(end):
        while time.monotonic() < end:
            try:
                await use()
            except asyncio.TimeoutError:
                await asyncio.sleep(0)

    clients = [asyncio.create_task(client(time.monotonic() + 1.2)) for _ in range(5)]
    peak = 0
    while not all(task.done() for task in clients):
        peak = max(peak, scalar(side, SESSIONS))
        await asyncio.sleep(0.02)
    await asyncio.gather(*clients)
    assert peak == 2
    await made.dispose()
    await until(lambda: scalar(side, SESSIONS) == 0)


# --- values ---------------------------------------------------------------------------------------


async def test_native_inet_types(engine):
    addresses = {
        "a": ipaddress.ip_address("10.0.0.1"),
        "b": ipaddress.ip_interface("10.0.0.1/8"),
        "c": ipaddress.ip_network("fe80::/10"),
    }
    async with engine(native_inet_types=True).connect() as conn:
        result = await conn.execute(
            sa.text("SELECT :a, :b, :c, ARRAY[:a, :b], ARRAY[:c], NULL::inet"), addresses
        )
        a, b, c, both, nets, nothing = result.one()
        assert {"a": a, "b": b, "c": c} == addresses
        assert both == [a, b]
        assert nets == [c]
        assert nothing is None
        typed = sa.select(sa.literal(addresses["a"], pg.INET), sa.literal(addresses["c"], pg.CIDR))
        assert (await conn.execute(typed)).one() == (a, c)
    async with engine().connect() as conn:
        assert (await conn.execute(sa.text("SELECT '10.0.0.1'::inet"))).scalar() == "10.0.0.1"


RANGES = [
    ("int4range", Range(1, 5)),
    ("int8range", Range(None, 5)),
    ("numrange", Range(1, 5, bounds="[]")),
    ("daterange", Range(datetime.date(2020, 1, 1), datetime.date(2021, 1, 1))),
    ("tsrange", Range(datetime.datetime(2020, 1, 1), None)),
    ("int4range", Range(empty=True)),
]


@pytest.mark.parametrize(("kind", "value"), RANGES)
async def test_ranges_in_texts(engine, kind, value):
    async with engine().connect() as conn:
        found = (
            await conn.execute(sa.text(f"SELECT CAST(:value AS {kind})"), {"value": value})
        ).scalar()
        assert found.isempty == value.empty
        assert (found.lower, found.upper) == (value.lower, value.upper)


MULTIRANGES = [
    (pg.INT4MULTIRANGE, [Range(1, 5), Range(7, 9)]),
    (pg.NUMMULTIRANGE, [Range(1, 5), Range(7, None)]),
    (pg.DATEMULTIRANGE, [Range(datetime.date(2020, 1, 1), datetime.date(2021, 1, 1))]),
    (pg.TSMULTIRANGE, [Range(datetime.datetime(2020, 1, 1), datetime.datetime(2021, 1, 1, 3))]),
    (pg.INT8MULTIRANGE, []),
]


@pytest.mark.parametrize(("kind", "value"), MULTIRANGES)
async def test_multiranges(engine, kind, value):
    made = engine()
    async with made.connect() as conn:
        version = conn.dialect.server_version_info
        if version < (14,):
            pytest.skip("multiranges came with PostgreSQL 14")
        typed = sa.select(sa.cast(sa.literal(MultiRange(value), kind), kind))
        assert (await conn.execute(typed)).scalar() == MultiRange(value)
        typed = sa.select(sa.cast(sa.literal(value, kind), kind), sa.null().cast(kind))
        assert (await conn.execute(typed)).one() == (MultiRange(value), None)
        raw = sa.text(f"SELECT CAST(:value AS {kind.__name__})")
        found = (await conn.execute(raw, {"value": MultiRange(value)})).scalar()
        assert [(one.lower, one.upper) for one in found] == [
            (one.lower, one.upper) for one in value
        ]


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("server_settings", "options"),
        ("command_timeout", "timeout"),
        ("statement_cache_size", "prepared_max"),
        ("prepared_statement_cache_size", "prepared_max"),
        ("prepared_statement_name_func", "nothing"),
        ("ssl", "sslmode"),
    ],
)
async def test_arguments_of_asyncpg(engine, name, instead):
    made = engine(connect_args={name: 1})
    with pytest.raises(sa.exc.ProgrammingError, match=f'"{name}": use {instead}'):
        await made.connect()
