"""What the tools print: a table, and a progress bar that a log can hold too."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TextIO


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return rows as text in aligned columns: the first to the left, the others to the right.

    The cells of the header may have several lines.
    """
    head = [cell.split("\n") for cell in header]
    height = max(map(len, head))
    top = list(zip(*([""] * (height - len(cell)) + cell for cell in head), strict=True))
    body = [tuple(map(str, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*top, *body, strict=True)]
    lines = [*top, tuple("-" * width for width in widths), *body]
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        ).rstrip()
        for line in lines
    )


class Progress:
    """A bar that fills up in `total` steps: one line on a terminal, a line a quarter elsewhere."""

    def __init__(self, label: str, total: int, out: TextIO | None = None, width: int = 30) -> None:
        self._label = label
        self._total = max(total, 1)
        self._out = out or sys.stdout
        self._width = width
        self._tty = self._out.isatty()
        self._done = 0
        self._shown = -1 if self._tty else 0

    def step(self, note: str = "") -> None:
        """Count one step, and show it if the picture changes."""
        self._done = min(self._done + 1, self._total)
        granularity = self._width if self._tty else 4
        filled = self._done * granularity // self._total
        if filled != self._shown:
            self._shown = filled
            self._show(note)

    def _show(self, note: str) -> None:
        filled = self._done * self._width // self._total
        bar = "#" * filled + "." * (self._width - filled)
        line = f"{self._label} [{bar}] {self._done}/{self._total} {note}".rstrip()
        if not self._tty:
            print(line, file=self._out, flush=True)
        else:
            end = "\n" if self._done == self._total else ""
            print(f"\r{line}\x1b[K", end=end, file=self._out, flush=True)
