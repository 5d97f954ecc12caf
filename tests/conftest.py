"""What every test file may use.

A test is a plain function or an ``async def``; the latter runs on a fresh event loop of the kind
that `loop_kind` names (no plug-in needed). Whatever the loop reports to its exception handler,
every warning and every exception that nobody could catch fails the test, unless the test asked
for it (`loop_errors`, `pytest.warns`).

Fixtures
  impl         the package under test, a module: runs the test once with aiopg, once with aiopgx
  ours         aiopgx alone, for what aiopg lacks or does wrong; narrows `impl` to aiopgx
  dsn          a database of the test module's own, made from a template
  connect      ``await connect(**kw)`` -> `impl.Connection`; closed after the test
  pool         ``await pool(**kw)`` -> `impl.Pool`; terminated after the test
  side         a synchronous psycopg2 connection (autocommit) that looks on from outside
  refused      a port of 127.0.0.1 at which nobody listens, nor will during the test
  gate         a synchronous connection that has locked the table `gate`: who reads that waits for
               its commit()
  roads        a `roads.Roads`: the same statement through psycopg2 and both roads of aiopgx; what
               a test sets or registers on it is gone after the test
  loop_errors  contexts given to the loop's exception handler; take out those you expected
  no_gc        no garbage is collected during the test
  pooler       ``pooler(mode, **settings)`` -> a running `bouncer.PgBouncer` in front of the server
  bouncer      ``bouncer(dsn, mode, **settings)`` -> the same in front of another server
  tls_server   a second server, with TLS; sslmode=require in its `dsn`
  loop_kind    "asyncio", "debug" (asyncio in debug mode) or "uvloop"

Marks
  all_loops    run the test on each kind of event loop
  needs(name)  left out, which the report's header says, where that program, package or power is
               missing: one of `NEEDED`
  unprepared   left out under AIOPGX_TEST_PREPARE: of what happens where a statement stays text

`make test` runs on all cores (pytest-xdist), the tests of a file in one process, each process with
a server of its own; where AIOPGX_TEST_DSN names one, or with -n 0, one after the other.

Environment
  AIOPGX_ROAD=psycopg2       aiopgx takes psycopg2's road for everything; tests of the roads, which
                             compare all of them in any run, and aiopg's own are left out
  AIOPGX_TEST_DSN=...        use this server, as superuser, instead of starting one
  AIOPGX_TEST_PREPARE=0      prepare_threshold of all connections that do not give one
  AIOPGX_TEST_LOOP=uvloop    run the tests on this kind of loop, the same left out, and what says
                             nothing new there: what is no coroutine, what runs on each loop
                             anyway, aiopgx.sa, which only awaits what others test
  AIOPGX_PGBOUNCER=required  fail where pgbouncer or openssl is missing, instead of leaving out
  AIOPGX_BLACK_HOLE=required the same where the kernel lets us drop no packets (Linux, as root)
  AIOPGX_AGENTS=required     the same for the monitoring agents
  AIOPGX_CHART=required      the same for matplotlib
  AIOPGX_DEPENDENTS=required the same for packages that are made on aiopg
  AIOPGX_LONG=1              the long mode: Hypothesis' profile "long", new values at each run and
                             20 times as many unless the test says how many, for many minutes;
                             otherwise the same values each time
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import inspect
import os
import re
import shutil
import socket
from importlib.util import find_spec
from pathlib import Path

import psycopg2
import psycopg2.extensions
import pytest
import sqlalchemy
from bouncer import PROGRAM, PgBouncer
from certificates import Certificate
from docs_pages import PAGES, missing, name_of
from hypothesis import settings
from proxy import can_swallow, counted
from roads import Roads, tally
from support import (
    LONG,
    LOOP_KINDS,
    new_loop,
    registries_restored,
    shut_down,
    side_connection,
)

import aiopgx
from aiopgx.tools import server

LOOP = os.environ.get("AIOPGX_TEST_LOOP", "asyncio")

PREPARED = "AIOPGX_TEST_PREPARE" in os.environ
if PREPARED:
    everywhere = {"prepare_threshold": int(os.environ["AIOPGX_TEST_PREPARE"])}
    aiopgx.connect.__kwdefaults__.update(everywhere)

# On another loop, or with one road closed, the tests of what is the same there are left out.
USUAL = LOOP == "asyncio" and "AIOPGX_ROAD" not in os.environ

IMPLEMENTATIONS = ["aiopg", "aiopgx"] if USUAL else ["aiopgx"]
TEMPLATE = "aiopgx_test_template"


def find_package(name):
    """Its spec, or None; `find_spec` raises where a package around it is missing."""
    try:
        return find_spec(name)
    except ModuleNotFoundError:
        return None


# What tests can be marked to need: where it is, and the environment variable that requires it.
NEEDED = {
    "pgbouncer": (PROGRAM, "AIOPGX_PGBOUNCER"),
    "openssl": (shutil.which("openssl"), "AIOPGX_PGBOUNCER"),
    "matplotlib": (find_package("matplotlib"), "AIOPGX_CHART"),
    "a black hole": (can_swallow(), "AIOPGX_BLACK_HOLE"),
    "tcp_user_timeout": (hasattr(socket, "TCP_USER_TIMEOUT"), "AIOPGX_BLACK_HOLE"),
    **{
        package: (find_package(package), "AIOPGX_AGENTS")
        for package in (
            "ddtrace",
            "elasticapm",
            "newrelic",
            "opentelemetry.instrumentation.aiopg",
            "opentelemetry.sdk",
            "prometheus_client",
            "wrapt",
        )
    },
    **{
        package: (find_package(package), "AIOPGX_DEPENDENTS")
        for package in (
            "aiopg_listen",
            "databases",
            "peewee_async",
            "procrastinate.contrib.aiopg",
        )
    },
}
MISSING = {name: variable for name, (place, variable) in NEEDED.items() if not place}

LEFT_OUT = pytest.StashKey()

# Seconds for the coroutine of a test. pytest-timeout's signal does not wake up uvloop.
LIMIT = 3600 if LONG else 50

settings.register_profile("normal", derandomize=True, print_blob=True, deadline=None)
settings.register_profile("long", max_examples=2000, print_blob=True, deadline=None)
settings.load_profile("long" if LONG else "normal")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    if LONG and config.getoption("timeout", None) is None:
        config.option.timeout = LIMIT
    config.addinivalue_line("markers", "all_loops: run on asyncio, its debug mode and uvloop")
    config.addinivalue_line("markers", "needs(name): left out where it is missing")
    config.addinivalue_line("markers", "unprepared: left out where all statements are prepared")
    config.addinivalue_line("filterwarnings", "error")
    # a false alarm of Hypothesis on CPython 3.14, about a generator of its own
    config.addinivalue_line("filterwarnings", "ignore:It looks like `register_random` was passed")
    for name, variable in MISSING.items():
        if os.environ.get(variable) == "required":
            raise pytest.UsageError(f"{name} is missing, and {variable}=required")


# What is about the native road's own rows; what needs SQLAlchemy 2.
collect_ignore = []
if not aiopgx.capabilities().native:
    collect_ignore += ["test_explain_road.py", "test_memory.py", "test_named_trips.py"]
    collect_ignore += ["dialect/test_dialect_pipeline.py", "test_prepared.py"]
    collect_ignore += ["test_prepared_corpus.py", "test_bulk_pipeline.py"]
    collect_ignore += ["test_stream_wire.py", "test_pipeline_trips.py"]
    collect_ignore += ["test_aliases.py", "test_run.py"]  # of names, and programs without queries
    # these ask the compiled modules, or nothing of the package, whatever the road
    collect_ignore += ["test_eligibility.py", "test_eligibility_generated.py", "test_server.py"]
    collect_ignore += ["test_binary.py", "test_binds.py", "test_fuzz.py", "test_interpreters.py"]
    # each has psycopg2's road as one of its roads
    collect_ignore += ["test_drill_flat.py", "test_drill_hostile.py", "test_drill_huge.py"]
if "AIOPGX_TEST_PREPARE" in os.environ:
    collect_ignore.append("test_prepared.py")  # it counts
if sqlalchemy.__version__.startswith("1."):
    collect_ignore.append("dialect")
if LOOP != "asyncio":
    collect_ignore.append("test_ending.py")  # its programs run on each loop
    collect_ignore += sorted(path.name for path in Path(__file__).parent.glob("test_sa_*.py"))


def pytest_report_header(config):
    lines = [
        *str(aiopgx.capabilities()).splitlines(),
        f"{'sqlalchemy':<15}{sqlalchemy.__version__}",
        f"{'event loop':<15}{LOOP}",
    ]
    left_out = [
        *collect_ignore,
        *(os.path.basename(path) for path in config.getoption("ignore") or ()),
        *([] if USUAL else ["tests of aiopg and of the roads"]),
        *(["tests of what a text alone does"] if PREPARED else []),
        *([] if LOOP == "asyncio" else ["what is no coroutine, what runs on each loop anyway"]),
        *(f"tests that need {name}" for name in MISSING),
        *(f"{name_of(page)}, which needs {name}" for page in PAGES for name in missing(page)),
    ]
    return [*lines, *(f"{'left out':<15}{name}" for name in left_out)]


def pytest_terminal_summary(terminalreporter, config):
    if left_out := config.stash.get(LEFT_OUT, None):
        terminalreporter.write_line(f"{left_out} tests left out")
    passed = terminalreporter.stats.get("passed", [])
    properties = [each for report in passed for each in report.user_properties]
    for report in passed:
        for measured in [text for name, text in report.user_properties if name == "measured"]:
            terminalreporter.write_line(f"{report.nodeid}: {measured}")
    if blocks := [count for name, count in properties if name == "code_blocks"]:
        terminalreporter.write_line(f"{sum(blocks)} code blocks of {len(blocks)} pages run")
    if tally.types:
        terminalreporter.write_line(f"differential: {tally}")


def pytest_collection_modifyitems(config, items):
    left_out = [item for item in items if is_left_out(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if not is_left_out(item)]
    config.stash[LEFT_OUT] = len(left_out)


def is_left_out(item):
    if not USUAL and "open_roads" in item.fixturenames:
        return True
    if LOOP != "asyncio" and is_the_same_on_each_loop(item):
        return True
    if PREPARED and item.get_closest_marker("unprepared"):
        return True
    return any(mark.args[0] in MISSING for mark in item.iter_markers("needs"))


def is_the_same_on_each_loop(item):
    """The test names its loop itself, or it has none."""
    if "loop_kind" in getattr(getattr(item, "callspec", None), "params", ()):
        return True
    named = item._fixtureinfo.argnames
    return "loop_kind" not in named and not inspect.iscoroutinefunction(item.function)


def pytest_generate_tests(metafunc):
    if "impl" in metafunc.fixturenames:
        names = IMPLEMENTATIONS[-1:] if "ours" in metafunc.fixturenames else IMPLEMENTATIONS
        metafunc.parametrize("impl", names, indirect=True)
    if metafunc.definition.get_closest_marker("all_loops"):
        metafunc.parametrize("loop_kind", LOOP_KINDS)


# --- side by side, by pytest-xdist: each process has a server of its own --------------------------


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """Names of databases and roles are fixed: a server that was named serves one process."""
    return 0 if os.environ.get("AIOPGX_TEST_DSN") else None


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):
        counted = {"tally": tally.counts(), "left_out": session.config.stash[LEFT_OUT]}
        session.config.workeroutput.update(counted)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    if not error and "tally" in node.workeroutput:  # else it has found nothing to run
        tally.merge(node.workeroutput["tally"])
        node.config.stash[LEFT_OUT] = node.workeroutput["left_out"]


# --- the event loop -------------------------------------------------------------------------------


class Runner:
    """One test's event loop, made when first asked for, and what is to be closed with it."""

    def __init__(self, kind):
        self.kind = kind
        self.errors = []
        self.stack = contextlib.AsyncExitStack()

    def run(self, test, kwargs):
        loop = new_loop(self.kind)
        loop.set_exception_handler(lambda _, context: self.errors.append(context))
        try:
            loop.run_until_complete(self._main(test, kwargs))
        finally:
            gc.collect()
            shut_down(loop)

    async def _main(self, test, kwargs):
        async with self.stack:
            await asyncio.wait_for(test(**kwargs), LIMIT)


