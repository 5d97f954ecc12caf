"""Packages that are made on aiopg, at work: `python dependents.py NAME DSN`.

Prints what came of it as JSON, after the name of the package that `import aiopg` gave.
"""

import asyncio
import datetime
import json
import sys

import aiopg
from psycopg2.extensions import parse_dsn


async def use_databases(where):
    from databases import Database

    url = "postgresql+aiopg://{user}:{password}@{host}:{port}/{dbname}"
    async with Database(url.format_map({"password": "", **where}), min_size=1, max_size=2) as db:
        await db.execute("CREATE TABLE notes (id serial PRIMARY KEY, text text, at date)")
        day = datetime.date(2026, 2, 3)
        await db.execute_many(
            "INSERT INTO notes (text, at) VALUES (:text, :at)",
            [{"text": text, "at": day} for text in ("one", "two")],
        )
        try:
            async with db.transaction():
                await db.execute("DELETE FROM notes")
                raise KeyError
        except KeyError:
            pass
        rows = [dict(row._mapping) async for row in db.iterate("SELECT * FROM notes ORDER BY id")]
        several = await asyncio.gather(*(db.fetch_val(f"SELECT {n}") for n in range(9)))
        return rows, several


async def use_procrastinate(where):
    from procrastinate import App
    from procrastinate.contrib.aiopg import AiopgConnector

    done = []
    app = App(connector=AiopgConnector(**where, minsize=1, maxsize=3))

    @app.task(name="add")
    async def add(a, b):
        done.append(a + b)

    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        for n in range(3):
            await add.defer_async(a=n, b=10)
        await app.run_worker_async(wait=False, install_signal_handlers=False)
        jobs = await app.job_manager.list_jobs_async()
    return sorted(done), [(job.task_name, job.task_kwargs) for job in jobs]


async def use_opentelemetry(where):
    from opentelemetry.instrumentation.aiopg import AiopgInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    # Without skip_dep_check: it looks for an installed aiopg of the versions that it knows.
    AiopgInstrumentor().instrument(tracer_provider=provider)
    rows = []
    async with aiopg.create_pool(**where) as pool, pool.acquire() as conn, conn.cursor() as cur:
        await cur.execute("SELECT typname FROM pg_type WHERE typlen = %s ORDER BY 1", (12,))
        async for row in cur:
            rows.append(row)
    conn = await aiopg.connect(**where)
    cur = await conn.cursor()
    await cur.execute("SELECT 1")
    rows.append(await cur.fetchone())
    await conn.close()
    spans = exporter.get_finished_spans()
    return rows, [(span.name, span.attributes["db.statement"]) for span in spans]


async def use_aiopg_listen(where):
    import aiopg_listen

    got, both = [], asyncio.Event()

    async def heed(notification):
        if isinstance(notification, aiopg_listen.Notification):
            got.append((notification.channel, notification.payload))
        if len(got) == 2:
            both.set()

    listener = aiopg_listen.NotificationListener(aiopg_listen.connect_func(**where))
    task = asyncio.create_task(listener.run({"a": heed, "b": heed}, notification_timeout=30))
    async with aiopg.connect(**where) as conn, conn.cursor() as cur:
        while not both.is_set():  # until it listens
            await cur.execute("SELECT pg_notify('a', '1'), pg_notify('b', '2')")
            await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.wait([task])
    return sorted(set(got)), task.cancelled()


async def use_peewee_async(where):
    import peewee
    import peewee_async

    database = peewee_async.PooledPostgresqlDatabase(where.pop("dbname"), **where)

    class Word(peewee_async.AioModel):
        text = peewee.CharField()

        class Meta:
            database = None

    Word._meta.set_database(database)
    with database.allow_sync():
        Word.create_table()
        database.close()
    words = [await Word.aio_create(text=text) for text in ("one", "two", "three")]
    words[0].text = "ONE"
    await words[0].aio_save()
    await words[1].aio_delete_instance()
    try:
        async with database.aio_atomic():
            await Word.delete().aio_execute()
            raise KeyError
    except KeyError:
        pass
    rows = await Word.select().order_by(Word.id).aio_execute()
    try:
        missing = await Word.aio_get(Word.text == "two")
    except Word.DoesNotExist:
        missing = None
    await database.aio_close()
    return [(row.id, row.text) for row in rows], missing


if __name__ == "__main__":
    made = asyncio.run(globals()[f"use_{sys.argv[1]}"](parse_dsn(sys.argv[2])))
    print(aiopg.connect.__module__)
    print(json.dumps(made, default=str))
