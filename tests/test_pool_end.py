"""The end of a pool while somebody waits: they are told, and nothing is made behind it."""

import asyncio

import psycopg2
import pytest
from drills import LOOPS, sessions
from support import until

import aiopgx

native = pytest.mark.skipif(
    "not __import__('aiopgx').capabilities().native",
    reason="statements share connections on the native road alone",
)

CLOSED = "Cannot acquire connection after closing pool"


@LOOPS
@pytest.mark.parametrize("end", ["close", "terminate"])
async def test_while_a_check_is_under_way(ours, pool, side, end):
    """The connection fails its check, and is not replaced."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def check(conn):
        begun.set()
        await go_on.wait()
        raise ZeroDivisionError

    made = await pool(minsize=1, maxsize=2, check=check, application_name="checked at the end")
    acquiring = asyncio.ensure_future(made.acquire())
    await begun.wait()
    getattr(made, end)()
    if end == "terminate":
        await made.wait_closed()
    go_on.set()
    with pytest.raises(RuntimeError, match=CLOSED):
        await acquiring
    await made.wait_closed()
    assert made.size == 0
    await until(lambda: sessions(side, "checked at the end") == 0)


@LOOPS
async def test_between_two_checks(ours, pool, side):
    """In the pause behind a new connection that has failed its check."""

    async def check(conn):
        if len(checked) < 3:
            checked.append(conn)
            raise ZeroDivisionError

    checked = []
    made = await pool(minsize=0, maxsize=2, check=check, application_name="between checks")
    acquiring = asyncio.ensure_future(made.acquire())
    await until(lambda: len(checked) == 3 and made.size == 0)
    made.close()
    await made.wait_closed()
    with pytest.raises(RuntimeError, match=CLOSED):
        await acquiring
    assert made.size == 0
    await until(lambda: sessions(side, "between checks") == 0)


async def asked(pool, minsize):
    """A pool whose connections are checked, and a task that has just asked it for a statement."""
    made = await pool(minsize=minsize, maxsize=1, check=aiopgx.check_connection)
    asking = asyncio.ensure_future(made.execute("SELECT 1"))
    await asyncio.sleep(0)
    return made, asking


@native
@LOOPS
async def test_behind_the_statements_that_wait(ours, pool):
    """For a connection that is to be checked before."""
    made, asking = await asked(pool, minsize=1)
    made.close()
    await made.wait_closed()
    assert made.size == 0 and not made._sharing.waiting()
    assert await (await asking).fetchall() == [(1,)]


@native
@LOOPS
async def test_behind_a_statement_that_is_given_up(ours, pool):
    made, asking = await asked(pool, minsize=1)
    made.close()
    closing = asyncio.ensure_future(made.wait_closed())
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait_for(closing, 10)
    assert asking.cancelled()


@native
@LOOPS
async def test_in_front_of_the_search_for_a_connection(ours, pool):
    """It is a task that has not begun: nothing is made for a statement that was told."""
    made, asking = await asked(pool, minsize=0)
    made.terminate()
    await made.wait_closed()
    with pytest.raises(RuntimeError, match=CLOSED):
        await asking
    await asyncio.sleep(0.1)
    stats = made.get_stats()
    assert (stats["connections_num"], stats["pool_size"], stats["requests_num"]) == (0, 0, 1)


@LOOPS
@pytest.mark.parametrize("how", ["close", "terminate"])
async def test_between_two_attempts_to_connect(ours, pool, how):
    """Those who wait are told by one more attempt, not by their timeouts."""
    made = await pool(minsize=0, maxsize=3, dbname="nowhere", reconnect_timeout=60, timeout=60)
    waiting = [asyncio.ensure_future(made.acquire()) for _ in range(2)]
    waiting.append(asyncio.ensure_future(made.execute("SELECT 1")))
    await until(lambda: made._upkeep.outage is not None and made._upkeep.outage.timer is not None)
    getattr(made, how)()
    await asyncio.wait_for(made.wait_closed(), 10)
    done, _ = await asyncio.wait(waiting, timeout=0.1)
    assert len(done) == 3
    expected = psycopg2.OperationalError if how == "close" else RuntimeError
    assert [type(task.exception()) for task in waiting] == [expected] * 3


@LOOPS
async def test_by_the_hook_of_a_new_connection(ours, pool, side):
    """Its task is cancelled by that, and does not lose the connection."""

    async def on_connect(conn):
        made.terminate()

    made = await pool(minsize=0, on_connect=on_connect, application_name="ended by its hook")
    with pytest.raises(RuntimeError, match=CLOSED):
        await made.acquire()
    await made.wait_closed()
    assert made.size == 0
    await until(lambda: sessions(side, "ended by its hook") == 0)


async def test_a_hook_that_cancels_its_task(ours, pool):
    async def on_connect(conn):
        made_of.append(conn)
        asyncio.current_task().cancel()

    made_of = []
    made = await pool(minsize=0, on_connect=on_connect)
    with pytest.raises(asyncio.CancelledError):
        await made.acquire()
    assert [conn.closed for conn in made_of] == [1]
    await until(lambda: made.size == 0)
