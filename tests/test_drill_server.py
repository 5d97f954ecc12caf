"""Drills: a server, or a link, that breaks off, freezes, dies and comes back.

See also test_cancel.py, test_last_words.py (a backend killed while idle, busy, listening; sockets
that fail), test_copy.py, test_bulk_flight.py, test_pipeline.py, test_shared.py (killed in the
middle of each), test_pool_places.py (killed in the pool), test_links.py (frozen links, keepalives)
and test_failover.py (kill -9, promotion, PgBouncer).
"""

import asyncio
import io
import os
import random
import signal
import time

import psycopg2
import pytest
from drills import LOOPS, is_at_rest, nothing_left, pauses
from proxy import Proxy, in_front
from psycopg2.extensions import make_dsn
from support import LONG, fetch, scalar, side_connection, until

from aiopgx.tools import server

SIZE = 4000  # bytes of a result


@pytest.fixture
def link(dsn):
    with in_front(dsn) as proxy:
        yield proxy


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
                    await asyncio.wait_for(road(conn), 20)
                assert conn.closed


@LOOPS
@pytest.mark.parametrize("part", [0.5, 1])
@pytest.mark.parametrize("road", ROADS, ids=lambda road: road.__name__)
async def test_reset_right_behind_an_answer(ours, dsn, side, link, road, part):
    """Both are there when the loop looks, and uvloop tells of them once."""
    async with ours.connect(link.dsn) as conn:
        before = link.passed
        assert await road(conn) == ROWS
        length = link.passed - before
    pools = nothing_left(ours, link.dsn, side, minsize=0, maxsize=1)
    async with pools as pool, pool.acquire() as conn:
        link.cut_after(int(length * part), reset=True)
        task = asyncio.ensure_future(road(conn))
        while link.cut is not None and not task.done():
            await asyncio.sleep(0.002)
            time.sleep(0.05)  # noqa: ASYNC251 - nothing is read meanwhile
        await asyncio.wait_for(asyncio.wait([task]), 5)
        if part < 1:
            assert isinstance(task.exception(), psycopg2.OperationalError)
        await until(lambda: conn.closed)
        task.exception()


TRAIN = 3  # statements that travel together


