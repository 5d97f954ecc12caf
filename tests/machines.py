"""Pools as Hypothesis drives them: any sequence of what users and the server may do."""

import asyncio

import psycopg2
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from support import LONG, new_loop, shut_down

WAIT = 20  # seconds in which everything must have come to rest

# Which of those that there are. When something ends depends on the server, so that what can be done
# next is no part of the plan: where there is nothing, nothing is done.
INDEX = st.integers(0, 11)


class Machine(RuleBasedStateMachine):
    """A pool on a loop of its own, those who acquire, and a second session to look from.

    A subclass makes `pool`; _collect() moves what `acquires` have got to `held`; _end() closes the
    pool in `patience` seconds.
    """

    dsn: str  # of the subclass that drive() makes
    kind: str  # of the loop
    patience: float

    def __init__(self):
        super().__init__()
        self.errors = []
        self.loop = new_loop(self.kind)
        self.loop.set_exception_handler(lambda _, context: self.errors.append(context))
        self.side = psycopg2.connect(self.dsn)
        self.side.autocommit = True
        self.acquires = []
        self.held = []
        self.pool = None

    def run(self, coro):
        return self.loop.run_until_complete(coro)

    @rule()
    def acquire(self):
        async def start():
            self.acquires.append(asyncio.ensure_future(self.pool.acquire()))
            await asyncio.sleep(0)

        self.run(start())

    @rule(index=INDEX)
    def cancel_an_acquire(self, index):
        if self.acquires:
            self.acquires[index % len(self.acquires)].cancel()

    @rule(steps=st.integers(0, 5))
    def go_on(self, steps):
        async def go_on():
            for _ in range(steps):
                await asyncio.sleep(0.0005)

        self.run(go_on())

    def teardown(self):
        try:
            if self.pool is not None:
                self.run(asyncio.wait_for(self._end(), self.patience))
            assert not self.errors
        finally:
            self.side.close()
            shut_down(self.loop)

    async def _give_back(self):
        """Nobody waits for the pool any more, or has a connection of it."""
        for task in self.acquires:
            task.cancel()
        await asyncio.gather(*self.acquires, return_exceptions=True)
        self._collect()
        for conn in self.held:
            self.pool.release(conn)
        self.held.clear()


def drive(machine, dsn, kind, examples):
    """Run sequences of a machine's rules. kind: of the loop."""
    run_state_machine_as_test(
        type("Machine", (machine,), {"dsn": dsn, "kind": kind}),
        settings=settings(
            max_examples=examples,
            stateful_step_count=60 if LONG else 25,
            deadline=None,
            phases=[Phase.generate],  # to shrink takes minutes
            suppress_health_check=list(HealthCheck),
        ),
    )
