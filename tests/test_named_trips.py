"""Server-side cursors: closing one takes no round trip of its own, where the protocol allows."""

import asyncio

import pytest
from proxy import Proxy
from psycopg2.extensions import TRANSACTION_STATUS_IDLE as IDLE
from psycopg2.extensions import TRANSACTION_STATUS_INTRANS as INTRANS
from psycopg2.extensions import parse_dsn
from support import fetch
from test_named_close import NO_PORTALS, factory, named, portals, status

import aiopgx

__all__ = ["factory", "named"]  # fixtures

# Whether libpq can send the protocol's Close.
OPEN = aiopgx.capabilities().libpq_version >= 170000


@pytest.fixture
def through(dsn, connect):
    """A `Proxy` in front of the server; `await through.connect()` leads through it."""
    server = parse_dsn(dsn)
    made = Proxy(int(server["port"]))
    port = made.listener.getsockname()[1]
    made.connect = lambda **kwargs: connect(host="127.0.0.1", port=port, **kwargs)
    yield made
    made.stop()


async def trips(proxy, body):
    before = proxy.trips
    await body
    return proxy.trips - before


@pytest.mark.unprepared
@pytest.mark.parametrize(
    ("statement", "parameters", "wanted"),
    [
        ("SELECT 1 + 1", None, 1),
        ("SELECT typname FROM pg_type WHERE oid = %s", (23,), 1),
        ("SELECT 1; SELECT 2", None, 2),
        ("SHOW DateStyle", None, 2),
        ("SELECT %s", ([1, 2],), 2),
    ],
)
@pytest.mark.parametrize("transaction", [True, False])
async def test_a_statement_behind_a_close(
    ours, through, named, statement, parameters, wanted, transaction
):
    conn = await through.connect()
    if transaction:
        await conn.execute("BEGIN")
    for _ in range(3):
        cursor = await named(conn, withhold=not transaction)
        cursor.close()
        went = await trips(through, fetch(conn, statement, parameters))
        assert went == (wanted if OPEN else 3)
        assert await trips(through, portals(conn)) == 1
        assert await portals(conn) == NO_PORTALS
        assert status(conn) == (INTRANS if transaction else IDLE)


async def test_a_close_that_is_awaited(ours, through, named):
    conn = await through.connect()
    cursor = await named(conn, withhold=True)
    assert await trips(through, cursor.close()) == (1 if OPEN else 2)
    assert await portals(conn) == NO_PORTALS


@pytest.mark.unprepared
async def test_several(ours, through, named):
    conn = await through.connect()
    cursors = [await named(conn, f"portal {i}", withhold=True) for i in range(5)]
    closing = [cursor.close() for cursor in cursors]
    assert await trips(through, fetch(conn, "SELECT 1")) == (1 if OPEN else 11)
    await asyncio.gather(*closing)
    assert await portals(conn) == NO_PORTALS


@pytest.mark.unprepared
async def test_a_close_behind_a_statement(ours, through, named):
    conn = await through.connect()
    cursor = await named(conn, withhold=True)
    asyncio.get_running_loop().call_later(0.02, cursor.close)

    async def two_statements():
        await fetch(conn, "SELECT pg_sleep(0.1)")
        await fetch(conn, "SELECT 1")

    assert await trips(through, two_statements()) == (2 if OPEN else 4)
    assert await portals(conn) == NO_PORTALS
