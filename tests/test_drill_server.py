"""Drills: a server, or a link, that breaks off, freezes, dies and comes back.

See also test_cancel.py, test_last_words.py (a backend killed while idle, busy, listening; sockets
that fail), test_copy.py, test_bulk_flight.py, test_pipeline.py, test_shared.py (killed in the
middle of each), test_pool_places.py (killed in the pool), test_links.py (frozen links, keepalives)
and test_failover.py (kill -9, promotion, PgBouncer).
"""

import asyncio
import io
import random

import psycopg2
import pytest
from drills import is_at_rest, nothing_left
from proxy import Proxy
from psycopg2.extensions import make_dsn, parse_dsn
from support import LONG, fetch, scalar, side_connection, until

from aiopgx.tools import server

LOOPS = pytest.mark.parametrize("loop_kind", ["asyncio", "uvloop"])
SIZE = 4000  # bytes of a result


@pytest.fixture
def link(dsn):
    """A `Proxy` in front of the server, whose DSN is the attribute `dsn`."""
    made = Proxy(int(parse_dsn(dsn)["port"]))
    made.dsn = make_dsn(dsn, host="127.0.0.1", port=made.port)
    yield made
    made.stop()


# --- the stream is cut ----------------------------------------------------------------------------

SERIES = "SELECT n, repeat('x', 180) FROM generate_series(1, 20) n"
ROWS = [(n, "x" * 180) for n in range(1, 21)]


async def text(conn):
    return await fetch(conn, SERIES)


async def psycopg2s_road(conn):
    async with conn.cursor() as cur:
        assert cur.raw
        await cur.execute(SERIES)
        return await cur.fetchall()


async def stream(conn):
    async with conn.cursor() as cur:
        return [row async for row in cur.stream(SERIES, size=3)]


async def pipeline(conn):
    async with conn.cursor() as cur, conn.pipeline():
        await cur.execute(SERIES)
        return await cur.fetchall()


async def named(conn):
    """Pages, of which each is a result."""
    async with conn.cursor() as cur, cur.begin(), conn.cursor("cut") as pages:
        await pages.execute(SERIES)
        return await pages.fetchmany(7) + await pages.fetchall()


async def copy_to(conn):
    async with conn.cursor() as cur:
        file = io.StringIO()
        await cur.copy_expert(f"COPY ({SERIES}) TO STDOUT", file)
        lines = (line.split("\t") for line in file.getvalue().splitlines())
        return [(int(number), text) for number, text in lines]


async def prepared(conn):
    conn.prepare_threshold = 0
    return await fetch(conn, SERIES)


ROADS = [text, prepared, psycopg2s_road, stream, pipeline, named, copy_to]


@LOOPS
@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
@pytest.mark.parametrize("road", ROADS, ids=lambda road: road.__name__)
async def test_cut_at_each_byte(ours, dsn, side, link, road, reset):
    """An error each time, of a connection that is closed then; never a part for the whole."""
    async with ours.connect(link.dsn) as conn:
        before = link.passed
        assert await road(conn) == ROWS
        length = link.passed - before
    assert length > SIZE * 0.9
    chance = random.Random(road.__name__)
    places = {0, 1, 5, length - 7, length - 6, length - 1, *chance.sample(range(length), 3)}
    async with nothing_left(ours, link.dsn, side, minsize=0, maxsize=1) as pool:
        for place in range(length) if LONG else sorted(places):
            async with pool.acquire() as conn:
                link.cut_after(place, reset)
                with pytest.raises(psycopg2.OperationalError):
                    await asyncio.wait_for(road(conn), 5)
                assert conn.closed
