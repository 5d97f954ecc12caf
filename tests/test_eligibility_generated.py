"""The verdicts on generated statements, against the reference: none may differ.

Three generators that are the same in each run, and hypothesis, which makes small what it finds.
"""

import datetime
import itertools
import random
import re
from decimal import Decimal
from uuid import UUID

import eligibility_reference as reference
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg2.extras import Json
from support import LONG
from test_eligibility import CORPUS, VALUES, difference

COUNT = 400_000 if LONG else 10_000
PIECES = re.compile(
    r"%\([^)%]*\)s|%s|%%|'[^']*'|\"[^\"]*\"|\w+|::|[-+*/<>=~!@#^&|`?]+|\s+|.", re.DOTALL
)
PLACEHOLDERS = re.compile(r"%%|%\(([^)%]*)\)s|%s")
PLAIN = [
    *(1, 1, "a", "a", None, [1], ["a"], Json({}), datetime.timedelta(1), 1.5, UUID(int=1)),
    *(2**40, "\\", Decimal(1), 0.0, b"a"),
]
TEXTS = [PIECES.findall(case["sql"]) for case in CORPUS]
WORDS = sorted(
    {piece for pieces in TEXTS for piece in pieces if not piece.isspace()}
    | (reference.AFTER - {None})
    | (reference.BANNED | reference.QUERY | reference.CASTS | reference.NO_OPERAND)
    | {"::text", "::uuid", "::int[]", "::uuid[]", "current", "of", "rollup", "grouping", "u&'a'"}
    | {"-- a", "/*", "*/", "\\", "'today'", "E'a'", "$1", "$$", "|| 'a'", "%", "1.", ".5", "[", "]"}
)


def parameters_for(operation, pick):
    """Parameters for the placeholders of a statement; mostly plain ones, rarely a wrong number."""
    names = [match[1] for match in PLACEHOLDERS.finditer(operation) if match[0] != "%%"]
    values = PLAIN if pick.random() < 0.7 else VALUES
    if pick.random() < 0.03:
        return None
    if any(names) and pick.random() < 0.97:
        return {name: pick.choice(values) for name in names if name is not None}
    parameters = [pick.choice(values) for _ in names]
    if pick.random() < 0.03:
        parameters.append(1)
    return parameters if pick.random() < 0.2 else tuple(parameters)


def mutations(pick):
    """Statements of the corpus with some of their tokens changed."""
    while True:
        pieces = list(pick.choice(TEXTS))
        for _ in range(pick.choice([1, 1, 2, 3])):
            i, change = pick.randrange(len(pieces) + 1), pick.random()
            if change < 0.35 or not pieces:
                word = pick.choice(["%s", "%(a)s", pick.choice(WORDS), pick.choice(WORDS)])
                pieces.insert(i, word if pick.random() < 0.3 else f" {word} ")
            elif change < 0.6:
                pieces.pop(i % len(pieces))
            else:
                pieces[i % len(pieces)] = pick.choice(pick.choice([WORDS, pieces]))
        yield "".join(pieces)


