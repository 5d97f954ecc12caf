"""executemany() on its way: iterables, errors, and what is given up in the middle."""

import asyncio
import gc
import resource

import psycopg2
import psycopg2.errors
import psycopg2.extensions
import pytest
from psycopg2.extras import DictCursor
from roads import unknown
from support import fetch, nothing_left, running, scalar, underway, until

INSERT = "INSERT INTO flight VALUES (%s)"
STATUS = psycopg2.extensions


@pytest.fixture
def flight(side, connect):
    """A cursor on a connection, and a table `flight` that the side connection sees, too."""
    scalar(side, "DROP TABLE IF EXISTS flight; CREATE TABLE flight (i int PRIMARY KEY); SELECT 1")

    async def make(**kwargs):
        return await (await connect(**kwargs)).cursor()

    return make


def stored(side):
    return scalar(side, "SELECT array_agg(i ORDER BY i) FROM flight") or []


async def numbers(count, fails=None):
    for i in range(count):
        if i % 7 == 0:
            await asyncio.sleep(0)
        if i == fails:
            raise KeyError("source dried up")
        yield (i,)


SIZES = [0, 1, 2, 3, 4, 16, 17, 18, 100, 503, 504, 505, 1003, 1600]


@pytest.mark.all_loops
@pytest.mark.parametrize("size", [0, 3, 17, 600])
async def test_on_each_loop(ours, flight, side, size):
    cursor = await flight()
    await cursor.executemany(INSERT, numbers(size))
    assert cursor.rowcount == size
    assert stored(side) == list(range(size))


@pytest.mark.parametrize("size", SIZES)
async def test_sizes(ours, flight, side, size):
    cursor = await flight()
    rows = [(i,) for i in range(size)]
    for source in (rows, iter(rows), numbers(size), dict.fromkeys(rows)):
        assert await cursor.executemany(INSERT, source) is None
        assert cursor.rowcount == size
        assert stored(side) == list(range(size))
        await cursor.execute("BEGIN")
        await cursor.executemany("DELETE FROM flight WHERE i = %s", rows)
        assert cursor.rowcount == size
        assert await cursor.connection.get_transaction_status() == STATUS.TRANSACTION_STATUS_INTRANS
        await cursor.execute("COMMIT")
        assert stored(side) == []


@pytest.mark.parametrize("cursor_factory", [DictCursor, unknown(psycopg2.extensions.cursor)])
async def test_other_cursors(ours, connect, flight, side, cursor_factory):
    await flight()
    cursor = await (await connect()).cursor(cursor_factory=cursor_factory)
    await cursor.executemany(INSERT, numbers(50))
    assert cursor.rowcount == 50
    assert stored(side) == list(range(50))
    with pytest.raises(psycopg2.errors.UniqueViolation) as info:
        await cursor.executemany(INSERT, [(100 + i % 40,) for i in range(50)])
    assert info.value.__notes__ == ["executemany: the parameters at index 40"]
    assert stored(side) == list(range(50))


@pytest.mark.parametrize("inside", [False, True], ids=["own", "inside"])
@pytest.mark.parametrize("place", [0, 2, 3, 4, 15, 16, 17, 200, 502, 503, 999, 1004, 1499])
async def test_the_row_that_failed(ours, flight, side, place, inside):
    """It raises what execute() raises, with the index in the notes; nothing is left of the rest."""
    cursor = await flight()
    rows = [(i,) for i in range(1500)]
    for bad, error in [
        (rows[0] if place else (None,), psycopg2.IntegrityError),
        (("x",), psycopg2.DataError),
    ]:
        source = [*rows[:place], bad, *rows[place + 1 :]]
        for iterable in (source, iter(source)):
            if inside:
                await cursor.execute("BEGIN")
            with pytest.raises(error) as info:
                await cursor.executemany(INSERT, iterable)
            assert info.value.__notes__ == [f"executemany: the parameters at index {place}"]
            assert info.value.__context__ is None
            assert info.value.cursor is cursor._psycopg
            assert cursor.query == cursor.mogrify(INSERT, bad)
            assert cursor.rowcount == -1
            if inside:
                status = await cursor.connection.get_transaction_status()
                assert status == STATUS.TRANSACTION_STATUS_INERROR
                await cursor.execute("ROLLBACK")
            status = await cursor.connection.get_transaction_status()
            assert status == STATUS.TRANSACTION_STATUS_IDLE
            assert stored(side) == []
    await cursor.executemany(INSERT, rows)
    assert cursor.rowcount == 1500


async def test_the_index_of_a_set_that_is_refused(ours, flight, side):
    cursor = await flight()
    for bad, error in [((1, 2), TypeError), ((object(),), psycopg2.ProgrammingError)]:
        with pytest.raises(error) as info:
            await cursor.executemany(INSERT, [*[(i,) for i in range(30)], bad, (31,)])
        assert info.value.__notes__ == ["executemany: the parameters at index 30"]
        assert stored(side) == []


