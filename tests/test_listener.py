"""Callbacks of a connection, and listeners that survive their connections."""

import asyncio
import contextvars
import functools
import logging

import psycopg2
import pytest
from support import fetch, scalar, underway, until

from aiopgx.tools import server

CHANNELS = ["news", "UPPER", "Ünïcode", 'quo"ted', "it's", "%s", "a;b", "n" * 63]
BROKEN = "SELECT pg_terminate_backend(%s)"


def notify(side, channel, payload=""):
    scalar(side, "SELECT pg_notify(%s, %s)", (channel, payload))


def listens(conn):
    return fetch(conn, "SELECT pg_listening_channels()")


class Heard(list):
    """What a callback was called with."""

    __hash__ = object.__hash__

    def __call__(self, conn, pid, channel, payload):
        self.append((conn, pid, channel, payload))

    def payloads(self):
        return [item[3] for item in self]


# --- callbacks ------------------------------------------------------------------------------------


@pytest.mark.all_loops
async def test_callback(ours, connect, side):
    conn = await connect()
    heard = Heard()
    await conn.add_listener("news", heard)
    notify(side, "news", "hello")
    await until(lambda: heard)
    assert heard == [(conn, side.info.backend_pid, "news", "hello")]


@pytest.mark.parametrize("channel", CHANNELS)
async def test_names_are_quoted(ours, connect, side, channel):
    conn = await connect()
    heard = Heard()
    await conn.add_listener(channel, heard)
    assert await listens(conn) == [(channel,)]
    notify(side, channel, "x")
    await until(lambda: heard)
    assert heard[0][2] == channel
    await conn.remove_listener(channel, heard)
    assert await listens(conn) == []


@pytest.mark.parametrize(
    ("channel", "error"),
    [("n" * 64, ValueError), ("ü" * 32, ValueError), ("a\0b", ValueError), ("", ValueError),
     (b"x", TypeError)],
)  # fmt: skip
async def test_names_that_are_none(ours, connect, channel, error):
    conn = await connect()
    with pytest.raises(error, match="channel"):
        await conn.add_listener(channel, print)
    assert await listens(conn) == []


async def test_callback_that_is_none(ours, connect):
    conn = await connect()
    with pytest.raises(TypeError, match="callback must be callable"):
        await conn.add_listener("news", None)
    assert await listens(conn) == []


async def test_listen_that_fails_registers_nothing(ours, connect):
    conn = await connect()
    await conn.execute("BEGIN")
    with pytest.raises(psycopg2.errors.DivisionByZero):
        await conn.execute("SELECT 1 / 0")
    with pytest.raises(psycopg2.errors.InFailedSqlTransaction):
        await conn.add_listener("a", print)
    assert conn._inbox.callbacks == {}


@pytest.mark.all_loops
async def test_coroutine_functions(ours, connect, side):
    conn = await connect()
    heard = []
    gate = asyncio.Event()

    async def callback(*args):
        await gate.wait()
        heard.append(args[3])

    async def other(prefix, conn, pid, channel, payload):
        heard.append(prefix + payload)

    await conn.add_listener("news", callback)
    await conn.add_listener("news", functools.partial(other, "other "))
    for payload in "ab":
        notify(side, "news", payload)
    await until(lambda: len(heard) == 2)
    gate.set()
    await until(lambda: len(heard) == 4)
    assert heard == ["other a", "other b", "a", "b"]


@pytest.mark.all_loops
async def test_callback_that_raises(ours, connect, side, loop_errors):
    conn = await connect()
    heard = Heard()

    def bad(*args):
        raise KeyError("of a function")

    async def worse(*args):
        raise KeyError("of a task")

    for callback in (bad, worse, heard):
        await conn.add_listener("news", callback)
    notify(side, "news", "secret")
    await until(lambda: len(loop_errors) == 2 and heard)
    assert [str(context["exception"]) for context in loop_errors] == [
        "'of a function'",
        "'of a task'",
    ]
    assert {context["message"] for context in loop_errors} == {
        "Exception in a listener of channel 'news'"
    }
    assert await fetch(conn, "SELECT 1") == [(1,)]
    loop_errors.clear()


