"""The chart of a benchmark: `python -m aiopgx.tools.chart bench.json bench.png`.

Needs matplotlib (`pip install "aiopgx[chart]"`).
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

SUFFIXES = (".png", ".svg", ".pdf")
COLORS = {"aiopgx": "#1f6fb2", "aiopg": "#e08a1e", "asyncpg": "#6a9f58", "psycopg": "#9a8cb5"}
PANELS = {
    "cpu_us": ("client CPU per query (less is better)", "{:,.0f} µs"),
    "rate": ("queries per second (more is better)", "{:,.0f}"),
}


def require(path: str) -> None:
    """Raise ImportError without matplotlib, ValueError for a file that it can't write."""
    if Path(path).suffix not in SUFFIXES:
        raise ValueError(f"{path}: the name of a chart ends in {', '.join(SUFFIXES)}")
    try:
        importlib.import_module("matplotlib")
    except ImportError:
        raise ImportError('a chart needs matplotlib: pip install "aiopgx[chart]"') from None


def draw(document: Mapping[str, Any], path: str) -> None:
    """Draw what `measure.document()` returned: a row of panels for each event loop.

    In each group of bars the longest is the largest value; what the bars stand for is beside them.
    """
    require(path)
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    loops: dict[str, Any] = document["loops"]
    queries = len(next(iter(loops.values())))
    drivers = list(document["drivers"])
    height = 1.4 + queries * (0.19 * len(drivers) + 0.2)
    figure, axes = pyplot.subplots(
        len(loops), 2, figsize=(12, height * len(loops)), squeeze=False, layout="constrained"
    )
    for row, (loop, results) in zip(axes, loops.items(), strict=True):
        for axis, (what, (title, form)) in zip(row, PANELS.items(), strict=True):
            _panel(axis, results, drivers, what, form)
            axis.set_title(f"{loop}: {title}", fontsize=11, loc="left")
        row[1].set_yticklabels([])
    handles, labels = axes[0][0].get_legend_handles_labels()
    versions = [f"{name} {document['drivers'][name]}" for name in labels]
    figure.legend(handles, versions, loc="outside upper center", ncols=len(labels), frameon=False)
    figure.supxlabel(_caption(document), fontsize=8, color="#555555")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _panel(axis: Any, results: list[Any], drivers: list[str], what: str, form: str) -> None:
    step = 0.8 / len(drivers)
    for number, driver in enumerate(drivers):
        for group, query in enumerate(results):
            values = {name: median(turns[what]) for name, turns in query["drivers"].items()}
            share = values[driver] / max(values.values())
            place = group + (number - (len(drivers) - 1) / 2) * step
            label = driver if group == 0 else None
            axis.barh(place, share, step * 0.92, color=COLORS[driver], label=label)
            axis.text(share + 0.01, place, form.format(values[driver]), va="center", fontsize=7.5)
    axis.set_yticks(range(len(results)), [query["title"] for query in results], fontsize=9)
    axis.set_ylim(len(results) - 0.5, -0.5)
    axis.set_xlim(0, 1.16)
    axis.set_xticks([])
    axis.spines[["top", "right", "bottom"]].set_visible(False)


def _caption(document: Mapping[str, Any]) -> str:
    return (
        f"{document['date'][:10]}, {document['environment']}\n{document['command']}\n"
        "Medians. The longest bar of each query is its largest value."
    )


def main() -> None:
    """Draw the JSON file named first into the picture named second."""
    source, target = sys.argv[1:]
    draw(json.loads(Path(source).read_text(encoding="utf-8")), target)


if __name__ == "__main__":
    main()
