"""The pool under any sequence of acquires, releases, cancellations, kills and so on, on a server.

After each step the books must be right; once the loop has nothing to do any more, whoever waits
does so because all places are taken: no wakeup is lost.
"""

import asyncio
import subprocess
import sys
import time
import warnings
from pathlib import Path

import psycopg2
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule
from machines import INDEX, WAIT, Machine, drive
from support import LONG, scalar, side_connection, until

import aiopgx

RELEASES = ["plain", "closed", "killed", "in transaction", "lost"]


class PoolMachine(Machine):
    patience = 2 * WAIT

    @initialize(
        minsize=st.integers(0, 2),
        more=st.integers(0, 2),
        reset=st.sampled_from([None, aiopgx.discard_all]),
        check=st.sampled_from([None, aiopgx.check_connection]),
        reconnect=st.sampled_from([None, 60]),
        lifetime=st.sampled_from([None, 0.05, 60]),
        guard=st.booleans(),
    )
    def make(self, minsize, more, reset, check, reconnect, lifetime, guard):
        self.limit = max(1, minsize + more)
        self.pool = self.run(
            self._make(
                minsize=minsize,
                maxsize=self.limit,
                reset=reset,
                check=check,
                reconnect_timeout=reconnect,
                max_lifetime=lifetime,
                guard=guard,
                timeout=60,
            )
        )

    async def _make(self, **kwargs):
        return await aiopgx.create_pool(self.dsn, **kwargs)

    # What may happen

    @rule()
    def come_to_rest(self):
        async def rest():
            deadline = time.monotonic() + WAIT
            while not self._rests():
                assert time.monotonic() < deadline, f"{self.acquires} {vars(self)}"
                await asyncio.sleep(0.001)

        self.run(rest())

    def _rests(self):
        self._collect()
        pool = self.pool
        if pool._connects or pool._clearing or pool._leaving:
            return False
        return not self.acquires or len(self.held) >= self.limit

    def _collect(self):
        """Who waited has a connection now."""
        for task in [task for task in self.acquires if task.done()]:
            self.acquires.remove(task)
            if not task.cancelled():
                self.held.append(task.result())

    @rule(index=INDEX, how=st.sampled_from(RELEASES))
    def release(self, index, how):
        if not self.held:
            return
        conn = self.held.pop(index % len(self.held))

        async def release():
            if how == "closed":
                conn.close()
            elif how == "killed" and not conn.closed:
                self._kill(await conn.get_backend_pid())
            elif how == "in transaction" and not conn.closed:
                try:
                    (await conn.execute("BEGIN")).close()
                except psycopg2.Error:
                    assert conn.closed
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                self.pool.release(conn)
            if how == "lost":  # before whoever has it now has woken up
                conn.close()

        self.run(release())

    def _kill(self, pid):
        scalar(self.side, "SELECT pg_terminate_backend(%s)", (pid,))

    @rule(index=INDEX)
    def use(self, index):
        if not self.held:
            return
        conn = self.held[index % len(self.held)]

        async def use():
            try:
                async with conn.cursor() as cursor:
                    await cursor.execute("SELECT pg_backend_pid()")
                    ((pid,),) = await cursor.fetchall()
                    assert pid == await conn.get_backend_pid()
            except psycopg2.Error:
                assert conn.closed, "only a killed one fails"

        self.run(use())

    @rule()
    def kill_a_free_one(self):
        for conn in list(self.pool._free)[-1:]:
            if not conn.closed:
                self._kill(conn._conn.get_backend_pid())

    @rule(index=INDEX)
    def kill_one_in_use(self, index):
        conn = self.held[index % len(self.held)] if self.held else None
        if conn is not None and not conn.closed:
            self._kill(conn._conn.get_backend_pid())

    @rule(minsize=st.integers(0, 2), more=st.integers(0, 2))
    def resize(self, minsize, more):
        self.limit = max(1, minsize + more)
        self.run(self.pool.resize(minsize, self.limit))

    @rule()
    def clear(self):
        self.run(self.pool.clear())

    # What must be true

    @invariant()
    def the_books_are_right(self):
        if self.pool is None:
            return
        self._collect()
        pool = self.pool
        parts = [pool._free, pool._used, pool._connects, pool._clearing, pool._leaving]
        assert pool.size == sum(map(len, parts))
        assert pool._crowded or pool.size <= pool.maxsize == self.limit
        assert not (pool._free and pool._waiting)
        assert set(self.held) <= pool._used
        assert not pool._used & set(pool._free)
        assert not self.errors
        stats = pool.get_stats()
        assert stats["pool_available"] == len(pool._free)
        assert stats["usage_ms"] >= 0

    async def _end(self):
        await self._give_back()
        self.pool.close()
        await self.pool.wait_closed()
        await until(lambda: self.pool.size == 0)  # sessions that are being cancelled


def test_any_sequence(ours, dsn):
    drive(PoolMachine, dsn, "asyncio", 300 if LONG else 20)
    with side_connection(dsn) as side:
        others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        deadline = time.monotonic() + WAIT
        while scalar(side, others) > 1:
            assert time.monotonic() < deadline, "sessions are left"
            time.sleep(0.01)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 raises it anywhere")
def test_keyboard_interrupt_takes_no_place(ours, dsn):
    """At random instants, with the loop used further, which uvloop's can't be."""
    rounds = "2000" if LONG else "60"
    program = [sys.executable, "-W", "ignore", Path(__file__).with_name("interrupted.py")]
    child = subprocess.run(
        [*program, dsn, "asyncio", rounds],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert child.stdout.split() == [b"lost", b"0"]