async def test_callbacks_run_in_the_context_they_were_added_in(ours, connect, side):
    conn = await connect()
    who = contextvars.ContextVar("who")
    heard = []

    async def add(name):
        who.set(name)
        await conn.add_listener("news", lambda *args: heard.append((name, who.get())))

    await asyncio.gather(asyncio.create_task(add("a")))
    await asyncio.gather(asyncio.create_task(add("b")))
    notify(side, "news")
    await until(lambda: len(heard) == 2)
    assert heard == [("a", "a"), ("b", "b")]


async def test_several_callbacks_and_channels(ours, connect, side):
    conn = await connect()
    one, two, three = Heard(), Heard(), Heard()
    await conn.add_listener("a", one)
    await conn.add_listener("a", two)
    await conn.add_listener("a", two)
    await conn.add_listener("b", three)
    notify(side, "a", "1")
    notify(side, "b", "2")
    await until(lambda: three)
    await conn.remove_listener("a", one)
    assert sorted(await listens(conn)) == [("a",), ("b",)]
    notify(side, "a", "3")
    await until(lambda: len(two) == 2)
    await conn.remove_listener("a", two)
    await conn.remove_listener("a", two)
    await conn.remove_listener("nowhere", two)
    assert await listens(conn) == [("b",)]
    assert (one.payloads(), two.payloads(), three.payloads()) == (["1"], ["1", "3"], ["2"])


async def test_nothing_is_missed_behind_listen(ours, connect, dsn):
    """What follows LISTEN's own answer finds the callback."""
    conn = await connect()
    heard = Heard()
    async with conn.pipeline():
        await conn.add_listener("news", heard)
        await conn.execute("SELECT pg_notify('news', 'x')")
    await until(lambda: heard)


async def test_removed_by_a_callback(ours, connect, side):
    """Of two notifications that have come together, it hears the first."""
    conn = await connect()
    heard = Heard()

    def once(*args):
        heard(*args)
        conn._inbox.callbacks["news"].pop(once)

    await conn.add_listener("news", once)
    scalar(side, "SELECT count(pg_notify('news', n::text)) FROM generate_series(1, 2) n")
    await until(lambda: heard)
    assert await fetch(conn, "SELECT 1") == [(1,)]
    assert heard.payloads() == ["1"]


@pytest.mark.parametrize("wanted", ["before", "after", "never"])
async def test_beside_notifies(ours, connect, side, wanted):
    """Who asks for the queue gets everything from then on; else it does not fill."""
    conn = await connect()
    heard = Heard()
    if wanted == "before":
        assert conn.notifies.empty()
    await conn.add_listener("news", heard)
    await conn.execute("LISTEN other")
    notify(side, "news", "1")
    notify(side, "other", "2")
    await until(lambda: heard)
    await until(lambda: conn._notifies.qsize() == (2 if wanted == "before" else 1))
    if wanted == "after":
        assert not conn.notifies.empty()
    notify(side, "news", "3")
    await until(lambda: len(heard) == 2)
    expected = {"before": ["1", "2", "3"], "after": ["2", "3"], "never": ["2"]}[wanted]
    got = [conn._notifies.get_nowait().payload for _ in range(conn._notifies.qsize())]
    assert got == expected


async def test_on_a_closed_connection(ours, connect):
    conn = await connect()
    heard = Heard()
    await conn.add_listener("news", heard)
    await conn.close()
    await conn.remove_listener("news", heard)
    with pytest.raises(psycopg2.InterfaceError, match="already closed"):
        await conn.add_listener("other", heard)


async def test_a_second_callback_on_a_closed_connection(ours, connect):
    conn = await connect()
    await conn.add_listener("news", print)
    await conn.close()
    with pytest.raises(psycopg2.InterfaceError, match="already closed"):
        await conn.add_listener("news", Heard())


async def test_lost_connection_with_callbacks(ours, connect, side, caplog):
    conn = await connect()
    await conn.add_listener("news", print)
    with caplog.at_level(logging.WARNING, "aiopg"):
        scalar(side, BROKEN, (conn.raw.get_backend_pid(),))
        await until(lambda: conn.closed)
        await until(lambda: caplog.messages)
    assert "no more notifications of 'news'" in caplog.text
    assert "administrator command" in caplog.text


