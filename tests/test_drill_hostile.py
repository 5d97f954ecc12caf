"""Drills: a server whose messages are malformed.

What a real server answers is changed on its way, then the link ends, so that nobody waits for the
rest in vain. See also test_fuzz.py (values, errors and notices of any bytes) and fuzz/.
"""

import asyncio
import random

import psycopg2
import pytest
from drills import nothing_left
from proxy import Proxy
from psycopg2.extensions import make_dsn, parse_dsn
from support import LONG, fetch
from test_drill_server import ROADS, ROWS

LOOPS = pytest.mark.parametrize("loop_kind", ["asyncio", "uvloop"])
TRIES = 1500 if LONG else 8  # for each road

# How bytes from a place on are changed.
CHANGES = [
    lambda data, at, chance: data[:at] + b"\xff" + data[at + 1 :],
    lambda data, at, chance: data[:at] + b"\0" + data[at + 1 :],
    lambda data, at, chance: (
        data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]
    ),
    lambda data, at, chance: data[:at] + data[at + 1 :],
    lambda data, at, chance: data[:at] + chance.randbytes(5) + data[at:],
    lambda data, at, chance: data[:at] + chance.randbytes(9) + data[at + 9 :],
    lambda data, at, chance: data[:at] + data[: at + 1] + data[at:],
    lambda data, at, chance: data[:at] + chance.choice(KINDS) + data[at + 1 :],
]
KINDS = [bytes([kind]) for kind in b"ACDEGHIKNRSTVWZcdnst123"]


class Forger(Proxy):
    """Changes what the server sends at `place`, counted like `passed`, and ends the link then."""

    change = None
    place = 0

    def _answer(self, link, data):
        if self.change is None or self.passed + len(data) <= self.place:
            super()._answer(link, data)
            return
        change, self.change = self.change, None
        link.client.sendall(change(data, self.place - self.passed))
        link.end()


@pytest.fixture
def forger(dsn):
    made = Forger(int(parse_dsn(dsn)["port"]))
    made.dsn = make_dsn(dsn, host="127.0.0.1", port=made.port)
    yield made
    made.stop()


@LOOPS
@pytest.mark.parametrize("road", ROADS, ids=lambda road: road.__name__)
async def test_malformed_messages(ours, dsn, side, forger, road):
    """A psycopg2.Error, or what psycopg2 makes of a malformed value; the pool goes on."""
    chance = random.Random(road.__name__ + (str(random.random()) if LONG else ""))
    async with ours.connect(forger.dsn) as conn:
        before = forger.passed
        assert await road(conn) == ROWS
        length = forger.passed - before
    async with nothing_left(ours, forger.dsn, side, minsize=0, maxsize=1) as pool:
        for _ in range(TRIES):
            change = chance.choice(CHANGES)
            async with pool.acquire() as conn:
                # half of them where the conversation is, not the rows
                place = chance.randrange(length if chance.random() < 0.5 else 90)
                forger.place = forger.passed + place
                forger.change = lambda data, at, change=change: change(data, at, chance)
                try:
                    await asyncio.wait_for(road(conn), 5)
                except (psycopg2.Error, ValueError) as error:
                    assert str(error), (place, error)
            forger.change = None
        await pool.clear()  # the last link may be about to end
        async with pool.acquire() as conn:
            assert await fetch(conn, "SELECT 1") == [(1,)]


@LOOPS
async def test_malformed_greetings(ours, dsn, side, forger):
    """What is said before a connection is there."""
    chance = random.Random("greeting")
    before = forger.passed
    async with ours.connect(forger.dsn):
        length = forger.passed - before
    for _ in range(4 * TRIES):
        change = chance.choice(CHANGES)
        forger.place = forger.passed + chance.randrange(length)
        forger.change = lambda data, at, change=change: change(data, at, chance)
        try:
            async with ours.connect(forger.dsn, timeout=5) as conn:
                await conn.execute("SELECT 1")
        except psycopg2.Error as error:
            assert str(error)
        forger.change = None