QUERIES = [
    *("SELECT 1 FROM t WHERE ", "SELECT 1 FROM t JOIN u ON ", "SELECT ", "SELECT DISTINCT "),
    *("UPDATE t SET b = 1, ", "UPDATE t SET ", "DELETE FROM t WHERE ", "SELECT 1 FROM t WHERE a "),
    *("DELETE FROM t USING u WHERE ", "INSERT INTO t VALUES (", "INSERT INTO t VALUES (1, "),
    "INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET ",
    "INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET a = 1 WHERE ",
    *("INSERT INTO t VALUES (1) ON CONFLICT (a) WHERE ", "INSERT INTO t SELECT 1 WHERE "),
    *("SELECT a FROM t GROUP BY a HAVING ", "SELECT a FROM t GROUP BY "),
    *("SELECT a FROM t GROUP BY ROLLUP (a) HAVING count(*) > 1 AND ", "SELECT 1 FROM t ORDER BY "),
    *("SELECT 1 FROM t WHERE a IN (SELECT ", "SELECT 1 FROM t WHERE a IN (SELECT 1 WHERE "),
    *("SELECT (SELECT 1 WHERE ", "SELECT count(*) FROM (SELECT 1 WHERE ", "SELECT CASE WHEN "),
    *("SELECT 1 GROUP BY (SELECT 1 WHERE ", "WITH x AS (SELECT 1 WHERE ", "SELECT 1 FROM t "),
    *("SELECT 1 FROM generate_series(1, ", "SELECT a FROM t WHERE (a OR (", "SELECT 1 LIMIT "),
    *("UPDATE t SET a = (SELECT 1 WHERE ", "SELECT 1 UNION SELECT 2 WHERE "),
    *("INSERT INTO t VALUES (lower(", "SELECT 1 FROM t WHERE f(", "SELECT 1 OFFSET "),
    *("INSERT INTO t VALUES (1) RETURNING ", "SELECT 1 UNION SELECT (SELECT b WHERE "),
]
LEFT = [
    *("", "", "a ", "t.a ", '"a" ', "1 ", "'x' ", "%s ", "null ", "now() ", "(a, b) ", "count(*) "),
    *("sum(a + (b)) ", "lower(a) ", "a -> 'x' ", "a ->> %s ", "a = b + ", "NOT ", "a IS NOT "),
]
OPERATORS = [
    *("", "= ", "<> ", "!= ", "< ", "<= ", ">= ", "@> ", "<@ ", "&& ", "-> ", "->> ", "|| ", "+ "),
    *("- ", "* ", "LIKE ", "ILIKE ", "LIKE '%%' || ", "BETWEEN ", "BETWEEN 1 AND ", "IN (", "> ("),
    *("BETWEEN %s AND ", "IN (1, ", "= ANY(", "<> ALL(", "= SOME (", "> ((", "@> ARRAY[", "(a + "),
    *("@> ARRAY[%s, ", "= ARRAY[1, ", "IS DISTINCT FROM ", "IS NOT DISTINCT FROM ", "= lower("),
    *("= upper(", "= coalesce(a, ", "= coalesce(t.a, ", "= coalesce(null, ", "(", "= (a + ", ", "),
    *("= a + ", "= a || ", "= t.a - ", "> now() - ", "= generate_series(1, ", "LIMIT ", "OFFSET "),
]
CASTS = [
    *("::text", "::uuid", "::int[]", "::text[][]", "::numeric(5)", "::timestamp with time zone"),
    *("::double precision", "::date", "::foo", "::int::text", "::varchar varying", "::s.text"),
]
RIGHT = [
    *("", ")", ", 1", "]", "))", " = a", " = 1", " AND 1 = 1", " || '%%'", " || 'x' || 'y'"),
    *(" AS x", " AS x, 1", " IS NULL", " IS NOT NULL", " IS", " ORDER BY 1", " LIMIT 1", "; "),
    *(
        " = ANY(a)",
        " = ANY(t.a)",
        " = ANY(array[1])",
        " < t.a AND b",
        " COLLATE x",
        ") > 1",
        ", 2)",
    ),
    *(") = a", ", %s)", "]::int[]", " = now()", " = coalesce(a)"),
]


def fragments(pick):
    """Placeholders between all kinds of neighbours, in all kinds of queries."""
    while True:
        cast = pick.choice(CASTS) if pick.random() < 0.3 else ""
        parts = [pick.choice(QUERIES), pick.choice(LEFT), pick.choice(OPERATORS)]
        text = "".join([*parts, "%s", cast, pick.choice(RIGHT)])
        if pick.random() < 0.7:
            text += "]" * (text.count("[") - text.count("]"))
            text += ")" * (text.count("(") - text.count(")"))
        yield text


NOISE = [
    *"'\"%s ()[]:;,.+-*/<>=~!@#^&|`?$eEuU1.9_x\\\0\té€\u212a{}\n\v",
    *("%s", "%%", "%(a)s", "--", "/*", "*/", "''", '""', "::", "now", "SELECT ", "u&'", "e'", "$$"),
    *("$a$", "<=", "->>", "-3", "1.5e3", "1e", "0x1", " WHERE ", " = ", " a "),
]
FEW = [
    *("SELECT a FROM t WHERE a = %s", "SELECT ", "INSERT INTO t VALUES (%s, 'a%%b')"),
    *("SELECT a %% 2, 'x' FROM t WHERE b @> %s", "UPDATE t SET a = a+%s WHERE x<>-1"),
]


def noise(pick):
    """Plain statements with single characters put in or left out."""
    while True:
        characters = list(pick.choice(FEW))
        for _ in range(pick.choice([1, 1, 2, 3, 5])):
            i = pick.randrange(len(characters) + 1)
            if pick.random() < 0.7:
                characters.insert(i, pick.choice(NOISE))
            elif characters:
                characters.pop(i % len(characters))
        yield "".join(characters)


@pytest.mark.timeout(3600 if LONG else 60)
@pytest.mark.parametrize("generate", [mutations, fragments, noise])
def test_generated(generate):
    pick = random.Random(7)
    admitted = 0
    for operation in itertools.islice(generate(pick), COUNT):
        parameters = parameters_for(operation, pick)
        assert difference(operation, parameters) is None
        admitted += reference.classify(operation, parameters)[0] is not None
    assert admitted > COUNT // 200


SOUP = st.lists(
    st.one_of(
        st.sampled_from([*QUERIES, *LEFT, *OPERATORS, "%s", "%s", *RIGHT]),
        st.sampled_from(WORDS).map(" {} ".format),
        st.sampled_from(NOISE),
    ),
    max_size=12,
).map("".join)


@settings(max_examples=10_000 if LONG else 1000, suppress_health_check=[HealthCheck.too_slow])
@given(SOUP, st.randoms(use_true_random=False))
def test_anything(operation, pick):
    assert difference(operation, parameters_for(operation, pick)) is None
