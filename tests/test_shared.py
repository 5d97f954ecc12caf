"""`Pool.execute()`: statements of many tasks share connections, and nobody can tell."""

import asyncio
import random

import psycopg2
import psycopg2.extensions
import psycopg2.extras
import pytest
from conftest import command
from psycopg2 import sql
from support import LONG, activity, running, scalar, shown, until

from aiopgx._eligibility import read_text

native = pytest.mark.skipif(
    "not __import__('aiopgx').capabilities().native",
    reason="statements share connections on the native road alone",
)

SLEEP = "SELECT pg_sleep(%s), pg_backend_pid()"


@pytest.fixture
def make(ours, pool):
    return pool


@pytest.fixture(scope="module", autouse=True)
def table(dsn):
    conn = psycopg2.connect(dsn)
    with conn, conn.cursor() as cursor:
        cursor.execute("CREATE TABLE shared (id serial PRIMARY KEY, number int UNIQUE, note text)")
    conn.close()


async def rows(pool, operation, parameters=None, **kwargs):
    cur = await pool.execute(operation, parameters, **kwargs)
    return await cur.fetchall()


async def pid_of(pool, **kwargs):
    return (await rows(pool, "SELECT pg_backend_pid()", **kwargs))[0][0]


def settled(pool, size=None):
    """Whether nothing is in use; with `size` connections."""
    return pool.size == pool.freesize and (size is None or pool.size == size)


# --- results --------------------------------------------------------------------------------------

STATEMENTS = [
    ("SELECT %s::int + 1 AS a, 'a' AS b, NULL AS c, now()::date AS d", (4,)),
    ("SELECT generate_series(1, 5) AS n", None),
    ("SELECT '%'", None),
    ("SELECT %(a)s AS a, %(b)s::text[] AS b", {"a": 1.5, "b": ["x", "y"]}),
    ("VALUES (1, 'x'), (2, 'y')", None),
    ("TABLE shared LIMIT 0", None),
    ("INSERT INTO shared (note) VALUES (%s)", ("x",)),
    ("INSERT INTO shared (note) VALUES (%s) RETURNING note, id > 0", ("ä'\\",)),
    ("UPDATE shared SET note = note || %s", ("x",)),
    ("DELETE FROM shared WHERE note = %s", (None,)),
    ("WITH gone AS (DELETE FROM shared RETURNING *) SELECT count(*) >= 0 FROM gone", None),
    ("SELECT %s", (b"\0bytes",)),
    ("SET statement_timeout = '9s'", None),
    ("SELECT 1; SELECT 2", None),
    ("CREATE TEMP TABLE IF NOT EXISTS t (a int)", None),
    (b"SELECT 3", None),
    (sql.SQL("SELECT {}").format(sql.Literal("x")), None),
]
FACTORIES = [
    None,
    psycopg2.extras.DictCursor,
    psycopg2.extras.RealDictCursor,
    psycopg2.extras.NamedTupleCursor,
    type("Own", (psycopg2.extensions.cursor,), {}),
]


def attributes(cur):
    return cur.description, cur.rowcount, cur.rownumber, cur.statusmessage, cur.query, cur.name


@pytest.mark.parametrize("factory", FACTORIES, ids=lambda factory: factory and factory.__name__)
async def test_results_are_those_of_a_cursor(make, factory):
    pool = await make(maxsize=1)
    for operation, parameters in STATEMENTS:
        async with pool.acquire() as conn, conn.cursor(factory) as cur:
            await cur.execute(operation, parameters)
            expected = attributes(cur)
            expected_rows = await cur.fetchall() if cur.description else None
        async with pool.execute(operation, parameters, cursor_factory=factory) as cur:
            assert attributes(cur) == expected
            if expected_rows is None:
                with pytest.raises(psycopg2.ProgrammingError, match="no results to fetch"):
                    await cur.fetchone()
            else:
                got = await cur.fetchall()
                assert list(map(shown, got)) == list(map(shown, expected_rows))
                assert [type(row) for row in got] == [type(row) for row in expected_rows]
        assert settled(pool, 1)


async def test_ways_to_fetch(make):
    pool = await make()
    cur = await pool.execute("SELECT generate_series(1, 9) AS n")
    assert await cur.fetchone() == (1,)
    assert await cur.fetchmany(2) == [(2,), (3,)]
    await cur.scroll(1)
    assert [row async for row in cur] == [(n,) for n in range(5, 10)]
    await cur.scroll(0, mode="absolute")
    assert await cur.fetchone() == (1,)
    assert await cur.fetchone() == (2,)


