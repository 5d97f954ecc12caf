"""A forked child that goes on with the loop of its parent, as daemons do.

It has what the loop watched for the program, and nothing of our connections: its parent's.
"""

import asyncio
import os
import signal
import socket
import sys
import time

import pytest
from support import fetch, new_loop, shut_down, underway

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
    pytest.mark.skipif(sys.platform != "linux", reason="a kqueue is not inherited"),
]
KINDS = pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
# Counts the requests that hit it, in a sequence.
STUBBORN = """DO $$BEGIN FOR i IN 1..9 LOOP BEGIN
PERFORM pg_sleep(30);
EXCEPTION WHEN query_canceled THEN PERFORM nextval('hits'); END; END LOOP; END$$"""


@pytest.fixture
def loop(kind):
    loop = new_loop(kind)
    yield loop
    shut_down(loop)


def in_a_child(function):
    """How a forked child ends that calls it; its parent does nothing meanwhile."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        try:
            function()
        except BaseException as error:
            os.write(2, f"in the child: {error!r}\n".encode())
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@KINDS
def test_what_the_program_watches(ours, dsn, loop):
    near, far = socket.socketpair()

    async def start():
        conn = await ours.connect(dsn)
        reader, writer = await asyncio.open_connection(sock=near)
        reading = asyncio.ensure_future(reader.readexactly(1))
        await asyncio.sleep(0.01)
        return conn, writer, reading

    async def go_on():
        far.send(b"1")
        assert await asyncio.wait_for(reading, 5) == b"1"
        writer.write(bytes(3_000_000))  # more than the socket takes at once
        far.setblocking(False)
        taken = 0
        while taken < 3_000_000:
            taken += len(await asyncio.wait_for(loop.sock_recv(far, 1_000_000), 5))
        assert await asyncio.wait_for(asyncio.to_thread(lambda: 2), 5) == 2

    async def be_well():
        assert await fetch(conn, "SELECT 3") == [(3,)]
        await conn.close()
        reading.cancel()
        writer.close()

    conn, writer, reading = loop.run_until_complete(start())
    assert in_a_child(lambda: loop.run_until_complete(go_on())) == 0
    loop.run_until_complete(be_well())
    far.close()


@KINDS
@pytest.mark.parametrize("road", ["native", "psycopg2"])
def test_who_waits_is_told(ours, dsn, loop, road):
    """Its parent gets the answer."""

    async def start():
        conn = await ours.connect(dsn)
        cursor = await conn.cursor()
        if road == "psycopg2":
            assert cursor.raw
        asked = asyncio.ensure_future(cursor.execute("SELECT 4 FROM pg_sleep(0.3)"))
        await asyncio.sleep(0.01)
        return conn, cursor, asked

    async def wait():
        with pytest.raises(RuntimeError, match="fork"):
            await asyncio.wait_for(asked, 5)

    async def be_well():
        await asyncio.wait_for(asked, 5)
        assert await cursor.fetchall() == [(4,)]
        await conn.close()

    conn, cursor, asked = loop.run_until_complete(start())
    assert in_a_child(lambda: loop.run_until_complete(wait())) == 0
    loop.run_until_complete(be_well())


@KINDS
def test_what_is_about_to_be_sent(ours, dsn, loop):
    """It is not sent twice."""

    async def main():
        conn = await ours.connect(dsn)
        async with conn.cursor() as plain, plain.begin():
            cursor = await conn.cursor("mine")
            await cursor.execute("SELECT generate_series(1, 9)")
            closed = cursor.close()
            pid = os.fork()
            if pid == 0:
                try:
                    await asyncio.sleep(0.05)
                finally:
                    os._exit(0)
            os.waitpid(pid, 0)  # noqa: ASYNC222
            await closed
            assert await fetch(conn, "SELECT 5") == [(5,)]
        assert await fetch(conn, "SELECT 6") == [(6,)]
        await conn.close()

    loop.run_until_complete(main())


@KINDS
def test_what_is_being_cancelled(ours, dsn, side, loop):
    """The requests are its parent's: a child's would hit what is asked next."""

    async def start():
        conn = await ours.connect(dsn)
        await conn.execute("CREATE SEQUENCE hits")
        asked = await underway(conn, conn.execute(STUBBORN))
        await asyncio.sleep(0.1)  # until it sleeps
        stop = asyncio.ensure_future(conn.cancel(timeout=20))
        for _ in range(100):
            await asyncio.sleep(0.005)
            if hits():
                break
        return conn, asked, stop

    def hits():
        with side.cursor() as cursor:
            cursor.execute("SELECT to_regclass('hits')")
            cursor.execute("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM hits")
            return cursor.fetchone()[0]

    async def end():
        conn.close()
        await asyncio.gather(asked, stop, return_exceptions=True)

    conn, asked, stop = loop.run_until_complete(start())
    try:
        time.sleep(0.1)  # until what is under way has hit
        before = hits()
        assert before
        assert in_a_child(lambda: loop.run_until_complete(asyncio.sleep(1))) == 0
        assert hits() == before
    finally:
        loop.run_until_complete(end())
        time.sleep(0.1)
        with side.cursor() as cursor:
            cursor.execute("DROP SEQUENCE hits")
