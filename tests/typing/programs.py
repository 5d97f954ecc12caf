"""What type checkers make of users' programs: checked by `make types`, never run."""

from dataclasses import dataclass
from typing import Any

import psycopg2.extras
from typing_extensions import assert_type

import aiopgx
from aiopgx import rows
from aiopgx.shared import SharedCursor


@dataclass
class Point:
    x: int
    y: int


async def cursors(conn: aiopgx.Connection) -> None:
    async with conn.cursor() as cur:
        assert_type(cur, aiopgx.Cursor[Any])
        await cur.execute("SELECT 1")
        (number,) = (await cur.fetchall())[0]
        print(number + 1)
    async with conn.cursor(row_factory=rows.dict_row) as dicts:
        assert_type(dicts, aiopgx.Cursor[dict[str, Any]])
        assert_type(await dicts.fetchone(), dict[str, Any] | None)
        assert_type(await dicts.fetchmany(2), list[dict[str, Any]])
        assert_type(await dicts.fetchall(), list[dict[str, Any]])
        async for row in dicts:
            assert_type(row, dict[str, Any])
        async for row in dicts.stream("SELECT 1 AS a"):
            assert_type(row, dict[str, Any])
    async with conn.cursor(row_factory=rows.tuple_row) as tuples:
        assert_type(tuples, aiopgx.Cursor[tuple[Any, ...]])
    async with conn.cursor("name", row_factory=rows.class_row(Point)) as points:
        assert_type(points, aiopgx.NamedCursor[Point])
        assert_type(await points.fetchone(), Point | None)
    async with conn.cursor(cursor_factory=psycopg2.extras.DictCursor) as any_rows:
        assert_type(any_rows, aiopgx.Cursor[Any])
    async with conn.execute("SELECT 1", row_factory=rows.class_row(Point)) as points:
        assert_type(await points.fetchall(), list[Point])
    cur = await conn.cursor(psycopg2.extras.DictCursor)
    assert_type(cur, aiopgx.Cursor[Any])


async def connections() -> None:
    async with aiopgx.connect("", row_factory=rows.dict_row) as conn:
        assert_type(conn, aiopgx.Connection[dict[str, Any]])
        async with conn.cursor() as cur:
            assert_type(cur, aiopgx.Cursor[dict[str, Any]])
        async with conn.execute("SELECT 1") as cur:
            assert_type(await cur.fetchone(), dict[str, Any] | None)
        await cursors(conn)
    async with aiopgx.connect("", cursor_factory=psycopg2.extras.DictCursor) as conn2:
        assert_type(conn2, aiopgx.Connection[Any])


def points(cursor: aiopgx.Cursor) -> rows.RowMaker[Point]:
    names = [column.name for column in cursor.description or ()]
    return lambda values: Point(**dict(zip(names, values, strict=True)))


async def factories(conn: aiopgx.Connection, pool: aiopgx.Pool) -> None:
    cur = await conn.cursor(row_factory=points)
    assert_type(await cur.fetchone(), Point | None)
    cur.row_factory = points
    async with pool.cursor(row_factory=rows.scalar_row) as scalars:
        await scalars.execute("SELECT 1")
    async with pool.acquire() as conn:
        assert_type(conn.notifies.empty(), bool)
        print((await conn.notifies.get()).payload)


class Traced(aiopgx.Cursor):
    async def execute(self, *args: Any, **kwargs: Any) -> None:
        await super().execute(*args, **kwargs)


class Points(aiopgx.Cursor[Point]):
    pass


async def sqlalchemy(dsn: str) -> None:
    from aiopgx.sa import create_engine
    from aiopgx.sa.result import ResultProxy, RowProxy

    async with create_engine(dsn) as engine, engine.acquire() as conn:
        async for row in conn.execute("SELECT 1 AS a"):
            assert_type(row, RowProxy)
            print(row.a, row[0], row["a"])
        result = await conn.execute("SELECT 1 AS a")
        assert_type(result, ResultProxy)
        assert_type(await result.fetchone(), RowProxy | None)


async def pools(dsn: str, old: aiopgx.Pool) -> None:
    async with aiopgx.create_pool(dsn, row_factory=rows.dict_row) as pool:
        assert_type(pool, aiopgx.Pool[dict[str, Any]])
        async with pool.acquire() as conn, conn.cursor() as cur:
            assert_type(await cur.fetchone(), dict[str, Any] | None)
        async with pool.cursor() as cur:
            assert_type(await cur.fetchall(), list[dict[str, Any]])
        with await pool as conn:
            assert_type(conn, aiopgx.Connection[dict[str, Any]])
        async with pool.execute("SELECT 1 AS a") as result:
            assert_type(await result.fetchone(), dict[str, Any] | None)
        result = await pool.execute("SELECT 1 AS a")
        assert_type(await pool.execute("", row_factory=points), SharedCursor[Point])
        assert_type(
            await pool.execute("", cursor_factory=psycopg2.extras.DictCursor), SharedCursor[Any]
        )
        async with pool.cursor(row_factory=points) as other:
            assert_type(await other.fetchone(), Point | None)
        async with pool.cursor(cursor_factory=psycopg2.extras.DictCursor) as any_rows:
            assert_type(any_rows, aiopgx.Cursor[Any])
    async with aiopgx.create_pool(dsn, maxsize=2) as plain:
        assert_type(plain, aiopgx.Pool[Any])
        await pools(dsn, plain)
    kept: aiopgx.Pool = await aiopgx.create_pool(dsn)
    assert_type(await kept.execute("SELECT 1"), SharedCursor[Any])
    assert_type(await old.execute("SELECT 1"), SharedCursor[Any])


class OwnPool(aiopgx.Pool):
    def acquire(self, *, timeout: float | None = None) -> Any:
        return super().acquire(timeout=timeout)
