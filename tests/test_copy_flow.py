"""COPY keeps nothing: memory is flat, and who is slow holds up the other side."""

import asyncio
import gc

import psycopg2
import pytest
from proxy import Proxy
from psycopg2.extensions import make_dsn, parse_dsn
from support import LONG, activity, scalar, until

ROWS = 5_000_000 if LONG else 300_000
MB = 1 << 20
SOURCE = "COPY (SELECT i, repeat('x', 1000) FROM generate_series(1, {}) AS i) TO STDOUT"


def resident():
    """This process' resident memory in bytes."""
    gc.collect()
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096


@pytest.fixture
def held(dsn):
    """A proxy that can be stopped, and the DSN by way of it."""
    parts = parse_dsn(dsn)
    running = Proxy(int(parts["port"]))
    port = running.listener.getsockname()[1]
    yield running, make_dsn(dsn, host="127.0.0.1", port=port)
    running.stop()


def write_blocked(side, pid):
    sql = "SELECT wait_event FROM pg_stat_activity WHERE pid = %s"
    return scalar(side, sql, (pid,)) == "ClientWrite"


async def test_records_in_flat_memory(ours, connect):
    conn = await connect()
    cursor = await conn.cursor()
    await cursor.execute("CREATE TEMP TABLE copied (i int, t text, f float8)")
    records = ((n, f"the text of number {n}", n / 7) for n in range(ROWS))
    seen = []

    def progress(count, size):
        if count % 1000 < 500:
            seen.append(resident())

    before = resident()
    await cursor.copy_records("copied", records, progress=progress, timeout=float("inf"))
    assert cursor.rowcount == ROWS
    assert max(seen) - before < 16 * MB


async def test_chunks_in_flat_memory(ours, connect):
    conn = await connect()
    cursor = await conn.cursor()
    await cursor.execute("CREATE TEMP TABLE copied (i int, t text)")
    before, seen = resident(), []

    async def chunks():
        for start in range(0, ROWS, 1000):
            seen.append(resident())
            yield "".join(f"{n}\tthe text of number {n}\n" for n in range(start, start + 1000))

    await cursor.copy_from(chunks(), "copied", timeout=float("inf"))
    assert cursor.rowcount == ROWS
    assert max(seen) - before < 16 * MB


