"""How acquires, releases, connects and their ends interleave in a pool, without a server.

The pool's `connect` is replaced: each connect ends when, and as, the test says.
"""

import asyncio
import logging
import time

import pytest
from support import until

AFTER_CLOSING = "Cannot acquire connection after closing pool"


class ConnectFailed(Exception):
    pass


class FakeConnection:
    def __init__(self, backend):
        self.backend = backend
        self.closed = False
        self.status = 0
        self.last_usage = 0.0
        self.raw = self

    def get_transaction_status(self):
        return self.status

    def close(self):
        self.closed = True
        future = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future


class Backend:
    """Connects at once, or when the future is done that was put into `plan` for it."""

    def __init__(self):
        self.plan = []
        self.started = 0
        self.connecting = 0
        self.conns = []

    @property
    def alive(self):
        return sum(not conn.closed for conn in self.conns)

    def gate(self):
        """Let the next connect that has no gate yet wait for set_result() or set_exception()."""
        self.plan.append(asyncio.get_running_loop().create_future())
        return self.plan[-1]

    async def connect(self, dsn=None, **kwargs):
        self.started += 1
        self.connecting += 1
        try:
            if self.plan:
                await self.plan.pop(0)
            conn = FakeConnection(self)
            self.conns.append(conn)
            return conn
        finally:
            self.connecting -= 1


@pytest.fixture
def backend(impl, monkeypatch):
    backend = Backend()
    monkeypatch.setattr(impl.pool, "connect", backend.connect)
    return backend


@pytest.fixture
def make(impl, backend, runner):
    """``await make(**kw)`` -> a pool, whose books are checked in every turn of the loop."""

    def check(pool):
        assert pool.size == pool.freesize + len(pool._used) + pool._acquiring
        assert backend.alive + backend.connecting <= pool.size
        assert pool.maxsize is None or pool.size <= pool.maxsize
        waiters = getattr(pool, "_waiters", ())
        assert not (pool._free and any(not waiter.done() for waiter in waiters))

    async def watch(pool):
        while True:
            check(pool)
            await asyncio.sleep(0)

    async def end(pool, watcher):
        assert not watcher.done(), watcher.result()
        watcher.cancel()
        pool.terminate()
        await asyncio.wait_for(pool.wait_closed(), 5)
        assert (pool.size, backend.alive, backend.connecting) == (0, 0, 0)

    async def make(**kwargs):
        pool = await impl.create_pool("", **{"minsize": 0, "timeout": 5, **kwargs})
        runner.stack.push_async_callback(end, pool, asyncio.create_task(watch(pool)))
        return pool

    return make


async def turns(count=5):
    for _ in range(count):
        await asyncio.sleep(0)


async def started(coro):
    """A task of it, which has come to its wait."""
    task = asyncio.ensure_future(coro)
    await turns()
    return task


# --- waiters --------------------------------------------------------------------------------------


@pytest.mark.all_loops
async def test_waiters_are_served_in_order(make):
    pool = await make(maxsize=1)
    conn = await pool.acquire()
    seen = []

    async def use(name):
        async with pool.acquire():
            seen.append(name)

    tasks = [await started(use(name)) for name in "abc"]
    pool.release(conn)
    await asyncio.gather(*tasks)
    assert seen == ["a", "b", "c"]


async def test_newcomer_does_not_overtake(ours, make):
    """A connection that was handed to a waiter is not free, though the waiter has not woken yet."""
    pool = await make(maxsize=1)
    conn = await pool.acquire()
    waiter = await started(pool.acquire())
    pool.release(conn)
    newcomer = asyncio.ensure_future(pool.acquire())
    assert await waiter is conn
    await turns()
    assert not newcomer.done()
    pool.release(conn)
    assert await newcomer is conn
    pool.release(conn)


@pytest.mark.all_loops
async def test_cancelled_between_hand_over_and_wake_up(make):
    """The connection goes to the next in the queue."""
    pool = await make(maxsize=1)
    conn = await pool.acquire()
    first, second = await started(pool.acquire()), await started(pool.acquire())
    pool.release(conn)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert await asyncio.wait_for(second, 10) is conn
    assert pool._used == {conn}
    pool.release(conn)


