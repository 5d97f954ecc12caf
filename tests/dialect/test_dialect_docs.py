"""The examples of docs/sqlalchemy.md, run in order in one namespace."""

import re
from pathlib import Path

import sqlalchemy.ext.asyncio

DOCS = Path(__file__).parents[2] / "docs" / "sqlalchemy.md"

EXPECTED = ["{'a': 1}", "serializable", "1000", "here"]


async def test_the_examples_work(engine, url, monkeypatch, capsys):
    made = []

    def create(example, **options):
        example = sqlalchemy.make_url(example)
        assert example.drivername == "postgresql+aiopgx"
        if "host" in example.query:
            query = {**example.query, "host": [f"{url.host}:{url.port}"] * 2}
            example = url.set(host=None, port=None, query=query)
        else:
            example = url
        made.append(engine(example, **options))
        return made[-1]

    monkeypatch.setattr(sqlalchemy.ext.asyncio, "create_async_engine", create)
    namespace = {}
    for source in re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL):
        exec(compile(source, str(DOCS), "exec"), namespace)
        for name in re.findall(r"^async def (\w+)", source, re.MULTILINE):
            await namespace[name]()
    assert len(made) == 2
    assert capsys.readouterr().out.split("\n") == [*EXPECTED, ""]
