"""Drills: a pool with many who wait, and programs that use it wrongly.

Elsewhere: who waits, is served and gives up (test_pool_order.py), released twice, to the wrong
pool, within a transaction, an `on_connect` that fails (test_pool.py); another thread, another
loop, after a fork, a closed loop (test_loops.py, test_left_behind.py, test_links.py); `raw` used
behind our back (test_cancel.py, test_left_behind.py); the interpreter's end with queries in
flight (test_resources.py, test_ending.py).
"""

import asyncio
import contextlib
import gc
import io
import multiprocessing
import os
import select
import signal
import warnings

import psycopg2
import pytest
from drills import LOOPS, nothing_left
from psycopg2.extensions import TRANSACTION_STATUS_IDLE
from support import LONG, fetch, new_loop, shut_down, underway, until

import aiopgx


@LOOPS
async def test_first_in_first_out(ours, dsn, side):
    """A thousand wait, every seventh of which gives up: the others are served in their order."""
    served = []

    async def one(pool, number):
        async with pool.acquire() as conn:
            served.append(number)
            if number % 50 == 0:
                assert await fetch(conn, "SELECT %s::int", (number,)) == [(number,)]

    count = 50_000 if LONG else 1000
    async with nothing_left(ours, dsn, side, maxsize=3) as pool:
        tasks = [asyncio.ensure_future(one(pool, number)) for number in range(count)]
        await asyncio.sleep(0)
        for task in tasks[3::7]:
            task.cancel()
        await asyncio.wait(tasks)
        given_up = {number for number, task in enumerate(tasks) if task.cancelled()}
        assert served == [number for number in range(count) if number not in given_up]


@LOOPS
async def test_two_tasks_on_one_connection(ours, dsn, side):
    """Each has its own result, or is told that it can't be had; the pool is none the worse."""
    async with nothing_left(ours, dsn, side, maxsize=1) as pool:
        for _ in range(500 if LONG else 5):
            async with pool.acquire() as conn:
                asked = [fetch(conn, "SELECT %s::int, pg_sleep(0)::text", (n,)) for n in range(4)]
                got = await asyncio.gather(*asked, return_exceptions=True)
            for number, outcome in enumerate(got):
                right = [(number, "")]
                assert outcome == right or isinstance(outcome, (psycopg2.Error, RuntimeError))


@LOOPS
async def test_collected_in_the_middle_of_a_query(ours, dsn, side):
    """Collections at any moment take nothing away from a query."""
    async with nothing_left(ours, dsn, side, maxsize=1) as pool:
        for number in range(200 if LONG else 3):
            async with pool.acquire() as conn:
                asked = fetch(conn, "SELECT %s::int FROM pg_sleep(0.01)", (number,))
                task = await underway(conn, asked)
                del asked
                gc.collect()
                assert await task == [(number,)]


# --- in another thread, another loop, another process ---------------------------------------------


class Things:
    """A pool of two connections, one of which is in use, with cursors; and a Listener."""

    async def make(self, impl, dsn):
        self.pool = await impl.create_pool(dsn, minsize=2, maxsize=2)
        self.conn = await self.pool.acquire()
        self.cur = await self.conn.cursor()
        self.road = await self.conn.cursor()
        assert self.road.raw
        self.named = await self.conn.cursor("named", withhold=True)
        await self.named.execute("SELECT generate_series(1, 5)")
        await self.conn.add_listener("heard", hear)
        self.listener = impl.Listener(dsn, ["news"])
        await self.listener.__aenter__()

    async def are_well(self):
        assert await fetch(self.conn, "SELECT 1") == [(1,)]
        assert await self.named.fetchmany(2) == [(1,), (2,)]
        async with self.pool.acquire() as conn:
            assert await fetch(conn, "SELECT 2") == [(2,)]

    async def close(self):
        await self.conn.remove_listener("heard", hear)
        await self.named.close()
        self.pool.release(self.conn)
        assert self.pool.size == self.pool.freesize
        self.pool.close()
        await self.pool.wait_closed()
        await self.listener.close()


