"""LISTEN and NOTIFY."""

import asyncio

import psycopg2
import psycopg2.extensions
import pytest
from support import fetch, until


@pytest.fixture
def listening(connect):
    async def make(*channels):
        conn = await connect()
        async with conn.cursor() as cursor:
            for channel in channels:
                await cursor.execute(f"LISTEN {channel}")
        return conn

    return make


def notify(side, channel, payload=""):
    with side.cursor() as cursor:
        cursor.execute("SELECT pg_notify(%s, %s)", (channel, payload))


async def get(conn):
    return await asyncio.wait_for(conn.notifies.get(), 5)


@pytest.mark.all_loops
async def test_get(listening, side):
    conn = await listening("news")
    notify(side, "news", "hello")
    got = await get(conn)
    assert type(got) is psycopg2.extensions.Notify
    assert (got.channel, got.payload, got.pid) == ("news", "hello", side.info.backend_pid)


@pytest.mark.all_loops
async def test_get_waits(listening, side):
    conn = await listening("news")
    waiting = asyncio.create_task(conn.notifies.get())
    await asyncio.sleep(0.02)
    assert not waiting.done()
    notify(side, "news", "late")
    assert (await asyncio.wait_for(waiting, 5)).payload == "late"


async def test_no_payload(listening, side):
    conn = await listening("news")
    with side.cursor() as cursor:
        cursor.execute("NOTIFY news")
    assert (await get(conn)).payload == ""


async def test_payload_is_decoded(listening, side):
    conn = await listening('"Ünïcode"')
    text = "grüße\n日本" + "x" * 7000
    notify(side, "Ünïcode", text)
    got = await get(conn)
    assert (got.channel, got.payload) == ("Ünïcode", text)


async def test_queue_methods(listening, side):
    conn = await listening("news")
    queue = conn.notifies
    assert queue is conn.notifies
    assert queue.empty()
    assert queue.qsize() == 0
    with pytest.raises(asyncio.QueueEmpty):
        queue.get_nowait()
    for payload in "abc":
        notify(side, "news", payload)
    await until(lambda: queue.qsize() == 3)
    assert not queue.empty()
    assert queue.get_nowait().payload == "a"
    assert [(await get(conn)).payload for _ in range(2)] == ["b", "c"]
    assert queue.empty()


async def test_order_over_channels(listening, side):
    conn = await listening("one", "two")
    sent = [("one" if n % 3 else "two", str(n)) for n in range(20)]
    for channel, payload in sent:
        notify(side, channel, payload)
    got = [await get(conn) for _ in sent]
    assert [(n.channel, n.payload) for n in got] == sent


async def test_many_in_one_go(listening, side):
    conn = await listening("news")
    with side.cursor() as cursor:
        cursor.execute("SELECT pg_notify('news', n::text) FROM generate_series(1, 2000) n")
    got = [(await get(conn)).payload for _ in range(2000)]
    assert got == [str(n) for n in range(1, 2001)]


async def test_from_oneself(listening):
    conn = await listening("news")
    await fetch(conn, "SELECT pg_notify('news', 'mine')")
    got = await get(conn)
    assert (got.payload, got.pid) == ("mine", await conn.get_backend_pid())


async def test_from_oneself_at_the_end_of_a_string(ours, listening):
    """What libpq has read already must not wait for the socket to stir again."""
    conn = await listening("news")
    async with conn.cursor() as cursor:
        for _ in range(3):
            await cursor.execute("DO $$ BEGIN PERFORM 1; END $$; NOTIFY news, 'mine'")
            assert (await get(conn)).payload == "mine"


async def test_at_commit(listening):
    conn = await listening("news")
    async with conn.cursor() as cursor, cursor.begin():
        await cursor.execute("NOTIFY news, 'inside'")
        await cursor.execute("SELECT 1")
        assert conn.notifies.empty()
    assert (await get(conn)).payload == "inside"


@pytest.mark.all_loops
async def test_while_busy(listening, side):
    conn = await listening("news")
    query = asyncio.create_task(fetch(conn, "SELECT pg_sleep(0.1), 'row'"))
    await asyncio.sleep(0.02)
    for payload in "xy":
        notify(side, "news", payload)
    assert await query == [("", "row")]
    assert [(await get(conn)).payload for _ in range(2)] == ["x", "y"]


