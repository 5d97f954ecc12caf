"""Server-side cursors: what psycopg2's named cursors do, step by step, on every road."""

import contextlib
import inspect

import psycopg2
import psycopg2.extensions
import psycopg2.extras
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg2 import sql
from roads import attributes, portrait, portrait_of_error, settle, unknown

FACTORIES = {
    "tuple": psycopg2.extensions.cursor,
    "DictRow": psycopg2.extras.DictCursor,
    "RealDictRow": psycopg2.extras.RealDictCursor,
    "namedtuple": psycopg2.extras.NamedTupleCursor,
}
COUNT = "SELECT n, 'row ' || n AS text FROM generate_series(1, %s) AS n"


async def named(road, name="portal", factory=psycopg2.extensions.cursor, **kwargs):
    """A named cursor of a road."""
    if road.name == "psycopg2":
        return road.raw.cursor(name, cursor_factory=factory, **kwargs)
    if road.name == "foreign":
        factory = unknown(factory)
    return await road.conn.cursor(name, factory, **kwargs)


async def run(road, statement):
    """A statement on another cursor; the first row if there is one."""
    cursor, _ = await road.cursor()
    await settle(cursor.execute(statement))
    return await settle(cursor.fetchone()) if cursor.description else None


@contextlib.asynccontextmanager
async def transaction(road):
    """psycopg2 allows named cursors without hold only if it opens the transaction itself."""
    if road.name == "psycopg2":
        road.raw.autocommit = False
    else:
        await run(road, "BEGIN")
    try:
        yield
    finally:
        await end(road, "rollback")
        if road.name == "psycopg2":
            road.raw.autocommit = True


async def end(road, how):
    """Commit, or roll back."""
    if road.name == "psycopg2":
        getattr(road.raw, how)()
    else:
        await run(road, how)


async def take(cursor, step):
    """What a step gives: (method, arguments), "next", (attribute, "=", value)."""
    try:
        if step == "next":
            if hasattr(cursor, "__anext__"):
                return portrait(await anext(cursor, "end"))
            return portrait(next(iter(cursor), "end"))
        if "=" in step:
            setattr(cursor, step[0], step[2])
            return portrait(getattr(cursor, step[0]))
        method, *arguments = step
        value = getattr(cursor, method)(*arguments)
        return portrait(await value if inspect.isawaitable(value) else value)
    except Exception as error:
        return portrait_of_error(error)


def same_steps(roads, *steps, open_transaction=True, **kwargs):
    """Take the steps on a named cursor of each road, comparing all that can be seen after each."""

    async def walk(road):
        seen = []
        async with transaction(road) if open_transaction else contextlib.nullcontext():
            cursor = await named(road, **kwargs)
            for step in steps:
                seen += [(step, await take(cursor, step)), attributes(cursor)]
            seen.append((cursor.name, cursor.scrollable, cursor.withhold, cursor.arraysize))
            with contextlib.suppress(psycopg2.Error):
                await settle(cursor.close())
        return seen

    return roads.alike(walk)


# --- against psycopg2 -----------------------------------------------------------------------------