@pytest.mark.parametrize("shared", [None, False])
async def test_the_result_outlives_the_pool(make, shared):
    pool = await make()
    cur = await pool.execute("SELECT %s, now()", ("x",), shared=shared)
    pool.close()
    await pool.wait_closed()
    assert (await cur.fetchone())[0] == "x"
    assert not cur.closed
    cur.close()
    assert cur.closed
    with pytest.raises(psycopg2.InterfaceError, match="cursor already closed"):
        await cur.fetchone()


async def test_the_cursor_executes_nothing(make):
    pool = await make()
    cur = await pool.execute("SELECT 1")
    assert cur.connection is None
    for call in (
        lambda: cur.execute("SELECT 1"),
        lambda: cur.executemany("SELECT %s", [(1,)]),
        lambda: cur.callproc("now"),
        lambda: cur.copy_records("shared", []),
    ):
        with pytest.raises(psycopg2.InterfaceError, match=r"Pool\.execute\(\) again"):
            await call()
    for call in (
        lambda: cur.stream("SELECT 1"),
        lambda: cur.begin(),
        lambda: cur.raw,
        lambda: cur.mogrify("x"),
    ):
        with pytest.raises(psycopg2.InterfaceError, match="has no connection"):
            call()
    assert await cur.fetchone() == (1,)


@pytest.mark.parametrize("shared", [None, False])
async def test_errors_are_psycopg2s(make, side, shared):
    pool = await make(maxsize=1)
    with side.cursor() as cursor, pytest.raises(psycopg2.Error) as expected:
        cursor.execute("SELECT 1 / %s", (0,))
    with pytest.raises(psycopg2.errors.DivisionByZero) as got:
        await pool.execute("SELECT 1 / %s", (0,), shared=shared)
    assert str(got.value) == str(expected.value)
    assert got.value.pgcode == "22012"
    assert got.value.diag.message_primary == expected.value.diag.message_primary
    with pytest.raises(psycopg2.ProgrammingError, match="can't adapt"):
        await pool.execute("SELECT %s", (object(),), shared=shared)
    with pytest.raises(IndexError):
        await pool.execute("SELECT %s, %s", (1,), shared=shared)
    with pytest.raises(psycopg2.errors.QueryCanceled):
        await pool.execute("SET statement_timeout = '20ms'; SELECT pg_sleep(5)", shared=shared)
    with pytest.raises(TypeError, match="timeout must be a number"):
        await pool.execute("SELECT 1", timeout="1", shared=shared)
    assert settled(pool)


async def test_bad_keywords(make):
    for value in (0, -1, 1.5, None):
        with pytest.raises(ValueError, match="max_in_flight"):
            await make(max_in_flight=value)


# --- what is shared -------------------------------------------------------------------------------

SHAREABLE = [
    "SELECT 1",
    "select * from t where a = %s for update",
    "INSERT INTO t SELECT 1",
    "UPDATE t SET a = 1;",
    "DELETE FROM t",
    "WITH x AS (SELECT 1) SELECT * FROM x",
    "VALUES (1)",
    "TABLE t",
    "MERGE INTO t USING s ON a = b WHEN MATCHED THEN DO NOTHING",
    "SELECT pg_notify('a', 'b')",
    "SELECT nextval('s')",
    "SELECT 'set_config pg_advisory_lock' -- lastval()",
]
NOT_SHAREABLE = [
    "SELECT 1; SELECT 2",
    "SELECT set_config('a.b', '1', false)",
    'SELECT "set_config"(1)',
    "SELECT pg_catalog.PG_ADVISORY_LOCK(1)",
    'SELECT "pg_advisory_unlock_all"()',
    "SELECT pg_try_advisory_xact_lock_shared(1)",
    "SELECT lo_creat(-1)",
    "SELECT currval('s')",
    "SELECT lastval()",
    "SELECT setseed(1)",
    "SELECT * FROM dblink('x', 'y')",
    "SELECT * FROM pg_temp.t",
    "SELECT 1 INTO TEMP t",
    "BEGIN",
    "SET a = 1",
    "LISTEN x",
    "CALL p()",
    "DO $$ $$",
    "EXPLAIN ANALYZE SELECT 1",
    "CREATE TABLE t ()",
    "COPY t TO STDOUT",
    "PREPARE x AS SELECT 1",
    "DECLARE x CURSOR FOR SELECT 1",
    "FETCH ALL FROM x",
    "SELECT E'\\' ; SELECT set_config()",
    "",
    "SELECT 'open",
]