@pytest.fixture
def loop_kind():
    return LOOP


@pytest.fixture(autouse=True)
def runner(loop_kind):
    return Runner(loop_kind)


@pytest.fixture
def loop_errors(runner):
    return runner.errors


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    test = pyfuncitem.obj
    if not inspect.iscoroutinefunction(test):
        return None
    kwargs = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    runner = pyfuncitem.funcargs["runner"]
    runner.run(test, kwargs)
    assert not runner.errors, "the loop's exception handler was called"
    return True


@pytest.fixture(scope="module", autouse=True)
def quick_collections():
    """Keep what was there before out of the collections that each test ends with."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module", autouse=True)
def registries():
    """No file depends on what another one has registered for everyone."""
    with registries_restored():
        yield


@pytest.fixture
def no_gc():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


# --- the server -----------------------------------------------------------------------------------


def command(conn, sql):
    with conn.cursor() as cursor:
        cursor.execute(sql)


@pytest.fixture(scope="session")
def server_dsn():
    """The server's DSN, for its maintenance database."""
    with server.start() as running:
        yield running.dsn


@pytest.fixture(scope="session")
def admin(server_dsn):
    with side_connection(server_dsn) as conn:
        yield conn


# For servers that come without contrib: what is tested is that the type is found by its name, and
# that its text and psycopg2's constructor for dicts pass through.
HSTORE = r"""
    CREATE TYPE hstore;
    CREATE FUNCTION hstore_in(cstring) RETURNS hstore LANGUAGE internal STRICT AS 'textin';
    CREATE FUNCTION hstore_out(hstore) RETURNS cstring LANGUAGE internal STRICT AS 'textout';
    CREATE TYPE hstore (INPUT = hstore_in, OUTPUT = hstore_out, LIKE = text);
    CREATE FUNCTION quoted(text) RETURNS text LANGUAGE sql IMMUTABLE STRICT AS $$
        SELECT '"' || regexp_replace($1, '(["\\])', '\\\1', 'g') || '"' $$;
    CREATE FUNCTION hstore(text[], text[]) RETURNS hstore LANGUAGE sql AS $$
        SELECT hstore_in(textout(coalesce(
            string_agg(quoted(k) || '=>' || coalesce(quoted(v), 'NULL'), ', '), '')))
        FROM unnest($1, $2) AS pair (k, v) $$;
"""