async def test_busy_connection(ours, connect):
    conn = await connect()
    running = await underway(conn, fetch(conn, "SELECT pg_sleep(0.05)"))
    with pytest.raises(RuntimeError, match="another coroutine"):
        await conn.add_listener("news", print)
    await running
    assert conn._inbox.callbacks == {}
    await conn.add_listener("news", print)
    running = await underway(conn, fetch(conn, "SELECT pg_sleep(0.05)"))
    with pytest.raises(RuntimeError, match="another coroutine"):
        await conn.remove_listener("news", print)
    await running
    assert list(conn._inbox.callbacks["news"]) == [print], "the server listens on"
    await conn.remove_listener("news", print)


async def test_released_with_listeners(ours, pool):
    """As with a transaction that is left open: a warning, and nobody else gets the connection."""
    pool = await pool(minsize=1, maxsize=1)
    async with pool.acquire() as conn:
        pid = conn.raw.get_backend_pid()
        await conn.add_listener("news", print)
        await conn.remove_listener("news", print)
    conn = await pool.acquire()
    assert conn.raw.get_backend_pid() == pid
    await conn.add_listener("news", print)
    with pytest.warns(ResourceWarning, match="Listeners left: 'news' on released connection"):
        pool.release(conn)
    assert conn.closed
    async with pool.acquire() as conn:
        assert conn.raw.get_backend_pid() != pid
        assert await listens(conn) == []
    assert pool.size == pool.freesize == 1


# --- a bound of the queue -------------------------------------------------------------------------


@pytest.mark.parametrize("road", ["queue", "from a pool"])
async def test_unread_notifications_are_bounded(ours, connect, pool, side, road, caplog):
    if road == "queue":
        conn = await connect(notifies_max=10)
    else:
        pool = await pool(minsize=1, notifies_max=10)
        conn = await pool.acquire()
    await conn.execute("LISTEN news")
    scalar(side, "SELECT count(pg_notify('news', n::text)) FROM generate_series(1, 50000) n")
    await until(lambda: conn._inbox._missing is not None and conn._inbox._missing.count == 49990)
    assert conn.notifies.qsize() == 11
    assert [(await conn.notifies.get()).payload for _ in range(10)] == [
        str(n) for n in range(1, 11)
    ]
    notify(side, "news", "after")
    await until(lambda: conn.notifies.qsize() == 2)
    with pytest.raises(psycopg2.OperationalError, match=r"^49990 notifications were thrown away"):
        await conn.notifies.get()
    assert (await conn.notifies.get()).payload == "after"
    assert not conn.closed
    assert caplog.text.count("unread") == 1
    if road != "queue":
        await conn.execute("UNLISTEN *")
        pool.release(conn)


async def test_each_gap_is_told_in_its_place(ours, connect, side):
    conn = await connect(notifies_max=1)
    await conn.execute("LISTEN news")
    for payload in "abc":
        notify(side, "news", payload)
    await until(lambda: conn.notifies.qsize() == 2 and conn._inbox._missing.count == 2)
    got = []
    for payload in ("d", "e", None):
        try:
            got.append((await conn.notifies.get()).payload)
        except psycopg2.OperationalError as error:
            got.append(str(error).split()[0])
        if payload is not None:
            notify(side, "news", payload)
            await fetch(conn, "SELECT 1")
    assert got == ["a", "3", "e"]


@pytest.mark.parametrize("limit", [-1, 1.5, "10", True])
async def test_bad_bound(ours, dsn, limit):
    with pytest.raises((TypeError, ValueError), match="notifies_max"):
        ours.connect(dsn, notifies_max=limit)


# --- Listener -------------------------------------------------------------------------------------


async def take(listener, count=1):
    async def read():
        return [(await listener.__anext__()).payload for _ in range(count)]

    return await asyncio.wait_for(read(), 30)


@pytest.fixture
def listener(ours, dsn, runner):
    """A started Listener; closed after the test."""

    async def make(*args, source=dsn, **kwargs):
        listener = ours.Listener(source, *args, **kwargs)
        await listener.start()
        runner.stack.push_async_callback(listener.close)
        return listener

    return make


