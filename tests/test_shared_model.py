"""`Pool.execute()` under any sequence of statements, cancellations, kills and acquires.

Each result is compared with what its statement asked for, and what was inserted with what was told.
After each step the books must be right; once all that may end has ended, a statement waits only
where all places are held by others: no wakeup is lost.
"""

import asyncio
import warnings

import psycopg2
import pytest
from conftest import command
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule
from machines import INDEX, WAIT, Machine, drive
from support import LONG, scalar, until

import aiopgx

# What is executed with a number, and the rows that have to come back.
STATEMENTS = {
    "SELECT %s::int": lambda n: [(n,)],
    "SELECT %s::int + 1, pg_sleep(0.003)": lambda n: [(n + 1, "")],
    "SELECT number FROM numbers WHERE number = %s": lambda n: [(n,)] if n < 100 else [],
    "SELECT n FROM generate_series(1, %s::int %% 700) AS n": lambda n: [
        (i,) for i in range(1, n % 700 + 1)
    ],
    "SELECT 1 / (%s::int - %s::int)": lambda n: psycopg2.errors.DivisionByZero,
    "INSERT INTO done (number) VALUES (%s) RETURNING number": lambda n: [(n,)],
    "SELECT %s::int; SELECT 'alone'": lambda n: [("alone",)],
}
KIND = st.sampled_from(sorted(STATEMENTS))
INSERT = next(text for text in STATEMENTS if text.startswith("INSERT"))


class SharingMachine(Machine):
    patience = 3 * WAIT

    def __init__(self):
        super().__init__()
        command(self.side, "TRUNCATE done")
        self.number = 0
        self.killed = False
        self.tasks = []
        self.inserts = {}

    @initialize(
        size=st.integers(1, 3),
        limit=st.sampled_from([1, 2, 16]),
        threshold=st.sampled_from([0, 5, None]),
        check=st.sampled_from([None, None, aiopgx.check_connection]),
        lifetime=st.sampled_from([None, None, 0.05]),
    )
    def make(self, size, limit, threshold, check, lifetime):
        async def make():
            return await aiopgx.create_pool(
                self.dsn,
                maxsize=size,
                max_in_flight=limit,
                prepare_threshold=threshold,
                check=check,
                max_lifetime=lifetime,
                timeout=60,
            )

        self.limit = limit
        self.pool = self.run(make())

    # What may happen

    @rule(
        text=KIND,
        count=st.integers(1, 20),
        timeout=st.sampled_from([None, None, None, 0, 0.002]),
        shared=st.sampled_from([None, None, None, False]),
    )
    def execute(self, text, count, timeout, shared):
        async def start():
            for _ in range(count):
                self.number += 1
                self.tasks.append(
                    asyncio.ensure_future(self._one(text, self.number, timeout, shared))
                )
            await asyncio.sleep(0)

        self.run(start())

    async def _one(self, text, number, timeout, shared):
        if text == INSERT:
            self.inserts[number] = "unknown"
        expected = STATEMENTS[text](number)
        parameters = (number,) * text.replace("%%", "").count("%s")
        try:
            cur = await self.pool.execute(text, parameters, timeout=timeout, shared=shared)
        except asyncio.TimeoutError:
            assert timeout is not None
        except (psycopg2.OperationalError, psycopg2.InterfaceError):
            assert self.killed  # the latter in the middle of a connect
        except psycopg2.Error as error:
            assert type(error) is expected
        else:
            assert await cur.fetchall() == expected
            if text == INSERT:
                self.inserts[number] = "done"

    @rule(index=st.integers(0, 200), step=st.sampled_from([1, 3, 1000]))
    def cancel(self, index, step):
        for task in self.tasks[index % (len(self.tasks) or 1) :: step]:
            task.cancel()

    @rule(index=INDEX)
    def kill(self, index):
        """One of the pool's sessions, whatever it is used for."""
        with self.side.cursor() as cursor:
            cursor.execute(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
                "AND backend_type = 'client backend' AND pid <> pg_backend_pid() ORDER BY pid"
            )
            pids = cursor.fetchall()
        if pids:
            self.killed = True
            scalar(self.side, "SELECT pg_terminate_backend(%s)", pids[index % len(pids)])

    @rule(index=INDEX, close=st.booleans())
    def release(self, index, close):
        async def release(conn):
            if close:
                conn.close()
            self.pool.release(conn)

        self._collect()
        if self.held:
            self.run(release(self.held.pop(index % len(self.held))))

    @rule()
    def come_to_rest(self):
        self.run(until(self._rests, WAIT))
        assert not self.pool._sharing.lanes

    def _rests(self):
        """Whether all that may end has ended."""
        self._collect()
        pool = self.pool
        if pool._connects or pool._clearing or pool._leaving or pool._shared:
            return False
        if len(self.held) >= pool.maxsize:
            return True
        return not (
            self.tasks or self.acquires or pool._sharing.scouts
        ) and pool.size == pool.freesize + len(self.held)

    def _collect(self):
        for task in [task for task in self.acquires if task.done()]:
            self.acquires.remove(task)
            if not task.cancelled() and task.exception() is None:
                self.held.append(task.result())
            assert task.cancelled() or task.exception() is None or self.killed
        for task in [task for task in self.tasks if task.done()]:
            self.tasks.remove(task)
            if not task.cancelled():
                task.result()

    # What must be true

    @invariant()
    def the_books_are_right(self):
        if self.pool is None:
            return
        self._collect()
        pool, lanes = self.pool, self.pool._sharing.lanes
        assert pool.size <= pool.maxsize
        assert {lane.conn for lane in lanes} == pool._shared
        assert not pool._shared & pool._used
        assert not pool._shared & set(pool._free)
        assert not pool._used & set(pool._free)
        assert set(self.held) <= pool._used
        assert all(0 < lane.in_flight <= self.limit for lane in lanes)
        assert not self.errors

    def teardown(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            super().teardown()

    async def _end(self):
        """What waits when the pool is closed comes to its end."""
        await self._give_back()
        await until(self._rests, WAIT)
        assert self.pool.size == self.pool.freesize
        assert not self.pool._sharing.queue or not self.pool._sharing.waiting()
        self.pool.close()
        with pytest.raises(RuntimeError, match="after closing pool"):
            await self.pool.execute("SELECT 1")
        await self.pool.wait_closed()
        assert self.pool.size == 0
        self._compare()

    def _compare(self):
        """Each was inserted once at most, and whoever was told so, is right."""
        with self.side.cursor() as cursor:
            cursor.execute("SELECT number FROM done")
            there = [number for (number,) in cursor.fetchall()]
        assert len(there) == len(set(there))
        assert {n for n, told in self.inserts.items() if told == "done"} <= set(there)
        assert set(there) <= set(self.inserts)


def test_any_sequence(ours, dsn, side):
    command(side, "CREATE TABLE numbers AS SELECT generate_series(0, 99) AS number")
    command(side, "CREATE TABLE done (number int)")
    for kind in ("asyncio", "debug", "uvloop"):
        drive(SharingMachine, dsn, kind, 400 if LONG else 8)
