"""explain_road(): the road of an execution and why, and what docs/prepared.md says of it."""

import os
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import psycopg2.extensions
import pytest
from psycopg2 import sql
from psycopg2.extras import Json
from support import registries_restored

from aiopgx import explain_road

PAGE = (Path(__file__).parent.parent / "docs" / "prepared.md").read_text(encoding="utf-8")
SAME = "the outcome is the same as with psycopg2's literals"


def road(operation, parameters=None):
    return tuple(explain_road(operation, parameters))


@pytest.mark.parametrize(
    ("operation", "parameters", "reason"),
    [
        ("SELECT a FROM t ORDER BY %s", (1,), "placeholder 1 stands in ORDER BY"),
        ("SELECT 1; SELECT 2", None, "the text has several statements"),
        ("SELECT 1 -- one", None, "the text contains a comment"),
        ("SET a = 1", None, "the text does not begin with SELECT, INSERT, UPDATE, DELETE or WITH"),
        ("SELECT a FROM t WHERE a = '%s'", (1,), "a placeholder stands inside quotes"),
        ("SELECT current_query()", None, "the text contains current_query"),
        (b"SELECT 1", None, "the operation is no str"),
        (
            sql.SQL("SELECT 1"),
            None,
            "what psycopg2.sql makes of the operation depends on the connection",
        ),
        (None, None, "the operation is no str"),
        (
            "SELECT a FROM t WHERE a = %s AND b = %s",
            (1, None),
            "parameter 2 is None, which means something else in a comparison",
        ),
        (
            "SELECT a FROM t LIMIT %(count)s",
            {"count": "1"},
            "parameter count is of type str, which is not bound in LIMIT or OFFSET",
        ),
        ("SELECT a FROM t WHERE a LIKE %s", ("\\",), "parameter 1 contains a backslash in LIKE"),
        (
            "SELECT a FROM t WHERE a = %s",
            ((1, 2),),
            "parameter 1 is of type tuple, which is never bound",
        ),
        (
            "SELECT a FROM t WHERE a = %s",
            (),
            "the parameters are no tuple or list with a value for each placeholder",
        ),
    ],
)
def test_text_and_why(operation, parameters, reason):
    assert road(operation, parameters) == ("text", reason)


def test_prepared():
    assert road("SELECT 1 % 2") == ("prepared", SAME)
    assert road("SELECT a %% 2 FROM t WHERE a = %s;", [1]) == ("prepared", SAME)
    told = explain_road("SELECT a FROM t WHERE a = %(a)s", {"a": 2**20, "b": 0})
    assert str(told) == f"prepared: {SAME}"
    told = explain_road("SELECT a FROM t WHERE a = %(a)s", {"a": 2**40, "b": 0})
    assert told.name == "text"
    assert told.reason == "the outcome may depend on whether the server plans with the values"


def test_adapters_of_the_program():
    with registries_restored():
        psycopg2.extensions.register_adapter(int, psycopg2.extensions.AsIs)
        assert road("SELECT a FROM t WHERE a = %s", (1,))[0] == "text"
    assert road("SELECT a FROM t WHERE a = %s", (1,))[0] == "prepared"


def test_psycopg2():
    command = "from aiopgx import explain_road; print(*explain_road('SELECT 1'), sep=': ')"
    environment = {**os.environ, "AIOPGX_ROAD": "psycopg2"}
    told = subprocess.run(
        [sys.executable, "-c", command], env=environment, capture_output=True, text=True, check=True
    )
    assert told.stdout == "psycopg2: AIOPGX_ROAD=psycopg2 is set\n"


FRAMES = {
    "SET": "UPDATE t {}",
    "INSERT": "{}",
    "LIMIT": "SELECT a FROM t {}",
    "OFFSET": "SELECT a FROM t {}",
    "HAVING": "SELECT a FROM t GROUP BY a {}",
    "FROM": "SELECT 1 {}",
    "SELECT": "{}",
}
VALUES = [1, 1.5, "a", None, [1], ["a"], Json({}), timedelta(1), b"a"]


def places():
    """(statement, cell of the types) of each example in the table."""
    for line in PAGE.splitlines():
        cells = re.split(r"(?<!\\)\|", line.strip("|"))
        if line.startswith("| ") and "%s" in cells[0]:
            for example in re.findall("`([^`]*%s[^`]*)`", cells[0].replace("\\|", "|")):
                if example.startswith("a - "):
                    example = "SET a = " + example
                if example.startswith(("lower", "upper")):
                    example = "a = " + example
                if example.startswith("coalesce"):
                    example += " = b"
                example = example.replace("INSERT ...", "INSERT INTO t")
                frame = FRAMES.get(example.split()[0], "SELECT a FROM t WHERE {}")
                yield frame.format(example), cells[1]


def is_named(cell, value):
    """Whether a cell of the table names the type of a value: those it takes, or all but those."""
    names = {*re.findall(r"`(\w+)`", cell), *(["list"] if "lists" in cell else [])}
    name = "None" if value is None else type(value).__name__
    return (name in names) != ("all" in cell)


def test_places_of_the_page():
    """Each example takes the types beside it, and no others."""
    examples = list(places())
    assert len(examples) == 29
    for statement, cell in examples:
        count = statement.count("%s")
        for value in VALUES:
            taken = road(statement, (value,) * count)[0] == "prepared"
            assert taken == is_named(cell, value), (statement, value)