@pytest.mark.parametrize("text", SHAREABLE)
def test_it_is_shared(text):
    assert read_text(text, "%s" in text).shareable


@pytest.mark.parametrize("text", NOT_SHAREABLE)
def test_it_is_not_shared(text):
    assert not read_text(text, False).shareable


async def test_what_an_adapter_writes_is_looked_at(make):
    pool = await make(maxsize=1)
    injected = psycopg2.extensions.AsIs("set_config('aiopgx.left', 'behind', false)")
    before = await pid_of(pool)
    async with pool.acquire() as conn, conn.cursor() as cur:
        await cur.execute("SELECT 1")
    task = asyncio.ensure_future(pool.execute("SELECT %s", (injected,)))
    await until(lambda: pool._used or task.done())
    assert not pool._shared
    assert await (await task).fetchall() == [("behind",)]
    assert await pid_of(pool) == before


async def test_an_open_transaction_is_not_left_in_the_pool(make):
    pool = await make(maxsize=1)
    with pytest.warns(ResourceWarning, match="Invalid transaction status"):
        await pool.execute("BEGIN")
    assert settled(pool, 0)
    assert await rows(pool, "SELECT 1") == [(1,)]


BY_KEY = "SELECT number FROM numbers WHERE number = %s"


@pytest.fixture
def numbers(side):
    command(side, "CREATE TABLE numbers AS SELECT generate_series(0, 99) AS number")
    yield range(100)
    command(side, "DROP TABLE numbers")


async def all_right(pool, numbers):
    got = await asyncio.gather(*(rows(pool, BY_KEY, (n,)) for n in numbers))
    assert got == [[(n,)] for n in numbers]


@native
@pytest.mark.parametrize("threshold", [0, 5])
async def test_hot_statements_are_prepared(make, numbers, threshold):
    pool = await make(maxsize=1, prepare_threshold=threshold)
    for _ in range(3):
        await all_right(pool, numbers)
    (conn,) = pool._free
    assert len(conn._wire.plans.names_in_use) == 1
    assert await rows(pool, "SELECT count(*) FROM pg_prepared_statements") == [(1,)]
    assert conn._wire.plans.executions > 150


@native
async def test_one_that_is_gone_is_prepared_anew(make, side, numbers):
    command(
        side,
        "CREATE FUNCTION forget() RETURNS void LANGUAGE plpgsql AS "
        "$$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$",
    )
    pool = await make(maxsize=1, prepare_threshold=0)
    await all_right(pool, numbers)
    await rows(pool, "SELECT forget()")  # behind our back
    await all_right(pool, numbers)
    command(side, "ALTER TABLE numbers ADD COLUMN more int")
    await all_right(pool, numbers)
    assert len(pool._free[0]._wire.plans.names_in_use) == 1
    command(side, "DROP FUNCTION forget()")


# --- who gets which connection --------------------------------------------------------------------


@pytest.mark.all_loops
@pytest.mark.parametrize("size", [1, 2, 10])
async def test_every_task_gets_its_own_result(make, size):
    pool = await make(minsize=1, maxsize=size)
    wrong = []

    async def one(number):
        cur = await pool.execute("SELECT %s::int + 1, pg_backend_pid()", (number,))
        ((value, pid),) = await cur.fetchall()
        if value != number + 1:
            wrong.append(number)
        return pid

    pids = await asyncio.gather(*map(one, range(10_000 if LONG else 300)))
    assert not wrong
    assert len(set(pids)) <= size
    await until(lambda: settled(pool, size))


async def test_an_idle_connection_is_first_then_the_pool_grows(make):
    pool = await make(minsize=2, maxsize=4)
    tasks = [asyncio.ensure_future(rows(pool, SLEEP, (0.2,))) for _ in range(4)]
    await until(lambda: pool.size == 4)
    assert len({(await task)[0][1] for task in tasks}) >= 2
    await until(lambda: settled(pool, 4))


@native
async def test_no_more_than_max_in_flight(make, gate):
    pool = await make(maxsize=1, max_in_flight=3)
    tasks = [asyncio.ensure_future(rows(pool, "SELECT count(*) FROM gate")) for _ in range(6)]
    await until(lambda: pool._sharing.lanes)
    assert pool._sharing.lanes[0].in_flight == 3
    assert len(pool._sharing.queue) == 3
    assert (pool.size, pool.freesize) == (1, 0)
    gate.commit()
    await asyncio.gather(*tasks)
    assert settled(pool, 1)


