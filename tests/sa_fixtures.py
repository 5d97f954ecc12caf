"""Fixtures of the tests of aiopgx.sa: `pytest_plugins = ("sa_fixtures",)`.

sa      the package under test, a module: runs the test once with aiopg.sa, once with aiopgx.sa;
        marked `OURS`, or where aiopg.sa can't be imported, with aiopgx.sa alone
make    ``await make(**kw)`` -> `sa.Engine`; terminated after the test
engine  await it for an engine
conn    await it for a connection of an engine, with the empty table `PERSON`
tables  ``tables(metadata)`` makes the tables now, and drops them after the test
"""

import asyncio
import importlib

import pytest
from conftest import command
from sa_support import IMPLEMENTATIONS, NO_AIOPG, PERSON
from sqlalchemy.schema import CreateTable

from aiopgx.sa.engine import get_dialect


def pytest_terminal_summary(terminalreporter):
    if NO_AIOPG:
        terminalreporter.write_line(f"aiopgx.sa was tested alone: {NO_AIOPG}")


@pytest.fixture(params=IMPLEMENTATIONS)
def sa(request):
    return importlib.import_module(request.param)


@pytest.fixture
def make(sa, dsn, runner):
    async def close(engine):
        engine.terminate()
        await asyncio.wait_for(engine.wait_closed(), 10)

    async def make(dsn=dsn, **kwargs):
        engine = await sa.create_engine(dsn, **kwargs)
        runner.stack.push_async_callback(close, engine)
        return engine

    return make


@pytest.fixture
def tables(side):
    made = []

    def drop(table):
        command(side, f'DROP TABLE IF EXISTS "{table.name}" CASCADE')

    def make(metadata):
        for table in metadata.sorted_tables:
            drop(table)
            command(side, str(CreateTable(table).compile(dialect=get_dialect())))
            made.append(table)

    yield make
    for table in made:
        drop(table)


class Later:
    """An engine or connection that is opened when the loop of the test runs."""

    def __init__(self, opener):
        self.opener = opener

    def __await__(self):
        return self.opener().__await__()


@pytest.fixture
def engine(make):
    return Later(make)


@pytest.fixture
def conn(make, tables, runner):
    tables(PERSON.metadata)

    async def connect():
        engine = await make()
        conn = await engine.acquire()
        runner.stack.push_async_callback(conn.close)
        return conn

    return Later(connect)
