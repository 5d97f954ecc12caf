"""conn.pipeline(): what the statements of a block give, on each road."""

import asyncio

import psycopg2
import psycopg2.extras
import pytest
from psycopg2 import sql
from roads import unknown
from support import blocked, fetch, running, until

from aiopgx import _libpq


@pytest.fixture(params=[99, 13], ids=["libpq", "libpq13"])
def libpq(request):
    """What is there, and a libpq without pipeline mode: one statement after the other."""
    _libpq.limit(request.param)
    yield
    _libpq.limit(99)


@pytest.fixture
def conn(ours, connect, libpq):
    async def conn(**kwargs):
        conn = await connect(raise_query_canceled=True, **kwargs)
        await fetch_nothing(conn, "CREATE TEMP TABLE piped (i int PRIMARY KEY)")
        return conn

    return conn


async def fetch_nothing(conn, statement):
    async with conn.cursor() as cur:
        await cur.execute(statement)


async def stored(conn):
    return [i for (i,) in await fetch(conn, "SELECT i FROM piped ORDER BY i")]


INSERT = "INSERT INTO piped VALUES (%s)"


@pytest.mark.all_loops
async def test_from_one_task(conn):
    conn = await conn()
    async with conn.pipeline():
        cursors = []
        for n in range(1000):
            cur = await conn.cursor()
            await cur.execute("SELECT %s, 'text'", (n,))
            cursors.append(cur)
        for n, cur in enumerate(cursors):
            assert await cur.fetchall() == [(n, "text")]
            assert cur.rowcount == 1 and cur.statusmessage == "SELECT 1"
            assert cur.query == f"SELECT {n}, 'text'".encode()
    assert await fetch(conn, "SELECT 1") == [(1,)]


@pytest.mark.all_loops
async def test_from_several_tasks(conn):
    conn = await conn()

    async def one(n):
        async with conn.cursor() as cur:
            await cur.execute("SELECT %s", (n,))
            await asyncio.sleep(0)
            return await cur.fetchone()

    async with conn.pipeline():
        rows = await asyncio.gather(*map(one, range(1000)))
    assert rows == [(n,) for n in range(1000)]


async def test_results_are_here_at_the_end(conn):
    conn = await conn()
    cursors = [await conn.cursor() for _ in range(5)]
    async with conn.pipeline():
        for n, cur in enumerate(cursors):
            await cur.execute("SELECT generate_series(1, %s)", (n,))
    assert [cur.rowcount for cur in cursors] == [0, 1, 2, 3, 4]
    assert [row async for row in cursors[3]] == [(1,), (2,), (3,)]
    assert await cursors[4].fetchmany(2) == [(1,), (2,)]
    assert cursors[4].raw.fetchone() == (3,)


@pytest.mark.parametrize("how", ["fetchone", "fetchmany", "fetchall", "scroll", "iterate"])
async def test_what_waits_for_the_result(conn, how):
    conn = await conn()
    cur = await conn.cursor()
    async with conn.pipeline():
        await cur.execute("SELECT generate_series(1, 3), pg_sleep(0.02)::text")
        if how == "fetchone":
            assert await cur.fetchone() == (1, "")
        elif how == "fetchmany":
            assert await cur.fetchmany(2) == [(1, ""), (2, "")]
        elif how == "fetchall":
            assert await cur.fetchall() == [(1, ""), (2, ""), (3, "")]
        elif how == "scroll":
            await cur.scroll(2)
            assert await cur.fetchone() == (3, "")
        else:
            assert [row async for row in cur] == [(1, ""), (2, ""), (3, "")]
        assert cur.rowcount == 3


async def test_one_cursor_for_many(conn):
    conn = await conn()
    cur = await conn.cursor()
    async with conn.pipeline():
        for n in range(2000):
            await cur.execute(INSERT, (n,))
        await cur.execute("SELECT count(*) FROM piped")
        assert await cur.fetchone() == (2000,)
    assert await stored(conn) == list(range(2000))


