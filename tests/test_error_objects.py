"""What a program can do with an exception: copy, pickle, chain, decorate it, and let go of it."""

import asyncio
import contextlib
import copy
import pickle
import sys
import traceback
import weakref

import psycopg2
import psycopg2.extensions
import pytest
from roads import portrait_of_error, settle
from support import activity, fetch, until

REASONS = {"division": "SELECT 1/0", "syntax": "SELEC 1", "table": "SELECT * FROM nowhere"}


class Stubborn:
    def __conform__(self, protocol):
        raise LookupError("no adapter today")


class Chained:
    def __conform__(self, protocol):
        try:
            {}["reason"]
        except KeyError as error:
            raise LookupError("no adapter today") from error


def failing_caster(value, cursor):
    raise ArithmeticError(f"no such value: {value}")


async def fail_in_a_caster(cursor):
    caster = psycopg2.extensions.new_type((23,), "FAILING", failing_caster)
    await settle(cursor.execute("SELECT NULL"))
    impl = getattr(cursor, "_psycopg", cursor)
    psycopg2.extensions.register_type(caster, impl)
    await settle(cursor.execute("SELECT 1"))
    await settle(cursor.fetchall())


async def fail_at_a_date(cursor):
    await settle(cursor.execute("SELECT '0044-03-15 BC'::date"))
    await settle(cursor.fetchone())


async def fail_at_a_closed_cursor(cursor):
    cursor.close()
    await settle(cursor.execute("SELECT 1"))


CAUSES = {
    **{n: lambda cursor, sql=sql: settle(cursor.execute(sql)) for n, sql in REASONS.items()},
    "many fields": lambda cursor: settle(
        cursor.execute("DO $$ BEGIN RAISE 'x' USING HINT = 'h', DETAIL = 'd', TABLE = 't'; END $$")
    ),
    "empty": lambda cursor: settle(cursor.execute("")),
    "adapter": lambda cursor: settle(cursor.execute("SELECT %s", (Stubborn(),))),
    "chained adapter": lambda cursor: settle(cursor.execute("SELECT %s", (Chained(),))),
    "no adapter": lambda cursor: settle(cursor.execute("SELECT %s", (object(),))),
    "too few": lambda cursor: settle(cursor.execute("SELECT %s", ())),
    "caster": fail_in_a_caster,
    "date": fail_at_a_date,
    "no results": lambda cursor: settle(cursor.fetchone()),
    "scroll": lambda cursor: settle(cursor.scroll(1)),
    "scroll mode": lambda cursor: settle(cursor.scroll(1, "up")),
    "closed": fail_at_a_closed_cursor,
}
each_cause = pytest.mark.parametrize("cause", CAUSES.values(), ids=CAUSES)


async def raised(road, cause):
    """The error, and whether its cursor is psycopg2's."""
    cursor, impl = await road.cursor()
    try:
        await cause(cursor)
    except Exception as error:
        return error, getattr(error, "cursor", None) is impl
    raise AssertionError("nothing was raised")


@each_cause
def test_the_error(roads, cause):
    async def look(road):
        error, knows_its_cursor = await raised(road, cause)
        return portrait_of_error(error), knows_its_cursor, sorted(dir(error)), vars(error)

    roads.alike(look)


# --- copies ---------------------------------------------------------------------------------------


@each_cause
def test_pickles(roads, cause):
    """The same bytes at each protocol, and so the same error for whoever reads them."""

    async def dump(road):
        error, _ = await raised(road, cause)
        error.note = "kept"
        return [pickle.dumps(error, p) for p in range(pickle.HIGHEST_PROTOCOL + 1)]

    for dumped in roads.alike(dump):
        read = pickle.loads(dumped)
        assert b"aiopgx" not in dumped
        assert getattr(read, "cursor", None) is None
        if isinstance(read, psycopg2.Error):
            assert read.diag.sqlstate is None


@each_cause
@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy], ids=["copy", "deepcopy"])
def test_copies(roads, cause, way):
    async def copied(road):
        error, _ = await raised(road, cause)
        error.extra = ["mine"]
        twin = way(error)
        assert twin is not error
        cursor = getattr(twin, "cursor", None)
        return portrait_of_error(twin), vars(twin), cursor is None

    roads.alike(copied)


# --- a program's own handling ---------------------------------------------------------------------


@each_cause
def test_attributes_may_be_set(roads, cause):
    async def change(road):
        error, _ = await raised(road, cause)
        refused = []
        for name in ("args", "extra", "pgcode", "pgerror", "cursor", "diag", "__cause__"):
            try:
                setattr(error, name, ("changed",))
            except (AttributeError, TypeError) as refusal:
                refused.append((name, portrait_of_error(refusal)))
        return portrait_of_error(error), vars(error), refused

    roads.alike(change)


def links(error):
    """The chain of an error, link by link."""
    return [portrait_of_error(error), error.__suppress_context__] + [
        link and links(link) for link in (error.__cause__, error.__context__)
    ]


