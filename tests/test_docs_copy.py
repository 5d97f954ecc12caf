"""docs/copy.md: its examples are run, in order, and print what it says."""

import ast
import inspect
import re
from pathlib import Path

PAGE = (Path(__file__).parent.parent / "docs" / "copy.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_there_are_examples():
    assert len(EXAMPLES) == 7
    assert sum("print(" in example for example in EXAMPLES) == 6


async def test_the_examples_print_what_they_say(ours, connect):
    printed = []
    namespace = {
        "conn": await connect(),
        "print": lambda *values: printed.append(" ".join(map(str, values))),
    }
    for example in EXAMPLES:
        code = compile(example, "docs/copy.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        printed.clear()
        result = eval(code, namespace)
        if inspect.iscoroutine(result):
            await result
        assert printed == re.findall(r"print\(.*\)  # (.*)$", example, re.MULTILINE)
