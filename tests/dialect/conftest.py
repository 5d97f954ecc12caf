"""Fixtures for the dialect `postgresql+aiopgx`.

url      the `sqlalchemy.URL` of the test module's database, for aiopgx
engine   ``engine(url, **options)`` -> an AsyncEngine; disposed after the test
both     ``await both(body, **options)``: what body(connection) gives, through psycopg2's dialect
         and through ours, which must be the same value of the same types, or the same error
"""

import re

import psycopg2
import pytest
import sqlalchemy as sa
from psycopg2.extensions import parse_dsn
from sqlalchemy.ext.asyncio import create_async_engine


@pytest.fixture
def url(dsn):
    options = parse_dsn(dsn)
    return sa.URL.create(
        "postgresql+aiopgx",
        options.pop("user"),
        options.pop("password", None),
        options.pop("host"),
        int(options.pop("port")),
        options.pop("dbname"),
        options,
    )


@pytest.fixture
def engine(url, runner):
    def make(url=url, **options):
        engine = create_async_engine(url, **options)
        runner.stack.push_async_callback(engine.dispose)
        return engine

    return make


def outcome(connect, body):
    try:
        with connect() as connection:
            return body(connection)
    except (sa.exc.SQLAlchemyError, psycopg2.Error, ValueError, TypeError) as error:
        cause = getattr(error, "orig", None)
        code = getattr(cause, "pgcode", None)
        text = re.sub(r"c_\w+", "(cursor)", re.sub(r"(?m)^ *\^$", "", str(error)))
        return type(error), type(cause), code, text


def types_of(value):
    if isinstance(value, (tuple, list, set, sa.Row)):
        return type(value), [types_of(item) for item in value]
    if isinstance(value, dict):
        return dict, {key: types_of(item) for key, item in value.items()}
    return type(value)


@pytest.fixture
def both(url, engine):
    async def both(body, **options):
        reference = sa.create_engine(url.set(drivername="postgresql+psycopg2"), **options)
        expected = outcome(reference.connect, body)
        reference.dispose()
        async with engine(**options).connect() as connection:
            value = await connection.run_sync(lambda c: outcome(lambda: Kept(c), body))
        assert value == expected
        assert types_of(value) == types_of(expected)
        return value

    return both


class Kept:
    """A connection in a `with` block that leaves it open."""

    def __init__(self, connection):
        self.connection = connection

    def __enter__(self):
        return self.connection

    def __exit__(self, *_):
        return None
