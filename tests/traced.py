"""A program under a monitoring agent: `python traced.py AGENT PACKAGE DSN`.

It prints a list, as JSON, of the statements for which the agent has made a span. Nothing is sent
anywhere.
"""

import asyncio
import json
import os
import sys
from importlib import import_module

# --- the agents, each of them a function run(main) that gives the spans' statements ---------------


def plain(run):
    """A proxy around the connection that does nothing."""
    import psycopg2
    import wrapt

    connect = psycopg2.connect
    psycopg2.connect = lambda *args, **kwargs: wrapt.ObjectProxy(connect(*args, **kwargs))
    run()
    return []


def twice(run):
    """A proxy around a proxy, and both trace the cursors."""
    import psycopg2
    import wrapt

    spans = []

    class Cursor(wrapt.ObjectProxy):
        def execute(self, query, *args, **kwargs):
            spans.append(query)
            return self.__wrapped__.execute(query, *args, **kwargs)

    class Connection(wrapt.ObjectProxy):
        def cursor(self, *args, **kwargs):
            return Cursor(self.__wrapped__.cursor(*args, **kwargs))

    connect = psycopg2.connect
    psycopg2.connect = lambda *args, **kwargs: Connection(Connection(connect(*args, **kwargs)))
    run()
    return spans


def ddtrace(run):
    os.environ.update(
        DD_INSTRUMENTATION_TELEMETRY_ENABLED="false",
        DD_REMOTE_CONFIGURATION_ENABLED="false",
        DD_CRASHTRACKING_ENABLED="false",
    )
    from ddtrace import patch
    from ddtrace.trace import TraceFilter, tracer

    spans = []

    class Keep(TraceFilter):
        def process_trace(self, trace):
            spans.extend(span.resource for span in trace)
            return None  # nothing is left to be sent

    tracer.configure(trace_processors=[Keep()])
    patch(psycopg=True)
    run()
    return spans


def elasticapm(run):
    import elasticapm

    client = elasticapm.Client(
        service_name="traced",
        transport_class="elastic_transport.Kept",
        central_config=False,
        cloud_provider=False,
        metrics_interval="0s",
        span_compression_enabled=False,
    )
    elasticapm.instrument()
    client.begin_transaction("test")
    run()
    client.end_transaction("test", "success")
    from elastic_transport import spans

    client.close()
    return [span["context"]["db"]["statement"] for span in spans if span["action"] == "query"]


def newrelic(run):
    os.environ.update(
        NEW_RELIC_DEVELOPER_MODE="true",  # which has no network
        NEW_RELIC_LICENSE_KEY="0" * 40,
        NEW_RELIC_APP_NAME="traced",
        NEW_RELIC_STARTUP_TIMEOUT="10",
        NEW_RELIC_LOG_LEVEL="error",
    )
    import newrelic.agent
    from newrelic.core.database_node import DatabaseNode
    from newrelic.core.stats_engine import StatsEngine

    newrelic.agent.initialize()
    application = newrelic.agent.register_application()
    spans = []
    record = StatsEngine.record_transaction

    def keep(engine, transaction):
        nodes = [transaction.root]
        while nodes:
            node = nodes.pop(0)
            nodes.extend(node.children)
            if isinstance(node, DatabaseNode):
                spans.append(node.sql)
        return record(engine, transaction)

    StatsEngine.record_transaction = keep

    def body():
        with newrelic.agent.BackgroundTask(application, "test"):
            run()

    body()
    return spans


def opentelemetry(run):
    """Wraps what `import aiopg` gives, as a program does that has changed its import."""
    sys.modules["aiopg"] = import_module(sys.argv[2])
    from opentelemetry.instrumentation.aiopg import AiopgInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    AiopgInstrumentor().instrument(tracer_provider=provider, skip_dep_check=True)
    run()
    return [span.attributes["db.statement"] for span in exporter.get_finished_spans()]


# --- what they look at ----------------------------------------------------------------------------


async def main(package, dsn):
    from psycopg2.extras import DictCursor

    async with package.connect(dsn) as conn:
        async with conn.cursor() as cursor:
            await cursor.execute("SELECT 'of a cursor'")
            assert await cursor.fetchall() == [("of a cursor",)]
            await cursor.execute("SELECT %s::int AS parameter", (2,))
            assert [row async for row in cursor] == [(2,)]
        async with conn.cursor(cursor_factory=DictCursor) as cursor:
            await cursor.execute("SELECT 3 AS n")
            assert (await cursor.fetchone())["n"] == 3
            async with cursor.begin():
                await cursor.execute("SELECT 'in a transaction'")
        assert [row async for row in await execute(package, conn, "SELECT 'executed'")] == [
            ("executed",)
        ]
    async with package.create_pool(dsn, minsize=1) as pool:
        async with pool.acquire() as conn, dict_cursor(package, conn) as cursor:
            await cursor.execute("SELECT 'of a DictCursor' AS text")
            assert [row["text"] async for row in cursor] == ["of a DictCursor"]
        async with pool.acquire() as conn, conn.cursor() as cursor:
            await cursor.execute("SELECT 'of a pool'")
            assert await cursor.fetchone() == ("of a pool",)
        with await pool.cursor() as cursor:
            await cursor.execute("SELECT 'of the pool''s cursor'")
            assert await cursor.fetchone() == ("of the pool's cursor",)


def dict_cursor(package, conn):
    """As in the README's first example; aiopg takes the class by name only."""
    from psycopg2.extras import DictCursor

    if package.__name__ == "aiopgx":
        return conn.cursor(DictCursor)
    return conn.cursor(cursor_factory=DictCursor)


async def execute(package, conn, sql):
    """What aiopg has no method for."""
    if package.__name__ == "aiopgx":
        return await conn.execute(sql)
    cursor = await conn.cursor()
    await cursor.execute(sql)
    return cursor


def run(package, dsn):
    asyncio.run(asyncio.wait_for(main(import_module(package), dsn), 20))


AGENTS = {
    agent.__name__: agent for agent in (plain, twice, ddtrace, elasticapm, newrelic, opentelemetry)
}

if __name__ == "__main__":
    agent, package, dsn = sys.argv[1:]
    print(json.dumps(AGENTS[agent](lambda: run(package, dsn))))
