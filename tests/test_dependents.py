"""Packages that are made on aiopg give the same under `python -m aiopgx run`. make test-dependents.

docs/drop-in.md has the counts of their own test suites.
"""

import asyncio
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("dependents.py")

# The name there, and the package that it needs.
DEPENDENTS = {
    "databases": "databases",
    "procrastinate": "procrastinate.contrib.aiopg",
    "opentelemetry": "opentelemetry.instrumentation.aiopg",
    "aiopg_listen": "aiopg_listen",
    "peewee_async": "peewee_async",
}


async def outcome(dsn, name, *options):
    process = await asyncio.create_subprocess_exec(
        sys.executable, *options, PROGRAM, name, dsn,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, errors = await asyncio.wait_for(process.communicate(), 45)
    assert process.returncode == 0, errors.decode()
    return output.decode().splitlines(), errors.decode()


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.needs(needed)) for name, needed in DEPENDENTS.items()],
)
async def test_the_same_on_both(dsn, side, name):
    with side.cursor() as cursor:
        cursor.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    expected, complaints = await outcome(dsn, name)
    with side.cursor() as cursor:
        cursor.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    made = await outcome(dsn, name, "-m", "aiopgx", "run", "--")
    assert expected[0] == "aiopg.connection"
    assert made[0][0] == "aiopgx.connection"
    assert made[0][1:] == expected[1:]
    assert made[1] == complaints