DECLARED = ("execute", COUNT, (10,))
WALKS = {
    "nothing": [],
    "declared": [DECLARED],
    "one": [DECLARED, ("fetchone",), ("fetchone",), "next", ("fetchone",)],
    "many": [DECLARED, ("fetchmany",), ("fetchmany", 3), ("fetchmany", None), ("fetchmany", 99)],
    "many, odd sizes": [DECLARED, *(("fetchmany", n) for n in (0, 2, 0, -1, -99))],
    "arraysize": [DECLARED, ("arraysize", "=", 4), ("fetchmany",), ("fetchmany",)],
    "arraysize 0": [DECLARED, ("arraysize", "=", 0), ("fetchmany",), ("fetchone",)],
    "sizes that are none": [
        DECLARED,
        *(("fetchmany", n) for n in ("a", 1.5, b"1", 2**70)),
        *((name, "=", n) for name in ("arraysize", "itersize") for n in ("a", None, 1.5, 2**70)),
    ],
    "all": [DECLARED, ("fetchall",), ("fetchall",), ("fetchone",), ("fetchmany", 2), "next"],
    "the rest": [DECLARED, ("fetchone",), ("fetchall",)],
    "iteration": [DECLARED, ("itersize", "=", 4), *["next"] * 12],
    "itersize 1": [DECLARED, ("itersize", "=", 1), *["next"] * 11],
    "itersize 0": [DECLARED, ("itersize", "=", 0), "next"],
    "itersize -1": [DECLARED, ("fetchone",), ("fetchone",), ("itersize", "=", -1), "next", "next"],
    "itersize of 64 bits": [DECLARED, ("itersize", "=", 2**40), "next"],
    "a fetch in an iteration": [DECLARED, ("itersize", "=", 3), "next", ("fetchone",), "next"],
    "a scroll in an iteration": [DECLARED, ("itersize", "=", 3), "next", ("scroll", 1), "next"],
    "scroll": [DECLARED, ("scroll", 3), ("fetchone",), ("scroll", 99), ("fetchone",)],
    "scroll absolute": [DECLARED, ("scroll", 3, "absolute"), ("fetchone",), "next"],
    "scroll 0": [DECLARED, ("scroll", 0), ("fetchone",), ("scroll", 0), ("fetchone",)],
    "scroll backwards": [DECLARED, ("fetchall",), ("scroll", -3), ("fetchall",), ("scroll", -99)],
    "scroll in a mode of no name": [DECLARED, ("scroll", 2, "nowhere"), ("fetchone",)],
    "scroll without sense": [
        DECLARED,
        *(("scroll", n) for n in ("a", 1.0, None, 2**31, -(2**31) - 1, 2**70)),
        *(("scroll", 1, mode) for mode in (None, b"absolute", 5, "a\0", "\udc80")),
        ("fetchone",),
    ],
    "scroll before execute": [("scroll", 1)],
    "fetch before execute": [("fetchone",)],
    "iteration before execute": ["next"],
    "twice": [DECLARED, DECLARED, ("fetchone",)],
    "after an error": [("execute", "SELECT 1/0"), ("fetchone",), ("execute", "SELECT 1")],
    "after a refusal": [("execute", ""), ("execute", "SELECT %s", ()), DECLARED, ("fetchone",)],
    "after what can't be adapted": [("execute", "SELECT %s", (object(),)), DECLARED, "next"],
    "a syntax error": [("execute", "SELEC"), DECLARED],
    "no query": [("execute", "CREATE TABLE made ()")],
    "an empty composable": [("execute", sql.SQL(""))],
    "a composable": [("execute", sql.SQL("SELECT {}").format(sql.Literal("x"))), ("fetchall",)],
    "bytes": [("execute", b"SELECT %s", [1]), ("fetchall",)],
    "an error in a row": [("execute", "SELECT 1 / (3 - n) FROM generate_series(1, 5) n"),
                          ("fetchone",), ("fetchone",), ("fetchone",), ("fetchone",)],
    "several statements": [("execute", "SELECT 1; SELECT 2"), ("fetchone",)],
    "no columns": [("execute", "SELECT"), ("fetchone",), ("fetchall",), "next"],
    "no rows": [("execute", "SELECT 1 AS a WHERE false"), "next", ("fetchall",), ("fetchone",)],
    "other methods": [DECLARED, ("executemany", "SELECT 1", [()]), ("callproc", "abs", [1]),
                      ("nextset",), ("mogrify", "SELECT %s", ("x",)), ("fetchone",)],
    "setters": [("scrollable", "=", True), ("withhold", "=", 1), DECLARED, ("scrollable", "=", 0),
                ("withhold", "=", False), ("fetchone",), ("scrollable", "=", None)],
}  # fmt: skip
CLOSED = [("fetchone",), ("fetchmany", 1), ("fetchall",), ("scroll", 1), "next", DECLARED,
          ("executemany", "SELECT 1", [()]), ("callproc", "abs", [1])]  # fmt: skip


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize("walk", WALKS)
def test_as_psycopg2(roads, walk, factory):
    same_steps(roads, *WALKS[walk], factory=FACTORIES[factory])


