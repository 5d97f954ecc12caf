"""The migrations by Alembic's own command."""

import os
import subprocess
import sys

import pytest

from service import EXAMPLES, SECONDS, rows

CATALOG = """
    SELECT 'table', relname::text FROM pg_class
    WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
    UNION ALL SELECT 'function', proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    UNION ALL SELECT 'trigger', tgrelid::regclass::text FROM pg_trigger WHERE NOT tgisinternal
    ORDER BY 1, 2
"""
FUNCTION = [("function", "notify_of_changes")]
TABLES = [("table", "alembic_version"), ("table", "project"), ("table", "task")]
TRIGGERS = [("trigger", "project"), ("trigger", "task")]


@pytest.fixture
def alembic(dsn):
    def alembic(*arguments):
        ini = EXAMPLES / "fastapi_tasks" / "alembic.ini"
        done = subprocess.run(
            [sys.executable, "-m", "alembic", "-c", ini, *arguments],
            env={**os.environ, "AIOPGX_DSN": dsn},
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    return alembic


def test_up_and_down_again(alembic, side):
    alembic("upgrade", "head")
    assert rows(side, CATALOG) == [*FUNCTION, *TABLES, *TRIGGERS]
    # The classes and the migrations say the same.
    assert "No new upgrade operations detected" in alembic("check")
    alembic("downgrade", "0001")
    assert rows(side, CATALOG) == TABLES
    alembic("downgrade", "base")
    assert rows(side, CATALOG) == TABLES[:1]


def test_the_sql_for_those_who_run_it_themselves(alembic, side):
    rows(side, "DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    rows(side, alembic("upgrade", "head", "--sql"))
    assert rows(side, CATALOG) == [*FUNCTION, *TABLES, *TRIGGERS]