async def test_queries_on_a_listening_connection(listening, side):
    conn = await listening("news")
    waiting = asyncio.create_task(conn.notifies.get())
    for n in range(10):
        assert await fetch(conn, "SELECT %s", (n,)) == [(n,)]
    assert not waiting.done()
    notify(side, "news", "at last")
    assert (await asyncio.wait_for(waiting, 5)).payload == "at last"


async def test_unlisten(listening, side):
    conn = await listening("news", "other")
    async with conn.cursor() as cursor:
        await cursor.execute("UNLISTEN news")
    notify(side, "news", "lost")
    notify(side, "other", "kept")
    assert (await get(conn)).payload == "kept"
    assert conn.notifies.empty()


async def test_several_readers_share_the_queue(listening, side):
    conn = await listening("news")
    readers = [asyncio.create_task(conn.notifies.get()) for _ in range(3)]
    await asyncio.sleep(0)
    for payload in "abc":
        notify(side, "news", payload)
    got = await asyncio.wait_for(asyncio.gather(*readers), 5)
    assert sorted(n.payload for n in got) == ["a", "b", "c"]


async def test_cancelled_get_loses_nothing(listening, side):
    conn = await listening("news")
    waiting = asyncio.create_task(conn.notifies.get())
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    notify(side, "news", "kept")
    assert (await get(conn)).payload == "kept"


@pytest.mark.all_loops
async def test_close_ends_the_waiting(listening):
    conn = await listening("news")
    waiting = asyncio.create_task(conn.notifies.get())
    await asyncio.sleep(0.01)
    conn.close()
    with pytest.raises(psycopg2.OperationalError, match="Connection closed"):
        await asyncio.wait_for(waiting, 2)


async def test_what_came_before_the_close_can_be_read(listening, side):
    conn = await listening("news")
    notify(side, "news", "last")
    await until(lambda: conn.notifies.qsize() == 1)
    await conn.close()
    assert (await get(conn)).payload == "last"
    with pytest.raises(psycopg2.OperationalError, match="Connection closed"):
        await get(conn)
    with pytest.raises(psycopg2.OperationalError, match="Connection closed"):
        conn.notifies.get_nowait()


async def test_close_the_queue(listening, side):
    conn = await listening("news")
    waiting = asyncio.create_task(conn.notifies.get())
    await asyncio.sleep(0.01)
    conn.notifies.close(exception=KeyError("enough"))
    with pytest.raises(KeyError, match="enough"):
        await asyncio.wait_for(waiting, 2)
    assert not conn.closed
    assert await fetch(conn, "SELECT 1") == [(1,)]


async def test_queue_behind_the_proxy(impl, listening, side):
    conn = await listening("news")
    assert isinstance(conn.notifies, impl.utils.ClosableQueue)
    assert isinstance(conn.notifies._queue, asyncio.Queue)
    notify(side, "news", "x")
    assert (await asyncio.wait_for(conn.notifies._queue.get(), 5)).payload == "x"


async def test_unlike_psycopg_nothing_stays_on_raw(listening, side):
    conn = await listening("news")
    notify(side, "news", "x")
    await get(conn)
    assert conn.raw.notifies == []


# --- async for ------------------------------------------------------------------------------------


@pytest.mark.all_loops
async def test_async_for(ours, listening, side):
    conn = await listening("news")
    got = []

    async def read():
        async for notify in conn.notifies:
            got.append(notify.payload)
            if len(got) == 3:
                break

    reading = asyncio.create_task(read())
    for payload in "abc":
        notify(side, "news", payload)
    await asyncio.wait_for(reading, 5)
    assert got == ["a", "b", "c"]


async def test_async_for_and_a_dying_backend(ours, listening, side):
    conn = await listening("news")

    async def read():
        async for _ in conn.notifies:
            pass

    reading = asyncio.create_task(read())
    await asyncio.sleep(0.01)
    with side.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s)", (await conn.get_backend_pid(),))
    with pytest.raises(psycopg2.OperationalError):
        await asyncio.wait_for(reading, 5)
