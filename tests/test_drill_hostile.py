"""Drills: servers, or who stands before them, that say what no server says.

What is said to a connection is an error of psycopg2's, or a result; nobody waits for longer than
the timeout, nothing crashes, and the connection is closed, or good. That a server which lies can
lie about values as well is its nature; whose result it is must stay true.

Elsewhere: a login that fails (test_last_words.py, test_tls.py), values, errors and notices of any
bytes (test_fuzz.py).
"""

import asyncio
import contextlib
import io
import itertools
import random

import psycopg2
import pytest
from drills import LOOPS
from psycopg2.extensions import libpq_version, make_dsn, parse_dsn
from support import LONG, fetch, greeting, listener, message, scalar, until
from tamper import CHANGES, HARMLESS, INSERTED, at, inserted, int32, tampering

import aiopgx

NAME = "hostile"
COUNTED = [(1,), (2,), (3,)]


@pytest.fixture(scope="module", autouse=True)
def table(dsn):
    conn = psycopg2.connect(dsn)
    with conn, conn.cursor() as cursor:
        cursor.execute("CREATE TABLE told (n int)")
    conn.close()


@pytest.fixture(autouse=True)
def no_session_left(side):
    yield
    sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
    asyncio.run(until(lambda: scalar(side, sql, (NAME,)) == 0))


# --- what is asked --------------------------------------------------------------------------------


async def text(conn, pool):
    assert await fetch(conn, "SELECT generate_series(1, 3)") == COUNTED


async def transaction(conn, pool):
    async with conn.cursor() as cur, cur.begin():
        await cur.execute("INSERT INTO told VALUES (1)")


async def prepared_in_transaction(conn, pool):
    """Within a savepoint, which the library sets for its own Parse."""
    conn.prepare_threshold = 0
    async with conn.cursor() as cur, cur.begin():
        for _ in range(3):
            await cur.execute("SELECT generate_series(1, %s)", (3,))
            assert await cur.fetchall() == COUNTED


async def prepared(conn, pool):
    for _ in range(2):
        cur = await conn.execute("SELECT generate_series(1, %s)", (3,), prepare=True)
        assert await cur.fetchall() == COUNTED


async def psycopg2s_road(conn, pool):
    async with conn.cursor() as cur:
        assert cur.raw
        await cur.execute("SELECT generate_series(1, 3)")
        assert await cur.fetchall() == COUNTED


async def pipeline(conn, pool):
    cursors = [await conn.cursor() for _ in range(3)]
    async with conn.pipeline():
        for number, cur in enumerate(cursors):
            await cur.execute("SELECT %s::int", (number,))
    assert [await cur.fetchone() for cur in cursors] == [(0,), (1,), (2,)]


async def stream(conn, pool):
    async with conn.cursor() as cur:
        rows = cur.stream("SELECT generate_series(1, 3)", size=2)
        assert [row async for row in rows] == COUNTED


async def named(conn, pool):
    async with conn.cursor() as plain, plain.begin(), conn.cursor("told") as cur:
        await cur.execute("SELECT generate_series(1, 3)")
        assert await cur.fetchmany(2) + await cur.fetchall() == COUNTED


async def executemany(conn, pool):
    async with conn.cursor() as cur:
        await cur.executemany("INSERT INTO told VALUES (%s)", [(n,) for n in range(5)])
        assert cur.rowcount == 5


async def copy_from(conn, pool):
    async with conn.cursor() as cur:
        await cur.copy_from(io.StringIO("1\n2\n"), "told")
        assert cur.rowcount == 2


async def copy_to(conn, pool):
    async with conn.cursor() as cur:
        file = io.StringIO()
        await cur.copy_expert("COPY (SELECT generate_series(1, 3)) TO STDOUT", file)
        assert file.getvalue() == "1\n2\n3\n"


async def copy_records(conn, pool):
    assert await conn.copy_records_to_table("told", records=[(1,), (2,)]) == "COPY 2"


async def shared(conn, pool):
    pool.release(conn)
    cursors = await asyncio.gather(*(pool.execute("SELECT %s::int", (n,)) for n in range(3)))
    assert [await cur.fetchone() for cur in cursors] == [(0,), (1,), (2,)]


async def two_phase(conn, pool):
    await conn.tpc_begin("told")
    await conn.execute("SELECT 1")
    await conn.tpc_rollback()
    await conn.tpc_recover()


async def reset(conn, pool):
    await conn.execute("LISTEN told")
    await conn.reset()


ROADS = {
    road.__name__: road
    for road in (
        *(text, transaction, prepared, prepared_in_transaction, psycopg2s_road, pipeline, stream),
        *(named, executemany),
        *(copy_from, copy_to, copy_records, shared, two_phase, reset),
    )
}

# Values that psycopg2's casters refuse are psycopg2's errors, too.
TOLD = (psycopg2.Error, asyncio.TimeoutError, ValueError)
if not aiopgx.capabilities().native:
    TOLD += (RuntimeError,)  # a connection of the pool's that executes for somebody else by now


