"""Tracebacks: the program's frames, the method of aiopgx that it called, and nothing else of ours.

Behind that method come only functions of the program's own, such as casters. A method written in
terms of another has the frames of both; psycopg2's road has a helper between.
"""

import asyncio
import traceback

import psycopg2
import psycopg2.extensions
import psycopg2.extras
import pytest
from support import activity, underway, until

HELPERS = ["_execute_foreign", "_refuse_nul"]  # of psycopg2's road
LATE = """CREATE TEMP TABLE late (i int, UNIQUE (i) DEFERRABLE INITIALLY DEFERRED);
    INSERT INTO late VALUES (1), (1)"""


class Stubborn:
    def __conform__(self, protocol):
        raise LookupError("no adapter today")


def cast(value, cursor):
    raise ArithmeticError("no such value")


def shown(error):
    """The names of the functions behind the test's own frame; ours are checked to be Python."""
    frames = traceback.extract_tb(error.__traceback__)
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    assert ".pyx" not in text
    assert "asyncio" not in " ".join(frame.filename for frame in frames)
    names = [frame.name for frame in frames]
    assert names[0] == "names_of"
    return [name for name in names[1:] if name not in HELPERS]


async def names_of(method, *args, **kwargs):
    """The functions in the traceback of what awaiting method(*args) raises."""
    try:
        await method(*args, **kwargs)
    except (Exception, asyncio.CancelledError) as error:
        return shown(error)
    raise AssertionError("nothing was raised")


ON_A_CURSOR = {
    "server": ("execute", "SELECT 1/0"),
    "syntax": ("execute", "SELEC 1"),
    "in a function": ("execute", "DO $$ BEGIN PERFORM 1/0; END $$"),
    "empty": ("execute", ""),
    "another type": ("execute", 5),
    "too few": ("execute", "SELECT %s", ()),
    "too many": ("execute", "SELECT %s", (1, 2)),
    "no mapping": ("execute", "SELECT %(a)s", (1,)),
    "no adapter": ("execute", "SELECT %s", (object(),)),
    "surrogate": ("execute", "SELECT %s", ("\udc80",)),
    "NUL in the text": ("execute", "SELECT \0"),
    "NUL in a parameter": ("execute", "SELECT %s", ("\0",)),
    "COPY": ("execute", "COPY (SELECT 1) TO STDOUT"),
    "no such function": ("callproc", "no_such_function"),
    "no sequence": ("callproc", "abs", 5),
    "no results, one": ("fetchone",),
    "no results, many": ("fetchmany", 2),
    "no results, all": ("fetchall",),
    "no results, iterated": ("__anext__",),
    "scroll": ("scroll", 1),
    "scroll mode": ("scroll", 0, "up"),
    "scroll by a text": ("scroll", "one"),
    "nextset": ("nextset",),
}


@pytest.mark.parametrize(("method", "args"), [(m, a) for m, *a in ON_A_CURSOR.values()])
async def test_method_of_a_cursor(ours, connect, method, args):
    cursor = await (await connect()).cursor()
    assert await names_of(getattr(cursor, method), *args) == [method]


@pytest.mark.parametrize("method", ["execute", "callproc"])
async def test_adapter(ours, connect, method):
    cursor = await (await connect()).cursor()
    text = {"execute": "SELECT %s", "callproc": "abs"}[method]
    assert await names_of(getattr(cursor, method), text, [Stubborn()]) == [method, "__conform__"]


async def test_executemany(ours, connect):
    cursor = await (await connect()).cursor()
    sets = [(1,), (0,)]
    names = await names_of(cursor.executemany, "SELECT 1/%s", sets)
    assert names in (["executemany"], ["executemany", "execute"])
    sets = [(1,), (Stubborn(),)]
    names = await names_of(cursor.executemany, "SELECT %s", sets)
    assert names in (["executemany", "__conform__"], ["executemany", "execute", "__conform__"])


async def test_stream(ours, connect):
    cursor = await (await connect()).cursor()
    for statement in ["SELECT 1/0", "SELEC 1", ""]:
        names = await names_of(cursor.stream(statement).__anext__)
        assert [name for name in names if name != "execute"] == ["__anext__"]
    names = await names_of(cursor.stream("SELECT %s", (Stubborn(),)).__anext__)
    assert [name for name in names if name != "execute"] == ["__anext__", "__conform__"]


@pytest.mark.parametrize("method", ["fetchone", "fetchmany", "fetchall", "__anext__"])
async def test_pipeline(ours, connect, method):
    conn = await connect()
    cursor = await conn.cursor()
    async with conn.pipeline() as pipeline:
        await cursor.execute("SELECT 1/0")
        names = await names_of(getattr(cursor, method))
        assert names[0] == method and set(names) <= {method, "fetchone", "_arrive"}
        await cursor.execute("SELECT 1/0")
        assert await names_of(pipeline.sync) == ["sync"]
        names = await names_of(cursor.execute, "SELECT %s", (Stubborn(),))
        assert [name for name in names if name != "_execute_piped"] == ["execute", "__conform__"]