def hear(conn, pid, channel, payload):
    raise AssertionError("nothing is said")


async def block(manager):
    async with manager:
        pass


FILE = io.StringIO
REFUSED = {
    "execute": lambda t: t.cur.execute("SELECT 1"),
    "execute of a connection": lambda t: t.conn.execute("SELECT 1"),
    "execute, prepared": lambda t: t.cur.execute("SELECT %s + 1", (1,), prepare=True),
    "execute, psycopg2's road": lambda t: t.road.execute("SELECT 1"),
    "callproc": lambda t: t.cur.callproc("now"),
    "executemany": lambda t: t.cur.executemany("SELECT %s", [(1,)]),
    "execute_values": lambda t: t.cur.execute_values("VALUES %s", [(1,)]),
    "stream": lambda t: anext(aiter(t.cur.stream("SELECT 1"))),
    "copy_from": lambda t: t.cur.copy_from(FILE("1\n"), "x"),
    "copy_expert": lambda t: t.cur.copy_expert("COPY x TO STDOUT", FILE()),
    "copy_records": lambda t: t.conn.copy_records_to_table("x", records=[(1,)]),
    "fetch of a named cursor": lambda t: t.named.fetchone(),
    "close of a named cursor": lambda t: t.named.close(),
    "pipeline": lambda t: block(t.conn.pipeline()),
    "begin": lambda t: block(t.cur.begin()),
    "add_listener": lambda t: t.conn.add_listener("x", print),
    "remove_listener": lambda t: t.conn.remove_listener("heard", hear),
    "cancel": lambda t: t.conn.cancel(),
    "reset": lambda t: t.conn.reset(),
    "tpc_begin": lambda t: t.conn.tpc_begin("x"),
    "tpc_recover": lambda t: t.conn.tpc_recover(),
    "acquire": lambda t: block(t.pool.acquire()),
    "execute of a pool": lambda t: t.pool.execute("SELECT 1"),
    "release": lambda t: t.pool.release(t.conn),
    "clear": lambda t: t.pool.clear(),
    "resize": lambda t: t.pool.resize(1, 3),
    "listen": lambda t: t.listener.listen("x"),
}
# In a child these have nothing to do: what they would end is the parent's.
NOTHING = ["close of a named cursor"]


def without_loop(use, things):
    """Let it go its first steps, as in a thread that has no event loop."""
    made = use(things)
    steps = made.__await__()
    try:
        steps.send(None)
    finally:
        steps.close()


def with_loop(use, things):
    async def run():
        await use(things)

    asyncio.run(run())


def refusal(way, use, things):
    """The text of the RuntimeError that it raises, else something else."""
    try:
        way(use, things)
    except RuntimeError as error:
        return str(error)
    except BaseException as error:
        return repr(error)
    return "nothing was raised"


@LOOPS
@pytest.mark.parametrize("way", [without_loop, with_loop])
async def test_in_another_thread(ours, dsn, way):
    """Each method is refused at once, and the owners go on."""
    things = Things()
    await things.make(ours, dsn)
    for name, use in REFUSED.items():
        said = await asyncio.to_thread(refusal, way, use, things)
        assert "another event loop" in said or "another thread" in said, (name, said)
    await things.are_well()
    await things.close()


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_in_another_loop(ours, dsn, kind):
    """Of the same thread, while the first one stands still."""
    loop, things = new_loop(kind), Things()
    loop.run_until_complete(things.make(ours, dsn))
    for name, use in REFUSED.items():
        assert "another event loop" in (said := refusal(with_loop, use, things)), (name, said)
    loop.run_until_complete(things.are_well())
    loop.run_until_complete(things.close())
    shut_down(loop)


