"""Polls: an aiohttp service on `aiopgx.sa`, written as one writes it for `aiopg.sa`.

    make example-aiohttp                        installs what it needs and starts it
    python examples/aiohttp_polls --port 8080   with `pip install aiopgx[examples]`

It prints the address: pages for people, and JSON under /api/polls. Ctrl-C ends it.

AIOPGX_DSN names the database to use, as a URL or as libpq's key=value pairs; the tables are made
where they are missing. Without it a throw-away PostgreSQL is started, which is gone at the end,
with its data.

    db.py       the tables, and what is done with them
    app.py      the handlers
    pages.py    the HTML
"""

from __future__ import annotations

import argparse
import signal
import socket
import sys

from aiohttp import web
from aiopgx.tools import server

from app import make_app


def main() -> None:
    """Serve until SIGINT or SIGTERM, which give status 0."""
    parser = argparse.ArgumentParser(prog="aiohttp_polls", description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=8080, help="default: 8080; 0: any free one")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit())
    with (
        socket.create_server(("127.0.0.1", options.port)) as listening,
        server.start("AIOPGX_DSN") as database,
    ):
        if database.owned:
            print(f"A throw-away PostgreSQL: {database.dsn}")
        web.run_app(make_app(database.dsn), sock=listening, access_log=None, print=announce)


def announce(text: str) -> None:
    # aiohttp's own words; flushed, since somebody may wait for them at the end of a pipe.
    print(text, flush=True)


if __name__ == "__main__":
    main()
