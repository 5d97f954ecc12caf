"""Notes on Tornado: DATABASE_URL=postgresql://... python tornado_app.py"""

import asyncio
import json
import os
import signal

import aiopgx
from psycopg2.errors import UniqueViolation
from tornado.web import Application, HTTPError, RequestHandler

TABLE = "CREATE TABLE IF NOT EXISTS note (id serial PRIMARY KEY, text text UNIQUE NOT NULL)"


class Notes(RequestHandler):
    def cursor(self):
        pool = self.application.settings["pool"]
        return pool.cursor(cursor_factory=aiopgx.RealDictCursor)

    async def get(self, key):
        async with self.cursor() as cur:
            await cur.execute("SELECT id, text FROM note WHERE id = %s", (key,))
            note = await cur.fetchone()
        if note is None:
            raise HTTPError(404, reason="no such note")
        self.write(note)

    async def post(self):
        note = json.loads(self.request.body)
        try:
            async with self.cursor() as cur, cur.begin():
                await cur.execute(
                    "INSERT INTO note (text) VALUES (%(text)s) RETURNING id, text", note
                )
                note = await cur.fetchone()
        except UniqueViolation:
            raise HTTPError(409, reason="there is such a note") from None
        self.set_status(201)
        self.write(note)


async def main():
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with aiopgx.create_pool(os.environ["DATABASE_URL"], maxsize=10) as pool:
        async with pool.cursor() as cur:
            await cur.execute(TABLE)
        app = Application([(r"/notes/(\d+)", Notes), (r"/notes", Notes)], pool=pool)
        server = app.listen(int(os.environ.get("PORT", "8000")), "127.0.0.1")
        await stop.wait()
        server.stop()
        await server.close_all_connections()


if __name__ == "__main__":
    asyncio.run(main())
