"""Prometheus metrics of statements and of a pool.

metrics = Metrics()
tracer = PrometheusTracer("orders", metrics)
pool = await aiopgx.create_pool(dsn, tracer=tracer)
"""

import weakref

from prometheus_client import REGISTRY, Counter, Gauge, Histogram

SECONDS = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10]


class Metrics:
    """One set for all pools of a program: `pool` is a label."""

    def __init__(self, registry=REGISTRY):
        def histogram(name, text, *labels):
            return Histogram(name, text, ["pool", *labels], registry=registry, buckets=SECONDS)

        self.queries = histogram("db_query_seconds", "Time of statements", "command", "error")
        self.rows = Counter(
            "db_rows", "Rows given or changed", ["pool", "command"], registry=registry
        )
        self.times = {
            "connect": histogram("db_connect_seconds", "Time to connect", "error"),
            "acquire": histogram("db_pool_wait_seconds", "Wait for a connection", "error"),
            "use": histogram("db_pool_use_seconds", "Time until it is given back", "error"),
        }
        self.waiting = Gauge("db_pool_waiting", "Acquires that wait", ["pool"], registry=registry)
        self.connections = Gauge(
            "db_pool_connections", "Connections of the pool", ["pool", "state"], registry=registry
        )


class PrometheusTracer:
    """A tracer for `aiopgx.create_pool()` and `aiopgx.sa.create_engine()`.

    metrics: the `Metrics`, which several of them share.
    """

    def __init__(self, pool_name, metrics):
        self.name = pool_name
        self.metrics = metrics
        self.pool = lambda: None
        states = {"idle": self.idle, "used": self.used}
        for state, function in states.items():
            metrics.connections.labels(pool_name, state).set_function(function)

    def __call__(self, operation):
        metrics, name, kind = self.metrics, self.name, operation.kind
        if kind == "acquire":
            self.pool = weakref.ref(operation.pool)
            metrics.waiting.labels(name).inc()

        def ended(error):
            reason = ""
            if error is not None:
                reason = getattr(error, "pgcode", None) or type(error).__name__
            if kind == "acquire":
                metrics.waiting.labels(name).dec()
            if kind != "query":
                metrics.times[kind].labels(name, reason).observe(operation.duration)
                return
            # the server's tag without numbers: "INSERT", "CREATE TABLE"; not the text of the
            # statement: each value of a label is a series of its own
            command = (operation.status or "").rstrip(" 0123456789")
            metrics.queries.labels(name, command, reason).observe(operation.duration)
            metrics.rows.labels(name, command).inc(operation.rows or 0)

        return ended

    # Called when the metrics are collected

    def idle(self):
        pool = self.pool()
        return 0 if pool is None else pool.freesize

    def used(self):
        pool = self.pool()
        return 0 if pool is None else pool.size - pool.freesize