async def lose(side, listener):
    """End its session, and wait until the server has."""
    pid = listener._conn.raw.get_backend_pid()
    scalar(side, BROKEN, (pid,))
    sql = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s"
    await until(lambda: not scalar(side, sql, (pid,)))


async def sure_to_hear(side, channel, payload):
    """Send it when somebody listens on the server who has come since the test began."""
    sql = """
        SELECT count(*) FROM pg_stat_activity
        WHERE state = 'idle' AND query LIKE '%%LISTEN%%' AND datname = current_database()
        AND backend_start > (
            SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()
        )
    """
    await until(lambda: scalar(side, sql))
    notify(side, channel, payload)


@pytest.mark.all_loops
async def test_listener(ours, dsn, side):
    got = []
    async with ours.Listener(dsn, ["news", 'quo"ted']) as listener:
        assert listener.channels == ("news", 'quo"ted')
        notify(side, "news", "1")
        notify(side, 'quo"ted', "2")
        async for notification in listener:
            got.append((notification.channel, notification.payload, notification.pid))
            if len(got) == 2:
                break
    assert got == [
        ("news", "1", side.info.backend_pid),
        ('quo"ted', "2", side.info.backend_pid),
    ]
    assert listener.closed
    with pytest.raises(StopAsyncIteration):
        await listener.__anext__()


async def test_listener_without_a_block(ours, dsn, side):
    listener = ours.Listener(dsn, "news")
    reading = asyncio.create_task(take(listener))
    await sure_to_hear(side, "news", "x")
    assert await reading == ["x"]
    await listener.close()
    await listener.close()


@pytest.mark.all_loops
@pytest.mark.parametrize("kind", ["dsn", "pool"])
async def test_lost_connection(ours, listener, pool, side, dsn, kind):
    errors = []
    source = dsn if kind == "dsn" else await pool(minsize=1, maxsize=1)
    ear = await listener(["news"], source=source, on_gap=errors.append)
    notify(side, "news", "before")
    await until(lambda: ear._conn.notifies.qsize())
    await lose(side, ear)
    notify(side, "news", "nobody hears it")
    reading = asyncio.create_task(take(ear, 2))
    await sure_to_hear(side, "news", "after")
    assert await reading == ["before", "after"]
    assert [type(error) for error in errors] == [psycopg2.errors.AdminShutdown]
    assert "administrator command" in str(errors[0])
    await ear.close()
    if kind == "pool":
        assert source.size == source.freesize == 1


async def test_gap_in_a_coroutine_function_comes_first(ours, listener, side):
    order = []

    async def on_gap(error):
        notify(side, "news", "during the gap's repair")
        await asyncio.sleep(0)
        order.append("gap")

    ear = await listener(["news"], on_gap=on_gap)
    await lose(side, ear)
    order += await take(ear)
    assert order == ["gap", "during the gap's repair"]


async def test_gap_whose_repair_fails_is_told_again(ours, listener, side):
    told = []

    def on_gap(error):
        told.append(error)
        if len(told) == 1:
            raise psycopg2.OperationalError("of the program's own")

    ear = await listener(["news"], on_gap=on_gap)
    await lose(side, ear)
    with pytest.raises(psycopg2.OperationalError, match="of the program's own"):
        await take(ear)
    notify(side, "news", "x")
    assert await take(ear) == ["x"]
    assert len(told) == 2
    assert told[0] is told[1]


async def test_gap_is_logged(ours, listener, side, caplog):
    ear = await listener(["news", "more"])
    await lose(side, ear)
    reading = asyncio.create_task(take(ear))
    await sure_to_hear(side, "news", "x")
    assert await reading == ["x"]
    assert "Notifications of 'news', 'more' may have been missed: terminating" in caplog.text


async def test_gap_of_a_full_queue(ours, listener, side):
    errors = []
    ear = await listener(["news"], on_gap=errors.append, notifies_max=2)
    for payload in "abcd":
        notify(side, "news", payload)
    await until(lambda: ear._conn.notifies.qsize() == 3 and ear._conn._inbox._missing.count == 2)
    conn = ear._conn
    assert await take(ear, 2) == ["a", "b"]
    reading = asyncio.create_task(take(ear))
    await until(lambda: errors)
    notify(side, "news", "e")
    assert await reading == ["e"]
    assert [str(error).split()[0] for error in errors] == ["2"]
    assert ear._conn is conn