async def test_cancelled_alone_between_hand_over_and_wake_up(ours, make):
    """The connection is free again."""
    pool = await make(maxsize=1)
    conn = await pool.acquire()
    task = await started(pool.acquire())
    pool.release(conn)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list(pool._free) == [conn]


async def test_cancelled_before_a_release(make):
    """The release finds the next in the queue."""
    pool = await make(maxsize=1)
    conn = await pool.acquire()
    first, second = await started(pool.acquire()), await started(pool.acquire())
    first.cancel()
    pool.release(conn)
    with pytest.raises(asyncio.CancelledError):
        await first
    assert await asyncio.wait_for(second, 10) is conn
    pool.release(conn)


async def test_release_just_before_the_timeout(ours, make):
    """The timer fires in the same turn, but the connection was handed over."""
    pool = await make(maxsize=1, timeout=0.2)
    conn = await pool.acquire()
    task = await started(pool.acquire())
    pool.release(conn)
    time.sleep(0.21)  # noqa: ASYNC251
    assert await task is conn
    pool.release(conn)


async def test_release_just_after_the_timeout(ours, make):
    """The timer has fired, the waiter has not woken: the connection is not for it."""
    pool = await make(maxsize=1, timeout=0.05)
    conn = await pool.acquire()
    task = await started(pool.acquire())
    asyncio.get_running_loop().call_later(0.051, pool.release, conn)
    time.sleep(0.06)  # noqa: ASYNC251
    with pytest.raises(asyncio.TimeoutError):
        await task
    await until(lambda: list(pool._free) == [conn])


async def test_timed_out_waiter_passes_its_turn_on(make):
    pool = await make(maxsize=1, timeout=0.1)
    conn = await pool.acquire()
    first = await started(pool.acquire())
    pool._timeout = 5
    second = await started(pool.acquire())
    with pytest.raises(asyncio.TimeoutError):
        await first
    pool.release(conn)
    assert await second is conn
    pool.release(conn)


@pytest.mark.parametrize("how", ["closed", "not idle"])
async def test_release_of_what_can_not_be_used_again(ours, make, backend, how):
    """A waiter gets a new connection in its place, at once."""
    pool = await make(maxsize=1)
    conn = await pool.acquire()
    task = await started(pool.acquire())
    if how == "closed":
        conn.close()
        pool.release(conn)
    else:
        conn.status = 2
        with pytest.warns(ResourceWarning, match="Invalid transaction status"):
            pool.release(conn)
    new = await asyncio.wait_for(task, 10)
    assert new is not conn and conn.closed
    assert backend.started == 2
    pool.release(new)


# --- connects -------------------------------------------------------------------------------------


async def test_slow_connect_blocks_nobody(ours, make, backend):
    pool = await make(maxsize=2)
    conn = await pool.acquire()
    gate = backend.gate()
    slow = await started(pool.acquire())
    assert (pool.size, pool._acquiring) == (2, 1)
    other = await started(pool.acquire())
    pool.release(conn)
    assert await asyncio.wait_for(slow, 10) is conn  # it was first in the queue
    pool.release(conn)
    assert await asyncio.wait_for(other, 10) is conn
    for _ in range(3):
        pool.release(conn)
        assert await asyncio.wait_for(pool.acquire(), 10) is conn
    gate.set_result(None)
    await turns()
    assert (pool.size, pool.freesize) == (2, 1)
    pool.release(conn)


async def test_slow_on_connect_blocks_nobody(ours, make):
    gate = asyncio.get_running_loop().create_future()
    seen = []

    async def on_connect(conn):
        seen.append(conn)
        if len(seen) == 2:
            await gate

    pool = await make(maxsize=2, on_connect=on_connect)
    conn = await pool.acquire()
    slow = await started(pool.acquire())
    pool.release(conn)
    assert await asyncio.wait_for(slow, 10) is conn
    gate.set_result(None)
    await turns()
    assert list(pool._free) == [seen[1]]
    pool.release(conn)


async def test_connects_run_side_by_side(ours, make, backend):
    pool = await make(maxsize=3)
    gates = [backend.gate() for _ in range(3)]
    tasks = [await started(pool.acquire()) for _ in range(3)]
    assert (pool._acquiring, backend.connecting) == (3, 3)
    gates[2].set_result(None)
    first = await tasks[0]  # whatever comes first is for who waits longest
    assert not tasks[1].done() and not tasks[2].done()
    for gate in gates[:2]:
        gate.set_result(None)
    for conn in (first, await tasks[1], await tasks[2]):
        pool.release(conn)


