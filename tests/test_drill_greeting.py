"""Drills: what a server says before a connection is there, malformed.

What a real server says is changed on its way, then the link ends, so that nobody waits for the
rest in vain. What comes later: test_drill_hostile.py.
"""

import random

import psycopg2
import pytest
from drills import LOOPS
from proxy import Proxy, in_front
from support import LONG

TRIES = 6000 if LONG else 32

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
    with in_front(dsn, Forger) as proxy:
        yield proxy


@LOOPS
async def test_malformed_greetings(ours, forger):
    """An error of psycopg2's, or a connection."""
    chance = random.Random("greeting")
    before = forger.passed
    async with ours.connect(forger.dsn):
        length = forger.passed - before
    for _ in range(TRIES):
        change = chance.choice(CHANGES)
        forger.place = forger.passed + chance.randrange(length)
        forger.change = lambda data, at, change=change: change(data, at, chance)
        try:
            async with ours.connect(forger.dsn, timeout=5) as conn:
                await conn.execute("SELECT 1")
        except psycopg2.Error as error:
            assert str(error)
        forger.change = None
