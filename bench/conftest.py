"""A server with the tables of the queries, and drivers opened on the event loop asked for."""

import asyncio
import contextlib

import pytest

from aiopgx.tools import measure, server


@pytest.fixture(scope="session")
def dsn():
    with server.start("AIOPGX_DSN") as srv, measure.fixture(srv.dsn):
        yield srv.dsn


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def loop(request):
    try:
        loop = measure.new_event_loop(request.param)
    except ImportError:
        pytest.skip(f"{request.param} is not installed")
    loop.name = request.param
    with contextlib.closing(loop):
        yield loop


@pytest.fixture(scope="module", params=list(measure.DRIVERS))
def driver(request, loop, dsn):
    drivers, _ = measure.load([request.param])
    if not drivers:
        pytest.skip(f"{request.param} is not installed")
    (driver,) = drivers
    loop.run_until_complete(driver.open(dsn, measure.CONNECTIONS))
    yield driver
    loop.run_until_complete(driver.close())
    # Sockets are closed by callbacks that the loop has yet to run.
    loop.run_until_complete(asyncio.sleep(0))