@pytest.mark.parametrize(
    "factory",
    [
        psycopg2.extras.DictCursor,
        psycopg2.extras.RealDictCursor,
        psycopg2.extras.NamedTupleCursor,
        unknown(psycopg2.extras.DictCursor),
    ],
)
async def test_cursor_classes(conn, factory):
    conn = await conn()
    plain, cur = await conn.cursor(), await conn.cursor(cursor_factory=factory)
    async with conn.pipeline():
        await plain.execute("SELECT 1")
        await cur.execute("SELECT 2 AS a, 3 AS b")
        await plain.execute("SELECT 4")
        row = await cur.fetchone()
        assert list(row.values() if isinstance(row, dict) else row) == [2, 3]
        assert await plain.fetchone() == (4,)


FOREIGN = unknown(psycopg2.extensions.cursor)


@pytest.mark.parametrize("factory", [None, FOREIGN])
async def test_cursor_that_is_closed_before_its_turn(conn, factory):
    """Its statements are executed all the same; nobody sees their rows."""
    conn = await conn()
    async with conn.pipeline(), conn.cursor(cursor_factory=factory) as cur:
        await cur.execute("SELECT 1; SELECT 2")
        await cur.execute(INSERT, (1,))
        await cur.execute(INSERT, (2,))
    assert cur.closed
    assert await stored(conn) == [1, 2]
    with pytest.raises(psycopg2.errors.UniqueViolation):
        async with conn.pipeline(), conn.cursor(cursor_factory=factory) as cur:
            await cur.execute(INSERT, (3,))
            await cur.execute(INSERT, (1,))
    assert await stored(conn) == [1, 2, 3]


@pytest.mark.parametrize("factory", [None, FOREIGN])
async def test_cursor_that_is_closed_executes_nothing_more(conn, factory):
    conn = await conn()
    async with conn.pipeline():
        cur = await conn.cursor(cursor_factory=factory)
        await cur.execute(INSERT, (1,))
        cur.close()
        with pytest.raises(psycopg2.InterfaceError, match="cursor already closed"):
            await cur.execute(INSERT, (2,))
    assert await stored(conn) == [1]


@pytest.mark.parametrize("factory", [None, FOREIGN])
async def test_parameters_are_those_of_the_call(conn, factory):
    """What the program does with its list or dict afterwards changes nothing."""
    conn = await conn()
    cur = await conn.cursor(cursor_factory=factory)
    by_position, by_name = [1], {"i": 2}
    async with conn.pipeline():
        await cur.execute(INSERT, by_position)
        await cur.execute("INSERT INTO piped VALUES (%(i)s)", by_name)
        by_position[0] = by_name["i"] = 3
    assert await stored(conn) == [1, 2]


async def test_what_goes_alone_keeps_its_place(conn):
    """Several statements in a text, other methods, values that psycopg2 writes."""
    conn = await conn()
    cur, other = await conn.cursor(), await conn.cursor()
    async with conn.pipeline():
        await cur.execute(INSERT, (1,))
        await cur.execute("INSERT INTO piped VALUES (2); INSERT INTO piped VALUES (3)")
        await cur.execute(INSERT, (psycopg2.extensions.AsIs("4); INSERT INTO piped VALUES (5"),))
        await cur.execute(sql.SQL("INSERT INTO {} VALUES (6)").format(sql.Identifier("piped")))
        await cur.execute(b"INSERT INTO piped VALUES (7)")
        await cur.execute("INSERT INTO piped SELECT length('%%') + 7", ())
        await other.execute("SELECT count(*) FROM piped")
        await cur.callproc("abs", (-3,))
        assert await cur.fetchone() == (3,)
        assert await other.fetchone() == (8,)
        await cur.execute("SELECT %s, %s, %s", ([1, 2], b"\x00", {"a": "b"}))
        values, data, mapping = await cur.fetchone()
        assert (values, bytes(data)) == ([1, 2], b"\x00") and mapping
        await cur.execute("SHOW max_identifier_length")
        assert await cur.fetchone() == ("63",)
    assert await stored(conn) == [1, 2, 3, 4, 5, 6, 7, 8]


