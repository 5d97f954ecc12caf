"""`python -m aiopgx bench`: its options, the JSON that it keeps, the chart that is drawn of it."""

import json
import sys

import pytest

from aiopgx import __main__ as commands
from aiopgx.tools import chart, measure

QUICK = ["bench", "--loop", "asyncio", "--rounds", "2", "--seconds", "0.001", "--connections", "2"]


@pytest.fixture(autouse=True)
def server_named(dsn, monkeypatch):
    monkeypatch.setenv("AIOPGX_DSN", dsn)


def test_json_holds_every_turn(capsys, tmp_path):
    path = tmp_path / "figures.json"
    few = ["--queries", "one", "key", "--drivers", "aiopg", "aiopgx"]
    assert commands.main([*QUICK, *few, "--json", str(path)]) == 0
    document = json.loads(path.read_text())
    assert set(document) == {"date", "command", "environment", "drivers", "loops"}
    assert list(document["drivers"]) == ["aiopg", "aiopgx"]
    assert document["environment"] in capsys.readouterr().out
    (results,) = document["loops"].values()
    assert [query["query"] for query in results] == ["one", "key"]
    for query in results:
        for figures in query["drivers"].values():
            assert [len(figures[what]) for what in ("cpu_us", "rate")] == [2, 2]
            assert min(*figures["cpu_us"], *figures["rate"]) > 0


@pytest.mark.parametrize("option", ["--json", "--chart"])
@pytest.mark.parametrize("name", ["none/figures.svg", "."])
def test_where_no_file_can_be_written(capsys, tmp_path, option, name):
    with pytest.raises(SystemExit):
        commands.main([*QUICK, option, str(tmp_path / name)])
    assert f"argument {option}: no file can be written there" in capsys.readouterr().err


def test_the_command_in_it_measures_the_same_again(tmp_path, dsn, monkeypatch):
    monkeypatch.delenv("AIOPGX_DSN")
    path = tmp_path / "figures.json"
    few = ["--queries", "one", "--drivers", "aiopgx"]
    assert commands.main([*QUICK, *few, "--dsn", dsn, "--json", str(path)]) == 0
    command = json.loads(path.read_text())["command"]
    assert dsn not in command
    prefix = "python -m aiopgx "
    assert command.startswith(prefix)
    options = commands._parser().parse_args(command.removeprefix(prefix).split())
    assert (options.loop, options.rounds, options.seconds) == ("asyncio", 2, 0.001)
    assert (options.connections, options.drivers, options.queries) == (2, ["aiopgx"], ["one"])


def test_the_schema_is_gone_afterwards(side):
    assert commands.main([*QUICK, "--queries", "key", "--drivers", "aiopgx"]) == 0
    with side.cursor() as cursor:
        cursor.execute("SELECT to_regnamespace(%s)", (measure.SCHEMA,))
        assert cursor.fetchone() == (None,)


@pytest.mark.parametrize(
    "option, value",
    [("--rounds", "0"), ("--rounds", "x"), ("--connections", "-1"), ("--seconds", "0"),
     ("--seconds", "nan"), ("--queries", "none"), ("--drivers", "none"), ("--loop", "none")],
)  # fmt: skip
def test_bad_options(capsys, option, value):
    with pytest.raises(SystemExit):
        commands.main(["bench", option, value])
    assert f"argument {option}" in capsys.readouterr().err


def document():
    def turns(number):
        return {"cpu_us": [number, number + 2], "rate": [1e6 / number, 1e6 / number]}

    queries = [
        {"query": name, "title": name, "drivers": {"aiopg": turns(50), "aiopgx": turns(20)}}
        for name in ("one", "key")
    ]
    return {
        "date": "2026-01-02T03:04:05+00:00",
        "command": "python -m aiopgx bench",
        "environment": "here",
        "drivers": {"aiopg": "1.4.0", "aiopgx": "1.7.0"},
        "loops": {"asyncio": queries, "uvloop": queries},
    }


# What matplotlib and what it needs warn of is theirs.
needs_matplotlib = [
    pytest.mark.needs("matplotlib"),
    pytest.mark.filterwarnings("default"),
]


class TestChart:
    pytestmark = needs_matplotlib

    @pytest.mark.parametrize(
        "suffix, beginning", [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")]
    )
    def test_of_a_json_file(self, tmp_path, monkeypatch, suffix, beginning):
        source, target = tmp_path / "figures.json", tmp_path / f"chart.{suffix}"
        source.write_text(json.dumps(document()))
        monkeypatch.setattr(sys, "argv", ["chart", str(source), str(target)])
        chart.main()
        assert target.read_bytes().startswith(beginning)

    def test_of_what_was_measured(self, tmp_path):
        target = tmp_path / "chart.svg"
        assert commands.main([*QUICK, "--queries", "one", "--chart", str(target)]) == 0
        assert target.read_bytes().startswith(b"<?xml")


@pytest.mark.parametrize("missing, named", [(True, "chart.png"), (False, "chart.doc")])
def test_no_chart_is_said_before_anything_is_measured(capsys, monkeypatch, missing, named):
    if missing:
        monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert commands.main([*QUICK, "--chart", named]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert ("aiopgx[chart]" if missing else ".png, .svg, .pdf") in captured.err