async def test_copy(ours, connect):
    cursor = await (await connect()).cursor()
    names = await names_of(cursor.copy_from, [], 5)
    assert names == ["copy_from", "copy_from"]

    def failing(data):
        raise ZeroDivisionError

    names = await names_of(cursor.copy_expert, "COPY (SELECT 1) TO STDOUT", failing)
    assert names == ["copy_expert", "copy_expert", "perform", "converse", "failing"]


FETCHES = ["fetchone", "fetchmany", "fetchall", "__anext__"]


@pytest.mark.parametrize("method", FETCHES)
@pytest.mark.parametrize("row", ["cursor", "DictCursor", "RealDictCursor", "NamedTupleCursor"])
async def test_caster(ours, connect, row, method):
    """psycopg2.extras' cursors fetch in Python where psycopg2 does it: then theirs are there."""
    conn = await connect()
    cursor = await conn.cursor(cursor_factory=getattr(psycopg2.extras, row, None))
    caster = psycopg2.extensions.new_type((23,), "FAILING", cast)
    psycopg2.extensions.register_type(caster, cursor._psycopg)
    await cursor.execute("SELECT 1")
    names = await names_of(getattr(cursor, method))
    assert (names[0], names[-1]) == (method, "cast")
    if ours.capabilities().native:
        assert len(names) == 2


@pytest.mark.parametrize("method", FETCHES)
async def test_value_that_python_has_not(ours, connect, method):
    cursor = await (await connect()).cursor()
    await cursor.execute("SELECT '0044-03-15 BC'::date")
    assert await names_of(getattr(cursor, method)) == [method]


async def test_two_at_a_time(ours, connect):
    conn = await connect()
    cursor, other = await conn.cursor(), await conn.cursor()
    first = await underway(conn, cursor.execute("SELECT pg_sleep(0.05)"))
    assert await names_of(other.execute, "SELECT 1") == ["execute"]
    assert await names_of(other.callproc, "abs") == ["callproc"]
    await first


async def test_timeouts(ours, connect):
    cursor = await (await connect()).cursor()
    assert await names_of(cursor.execute, "SELECT 1", timeout="x") == ["execute"]
    assert await names_of(cursor.execute, "SELECT pg_sleep(9)", timeout=0.01) == ["execute"]
    assert await names_of(cursor.execute, "SELECT 1") == ["execute"]  # it is closed
    assert await names_of(cursor.fetchone) == ["fetchone"]


async def test_cancelled(ours, connect):
    conn = await connect()
    cursor = await conn.cursor()
    task = await underway(conn, names_of(cursor.execute, "SELECT pg_sleep(9)"))
    task.cancel()
    assert await task == ["execute"]


async def test_lost_connection(ours, connect, side):
    conn = await connect()
    cursor = await conn.cursor()
    pid = await conn.get_backend_pid()
    task = asyncio.create_task(names_of(cursor.execute, "SELECT pg_sleep(9)"))
    await until(lambda: "pg_sleep" in activity(side, pid)[1])
    with side.cursor() as look:
        look.execute("SELECT pg_terminate_backend(%s)", (pid,))
    assert await task == ["execute"]
    assert await names_of(cursor.execute, "SELECT 1") == ["execute"]


@pytest.mark.parametrize("method", ["commit", "rollback", "set_session", "lobject"])
async def test_method_of_a_connection(ours, connect, method):
    assert await names_of(getattr(await connect(), method)) == [method]


async def test_transactions(ours, connect):
    async def block(sql):
        async with cursor.begin():
            await cursor.execute(sql)

    cursor = await (await connect()).cursor()
    assert await names_of(block, "SELECT 1/0") == ["block", "execute"]
    names = await names_of(block, LATE)
    assert (names[0], names[-2:]) == ("block", ["commit", "execute"])


async def test_commit(ours, connect):
    cursor = await (await connect()).cursor()
    transaction = await cursor.begin()
    await cursor.execute(LATE)
    assert await names_of(transaction.commit) == ["commit", "execute"]
    await transaction.rollback()


@pytest.mark.parametrize("way", ["connect", "create_pool", "async with", "acquire"])
async def test_connections_that_fail(ours, dsn, way):
    """Python functions of ours only, not those of a task that connects for a pool."""

    async def block():
        async with ours.connect(dsn, dbname="no_such_database"):
            pass

    if way == "async with":
        names = await names_of(block)
        assert names.pop(0) == "block"
    elif way == "acquire":
        made = ours.create_pool(dsn, minsize=0, maxsize=1)
        async with made as pool, pool.acquire():
            pool._timeout = 0.05
            names = await names_of(pool.acquire)
    else:
        names = await names_of(getattr(ours, way), dsn, dbname="no_such_database")
    assert 1 <= len(names) <= 4
