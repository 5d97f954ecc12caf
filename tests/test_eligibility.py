"""The verdicts on statements: against the reference, on the corpus of the study and beyond it."""

import datetime
import json
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import eligibility_reference
import psycopg2.extras
import pytest
from psycopg2 import sql
from psycopg2.extras import Json
from support import LONG

from aiopgx._eligibility import read_text

TESTS = Path(__file__).parent
CORPUS = json.loads((TESTS / "prepare_corpus.json").read_text(encoding="utf-8"))
NAMES = {
    **vars(psycopg2.extras),
    **{"datetime": datetime, "Decimal": Decimal, "UUID": UUID},
}
for case in CORPUS:
    case["params"] = eval(case["params"], NAMES)
TIERS = {None: 0, "generic": 1, "custom": 2}

# Statements that were seen to differ and are admitted nevertheless, and what stops them later.
TYPE = "Describe gives a parameter a type with which it is not the same (interval, domain, varchar)"
BIND = "Bind fails, with 'portal parameter' in the context: the statement is executed as text"
PLAN = "SAME_IF_PLANNED: only under a plan that was made without the values"
STOPPED_LATER = {
    "INSERT INTO t (id, ivd) VALUES (%s, %s) RETURNING ivd": TYPE,
    "INSERT INTO t (id, ivh) VALUES (%s, %s) RETURNING ivh": TYPE,
    "INSERT INTO t (id, ivd) VALUES (%s, %s), (%s, %s) RETURNING ivd": TYPE,
    "UPDATE t SET ivd = %s WHERE id = %s RETURNING ivd": TYPE,
    "UPDATE t SET i2 = %s WHERE id = %s": TYPE,
    "UPDATE t SET v3 = %s WHERE id = %s": TYPE,
    "UPDATE t SET v3 = %s WHERE id = 999 AND id = %s": TYPE,
    "UPDATE t SET c5 = %s WHERE id = %s": TYPE,
    "UPDATE t SET dom = %s WHERE id = %s": TYPE,
    "UPDATE t SET id = %s WHERE id = %s": TYPE,
    "UPDATE t SET d = %s WHERE u = %s": BIND,
    "SELECT id FROM empty WHERE d = ANY(%s::date[]) ORDER BY id": BIND,
    "SELECT relname FROM pg_class WHERE oid = %s AND false": PLAN,
    "SELECT id FROM t WHERE (%s::int IS NULL OR 1 / 0 = id) ORDER BY id": PLAN,
    "SELECT id FROM t WHERE d = %s AND nosuch = %s": "it never works, so that it never is hot",
    "INSERT INTO audited VALUES (%s, %s)": "nothing: a trigger stores current_query()",
}


def verdict(operation, parameters):
    return read_text(operation, parameters is not None).admits(parameters)


def difference(operation, parameters):
    """How the verdict differs from the reference's, or None."""
    text = read_text(operation, parameters is not None)
    tier, reason, numbered, bound = eligibility_reference.classify(operation, parameters)
    found = text.admits(parameters)
    refusal = text.refusal(parameters)
    assert (refusal is None) == (found > 0)
    if found != TIERS[tier]:
        return operation, parameters, found, refusal, tier, reason
    if found and text.sql.decode() != numbered:
        return operation, parameters, text.sql, numbered
    if found and text.binds != tuple(how for _, how in bound):
        return operation, parameters, text.binds, bound
    return None


def test_corpus():
    assert len(CORPUS) == 819
    assert [d for case in CORPUS if (d := difference(case["sql"], case["params"]))] == []


def test_what_differs_is_stopped():
    """Nothing that was seen to differ is admitted, except for what the next steps stop."""
    admitted = {
        case["sql"]
        for case in CORPUS
        if case["verdict"] != "same" and verdict(case["sql"], case["params"])
    }
    assert admitted == set(STOPPED_LATER)


def test_what_needs_a_plan():
    """What differs only under a plan made without the values is admitted only with such plans."""
    for case in CORPUS:
        if case["verdict"] != "same" and STOPPED_LATER.get(case["sql"]) == PLAN:
            assert verdict(case["sql"], case["params"]) == 2