async def test_rows_in_flat_memory(ours, connect):
    conn = await connect()
    cursor = await conn.cursor()
    before, most, size = resident(), 0, 0

    async def write(data):
        nonlocal most, size
        size += len(data)
        most = max(most, resident())

    await cursor.copy_expert(SOURCE.format(ROWS // 3), write, timeout=float("inf"))
    assert cursor.rowcount == ROWS // 3
    assert size > 1000 * cursor.rowcount
    assert most - before < 16 * MB


@pytest.mark.all_loops
async def test_slow_reader_holds_up_the_server(ours, connect, side):
    conn = await connect()
    pid = conn.raw.get_backend_pid()
    cursor = await conn.cursor()
    go_on, taken = asyncio.Event(), []

    async def write(data):
        taken.append(len(data))
        await go_on.wait()

    before = resident()
    task = asyncio.ensure_future(cursor.copy_expert(SOURCE.format(100_000), write))
    await until(lambda: write_blocked(side, pid))
    await asyncio.sleep(0.1)
    assert len(taken) == 1
    assert resident() - before < 16 * MB
    assert activity(side, pid)[0] == "active"
    go_on.set()
    await task
    assert cursor.rowcount == 100_000
    await cursor.execute("SELECT 1")
    assert await cursor.fetchall() == [(1,)]


class Broken(Exception):
    pass


def broken(data):
    raise Broken


# More than the server keeps before it sends; less than is read for nobody, to keep the connection.
FIRST_LINES = "SELECT n FROM generate_series(1, 9999) n"


@pytest.mark.all_loops
async def test_slow_server_and_a_broken_reader(ours, connect, side):
    """Whether its end is near is not waited for: it is asked to stop."""
    conn = await connect()
    cursor = await conn.cursor()
    sql = f"COPY ({FIRST_LINES} UNION ALL SELECT 1 FROM pg_sleep(60)) TO STDOUT"
    with pytest.raises(Broken):
        await asyncio.wait_for(cursor.copy_expert(sql, broken), 10)
    assert activity(side, conn.raw.get_backend_pid())[0] == "idle"
    for _ in range(3):
        await cursor.execute("SELECT pg_sleep(0.01), 1")
        assert await cursor.fetchall() == [("", 1)]


@pytest.mark.parametrize(
    "rest", ["SELECT 1 FROM pg_sleep(0.3)", "SELECT n FROM generate_series(1, 300000) n"]
)
async def test_broken_reader_in_a_transaction(ours, connect, rest):
    """It is not aborted for that, which COMMIT would not tell: the rest is read, as by psycopg2."""
    conn = await connect()
    async with conn.cursor() as cursor:
        async with cursor.begin():
            await cursor.execute("CREATE TEMP TABLE kept (i int)")
            with pytest.raises(Broken):
                await cursor.copy_expert(f"COPY ({FIRST_LINES} UNION ALL {rest}) TO STDOUT", broken)
        await cursor.execute("SELECT * FROM kept")


@pytest.mark.parametrize("seconds", [0, 0.2])
async def test_broken_reader_of_what_fails_in_a_transaction(ours, connect, seconds):
    """Whether the error has come before the reader failed, or comes behind that."""
    conn = await connect()
    async with conn.cursor() as cursor:
        await cursor.execute("BEGIN")
        with pytest.raises(Broken):
            rest = f"SELECT 1 / (g - 1) FROM pg_sleep({seconds}), generate_series(1, 2) g"
            await cursor.copy_expert(f"COPY ({FIRST_LINES} UNION ALL {rest}) TO STDOUT", broken)
        with pytest.raises(psycopg2.errors.DivisionByZero):
            await cursor.execute("COMMIT")
        await cursor.execute("SELECT 1")


@pytest.mark.all_loops
async def test_broken_reader_and_a_deaf_server(ours, connect, dsn):
    """Who takes a cancel request and does not answer holds nobody up: the connection is closed."""
    proxy = Proxy(int(parse_dsn(dsn)["port"]), deaf=True)
    try:
        plain = {"sslmode": "disable", "gssencmode": "disable"}
        way = make_dsn(dsn, host="127.0.0.1", port=proxy.port, **plain)
        conn = await connect(way, cancel_timeout=0.5)
        cursor = await conn.cursor()
        sql = f"COPY ({FIRST_LINES} UNION ALL SELECT 1 FROM pg_sleep(60)) TO STDOUT"
        with pytest.raises(Broken):
            await asyncio.wait_for(cursor.copy_expert(sql, broken), 10)
        assert conn.closed
    finally:
        proxy.stop()


@pytest.mark.all_loops
@pytest.mark.parametrize("in_async", [False, True])
async def test_slow_server_holds_up_the_writer(ours, connect, held, in_async):
    proxy, dsn = held
    conn = await connect(dsn)
    cursor = await conn.cursor()
    await cursor.execute("CREATE TEMP TABLE copied (i int, t text)")
    given = 0

    def records():
        nonlocal given
        for number in range(50_000):
            given += 1
            if number == 1000:
                proxy.held = True
            yield number, 1000 * "x"

    async def async_records():
        for record in records():
            yield record

    task = asyncio.ensure_future(
        cursor.copy_records("copied", async_records() if in_async else records())
    )
    before = 0
    while given < 1000 or given != before:  # until nothing more is taken
        before = given
        await asyncio.sleep(0.2)
    assert given < 30_000
    assert not task.done()
    proxy.held = False
    await task
    assert cursor.rowcount == 50_000


def held_up(proxy):
    """Records without end, none of which is passed on."""
    proxy.held = True
    while True:
        yield 1, 1000 * "x"


async def test_held_up_and_given_up(ours, connect, held):
    """A deadline counts while nothing can be sent."""
    proxy, dsn = held
    conn = await connect(dsn)
    cursor = await conn.cursor()
    await cursor.execute("CREATE TEMP TABLE copied (i int, t text)")
    with pytest.raises(asyncio.TimeoutError):
        await cursor.copy_records("copied", held_up(proxy), timeout=1)
    assert conn.closed
    proxy.held = False


async def test_lost_while_held_up(ours, connect, held):
    proxy, dsn = held
    conn = await connect(dsn)
    cursor = await conn.cursor()
    await cursor.execute("CREATE TEMP TABLE copied (i int, t text)")
    task = asyncio.ensure_future(cursor.copy_records("copied", held_up(proxy)))
    await asyncio.sleep(0.3)
    proxy.stop()
    with pytest.raises(psycopg2.OperationalError):
        await task
    assert conn.closed