async def test_failed_connect_is_told_to_who_started_it(make, backend):
    """Another waiter is not harmed: a connect is started for it."""
    pool = await make(maxsize=1)
    gate = backend.gate()
    first, second = await started(pool.acquire()), await started(pool.acquire())
    gate.set_exception(ConnectFailed())
    with pytest.raises(ConnectFailed):
        await first
    conn = await asyncio.wait_for(second, 10)
    assert backend.started == 2
    pool.release(conn)


async def test_connect_fails_after_its_starter_was_served(ours, make, backend, caplog):
    """A new one is started for who waits; the error is logged."""
    pool = await make(maxsize=2)
    conn = await pool.acquire()
    gate = backend.gate()
    first, second = await started(pool.acquire()), await started(pool.acquire())
    pool.release(conn)
    assert await first is conn
    assert backend.started == 2
    with caplog.at_level(logging.WARNING, "aiopg"):
        gate.set_exception(ConnectFailed())
        other = await asyncio.wait_for(second, 10)
    assert backend.started == 3
    (record,) = caplog.records
    assert record.exc_info[0] is ConnectFailed
    pool.release(conn)
    pool.release(other)


async def test_connect_fails_in_the_turn_of_a_release(ours, make, backend, caplog):
    """The release came first: the starter has its connection, the error is logged."""
    pool = await make(maxsize=2)
    conn = await pool.acquire()
    gate = backend.gate()
    task = await started(pool.acquire())
    gate.set_exception(ConnectFailed())
    pool.release(conn)
    with caplog.at_level(logging.WARNING, "aiopg"):
        assert await task is conn
        await turns()
    assert len(caplog.records) == 1
    assert pool.size == 1
    pool.release(conn)


async def test_connect_fails_and_its_starter_is_cancelled(ours, make, backend, caplog):
    """The error has reached the waiter, but not the task: it is logged."""
    pool = await make(maxsize=1)
    gate = backend.gate()
    task = await started(pool.acquire())
    (connect,) = pool._connects
    connect.add_done_callback(lambda connect: task.cancel())  # runs after the pool's own
    gate.set_exception(ConnectFailed())
    with caplog.at_level(logging.WARNING, "aiopg"), pytest.raises(asyncio.CancelledError):
        await task
    assert [record.exc_info[0] for record in caplog.records] == [ConnectFailed]


@pytest.mark.all_loops
async def test_cancelled_acquire_cancels_its_connect(make, backend):
    pool = await make(maxsize=1)
    backend.gate()
    task = await started(pool.acquire())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await turns()
    assert (backend.connecting, pool.size) == (0, 0)
    async with pool.acquire():
        assert pool.size == 1


async def test_connection_half_made_when_cancelled_is_closed(ours, make, backend):
    """Half made: it has not been through on_connect."""
    conns = []

    async def on_connect(conn):
        conns.append(conn)
        await asyncio.sleep(10)

    pool = await make(maxsize=1, on_connect=on_connect)
    task = await started(pool.acquire())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await turns()
    assert [conn.closed for conn in conns] == [True]
    assert pool.size == 0


async def test_connect_of_a_cancelled_acquire_is_left_to_others(ours, make, backend):
    pool = await make(maxsize=1)
    gate = backend.gate()
    first, second = await started(pool.acquire()), await started(pool.acquire())
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    gate.set_result(None)
    conn = await asyncio.wait_for(second, 10)
    assert backend.started == 1
    pool.release(conn)


@pytest.mark.parametrize("when", ["before the hand-over", "after it"])
async def test_connect_that_ends_in_the_turn_of_the_cancel(ours, make, backend, when):
    """The connection is not lost."""
    pool = await make(maxsize=1)
    gate = backend.gate()
    task = await started(pool.acquire())
    (connect,) = pool._connects
    event = gate if when == "before the hand-over" else connect
    event.add_done_callback(lambda event: task.cancel())
    gate.set_result(None)
    with pytest.raises(asyncio.CancelledError):
        await task
    await turns()
    assert (pool.size, pool.freesize) == (1, 1)


