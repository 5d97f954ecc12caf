"""The queries of `aiopgx.tools.measure` under pytest-benchmark, grouped by query and event loop.

One round is a turn of BATCH executions in concurrent tasks, so the times shown are those of BATCH
queries. The client CPU of a query, in microseconds, is in the saved data as `cpu_us`. For the
drivers in alternating turns, and a table of a line per query, run `python -m aiopgx bench`.
"""

from statistics import median

import pytest

from aiopgx.tools import measure

BATCH = 100


@pytest.mark.parametrize("name", list(measure.QUERIES))
def test_query(benchmark, loop, driver, name):
    query = measure.QUERIES[name]
    turns = []

    def batch():
        keys = iter(range(1, BATCH + 1))
        turns.append(
            loop.run_until_complete(measure.turn(driver, query, keys, measure.CONNECTIONS))
        )

    benchmark.group = f"{query.title}, {loop.name}"
    benchmark.name = driver.name
    benchmark.pedantic(batch, rounds=20, warmup_rounds=2)
    benchmark.extra_info["cpu_us"] = round(median(turn.cpu for turn in turns[2:]), 1)
