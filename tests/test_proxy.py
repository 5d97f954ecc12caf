"""Behind TCP proxies that close both directions at the first end of stream."""

import asyncio

import psycopg2
import pytest
from proxy import proxy
from psycopg2.extensions import make_dsn
from support import nothing_left, running, side_connection, until

MARK = "/* behind a proxy */"


@pytest.fixture(params=["plain", pytest.param("TLS", marks=pytest.mark.needs("openssl"))])
def looked_at(request, dsn):
    """A synchronous connection past the proxy; of the server with TLS or of the other."""
    if request.param == "TLS":
        dsn = request.getfixturevalue("tls_server").dsn
    with side_connection(dsn) as side, nothing_left(side, MARK):
        yield side


async def begin(ours, side, port, raw=False, count=10):
    """Connections to that port, and their tasks, which run on the server by now."""
    tls = side.info.ssl_in_use
    dsn = make_dsn(side.dsn, host="127.0.0.1", port=port, sslmode="require" if tls else "disable")
    conns = await asyncio.gather(*(ours.connect(dsn) for _ in range(count)))
    cursors = [await conn.cursor() for conn in conns]
    if raw:
        assert all(cursor.raw for cursor in cursors)  # psycopg2 executes from now on
    tasks = [asyncio.create_task(c.execute(f"SELECT pg_sleep(30) {MARK}")) for c in cursors]
    await until(lambda: running(side, MARK) == count)
    return conns, tasks


@pytest.mark.all_loops
@pytest.mark.parametrize("raw", [False, True], ids=["native", "psycopg2"])
async def test_cancelled(ours, looked_at, raw):
    with proxy(looked_at.info.port, delay=0.02, half_close=False) as port:
        _, tasks = await begin(ours, looked_at, port, raw)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=4)
        assert all(task.cancelled() for task in tasks)
        await until(lambda: running(looked_at, MARK) == 0)


async def test_closed_with_a_query_in_flight(ours, looked_at):
    with proxy(looked_at.info.port, delay=0.02, half_close=False) as port:
        conns, tasks = await begin(ours, looked_at, port)
        for conn in conns:
            conn.close()
        await asyncio.wait(tasks, timeout=4)
        assert {type(task.exception()) for task in tasks} == {psycopg2.OperationalError}
        await until(lambda: running(looked_at, MARK) == 0)