async def test_waiter_gets_the_place_of_a_cancelled_connect(ours, make, backend):
    """The place is taken until the connect has really ended; then a new one is started."""
    pool = await make(maxsize=1)
    backend.gate()
    first = await started(pool.acquire())
    first.cancel()
    second = asyncio.ensure_future(pool.acquire())
    with pytest.raises(asyncio.CancelledError):
        await first
    conn = await asyncio.wait_for(second, 10)
    pool.release(conn)


async def test_connect_cancelled_from_outside(ours, make, backend):
    """As asyncio.run() does at its end: the acquire ends as well."""
    pool = await make(maxsize=1)
    backend.gate()
    task = await started(pool.acquire())
    (connect,) = pool._connects
    connect.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert pool.size == 0


async def test_on_connect_that_hangs(ours, make):
    """Its place is free after the pool's timeout, for those who wait."""
    count = 0

    async def on_connect(conn):
        nonlocal count
        count += 1
        if count == 1:
            await asyncio.sleep(10)

    pool = await make(maxsize=1, timeout=0.1, on_connect=on_connect)
    first = await started(pool.acquire())
    pool._timeout = 5
    second = await started(pool.acquire())
    with pytest.raises(asyncio.TimeoutError):
        await first
    conn = await second
    assert count == 2
    pool.release(conn)


async def test_failing_on_connect_closes_the_connection(ours, make, backend):
    async def on_connect(conn):
        raise ConnectFailed

    pool = await make(on_connect=on_connect)
    with pytest.raises(ConnectFailed):
        await pool.acquire()
    assert [conn.closed for conn in backend.conns] == [True]


# --- minsize --------------------------------------------------------------------------------------


async def test_fill_that_fails_closes_what_was_made(impl, ours, backend):
    for gate in [backend.gate() for _ in range(2)]:
        gate.set_result(None)
    backend.gate().set_exception(ConnectFailed())
    with pytest.raises(ConnectFailed):
        await impl.create_pool("", minsize=3)
    assert [conn.closed for conn in backend.conns] == [True, True]


async def test_cancelled_fill_closes_what_was_made(impl, ours, backend):
    backend.gate().set_result(None)
    backend.gate()
    backend.gate()
    task = await started(impl.create_pool("", minsize=3))
    assert backend.started == 3, "all at once"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [conn.closed for conn in backend.conns] == [True]


async def test_acquire_tops_up(make, backend):
    """Two acquires of a pool that had lost all of its three: three connects, not five."""
    pool = await make(minsize=3)
    for conn in pool._free:
        conn.close()
    conns = await asyncio.gather(pool.acquire(), pool.acquire())
    await turns()
    assert (pool.size, pool.freesize) == (3, 1)
    assert backend.started == 6
    for conn in conns:
        pool.release(conn)


async def test_acquire_of_a_free_connection_tops_up(make, backend):
    pool = await make(minsize=2)
    pool._free[1].close()
    async with pool.acquire():
        assert pool.size == 2
    await until(lambda: pool.freesize == 2)


async def test_release_does_not_top_up(make, backend):
    pool = await make(minsize=1)
    conn = await pool.acquire()
    conn.close()
    pool.release(conn)
    await turns()
    assert (pool.size, backend.started) == (0, 1)


async def test_waiters_come_before_the_top_up(ours, make, backend):
    pool = await make(minsize=3, maxsize=3)
    for conn in pool._free:
        conn.close()
    gates = [backend.gate() for _ in range(3)]
    tasks = [await started(pool.acquire()) for _ in range(4)]
    assert pool._acquiring == 3
    for gate in gates:
        gate.set_result(None)
    conns = [await task for task in tasks[:3]]
    assert not tasks[3].done()
    pool.release(conns[0])
    assert await tasks[3] is conns[0]
    for conn in conns:
        pool.release(conn)


async def test_failed_top_up_is_logged_and_not_repeated(ours, make, backend, caplog):
    pool = await make(minsize=2)
    pool._free[1].close()
    backend.gate().set_exception(ConnectFailed())
    with caplog.at_level(logging.WARNING, "aiopg"):
        async with pool.acquire():
            await turns(20)
    assert backend.started == 3
    assert [record.exc_info[0] for record in caplog.records] == [ConnectFailed]
    assert caplog.records[0].name == "aiopg"


# --- the end --------------------------------------------------------------------------------------


