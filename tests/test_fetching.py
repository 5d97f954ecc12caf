"""Fetching and moving: any calls in any order leave what psycopg2's cursor leaves.

A step is a tuple: the name of what is done, and its arguments. A sequence of steps is gone through
on a cursor of psycopg2, on one of the real aiopg, and on one of each road of aiopgx; after each
step what it gave or raised and all attributes are compared.
"""

import aiopg
import psycopg2
import psycopg2.extensions
import psycopg2.extras
import pytest
from hypothesis import given
from hypothesis import strategies as st
from roads import Ours, attributes, check_equal, portrait, portrait_of_error, unknown

FACTORIES = {
    "tuple": psycopg2.extensions.cursor,
    "DictRow": psycopg2.extras.DictCursor,
    "RealDictRow": psycopg2.extras.RealDictCursor,
    "namedtuple": psycopg2.extras.NamedTupleCursor,
}
FIVE = ("execute", "SELECT n AS id, 'x' AS name FROM generate_series(0, 4) n")
INSERT = "INSERT INTO things SELECT generate_series(1, 3)"
STATEMENTS = [
    FIVE[1],
    "SELECT 7 AS other",
    "SELECT 1 AS a WHERE false",
    "SELECT FROM generate_series(1, 2)",
    "SELECT 1 AS a, 2 AS a",
    "SELECT 1 AS a; SELECT 2 AS b, 3 AS c",
    "SELECT 1 AS a; SET search_path TO public",
    "SELECT 'infinity'::date - date '2020-01-01'",
    INSERT,
    INSERT + " RETURNING *",
    "UPDATE things SET i = 1 WHERE false",
    "SET search_path TO public",
    "SELECT 1/0",
    "SELECT 1 AS a; SELECT 1/0",
    "SELEC 1",
    "",
    ";",
    "-- nothing",
    b"SELECT 1 AS bytes",
    None,
    5,
]


# --- one step, here and there ---------------------------------------------------------------------


class Index:
    def __init__(self, value):
        self.value = value

    def __index__(self):
        return self.value

    def __repr__(self):
        return f"Index({self.value})"


def seen_of(error, psycopg_cursor):
    """An error, and whether it knows its cursor."""
    seen = portrait_of_error(error)
    if isinstance(error, psycopg2.Error):
        seen.append(error.cursor is psycopg_cursor)
    return seen


def state(cursor):
    """All that can be read of a cursor."""
    return [*attributes(cursor), cursor.arraysize, cursor.closed, cursor.name]


def model_step(cursor, name, *args):
    """A step on a cursor of psycopg2, as (portrait, state after it)."""
    try:
        if name == "iterate":
            rows = iter(cursor)
            value = [row for _, row in zip(range(args[0]), rows, strict=False)]
        elif name == "arraysize":
            cursor.arraysize = args[0]
            value = cursor.arraysize
        elif name == "raw":
            value = cursor.description is None
        else:
            value = getattr(cursor, name)(*args)
        seen = portrait(None if name == "callproc" else value)  # aiopg gives no parameters back
    except Exception as error:
        seen = seen_of(error, cursor)
    return seen, state(cursor)


async def iterate(cursor, count):
    rows = []
    async for row in cursor:
        rows.append(row)
        if len(rows) == count:
            break
    return rows


def inside(cursor):
    """The psycopg2 cursor of aiopg's or of aiopgx' cursor; `raw` would change the road."""
    return vars(cursor).get("_psycopg") or vars(cursor)["_impl"]


async def step(cursor, name, *args):
    """The same on a cursor of aiopg or aiopgx."""
    try:
        if name == "iterate":
            value = await iterate(cursor, *args)
        elif name == "arraysize":
            cursor.arraysize = args[0]
            value = cursor.arraysize
        elif name == "raw":
            value = cursor.raw.description is None
        elif name == "close":
            value = cursor.close()
        else:
            value = await getattr(cursor, name)(*args)
        seen = portrait(value)
    except Exception as error:
        seen = seen_of(error, inside(cursor))
    return seen, state(cursor)


class Aiopg(Ours):
    """The real aiopg, driven in the same way."""

    async def _connect(self, dsn, kwargs):
        return await aiopg.connect(dsn, **kwargs)


@pytest.fixture(scope="module")
def players(open_roads, dsn):
    """psycopg2, and those who have to do the same."""
    open_roads.reference.execute("CREATE TABLE things (i int)", None, None, lambda cursor: None)
    real = Aiopg("aiopg", dsn)
    yield open_roads.reference, [real, *open_roads.ours]
    real.close()


