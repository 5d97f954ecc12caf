"""Notes on aiohttp: DATABASE_URL=postgresql://... python aiohttp_app.py"""

import os

import aiopgx
from aiohttp import web
from psycopg2.errors import UniqueViolation

TABLE = "CREATE TABLE IF NOT EXISTS note (id serial PRIMARY KEY, text text UNIQUE NOT NULL)"
POOL = web.AppKey("pool", aiopgx.Pool)


async def lifespan(app):
    async with aiopgx.create_pool(os.environ["DATABASE_URL"], maxsize=10) as pool:
        async with pool.cursor() as cur:
            await cur.execute(TABLE)
        app[POOL] = pool
        yield


def cursor(request):
    return request.app[POOL].cursor(cursor_factory=aiopgx.RealDictCursor)


async def read(request):
    async with cursor(request) as cur:
        await cur.execute("SELECT id, text FROM note WHERE id = %s", (request.match_info["key"],))
        note = await cur.fetchone()
    if note is None:
        raise web.HTTPNotFound(text="no such note")
    return web.json_response(note)


async def create(request):
    note = await request.json()  # before a connection is taken: the client may be slow
    try:
        async with cursor(request) as cur, cur.begin():
            await cur.execute("INSERT INTO note (text) VALUES (%(text)s) RETURNING id, text", note)
            note = await cur.fetchone()
    except UniqueViolation:
        raise web.HTTPConflict(text="there is such a note") from None
    return web.json_response(note, status=201)


def make_app():
    app = web.Application()
    app.cleanup_ctx.append(lifespan)
    app.add_routes([web.get(r"/notes/{key:\d+}", read), web.post("/notes", create)])
    return app


if __name__ == "__main__":
    web.run_app(make_app(), host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))
