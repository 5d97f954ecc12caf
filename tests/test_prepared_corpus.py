"""The statements of the study, executed: prepared, they do what psycopg2's text does."""

import contextlib

import psycopg2
import psycopg2.extensions
import pytest
from roads import Ours, Reference, check_equal, portrait
from support import side_connection
from test_eligibility import BIND, CORPUS, STOPPED_LATER, TESTS

# A trigger stores current_query(): no rule about the statement can see it (docs/prepared.md).
TRIGGER = "INSERT INTO audited VALUES (%s, %s)"
PLAIN = psycopg2.extensions.cursor

# They show the time, or change what is not of one database.
UNSTEADY = (
    "now()",
    "current_timestamp",
    "clock_timestamp",
    "random",
    "pg_sleep",
    "CREATE ROLE",
    TRIGGER,
)


def steady(case):
    parameters = repr(case["params"])
    return not any(word in case["sql"] or word in parameters for word in (*UNSTEADY, "'now'"))


def compare(case, reference, ours, wrong):
    """Execute it on both; whether ours was executed by its name."""
    before = ours.conn._plans.executions
    expected = reference.execute(case["sql"], case["params"], PLAIN, lambda cursor: None)
    got = ours.execute(case["sql"], case["params"], PLAIN, lambda cursor: None)
    try:
        check_equal("prepared", case["sql"], got.seen, expected.seen)
        check_equal("prepared", case["sql"], portrait(got.rows), portrait(expected.rows))
    except AssertionError as error:
        wrong.append(str(error))
    return ours.conn._plans.executions > before


@pytest.fixture(scope="module")
def copies(admin, server_dsn):
    """DSNs of two databases that are the same, down to the OIDs."""
    names = ["aiopgx_corpus", "aiopgx_corpus_copy"]
    with admin.cursor() as cursor:
        for name in names:
            cursor.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        cursor.execute(f"CREATE DATABASE {names[0]} ENCODING 'UTF8' TEMPLATE template0")
        with side_connection(server_dsn, dbname=names[0]) as side, side.cursor() as setup:
            setup.execute((TESTS / "prepare_setup.sql").read_text(encoding="utf-8"))
        cursor.execute(f"CREATE DATABASE {names[1]} TEMPLATE {names[0]}")
        yield [psycopg2.extensions.make_dsn(server_dsn, dbname=name) for name in names]
        for name in names:
            cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def pair(copies):
    with (
        contextlib.closing(Reference(copies[0])) as reference,
        contextlib.closing(Ours("prepared", copies[1])) as ours,
    ):
        ours.conn.prepared_max = None
        yield reference, ours


def contents(raw):
    """All rows of all tables."""
    with raw.cursor() as cursor:
        cursor.execute(
            "SELECT format('%I', relname) FROM pg_class"
            " WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1"
        )
        tables = [row[0] for row in cursor.fetchall()]
        found = {}
        for table in tables:
            cursor.execute(f"SELECT t::text FROM {table} t ORDER BY 1")
            found[table] = cursor.fetchall()
    return found


@pytest.mark.parametrize("times", [1, 8])
def test_corpus(pair, copies, times):
    """8 times: the server has a plan without the values from the sixth on."""
    reference, ours = pair
    wrong, taken = [], []
    for case in filter(steady, CORPUS):
        if sum(compare(case, reference, ours, wrong) for _ in range(times)):
            taken.append(case)
    assert wrong == []
    with contextlib.ExitStack() as stack:
        both = [contents(stack.enter_context(side_connection(dsn))) for dsn in copies]
    assert both[0] == both[1]
    check_verdicts(taken)


def check_verdicts(taken):
    assert [
        c for c in taken if c["verdict"] != "same" and STOPPED_LATER.get(c["sql"]) != BIND
    ] == []
    same = [case for case in filter(steady, CORPUS) if case["verdict"] == "same"]
    ordinary = [case for case in same if case["category"] == "crud"]
    print([c["sql"] for c in ordinary if c not in taken])
    print(
        sum(c in taken for c in ordinary), len(ordinary), sum(c in taken for c in same), len(same)
    )
    assert sum(case in taken for case in ordinary) / len(ordinary) > 0.8
