"""Programs and tracers that replace methods, adapters and namedtuples."""

import contextlib
import uuid

import psycopg2
import psycopg2.extensions
import psycopg2.extras
import pytest
from psycopg2.extras import DictCursor, DictRow, NamedTupleCursor
from support import fetch


async def test_cursor_behind_cursor_takes_a_class(impl, connect):
    """Tracers call `_cursor()` with what `cursor()` was given."""
    conn = await connect()
    cursor = await conn._cursor(None, DictCursor)
    await cursor.execute("SELECT 1 AS one")
    assert type(await cursor.fetchone()) is DictRow


async def test_cursor_behind_cursor_takes_a_class_first(ours, connect):
    conn = await connect()
    cursor = await conn._cursor(DictCursor)
    await cursor.execute("SELECT 1 AS one")
    assert type(await cursor.fetchone()) is DictRow


@pytest.mark.parametrize("name", ["cursor", "_cursor"])
async def test_methods_that_tracers_replace(ours, connect, pool, monkeypatch, name):
    """conn.execute() and pool.cursor() pass through them."""
    calls = []
    original = getattr(ours.Connection, name)

    def traced(self, *args, **kwargs):
        calls.append(name)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(ours.Connection, name, traced)
    conn = await connect(enable_hstore=False)
    async with conn.execute("SELECT 1") as cursor:
        assert await cursor.fetchall() == [(1,)]
    assert calls == [name]
    made = await pool(minsize=1, enable_hstore=False)
    async with made.cursor() as cursor:
        await cursor.execute("SELECT 1")
    assert calls == [name, name]


async def test_acquire_is_passed_by_pool_cursor(impl, pool, monkeypatch):
    calls = []
    original = impl.Pool.acquire

    def acquire(self):
        calls.append(self)
        return original(self)

    monkeypatch.setattr(impl.Pool, "acquire", acquire)
    made = await pool(minsize=1)
    with await made.cursor() as cursor:
        await cursor.execute("SELECT 1")
    assert calls == [made]


async def test_cached_make_nt_replaced(impl, connect, monkeypatch):
    """As psycopg2 calls it: on the cursor."""
    seen = []
    original = NamedTupleCursor._do_make_nt

    def make(cursor, key):
        seen.append((isinstance(cursor, NamedTupleCursor), key))
        return original(key)

    monkeypatch.setattr(NamedTupleCursor, "_cached_make_nt", make)
    conn = await connect(cursor_factory=NamedTupleCursor, enable_hstore=False)
    (row,) = await fetch(conn, "SELECT 1 AS one")
    assert row.one == 1
    assert seen == [(True, ("one",))]


@pytest.mark.parametrize("method", ["fetchone", "fetchall"])
async def test_cached_make_nt_fails_once(impl, connect, monkeypatch, method):
    """The rows are gone then, not given in another shape."""
    original = NamedTupleCursor._do_make_nt
    errors = [ZeroDivisionError("once")]

    def make(cursor, key):
        if errors:
            raise errors.pop()
        return original(key)

    monkeypatch.setattr(NamedTupleCursor, "_cached_make_nt", make)
    conn = await connect(cursor_factory=NamedTupleCursor, enable_hstore=False)
    async with conn.cursor() as cur:
        await cur.execute("SELECT n AS one FROM generate_series(1, 2) n")
        with pytest.raises(ZeroDivisionError, match="once"):
            await getattr(cur, method)()
        rest = await cur.fetchall()
        assert [row.one for row in rest] == ([2] if method == "fetchone" else [])


async def test_index_of_dict_rows_replaced(impl, connect, monkeypatch):
    """Rows are given it as any attribute; without this they are filled in a quicker way."""
    kept = {}
    index = property(lambda row: kept[id(row)], lambda row, names: kept.__setitem__(id(row), names))
    conn = await connect(cursor_factory=DictCursor, enable_hstore=False)
    with monkeypatch.context() as patch:
        patch.setattr(DictRow, "_index", index)
        (row,) = await fetch(conn, "SELECT 1 AS one")
        assert kept[id(row)] == {"one": 0}
        assert row["one"] == 1
    (row,) = await fetch(conn, "SELECT 1 AS one")
    assert id(row._index) and row["one"] == 1
    assert len(kept) == 1


@contextlib.contextmanager
def adapters(*classes):
    """The adapters of these classes, as they were afterwards."""
    known = psycopg2.extensions.adapters
    keys = [(cls, psycopg2.extensions.ISQLQuote) for cls in classes]
    before = {key: known.pop(key) for key in keys if key in known}
    try:
        yield known
    finally:
        for key in keys:
            known.pop(key, None)
        known.update(before)


async def test_adapters_of_the_program_stay(ours, connect):
    class Text:
        def __init__(self, value):
            self.value = value

        def getquoted(self):
            return b"'mine'"

    with adapters(dict, uuid.UUID):
        psycopg2.extensions.register_adapter(dict, psycopg2.extras.Json)
        psycopg2.extensions.register_adapter(uuid.UUID, Text)
        conn = await connect()
        assert await fetch(conn, "SELECT %s::text", ({"a": 1},)) == [('{"a": 1}',)]
        assert await fetch(conn, "SELECT %s::text", (uuid.uuid4(),)) == [("mine",)]


async def test_dict_is_an_hstore_where_nobody_chose(impl, connect):
    with adapters(dict, uuid.UUID):
        conn = await connect()
        cursor = await conn.cursor()
        assert b"hstore" in cursor.mogrify("%s", ({"a": "1"},)).lower() or b"=>" in cursor.mogrify(
            "%s", ({"a": "1"},)
        )