def go_through(players, factory, steps):
    """Go through the steps everywhere; what psycopg2 gave at each."""
    reference, others = players
    with reference.raw.cursor(cursor_factory=factory) as cursor:
        model = [state(cursor), *(model_step(cursor, *each) for each in steps)]

    async def play(road):
        theirs = unknown(factory) if road.name == "foreign" else factory
        async with road.conn.cursor(cursor_factory=theirs) as cursor:
            return [state(cursor), *[await step(cursor, *each) for each in steps]]

    for road in others:
        got = road.run(play(road))
        for number, (mine, wanted) in enumerate(zip(got, model, strict=True)):
            check_equal(road.name, steps[:number], mine, wanted)
    return [seen for seen, _ in model[1:]]


# --- by table -------------------------------------------------------------------------------------

SIZES = [
    *(0, 1, 4, 5, 6, -1, -2, None, True, False, 10**6, 2**31 - 1, 2**31, 2**63 - 1, 2**63),
    *(-(2**63), -(2**63) - 1, 2**70, 1.0, 1.5, "2", b"2", [], Index(2), Index(-1)),
]
DISTANCES = [*(n for n in SIZES if n is not None), None, -3, -(2**31), -(2**31) - 1, "one", ()]
MODES = [
    *("relative", "absolute", "up", "RELATIVE", "", None, 1, b"relative", "absolute "),
    *("relative\0", "\udc80"),
]

SEQUENCES = {
    "nothing was executed": [("fetchone",), ("fetchmany",), ("fetchall",), ("iterate", 1)],
    "nothing was executed, scroll": [("scroll", 0), ("scroll", 1, "absolute"), ("scroll", 0, "x")],
    "after the last row": [FIVE, ("fetchall",), ("fetchone",), ("fetchmany", 2), ("fetchall",)],
    "one by one": [FIVE, *[("fetchone",)] * 7],
    "two by two": [FIVE, *[("fetchmany", 2)] * 5],
    "iterated twice": [FIVE, ("iterate", 9), ("iterate", 9)],
    "iterated in parts": [FIVE, ("iterate", 2), ("iterate", 2), ("fetchone",), ("iterate", 1)],
    "iterated after fetchall": [FIVE, ("fetchall",), ("iterate", 1)],
    "iterated, then back": [FIVE, ("iterate", 9), ("scroll", 1, "absolute"), ("iterate", 9)],
    "executed again": [FIVE, ("fetchone",), FIVE, ("fetchone",), ("execute", "SELECT 1")],
    "executed again, read": [FIVE, ("execute", "SELECT 1 AS a"), ("fetchall",), ("fetchall",)],
    "an insert": [("execute", INSERT), ("fetchone",), ("fetchmany", 1), ("fetchall",)],
    "iterated after an insert": [("execute", INSERT), ("iterate", 1)],
    "scrolled on a bare count": [("execute", INSERT), ("scroll", 1), ("scroll", 5), ("fetchone",)],
    "an error": [FIVE, ("fetchone",), ("execute", "SELECT 1/0"), ("fetchone",), ("scroll", 0)],
    "an error of syntax": [FIVE, ("execute", "SELEC 1"), ("fetchall",), ("iterate", 1)],
    "a parameter too few": [FIVE, ("execute", "SELECT %s", ()), ("fetchone",), ("fetchall",)],
    "a parameter that can't be": [FIVE, ("execute", "SELECT %s", (object(),)), ("fetchall",)],
    "no text": [FIVE, ("fetchone",), ("execute", ""), ("fetchall",), ("scroll", 0)],
    "another type": [FIVE, ("fetchone",), ("execute", 5), ("fetchall",), ("scroll", 0)],
    "no columns": [("execute", "SELECT FROM generate_series(1, 3)"), ("fetchone",), ("fetchall",)],
    "no rows": [("execute", "SELECT 1 AS a WHERE false"), ("fetchone",), ("scroll", 0)],
    "fetched by the raw cursor": [
        FIVE,
        ("fetchone",),
        ("raw",),
        ("fetchone",),
        FIVE,
        ("fetchall",),
    ],
    "raw first": [("raw",), FIVE, ("fetchmany", 2), ("execute", "SELECT 1/0"), ("fetchone",)],
    "raw without a result": [("execute", INSERT), ("raw",), ("fetchone",), ("scroll", 1)],
    "raw after an error": [("execute", "SELECT 1/0"), ("raw",), ("fetchone",), ("scroll", 1)],
    "a failing caster": [
        ("execute", "SELECT d FROM unnest('{2020-01-01,0044-03-15 BC,2021-01-01}'::date[]) d"),
        *[("fetchone",)] * 4,
        ("scroll", 0, "absolute"),
        ("fetchall",),
        ("fetchall",),
        ("scroll", 2, "absolute"),
        ("fetchmany", 5),
    ],
    "closed": [
        *(FIVE, ("fetchone",), ("close",), ("fetchone",), ("fetchmany", 1), ("fetchmany", "x")),
        *(("fetchall",), ("scroll", 1), ("scroll", "x"), ("scroll", 1, "x"), ("iterate", 1)),
        *(FIVE, ("execute", "SELECT %s", ()), ("execute", 5), ("callproc", "abs", [1])),
        *(("arraysize", 3), ("nextset",), ("setinputsizes", 1), ("close",)),
    ],
    "closed at once": [("close",), ("close",), FIVE, ("fetchone",), ("scroll", 1)],
    "other methods": [FIVE, ("nextset",), ("setinputsizes", 1), ("setoutputsize", 1, 1)],
    "callproc": [
        ("callproc", "generate_series", [1, 3]),
        ("fetchone",),
        ("scroll", 1),
        ("fetchall",),
    ],
    **{f"fetchmany({n!r})": [FIVE, ("fetchmany", n), ("fetchmany", n)] for n in SIZES},
    **{f"arraysize = {n!r}": [("arraysize", n), FIVE, *[("fetchmany",)] * 2] for n in SIZES},
    **{f"scroll({n!r})": [FIVE, ("fetchone",), ("scroll", n), ("fetchone",)] for n in DISTANCES},
    **{
        f"scroll({n!r}, 'absolute')": [
            FIVE,
            ("fetchone",),
            ("scroll", n, "absolute"),
            ("fetchone",),
        ]
        for n in DISTANCES
    },
    **{f"scroll(1, {m!r})": [FIVE, ("scroll", 1, m), ("fetchone",)] for m in MODES},
    **{f"scroll('x', {m!r})": [FIVE, ("scroll", "x", m), ("scroll", 9, m)] for m in MODES},
    **{f"execute({s!r})": [("execute", s), ("fetchone",), ("scroll", 0)] for s in STATEMENTS},
}