async def test_streams_and_named_cursors_within(conn):
    conn = await conn()
    cur = await conn.cursor()
    async with conn.pipeline(), cur.begin():
        await cur.execute("INSERT INTO piped SELECT generate_series(1, 500)")
        named = await conn.cursor(name="within")
        await named.execute("SELECT i FROM piped ORDER BY i")
        await cur.execute(INSERT, (501,))
        assert await named.fetchmany(2) == [(1,), (2,)]
        await named.close()
        await cur.execute(INSERT, (502,))
        rows = [row async for row in cur.stream("SELECT i FROM piped ORDER BY i")]
        assert len(rows) == 502
    assert len(await stored(conn)) == 502


# --- transactions and errors ----------------------------------------------------------------------


async def test_each_statement_is_a_transaction(conn):
    conn = await conn()
    cur = await conn.cursor()
    with pytest.raises(psycopg2.errors.UniqueViolation) as caught:
        async with conn.pipeline():
            for n in [1, 2, 2, 3, 1, 4]:
                await cur.execute(INSERT, (n,))
    assert "(2) already exists" in str(caught.value) and caught.value.pgcode == "23505"
    notes = getattr(caught.value, "__notes__", ["1 more of the statements failed"])
    assert notes == ["1 more of the statements failed"]
    assert await stored(conn) == [1, 2, 3, 4]


async def test_a_transaction_within(conn):
    conn = await conn()
    cur = await conn.cursor()
    async with conn.pipeline(), cur.begin():
        for n in range(3):
            await cur.execute(INSERT, (n,))
    assert await stored(conn) == [0, 1, 2]


async def test_an_aborted_transaction(conn):
    conn = await conn()
    cursors = [await conn.cursor() for _ in range(5)]
    async with conn.pipeline():
        await cursors[0].execute("BEGIN")
        await cursors[1].execute(INSERT, (1,))
        await cursors[2].execute("SELECT 1 / 0")
        await cursors[3].execute(INSERT, (2,))
        await cursors[4].execute("ROLLBACK")
        with pytest.raises(psycopg2.errors.DivisionByZero) as caught:
            await cursors[2].fetchone()
        assert caught.value.__context__ is None
        with pytest.raises(psycopg2.errors.InFailedSqlTransaction):
            await cursors[3].fetchone()
    assert [cur.statusmessage for cur in cursors[:2]] == ["BEGIN", "INSERT 0 1"]
    assert await stored(conn) == []


async def test_an_error_is_raised_once(conn):
    conn = await conn()
    cur = await conn.cursor()
    async with conn.pipeline():
        await cur.execute("SELECT 1 / 0")
        with pytest.raises(psycopg2.errors.DivisionByZero) as caught:
            await cur.fetchone()
        assert caught.value.cursor is not None
        with pytest.raises(psycopg2.ProgrammingError, match="no results to fetch"):
            await cur.fetchone()
    assert await fetch(conn, "SELECT 1") == [(1,)]


async def test_errors_as_those_of_execute(conn):
    conn = await conn()
    for statement in ["SELEC", "SELECT nosuch", "SELECT 1 / 0", ""]:
        seen = []
        for piped in (False, True):
            cur = await conn.cursor()
            with pytest.raises(psycopg2.Error) as caught:
                if piped:
                    async with conn.pipeline():
                        await cur.execute(statement)
                else:
                    await cur.execute(statement)
            error = caught.value
            seen.append((type(error), str(error), error.pgcode, error.cursor is cur._psycopg))
        assert seen[0] == seen[1]


