"""Monitoring agents that instrument psycopg2: connecting works, and the spans are as with aiopg."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("traced.py")
EXECUTED = "SELECT 'executed'"
TRACED = [
    "SELECT 'of a cursor'",
    "SELECT %s::int AS parameter",
    "SELECT 3 AS n",
    "SELECT 'in a transaction'",
    EXECUTED,
    "SELECT 'of a DictCursor' AS text",
    "SELECT 'of a pool'",
    "SELECT 'of the pool''s cursor'",
]


async def spans(agent, package, dsn):
    process = await asyncio.create_subprocess_exec(
        sys.executable, PROGRAM, agent, package, dsn,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, errors = await asyncio.wait_for(process.communicate(), 45)
    assert process.returncode == 0, errors.decode()
    return json.loads(output.splitlines()[-1])


@pytest.mark.parametrize(
    "agent",
    [
        pytest.param(name, marks=pytest.mark.needs(name))
        for name in ("ddtrace", "elasticapm", "newrelic")
    ],
)
async def test_spans(ours, dsn, agent):
    made, expected = await asyncio.gather(*(spans(agent, p, dsn) for p in ("aiopgx", "aiopg")))
    assert [sql for sql in made if sql in TRACED] == TRACED
    # but for the look-up of hstore, whose text is each package's own
    assert [sql for sql in made if "hstore" not in sql] == [
        sql for sql in expected if "hstore" not in sql
    ]
    assert len(made) == len(expected)


@pytest.mark.needs("opentelemetry.instrumentation.aiopg")
async def test_opentelemetry(ours, dsn):
    """It traces the cursors that are made through its proxies: not those of `conn.execute()`."""
    made, expected = await asyncio.gather(
        *(spans("opentelemetry", p, dsn) for p in ("aiopgx", "aiopg"))
    )
    assert expected == TRACED
    assert made == [sql for sql in TRACED if sql != EXECUTED]


@pytest.mark.needs("wrapt")
async def test_proxies(ours, dsn):
    """Where nobody helps psycopg2 with the proxies; aiopg does not survive them."""
    assert await spans("plain", "aiopgx", dsn) == []
    made = await spans("twice", "aiopgx", dsn)
    assert [sql for sql in made if sql in TRACED] == [sql for sql in TRACED for _ in range(2)]
