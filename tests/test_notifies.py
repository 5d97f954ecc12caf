"""LISTEN and NOTIFY."""

import asyncio

import psycopg2
import psycopg2.extensions
import pytest
from psycopg2.extensions import Notify, encodings, quote_ident
from roads import Roads, portrait
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
        await asyncio.wait_for(waiting, 10)


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
        await asyncio.wait_for(waiting, 10)
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


# --- the same as psycopg2's -----------------------------------------------------------------------

CHANNELS = ["news", "UPPER", "Ünïcode", "日本", "a b", 'quo"ted', "it's", "%s", "n" * 63]
PAYLOADS = [
    *(
        "",
        " ",
        "x",
        "NULL",
        "it's",
        '"',
        "\\",
        "%s",
        "two\nlines",
        "\x01",
        "grüße",
        "日本",
        "\U0001d518",
    ),
    *("y" * 7999, "ü" * 3999),
]


WHILE_EXECUTING = {
    "rows": "SELECT generate_series(1, 100)",
    "nothing": "SET application_name = 'x'",
    "an error": "ROLLBACK; BEGIN; SELECT 1/0",
    "the end of the transaction": "COMMIT; BEGIN",
    "several": "SELECT 1; SELECT 2; COMMIT; SELECT 3; BEGIN",
}


def execute(road, sql, parameters=None):
    outcome = road.execute(sql, parameters, psycopg2.extensions.cursor, lambda cursor: None)
    assert outcome.error is None, outcome.error


def listen(roads, *channels):
    for channel in channels:
        roads.prepare(f"LISTEN {quote_ident(channel, roads.reference.raw)}")


def seen(notify, pid):
    """All that a program can see of a notification, whichever process sent it."""
    assert type(notify) is Notify
    assert notify == (notify.pid, notify.channel) == (pid, notify.channel)
    assert notify == Notify(pid, notify.channel, notify.payload)
    assert notify != Notify(pid, notify.channel, notify.payload + "x")
    assert repr(notify) == f"Notify({pid}, {notify.channel!r}, {notify.payload!r})"
    assert hash(notify) == hash((pid, notify.channel, notify.payload)[: 3 if notify.payload else 2])
    assert list(notify) == [pid, notify.channel]
    return [type(notify.pid), portrait(notify.channel), portrait(notify.payload)]


def same_notifies(roads, count, pid=None):
    """Take so many on each road; (channel, payload) of psycopg2's, after the others were equal.

    pid: of the sender; None if each road was its own.
    """
    taken = [(road, road.notified(count)) for road in roads.all]
    expected, *others = [
        [seen(notify, pid or road.raw.info.backend_pid) for notify in notifies]
        for road, notifies in taken
    ]
    assert others == [expected] * len(others)
    return [(notify.channel, notify.payload) for notify in taken[0][1]]


@pytest.fixture
def ears(roads):
    yield roads
    roads.prepare("UNLISTEN *")


def test_same_channels(ears, side):
    listen(ears, *CHANNELS)
    for channel in CHANNELS:
        notify(side, channel, "x")
    pairs = same_notifies(ears, len(CHANNELS), side.info.backend_pid)
    assert pairs == [(channel, "x") for channel in CHANNELS]


def test_same_payloads(ears, side):
    listen(ears, "news")
    for payload in PAYLOADS:
        notify(side, "news", payload)
    pairs = same_notifies(ears, len(PAYLOADS), side.info.backend_pid)
    assert pairs == [("news", payload) for payload in PAYLOADS]


def test_same_payloads_from_oneself(roads):
    """One road after the other, so that none hears the next."""
    taken = []
    for road in roads.all:
        execute(road, "LISTEN news")
        for payload in PAYLOADS:
            execute(road, "SELECT pg_notify('news', %s)", [payload])
        taken.append(
            [seen(notify, road.raw.info.backend_pid) for notify in road.notified(len(PAYLOADS))]
        )
        execute(road, "UNLISTEN *")
    assert taken == [taken[0]] * len(taken)
    assert [item[2][1] for item in taken[0]] == [repr(payload) for payload in PAYLOADS]