async def test_bad_arguments_are_refused_at_once(conn):
    conn = await conn()
    cur = await conn.cursor()
    async with conn.pipeline():
        with pytest.raises(psycopg2.ProgrammingError, match="can't adapt"):
            await cur.execute("SELECT %s", (object(),))
        with pytest.raises(ValueError, match="NUL"):
            await cur.execute("SELECT '\0'")
        with pytest.raises(TypeError, match="timeout"):
            await cur.execute("SELECT 1", timeout="soon")
        await cur.execute("SELECT 2")
        assert await cur.fetchone() == (2,)


async def test_the_error_of_the_block_is_the_one_to_be_seen(conn, caplog):
    conn = await conn()
    cur = await conn.cursor()
    with pytest.raises(KeyError):
        async with conn.pipeline():
            await cur.execute(INSERT, (1,))
            await cur.execute("SELECT 1 / 0")
            raise KeyError("block")
    assert "division by zero" in caplog.text
    assert await stored(conn) == [1]


async def test_sync(conn):
    conn = await conn()
    cur = await conn.cursor()
    async with conn.pipeline() as pipeline:
        await cur.execute(INSERT, (1,))
        await pipeline.sync()
        assert cur.rowcount == 1
        await cur.execute(INSERT, (1,))
        with pytest.raises(psycopg2.errors.UniqueViolation):
            await pipeline.sync()
        await pipeline.sync()


async def test_blocks_within_blocks(conn):
    conn = await conn()
    cur = await conn.cursor()
    async with conn.pipeline() as outer:
        await cur.execute(INSERT, (1,))
        async with conn.pipeline() as inner:
            await cur.execute(INSERT, (2,))
        assert inner is outer and cur.rowcount == 1
        await cur.execute(INSERT, (3,))
    assert await stored(conn) == [1, 2, 3]
    await cur.execute("SELECT 1")
    assert cur.rowcount == 1


async def test_attributes_while_in_flight(conn):
    conn = await conn()
    cur = await conn.cursor()
    await cur.execute("SELECT 1")
    async with conn.pipeline():
        await cur.execute("SELECT 2, pg_sleep(0.05)")
        if cur.rowcount != 1:  # not so on psycopg2's road
            assert (cur.description, cur.rowcount, cur.statusmessage) == (None, -1, None)
            with pytest.raises(RuntimeError, match="in flight"):
                _ = cur.raw
        assert await cur.fetchone() == (2, "")


async def test_nobody_else(conn):
    """Outside of a block all is as before."""
    conn = await conn()
    cur, other = await conn.cursor(), await conn.cursor()
    async with conn.pipeline():
        await cur.execute("SELECT 1")
        await other.execute("SELECT 2")
    task = asyncio.ensure_future(cur.execute("SELECT pg_sleep(0.05)"))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="while another coroutine"):
        await other.execute("SELECT 1")
    with pytest.raises(RuntimeError, match="while another coroutine"):
        async with conn.pipeline():
            await other.execute("SELECT 1")
    await task


@pytest.mark.all_loops
@pytest.mark.parametrize("guard", [False, True])
async def test_released_within_the_block(ours, pool, guard):
    """By a generator that was left and not closed: its block ends behind the release."""
    made = await pool(minsize=1, maxsize=1, guard=guard)

    async def given(conn):
        async with conn.pipeline(), conn.cursor() as cur:
            await cur.execute("SELECT 1")
            yield await cur.fetchone()

    async def leave():
        async with made.acquire() as conn:
            async for _ in given(conn):
                break

    async def follow():
        async with made.acquire() as conn, conn.cursor() as cur:
            with pytest.raises(psycopg2.errors.UndefinedTable):
                await cur.execute("INSERT INTO nowhere VALUES (1)")

    with pytest.warns(ResourceWarning, match="Pipeline left open on released connection"):
        await asyncio.gather(leave(), follow())
    async with made.acquire() as conn:
        assert await fetch(conn, "SELECT 1") == [(1,)]
        async with conn.pipeline():
            pass
    assert made.size == made.freesize == 1


