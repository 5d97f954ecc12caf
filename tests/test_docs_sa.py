"""docs/sa.md: its examples are run, in order, and print what it says."""

import ast
import inspect
import re
from pathlib import Path

import pytest

pytest_plugins = ("sa_fixtures",)

PAGE = (Path(__file__).parent.parent / "docs" / "sa.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def expected(example):
    """What the comments behind print() say, a call each unless there are commas outside brackets"""
    for comment in re.findall(r"print\(.*\)  # (.*)$", example, re.MULTILINE):
        yield from re.split(r", (?![^({\[]*[)}\]])", comment)


def test_there_are_examples():
    assert len(EXAMPLES) == 9
    assert all("print(" in example for example in EXAMPLES)


@pytest.mark.parametrize("sa", ["aiopgx.sa"], indirect=True)
async def test_the_examples_print_what_they_say(sa, dsn, runner):
    printed = []
    namespace = {
        "dsn": dsn,
        "print": lambda *values: printed.append(" ".join(map(str, values))),
    }
    for example in EXAMPLES:
        code = compile(example, "docs/sa.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        printed.clear()
        result = eval(code, namespace)
        if inspect.iscoroutine(result):
            await result
        assert printed == list(expected(example))
    engine = namespace["engine"]
    async with engine.acquire() as conn:
        await conn.execute("DROP TABLE person")
    engine.close()
    await engine.wait_closed()