@pytest.fixture(scope="module")
def own_server():
    with server.Cluster(server.find_binaries()) as running:
        yield running


@pytest.mark.all_loops
async def test_restart_of_the_server(ours, own_server, caplog):
    """Down until a try to connect has failed, and then back."""
    gaps = []
    async with ours.Listener(own_server.dsn, "news", on_gap=gaps.append) as listener:
        reading = asyncio.create_task(take(listener))
        await asyncio.sleep(0)
        await asyncio.to_thread(own_server.stop)
        await until(lambda: "goes on with the next try" in caplog.text)
        await asyncio.to_thread(own_server.restart)
        await until(lambda: gaps)
        async with ours.connect(own_server.dsn) as conn:
            await conn.execute("NOTIFY news, 'after'")
        assert await reading == ["after"]
        assert len(gaps) == 1


async def test_first_connect_fails_at_once(ours, own_server):
    own_server.stop()
    try:
        with pytest.raises(psycopg2.OperationalError, match="refused"):
            async with ours.Listener(own_server.dsn, "news"):
                pass
    finally:
        own_server.restart()


@pytest.mark.all_loops
@pytest.mark.parametrize("when", ["waiting", "down"])
async def test_close_ends_the_iteration(ours, own_server, when, caplog):
    listener = await ours.Listener(own_server.dsn, "news", max_delay=60).start()

    async def read():
        return [item async for item in listener]

    reading = asyncio.create_task(read())
    await asyncio.sleep(0)
    try:
        if when == "down":
            own_server.stop()
            await until(lambda: "goes on with the next try" in caplog.text)
        await listener.close()
        assert await asyncio.wait_for(reading, 5) == []
    finally:
        if when == "down":
            own_server.restart()


@pytest.mark.parametrize("when", ["waiting", "down"])
async def test_cancelled(ours, own_server, when, caplog):
    """The task ends; the listener goes on when it is iterated again."""
    async with ours.Listener(own_server.dsn, "news", on_gap=lambda error: None) as listener:
        reading = asyncio.create_task(take(listener))
        await asyncio.sleep(0)
        if when == "down":
            own_server.stop()
            await until(lambda: "goes on with the next try" in caplog.text)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        if when == "down":
            own_server.restart()
        reading = asyncio.create_task(take(listener))
        await until(lambda: listener._conn is not None and listener._gap is None)
        async with ours.connect(own_server.dsn) as conn:
            await conn.execute("NOTIFY news, 'x'")
        assert await reading == ["x"]


@pytest.mark.all_loops
async def test_channels_change_while_it_runs(ours, listener, side):
    ear = await listener("a")
    reading = asyncio.create_task(take(ear, 2))
    await asyncio.sleep(0)
    await asyncio.gather(ear.listen("b"), ear.listen("c"), ear.listen("b"))
    notify(side, "b", "1")
    await ear.unlisten("c")
    await ear.unlisten("never listened to")
    notify(side, "c", "2")
    notify(side, "a", "3")
    assert await reading == ["1", "3"]
    assert ear.channels == ("a", "b")
    assert sorted(await listens(ear._conn)) == [("a",), ("b",)]


async def test_nothing_is_given_after_unlisten(ours, listener, side):
    ear = await listener(["a", "b"])
    notify(side, "a", "1")
    notify(side, "b", "2")
    await until(lambda: ear._conn.notifies.qsize() == 2)
    await ear.unlisten("a")
    assert await take(ear) == ["2"]


async def test_channels_change_while_it_has_no_connection(ours, listener, side):
    ear = await listener(["a", "b"], on_gap=lambda error: None)
    await lose(side, ear)
    await until(lambda: ear._conn.closed)
    await ear.listen("c")
    await ear.unlisten("a")
    reading = asyncio.create_task(take(ear))
    await sure_to_hear(side, "a", "1")
    await until(lambda: ear._conn is not None and not ear._conn.closed)
    notify(side, "c", "2")
    assert await reading == ["2"]
    assert sorted(await listens(ear._conn)) == [("b",), ("c",)]


