"""Runs SQLAlchemy's compliance suite, on a server of its own.

Environment
  AIOPGX_TEST_DSN=...            use this server, as superuser, instead of starting one
  AIOPGX_COMPLIANCE_DRIVER=...   another driver, such as asyncpg, to compare with
  AIOPGX_ROAD=psycopg2           aiopgx takes psycopg2's road for everything
"""

import os

import psycopg2
import pytest
from sqlalchemy import make_url

from aiopgx.tools import server

pytest.register_assert_rewrite("sqlalchemy.testing.assertions")

from sqlalchemy.testing.plugin.pytestplugin import *  # noqa: E402, F403

DATABASE = "aiopgx_compliance"
DRIVER = os.environ.get("AIOPGX_COMPLIANCE_DRIVER", "aiopgx")


def execute(dsn, *statements):
    conn = psycopg2.connect(dsn)
    conn.autocommit = True
    with conn.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
    conn.close()


class Server:
    """A server for the run, with what SQLAlchemy's tests expect of it."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self, config):
        self.server = server.start()
        execute(
            self.server.dsn,
            f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)",
            f"CREATE DATABASE {DATABASE} TEMPLATE template0 ENCODING 'UTF8'",
        )
        url = make_url(self.server.dsn).set(database=DATABASE)
        execute(
            url.render_as_string(hide_password=False),
            "CREATE SCHEMA test_schema",
            "CREATE SCHEMA test_schema_2",
        )
        url = url.set(drivername=f"postgresql+{DRIVER}")
        config.option.dburi = [url.render_as_string(hide_password=False)]

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self):
        execute(self.server.dsn, f"DROP DATABASE {DATABASE} WITH (FORCE)")
        self.server.close()


def pytest_addhooks(pluginmanager):
    pluginmanager.register(Server())