async def test_an_error_touches_nobody_else(make):
    pool = await make(maxsize=1)
    tasks = [
        asyncio.ensure_future(rows(pool, "SELECT 10 / %s::int", (number % 3,)))
        for number in range(60)
    ]
    done = await asyncio.gather(*tasks, return_exceptions=True)
    for number, outcome in enumerate(done):
        if number % 3:
            assert outcome == [(10 // (number % 3),)]
        else:
            assert type(outcome) is psycopg2.errors.DivisionByZero
    assert settled(pool, 1)


async def test_each_statement_is_a_transaction(make):
    pool = await make(maxsize=1)
    await pool.execute("DELETE FROM shared")
    insert = "INSERT INTO shared (number) VALUES (%s)"
    done = await asyncio.gather(
        *(pool.execute(insert, (n // 2,)) for n in range(10)), return_exceptions=True
    )
    assert [type(outcome) for outcome in done[1::2]] == [psycopg2.errors.UniqueViolation] * 5
    assert await rows(pool, "SELECT count(*) FROM shared") == [(5,)]


async def test_one_in_use_is_never_shared(make):
    pool = await make(maxsize=2)
    async with pool.acquire() as conn:
        mine = await conn.get_backend_pid()
        pids = await asyncio.gather(*(pid_of(pool) for _ in range(50)))
        assert mine not in pids
    assert settled(pool)


@native
@pytest.mark.parametrize("size", [1, 2])
async def test_acquire_is_not_starved(make, size):
    pool = await make(minsize=size, maxsize=size)
    going = True
    count = 0

    async def stream():
        nonlocal count
        while going:
            await rows(pool, "SELECT 1")
            count += 1

    tasks = [asyncio.ensure_future(stream()) for _ in range(40)]
    for _ in range(5):
        before = count
        async with pool.acquire() as conn:
            assert await conn.get_backend_pid()
            if size > 1:
                await until(lambda before=before: count > before)
        await until(lambda before=before: count > before + 100)
    going = False
    await asyncio.gather(*tasks)
    assert settled(pool)


@native
async def test_execute_is_not_starved(make):
    pool = await make(maxsize=1)
    going = True

    async def hold():
        while going:
            async with pool.acquire():
                await asyncio.sleep(0)

    tasks = [asyncio.ensure_future(hold()) for _ in range(5)]
    for _ in range(5):
        assert await asyncio.wait_for(rows(pool, "SELECT 1"), 5) == [(1,)]
    going = False
    await asyncio.gather(*tasks)
    assert settled(pool)


@native
async def test_what_is_slow_is_passed_by(make, gate):
    pool = await make(minsize=2, maxsize=2)
    for _ in range(20):
        await rows(pool, "SELECT 1")  # it knows how long the way is
    slow = asyncio.ensure_future(rows(pool, "SELECT count(*) FROM gate"))
    await asyncio.sleep(0.15)
    pids = await asyncio.wait_for(asyncio.gather(*(pid_of(pool) for _ in range(50))), 10)
    assert len(set(pids)) == 1
    gate.commit()
    await slow
    assert settled(pool, 2)


@native
async def test_nothing_is_sent_behind_two_slow_ones(make, gate):
    """It waits in the pool, and goes where there is room first."""
    pool = await make(minsize=2, maxsize=2)
    for _ in range(20):
        await rows(pool, "SELECT 1")
    long = asyncio.ensure_future(rows(pool, "SELECT count(*) FROM gate"))
    short = asyncio.ensure_future(rows(pool, SLEEP, (0.3,)))
    await asyncio.sleep(0.15)
    asked = asyncio.gather(*(pid_of(pool) for _ in range(50)))
    assert len(set(await asyncio.wait_for(asked, 10))) == 1
    assert short.done()
    gate.commit()
    await long


async def test_a_connect_that_fails(make, ours, dsn):
    pool = await make(minsize=0, maxsize=2, port=1)
    with pytest.raises(psycopg2.OperationalError):
        await pool.execute("SELECT 1")
    await until(lambda: settled(pool, 0))


# --- cancelled, timed out, lost -------------------------------------------------------------------


async def busy_lane(pool, count=0):
    """Tasks of a statement that waits for the gate, and of `count` that were sent behind it."""
    first = asyncio.ensure_future(rows(pool, "SELECT count(*) FROM gate"))
    tasks = [asyncio.ensure_future(rows(pool, "SELECT %s::int", (n,))) for n in range(count)]
    await until(lambda: pool._sharing.lanes and pool._sharing.lanes[0].in_flight == count + 1)
    await until(lambda: pool._sharing.lanes[0].conn.isexecuting())
    return first, tasks


@native
@pytest.mark.all_loops
async def test_cancelled_before_it_was_sent(make, side, gate):
    pool = await make(maxsize=1, max_in_flight=1)
    command(side, "TRUNCATE shared")
    first, _ = await busy_lane(pool)
    insert = asyncio.ensure_future(pool.execute("INSERT INTO shared (number) VALUES (1)"))
    await asyncio.sleep(0)
    insert.cancel()
    with pytest.raises(asyncio.CancelledError):
        await insert
    gate.commit()
    await first
    assert scalar(side, "SELECT count(*) FROM shared") == 0
    assert settled(pool, 1)


@native
@pytest.mark.all_loops
async def test_cancelled_behind_others(make, gate):
    pool = await make(maxsize=1)
    (conn,) = pool._free
    first, tasks = await busy_lane(pool, 10)
    for task in tasks[::2]:
        task.cancel()
    done = await asyncio.gather(*tasks[::2], return_exceptions=True)
    assert [type(outcome) for outcome in done] == [asyncio.CancelledError] * 5
    later = asyncio.ensure_future(pid_of(pool))
    await asyncio.sleep(0)
    assert pool._sharing.lanes[0].in_flight == 11  # it takes no more
    gate.commit()
    assert await first == [(0,)]
    assert await asyncio.gather(*tasks[1::2]) == [[(n,)] for n in range(1, 10, 2)]
    assert await later == await conn.get_backend_pid()
    assert settled(pool, 1)


@native
@pytest.mark.all_loops
async def test_cancelled_in_front_of_others(make, gate):
    pool = await make(maxsize=1)
    (conn,) = pool._free
    first, tasks = await busy_lane(pool, 5)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    gate.commit()
    assert await asyncio.gather(*tasks) == [[(n,)] for n in range(5)]
    assert not conn.closed
    await until(lambda: settled(pool, 1))


@native
@pytest.mark.all_loops
@pytest.mark.parametrize("how", ["cancel", "timeout"])
async def test_the_server_stops_what_nobody_waits_for(make, side, how):
    pool = await make(maxsize=1)
    (conn,) = pool._free
    pid = await conn.get_backend_pid()
    if how == "timeout":
        with pytest.raises(asyncio.TimeoutError, match=r"not executed within 0\.05 s"):
            await pool.execute("SELECT pg_sleep(30), 'unwanted'", timeout=0.05)
    else:
        task = asyncio.ensure_future(pool.execute("SELECT pg_sleep(30), 'unwanted'"))
        await until(lambda: running(side, "unwanted"))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await until(lambda: activity(side, pid) is None)
    assert conn.closed
    await until(lambda: settled(pool, 0))
    assert await rows(pool, "SELECT 1") == [(1,)]


@native
async def test_many_abandoned_are_stopped_one_after_the_other(make, side):
    pool = await make(maxsize=1)
    tasks = [asyncio.ensure_future(rows(pool, "SELECT pg_sleep(30)")) for _ in range(8)]
    await until(lambda: running(side, "pg_sleep(30)"))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await until(lambda: not running(side, "pg_sleep(30)"))
    await until(lambda: settled(pool, 0))


@native
async def test_timeout_in_the_queue(make, gate):
    pool = await make(maxsize=1, max_in_flight=1)
    first, _ = await busy_lane(pool)
    with pytest.raises(
        asyncio.TimeoutError, match=r"no connection within 0\.05 s: 0 of 1 in use, 1 shared"
    ):
        await pool.execute("SELECT 1", timeout=0.05)
    gate.commit()
    assert await first == [(0,)]
    assert settled(pool, 1)


@native
async def test_timeout_behind_others(make, gate):
    pool = await make(maxsize=1)
    first, _ = await busy_lane(pool)
    given_up = asyncio.ensure_future(pool.execute("SELECT 1", timeout=0.05))
    last = asyncio.ensure_future(rows(pool, "SELECT 2"))  # else the connection may be closed
    with pytest.raises(asyncio.TimeoutError):
        await given_up
    gate.commit()
    assert (await first, await last) == ([(0,)], [(2,)])
    await until(lambda: settled(pool, 1))


@native
@pytest.mark.all_loops
async def test_a_backend_is_killed(make, side, gate):
    """What was sent fails; what was not goes elsewhere, unseen."""
    pool = await make(maxsize=1, max_in_flight=4)
    (conn,) = pool._free
    first, tasks = await busy_lane(pool, 3)
    more = [asyncio.ensure_future(rows(pool, "SELECT %s::int", (n,))) for n in range(20)]
    await asyncio.sleep(0)
    scalar(side, "SELECT pg_terminate_backend(%s)", (await conn.get_backend_pid(),))
    done = await asyncio.gather(first, *tasks, return_exceptions=True)
    assert all(isinstance(outcome, psycopg2.OperationalError) for outcome in done), done
    assert await asyncio.gather(*more) == [[(n,)] for n in range(20)]
    assert settled(pool, 1)


@native
@pytest.mark.all_loops
@pytest.mark.parametrize("size", [1, 10])
async def test_storm(make, side, size):
    """Every third is cancelled at some moment, backends are killed, acquire() is in between."""
    pool = await make(maxsize=size, max_in_flight=16)  # of which a killed backend takes no more
    chance = random.Random(size)
    span = 3 if LONG else 0.3
    counts = {"right": 0, "cancelled": 0, "lost": 0}

    async def one(number):
        await asyncio.sleep(chance.random() * span)
        try:
            if number % 10 == 0:
                async with pool.acquire() as conn, conn.cursor() as cur, cur.begin():
                    await cur.execute("SELECT %s::int", (number,))
                    got = await cur.fetchall()
            else:
                got = await rows(pool, "SELECT %s::int FROM pg_sleep(0)", (number,))
        except asyncio.CancelledError:
            counts["cancelled"] += 1
        except psycopg2.Error:
            counts["lost"] += 1
        else:
            assert got == [(number,)]
            counts["right"] += 1

    tasks = [asyncio.ensure_future(one(n)) for n in range(6000 if LONG else 300)]
    for number, task in enumerate(tasks):
        if number % 3 == 0:
            pool._loop.call_later(chance.random() * span * 1.2, task.cancel)
    for _ in range(3):
        await asyncio.sleep(span / 4)
        scalar(
            side,
            "SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity WHERE "
            "query LIKE '%pg_sleep(0)%' AND pid <> pg_backend_pid() LIMIT 1) AS victim",
        )
    done = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 30)
    assert not [outcome for outcome in done if isinstance(outcome, Exception)]
    assert counts["right"] > len(tasks) / 3, counts
    await until(lambda: settled(pool))
    assert not pool._sharing.lanes
    assert not pool._sharing.queue


# --- the pool's end -------------------------------------------------------------------------------


async def test_a_closed_pool_refuses(make):
    pool = await make()
    pool.close()
    with pytest.raises(RuntimeError, match="after closing pool"):
        await pool.execute("SELECT 1")
    await pool.wait_closed()


@native
async def test_close_waits_for_what_was_executed(make):
    pool = await make(maxsize=1, max_in_flight=2)
    tasks = [asyncio.ensure_future(rows(pool, SLEEP, (0.05,))) for _ in range(4)]
    await asyncio.sleep(0)
    pool.close()
    await pool.wait_closed()
    assert pool.size == 0
    assert all(task.done() for task in tasks)
    await asyncio.gather(*tasks)


@native
@pytest.mark.all_loops
async def test_terminate(make, side):
    pool = await make(maxsize=1, max_in_flight=2)
    tasks = [asyncio.ensure_future(rows(pool, "SELECT pg_sleep(30), 9")) for _ in range(4)]
    await until(lambda: running(side, "pg_sleep(30), 9"))
    pool.terminate()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in done] == [psycopg2.OperationalError] * 2 + [
        RuntimeError
    ] * 2
    await pool.wait_closed()
    assert pool.size == 0
    await until(lambda: not running(side, "pg_sleep(30), 9"))


async def test_another_loop(make):
    pool = await make()

    def elsewhere():
        asyncio.run(rows(pool, "SELECT 1"))

    with pytest.raises(RuntimeError, match="another event loop"):
        await asyncio.get_running_loop().run_in_executor(None, elsewhere)


@pytest.mark.parametrize("shared", [None, False])
async def test_echo(make, caplog, shared):
    pool = await make(echo=True)
    caplog.clear()
    with caplog.at_level("INFO"):
        await pool.execute("SELECT %s", ("x",), shared=shared)
    assert [record.getMessage() for record in caplog.records] == ["SELECT %s", "('x',)"]