def make_hstore(conn):
    try:
        command(conn, "CREATE EXTENSION hstore")
    except psycopg2.errors.FeatureNotSupported:
        command(conn, HSTORE)


@pytest.fixture(scope="session")
def template(admin, server_dsn):
    command(admin, f"DROP DATABASE IF EXISTS {TEMPLATE} WITH (FORCE)")
    command(admin, f"CREATE DATABASE {TEMPLATE} ENCODING 'UTF8' TEMPLATE template0")
    with side_connection(server_dsn, dbname=TEMPLATE) as conn:
        make_hstore(conn)
    yield TEMPLATE
    command(admin, f"DROP DATABASE {TEMPLATE} WITH (FORCE)")


@pytest.fixture(scope="module")
def dsn(request, admin, template, server_dsn):
    name = "aiopgx_" + re.sub(r"\W", "_", request.module.__name__)
    command(admin, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    command(admin, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield psycopg2.extensions.make_dsn(server_dsn, dbname=name)
    command(admin, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def certificate():
    with Certificate() as files:
        yield files


@pytest.fixture(scope="session")
def tls_server(certificate):
    settings = {
        "ssl": "on",
        "ssl_cert_file": certificate.certificate,
        "ssl_key_file": certificate.key,
    }
    with server.Cluster(server.find_binaries(), settings) as running:
        running.dsn += "?sslmode=require"
        yield running


@pytest.fixture
def pooler(server_dsn, certificate):
    with contextlib.ExitStack() as stack:
        yield lambda mode, **settings: stack.enter_context(
            PgBouncer(server_dsn, mode, certificate, **settings)
        )


@pytest.fixture
def bouncer(certificate):
    with contextlib.ExitStack() as stack:
        yield lambda dsn, mode, **settings: stack.enter_context(
            PgBouncer(dsn, mode, certificate, **settings)
        )


# --- the packages ---------------------------------------------------------------------------------


@pytest.fixture
def impl(request):
    return importlib.import_module(request.param)


@pytest.fixture
def ours(impl):
    return impl


@pytest.fixture
def side(dsn):
    with side_connection(dsn) as conn:
        yield conn


@pytest.fixture
def gate(dsn, side):
    """A connection with the lock on a table, for which others wait until it is committed."""
    command(side, "CREATE TABLE gate ()")
    conn = psycopg2.connect(dsn)
    command(conn, "LOCK TABLE gate")
    yield conn
    conn.close()
    command(side, "DROP TABLE gate")


@pytest.fixture
def refused():
    """A port at which nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield unused.getsockname()[1]


@pytest.fixture(scope="module")
def open_roads(dsn):
    roads = Roads(dsn)
    yield roads
    roads.close()


@pytest.fixture
def roads(open_roads):
    types = [dict(raw.string_types) for raw in open_roads.raws()]
    yield open_roads
    open_roads.prepare("ROLLBACK")
    open_roads.prepare("RESET ALL")
    for raw, before in zip(open_roads.raws(), types, strict=True):
        raw.string_types.clear()
        raw.string_types.update(before)
        raw.notices.clear()


@pytest.fixture
def connect(impl, dsn, runner):
    def close(conn):
        if not conn.closed:
            conn.close()

    async def connect(dsn=dsn, **kwargs):
        conn = await impl.connect(dsn, **kwargs)
        runner.stack.callback(close, conn)
        return conn

    return connect


@pytest.fixture
def trips(dsn):
    """``trips()``: round trips since the last call; `trips.dsn` leads through the proxy."""
    with counted(int(psycopg2.extensions.parse_dsn(dsn).get("port", 5432))) as trips:
        trips.dsn = psycopg2.extensions.make_dsn(dsn, host="127.0.0.1", port=trips.proxy.port)
        yield trips


@pytest.fixture
def pool(impl, dsn, runner):
    async def close(pool):
        pool.terminate()
        await asyncio.wait_for(pool.wait_closed(), 10)

    async def make(dsn=dsn, **kwargs):
        pool = await impl.create_pool(dsn, **kwargs)
        runner.stack.push_async_callback(close, pool)
        return pool

    return make
