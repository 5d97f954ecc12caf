"""python -m aiopgx: look at the installation, run a program of aiopg's, see the demo, measure."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import psycopg2
import psycopg2.extensions

from aiopgx.tools import chart, check, demo, measure, run, server
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
    except asyncio.TimeoutError:
        print("TimeoutError: the server did not answer in time", file=sys.stderr)
        return 1
    except (server.ServerError, psycopg2.Error, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return status


def run_check(options: argparse.Namespace) -> int:
    """Print the versions and the open roads; with a DSN, what is seen of the server there."""
    print(check.installation(), flush=True)
    if options.dsn:
        print(asyncio.run(check.server(options.dsn, options.timeout)))
    else:
        print(check.NO_SERVER)
    return 0


def run_demo(options: argparse.Namespace) -> int:
    """Run the demo."""
    return demo.run()


def run_bench(options: argparse.Namespace) -> int:
    """Measure the drivers on the queries, and print a table for each event loop."""
    if options.chart:
        try:
            chart.require(options.chart)
        except (ImportError, ValueError) as error:
            print(error, file=sys.stderr)
            return 2
    drivers, missing = measure.load(options.drivers)
    for name in missing:
        print(f"{name} is not installed, so it is left out")
    if not drivers:
        return 1
    queries = [measure.QUERIES[name] for name in options.queries]
    results: dict[str, dict[measure.Query, measure.Turns]] = {}
    running = server.Server(options.dsn) if options.dsn else server.start("AIOPGX_DSN")
    with running as srv, measure.fixture(srv.dsn):
        environment = measure.environment(srv.dsn, drivers)
        print(environment)
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
                results[loop] = measure.run(loop, measuring)
            except ImportError:
                print(f"\n{loop} is not installed, so it is left out")
            else:
                print(f"\n{loop}, {options.connections} connections, {options.rounds} rounds")
                print(measure.report(results[loop]), flush=True)
    document = measure.document(results, drivers)
    document |= {"environment": environment, "command": _command(options)}
    if options.json:
        Path(options.json).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if options.chart:
        chart.draw(document, options.chart)
    return 0


def _command(options: argparse.Namespace) -> str:
    """Return the command that measures the same again; it does not name the server."""
    command = (
        f"python -m aiopgx bench --loop {options.loop} --rounds {options.rounds} "
        f"--seconds {options.seconds:g} --connections {options.connections}"
    )
    for name, all_of_them in (("drivers", measure.DRIVERS), ("queries", measure.QUERIES)):
        if (chosen := getattr(options, name)) != list(all_of_them):
            command += f" --{name} {' '.join(chosen)}"
    return command


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m aiopgx",
        description=(
            "demo and bench use the server of AIOPGX_DSN, else a throw-away one; bench makes a "
            f"schema {measure.SCHEMA} there, and drops it in the end."
        ),
    )
    commands = parser.add_subparsers(required=True, metavar="command")

    look = commands.add_parser("check", help="versions, open roads, and whether a server answers")
    look.set_defaults(command=run_check)
    look.add_argument(
        "--timeout", type=_seconds, default=10.0, help="seconds for the server; default: 10"
    )

    commands.add_parser("run", help="a program that imports aiopg, on aiopgx", add_help=False)

    show = commands.add_parser("demo", help="an aiopg service on aiopgx, and a short comparison")
    show.set_defaults(command=run_demo)

    bench = commands.add_parser("bench", help="queries a second and client CPU of several drivers")
    bench.set_defaults(command=run_bench)
    for command in (look, bench):
        command.add_argument(
            "--dsn", type=_dsn, default=os.environ.get("AIOPGX_DSN"),
            help="default: AIOPGX_DSN, which does not show a password in the list of processes",
        )  # fmt: skip
    bench.add_argument("--loop", choices=LOOPS, default="both", help="default: both")
    bench.add_argument("--rounds", type=_positive, default=5, help="default: 5")
    bench.add_argument(
        "--seconds",
        type=_seconds,
        default=0.3,
        help="of one driver's turn at one query; default: 0.3",
    )  # fmt: skip
    bench.add_argument("--connections", type=_positive, default=measure.CONNECTIONS)
    bench.add_argument("--json", metavar="FILE", type=_file, help="keep every turn's figures")
    bench.add_argument(
        "--chart", metavar="FILE", type=_file,
        help="draw them: .png, .svg or .pdf; needs aiopgx[chart]",
    )  # fmt: skip
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


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError("must be more than 0")
    return number


def _file(text: str) -> str:
    """A file to be written when all is measured, which takes minutes."""
    if not Path(text).parent.is_dir() or Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"no file can be written there: {text}")
    return text


def _dsn(text: str) -> str:
    try:
        psycopg2.extensions.parse_dsn(text)
    except psycopg2.Error as error:
        # what libpq quotes of it may be the password
        reason = re.sub('".*"', '"..."', str(error).strip(), flags=re.DOTALL)
        raise argparse.ArgumentTypeError(reason) from None
    return text


if __name__ == "__main__":
    sys.exit(main())
