"""python -m aiopgx: look at the installation, run a program of aiopg's, see the demo, measure."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
from collections.abc import Sequence

import psycopg2

import aiopgx
from aiopgx.tools import demo, measure, run, server
from aiopgx.tools.terminal import Progress

LOOPS = {"asyncio": ["asyncio"], "uvloop": ["uvloop"], "both": ["asyncio", "uvloop"]}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command named in the arguments, and return its exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["run"]:  # what follows is another program's
        return run.run(arguments[1:])
    options = _parser().parse_args(arguments)
    try:
        status: int = options.command(options)
    except (server.ServerError, psycopg2.Error) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return status


def run_check(options: argparse.Namespace) -> int:
    """Print the versions and the open roads; with a DSN, the version of the server there."""
    print(f"{'aiopgx':<15}{aiopgx.__version__}")
    print(f"{'Python':<15}{platform.python_version()}")
    print(aiopgx.capabilities())
    if options.dsn:
        print(f"{'server':<15}{asyncio.run(_server_version(options.dsn))}")
    return 0


def run_demo(options: argparse.Namespace) -> int:
    """Run the demo."""
    return demo.run()


def run_bench(options: argparse.Namespace) -> int:
    """Measure the drivers on the queries, and print a table for each event loop."""
    drivers, missing = measure.load(options.drivers)
    for name in missing:
        print(f"{name} is not installed, so it is left out")
    if not drivers:
        return 1
    queries = [measure.QUERIES[name] for name in options.queries]
    with server.start("AIOPGX_DSN") as srv, measure.fixture(srv.dsn):
        print(measure.environment(srv.dsn, drivers))
        for loop in LOOPS[options.loop]:
            progress = Progress(
                loop, measure.turns_in(drivers, queries, options.rounds), sys.stderr
            )
            measuring = measure.measure(
                srv.dsn,
                drivers,
                queries,
                rounds=options.rounds,
                seconds=options.seconds,
                connections=options.connections,
                on_turn=progress.step,
            )
            try:
                results = measure.run(loop, measuring)
            except ImportError:
                print(f"\n{loop} is not installed, so it is left out")
            else:
                print(f"\n{loop}, {options.connections} connections, {options.rounds} rounds")
                print(measure.report(results), flush=True)
    return 0


async def _server_version(dsn: str) -> str:
    async with aiopgx.connect(dsn) as conn, conn.cursor() as cur:
        await cur.execute("SELECT version()")
        ((version,),) = await cur.fetchall()
        return str(version)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m aiopgx",
        description="demo and bench use the server of AIOPGX_DSN, else a throw-away one.",
    )
    commands = parser.add_subparsers(required=True, metavar="command")

    check = commands.add_parser("check", help="versions, open roads, and whether a server answers")
    check.set_defaults(command=run_check)
    check.add_argument("--dsn", default=os.environ.get("AIOPGX_DSN"), help="default: AIOPGX_DSN")

    commands.add_parser("run", help="a program that imports aiopg, on aiopgx", add_help=False)

    show = commands.add_parser("demo", help="an aiopg service on aiopgx, and a short comparison")
    show.set_defaults(command=run_demo)

    bench = commands.add_parser("bench", help="queries a second and client CPU of several drivers")
    bench.set_defaults(command=run_bench)
    bench.add_argument("--loop", choices=LOOPS, default="both", help="default: both")
    bench.add_argument("--rounds", type=_positive, default=5, help="default: 5")
    bench.add_argument(
        "--seconds", type=float, default=0.3, help="of one driver's turn at one query; default: 0.3"
    )
    bench.add_argument("--connections", type=_positive, default=measure.CONNECTIONS)
    for option, choices in (("--queries", measure.QUERIES), ("--drivers", measure.DRIVERS)):
        bench.add_argument(
            option, nargs="+", choices=choices, default=list(choices), metavar="NAME",
            help=f"of: {', '.join(choices)}; default: all",
        )  # fmt: skip
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


if __name__ == "__main__":
    sys.exit(main())
