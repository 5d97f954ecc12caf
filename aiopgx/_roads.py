"""Which roads a query can take in this process, and why."""

import os
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import psycopg2
from psycopg2.sql import Composable

from . import _errors, _libpq, _link
from ._eligibility import read_text
from ._plans import can_bind


@dataclass(frozen=True)
class Capabilities:
    """What `capabilities()` returns; `print()` shows it in words.

    native: queries go through libpq, rows are decoded by aiopgx; otherwise psycopg2 does both.
    reason: why the native road is open or closed.
    libpq_version: of psycopg2's own libpq, 170004 for 17.4; 0 if its functions can't be had.
    psycopg2_version: as psycopg2 gives it.
    direct_rows: values are read out of libpq's result without a call for each.
    async_cancel: cancel requests are driven by the event loop (libpq 17); otherwise by a thread.
    """

    native: bool
    reason: str
    libpq_version: int
    psycopg2_version: str
    direct_rows: bool
    async_cancel: bool

    def __str__(self) -> str:
        lines = [
            f"{'native road':<15}{'open' if self.native else 'closed'} ({self.reason})",
            f"{'psycopg2 road':<15}open",
            f"{'libpq':<15}{_libpq_name(self.libpq_version)}",
            f"{'psycopg2':<15}{self.psycopg2_version}",
            f"{'direct rows':<15}{'yes' if self.direct_rows else 'no'}",
            f"{'async cancel':<15}{'yes' if self.async_cancel else 'no, in a thread'}",
        ]
        return "\n".join(lines)


def _libpq_name(version: int) -> str:
    return f"{version // 10000}.{version % 10000}" if version else "not found"


def _reason() -> str:
    if os.environ.get("AIOPGX_ROAD") == "psycopg2":
        return "AIOPGX_ROAD=psycopg2 is set"
    if _libpq.why_not is not None:
        return f"psycopg2's libpq can't be used: {_libpq.why_not}"
    if not _errors.errors_known:
        return "this psycopg2 lays out its exceptions in a way that is not known"
    return "psycopg2's own libpq is used"


def capabilities() -> Capabilities:
    """Tell which roads are open in this process, and why."""
    return Capabilities(
        native=_link.native_road,
        reason=_reason(),
        libpq_version=_libpq.libpq_version,
        psycopg2_version=psycopg2.__version__,  # type: ignore[attr-defined, unused-ignore]
        direct_rows=_libpq.direct_rows,
        async_cancel=_libpq.async_cancel,
    )


class Road(NamedTuple):
    """What `explain_road()` returns; `print()` shows it in words.

    name: "prepared" (a prepared statement, once the statement is executed often), "text" (the
        statement with its parameters written into it) or "psycopg2" (the same, but psycopg2 sends
        it and makes the rows).
    reason: why, in one sentence.
    """

    name: Literal["prepared", "text", "psycopg2"]
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


def explain_road(operation: Any, parameters: Any = None) -> Road:
    """Tell which road `execute(operation, parameters)` can take once it is hot, and why.

    It goes by the statement, its parameters and the adapters registered at this moment, and asks
    no server. What else has to hold for a prepared statement is in docs/prepared.md. Never raises
    for a statement that is wrong. New in aiopgx.
    """
    if not _link.native_road:
        return Road("psycopg2", _reason())
    if isinstance(operation, Composable):
        return Road("text", "what psycopg2.sql makes of the operation depends on the connection")
    text = read_text(operation, parameters is not None)
    refusal = text.refusal(parameters)
    if refusal is not None:
        return Road("text", refusal)
    if text.admits(parameters) == 2:
        return Road("text", "the outcome may depend on whether the server plans with the values")
    if not can_bind(text, parameters):
        return Road(
            "text", "a parameter has an adapter that is not psycopg2's own, or is refused by it"
        )
    return Road("prepared", "the outcome is the same as with psycopg2's literals")
