"""Each example runs as its users run it: its one command, in a process of its own.

`make test-examples` makes the environment and runs these tests; `pytest examples` runs them in one
that has the extra `examples`, and selenium for the page.

Fixtures
  dsn         a database of the test module's own
  side        a synchronous psycopg2 connection (autocommit) to it, that looks on from outside
  browser     headless Chromium, driven by selenium

Environment
  AIOPGX_TEST_DSN=...          use this server, as superuser, instead of starting one
  AIOPGX_CHROMIUM=required     a missing Chromium fails the tests of the page; else it skips them
"""

from __future__ import annotations

import os
import re
import shutil

import psycopg2
import psycopg2.extensions
import pytest
from aiopgx.tools import server

# A browser that asks nobody for anything but the page.
CHROMIUM_ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
)


def pytest_configure(config):
    config.addinivalue_line("filterwarnings", "error")


@pytest.fixture(scope="session")
def admin():
    """A connection to the server's maintenance database."""
    with server.start() as running:
        conn = psycopg2.connect(running.dsn)
        conn.autocommit = True
        yield conn
        conn.close()


@pytest.fixture(scope="module")
def dsn(request, admin):
    name = "aiopgx_" + re.sub(r"\W", "_", request.module.__name__)
    with admin.cursor() as cursor:
        cursor.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        cursor.execute(f"CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0")
        yield psycopg2.extensions.make_dsn(admin.dsn, dbname=name)
        cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def side(dsn):
    conn = psycopg2.connect(dsn)
    conn.autocommit = True
    yield conn
    conn.close()


@pytest.fixture(scope="session")
def programs():
    """The paths of Chromium and of its driver."""
    browsers = ("chromium", "chromium-browser", "google-chrome")
    browser = next(filter(None, map(shutil.which, browsers)), None)
    driver = shutil.which("chromedriver")
    if not (browser and driver):
        reason = "no Chromium with chromedriver (Debian: apt install chromium chromium-driver)"
        if os.environ.get("AIOPGX_CHROMIUM") == "required":
            pytest.fail(reason)
        pytest.skip(reason)
    return browser, driver


@pytest.fixture(scope="module")
def browser(programs, tmp_path_factory):
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location, driver = programs
    profile = tmp_path_factory.mktemp("profile")
    for argument in (*CHROMIUM_ARGUMENTS, f"--user-data-dir={profile}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # With the driver's path, selenium looks for nothing and downloads nothing.
    chromium = webdriver.Chrome(options=options, service=Service(driver))
    yield chromium
    chromium.quit()