def test_share_of_ordinary_statements():
    same = [case for case in CORPUS if case["verdict"] == "same" and case["category"] == "crud"]
    admitted = [case for case in same if verdict(case["sql"], case["params"])]
    assert len(admitted) / len(same) >= 0.9


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        ("SELECT a, %s AS b FROM t", 1),
        ("SELECT DISTINCT a, %s AS b FROM t", 0),
        ("SELECT a, %s AS b FROM t GROUP BY a", 0),
        ("SELECT a, %s AS b FROM t UNION SELECT 1, 2", 0),
        ("SELECT a, (SELECT 1 FROM u WHERE c = %s) FROM t", 1),
        ("SELECT DISTINCT a, (SELECT 1 FROM u WHERE c = %s) FROM t", 0),
        ("SELECT DISTINCT a FROM t WHERE c = %s", 1),
        ("SELECT a FROM t WHERE a IN (SELECT DISTINCT (SELECT c FROM u WHERE d = %s) FROM v)", 0),
    ],
)
def test_equal_expressions_stay_equal(operation, expected):
    assert verdict(operation, (1,)) == expected


# --- values ---------------------------------------------------------------------------------------

INTS = [
    *(0, 1, -1, 2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 2**63 - 1, 2**63, -(2**63)),
    *(-(2**63) - 1, 10**37 - 1, 10**37, -(10**37)),
]
FLOATS = [0.0, -0.0, 1.5, 1e38, 9e37, -1e-37, 1e-36, 5e-324, float("nan"), float("-inf")]
DECIMALS = [
    *("1.5", "NaN", "sNaN", "Infinity", "-0", "0E50", "1E37", "9E36", "1E-37", "1E-36"),
    *("2147483647", "-2147483648", "2147483647.5"),
]
STRINGS = ["", "a", "a\\b", "a\0b", "é", "é\\", "é\0", "\U0001f600\\", "\ud800"]
LISTS = [
    *([], [None], [None, None], [None, 1], [1, None], [1], [2**31], [-(2**31)], [1, 2**63 - 1]),
    *([2**63], [-(2**63)], ["a"], ["a", None], ["a\0"], ["a\\"], ["a", 1], [UUID(int=1)]),
    *([datetime.date(2020, 1, 1)], [datetime.datetime(2020, 1, 1)], [1.5], [True], [[1]], [1] * 99),
]


class Text(str):
    pass


class Number(int):
    pass


OTHERS = [
    *(None, True, b"", b"a", bytearray(b"a"), memoryview(b"a"), datetime.date(2020, 1, 1)),
    *(datetime.datetime(2020, 1, 1), datetime.time(1), datetime.timedelta(1), UUID(int=5)),
    *(Json({}), (1,), (), {}, set(), object(), Text("a"), Number(1), 1j, range(2)),
    psycopg2.extras.NumericRange(1, 2),
]
VALUES = [*INTS, *FLOATS, *map(Decimal, DECIMALS), *STRINGS, *LISTS, *OTHERS]


def replaced(parameters):
    """The parameters with each of the values in each of the places."""
    keys = list(parameters) if isinstance(parameters, dict) else range(len(parameters))
    for key in keys:
        for value in VALUES:
            values = dict(parameters) if isinstance(parameters, dict) else list(parameters)
            values[key] = value
            yield values if isinstance(parameters, dict) else tuple(values)


def test_values():
    """Each value in each placeholder of the corpus; a part of it unless AIOPGX_LONG=1."""
    seen, count, differences = set(), 0, []
    for case in CORPUS:
        if case["params"] and case["sql"] not in seen:
            seen.add(case["sql"])
            for number, parameters in enumerate(replaced(case["params"])):
                if LONG or (number + len(seen)) % 24 == 0:
                    count += 1
                    differences.append(difference(case["sql"], parameters))
    assert count > (80_000 if LONG else 3_000)
    assert [found for found in differences if found] == []


# --- parameters -----------------------------------------------------------------------------------


class Tuple(tuple):
    pass


