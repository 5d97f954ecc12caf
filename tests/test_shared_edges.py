"""`Pool.execute()` where things meet: adapters, failing connects, a fork, what is collected."""

import asyncio
import gc
import os
import weakref

import psycopg2
import pytest
from conftest import command
from psycopg2.extensions import TRANSACTION_STATUS_ACTIVE
from support import scalar, until

native = pytest.mark.skipif(
    "not __import__('aiopgx').capabilities().native",
    reason="statements share connections on the native road alone",
)

SLEEP = "SELECT pg_sleep(%s), pg_backend_pid()"


@pytest.fixture
def make(ours, pool):
    return pool


async def rows(pool, operation, parameters=None, **kwargs):
    cur = await pool.execute(operation, parameters, **kwargs)
    return await cur.fetchall()


def settled(pool, size=None):
    """Whether nothing is in use; with `size` connections."""
    return pool.size == pool.freesize and (size is None or pool.size == size)


class Adapted:
    """A value for which a function of the program writes the literal."""

    def __init__(self, write):
        self.write = write

    def __conform__(self, protocol):
        return self

    def getquoted(self):
        return self.write()


@pytest.mark.parametrize("operation", ["SELECT 1", "SET work_mem = 64"])
async def test_the_timeout_is_for_all_of_it(make, operation):
    pool = await make(maxsize=1)
    async with pool.acquire():
        started = asyncio.get_running_loop().time()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(pool.execute(operation, timeout=0.05), 2)
        assert asyncio.get_running_loop().time() - started < 1
    assert settled(pool, 1)


@pytest.mark.parametrize("operation", ["SELECT 1", "SET work_mem = 64"])
async def test_the_timeout_tells_who_has_the_connections(make, operation):
    pool = await make(maxsize=1)
    async with pool.acquire():
        text = r"no connection within \S+ s: 1 of 1 in use, 0 being connected, 1 waiting"
        with pytest.raises(asyncio.TimeoutError, match=text):
            await pool.execute(operation, timeout=0.05)
    assert settled(pool, 1)


@pytest.mark.parametrize("operation", ["SELECT 1", "SET work_mem = 64"])
async def test_the_timeout_tells_why_connects_fail(ours, operation):
    pool = await ours.create_pool("host=127.0.0.1 port=1", minsize=0, reconnect_timeout=60)
    first = asyncio.ensure_future(pool.acquire())
    await until(lambda: pool._upkeep.outage)
    with pytest.raises(asyncio.TimeoutError, match=r"connects fail: .*refused") as caught:
        await pool.execute(operation, timeout=0.05)
    assert isinstance(caught.value.__cause__, psycopg2.OperationalError)
    pool.terminate()
    await pool.wait_closed()
    with pytest.raises(RuntimeError):
        await first


@native
async def test_a_pool_without_limit_shares_ten(make):
    pool = await make(minsize=0, maxsize=0)
    await asyncio.gather(*(rows(pool, "SELECT pg_sleep(0.01)") for _ in range(40)))
    await until(lambda: settled(pool))
    assert pool.size <= 10
    held = [await pool.acquire() for _ in range(12)]
    pid = (await rows(pool, "SELECT pg_backend_pid()"))[0][0]
    assert pid not in [await conn.get_backend_pid() for conn in held]
    for conn in held:
        pool.release(conn)
    await until(lambda: settled(pool) and pool.size <= 13)


@native
async def test_a_connect_that_fails_meanwhile(make, gate):
    """It was started for a statement that has got another connection since."""
    first, fail = asyncio.Event(), asyncio.Event()

    async def on_connect(conn):
        if first.is_set():
            await fail.wait()
            raise ZeroDivisionError
        first.set()

    pool = await make(minsize=1, maxsize=2, on_connect=on_connect)
    conn = await pool.acquire()
    task = asyncio.ensure_future(rows(pool, "SELECT count(*), pg_backend_pid() FROM gate"))
    await until(lambda: pool._connects)
    pool.release(conn)
    await until(lambda: pool._shared)
    fail.set()
    await until(lambda: not pool._connects)
    gate.commit()
    assert (await task)[0][1] == await conn.get_backend_pid()
    await until(lambda: settled(pool))


