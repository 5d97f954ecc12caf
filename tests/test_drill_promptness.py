"""Drills: how soon a cancelled task goes on, its backend stops, and a timeout comes.

The long form measures, prints the longest of each, and fails above the limits that the
documentation gives; time for which the process waits for a processor does not count. The short form
has limits that hold on any machine.
"""

import asyncio
import io

import pytest
from drills import LOOPS, nothing_left, own_time
from support import LONG, asleep, fetch, until

TRIES = 100 if LONG else 2
SOON = 0.1 if LONG else 5  # seconds from cancel() until the task is over
STOPPED = 1 if LONG else 5  # seconds from there until the backend executes nothing
PRECISE = 0.05 if LONG else 5  # seconds by which a timeout may be later than any timer

SLEEP = "SELECT pg_sleep(30)"


async def text(pool):
    async with pool.acquire() as conn:
        conn.prepare_threshold = None
        await fetch(conn, SLEEP)


async def prepared(pool):
    async with pool.acquire() as conn, conn.cursor() as cur:
        for seconds in (0, 0, 30):
            await cur.execute("SELECT pg_sleep(%s)", (seconds,), prepare=True)


async def psycopg2s_road(pool):
    async with pool.cursor() as cur:
        assert cur.raw
        await cur.execute(SLEEP)


async def in_a_transaction(pool):
    async with pool.cursor() as cur, cur.begin(), cur.begin_nested():
        await cur.execute(SLEEP)


async def stream(pool):
    async with pool.cursor() as cur:
        async for _ in cur.stream(SLEEP):
            pass


async def named(pool):
    async with pool.acquire() as conn, conn.cursor("drill", withhold=True) as cur:
        await cur.execute(SLEEP)


async def pipeline(pool):
    async with pool.acquire() as conn, conn.pipeline():
        for _ in range(3):
            cur = await conn.execute(SLEEP)
        await cur.fetchall()


async def executemany(pool):
    async with pool.cursor() as cur:
        await cur.executemany("SELECT pg_sleep(%s)", [(0,), (0,), (30,), (30,)])


async def copy_to(pool):
    async with pool.cursor() as cur:
        await cur.copy_expert(f"COPY ({SLEEP}) TO STDOUT", io.BytesIO())


async def copy_from(pool):
    async def lines():
        yield b"30\n"

    async with pool.cursor() as cur:
        await cur.execute(
            """
            CREATE TEMP TABLE slow (n int);
            CREATE FUNCTION pg_temp.wait() RETURNS trigger LANGUAGE plpgsql AS
                'BEGIN PERFORM pg_sleep(NEW.n); RETURN NEW; END';
            CREATE TRIGGER slow BEFORE INSERT ON slow FOR EACH ROW EXECUTE FUNCTION pg_temp.wait()
            """
        )
        await cur.copy_from(lines(), "slow")


async def shared(pool):
    await pool.execute(SLEEP)


ROADS = [text, prepared, psycopg2s_road, in_a_transaction, stream, named, pipeline, executemany]
ROADS += [copy_to, copy_from, shared]


@LOOPS
@pytest.mark.parametrize("road", ROADS, ids=lambda road: road.__name__)
async def test_cancelled_at_once(ours, dsn, side, road, report):
    """CancelledError within 100 ms, the backend idle or gone within a second."""
    gone, stopped = [], []
    async with nothing_left(ours, dsn, side, minsize=0, maxsize=2) as pool:
        for _ in range(TRIES):
            task = asyncio.ensure_future(road(pool))
            await until(lambda: asleep(side, ""))
            start = own_time()
            task.cancel()
            await asyncio.wait([task])
            gone.append(own_time() - start)
            await until(lambda: not asleep(side, ""))
            stopped.append(own_time() - start)
            assert task.cancelled()
    report(f"{TRIES} tries: cancelled after {ms(gone)}, the backend idle after {ms(stopped)}")
    assert max(gone) < SOON
    assert max(stopped) < STOPPED


# --- timeouts -------------------------------------------------------------------------------------


async def by_execute(pool, seconds, begin):
    async with pool.acquire() as conn, conn.cursor() as cur:
        begin()
        await cur.execute(SLEEP, timeout=seconds)


async def by_psycopg2(pool, seconds, begin):
    async with pool.acquire() as conn, conn.cursor() as cur:
        assert cur.raw
        begin()
        await cur.execute(SLEEP, timeout=seconds)


async def by_pool_execute(pool, seconds, begin):
    begin()
    await pool.execute(SLEEP, timeout=seconds, shared=False)


async def by_pool_execute_shared(pool, seconds, begin):
    begin()
    await pool.execute(SLEEP, timeout=seconds)


async def by_acquire(pool, seconds, begin):
    begin()
    async with pool.acquire(timeout=seconds):
        raise AssertionError("all connections are in use")


WAYS = [by_execute, by_psycopg2, by_pool_execute, by_pool_execute_shared, by_acquire]


@LOOPS
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_timeout_under_load(ours, dsn, side, way, report):
    """As precise as the loop's own timers, while other tasks execute as much as they can."""
    size = 10
    late, behind = [], []
    loop = asyncio.get_running_loop()

    async def one(pool, seconds):
        begun, fired = [], []

        def begin():
            begun.append(loop.time())
            loop.call_later(seconds, lambda: fired.append(own_time()))

        with pytest.raises(asyncio.TimeoutError):
            await way(pool, seconds, begin)
        late.append(loop.time() - begun[0] - seconds)
        behind.append(own_time() - fired[0] if fired else 0)

    async def work(pool, over):
        while not over.is_set():
            async with pool.acquire() as conn:
                await fetch(conn, "SELECT n FROM generate_series(1, 100) n")

    over = asyncio.Event()
    async with (
        nothing_left(ours, dsn, side, minsize=size, maxsize=size) as pool,
        ours.create_pool(dsn, minsize=size, maxsize=size) as busy,
    ):
        workers = [asyncio.ensure_future(work(busy, over)) for _ in range(2 * size)]
        holders = [await pool.acquire() for _ in range(size)] if way is by_acquire else []
        for number in range(40 if LONG else 1):
            await asyncio.gather(*(one(pool, 0.2 + 0.01 * (number + n) % 0.1) for n in range(size)))
            await until(lambda: pool.size == pool.freesize + len(holders))
        over.set()
        await asyncio.gather(*workers)
        for conn in holders:
            pool.release(conn)
    assert min(late) > -0.002  # uvloop's clock has milliseconds
    report(f"{len(late)} tries: {ms(late)} late, {ms(behind)} behind plain timers")
    assert max(behind) < PRECISE


def ms(seconds):
    return f"{max(seconds) * 1000:.1f} ms at most"


@pytest.fixture
def report(request):
    """Prints a line, in the long form."""

    def show(text):
        if LONG:
            request.node.user_properties.append(("measured", text))

    return show