def in_a_child(function, *arguments):
    """The str that it returns in a forked child."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        with contextlib.suppress(BaseException):
            os.write(writing, function(*arguments).encode())
        os._exit(0)
    os.close(writing)
    with open(reading) as file:
        said = file.read()
    os.waitpid(pid, 0)
    return said


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@LOOPS
@pytest.mark.parametrize("way", [without_loop, with_loop])
async def test_in_a_forked_child(ours, dsn, way):
    """The child is told that it is one, and its parent goes on."""
    things = Things()
    await things.make(ours, dsn)

    def refusals():
        return "\n".join(f"{name}: {refusal(way, use, things)}" for name, use in REFUSED.items())

    said = in_a_child(refusals).splitlines()
    assert len(said) == len(REFUSED)
    for line in said:
        name = line.partition(":")[0]
        assert "fork" in line or name in NOTHING, line
    await things.are_well()
    await things.close()


def ask_in_a_child(dsn):
    async def ask():
        async with aiopgx.create_pool(dsn) as pool, pool.acquire() as conn:
            return await fetch(conn, "SELECT 3")

    return asyncio.run(ask())


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@LOOPS
async def test_multiprocessing_with_an_open_pool(ours, dsn):
    """Children have pools of their own; what they inherit, and end, is nothing to the parent."""
    things = Things()
    await things.make(ours, dsn)
    context = multiprocessing.get_context("fork")
    with context.Pool(2) as children:
        got = await asyncio.to_thread(children.map, ask_in_a_child, [dsn] * 4)
    assert got == [[(3,)]] * 4
    await things.are_well()
    await things.close()


# --- used after its release -----------------------------------------------------------------------


@LOOPS
async def test_a_connection_that_others_share_meanwhile(ours, dsn, side):
    """Who uses it after its release is refused; those who share it are not disturbed.

    On psycopg2's road a connection has one user at a time, as ever.
    """
    if not ours.capabilities().native:
        return
    async with nothing_left(ours, dsn, side, maxsize=1) as pool:
        conn = await pool.acquire()
        cur = await conn.cursor()
        pool.release(conn)
        sharing = asyncio.ensure_future(pool.execute("SELECT 7 FROM pg_sleep(0.2)"))
        await until(conn.isexecuting)
        for use in (
            lambda: cur.execute("SELECT 1"),
            lambda: cur.executemany("SELECT %s", [(1,)]),
            lambda: anext(aiter(cur.stream("SELECT 1"))),
            lambda: cur.copy_expert("COPY x TO STDOUT", io.StringIO()),
            lambda: block(conn.pipeline()),
            lambda: block(cur.begin()),
            lambda: conn.cancel(),
        ):
            with pytest.raises(psycopg2.InterfaceError, match="after its release"):
                await use()
        assert await (await sharing).fetchall() == [(7,)]


# --- `raw` in somebody else's hands ---------------------------------------------------------------


async def slow_rows():
    yield b"1\n"
    await asyncio.sleep(0.02)
    yield b"2\n"


async def in_text(pool, conn):
    assert await fetch(conn, "SELECT 1 FROM pg_sleep(0.02)") == [(1,)]


async def in_prepared(pool, conn):
    for _ in range(2):
        cur = await conn.execute("SELECT 1 + %s FROM pg_sleep(0.01)", (1,), prepare=True)
        assert await cur.fetchall() == [(2,)]


async def in_psycopg2s_road(pool, conn):
    async with conn.cursor() as cur:
        assert cur.raw
        await cur.execute("SELECT 1 FROM pg_sleep(0.02)")
        assert await cur.fetchall() == [(1,)]


async def in_pipeline(pool, conn):
    cursors = [await conn.cursor() for _ in range(3)]
    async with conn.pipeline():
        for number, cur in enumerate(cursors):
            await cur.execute("SELECT %s::int FROM pg_sleep(0.01)", (number,))
    assert [await cur.fetchone() for cur in cursors] == [(0,), (1,), (2,)]


async def in_stream(pool, conn):
    async with conn.cursor() as cur:
        rows = cur.stream("SELECT g, pg_sleep(0.002)::text FROM generate_series(1, 9) g", size=2)
        assert [row async for row in rows] == [(n, "") for n in range(1, 10)]


async def in_named(pool, conn):
    async with conn.cursor() as plain, plain.begin(), conn.cursor("mine") as cur:
        await cur.execute("SELECT g, pg_sleep(0.002)::text FROM generate_series(1, 9) g")
        assert await cur.fetchall() == [(n, "") for n in range(1, 10)]


async def in_executemany(pool, conn):
    async with conn.cursor() as cur:
        await cur.executemany("SELECT %s FROM pg_sleep(0.005)", [(n,) for n in range(5)])


async def in_copy_from(pool, conn):
    async with conn.cursor() as cur:
        await cur.execute("CREATE TEMP TABLE IF NOT EXISTS mine (n int)")
        await cur.copy_from(slow_rows(), "mine")
        assert cur.rowcount == 2


async def in_copy_to(pool, conn):
    async with conn.cursor() as cur:
        file = io.StringIO()
        sql = "SELECT g FROM generate_series(1, 9) g, LATERAL pg_sleep(0.002 + g * 0)"
        await cur.copy_expert(f"COPY ({sql}) TO STDOUT", file)
        assert file.getvalue() == "".join(f"{n}\n" for n in range(1, 10))


async def in_shared(pool, conn):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as below
        pool.release(conn)
    asked = [pool.execute("SELECT %s::int FROM pg_sleep(0.01)", (n,)) for n in range(3)]
    got = await asyncio.gather(*asked, return_exceptions=True)
    for number, cur in enumerate(got):
        if isinstance(cur, BaseException):
            raise cur
        assert await cur.fetchone() == (number,)


ROADS = {
    road.__name__: road
    for road in (
        *(in_text, in_prepared, in_psycopg2s_road, in_pipeline, in_stream, in_named),
        *(in_executemany, in_copy_from, in_copy_to, in_shared),
    )
}


async def meddled(pool, road, meddle, turns):
    """Meddle with `raw` when the loop has turned so often; the error of the road, or None."""
    conn = await pool.acquire()
    raw = conn.raw
    using = asyncio.ensure_future(ROADS[road](pool, conn))
    for _ in range(turns):
        await asyncio.sleep(0)
    meddle(raw)
    await asyncio.wait([using], timeout=20)
    assert using.done(), f"{road} hangs"
    if road != "in_shared" and conn in pool._used:  # it has released it: who uses it is another
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what was begun with `raw`, and runs on
            pool.release(conn)
    return using.exception()


# of the transaction whose end has failed
@pytest.mark.filterwarnings("ignore:You have not closed:ResourceWarning")
@pytest.mark.filterwarnings("ignore:Invalid transaction status:ResourceWarning")
@LOOPS
async def test_raw_is_closed(ours, dsn, side):
    """On each road, after some turns of the loop: an error of psycopg2's, and the pool goes on.

    All at once: that a socket was closed behind our backs is noticed within a second.
    """
    turns = range(1, 200, 2 if LONG else 60)
    async with nothing_left(ours, dsn, side, maxsize=40) as pool:
        close = psycopg2.extensions.connection.close
        meddling = [meddled(pool, road, close, n) for n in turns for road in ROADS]
        errors = await asyncio.gather(*meddling)
        assert all(error is None or isinstance(error, psycopg2.Error) for error in errors), errors
        assert any(errors)
        del errors
        async with pool.acquire() as conn:
            assert await fetch(conn, "SELECT 8") == [(8,)]


def look(raw):
    """What harms nobody, as long as poll() finds no result to keep."""
    raw.poll()
    raw.isexecuting()
    raw.get_transaction_status()
    raw.fileno()
    raw.notices.clear()
    raw.cursor().close()


def execute(raw):
    """While a statement is in flight, libpq refuses."""
    with contextlib.suppress(psycopg2.Error):
        raw.cursor().execute("SELECT 'of nobody'")


# of the transaction whose end has failed
@pytest.mark.filterwarnings("ignore:You have not closed:ResourceWarning")
@pytest.mark.filterwarnings("ignore:Invalid transaction status:ResourceWarning")
@LOOPS
@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize("meddle", [look, execute])
async def test_raw_is_used(ours, dsn, side, road, meddle):
    """The results are right; or an error says what was executed, or taken by poll()."""
    allowed = (psycopg2.Error, RuntimeError) if meddle is execute else psycopg2.InterfaceError
    async with nothing_left(ours, dsn, side, maxsize=1) as pool:
        for turns in range(0, 60, 3 if LONG else 13):
            error = await meddled(pool, road, meddle, turns)
            assert error is None or isinstance(error, allowed), (turns, error)
            del error  # and the transaction in its frames
        async with pool.acquire() as conn:
            assert await fetch(conn, "SELECT 8") == [(8,)]


# Two of these are more than the server keeps back.
LONG_ROW = "SELECT %s::int, repeat('x', 5000) FROM pg_sleep(0.001)"


async def polled_in_stream(pool):
    async with pool.acquire() as conn, conn.cursor() as cur:
        rows = cur.stream(LONG_ROW.replace("%s", "n") + ", generate_series(1, 30) n", size=1)
        got = []
        try:
            async for number, _ in rows:
                got.append(number)
                select.select([conn.raw.fileno()], [], [], 0.1)
                conn.raw.poll()
        finally:
            assert got == list(range(1, len(got) + 1))


async def polled_in_shared(pool):
    (conn,) = pool._free
    asked = [asyncio.ensure_future(pool.execute(LONG_ROW, (n,))) for n in range(8)]
    while not conn.closed and not all(task.done() for task in asked):
        await asyncio.sleep(0)
        if not conn.closed and select.select([conn.raw.fileno()], [], [], 0.1)[0]:
            conn.raw.poll()
    errors = []
    for number, task in enumerate(asked):
        await asyncio.wait([task])
        if task.exception() is None:
            assert (await (await task).fetchone())[0] == number
        else:
            errors.append(task.exception())
    if errors:
        raise errors[0]


async def polled_in_executemany(pool):
    async with pool.acquire() as conn, conn.cursor() as cur:
        asked = asyncio.ensure_future(cur.executemany(LONG_ROW, [(n,) for n in range(30)]))
        while not conn.closed and not asked.done():
            await asyncio.sleep(0)
            if not conn.closed and select.select([conn.raw.fileno()], [], [], 0.1)[0]:
                conn.raw.poll()
        await asked


@pytest.mark.skipif(
    "not aiopgx.capabilities().native", reason="psycopg2 itself takes its results by poll()"
)
@LOOPS
@pytest.mark.parametrize(
    ("threshold", "left"),
    [(None, False), (0, False), (None, True)],
    ids=["text", "prepared", "behind another"],
)
@pytest.mark.parametrize("way", [polled_in_stream, polled_in_shared, polled_in_executemany])
async def test_poll_takes_a_result(ours, dsn, side, way, threshold, left):
    """psycopg2's poll() keeps what it finds: nobody gets the next one, or the rest, instead.

    Also where it has kept another one, of a cursor that is gone.
    """
    keywords = {"minsize": 1, "maxsize": 1, "prepare_threshold": threshold}
    async with nothing_left(ours, dsn, side, **keywords) as pool:
        if left:
            (conn,) = pool._free
            conn.raw.cursor().execute("SELECT 1/0")
            await until(lambda: conn.raw.get_transaction_status() == TRANSACTION_STATUS_IDLE)
        with pytest.raises(psycopg2.InterfaceError, match=r"poll\(\) .* has taken a result"):
            await asyncio.wait_for(way(pool), 20)
        async with pool.acquire() as conn:
            assert await fetch(conn, "SELECT 8") == [(8,)]
