"""Notes on FastAPI: DATABASE_URL=postgresql://... uvicorn fastapi_app:app"""

import os
from contextlib import asynccontextmanager
from typing import Annotated

import aiopgx
from fastapi import Depends, FastAPI, HTTPException, Request
from psycopg2.errors import UniqueViolation

TABLE = "CREATE TABLE IF NOT EXISTS note (id serial PRIMARY KEY, text text UNIQUE NOT NULL)"


@asynccontextmanager
async def lifespan(app: FastAPI):
    async with aiopgx.create_pool(os.environ["DATABASE_URL"], maxsize=10) as pool:
        async with pool.cursor() as cur:
            await cur.execute(TABLE)
        yield {"pool": pool}  # the requests find it in their state


app = FastAPI(lifespan=lifespan)


async def cursor(request: Request):
    async with request.state.pool.cursor(cursor_factory=aiopgx.RealDictCursor) as cur:
        yield cur


Cursor = Annotated[aiopgx.Cursor, Depends(cursor, scope="function")]


@app.get("/notes/{key}")
async def read(key: int, cur: Cursor):
    await cur.execute("SELECT id, text FROM note WHERE id = %s", (key,))
    if (note := await cur.fetchone()) is None:
        raise HTTPException(404, "no such note")
    return note


@app.post("/notes", status_code=201)
async def create(note: dict[str, str], cur: Cursor):
    try:
        async with cur.begin():  # committed before the response goes out
            await cur.execute("INSERT INTO note (text) VALUES (%(text)s) RETURNING id, text", note)
            return await cur.fetchone()
    except UniqueViolation:
        raise HTTPException(409, "there is such a note") from None
