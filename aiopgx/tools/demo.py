"""The demo: a service written for aiopg runs on aiopgx, then the drivers are set side by side."""

from __future__ import annotations

import asyncio
import importlib.util

import aiopgx as aiopg

from . import measure, orders, server
from .terminal import Progress, table

ORDERS = 2000
CUSTOMERS = 20
DRIVERS = ("aiopg", "aiopgx", "asyncpg")
QUERIES = ("key", "ints", "pg_type", "dict", "mixed")
ROUNDS = 3
SECONDS = 0.15


def run() -> int:
    """Run the demo on the server of AIOPGX_DSN or a throw-away one; return the exit status."""
    with server.start("AIOPGX_DSN") as srv:
        origin = f"started from {srv.bindir}" if isinstance(srv, server.Cluster) else "AIOPGX_DSN"
        print(f"PostgreSQL on {srv.host}:{srv.port} ({origin})\n")
        summary = service(srv.dsn)
        print()
        comparison(srv.dsn)
    return 0 if summary.consistent else 1


def service(dsn: str) -> orders.Summary:
    """Run the order service on aiopgx, and print what it did."""
    print(
        f"An order service written for aiopg, on `import aiopgx as aiopg`: {CUSTOMERS} customers\n"
        f"place {ORDERS:,} orders over a pool of 10 connections, one transaction each."
    )
    progress = Progress("orders", ORDERS)
    summary = asyncio.run(
        orders.serve(aiopg, dsn, orders=ORDERS, customers=CUSTOMERS, on_order=progress.step)
    )
    books = "agree" if summary.consistent else "DO NOT AGREE"
    print(
        f"{summary.placed:,} placed and {summary.out_of_stock:,} out of stock, rolled back, "
        f"in {summary.seconds:.1f} s.\n"
        f"{summary.vouchers_refused:,} vouchers had been used: a unique violation, undone by a "
        f"savepoint.\nA listening worker was notified of {summary.told:,} orders. "
        f"Stock, sales and notifications {books}.\n"
    )
    rows = [dict(row) for row in summary.sales]
    print(table(list(rows[0]), [list(row.values()) for row in rows]))
    return summary


def comparison(dsn: str) -> None:
    """Measure the drivers that are installed on a few queries, and print the table."""
    drivers, missing = measure.load(DRIVERS)
    queries = [measure.QUERIES[name] for name in QUERIES]
    loop = "uvloop" if importlib.util.find_spec("uvloop") else "asyncio"
    print(
        f"The same queries on each driver in turn: {measure.CONNECTIONS} connections, {loop}, "
        "this machine, now."
    )
    if missing:
        print(f"Not installed, so not compared: {', '.join(missing)}.")
    progress = Progress("measuring", measure.turns_in(drivers, queries, ROUNDS))
    with measure.fixture(dsn):
        results = measure.run(
            loop,
            measure.measure(
                dsn, drivers, queries, rounds=ROUNDS, seconds=SECONDS, on_turn=progress.step
            ),
        )
    print(measure.report(results))
    print(measure.environment(dsn, drivers))
