"""OpenTelemetry's spans and metrics, by its semantic conventions for databases.

tracer = OTelTracer("orders")
pool = await aiopgx.create_pool(dsn, tracer=tracer)
"""

import asyncio
import re
import weakref

from opentelemetry import metrics, trace
from opentelemetry.metrics import Observation
from opentelemetry.trace import SpanKind, StatusCode

# The boundaries, in seconds, that the conventions recommend.
SECONDS = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10]

VERB = re.compile(r"\s*(\w+)")
TARGET = re.compile(r'\b(?:FROM|INTO|UPDATE|TABLE|COPY)\s+(?:ONLY\s+)?([\w."]+)', re.IGNORECASE)


class OTelTracer:
    """A tracer for `aiopgx.connect()`, `aiopgx.create_pool()` and `aiopgx.sa.create_engine()`.

    pool_name: tells the pools of a program apart; give each a tracer of its own.
    query_text: whether spans have the statement. It has no parameters, unless the program has
        written them into it.
    """

    def __init__(
        self, pool_name="aiopgx", tracer_provider=None, meter_provider=None, query_text=True
    ):
        self.pool_name = pool_name
        self.query_text = query_text
        self.pools = weakref.WeakSet()
        self.tracer = trace.get_tracer("aiopgx", tracer_provider=tracer_provider)
        meter = metrics.get_meter("aiopgx", meter_provider=meter_provider)
        self.duration = self.histogram(meter, "operation.duration")
        self.times = {
            "connect": self.histogram(meter, "connection.create_time"),
            "acquire": self.histogram(meter, "connection.wait_time"),
            "use": self.histogram(meter, "connection.use_time"),
        }
        self.pending = meter.create_up_down_counter(
            "db.client.connection.pending_requests", "{request}"
        )
        self.timeouts = meter.create_counter("db.client.connection.timeouts", "{timeout}")
        meter.create_observable_up_down_counter(
            "db.client.connection.count", [self.connections], "{connection}"
        )

    def histogram(self, meter, name):
        return meter.create_histogram(
            f"db.client.{name}", "s", explicit_bucket_boundaries_advisory=SECONDS
        )

    def __call__(self, operation):
        if operation.kind == "query":
            return self.query(operation)
        return self.connection(operation)

    # Statements

    def query(self, operation):
        attributes = {"db.system.name": "postgresql", "db.query.summary": summary(operation)}
        if operation.server is not None:
            attributes["db.namespace"] = operation.server.database
            attributes["server.address"] = operation.server.host
            attributes["server.port"] = operation.server.port
        details = {}
        if self.query_text:
            details["db.query.text"] = operation.statement or ""
        if operation.method == "executemany" and hasattr(operation.parameters, "__len__"):
            details["db.operation.batch.size"] = len(operation.parameters)
        span = self.tracer.start_span(
            attributes["db.query.summary"],
            kind=SpanKind.CLIENT,
            attributes={**attributes, **details},
        )

        def ended(error):
            outcome = outcome_of(operation, error)
            self.duration.record(operation.duration, {**attributes, **outcome})
            span.set_attributes(outcome)
            if operation.rows is not None and outcome.get("db.operation.name") in READS:
                span.set_attribute("db.response.returned_rows", operation.rows)
            if error is not None:
                span.set_status(StatusCode.ERROR)  # its text may have values in it
            span.end()

        return ended

    # Connections and pools

    def connection(self, operation):
        name = {"db.client.connection.pool.name": self.pool_name}
        if operation.kind == "acquire":
            self.pools.add(operation.pool)
            self.pending.add(1, name)

        def ended(error):
            if operation.kind == "acquire":
                self.pending.add(-1, name)
                if isinstance(error, asyncio.TimeoutError):
                    self.timeouts.add(1, name)
            if error is None:
                self.times[operation.kind].record(operation.duration, name)

        return ended

    def connections(self, options):
        """Called when the metrics are collected."""
        name = {"db.client.connection.pool.name": self.pool_name}
        idle = sum(pool.freesize for pool in self.pools)
        used = sum(pool.size for pool in self.pools) - idle
        yield Observation(idle, {**name, "db.client.connection.state": "idle"})
        yield Observation(used, {**name, "db.client.connection.state": "used"})


READS = ("SELECT", "FETCH")


def summary(operation):
    """What is done, and to which table: "SELECT orders"."""
    statement = operation.statement or ""
    verb = VERB.match(statement)
    if verb is None:
        return operation.method
    # the names of server-side cursors are often made up anew
    target = None if operation.method == "fetch" else TARGET.search(statement)
    words = [verb[1].upper()] if target is None else [verb[1].upper(), target[1]]
    return " ".join(words)[:255]


def outcome_of(operation, error):
    """The attributes that are known in the end."""
    outcome = {}
    if operation.status is not None:  # the server's tag: "INSERT 0 1", "CREATE TABLE"
        outcome["db.operation.name"] = operation.status.rstrip(" 0123456789")
    if error is not None:
        code = getattr(error, "pgcode", None)
        if code is not None:
            outcome["db.response.status_code"] = code
        outcome["error.type"] = code or f"{type(error).__module__}.{type(error).__qualname__}"
    return outcome