@each_cause
def test_raised_while_another_is_handled(roads, cause):
    """It has the other as its context, as anything that is raised there."""

    async def handle(road):
        cursor, _ = await road.cursor()
        try:
            try:
                raise ValueError("first")
            except ValueError:
                await cause(cursor)
        except Exception as error:
            return links(error)

    seen = roads.alike(handle)
    assert "first" in repr(seen)


@each_cause
@pytest.mark.parametrize("how", ["from it", "from None", "while it is handled"])
def test_a_program_goes_on_with_its_own(roads, cause, how):
    async def translate(road):
        cursor, impl = await road.cursor()
        try:
            try:
                await cause(cursor)
            except Exception as error:
                if how == "from it":
                    raise RuntimeError("mine") from error
                if how == "from None":
                    raise RuntimeError("mine") from None
                raise RuntimeError("mine")  # noqa: B904
        except RuntimeError as error:
            text = "".join(traceback.format_exception_only(error))
            return links(error), text, getattr(error.__context__, "cursor", None) is impl

    roads.alike(translate)


@each_cause
def test_an_error_after_an_error(roads, cause):
    """Each has its own chain: what was handled is over."""

    async def twice(road):
        first, _ = await raised(road, cause)
        second, _ = await raised(road, cause)
        assert first is not second
        return links(first), links(second)

    roads.alike(twice)


@each_cause
def test_with_traceback_and_raised_again(roads, cause):
    async def again(road):
        error, _ = await raised(road, cause)
        assert error.with_traceback(None) is error
        assert error.__traceback__ is None
        try:
            raise error
        except Exception as same:
            assert same is error
            return links(same), len(traceback.extract_tb(same.__traceback__))

    assert roads.alike(again)[1] == 1


@pytest.mark.skipif(sys.version_info < (3, 11), reason="notes and groups came with Python 3.11")
@each_cause
def test_notes_and_groups(roads, cause):
    async def group(road):
        error, _ = await raised(road, cause)
        error.add_note("while testing")
        both = ExceptionGroup("both", [error, ValueError("other")])  # noqa: F821
        mine, others = both.split(psycopg2.Error)
        text = "".join(traceback.format_exception_only(error))
        return text, error.__notes__, repr(mine), repr(others), repr(both.derive([error]))

    assert "while testing" in roads.alike(group)[0]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="TaskGroup came with Python 3.11")
async def test_task_group(ours, connect):
    conn = await connect()
    with pytest.raises(ExceptionGroup) as info:  # noqa: F821
        async with asyncio.TaskGroup() as group:
            group.create_task(fetch(conn, "SELECT 1/0"))
    (error,) = info.value.exceptions
    assert type(error) is psycopg2.errors.DivisionByZero
    assert error.diag.sqlstate == "22012"


# --- letting go -----------------------------------------------------------------------------------


class Canary:
    pass


async def caught(cause, *args):
    """A weak reference to what dies with the error that is raised."""
    canary = Canary()
    try:
        await cause(*args)
    except Exception as error:
        error.canary = canary
        return weakref.ref(canary)
    raise AssertionError("nothing was raised")


@each_cause
def test_an_error_dies_when_it_is_handled(roads, no_gc, cause):
    """No cycle leads through it: neither by its frames nor by its cursor."""

    async def handle(road):
        cursor, _ = await road.cursor()
        canary = await caught(cause, cursor)
        return canary() is None

    assert roads.alike(handle)


@each_cause
def test_a_kept_error_keeps_only_itself(roads, no_gc, cause):
    """With a traceback taken off it holds no frames, and so none of the program's objects."""

    async def keep(road):
        cursor, _ = await road.cursor()
        local = Canary()
        try:
            await cause(cursor)
        except Exception as error:
            kept = error.with_traceback(None)
            kept.__context__ = kept.__cause__ = None
        dead = weakref.ref(local)
        del local
        return dead() is None, kept is not None

    assert roads.alike(keep) == (True, True)


async def test_an_error_of_a_lost_connection_dies(ours, dsn, side, no_gc):
    """With the connection, whose notifies raise it as well."""
    conn = await ours.connect(dsn)
    pid = await conn.get_backend_pid()
    lost = asyncio.create_task(caught(fetch, conn, "SELECT pg_sleep(30)"))
    await until(lambda: "pg_sleep" in activity(side, pid)[1])
    with contextlib.closing(side.cursor()) as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s)", (pid,))
    canary = await lost
    assert conn.closed
    conn.close()
    del lost, conn
    assert canary() is None


async def test_an_error_of_a_failed_connect_dies(ours, dsn, no_gc):
    async def connect():
        await ours.connect(dsn, dbname="no_such_database")

    canary = await caught(connect)
    assert canary() is None


async def test_an_error_of_a_timeout_dies(ours, connect, no_gc):
    async def execute():
        await cursor.execute("SELECT pg_sleep(30)", timeout=0.01)

    cursor = await (await connect()).cursor()
    canary = await caught(execute)
    assert canary() is None
