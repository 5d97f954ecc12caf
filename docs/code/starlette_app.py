"""Notes on Starlette: DATABASE_URL=postgresql://... uvicorn starlette_app:app"""

import os
from contextlib import asynccontextmanager

import aiopgx
from psycopg2.errors import UniqueViolation
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.routing import Route

TABLE = "CREATE TABLE IF NOT EXISTS note (id serial PRIMARY KEY, text text UNIQUE NOT NULL)"


@asynccontextmanager
async def lifespan(app):
    async with aiopgx.create_pool(os.environ["DATABASE_URL"], maxsize=10) as pool:
        async with pool.cursor() as cur:
            await cur.execute(TABLE)
        yield {"pool": pool}  # the requests find it in their state


def cursor(request):
    return request.state.pool.cursor(cursor_factory=aiopgx.RealDictCursor)


async def read(request):
    async with cursor(request) as cur:
        await cur.execute("SELECT id, text FROM note WHERE id = %s", (request.path_params["key"],))
        note = await cur.fetchone()
    if note is None:
        raise HTTPException(404, "no such note")
    return JSONResponse(note)


async def create(request):
    note = await request.json()  # before a connection is taken: the client may be slow
    try:
        async with cursor(request) as cur, cur.begin():
            await cur.execute("INSERT INTO note (text) VALUES (%(text)s) RETURNING id, text", note)
            note = await cur.fetchone()
    except UniqueViolation:
        raise HTTPException(409, "there is such a note") from None
    return JSONResponse(note, 201)


app = Starlette(
    lifespan=lifespan,
    routes=[Route("/notes/{key:int}", read), Route("/notes", create, methods=["POST"])],
)
