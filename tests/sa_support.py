"""Helpers of the tests of aiopgx.sa that are not fixtures."""

import contextlib
import importlib

import psycopg2
import pytest
import sqlalchemy
from sqlalchemy import Column, Integer, MetaData, String, Table

try:
    importlib.import_module("aiopg.sa")
except ImportError as exc:
    NO_AIOPG = f"aiopg.sa can't be imported with SQLAlchemy {sqlalchemy.__version__}: {exc}"
    IMPLEMENTATIONS = ["aiopgx.sa"]
else:
    NO_AIOPG = None
    IMPLEMENTATIONS = ["aiopg.sa", "aiopgx.sa"]

SQLALCHEMY_2 = not sqlalchemy.__version__.startswith("1.")

# What aiopg.sa lacks or does wrong.
OURS = pytest.mark.parametrize("sa", ["aiopgx.sa"], indirect=True)

PERSON = Table(
    "person",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("name", String(40)),
    Column("age", Integer),
)


async def add(conn, *rows):
    """Insert rows (id, name, age) into PERSON."""
    for row in rows:
        await conn.execute("INSERT INTO person VALUES (%s, %s, %s)", row)


async def rows(conn, query, *multiparams, **params):
    """The rows of a query as tuples, whatever the names of the columns."""
    result = await conn.execute(query, *multiparams, **params)
    return [tuple(row[i] for i in range(len(row))) for row in await result.fetchall()]


@contextlib.contextmanager
def reference_engine(dsn):
    """SQLAlchemy's own engine on psycopg2, which says what is right."""
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg2://",
        creator=lambda: psycopg2.connect(dsn),
        enable_from_linting=False,
        future=True,
    )
    try:
        yield engine
    finally:
        engine.dispose()