@pytest.mark.parametrize("scrollable", [None, False, True])
@pytest.mark.parametrize("withhold", [False, True])
def test_kinds(roads, scrollable, withhold):
    steps = [DECLARED, ("fetchmany", 2), ("scroll", -1), ("fetchone",), "next"]
    same_steps(roads, *steps, scrollable=scrollable, withhold=withhold)


STEPS = st.one_of(
    st.sampled_from(["next", ("fetchone",), ("fetchall",), ("fetchmany",)]),
    st.tuples(st.just("fetchmany"), st.integers(-4, 6)),
    st.tuples(st.just("scroll"), st.integers(-6, 6)),
    st.tuples(st.just("scroll"), st.integers(-3, 12), st.just("absolute")),
    st.tuples(st.just("itersize"), st.just("="), st.integers(1, 5)),
)


@given(st.lists(STEPS, max_size=12), st.sampled_from([None, True, False]), st.booleans())
def test_any_steps(open_roads, steps, scrollable, withhold):
    same_steps(
        open_roads,
        DECLARED,
        *steps,
        scrollable=scrollable,
        withhold=withhold,
        open_transaction=not withhold,
    )


def test_closed(roads):
    """All but the attributes, where psycopg2's tell of its CLOSE."""

    async def walk(road):
        async with transaction(road):
            seen = []
            cursor = await named(road)
            await settle(cursor.execute(*DECLARED[1:]))
            await settle(cursor.close())
            seen.append(cursor.closed)
            for step in CLOSED:
                seen.append((step, await take(cursor, step)))
            unused = await named(road)
            await settle(unused.close())
            for step in CLOSED:
                seen.append((step, await take(unused, step)))
        return seen

    roads.alike(walk)


@pytest.mark.parametrize("how", ["commit", "rollback"])
def test_after_the_transaction(roads, how):
    async def walk(road):
        seen = []
        async with transaction(road):
            cursor = await named(road)
            await settle(cursor.execute(*DECLARED[1:]))
            await settle(cursor.fetchone())
            await end(road, how)
            await run(road, "SELECT 1")
            if road.name != "psycopg2":
                await run(road, "BEGIN")
            for step in ("fetchone",), ("fetchmany", 2), ("fetchall",), ("scroll", 1), "next":
                seen.append((step, await take(cursor, step)))
            seen.append(await run(road, "SELECT 2"))  # it has not been aborted
        return seen

    roads.alike(walk)


@pytest.mark.parametrize("before", ["nothing", "a failed DECLARE", "a failed fetch"])
def test_not_declared_in_an_earlier_transaction(roads, before):
    """A fetch is refused here: the next transaction goes on."""

    async def walk(road):
        seen = []
        async with transaction(road):
            await run(road, "SELECT 1")
            cursor = await named(road)
            if before == "a failed DECLARE":
                seen.append(await take(cursor, ("execute", "SELEC")))
            elif before == "a failed fetch":
                seen.append(await take(cursor, ("fetchone",)))
            await end(road, "rollback")
            if road.name != "psycopg2":
                await run(road, "BEGIN")
            await run(road, "SELECT 1")
            for step in ("fetchone",), ("fetchmany", 2), ("fetchall",), ("scroll", 1), "next":
                seen.append((step, await take(cursor, step)))
            seen.append(await run(road, "SELECT 2"))
        return seen

    roads.alike(walk)


