"""The pages of the documentation, and how their Python is run.

All ```python blocks of a page run in order in one namespace, with top-level await, on a real
server; so does what stands between `<!-- run` and `-->`, which readers do not see. Names that are
there from the start: `aiopgx` and `aiopg` (the same module), `asyncio`, `dsn`, `conn`, `pool`.

* `postgresql://user@host/db` is the server's URL: any with that user, with any hosts and database.
* `asyncio.run(main())` awaits main(), and so does uvloop's.
* `print(...)  # text` must print that text, and several calls of one print() the texts with a
  comma and a space between.
* A block of functions only, none of which is called on the page, has not been run: an error.
* `<!-- needs NAME -->` leaves a page out, as the report's header says, where a key of `FOUND` is
  missing.
* What `with ... as conn` has bound to `conn` or `pool` is not seen by the next block.
* Connections and pools that the page leaves open in a name of its own are closed at the end.

Code that can't run by itself is a file in docs/code, with a test that runs it: in examples/tests if
it needs what the tests' environment has not (`make test-examples`).
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import io
import re
import sys
import textwrap
import tokenize
from pathlib import Path
from types import ModuleType
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import sqlalchemy
from psycopg2.extensions import parse_dsn

import aiopgx
from aiopgx.sa import Engine

ROOT = Path(__file__).parent.parent
PAGES = [*ROOT.glob("README.md"), *sorted((ROOT / "docs").rglob("*.md"))]

FOUND = {
    "native": aiopgx.capabilities().native,
    "sqlalchemy-2": not sqlalchemy.__version__.startswith("1."),
}

FENCE = re.compile(r"( *)(`{3,}|~{3,})(.*)")
URL = re.compile(r"postgresql(?:\+\w+)?://user(?::\w+)?@[^\s\"'<>]*")


class Block(NamedTuple):
    """What stands in a page from one line on: `kind` is the word behind the fence, or "run"."""

    line: int
    kind: str
    text: str


def name_of(page):
    """Its path in the project."""
    return str(page.relative_to(ROOT)) if page.is_relative_to(ROOT) else page.name


def blocks(page):
    """All fenced blocks of a page, and its comments that begin with `run`."""
    lines = enumerate(page.read_text(encoding="utf-8").splitlines(), 2)
    for number, line in lines:
        if fence := FENCE.fullmatch(line):
            indent, mark, kind = fence.groups()
            yield Block(number, kind.strip(), taken(lines, indent + mark, len(indent)))
        elif line == "<!-- run":
            yield Block(number, "run", taken(lines, "-->", 0))


def taken(lines, end, indent):
    """The lines up to that end, without their indentation."""
    text = []
    for _, line in lines:
        if line.rstrip() == end:
            return "\n".join(text)
        text.append(line[indent:])
    raise ValueError(f"a block has no end: {end}")


def indented(page):
    """The blocks that Markdown takes for code because of their indentation."""
    text = page.read_text(encoding="utf-8")
    text = re.sub(r"(?ms)^( *)(`{3,}|~{3,}).*?^\1\2$|^<!--.*?-->$", "", text)
    return re.findall(r"(?<=\n\n)(?:    .*\n)+(?=\n|\Z)", text)


def is_python(text):
    """Whether that is a program: something that can be executed, and more than one word."""
    try:
        tree = ast.parse(textwrap.dedent(text))
    except SyntaxError:
        return False
    return not all(isinstance(part, ast.Expr | ast.AnnAssign) for part in tree.body)


def missing(page):
    """What the page needs that is not here."""
    text = page.read_text(encoding="utf-8")
    return [name for name in re.findall(r"(?m)^<!-- needs (.*) -->$", text) if not FOUND[name]]


def on_server(text, dsn):
    """A program with the server's address in the place of the page's."""
    options = parse_dsn(dsn)
    user, database = quote(options.pop("user")), quote(options.pop("dbname"))
    if "password" in options:
        user += f":{quote(options.pop('password'), safe='')}"
    here = f"{quote(options.pop('host', 'localhost'), safe='')}:{options.pop('port', 5432)}"

    def url(match):
        given = urlsplit(match[0])
        hosts = ",".join(here for host in given.netloc.rpartition("@")[2].split(",") if host)
        query = [(key, here if key == "host" else value) for key, value in parse_qsl(given.query)]
        query = urlencode([*options.items(), *query])
        return f"{given.scheme}://{user}@{hosts}/{database}{'?' if query else ''}{query}"

    return URL.sub(url, text)


class Awaited(ast.NodeTransformer):
    """`await x` for each `asyncio.run(x)` where that can be."""

    def visit_Call(self, node):
        self.generic_visit(node)
        if ast.unparse(node.func) not in ("asyncio.run", "uvloop.run"):
            return node
        return ast.copy_location(ast.Await(node.args[0]), node)

    def visit_FunctionDef(self, node):
        return node


def outside_functions(tree):
    """The nodes that are no part of a function or class."""
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node
            yield from outside_functions(node)


def bound_by_with(tree):
    """The names that `with` statements bind."""
    items = [node.optional_vars for node in outside_functions(tree) if type(node) is ast.withitem]
    targets = [node for target in items if target is not None for node in ast.walk(target)]
    return {node.id for node in targets if isinstance(node, ast.Name)}


class Page:
    """A page that is run: what was executed of it, and what it has printed."""

    def __init__(self, path, dsn):
        self.name = name_of(path)
        self.file = str(path)
        self.dsn = on_server("postgresql://user@host/db", dsn)
        self.module = ModuleType("page")
        self.blocks = [block for block in blocks(path) if block.kind in ("python", "run")]
        self.printed = {}
        self.called = set()

    async def run(self, conn, pool):
        """Execute all blocks; return how many of them readers see."""
        names = vars(self.module)
        names.update(aiopgx=aiopgx, aiopg=aiopgx, asyncio=asyncio, print=self._print)
        names.update(dsn=self.dsn, conn=conn, pool=pool)
        try:
            for block in self.blocks:
                await self._execute(block)
        finally:
            await self._close({conn, pool})
        for block in self.blocks:
            self._check_printed(block)
            self._check_called(block)
        return sum(block.kind == "python" for block in self.blocks)

    async def _execute(self, block):
        tree = Awaited().visit(self._parse(block))
        code = compile(tree, self.file, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        names = vars(self.module)
        before = {name: names[name] for name in ("conn", "pool") if name in bound_by_with(tree)}
        sys.setprofile(self._profile)
        try:
            result = eval(code, names)
            if inspect.iscoroutine(result):
                await result
        finally:
            sys.setprofile(None)
        names.update(before)

    async def _close(self, given):
        for value in {id(value): value for value in vars(self.module).values()}.values():
            if isinstance(value, aiopgx.Connection) and value not in given:
                await value.close()
            elif isinstance(value, (aiopgx.Pool, Engine)) and value not in given:
                value.terminate()
                await value.wait_closed()
        vars(self.module).clear()  # what is left is told of now, not in another test

    def _parse(self, block):
        text = on_server(block.text, self.dsn)
        return ast.parse("\n" * (block.line - 1) + text, self.file)

    def _print(self, *values, **options):
        print(*values, file=(file := io.StringIO()), **{"end": "", **options})
        self.printed.setdefault(sys._getframe(1).f_lineno, []).append(file.getvalue())

    def _profile(self, frame, event, _):
        if event == "call" and frame.f_code.co_filename == self.file:
            self.called.add(frame.f_code.co_firstlineno)

    def _check_printed(self, block):
        text = "\n" * (block.line - 1) + block.text
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        comments = {t.start[0]: t.string for t in tokens if t.type == tokenize.COMMENT}
        for node in ast.walk(self._parse(block)):
            is_print = isinstance(node, ast.Call) and ast.unparse(node.func) == "print"
            if is_print and node.end_lineno in comments:
                place = range(node.lineno, node.end_lineno + 1)
                texts = [text for line in place for text in self.printed.get(line, [])]
                said = comments[node.end_lineno].removeprefix("#").strip()
                assert ", ".join(texts) == said, f"{self.name}:{node.lineno}"

    def _check_called(self, block):
        kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef)
        body = self._parse(block).body
        if not all(isinstance(node, kinds) for node in body):
            return
        functions = [node for node in body if not isinstance(node, ast.Import | ast.ImportFrom)]
        first = {min([node.lineno, *(d.lineno for d in node.decorator_list)]) for node in functions}
        assert not first or first & self.called, f"{self.name}:{block.line}: nobody calls this"