@LOOPS
@pytest.mark.parametrize("threshold", [None, 0], ids=["text", "prepared"])
@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
async def test_cut_at_each_byte_of_shared(ours, dsn, side, link, reset, threshold):
    """Of `Pool.execute()`: a whole result or an error. What was not executed goes elsewhere,
    but of texts that travel together each behind the cut may have been."""

    async def ask(pool):
        return await (await pool.execute(SERIES)).fetchall()

    async def train(pool):
        asking = (ask(pool) for _ in range(TRAIN))
        return await asyncio.wait_for(asyncio.gather(*asking, return_exceptions=True), 5)

    keywords = {"minsize": 1, "maxsize": 1, "prepare_threshold": threshold}
    async with nothing_left(ours, link.dsn, side, **keywords) as pool:
        await train(pool)
        before = link.passed
        assert await train(pool) == [ROWS] * TRAIN
        length = link.passed - before
        assert length > TRAIN * SIZE * 0.9
        chance = random.Random(15)
        places = {0, 1, 5, length // 3, length - 7, length - 6, length - 1}
        places |= {*chance.sample(range(length), 3)}
        for place in [*range(SIZE), *range(SIZE, length, 7)] if LONG else sorted(places):
            await train(pool)  # on a new connection, which looks around first
            await until(lambda: is_at_rest(pool))
            link.cut_after(place, reset)
            results = await train(pool)
            assert link.cut is None
            lost = [result for result in results if result != ROWS]
            native = ours.capabilities().native  # else nothing is shared
            told = {psycopg2.OperationalError} if native else {*LOST, psycopg2.InterfaceError}
            assert {type(error) for error in lost} <= told, (place, lost)
            if threshold is None and native:
                # what was answered, what is lost, what was not sent and went elsewhere
                first = results.index(lost[0])
                assert results[first : first + len(lost)] == lost


# --- the link freezes -----------------------------------------------------------------------------


@LOOPS
@pytest.mark.parametrize("way", ["held", "muted"])
@pytest.mark.parametrize("road", ROADS, ids=lambda road: road.__name__)
async def test_frozen(ours, dsn, side, link, road, way, record_property):
    """In either direction: the caller is told by its timeout, and the event loop goes on."""

    async def ask(pool):
        async with pool.acquire() as conn:
            with pytest.raises((asyncio.TimeoutError, psycopg2.OperationalError)):
                await road(conn)

    longest, idle = [], []
    keywords = {"minsize": 3, "maxsize": 3, "cancel_timeout": 0.1}
    async with nothing_left(ours, link.dsn, side, **keywords) as pool:
        for _ in range(5 if LONG else 1):
            idle.append(await pauses(asyncio.sleep(0.3 if LONG else 0)))
            for limited in (pool, *pool._free):
                limited._timeout = 0.15
            setattr(link, way, True)
            everyone = asyncio.gather(*(ask(pool) for _ in range(3)))
            longest.append(await asyncio.wait_for(pauses(everyone), 10))
            setattr(link, way, False)
            pool._timeout = 10
            await until(lambda: is_at_rest(pool))
            await asyncio.wait_for(works(pool), 10)
    assert max(longest) < 3  # on a machine that is busy
    if LONG:  # what is due to the link is so each time, and comes on top of what the machine does
        lags, without = (" ".join(f"{1000 * lag:.1f}" for lag in lags) for lags in (longest, idle))
        text = f"lag of the loop, {road.__name__}, {way}: {lags} ms; without a freeze: {without} ms"
        record_property("measured", text)
        assert min(longest) < 0.02 + max(idle)


@LOOPS
async def test_slow_link(ours, dsn, side, link):
    """What comes late, or in small pieces, is whole."""
    async with nothing_left(ours, link.dsn, side, minsize=2, maxsize=2) as pool:
        for habit, value in (("lag", 0.01), ("rate", 100_000)):
            before = getattr(link, habit)
            setattr(link, habit, value)
            for road in (text, psycopg2s_road, stream):
                async with pool.acquire() as conn:
                    assert await road(conn) == ROWS
            setattr(link, habit, before)


# --- the server dies ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster():
    with server.Cluster(server.find_binaries()) as running:
        yield running


@pytest.fixture
def own_server(cluster):
    """A server whose end disturbs no other test; it runs also behind a test that has failed."""
    if cluster._process is None:
        cluster.restart()
    return cluster


def end_backend(own_server, side, pid, how):
    if how == "SIGKILL":
        os.kill(pid, signal.SIGKILL)  # then the server restarts all of itself
    else:
        scalar(side, "SELECT pg_terminate_backend(%s)", (pid,))


SLOW = "SELECT n, pg_sleep(9) FROM generate_series(1, 20) n"


async def slow_text(conn):
    await fetch(conn, SLOW)


async def slow_raw(conn):
    async with conn.cursor() as cur:
        assert cur.raw
        await cur.execute(SLOW)


async def slow_stream(conn):
    async with conn.cursor() as cur:
        async for _ in cur.stream(SLOW, size=1):
            pass


async def slow_copy_to(conn):
    async with conn.cursor() as cur:
        await cur.copy_expert(f"COPY ({SLOW}) TO STDOUT", io.StringIO())


async def slow_copy_from(conn):
    async def records():
        yield (1,)
        await asyncio.sleep(9)

    async with conn.cursor() as cur:
        await cur.execute("CREATE TEMP TABLE target (n int)")
        await cur.copy_records("target", records())


async def slow_pipeline(conn):
    async with conn.cursor() as cur, conn.pipeline():
        await cur.execute("SELECT 1")
        await cur.execute(SLOW)


SLOW_ROADS = [slow_text, slow_raw, slow_stream, slow_copy_to, slow_copy_from, slow_pipeline]
BUSY = "SELECT state = 'active' FROM pg_stat_activity WHERE pid = %s"


@LOOPS
@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
async def test_killed_in_the_middle(ours, own_server, how):
    """Of each road at once, and of what is idle or listens: an error each, then all is well."""
    with side_connection(own_server.dsn) as side:
        async with ours.create_pool(own_server.dsn, minsize=8, maxsize=8) as pool:
            conns = [await pool.acquire() for _ in range(8)]
            pids = [await conn.get_backend_pid() for conn in conns]
            tasks = [asyncio.ensure_future(r(c)) for r, c in zip(SLOW_ROADS, conns, strict=False)]
            for pid in pids[: len(tasks)]:
                await until(lambda pid=pid: scalar(side, BUSY, (pid,)))
            *_, listening, idle = conns
            await listening.execute("LISTEN drill")
            tasks.append(asyncio.ensure_future(listening.notifies.get()))
            pool.release(idle)
            for pid in pids[-1:] if how == "SIGKILL" else pids:
                end_backend(own_server, side, pid, how)
            await asyncio.wait_for(asyncio.wait(tasks), 20)
            assert {type(task.exception()) for task in tasks} <= LOST
            for conn in conns[:-1]:
                assert conn.closed
                pool.release(conn)
            await asyncio.wait_for(works(pool), 30)
            await until(lambda: is_at_rest(pool))


LOST = {psycopg2.OperationalError, psycopg2.errors.AdminShutdown, psycopg2.errors.CrashShutdown}


async def works(pool):
    """Wait until the pool gives out a connection that answers."""
    while True:
        try:
            async with pool.acquire() as conn:
                assert await fetch(conn, "SELECT 1") == [(1,)]
            return
        except (psycopg2.OperationalError, asyncio.TimeoutError):
            await asyncio.sleep(0.01)


@LOOPS
async def test_restart(ours, own_server, record_property):
    """Under 50 clients of ten connections: each works on soon after, and each answer is right."""
    errors, right, stopping = [], dict.fromkeys(range(50), 0), asyncio.Event()

    async def client(pool, number):
        while not stopping.is_set():
            try:
                if number % 2:
                    async with pool.acquire() as conn:
                        assert not conn.closed  # nothing is given out that is known to be dead
                        got = await fetch(conn, "SELECT %s::int, pg_sleep(0.002)", (number,))
                else:
                    got = await (await pool.execute("SELECT %s::int, ''", (number,))).fetchall()
            except (psycopg2.Error, asyncio.TimeoutError) as error:
                errors.append(error)
                await asyncio.sleep(0.02)
            else:
                assert got == [(number, "")]
                right[number] += 1

    async def progress(seconds):
        goal = {number: count + 2 for number, count in right.items()}
        start = time.monotonic()
        await until(lambda: all(right[n] >= goal[n] for n in goal), seconds)
        return time.monotonic() - start

    after = []  # seconds from the server's return until all work
    async with ours.create_pool(own_server.dsn, minsize=10, timeout=20) as pool:
        clients = [asyncio.ensure_future(client(pool, number)) for number in range(50)]
        for _ in range(10 if LONG else 1):
            await progress(20)
            await asyncio.to_thread(own_server.restart)
            after.append(await progress(20))
        stopping.set()
        await asyncio.gather(*clients)
        await until(lambda: is_at_rest(pool))
    assert errors
    known = LOST | {psycopg2.errors.CannotConnectNow}
    if not ours.capabilities().native:
        known |= {psycopg2.InterfaceError}  # psycopg2 says so of a link that ends behind an answer
    assert {type(error) for error in errors} <= known
    if LONG:
        times = " ".join(f"{seconds:.2f}" for seconds in after)
        record_property("measured", f"all of 50 clients work after a restart: {times} s")
        assert max(after) < 2


@LOOPS
async def test_server_is_down(ours, own_server):
    """Each acquire is told at once, by its own connect and no more than that; later all is well."""
    before = Proxy(own_server.port)
    dsn = make_dsn(own_server.dsn, host="127.0.0.1", port=before.port)
    try:
        async with ours.create_pool(dsn, minsize=5, timeout=20) as pool:
            await asyncio.to_thread(own_server.stop)
            await until(lambda: all(conn.closed for conn in pool._free))  # the pool has heard of it
            before.starts.clear()
            for _ in range(3):
                acquires = (pool.acquire() for _ in range(20))
                refused = await asyncio.gather(*acquires, return_exceptions=True)
                assert {type(error) for error in refused} == {psycopg2.OperationalError}
            assert len(before.starts) <= 60
            assert pool.size == pool.freesize == 0
            await asyncio.to_thread(own_server.restart)
            await asyncio.wait_for(works(pool), 20)
    finally:
        before.stop()


@LOOPS
@pytest.mark.parametrize("reconnect_timeout", [None, 60])
async def test_down_for_a_while(ours, own_server, reconnect_timeout, record_property):
    """50 clients ask all the time: few connects, little work, and each is told why, or waits."""
    down = 10 if LONG else 1
    before = Proxy(own_server.port)
    # libpq connects twice where it tries with TLS, then without
    one = {"sslmode": "disable", "gssencmode": "disable"}
    dsn = make_dsn(own_server.dsn, host="127.0.0.1", port=before.port, **one)
    errors, asked, stopping = [], 0, asyncio.Event()

    async def client(pool):
        nonlocal asked
        while not stopping.is_set():
            asked += 1
            try:
                async with pool.acquire(timeout=0.4) as conn:
                    await fetch(conn, "SELECT 1")
            except (psycopg2.Error, asyncio.TimeoutError) as error:
                errors.append(error)
            await asyncio.sleep(0.1)

    keywords = {"minsize": 5, "timeout": 60, "reconnect_timeout": reconnect_timeout}
    try:
        async with ours.create_pool(dsn, **keywords) as pool:
            await asyncio.to_thread(own_server.stop)
            await until(lambda: all(conn.closed for conn in pool._free))
            before.starts.clear()
            work, start = time.process_time(), time.monotonic()
            clients = [asyncio.ensure_future(client(pool)) for _ in range(50)]
            patient = asyncio.ensure_future(pool.acquire(timeout=60))
            await asyncio.sleep(down)
            took, work = time.monotonic() - start, time.process_time() - work
            connects, told = len(before.starts), list(errors)
            await asyncio.to_thread(own_server.restart)
            if reconnect_timeout is None:
                with pytest.raises(psycopg2.OperationalError):
                    await patient
                assert {type(error) for error in told} <= LOST | {asyncio.TimeoutError}
                assert connects < 2 * asked  # about one each
                assert work < 0.02 * asked
            else:
                assert {type(error) for error in told} == {asyncio.TimeoutError}
                assert all("connects fail: " in str(error) for error in told)
                # the first ones at once, then pauses of half a second at least, if not the first
                assert connects <= pool.maxsize + 4 + 2 * took
                assert work < took / 2
                pool.release(await asyncio.wait_for(patient, 10))
            stopping.set()
            await asyncio.gather(*clients)
            await asyncio.wait_for(works(pool), 10)
            await until(lambda: is_at_rest(pool))
    finally:
        before.stop()
    if LONG:
        record_property(
            "measured",
            f"down for {took:.1f} s, reconnect_timeout={reconnect_timeout}: {connects} connects of "
            f"{asked} acquires by 50 clients, {100 * work / took:.1f}% of a CPU, proxy and all",
        )