@pytest.mark.parametrize("channel", ["n" * 64, "", 5])
async def test_channel_that_is_refused(ours, dsn, listener, side, channel):
    for channels in ([channel], channel):
        with pytest.raises((ValueError, TypeError), match="channel"):
            ours.Listener(dsn, channels)
    ear = await listener("a")
    with pytest.raises((ValueError, TypeError), match="channel"):
        await ear.listen(channel)
    await lose(side, ear)
    await until(lambda: ear._conn.closed)
    with pytest.raises((ValueError, TypeError), match="channel"):
        await ear.listen(channel)
    assert ear.channels == ("a",)


async def test_two_tasks_iterate(ours, listener, side):
    ear = await listener("a")
    reading = asyncio.create_task(take(ear))
    for _ in range(5):  # wait_for() of Python 3.10 makes a task of its own
        await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="iterated by another task"):
        await ear.__anext__()
    notify(side, "a", "1")
    assert await reading == ["1"]


async def test_pool_has_its_connection_back(ours, pool, side):
    pool = await pool(minsize=1, maxsize=1)
    async with pool.acquire() as conn:  # somebody leaves what the next one is not to hear
        pid = conn.raw.get_backend_pid()
        await conn.execute("LISTEN news")
        notify(side, "news", "old")
        await until(lambda: conn.notifies.qsize())
    async with ours.Listener(pool, "news") as listener:
        assert pool.freesize == 0
        notify(side, "news", "1")
        assert await take(listener) == ["1"]
    assert pool.freesize == 1
    async with pool.acquire() as conn:
        assert conn.raw.get_backend_pid() == pid
        assert await listens(conn) == []


@pytest.mark.all_loops
async def test_iterated_while_it_starts(ours, pool, side):
    """Who comes second waits for the connection of the first."""
    made = await pool(minsize=0, maxsize=2)
    listener = ours.Listener(made, "news")
    hearing = asyncio.ensure_future(anext(listener))
    await asyncio.sleep(0)
    await listener.start()
    notify(side, "news", "x")
    assert (await hearing).payload == "x"
    await listener.close()
    assert made.size == made.freesize == 1


@pytest.mark.all_loops
async def test_closed_while_it_starts(ours, pool):
    made = await pool(minsize=0, maxsize=2)
    listener = ours.Listener(made, "news")
    starting = asyncio.ensure_future(listener.start())
    await asyncio.sleep(0)
    await listener.close()
    assert await starting is listener
    assert made.size == made.freesize
    assert [notify async for notify in listener] == []
    assert made.size == made.freesize


async def test_closed_while_it_listens_to_one_more(ours, pool):
    made = await pool(minsize=0, maxsize=2)
    async with ours.Listener(made, "news") as listener:
        listening = asyncio.ensure_future(listener.listen("other"))
        await asyncio.sleep(0)
    await listening
    assert made.size == made.freesize


async def test_closed_pool_ends_it(ours, pool, side):
    pool = await pool(minsize=1, maxsize=1)
    async with ours.Listener(pool, "news") as listener:
        pool.terminate()
        with pytest.raises(RuntimeError, match="after closing pool"):
            await take(listener)


@pytest.mark.parametrize(
    ("kwargs", "error", "text"),
    [
        ({"on_gap": 5}, TypeError, "on_gap"),
        ({"max_delay": 0}, ValueError, "max_delay"),
        ({"max_delay": "1"}, ValueError, "max_delay"),
    ],
)
async def test_bad_arguments(ours, dsn, kwargs, error, text):
    with pytest.raises(error, match=text):
        ours.Listener(dsn, "news", **kwargs)


async def test_arguments_with_a_pool(ours, pool):
    pool = await pool(minsize=0)
    with pytest.raises(TypeError, match="with a pool there is no use for 'timeout'"):
        ours.Listener(pool, "news", timeout=5)


async def test_keepalives(ours, listener, dsn):
    def idle(ear):
        return ear._conn.raw.info.dsn_parameters.get("keepalives_idle")

    assert idle(await listener("a")) == "30"
    assert idle(await listener("a", keepalives_idle=7)) == "7"
    assert idle(await listener("a", keepalives=0)) is None
    assert idle(await listener("a", source=dsn + " keepalives_idle=9")) == "9"
