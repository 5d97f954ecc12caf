"""The recipes of docs/observability.md, with the real packages."""

import asyncio
import re
import runpy
from pathlib import Path

import psycopg2
import pytest

ROOT = Path(__file__).parents[1]


def recipe(name):
    return runpy.run_path(str(ROOT / "docs" / "code" / f"{name}.py"))


# --- OpenTelemetry --------------------------------------------------------------------------------


class Telemetry:
    """A tracer of the recipe, and what it has exported."""

    def __init__(self, **kwargs):
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        self.exporter = InMemorySpanExporter()
        self.reader = InMemoryMetricReader()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.own = provider.get_tracer("test")
        self.tracer = recipe("otel_tracer")["OTelTracer"](
            "mine",
            provider,
            MeterProvider([self.reader], shutdown_on_exit=False),
            **kwargs,
        )

    def spans(self):
        return self.exporter.get_finished_spans()

    def metrics(self):
        """By name, the data points."""
        (resource,) = self.reader.get_metrics_data().resource_metrics
        (scope,) = resource.scope_metrics
        return {each.name: each.data.data_points for each in scope.metrics}


needs_opentelemetry = pytest.mark.needs("opentelemetry.sdk")


@needs_opentelemetry
async def test_spans_of_the_first_example_of_the_readme(ours, dsn, capsys):
    telemetry = Telemetry()
    (code, *_) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    code, found = re.subn(r'create_pool\("[^"]*"', "create_pool(dsn, tracer=tracer", code)
    assert found == 1
    namespace = {"dsn": dsn, "tracer": telemetry.tracer}
    exec(code.replace("asyncio.run(main())", ""), namespace)
    await namespace["main"]()
    rows = len(capsys.readouterr().out.splitlines())
    (span,) = telemetry.spans()
    options = psycopg2.extensions.parse_dsn(dsn)
    assert span.name == "SELECT pg_type" and span.kind.name == "CLIENT"
    assert dict(span.attributes) == {
        "db.system.name": "postgresql",
        "db.namespace": options["dbname"],
        "db.query.summary": "SELECT pg_type",
        "db.query.text": "SELECT typname, typlen FROM pg_type WHERE typlen = %s",
        "db.operation.name": "SELECT",
        "db.response.returned_rows": rows,
        "server.address": options["host"],
        "server.port": int(options["port"]),
    }
    assert span.status.is_unset and rows > 0


@needs_opentelemetry
async def test_spans(ours, pool):
    telemetry = Telemetry()
    made = await pool(minsize=1, maxsize=1, tracer=telemetry.tracer)
    with telemetry.own.start_as_current_span("mine") as parent:
        async with made.acquire() as conn, conn.cursor() as cur:
            await cur.execute("CREATE TEMP TABLE t (n int)")
            await cur.executemany("INSERT INTO t VALUES (%s)", [(1,), (2,)])
            with pytest.raises(psycopg2.errors.DivisionByZero):
                await cur.execute("SELECT 1/0")
            with pytest.raises(asyncio.TimeoutError):
                await cur.execute("SELECT pg_sleep(9)", timeout=0.01)
    created, inserted, failed, late, mine = telemetry.spans()
    assert {span.parent.span_id for span in (created, inserted, failed, late)} == {
        parent.context.span_id
    }
    assert mine.name == "mine"
    assert created.attributes["db.operation.name"] == "CREATE TABLE"
    assert inserted.name == "INSERT t"
    assert inserted.attributes["db.operation.batch.size"] == 2
    assert not failed.status.is_ok and not failed.status.is_unset and not failed.events
    assert failed.attributes["db.response.status_code"] == "22012"
    assert failed.attributes["error.type"] == "22012"
    assert late.attributes["error.type"].endswith("TimeoutError")
    assert "db.response.status_code" not in late.attributes


@needs_opentelemetry
async def test_metrics(ours, pool):
    telemetry = Telemetry(query_text=False)
    made = await pool(minsize=2, maxsize=2, tracer=telemetry.tracer)
    async with made.acquire() as conn:
        await conn.execute("SELECT 1")
        async with made.acquire():
            with pytest.raises(asyncio.TimeoutError):
                await made.acquire(timeout=0.05)
        metrics = telemetry.metrics()
    assert set(metrics) == {
        "db.client.operation.duration",
        *(
            f"db.client.connection.{name}"
            for name in (
                "count", "create_time", "pending_requests", "timeouts", "use_time", "wait_time",
            )
        ),
    }  # fmt: skip
    (duration,) = metrics["db.client.operation.duration"]
    assert duration.count == 1
    assert duration.attributes["db.operation.name"] == "SELECT"
    assert "db.query.text" not in duration.attributes
    assert {
        point.attributes["db.client.connection.state"]: point.value
        for point in metrics["db.client.connection.count"]
    } == {"idle": 1, "used": 1}
    assert [point.value for point in metrics["db.client.connection.pending_requests"]] == [0]
    assert [point.value for point in metrics["db.client.connection.timeouts"]] == [1]
    counts = {
        name: [point.count for point in metrics[f"db.client.connection.{name}_time"]]
        for name in ("create", "wait", "use")
    }
    assert counts == {"create": [2], "wait": [2], "use": [1]}
    assert "db.query.text" not in telemetry.spans()[0].attributes


# --- Prometheus -----------------------------------------------------------------------------------


@pytest.mark.needs("prometheus_client")
async def test_prometheus(ours, pool):
    from prometheus_client import CollectorRegistry, generate_latest

    module = recipe("prometheus_tracer")
    registry = CollectorRegistry()
    metrics = module["Metrics"](registry)
    tracer = module["PrometheusTracer"]("mine", metrics)
    made = await pool(minsize=2, maxsize=2, tracer=tracer)
    module["PrometheusTracer"]("another", metrics)

    def value(name, **labels):
        return registry.get_sample_value(name, {"pool": "mine", **labels})

    async with made.acquire() as conn, conn.cursor() as cur:
        await cur.execute("SELECT generate_series(1, 3)")
        with pytest.raises(psycopg2.errors.DivisionByZero):
            await cur.execute("SELECT 1/0")
        async with made.acquire():
            with pytest.raises(asyncio.TimeoutError):
                await made.acquire(timeout=0.05)
        assert value("db_pool_connections", state="idle") == 1
        assert value("db_pool_connections", state="used") == 1
    assert value("db_query_seconds_count", command="SELECT", error="") == 1
    assert value("db_query_seconds_count", command="", error="22012") == 1
    assert value("db_rows_total", command="SELECT") == 3
    assert value("db_connect_seconds_count", error="") == 2
    assert value("db_pool_wait_seconds_count", error="") == 2
    assert value("db_pool_wait_seconds_count", error="TimeoutError") == 1
    assert value("db_pool_use_seconds_count", error="") == 2
    assert value("db_pool_waiting") == 0
    assert b'db_pool_connections{pool="another",state="idle"} 0.0' in generate_latest(registry)
