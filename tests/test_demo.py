"""The demo's workload on aiopg and on aiopgx, the measuring, and `python -m aiopgx`."""

import io

import pytest

from aiopgx import __main__ as commands
from aiopgx.tools import measure, orders
from aiopgx.tools.terminal import Progress, table


async def test_the_service_runs_the_same_on_both(impl, dsn):
    done = []
    summary = await orders.serve(impl, dsn, orders=200, on_order=lambda: done.append(1))
    assert summary.consistent
    assert summary.told == summary.placed
    assert len(done) == summary.placed + summary.out_of_stock == 200
    assert summary.vouchers_refused > 0
    assert [row["product"] for row in summary.sales] == list(orders.PRODUCTS)


def test_the_orders_are_the_same_each_time():
    assert list(orders.make_orders(50)) == list(orders.make_orders(50))


def plain(value):
    """Return a value in a form that all drivers' results have in common."""
    if isinstance(value, (bytes, memoryview)):
        return bytes(value).decode("latin-1")  # asyncpg gives "char" as bytes
    return str(value) if type(value).__name__ == "UUID" else value


@pytest.mark.parametrize("name", list(measure.QUERIES))
async def test_all_drivers_give_the_same_rows(dsn, name):
    drivers, _ = measure.load(measure.DRIVERS)
    query = measure.QUERIES[name]
    results = []
    with measure.fixture(dsn):
        for driver in drivers:
            await driver.open(dsn, 1)
            rows = await driver.fetch(query, 7)
            values = [row.values() if hasattr(row, "values") else row for row in rows]
            results.append([[plain(value) for value in row] for row in values])
            await driver.close()
    assert results[0]
    for result in results[1:]:
        assert result == results[0]


async def test_measure_counts_every_execution(dsn):
    executed = []

    class Counting(measure.Aiopg):
        async def repeat(self, query, keys):
            await super().repeat(query, (executed.append(key) or key for key in keys))

    driver, query = Counting("aiopgx"), measure.QUERIES["one"]
    await driver.open(dsn, 3)
    turn = await measure.turn(driver, query, iter(range(50)), 3)
    await driver.close()
    assert sorted(executed) == list(range(50))
    assert turn.cpu > 0
    assert turn.rate > 0


def test_report_takes_ratios_within_a_round():
    turns = {
        "aiopg": [measure.Turn(10, 100), measure.Turn(40, 50), measure.Turn(20, 80)],
        "aiopgx": [measure.Turn(5, 200), measure.Turn(10, 200), measure.Turn(10, 160)],
    }
    text = measure.report({measure.QUERIES["one"]: turns})
    names, units, _, line, *_ = text.splitlines()
    assert names.split() == ["aiopg", "aiopg", "aiopgx", "aiopgx", "/aiopg", "/aiopg"]
    assert units.split() == ["query", *["us", "q/s"] * 3]
    assert line.split()[2:] == ["20.0", "80", "10.0", "200", "0.50", "2.00"]


def test_load_names_what_is_not_installed(monkeypatch):
    monkeypatch.setitem(measure.DRIVERS, "absent", lambda: measure.Aiopg("no_such_driver"))
    drivers, missing = measure.load(["aiopgx", "absent"])
    assert [driver.name for driver in drivers] == ["aiopgx"]
    assert missing == ["absent"]


def test_table_aligns_its_columns():
    assert table(["name", "total\nn"], [["a", 1], ["bread", 10000]]).splitlines() == [
        "       total",
        "name       n",
        "-----  -----",
        "a          1",
        "bread  10000",
    ]


def test_progress_in_a_log_is_a_few_lines():
    out = io.StringIO()
    progress = Progress("work", 40, out, width=4)
    for _ in range(40):
        progress.step()
    assert out.getvalue().splitlines() == [
        "work [#...] 10/40",
        "work [##..] 20/40",
        "work [###.] 30/40",
        "work [####] 40/40",
    ]


def test_bench_prints_a_table_for_each_loop(dsn, capsys, monkeypatch):
    monkeypatch.setenv("AIOPGX_DSN", dsn)
    what = ["--queries", "one", "key", "--drivers", "aiopg", "aiopgx"]
    assert commands.main(["bench", "--rounds", "1", "--seconds", "0.01", *what]) == 0
    output = capsys.readouterr().out
    assert output.count("/aiopg") >= 2
    assert "one row by primary key" in output
