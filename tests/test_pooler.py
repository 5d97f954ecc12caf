"""Queries given up, on a server and behind PgBouncer: nobody waits, and nothing runs on."""

import asyncio
import itertools

import psycopg2
import pytest
from bouncer import MODES
from psycopg2.extensions import make_dsn, parse_dsn
from support import nothing_left, running, scalar, side_connection, until

PLACES = ["direct", *(pytest.param(mode, marks=pytest.mark.needs("pgbouncer")) for mode in MODES)]
WAVE = 50  # queries at a time
IN_TIME = 0.6  # seconds that a query may take before it is given up: time for all to begin

pytestmark = pytest.mark.needs("openssl")
marks = itertools.count()


class Place:
    """Where queries run: `dsn`. `side` looks on, past the pooler, if there is one."""

    def __init__(self, dsn, side, pooler=None):
        self.dsn = dsn
        self.side = side
        self.pooler = pooler
        self.mark = f"/* given up: {next(marks)} */"

    async def serves(self):
        """Wait until nothing runs any more; whoever comes now is served."""
        await until(lambda: running(self.side, self.mark) == 0)
        assert self.pooler is None or self.pooler.alive, self.pooler.log.read_text()
        with side_connection(self.dsn) as conn:
            assert scalar(conn, "SELECT 1") == 1


@pytest.fixture(params=PLACES)
def place(request, dsn, side):
    if request.param == "direct":
        place = Place(dsn, side)
    else:
        pooler = request.getfixturevalue("pooler")(request.param)
        place = Place(pooler.dsn(parse_dsn(dsn)["dbname"]), side, pooler)
    with nothing_left(side, place.mark):
        yield place


@pytest.fixture
def tls_place(request, place):
    """The same over TLS."""
    if place.pooler is not None:
        yield Place(make_dsn(place.dsn, sslmode="require"), place.side, place.pooler)
        return
    tls_dsn = request.getfixturevalue("tls_server").dsn
    with side_connection(tls_dsn) as side:
        yield Place(tls_dsn, side)


# --- ways to give a query up ----------------------------------------------------------------------


async def execute(cursor, sql, **keywords):
    await cursor.execute(sql, **keywords)


async def cancel(conn, task):
    task.cancel()


async def close(conn, task):
    conn.close()


async def leave(conn, task):
    """To its time-out."""


WAYS = {
    "cancel": (cancel, asyncio.CancelledError),
    "close": (close, psycopg2.OperationalError),
    "timeout": (leave, asyncio.TimeoutError),
}


async def wave(ours, place, way, count, raw=False):
    """Begin `count` queries, give them up once all of them run, see that each is told at once."""
    give_up, expected = WAYS[way]
    conns = await asyncio.gather(*(ours.connect(place.dsn) for _ in range(count)))
    cursors = [await conn.cursor() for conn in conns]
    if raw:
        assert all(cursor.raw for cursor in cursors)  # psycopg2 executes from now on
    # a pooler starts as many backends as it needs at a time, which may take longer than IN_TIME
    await asyncio.gather(*(execute(cursor, "SELECT pg_sleep(0.1)") for cursor in cursors))
    mark = f"{place.mark} /* {next(marks)} */"
    keywords = {"timeout": IN_TIME} if way == "timeout" else {}
    sql = f"SELECT pg_sleep(30) {mark}"
    tasks = [asyncio.create_task(execute(cursor, sql, **keywords)) for cursor in cursors]
    # on a loaded machine the first may be out of time before the last has begun
    await until(lambda: running(place.side, mark) == count or any(t.done() for t in tasks))
    for conn, task in zip(conns, tasks, strict=True):
        await give_up(conn, task)
    await asyncio.wait(tasks, timeout=4)
    assert [type(outcome(task)) for task in tasks] == [expected] * count
    assert all(conn.closed for conn in conns)


async def all_ways(ours, place, **keywords):
    await asyncio.gather(*(wave(ours, place, way, 10, **keywords) for way in WAYS))
    await place.serves()


def outcome(task):
    assert task.done(), "it waits for the server"
    return asyncio.CancelledError() if task.cancelled() else task.exception()


@pytest.mark.parametrize("way", ["cancel", "timeout"])
async def test_a_hundred(ours, place, way):
    await wave(ours, place, way, WAVE)
    await place.serves()


@pytest.mark.all_loops
async def test_all_ways(ours, place):
    await all_ways(ours, place)


async def test_on_psycopg2s_road(ours, place):
    await all_ways(ours, place, raw=True)


async def test_tls(ours, tls_place):
    await all_ways(ours, tls_place)
