"""The statements of the study, executed: prepared, they do what psycopg2's text does."""

import contextlib
import datetime
from decimal import Decimal
from uuid import UUID

import psycopg2
import psycopg2.extensions
import pytest
from psycopg2.extras import Json
from roads import Ours, Reference, check_equal, portrait
from support import LONG, side_connection
from test_eligibility import BIND, CORPUS, STOPPED_LATER, TESTS

from aiopgx._eligibility import read_text

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


# Rows without ORDER BY come as they lie there: nothing but the statements moves them.
STILL = """
DO $$ DECLARE one regclass; BEGIN
    FOR one IN SELECT oid FROM pg_class
        WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
    LOOP EXECUTE format('ALTER TABLE %s SET (autovacuum_enabled = false)', one); END LOOP;
END $$
"""


def steady(case):
    parameters = repr(case["params"])
    return not any(word in case["sql"] or word in parameters for word in (*UNSTEADY, "'now'"))


def in_order(case, outcome):
    """The rows; where the statement leaves their order open, in an order of ours."""
    rows = portrait(outcome.rows)
    if isinstance(outcome.rows, list) and "ORDER BY" not in case["sql"]:
        return rows[0], sorted(rows[1], key=repr)
    return rows


def compare(case, reference, ours, wrong):
    """Execute it on both; whether ours was executed by its name."""
    before = ours.conn._plans.executions
    expected = reference.execute(case["sql"], case["params"], PLAIN, lambda cursor: None)
    got = ours.execute(case["sql"], case["params"], PLAIN, lambda cursor: None)
    try:
        check_equal("prepared", case["sql"], got.seen, expected.seen)
        check_equal("prepared", case["sql"], in_order(case, got), in_order(case, expected))
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
            setup.execute(STILL)
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


# What a parameter may be: of each type that is bound, at the edges of what the server's types hold.
VALUES = [
    *(None, 0, 1, -1, 3, 32767, 32768, 2**31 - 1, -(2**31), 2**31, 2**63, 10**30),
    *(0.5, -0.0, 1e300, float("nan"), Decimal("1.50"), Decimal(3), Decimal("NaN"), True, False),
    *(
        "",
        "3",
        "u3@x.org",
        "abcdefghijklmnopqrstuvwxyz",
        "it's",
        "é",
        "100%",
        "{1,2}",
        "2020-01-03",
    ),
    *("a\\b", b"", b"\0\xff", bytearray(b"ab"), memoryview(b"ab")),
    *(datetime.date(2020, 1, 3), datetime.date(9999, 12, 31), datetime.datetime(2020, 1, 1, 10)),
    datetime.datetime(2020, 1, 1, 10, tzinfo=datetime.timezone.utc),
    *(datetime.time(10, 1), datetime.timedelta(1, 2, 3), datetime.timedelta(-1)),
    *(
        UUID(int=3),
        Json({"a": [1, None]}),
        [1, 2],
        [2**40],
        ["a", "b"],
        ["it's", '"\\'],
        [],
        [None],
    ),
    *([UUID(int=3)], [datetime.date(2020, 1, 3)], (1, 2), {"a": 1}),
]
MODIFYING = ("INSERT", "UPDATE", "DELETE")


def variants(case, step):
    """The statement with each of the values in the place of each parameter."""
    given = case["params"]
    if not isinstance(given, (tuple, list)) or case["sql"].count("%s") != len(given):
        return
    for place in range(len(given)):
        for value in VALUES[(len(case["sql"]) + place) % step :: step]:
            parameters = list(given)
            parameters[place] = value
            yield {**case, "params": parameters}


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


@pytest.mark.timeout(240)
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


@pytest.mark.timeout(3600 if LONG else 120)
def test_values(pair):
    """Each value in each place, three times; a part of them unless AIOPGX_LONG=1."""
    reference, ours = pair
    wrong, taken = [], 0
    for case in sorted(filter(steady, CORPUS), key=lambda case: modifies(case["sql"])):
        if read_text(case["sql"], True).eligible and "generate_series" not in case["sql"]:
            for variant in variants(case, 1 if LONG else 29):
                taken += sum(compare(variant, reference, ours, wrong) for _ in range(3))
                level_sequences(reference, ours)
    assert wrong == []
    assert taken > 300


def level_sequences(*roads):
    """A failed INSERT may have taken a number, where planning its text has failed before."""
    sql = "SELECT setval('users_id_seq', 1000), setval('orders_id_seq', 1000)"
    for road in roads:
        road.execute(sql, None, PLAIN, lambda cursor: None)


def modifies(text):
    return any(word in text for word in MODIFYING)


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