@pytest.mark.parametrize("steps", SEQUENCES.values(), ids=SEQUENCES)
def test_sequence(players, steps):
    for factory in FACTORIES.values():
        go_through(players, factory, steps)


STEPS = st.one_of(
    st.tuples(st.just("execute"), st.sampled_from(STATEMENTS)),
    st.tuples(
        st.just("execute"), st.just("SELECT %s AS a"), st.sampled_from([(1,), (), (object(),)])
    ),
    st.just(FIVE),
    st.just(("fetchone",)),
    st.just(("fetchall",)),
    st.just(("fetchmany",)),
    st.tuples(st.just("fetchmany"), st.sampled_from(SIZES)),
    st.tuples(st.just("iterate"), st.integers(1, 6)),
    st.tuples(st.just("scroll"), st.sampled_from(DISTANCES)),
    st.tuples(st.just("scroll"), st.integers(-3, 6), st.sampled_from(MODES)),
    st.tuples(st.just("arraysize"), st.sampled_from(SIZES)),
    st.just(("raw",)),
    st.just(("close",)),
)


@given(factory=st.sampled_from(list(FACTORIES.values())), steps=st.lists(STEPS, max_size=12))
def test_any_sequence(players, factory, steps):
    go_through(players, factory, steps)


# --- the connection is closed ---------------------------------------------------------------------

FETCHES = [("fetchone",), ("fetchmany",), ("fetchall",), ("iterate", 1), ("scroll", 1)]
closings = pytest.mark.parametrize("how", ["closed", "closed behind our back"])


async def check_closed(connect, dsn, how, factory, steps):
    raw = psycopg2.connect(dsn)
    with raw.cursor(cursor_factory=factory) as model:
        model.execute(FIVE[1])
        model.fetchone()
        raw.close()
        expected = [state(model), *(model_step(model, *each) for each in steps)]
    conn = await connect()
    cursor = await conn.cursor(cursor_factory=factory)
    await cursor.execute(FIVE[1])
    await cursor.fetchone()
    (conn if how == "closed" else conn.raw).close()
    got = [state(cursor), *[await step(cursor, *each) for each in steps]]
    check_equal(how, steps, got, expected)


@pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)
@closings
async def test_connection_closed_under_a_result(connect, dsn, how, factory):
    """What was known stays, and nothing is fetched any more."""
    await check_closed(connect, dsn, how, factory, FETCHES)


@closings
async def test_execution_on_a_closed_connection(ours, connect, dsn, how):
    await check_closed(connect, dsn, how, FACTORIES["tuple"], [FIVE, *FETCHES])