@native
async def test_sharing_is_use(make):
    """pool_recycle closes what was unused."""
    pool = await make(maxsize=1)
    (conn,) = pool._free
    conn._last_usage = 0
    await rows(pool, "SELECT 1")
    assert conn.last_usage > 0


@native
async def test_a_dropped_pool_is_gone(ours, dsn):
    gc.collect()
    gc.disable()
    try:
        pool = await ours.create_pool(dsn, maxsize=1, max_in_flight=1)
        await asyncio.gather(*(rows(pool, "SELECT 1") for _ in range(3)))
        await pool.clear()
        ref = weakref.ref(pool)
        del pool
        await asyncio.sleep(0)
        assert ref() is None
    finally:
        gc.enable()


@native
async def test_an_adapter_closes_the_connection(make):
    pool = await make(maxsize=1)

    def write():
        for lane in pool._sharing.lanes:
            lane.conn.close()
        raise ZeroDivisionError

    done = await asyncio.gather(
        rows(pool, "SELECT %s", (Adapted(write),)),
        *(rows(pool, "SELECT %s::int", (n,)) for n in range(3)),
        return_exceptions=True,
    )
    assert type(done[0]) is ZeroDivisionError
    assert done[1:] == [[(n,)] for n in range(3)]
    assert settled(pool)


@native
async def test_an_adapter_closes_the_connection_that_others_wait_for(make):
    pool = await make(maxsize=1)
    conn = await pool.acquire()

    def write():
        conn.close()
        raise ZeroDivisionError

    tasks = [
        asyncio.ensure_future(rows(pool, "SELECT %s", (Adapted(write),))),
        *(asyncio.ensure_future(rows(pool, "SELECT %s::int", (n,))) for n in range(3)),
    ]
    await asyncio.sleep(0)
    pool.release(conn)
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert type(done[0]) is ZeroDivisionError
    assert done[1:] == [[(n,)] for n in range(3)]
    assert settled(pool)


@native
@pytest.mark.parametrize("raw", [False, True])
async def test_an_adapter_closes_the_connection_and_goes_on(make, raw):
    pool = await make(maxsize=1)
    conn = await pool.acquire()

    def write():
        (conn.raw if raw else conn).close()
        return b"1"

    tasks = [
        asyncio.ensure_future(rows(pool, "SELECT %s", (Adapted(write),))),
        *(asyncio.ensure_future(rows(pool, "SELECT %s::int", (n,))) for n in range(3)),
    ]
    await asyncio.sleep(0)
    pool.release(conn)
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert type(done[0]) is psycopg2.InterfaceError
    assert done[1:] == [[(n,)] for n in range(3)]
    assert settled(pool)


@pytest.mark.parametrize("shared", [None, False])
@pytest.mark.parametrize("kind", [list, dict])
async def test_parameters_that_change_while_it_waits(make, kind, shared):
    parameters = [1] if kind is list else {"a": 1}
    pool = await make(maxsize=1)
    text = "SELECT %s" if isinstance(parameters, list) else "SELECT %(a)s"
    async with pool.acquire():
        task = asyncio.ensure_future(rows(pool, text, parameters, shared=shared))
        await asyncio.sleep(0)
        parameters["a" if isinstance(parameters, dict) else 0] = 2
    assert await task == [(1,)]


@native
async def test_no_transaction_is_shared(make):
    async def on_connect(conn):
        await conn.execute("BEGIN")

    pool = await make(minsize=1, maxsize=1, on_connect=on_connect)
    with pytest.warns(ResourceWarning, match="Invalid transaction status"):
        done = await asyncio.gather(
            rows(pool, "SELECT 1 / 0"), rows(pool, "SELECT 2"), return_exceptions=True
        )
    assert type(done[0]) is psycopg2.errors.DivisionByZero
    assert done[1] == [(2,)]


