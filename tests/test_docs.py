"""The README and the pages of docs/: all their Python runs, and prints what they say it does."""

import re
import sys

import psycopg2.extensions
import pytest
from conftest import command, side_connection
from docs_pages import PAGES, ROOT, Page, blocks, indented, is_python, missing, name_of

import aiopgx
import aiopgx.sa

CODE = ROOT / "docs" / "code"
RUN = [
    page
    for page in PAGES
    if any(block.kind == "python" for block in blocks(page)) and not missing(page)
]


@pytest.fixture
def page_dsn(admin, template, server_dsn):
    """A database of the page's own."""
    command(admin, "DROP DATABASE IF EXISTS aiopgx_page WITH (FORCE)")
    command(admin, f"CREATE DATABASE aiopgx_page TEMPLATE {template}")
    yield psycopg2.extensions.make_dsn(server_dsn, dbname="aiopgx_page")
    with side_connection(server_dsn, dbname="aiopgx_page") as conn, conn.cursor() as cursor:
        cursor.execute("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()")
        for (gid,) in cursor.fetchall():
            cursor.execute("ROLLBACK PREPARED %s", (gid,))
    command(admin, "DROP DATABASE aiopgx_page WITH (FORCE)")


@pytest.mark.parametrize("page", RUN, ids=name_of)
async def test_page(ours, page, page_dsn, monkeypatch, record_property, tmp_path):
    """All blocks run, in order; what print() shows is what the comment behind it says."""
    run = Page(page, page_dsn)
    monkeypatch.setitem(sys.modules, run.module.__name__, run.module)
    monkeypatch.chdir(tmp_path)
    async with aiopgx.connect(run.dsn) as conn, aiopgx.create_pool(run.dsn) as pool:
        count = await run.run(conn, pool)
    text = page.read_text(encoding="utf-8")
    assert count == len(re.findall(r"^ *[`~]{3,} *python *$", text, re.MULTILINE))
    record_property("code_blocks", count)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_nothing_else_on_a_page_is_python(page):
    """Whoever shows a program in another way has one that nobody runs."""
    for block in blocks(page):
        if block.kind not in ("python", "run"):
            assert "py" not in block.kind.lower().split(".")[0], block
            assert block.kind or not is_python(block.text), block
    for text in indented(page):
        assert not is_python(text), text


def test_links_lead_somewhere():
    """Those to files of this project; and the README, which is shown elsewhere, has no others."""
    for page in PAGES:
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            path = re.sub(r"^https://github.com/aiopgx/aiopgx/(blob|tree)/main/", f"{ROOT}/", link)
            if "://" not in path and not path.startswith("#"):
                assert (page.parent / path.partition("#")[0]).exists(), f"{page.name}: {link}"
                assert page.name != "README.md" or path != link, link


def test_the_reference_is_complete():
    """All public names are in it."""
    pages = [page for page in PAGES if page.parent.name == "api"]
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    missing = {*aiopgx.__all__, *aiopgx.sa.__all__} - set(re.findall(r"\w+", text))
    assert not missing, f"docs/api says nothing of {missing}"


def test_included_files_are_tested():
    """Each file of docs/code is shown by a page and used by a test."""
    shown = {block.kind for page in PAGES for block in blocks(page)}
    found = [
        path for folder in (ROOT / "tests", ROOT / "examples") for path in folder.rglob("test_*.py")
    ]
    tests = "".join(path.read_text(encoding="utf-8") for path in found)
    files = sorted(CODE.glob("*.py"))
    assert {f"{{literalinclude}} code/{path.name}" for path in files} == {
        kind for kind in shown if kind.startswith("{literalinclude} code/")
    }
    for path in files:
        assert re.search(rf"\b{path.stem}\b", tests), path


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("```python\nprint(1)  # 2\n```", "page.md:2"),
        ("```python\nfor x in (1, 2):\n    print(x)  # 1, 2\n```", None),
        ("```python\nprint(\n    1,\n    2,\n)  # 1 2\n```", None),
        ("```python\nif dsn == 'elsewhere':\n    print(1)  # 1\n```", "page.md:3"),
        ("text\n\n```python\ndef f():\n    pass\n```", "page.md:4: nobody calls this"),
        ("```python\nasync def f():\n    pass\n```\n\n<!-- run\nawait f()\n-->", None),
        ("```python\nasync def main():\n    print(1)  # 1\n\n\nasyncio.run(main())\n```", None),
        ("```python\nassert dsn == 'postgresql://user@host/db'\n```", None),
        ("```python\nassert 'db1' not in 'postgresql+x://user@db1,db2:5433/db?a=b'\n```", None),
        (
            "```python\nasync with asyncio.Lock() as conn:\n    pass\n```\n"
            "<!-- run\nassert conn == 1\n-->",
            None,
        ),
        ("1. list\n\n   ```python\n   1 / 0\n   ```", "division by zero"),
    ],
)
async def test_the_runner(ours, dsn, tmp_path, text, seen):
    """It runs what is there, and tells what is not so."""
    (tmp_path / "page.md").write_text(text)
    run = Page(tmp_path / "page.md", dsn)
    if seen is None:
        assert await run.run(1, 2) == 1
        return
    with pytest.raises((AssertionError, ZeroDivisionError), match=seen):
        await run.run(1, 2)


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("import aiopgx\nawait aiopgx.connect(dsn)", True),
        ("async with pool.acquire() as conn:\n    ...", True),
        ("make test", False),
        ("make fuzz ARGS=build/x", False),
        ("5 rows", False),
        ("42", False),
    ],
)
def test_what_is_python(text, program):
    assert is_python(text) is program