async def told(road, conn, pool):
    """Whether all was right; an error that may be is not."""
    using = asyncio.ensure_future(road(conn, pool))
    await asyncio.wait([using], timeout=20)
    assert using.done(), f"{road.__name__} hangs"
    try:
        using.result()
    except TOLD:
        return False
    except AssertionError:
        return False  # values as the server has told them
    return True


@contextlib.asynccontextmanager
async def misled(ours, dsn, limit):
    """(who stands between, a pool, its only connection); `limit`: of each statement."""
    async with tampering(int(parse_dsn(dsn)["port"])) as middle:
        place = make_dsn(
            dsn,
            **{"host": "127.0.0.1", "port": middle.port, "application_name": NAME},
            **{"sslmode": "disable", "gssencmode": "disable"},
        )
        pool = await ours.create_pool(place, minsize=1, maxsize=1, timeout=20, cancel_timeout=0.2)
        conn = await pool.acquire()
        conn._timeout = pool._timeout = limit
        try:
            yield middle, pool, conn
        finally:
            pool.terminate()
            await asyncio.wait_for(pool.wait_closed(), 20)


async def is_closed_or_good(conn):
    """A connection of which strange things were heard."""
    with contextlib.suppress(*TOLD):
        return conn.closed or await asyncio.wait_for(fetch(conn, "SELECT 42"), 20) == [(42,)]
    return True


async def tried(ours, dsn, road, name, place):
    """Do something to one message of the server, counted from 0. Whether there was one."""
    happened = []

    def change(kind, body):
        happened.append(kind)
        return CHANGES[name](kind, body)

    harmless = name in HARMLESS
    async with misled(ours, dsn, 20 if harmless else 0.3) as (middle, pool, conn):
        middle.tamper = at(place, change)
        right = await told(road, conn, pool)
        middle.tamper = None
        assert right or not harmless, (road.__name__, name, place)
        assert await is_closed_or_good(conn), (road.__name__, name, place)
    return bool(happened)


async def tried_everywhere(ours, dsn, road, name):
    """Return in how many places."""
    for place in itertools.count():
        if not await tried(ours, dsn, road, name, place):
            return place


async def side_by_side(makers, width=12):
    """Await what these functions make, so many at a time; return the sum of what they say."""
    waiting = iter(list(makers))

    async def work():
        return sum([await make() for make in waiting])

    return sum(await asyncio.gather(*(work() for _ in range(width))))


def some(road):
    """(what is done, to which message) of the short form: each road has others."""
    number = list(ROADS).index(road)
    return [(name, place % 6) for place, name in enumerate(CHANGES)][number::9]


@pytest.mark.filterwarnings("ignore:You have not closed:ResourceWarning")
@pytest.mark.filterwarnings("ignore:Invalid transaction status:ResourceWarning")  # who knows?
@LOOPS
@pytest.mark.parametrize("road", ROADS)
async def test_a_message_that_no_server_sends(ours, dsn, road):
    """Each of 80 kinds in each place of 15 conversations, in the long form."""
    if LONG:
        makers = [
            lambda name=name: tried_everywhere(ours, dsn, ROADS[road], name) for name in CHANGES
        ]
    else:
        makers = [
            lambda name=name, place=place: tried(ours, dsn, ROADS[road], name, place)
            for name, place in some(road)
        ]
    count = await side_by_side(makers)
    assert count > 0
    if LONG:
        print(f"{road}: {count} messages")


COPIES = [name for name in CHANGES if name.startswith("COPY ")]


@pytest.mark.filterwarnings("ignore:You have not closed:ResourceWarning")
@pytest.mark.parametrize("road", [executemany, prepared_in_transaction])
async def test_a_copy_that_nobody_asked_for(ours, dsn, road):
    """Libpq tells of it as often as it is asked: not for ever."""
    makers = [
        lambda name=name, place=place: tried(ours, dsn, road, name, place)
        for name in COPIES
        for place in range(12)
    ]
    assert await side_by_side(makers) == len(makers)


@LOOPS
@pytest.mark.parametrize("name", ["left out", "twice"])
async def test_executemany_misses_a_result(ours, dsn, name):
    """It tells of as many rows as the server has, or of none."""
    places = 0
    for place in itertools.count():
        kinds = []

        def change(kind, body, kinds=kinds):
            kinds.append(kind)
            return CHANGES[name](kind, body) if kind == b"C" else message(kind, body)

        async with misled(ours, dsn, 0.3) as (middle, _, conn), conn.cursor() as cur:
            middle.tamper = at(place, change)
            with contextlib.suppress(*TOLD):
                await cur.executemany("INSERT INTO told VALUES (%s)", [(n,) for n in range(5)])
                assert cur.rowcount == 5, (place, kinds)
        places += kinds == [b"C"]
        if not kinds:
            break
    assert places >= 5