@pytest.mark.parametrize("factory", FACTORIES)
def test_withhold_outlives_its_transaction(roads, factory):
    async def walk(road):
        seen = []
        async with transaction(road):
            cursor = await named(road, factory=FACTORIES[factory], withhold=True)
            await settle(cursor.execute(*DECLARED[1:]))
            for step in "next", ("fetchone",):
                seen.append((step, await take(cursor, step)))
            await end(road, "commit")
            for step in ("fetchone",), ("scroll", 1), ("fetchall",):
                seen += [(step, await take(cursor, step)), attributes(cursor)]
            await settle(cursor.close())
        seen.append(await run(road, "SELECT count(*) FROM pg_cursors"))
        return seen

    roads.alike(walk)


def test_a_portal_that_somebody_else_has_opened(roads):
    """A function gives the name of its cursor."""
    roads.prepare(
        "CREATE OR REPLACE FUNCTION opens(refcursor) RETURNS refcursor LANGUAGE plpgsql AS "
        "$$ BEGIN OPEN $1 FOR SELECT generate_series(1, 5) AS n; RETURN $1; END $$"
    )

    async def walk(road):
        seen = []
        async with transaction(road):
            for close_at_once in False, True:
                seen.append(await run(road, "SELECT opens('its name')"))
                cursor = await named(road, "its name")
                if not close_at_once:
                    for step in ("fetchone",), "next", ("scroll", 1), ("fetchone",):
                        seen += [(step, await take(cursor, step)), attributes(cursor)]
                await settle(cursor.close())
                seen.append(await run(road, "SELECT name FROM pg_cursors WHERE name = 'its name'"))
        return seen

    roads.alike(walk)


# --- names ----------------------------------------------------------------------------------------

NAMES = ["x", "X y", 'quo"ted""', "sin'gle", "back\\slash", "é €", "%s %(a)s %", ";DROP", b"bytes",
         "", " ", "x" * 63, "x" * 70, "é" * 50, "\n", "\U0001f600", "select"]  # fmt: skip
NO_NAMES = ["\udc80", 5, object, ["a"], b"\xff", True]


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_names(roads, name):
    steps = [DECLARED, ("fetchone",), "next", ("scroll", 1), ("fetchall",)]
    same_steps(roads, *steps, name=name)
    same_steps(roads, *steps, name=name, withhold=True, open_transaction=False)
    assert roads.same("SELECT name FROM pg_cursors").rows == []  # closed by that name, too


@pytest.mark.parametrize("name", NO_NAMES[:2] + NO_NAMES[3:], ids=repr)
def test_names_that_are_none(roads, name):
    async def walk(road):
        try:
            cursor = await named(road, name)
        except Exception as error:
            return portrait_of_error(error)
        return portrait(cursor.name)

    roads.alike(walk)


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII", "SJIS", "EUC_JP", "UTF8"])
@pytest.mark.parametrize("name", ["x", "é", "あ\\", 'あ"'])
def test_names_in_other_encodings(roads, encoding, name):
    roads.prepare(f"SET client_encoding TO {encoding}")

    async def walk(road):
        async with transaction(road):
            try:
                cursor = await named(road, name)
            except Exception as error:
                return portrait_of_error(error)
            seen = []
            for step in ("execute", "SELECT 1"), ("fetchone",):
                seen += [(step, await take(cursor, step)), attributes(cursor)]
            with contextlib.suppress(psycopg2.Error):  # psycopg2 in an aborted transaction
                await settle(cursor.close())
                seen.append(await run(road, "SELECT count(*) FROM pg_cursors"))
            return seen

    try:
        roads.alike(walk)
    finally:
        roads.prepare("RESET client_encoding")


@pytest.mark.parametrize("name", ["a\0b", "\0", b"a\0b"])
async def test_nul_in_a_name(ours, connect, name):
    """psycopg2 cuts it off there."""
    conn = await connect()
    with pytest.raises(ValueError, match="the name of a cursor cannot contain NUL"):
        await conn.cursor(name)