@pytest.mark.parametrize("place", [0, 1, 3, 4, 20, 503, 700])
async def test_iterables_that_fail(ours, flight, side, place):
    def rows():
        for i in range(place):
            yield (i,)
        raise KeyError("source dried up")

    cursor = await flight()
    for source in (rows, lambda: numbers(1000, place)):
        with pytest.raises(KeyError, match="source dried up") as info:
            await cursor.executemany(INSERT, source())
        assert not hasattr(info.value, "__notes__")
        assert await cursor.connection.get_transaction_status() == STATUS.TRANSACTION_STATUS_IDLE
        assert stored(side) == []
        await cursor.execute("BEGIN")
        with pytest.raises(KeyError):
            await cursor.executemany(INSERT, source())
        await cursor.execute("COMMIT")
        assert stored(side) == list(range(place)), "as a loop of execute() leaves it"
        await cursor.execute("DELETE FROM flight")


async def test_the_earlier_error_counts(ours, flight, side):
    """The server's, when the iterable fails behind the set that the server refuses."""

    def rows():
        yield from ((i % 40,) for i in range(60))
        raise KeyError

    cursor = await flight()
    with pytest.raises(psycopg2.errors.UniqueViolation):
        await cursor.executemany(INSERT, rows())
    assert stored(side) == []


async def test_a_generator_does_not_hold_up_the_loop(ours, flight):
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    cursor = await flight()
    task = asyncio.ensure_future(tick())
    await cursor.executemany("DELETE FROM flight WHERE i = %s", ((i,) for i in range(10_000)))
    task.cancel()
    assert ticks > 20


async def test_memory_is_flat(ours, flight):
    def rows(count):
        for i in range(count):
            yield (f"{i:01000}",)

    def rss():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    cursor = await flight()
    await cursor.executemany("SELECT %s AS a FROM flight", rows(2000))
    gc.collect()
    before = rss()
    await cursor.executemany("SELECT %s AS a FROM flight", rows(40_000))
    assert rss() - before < 8000, "kB of 40 MB"


async def test_others_are_refused_meanwhile(ours, flight, side):
    cursor = await flight()
    conn = cursor.connection
    task = await underway(conn, cursor.executemany(INSERT, numbers(3000)))
    with pytest.raises(RuntimeError, match="already waiting for incoming data"):
        await fetch(conn, "SELECT 1")
    await task
    assert len(stored(side)) == 3000


async def test_the_connection_in_the_iterable(ours, flight, side):
    """What else is executed there is in the same transaction."""
    cursor = await flight()
    conn = cursor.connection

    async def rows():
        for i in range(10):
            yield (i,)
        found = await fetch(conn, "SELECT 100")
        for i in range(10):
            yield (found[0][0] + i,)

    await cursor.executemany(INSERT, rows())
    assert len(stored(side)) == 20


# --- given up in the middle -----------------------------------------------------------------------


@pytest.fixture
def slow(side, flight):
    """A statement for the pipeline whose 101st execution takes 30 s, and its sets."""
    scalar(
        side,
        "CREATE OR REPLACE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF NEW.i = 100 THEN PERFORM pg_sleep(30); END IF; RETURN NEW; END $$;"
        "CREATE TRIGGER waits BEFORE INSERT ON flight FOR EACH ROW EXECUTE FUNCTION wait();"
        "SELECT 1",
    )
    with nothing_left(side, "INSERT INTO flight"):
        yield INSERT, [(i,) for i in range(1000)]


def at_work(side):
    return scalar(
        side,
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE wait_event = 'PgSleep' AND query LIKE 'INSERT%'",
    )


@pytest.mark.all_loops
@pytest.mark.parametrize("inside", [False, True], ids=["own", "inside"])
async def test_cancelled(ours, flight, slow, side, inside):
    cursor = await flight()
    if inside:
        await cursor.execute("BEGIN")
    task = asyncio.ensure_future(cursor.executemany(*slow))
    await until(lambda: at_work(side))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cursor.connection.closed
    await until(lambda: not running(side, "INSERT INTO flight"))
    assert stored(side) == []


async def test_timeout(ours, flight, slow, side):
    cursor = await flight()
    with pytest.raises(asyncio.TimeoutError):
        await cursor.executemany(*slow, timeout=0.5)
    assert cursor.connection.closed
    await until(lambda: not running(side, "INSERT INTO flight"))
    assert stored(side) == []


async def test_the_timeout_is_of_each_execution(ours, flight, side):
    """All of it takes longer."""
    scalar(
        side,
        "CREATE OR REPLACE FUNCTION nap() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " PERFORM pg_sleep(0.05); RETURN NEW; END $$;"
        "CREATE TRIGGER naps BEFORE INSERT ON flight FOR EACH ROW EXECUTE FUNCTION nap(); SELECT 1",
    )
    cursor = await flight()
    await cursor.executemany(INSERT, [(i,) for i in range(30)], timeout=1.2)
    assert cursor.rowcount == 30