@native
async def test_a_forked_child_is_told(make):
    pool = await make(maxsize=1)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            task = pool.execute("SELECT 1", timeout=3)
            coro = task._coro
            try:
                coro.send(None)
                os.write(write, b"waits")
            except BaseException as error:
                os.write(write, repr(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    await asyncio.to_thread(os.waitpid, pid, 0)
    text = os.read(read, 1000)
    os.close(read)
    assert text.startswith(b"RuntimeError"), text
    assert await rows(pool, "SELECT 1") == [(1,)]


@native
async def test_a_connection_that_is_looked_after_is_shared(make):
    """What goes out behind a statement keeps nobody away."""
    pool = await make(maxsize=1, prepare_threshold=1)
    async with pool.acquire() as conn, conn.cursor() as cur:
        await cur.execute("SELECT relname FROM pg_class WHERE oid = %s", (1,))
    assert not conn.isexecuting()
    assert conn.raw.get_transaction_status() == TRANSACTION_STATUS_ACTIVE  # behind our back
    task = asyncio.ensure_future(rows(pool, "SELECT 1"))
    await asyncio.sleep(0)
    assert pool._shared
    assert await task == [(1,)]
    assert settled(pool)


@native
async def test_those_that_wait_go_out_together(make):
    """Also where acquires wait all the time."""
    pool = await make(maxsize=1)
    going = True
    turns = 0

    async def hold():
        nonlocal turns
        while going:
            async with pool.acquire():
                turns += 1
                await asyncio.sleep(0)

    holders = [asyncio.ensure_future(hold()) for _ in range(3)]
    await asyncio.sleep(0)
    await asyncio.gather(*(rows(pool, "SELECT 1") for _ in range(64)))
    assert turns <= 16
    going = False
    await asyncio.gather(*holders)


@native
async def test_what_was_not_sent_keeps_its_order(make, side):
    command(side, "DROP TABLE IF EXISTS ordered; CREATE TABLE ordered (id serial, number int)")
    pool = await make(maxsize=1, max_in_flight=8)
    (conn,) = pool._free
    tasks = [
        asyncio.ensure_future(pool.execute("INSERT INTO ordered (number) VALUES (%s)", (n,)))
        for n in range(8)
    ]
    await asyncio.sleep(0)
    assert pool._shared
    conn.close()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    # whether the server executes what was on its way when the connection closed, nobody knows
    unsent = [n for n, result in enumerate(results) if not isinstance(result, Exception)]
    assert unsent and unsent == list(range(unsent[0], 8))
    stored = "SELECT array_agg(number ORDER BY id) FROM ordered WHERE number = ANY(%s)"
    assert scalar(side, stored, (unsent,)) == unsent


@native
async def test_a_loop_that_ends_meanwhile(ours, dsn):
    """Nothing is said but what asyncio says."""

    def run():
        loop = asyncio.new_event_loop()
        pool = loop.run_until_complete(_pool(ours, dsn))
        coro = rows(pool, "SELECT pg_sleep(0.2)")
        task = loop.create_task(coro)
        loop.run_until_complete(asyncio.sleep(0.05))
        loop.close()
        task._log_destroy_pending = False
        coro.close()
        for conn in pool._shared:
            conn.close()
        for conn in pool._free:
            conn.close()
        del pool, coro, task

    await asyncio.get_running_loop().run_in_executor(None, run)


async def _pool(ours, dsn):
    return await ours.create_pool(dsn, maxsize=1)


# --- the pool's keywords --------------------------------------------------------------------------


class Checks:
    """A `check` that finds something wrong with the first so many connections."""

    def __init__(self, wrong=0):
        self.wrong = wrong
        self.pids = []

    async def __call__(self, conn):
        self.pids.append(await conn.get_backend_pid())
        await conn.execute("SELECT 'checked'")
        if len(self.pids) <= self.wrong:
            raise ZeroDivisionError


@native
@pytest.mark.all_loops
async def test_what_is_shared_is_checked_before(make):
    check = Checks(wrong=1)
    pool = await make(maxsize=2, check=check)
    done = await asyncio.gather(*(rows(pool, SLEEP, (0.01,)) for _ in range(20)))
    assert {pid for ((_, pid),) in done} <= set(check.pids[1:])
    assert len(check.pids) < 20
    await until(lambda: settled(pool))
    before = len(check.pids)
    await rows(pool, "SELECT 1")
    assert len(check.pids) == before + 1
    assert settled(pool)


@native
async def test_a_check_that_always_fails(make):
    pool = await make(maxsize=2, check=Checks(wrong=10**6))
    with pytest.raises(asyncio.TimeoutError):
        await pool.execute("SELECT 1", timeout=0.3)
    await until(lambda: not pool._shared)


@native
async def test_a_checked_pool_starves_nobody(make):
    pool = await make(maxsize=1, check=Checks())
    going = True
    count = 0

    async def hold():
        while going:
            async with pool.acquire():
                await asyncio.sleep(0)

    async def stream():
        nonlocal count
        while going:
            await rows(pool, "SELECT 1")
            count += 1

    tasks = [asyncio.ensure_future(each()) for each in (hold, hold, stream, stream, stream)]
    for _ in range(3):
        before = count
        async with pool.acquire():
            pass
        await until(lambda before=before: count > before + 5)
    going = False
    await asyncio.gather(*tasks)
    await until(lambda: settled(pool, 1))


@native
async def test_the_end_of_a_lifetime(make):
    """Also of a connection that never rests."""
    pool = await make(maxsize=1, max_lifetime=0.2)
    pids = set()

    async def stream():
        while len(pids) < 3:
            pids.update(*await rows(pool, "SELECT pg_backend_pid()"))

    await asyncio.wait_for(asyncio.gather(*(stream() for _ in range(5))), 10)
    await until(lambda: pool.size == 1)


@native
async def test_a_pool_that_becomes_smaller(make):
    pool = await make(minsize=3, maxsize=3)
    going = True

    async def stream():
        while going:
            await rows(pool, "SELECT 1")

    tasks = [asyncio.ensure_future(stream()) for _ in range(60)]
    await until(lambda: len(pool._shared) == 3)
    await pool.resize(1, 1)
    await until(lambda: pool.size == 1)
    going = False
    await asyncio.gather(*tasks)
    await until(lambda: settled(pool, 1))


@native
async def test_statistics(make):
    pool = await make(maxsize=1, max_in_flight=2)
    pool.get_stats()
    before = pool.get_stats()["requests_num"]
    tasks = [asyncio.ensure_future(rows(pool, SLEEP, (0.05,))) for _ in range(5)]
    await asyncio.sleep(0)
    assert pool.get_stats()["requests_waiting"] == 3
    await asyncio.gather(*tasks)
    await pool.execute("SET work_mem = 64")
    stats = pool.get_stats()
    assert stats["requests_num"] == before + 6
    assert stats["requests_queued"] == 3
    assert stats["requests_waiting"] == 0
    assert stats["requests_wait_ms"] >= 50
    assert stats["requests_errors"] == 0
    async with pool.acquire():
        with pytest.raises(asyncio.TimeoutError):
            await pool.execute("SELECT 1", timeout=0.01)
    assert pool.get_stats()["requests_errors"] == 1


@native
async def test_no_more_wait_than_may(ours, make):
    pool = await make(maxsize=1, max_in_flight=2, max_waiting=3)
    done = await asyncio.gather(
        *(rows(pool, SLEEP, (0.05,)) for _ in range(7)), return_exceptions=True
    )
    assert [type(outcome) for outcome in done] == [list] * 5 + [ours.TooManyRequests] * 2
    assert settled(pool, 1)


@native
async def test_guarded_and_reset(ours, make):
    pool = await make(maxsize=1, guard=True, reset=ours.discard_all)
    for _ in range(2):
        assert await rows(pool, "SELECT 1") == [(1,)]
        async with pool.acquire() as conn:
            await conn.execute("SET work_mem = 64")
        assert await rows(pool, "SELECT current_setting('work_mem') = '64kB'") == [(False,)]
    await until(lambda: settled(pool, 1))


async def test_a_check_fails_as_its_acquire_is_cancelled(ours):
    """Nobody complains of an exception that was never retrieved."""
    errors = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: errors.append(context))

    async def fail():
        raise ZeroDivisionError

    for steps in range(1, 6):
        task = asyncio.ensure_future(ours.pool_upkeep.within(None, fail()))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(0)
        del task
        gc.collect()
    assert not errors