@pytest.mark.all_loops
async def test_released_within_the_block_that_raises(ours, pool):
    """While a stream comes to its end: the block's exception is not hidden by that of `guard=`."""
    made = await pool(minsize=1, maxsize=1, guard=True)
    conn = await made.acquire()
    with pytest.warns(ResourceWarning, match="Pipeline left open on released connection"):
        with pytest.raises(ZeroDivisionError):
            async with conn.pipeline():
                cur = await conn.cursor()
                async for _ in cur.stream("SELECT generate_series(1, 99999)"):
                    break
                made.release(conn)
                raise ZeroDivisionError
        await until(lambda: made.size == 0)


async def test_a_closed_connection(conn):
    conn = await conn()
    conn.close()
    with pytest.raises(psycopg2.InterfaceError, match="connection already closed"):
        async with conn.pipeline():
            pass


# --- those who give up ----------------------------------------------------------------------------


async def wait_for_first(conn, side, mark):
    """A block in which a statement runs, and others are behind it."""
    cursors = [await conn.cursor() for _ in range(3)]
    outcomes = []

    async def one(cur, statement):
        try:
            await cur.execute(statement)
            outcomes.append(await cur.fetchone())
        except BaseException as error:
            outcomes.append(type(error))
            raise

    async def block():
        async with conn.pipeline():
            statements = [f"SELECT 1, pg_sleep(30) AS {mark}", "SELECT 2", "SELECT 3"]
            await asyncio.gather(*map(one, cursors, statements))

    task = asyncio.ensure_future(block())
    await until(lambda: running(side, mark))
    return task, outcomes


@pytest.mark.all_loops
async def test_cancelled(conn, side):
    conn = await conn()
    task, outcomes = await wait_for_first(conn, side, "pipe_cancelled")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(outcomes) == 3
    assert set(outcomes) <= {asyncio.CancelledError, psycopg2.OperationalError}
    assert conn.closed
    await until(lambda: not running(side, "pipe_cancelled"))


async def test_one_of_several_tasks_is_cancelled(conn, side, gate):
    """What waits behind another statement, and was not sent, is dropped; else all are told."""
    conn = await conn()
    cursors = [await conn.cursor() for _ in range(3)]

    async def one(cur, statement):
        await cur.execute(statement)
        return await cur.fetchone()

    async with conn.pipeline():
        tasks = [
            asyncio.ensure_future(one(cursors[0], "SELECT 1; SELECT count(*) FROM gate")),
            asyncio.ensure_future(one(cursors[1], "SELECT 2; SELECT 3")),
            asyncio.ensure_future(one(cursors[2], "SELECT 4; SELECT 5")),
        ]
        await until(lambda: blocked(side, "FROM gate"))
        tasks[1].cancel()
        await asyncio.sleep(0)
        gate.commit()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    if outcomes[0] == (0,):  # psycopg2's road has no cursor to wait with
        assert outcomes[2] == (5,)
        assert not conn.closed
    assert type(outcomes[1]) is asyncio.CancelledError


async def test_timeout(conn, side):
    conn = await conn()
    cur, other = await conn.cursor(), await conn.cursor()
    with pytest.raises(asyncio.TimeoutError):
        async with conn.pipeline():
            await cur.execute("SELECT pg_sleep(30) AS pipe_timeout", timeout=0.2)
            await other.execute("SELECT 1")
    assert conn.closed
    await until(lambda: not running(side, "pipe_timeout"))


async def test_the_backend_is_killed(conn, side):
    conn = await conn()
    cur, other = await conn.cursor(), await conn.cursor()
    with pytest.raises(psycopg2.Error):
        async with conn.pipeline():
            await cur.execute("SELECT pg_terminate_backend(pg_backend_pid())")
            await other.execute("SELECT 1")
            with pytest.raises(psycopg2.Error):
                await other.fetchone()
    assert conn.closed