@pytest.mark.parametrize(
    ("operation", "parameters", "expected"),
    [
        ("SELECT 1", None, 1),
        ("SELECT 1", (), 1),
        ("SELECT 1", [], 1),
        ("SELECT 1", {}, 1),
        ("SELECT 1", {"a": 1}, 1),
        ("SELECT 1", (1,), 0),
        ("SELECT 1", 5, 0),
        ("SELECT 1 LIMIT %s", (1,), 1),
        ("SELECT 1 LIMIT %s", [1], 1),
        ("SELECT 1 LIMIT %s", None, 1),  # an operator and a column, as for psycopg2
        ("SELECT 1 LIMIT %s", (), 0),
        ("SELECT 1 LIMIT %s", (1, 2), 0),
        ("SELECT 1 LIMIT %s", {"a": 1}, 0),
        ("SELECT 1 LIMIT %s", Tuple([1]), 0),
        ("SELECT 1 LIMIT %s", "1", 0),
        ("SELECT 1 LIMIT %(a)s OFFSET %(a)s", {"a": 1, "b": 2}, 1),
        ("SELECT 1 LIMIT %(a)s", {"b": 2}, 0),
        ("SELECT 1 LIMIT %(a)s", (1,), 0),
        ("SELECT 1 LIMIT %(a)s OFFSET %s", {"a": 1}, 0),
        ("SELECT 1 LIMIT %(a)s OFFSET %s", (1, 1), 0),
    ],
)
def test_parameters(operation, parameters, expected):
    text = read_text(operation, parameters is not None)
    assert text.admits(parameters) == expected
    assert (text.refusal(parameters) is None) == (expected > 0)


def test_what_is_read():
    text = read_text('SELECT a %% 2, "b%%" FROM t WHERE a = %(a)s AND b IN (%(b)s, %(a)s);', True)
    assert text.eligible
    assert text.reason is None
    assert text.sql == b'SELECT a % 2, "b%" FROM t WHERE a = $1 AND b IN ($2, $3);'
    assert text.names == ("a", "b", "a")
    assert text.count == 3
    assert text.binds == ("literal",) * 3
    assert text.admits({"a": 1, "b": "é"}) == 1


def test_a_text_without_parameters_stays_as_it_is():
    text = read_text("SELECT 7 %% 2, 'é%s' WHERE 1 = 7 % 2", False)
    assert text.sql == "SELECT 7 %% 2, 'é%s' WHERE 1 = 7 % 2".encode()
    assert (text.count, text.names) == (0, None)
    assert text.admits(None) == 1
    assert text.admits(()) == 0


def test_how_parameters_are_bound():
    text = read_text("UPDATE t SET a = %s WHERE b = ANY(%s::text[]) AND c = %s", True)
    assert text.binds == ("column", "cast array", "literal")


@pytest.mark.parametrize(
    "operation",
    [
        *(None, 1, b"SELECT 1", bytearray(b"SELECT 1"), Text("SELECT 1"), ["SELECT 1"], object()),
        *(sql.SQL("SELECT 1"), sql.Composed([sql.SQL("SELECT 1")]), sql.Identifier("a")),
    ],
    ids=lambda operation: type(operation).__name__,
)
def test_only_a_str_is_eligible(operation):
    for parameters in (None, (), (1,)):
        text = read_text(operation, parameters is not None)
        assert not text.eligible
        assert text.reason == "the operation is no str"
        assert text.sql is None
        assert text.binds == ()
        assert text.admits(parameters) == 0
        assert text.refusal(parameters) == text.reason


@pytest.mark.parametrize(
    "operation", ["", " ", "\ud800", "SELECT '\ud800'", "SELECT 1\0", ";", "("]
)
def test_nonsense_is_not_eligible(operation):
    assert not read_text(operation, False).eligible
    assert not read_text(operation, True).eligible


def test_a_refused_text_names_no_parts():
    text = read_text("SELECT %s", True)
    assert (text.sql, text.names, text.count) == (None, None, 0)


# --- size -----------------------------------------------------------------------------------------

SIZE = 5_000_000
PARTS = [
    *("(1, 'a', 2.5), ", "(%s, %s), ", "(", "[", ")", "+", "-+", "%%", ";", "'", '"', "'' ", '"a"'),
    *("$a", "$a$b", "$$", "/*", "-", "--\n", "%(", "%(a)s", "'\\' ", "E'\\'", "select ", "a.b "),
    *("é", "1e", "(select ", "array[%s, ", "generate_series(1, %s, 2", "having (a) > %s "),
]


@pytest.mark.parametrize("part", PARTS)
def test_large_texts(part):
    """5 MB of anything, twice: work that grew with the square would not end within hours."""
    for start in ("INSERT INTO t VALUES ", "SELECT a FROM t WHERE b IN (1, "):
        operation = start + part * (SIZE // len(part))
        text = read_text(operation, True)
        assert text.eligible == (text.sql is not None)


def test_ten_megabytes():
    rows = ", ".join(["(1, 'a string', 2.5)"] * 500_000)
    text = read_text(f"INSERT INTO t VALUES {rows}", False)
    assert len(text.sql) > 10_000_000
    assert (text.eligible, text.single, text.kind) == (True, True, "INSERT")
