"""Code of the program that runs while we hold C pointers: typecasters, adapters, odd keys.

What must not happen here is a crash; so each test is also worth running with PYTHONMALLOC=debug
and under a sanitizer (docs/memory.md).
"""

from __future__ import annotations

import datetime
import gc
import sys
import weakref

import psycopg2
import psycopg2.extensions
import psycopg2.extras
import pytest
from psycopg2.extensions import AsIs, new_type, register_type
from psycopg2.extras import CompositeCaster
from support import until

import aiopgx
from aiopgx._rows import take
from aiopgx._statements import merged

FACTORIES = [
    None,
    psycopg2.extras.DictCursor,
    psycopg2.extras.RealDictCursor,
    psycopg2.extras.NamedTupleCursor,
]
THREE = "SELECT n AS a, n::text AS b, n * 2 AS c FROM generate_series(1, 3) n"
ALL = [(1, "1", 2), (2, "2", 4), (3, "3", 6)]


def plain(row):
    """The values of a row of any shape."""
    return tuple(row.values()) if isinstance(row, dict) else tuple(row)


async def with_caster(connect, factory, act, sql=THREE):
    """A cursor that has executed; act(cursor, impl) is called for the first text that is cast."""
    conn = await connect()
    cursor = await conn.cursor(cursor_factory=factory)
    acts = [act]

    def cast(value, impl):
        if acts:
            acts.pop()(cursor, impl)
        return value

    register_type(new_type((25,), "acting", cast), cursor._psycopg)
    await cursor.execute(sql)
    return cursor


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize(
    "act",
    [
        lambda cursor, impl: cursor.close(),
        lambda cursor, impl: impl.close(),
        lambda cursor, impl: cursor.connection.close(),
        lambda cursor, impl: impl.connection.close(),
        lambda cursor, impl: impl.execute("SELECT 'another'"),
        lambda cursor, impl: gc.collect(),
    ],
    ids=["close", "impl.close", "connection.close", "raw.close", "execute", "collect"],
)
async def test_caster_ends_its_result(ours, connect, factory, act):
    cursor = await with_caster(connect, factory, act)
    assert [plain(row) for row in await cursor.fetchall()] == ALL


@pytest.mark.parametrize("factory", FACTORIES)
async def test_caster_asks_for_raw(ours, connect, factory):
    def act(cursor, impl):
        with pytest.raises(RuntimeError, match="being fetched"):
            _ = cursor.raw

    cursor = await with_caster(connect, factory, act)
    assert [plain(row) for row in await cursor.fetchall()] == ALL


@pytest.mark.parametrize("factory", FACTORIES)
async def test_caster_moves_its_cursor(ours, connect, factory):
    inner = []
    cursor = await with_caster(connect, factory, lambda c, _: inner.extend(c._result.fetchall()))
    with pytest.raises(psycopg2.ProgrammingError, match="moved the cursor"):
        await cursor.fetchall()
    assert [plain(row) for row in inner] == ALL[1:]


async def test_caster_meets_an_impossible_type(ours, connect, monkeypatch):
    """It is told, and so is who fetches."""
    factory = psycopg2.extras.NamedTupleCursor
    original = factory._do_make_nt
    errors = [ZeroDivisionError("inner"), ZeroDivisionError("outer")]

    def make(cursor, key):
        if errors:
            raise errors.pop()
        return original(key)

    def act(cursor, impl):
        with pytest.raises(ZeroDivisionError, match="inner"):
            cursor._result.fetchmany(0)

    monkeypatch.setattr(factory, "_cached_make_nt", make)
    cursor = await with_caster(connect, factory, act)
    with pytest.raises(ZeroDivisionError):
        await cursor.fetchall()
    assert not errors


async def test_caster_moves_its_cursor_back(ours, connect):
    cursor = await with_caster(connect, None, lambda c, _: c._result.scroll(0, "absolute"))
    assert await cursor.fetchall() == [ALL[0], ALL[0], ALL[1]]
    assert await cursor.fetchone() == ALL[2]


@pytest.mark.parametrize("factory", [None, psycopg2.extras.DictCursor])
async def test_rows_are_not_found_half_empty(ours, connect, factory):
    """By whoever looks through the collector's objects, as memory profilers do."""
    found = []

    def zone(offset):
        found.extend(o for o in gc.get_objects() if type(o) is list and len(o) == 777)
        return datetime.timezone.utc

    conn = await connect()
    cursor = await conn.cursor(cursor_factory=factory)
    cursor.tzinfo_factory = zone
    await cursor.execute("SELECT CASE n WHEN 7 THEN now() END FROM generate_series(1, 777) n")
    rows = await cursor.fetchall()
    assert len(rows) == 777
    assert not found
    assert gc.is_tracked(rows)


@pytest.mark.parametrize("factory", FACTORIES[1:])
@pytest.mark.parametrize("many", [False, True])
async def test_no_row_is_found_half_empty(ours, connect, factory, many):
    """Nor is one left that could not be finished."""
    looks = []
    conn = await connect()
    cursor = await conn.cursor(cursor_factory=factory)

    def zone(offset):
        found = [o for o in gc.get_objects() if type(o).__name__ in ("DictRow", "Record")]
        looks.append([plain(row) for row in found])  # which crashes where a value is missing
        if len(looks) == 3:
            raise ZeroDivisionError
        return datetime.timezone.utc

    cursor.tzinfo_factory = zone
    await cursor.execute("SELECT n AS number, n + 1000 AS more, now() FROM generate_series(1, 5) n")
    rows = []
    with pytest.raises(ZeroDivisionError):
        if many:
            await cursor.fetchmany(3)
        while True:
            rows.append(await cursor.fetchone())
    assert len(looks) == 3
    assert [plain(row)[:2] for row in rows] == ([] if many else [(1, 1001), (2, 1002)])
    assert plain(await cursor.fetchone())[:2] == (4, 1004)