# --- damage that no message shows -----------------------------------------------------------------


def damaged(data, instants):
    """The same bytes with a fault in them, and the rest of it behind, as it were."""
    if not data:
        return data
    first, last = sorted(instants.randrange(len(data) + 1) for _ in range(2))
    last = min(last, first + 12)
    return data[:first] + instants.choice(
        [
            b"",
            data[first:last] * 2,
            instants.randbytes(last - first),
            instants.randbytes(3) + data[first:last],
            bytes(last - first),
            b"\xff" * (last - first),
        ]
    ) + data[last:]  # fmt: skip


@pytest.mark.filterwarnings("ignore:You have not closed:ResourceWarning")
@pytest.mark.filterwarnings("ignore:Invalid transaction status:ResourceWarning")  # who knows?
@LOOPS
@pytest.mark.parametrize("road", ROADS)
async def test_damaged_stream(ours, dsn, road):
    async def damage(seed):
        instants = random.Random(f"{road} {seed}")
        wanted = instants.randrange(2)
        pieces = itertools.count()
        async with misled(ours, dsn, 0.3) as (middle, pool, conn):
            middle.spoil = lambda data: damaged(data, instants) if next(pieces) == wanted else data
            await told(ROADS[road], conn, pool)
            middle.spoil = None
            if not conn.closed:
                await told(text, conn, pool)
        return next(pieces) > wanted

    seeds = range(700 if LONG else 6)
    count = await side_by_side(lambda seed=seed: damage(seed) for seed in seeds)
    assert count > 0
    if LONG:
        print(f"{road}: {count} damaged streams")


# --- whose result it is ---------------------------------------------------------------------------


@LOOPS
@pytest.mark.parametrize("kind", ["pipeline", "shared"])
async def test_nobody_gets_the_result_of_another(ours, dsn, kind):
    """The server says once too often that it is ready: what comes then belongs to nobody."""

    async def ask(conn, pool, number):
        sql = "SELECT %s::int"
        if kind == "shared":
            cur = await pool.execute(sql, (number,))
        else:
            cur = await conn.cursor()
            await cur.execute(sql, (number,))
        return await cur.fetchone()

    for place in range(20 if LONG else 10):
        async with misled(ours, dsn, 20) as (middle, pool, conn):
            middle.tamper = at(place, inserted(INSERTED["ready"]))
            if kind == "shared":
                pool.release(conn)
            async with contextlib.AsyncExitStack() as stack:
                stack.enter_context(contextlib.suppress(psycopg2.Error))
                if kind == "pipeline":
                    await stack.enter_async_context(conn.pipeline())
                asked = [ask(conn, pool, number) for number in range(4)]
                got = await asyncio.gather(*asked, return_exceptions=True)
            for number, outcome in enumerate(got):
                assert outcome == (number,) or isinstance(outcome, psycopg2.Error), (place, got)


# --- the password ---------------------------------------------------------------------------------

SECRET = "sEcReT"
WISHES = {
    "password": int32(3),
    "md5": int32(5) + b"salt",
    "scram-sha-256": int32(10) + b"SCRAM-SHA-256\0\0",
    "none": int32(0),
    "gss": int32(7),
    "no known way": int32(99),
}


@pytest.mark.parametrize("wish", WISHES)
async def test_the_password_goes_to_nobody_who_was_not_to_have_it(ours, wish):
    """`require_auth` of libpq 16: who asks for less than SCRAM gets nothing."""
    said = bytearray()

    async def serve(reader, writer):
        said.extend(await reader.read(4096))
        writer.write(message(b"R", WISHES[wish]))
        if wish == "none":
            writer.write(greeting()[9:])
        said.extend(await reader.read(4096))

    async with listener(serve) as port:
        dsn = f"host=127.0.0.1 port={port} user=me sslmode=disable gssencmode=disable"
        asked = {"password": SECRET, "timeout": 20}
        if libpq_version() >= 160000:
            asked["require_auth"] = "scram-sha-256"
        elif wish in ("password", "md5", "none"):
            return
        with pytest.raises(psycopg2.OperationalError) as info:
            await ours.connect(dsn, **asked)
    assert SECRET.encode() not in said and SECRET not in str(info.value)
    assert (b"\0me" in said) and (b"p\0\0\0" in said) == (wish == "scram-sha-256")


@LOOPS
@pytest.mark.parametrize("wish", ["password", "md5", "scram-sha-256"])
async def test_the_password_is_asked_for_later(ours, dsn, wish):
    """In the middle of an answer: it is not sent, whatever the road."""
    for name in ("text", "prepared", "pipeline", "copy_to", "stream", "shared"):
        async with misled(ours, make_dsn(dsn, password=SECRET), 0.3) as (middle, pool, conn):
            middle.said.clear()
            middle.tamper = at(1, inserted(message(b"R", WISHES[wish])))
            await told(ROADS[name], conn, pool)
            assert SECRET.encode() not in middle.said