async def test_close_serves_the_waiters(ours, make):
    pool = await make(maxsize=1)
    conn = await pool.acquire()
    first, second = await started(pool.acquire()), await started(pool.acquire())
    pool.close()
    end = await started(pool.wait_closed())
    for task in (first, second):
        pool.release(conn)
        conn = await asyncio.wait_for(task, 10)
        assert not conn.closed
    assert not end.done()
    pool.release(conn)
    assert conn.closed
    await asyncio.wait_for(end, 10)


async def test_close_during_a_connect(ours, make, backend):
    """Who waits for it gets it; the pool's end comes after its release."""
    pool = await make()
    gate = backend.gate()
    task = await started(pool.acquire())
    pool.close()
    end = await started(pool.wait_closed())
    gate.set_result(None)
    conn = await task
    assert not end.done()
    pool.release(conn)
    await asyncio.wait_for(end, 10)
    assert (conn.closed, pool.size) == (True, 0)


async def test_close_during_a_connect_nobody_waits_for(ours, make, backend):
    pool = await make(maxsize=2)
    conn = await pool.acquire()
    gate = backend.gate()
    task = await started(pool.acquire())
    pool.release(conn)
    pool.release(await task)
    pool.close()
    end = await started(pool.wait_closed())
    assert not end.done()
    gate.set_result(None)
    await asyncio.wait_for(end, 10)
    assert backend.alive == 0


async def test_close_when_the_connect_fails(ours, make, backend):
    pool = await make()
    gate = backend.gate()
    task = await started(pool.acquire())
    pool.close()
    end = await started(pool.wait_closed())
    gate.set_exception(ConnectFailed())
    with pytest.raises(ConnectFailed):
        await task
    await asyncio.wait_for(end, 10)


async def test_many_wait_for_the_end_and_one_gives_up(ours, make):
    pool = await make()
    conn = await pool.acquire()
    pool.close()
    ends = [await started(pool.wait_closed()) for _ in range(3)]
    ends[0].cancel()
    await turns()
    pool.release(conn)
    await asyncio.wait_for(asyncio.gather(*ends[1:]), 10)
    assert ends[0].cancelled()


async def test_terminate_with_waiters(ours, make):
    pool = await make(maxsize=1)
    conn = await pool.acquire()
    tasks = [await started(pool.acquire()) for _ in range(2)]
    pool.terminate()
    for task in tasks:
        with pytest.raises(RuntimeError, match=AFTER_CLOSING):
            await task
    await asyncio.wait_for(pool.wait_closed(), 10)
    pool.release(conn)
    assert not pool._terminated


async def test_terminate_during_a_connect(ours, make, backend):
    pool = await make()
    backend.gate()
    task = await started(pool.acquire())
    pool.terminate()
    with pytest.raises(RuntimeError, match=AFTER_CLOSING):
        await task
    await asyncio.wait_for(pool.wait_closed(), 10)
    assert (backend.connecting, backend.alive) == (0, 0)


async def test_terminate_during_a_connect_nobody_waits_for(ours, make, backend):
    pool = await make(maxsize=2)
    conn = await pool.acquire()
    backend.gate()
    task = await started(pool.acquire())
    pool.release(conn)
    assert await task is conn
    pool.terminate()
    await asyncio.wait_for(pool.wait_closed(), 10)
    assert (backend.connecting, pool.size) == (0, 0)
    pool.release(conn)


async def test_terminate_between_hand_over_and_wake_up(ours, make):
    pool = await make(maxsize=1)
    conn = await pool.acquire()
    task = await started(pool.acquire())
    pool.release(conn)
    pool.terminate()
    with pytest.raises(RuntimeError, match=AFTER_CLOSING):
        await task
    assert conn.closed
    assert not pool._terminated


# --- what an acquire costs ------------------------------------------------------------------------


async def test_nothing_is_made_when_a_connection_is_free(ours, make, monkeypatch):
    pool = await make(minsize=1)
    loop = asyncio.get_running_loop()
    made = []

    def spy(name):
        original = getattr(loop, name)

        def call(*args, **kwargs):
            made.append(name)
            return original(*args, **kwargs)

        monkeypatch.setattr(loop, name, call)

    for name in ("create_task", "create_future", "call_soon", "call_later", "call_at"):
        spy(name)
    async with pool.acquire():
        pass
    conn = await pool.acquire()
    await pool.release(conn)
    monkeypatch.undo()
    assert made == []