async def test_collection_moves_the_cursor(ours, connect):
    """Before Python 3.12 each new object may be the one that makes the collector run."""

    class Scrolling:
        def __init__(self, result):
            self.me, self.result = self, result

        def __del__(self):
            self.result.scroll(999, "absolute")

    conn = await connect()
    cursor = await conn.cursor()
    kept = []  # so that no free list has a list or tuple left
    before = gc.get_threshold()
    for more in range(4):
        await cursor.execute("SELECT n, n::text FROM generate_series(0, 999) n")
        gc.collect()
        gc.set_threshold(1_000_000)
        try:
            fetch = cursor._result.fetchall
            Scrolling(cursor._result)
            kept.append([(n, n) for n in range(2100)])
            kept.append([[] for _ in range(100)])
            gc.set_threshold(gc.get_count()[0] + more)
            rows = fetch()
        finally:
            gc.set_threshold(*before)
        assert rows in ([(n, str(n)) for n in range(1000)], [(999, "999")])
        gc.collect()


async def test_failing_caster_leaves_nothing(ours, connect):
    class Value:
        pass

    made = weakref.WeakSet()

    def cast(value, impl):
        if value == "3":
            raise ValueError("three")
        made.add(item := Value())
        return item

    conn = await connect()
    cursor = await conn.cursor()
    register_type(new_type((25,), "failing", cast), cursor._psycopg)
    await cursor.execute(THREE)
    with pytest.raises(ValueError, match="three"):
        await cursor.fetchall()
    gc.collect()
    assert not made


@pytest.mark.parametrize("closed", ["raw", "connection"])
async def test_adapter_closes_the_connection(ours, connect, closed):
    conn = await connect()

    class Closing:
        def __conform__(self, protocol):
            (conn.raw if closed == "raw" else conn).close()
            return AsIs("1")

    cursor = await conn.cursor()
    with pytest.raises(psycopg2.InterfaceError):
        await cursor.execute("SELECT %s", (Closing(),))
    await until(lambda: conn.closed)


async def test_part_caster_that_knows_its_cursor(ours, connect):
    """What a Result holds for parts of values the collector must see, too."""
    conn = await connect()
    cursor = await conn.cursor()

    class Knowing:
        known = cursor

        def __call__(self, value, impl):
            return value

    knowing = Knowing()
    register_type(new_type((25,), "part", knowing), cursor._psycopg)
    pair = CompositeCaster("pair", 2249, [("a", 25), ("b", 25)])
    register_type(pair.typecaster, cursor._psycopg)
    await cursor.execute("SELECT ('a', 'b')")
    assert await cursor.fetchall() == [(("a", "b"),)]
    alive = weakref.ref(knowing)
    del cursor, knowing, Knowing
    gc.collect()
    assert alive() is None


class Key(str):
    """A key whose comparison runs Python."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other):
        merged("SELECT %s", ("another text " * 1000,))
        return str.__eq__(self, other)


def test_merge_within_merge():
    """There is one buffer for the process."""
    parameters = {Key("a"): 1, Key("b"): "two"}
    # the texts of placeholders are other strings, so that the keys are compared
    sql = "SELECT %({})s, %({})s".format("".join(["a"]), "".join(["b"]))
    assert merged(sql, parameters) in (b"SELECT 1, 'two'", None)


def test_merge_shrinks_the_list_it_reads():
    values: list[object] = ["x"] * 10
    assert merged("SELECT " + ", ".join(["%s"] * 10), values) == (
        b"SELECT " + b", ".join([b"'x'"] * 10)
    )


def test_long_texts_are_left_to_psycopg2():
    """What merge() has needed once it keeps."""
    sql = "SELECT " + ", ".join(["%s"] * 200)
    assert merged(sql, ("x" * 20000,) * 200) is None
    assert merged(sql, ("x" * 100,) * 200) is not None


async def test_parameters_are_released(ours, connect):
    values = [10**15, "text " + str(id(connect)), 1.25, [object]]
    before = [sys.getrefcount(value) for value in values]
    for _ in range(100):
        merged("%s %s %s", values[:3])
        merged("%(a)s %(b)s", {"a": values[0], "b": values[1]})
        merged("%(a)s %(b)s", {"a": values[0]})
        merged("%(a)s %(b)s", {"a": values[3], "b": values[1]})
        merged("%s %s", values)
    assert [sys.getrefcount(value) for value in values] == before


async def test_rows_outlive_everything(ours, connect):
    conn = await connect()
    cursor = await conn.cursor(cursor_factory=aiopgx.DictCursor)
    await cursor.execute(THREE)
    row = await cursor.fetchone()
    result = cursor._result
    conn.close()
    del cursor, conn
    gc.collect()
    assert result.description[1].name == "b"
    assert result.statusmessage == "SELECT 3"
    with pytest.raises(psycopg2.InterfaceError):
        result.fetchone()
    assert row["c"] == 2


async def test_taken_result(ours, side):
    cursor = side.cursor()
    cursor.execute(THREE)
    rows = take(cursor)
    with pytest.raises(psycopg2.ProgrammingError):
        take(cursor)
    assert rows.fetchall() == ALL
