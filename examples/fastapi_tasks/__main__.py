"""Tasks in projects: FastAPI, SQLAlchemy's AsyncSession and Alembic on `postgresql+aiopgx`.

    make example-fastapi                        installs what it needs and starts it
    python examples/fastapi_tasks --port 8000   with `pip install aiopgx[examples]`

It prints the address of the page. Every open page follows what the others do, and what psql does,
by LISTEN and NOTIFY. The API is described at /docs there (which wants the net, for Swagger's looks)
and in /openapi.json. Ctrl-C ends it.

AIOPGX_DSN names the database to use, as a URL or as libpq's key=value pairs. Without it a
throw-away PostgreSQL is started, which is gone at the end, with its data. The tables come by
migrations, at each start; by hand: `alembic -c examples/fastapi_tasks/alembic.ini upgrade head`.

    models.py       the tables, as classes
    database.py     the engine's URL, and a session for each request
    schemas.py      what goes in and out as JSON
    app.py          the endpoints
    changes.py      from NOTIFY to the pages
    migrations/     Alembic's
    index.html      the page
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
from pathlib import Path

import alembic.command
import alembic.config
import uvicorn
from aiopgx.tools import server

from app import app

HERE = Path(__file__).parent


class Server(uvicorn.Server):
    """uvicorn, with event streams that end when it is to stop: it would wait for them."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listening in sockets or []:
            host, port = listening.getsockname()
            print(f"Tasks are at http://{host}:{port} (Ctrl-C ends)", flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await app.state.changes.close()
        await super().shutdown(sockets)


def main() -> None:
    """Bring the database up to date and serve until SIGINT or SIGTERM, which give status 0."""
    parser = argparse.ArgumentParser(prog="fastapi_tasks", description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=8000, help="default: 8000; 0: any free one")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit())
    with (
        socket.create_server(("127.0.0.1", options.port)) as listening,
        server.start("AIOPGX_DSN") as database,
    ):
        if database.owned:
            print(f"A throw-away PostgreSQL: {database.dsn}")
        os.environ["AIOPGX_DSN"] = database.dsn
        alembic.command.upgrade(alembic.config.Config(HERE / "alembic.ini"), "head")
        config = uvicorn.Config(app, log_level="warning", lifespan="on")
        Server(config).run([listening])


if __name__ == "__main__":
    main()