@pytest.mark.parametrize("statement", WHILE_EXECUTING.values(), ids=WHILE_EXECUTING)
def test_same_while_executing(ears, side, statement):
    """They come with the end of the statement or of the transaction."""
    listen(ears, "news")
    ears.prepare("BEGIN")
    for n in range(5):
        notify(side, "news", str(n))
        ears.same(statement)
    ears.prepare("ROLLBACK")
    assert [payload for _, payload in same_notifies(ears, 5, side.info.backend_pid)] == [*"01234"]


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_same_at_the_end_of_a_transaction(roads, end):
    sent = []
    for road in roads.all:
        for sql in (
            *("LISTEN news", "BEGIN", "NOTIFY news, 'one'", "NOTIFY news, 'one'", "SAVEPOINT s"),
            *("NOTIFY news, 'two'", "ROLLBACK TO s", "NOTIFY news, 'three'"),
            *(end, "NOTIFY news, 'last'"),
        ):
            execute(road, sql)
        payloads = []
        while payloads[-1:] != ["last"]:
            payloads += [notify.payload for notify in road.notified(1)]
        execute(road, "UNLISTEN *")
        sent.append(payloads)
    assert sent == [["one", "three", "last"] if end == "COMMIT" else ["last"]] * len(sent)


def test_same_many_at_once(ears, side):
    listen(ears, "news")
    with side.cursor() as cursor:
        cursor.execute(
            "SELECT pg_notify('news', repeat(n::text, 500)) FROM generate_series(1, 300) n"
        )
    pairs = same_notifies(ears, 300, side.info.backend_pid)
    assert [payload for _, payload in pairs] == [str(n) * 500 for n in range(1, 301)]


def test_same_long_payload_is_refused(roads):
    outcome = roads.same("SELECT pg_notify('news', repeat('x', 8000))")
    assert isinstance(outcome.error, psycopg2.errors.InvalidParameterValue)
    outcome = roads.same("SELECT pg_notify('', 'x')")
    assert isinstance(outcome.error, psycopg2.errors.InvalidParameterValue)
    outcome = roads.same("SELECT pg_notify(repeat('n', 64), 'x')")
    assert isinstance(outcome.error, psycopg2.errors.InvalidParameterValue)


# What a session hears that psycopg2 believes to have the first of these encodings, and the server
# the second one.
ENCODINGS = [
    *(("LATIN1", "LATIN1"), ("EUC_JP", "EUC_JP"), ("SJIS", "SJIS"), ("WIN1252", "WIN1252")),
    *(("UTF8", "LATIN1"), ("LATIN1", "UTF8"), ("EUC_JP", "UTF8"), ("SQL_ASCII", "UTF8")),
    ("UTF8", "SJIS"),
]
TEXTS = {
    "LATIN1": ["grüße", "ÿ"],
    "WIN1252": ["grüße", "€"],
    "EUC_JP": ["日本", "ソ"],
    "SJIS": ["日本", "ソ"],
    "UTF8": ["grüße", "日本", "\U0001d518"],
}


@pytest.mark.parametrize(("known", "actual"), ENCODINGS)
def test_same_in_other_encodings(dsn, side, known, actual):
    """What can't be decoded is replaced, in the channel's name, too."""
    texts = TEXTS[actual]
    roads = Roads(dsn, client_encoding=known)
    try:
        roads.prepare(f"SET client_encoding = '{actual}'")
        for text in texts:
            roads.prepare(b'LISTEN "%s"' % text.encode(encodings[actual]))
            notify(side, text, text * 100)
        pairs = same_notifies(roads, len(texts), side.info.backend_pid)
    finally:
        roads.close()
    received = [
        text.encode(encodings[actual]).decode(encodings[known], "replace") for text in texts
    ]
    assert [channel for channel, _ in pairs] == received


# --- what stands on raw ---------------------------------------------------------------------------


class OwnList(list):
    """Sees what psycopg2 puts in and aiopg takes out."""

    def __init__(self):
        self.appended = []

    def append(self, notify):
        self.appended.append(notify)
        super().append(notify)


async def test_replaced_list(connect, side):
    conn = await connect()
    own = conn.raw.notifies = OwnList()
    await fetch(conn, "SELECT 1")
    async with conn.cursor() as cursor:
        await cursor.execute("LISTEN news")
    for payload in "abc":
        notify(side, "news", payload)
    assert [(await get(conn)).payload for _ in "abc"] == [*"abc"]
    assert own == []
    assert [item.payload for item in own.appended] == [*"abc"]
    assert conn.raw.notifies is own