async def test_lost_connection(ours, flight, slow, side):
    cursor = await flight()
    conn = cursor.connection
    task = asyncio.ensure_future(cursor.executemany(*slow))
    await until(lambda: at_work(side))
    scalar(side, "SELECT pg_terminate_backend(%s)", (conn.raw.get_backend_pid(),))
    with pytest.raises(psycopg2.OperationalError, match="terminating connection") as info:
        await task
    if ours.capabilities().native:
        assert info.value.pgcode == "57P01"
    assert conn.closed
    assert stored(side) == []


async def test_the_server_cancels(ours, flight, slow, side, loop_errors):
    """aiopg's way: as if the task had been cancelled. The connection goes on."""
    cursor = await flight()
    conn = cursor.connection
    task = asyncio.ensure_future(cursor.executemany(*slow))
    await until(lambda: at_work(side))
    scalar(side, "SELECT pg_cancel_backend(%s)", (conn.raw.get_backend_pid(),))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "canceling statement" in loop_errors.pop()["message"]
    assert await fetch(conn, "SELECT 1") == [(1,)]
    assert stored(side) == []


async def test_closed_in_the_middle(ours, flight, slow, side):
    cursor = await flight()
    conn = cursor.connection
    task = asyncio.ensure_future(cursor.executemany(*slow))
    await until(lambda: at_work(side))
    conn.close()
    with pytest.raises(psycopg2.Error, match="closed"):
        await task
    assert stored(side) == []


async def test_cancelled_in_the_iterable(ours, flight, side):
    """Nothing is in flight: the connection is as before, and nothing was done."""
    reached = asyncio.Event()

    async def rows():
        for i in range(200):
            yield (i,)
        reached.set()
        await asyncio.sleep(30)

    cursor = await flight()
    task = asyncio.ensure_future(cursor.executemany(INSERT, rows()))
    await reached.wait()
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stored(side) == []
    assert cursor.connection.closed or await fetch(cursor.connection, "SELECT 1") == [(1,)]


async def test_a_closed_cursor(ours, flight, side):
    cursor = await flight()
    cursor.close()
    with pytest.raises(psycopg2.InterfaceError, match="cursor already closed"):
        await cursor.executemany(INSERT, [(1,), (2,)])
    assert await cursor.connection.get_transaction_status() == STATUS.TRANSACTION_STATUS_IDLE


@pytest.mark.parametrize("mode", ["session", "transaction"])
@pytest.mark.needs("pgbouncer")
@pytest.mark.needs("openssl")
async def test_behind_a_pooler(ours, pooler, side, dsn, flight, mode):
    await flight()
    through = pooler(mode).dsn(psycopg2.extensions.parse_dsn(dsn)["dbname"])
    conns = [await ours.connect(through) for _ in range(5)]
    cursors = [await conn.cursor() for conn in conns]
    for _ in range(3):
        await asyncio.gather(
            *(
                c.executemany(INSERT, [(1000 * n + i,) for i in range(600)])
                for n, c in enumerate(cursors)
            )
        )
        assert len(stored(side)) == 3000
        await cursors[0].executemany(
            "DELETE FROM flight WHERE i = %s", [(i,) for i in stored(side)]
        )
    for conn in conns:
        conn.close()


async def test_echo(ours, flight, caplog):
    caplog.set_level("INFO", "aiopg")
    cursor = await flight(echo=True)
    caplog.clear()
    await cursor.executemany(INSERT, [(1,), (2,)])
    said = ["BEGIN", "None", INSERT, "(1,)", INSERT, "(2,)", "COMMIT", "None"]
    assert caplog.messages == said


@pytest.mark.parametrize("size", [3, 100, 1100])
async def test_in_a_pipeline(ours, flight, side, size):
    """It waits for what is in flight, and for its own end."""
    cursor = await flight()
    conn = cursor.connection
    other = await conn.cursor()
    async with conn.pipeline():
        await other.execute("INSERT INTO flight VALUES (-1)")
        await cursor.executemany(INSERT, [(i,) for i in range(size)])
        assert stored(side) == list(range(-1, size))
        assert cursor.rowcount == size
        await cursor.executemany("SELECT %s, %s", [((i,), "x") for i in range(5)])
        with pytest.raises(psycopg2.errors.UniqueViolation) as info:
            await cursor.executemany(INSERT, [(i + 5000 if i % 7 else 0,) for i in range(1, 50)])
        assert info.value.__notes__ == ["executemany: the parameters at index 6"]
        await other.execute("SELECT 5")
        assert await other.fetchone() == (5,)
    assert stored(side) == list(range(-1, size))
