"""The SQLAlchemy dialect `postgresql+aiopgx`.

    engine = create_async_engine("postgresql+aiopgx://user@host/db")

It is SQLAlchemy's psycopg2 dialect on an asyncio driver: types, options and errors are the same.
New in aiopgx.
"""

from typing import Any

import psycopg2
from sqlalchemy import URL, util
from sqlalchemy.dialects.postgresql import ranges
from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlalchemy.util.concurrency import await_only

import aiopgx
from aiopgx.tracing import STATEMENTS

from . import values
from .connection import AsyncAdapt_aiopgx_connection, Traced_aiopgx_connection

__all__ = ("PGDialect_aiopgx",)


def _number(value: Any) -> int | None:
    """An int, or "none" for None."""
    return None if str(value).lower() == "none" else int(value)


def _echo(value: Any) -> Any:
    """A bool, or "statements"."""
    return value if value == STATEMENTS else util.asbool(value)


# Options of aiopgx.connect() that a URL can have, besides libpq's.
OPTIONS: dict[str, Any] = {
    "timeout": float,
    "echo": _echo,
    "slow_query": float,
    "enable_json": bool,
    "enable_uuid": bool,
    "enable_hstore": bool,
    "prepare_threshold": _number,
    "prepared_max": _number,
}


class AsyncAdapt_aiopgx_dbapi:
    """psycopg2 as SQLAlchemy sees it, but for connect()."""

    def __init__(self) -> None:
        self.driver = aiopgx
        self.exceptions_module = psycopg2

    def __getattr__(self, name: str) -> Any:
        return getattr(psycopg2, name)

    def connect(self, *args: Any, **kwargs: Any) -> AsyncAdapt_aiopgx_connection:
        creator = kwargs.pop("async_creator_fn", _connect)
        connecting = creator(*args, **kwargs)
        del args, kwargs  # as below
        connection = await_only(connecting)
        if connection._tracing is not None:
            return Traced_aiopgx_connection(self, connection)
        return AsyncAdapt_aiopgx_connection(self, connection)


async def _connect(*args: Any, **kwargs: Any) -> aiopgx.Connection:
    """An aiopgx.Connection as psycopg2 would have made it.

    Statements have no time limit unless `timeout` gives one.
    """
    if kwargs.get("row_factory") is not None:
        raise TypeError("row_factory: the rows of SQLAlchemy's results are its own")
    options = {"timeout": None, "enable_json": False, "enable_uuid": False, "enable_hstore": False}
    try:
        connecting = aiopgx.connect(*args, **{**options, **kwargs})
    finally:
        del args, kwargs  # the traceback of an error holds this frame, maybe with a password in it
    return await connecting


class PGDialect_aiopgx(PGDialect_psycopg2):
    driver = "aiopgx"
    is_async = True
    supports_statement_cache = True
    has_terminate = True
    poolclass = AsyncAdaptedQueuePool

    colspecs: Any = util.update_copy(
        PGDialect_psycopg2.colspecs, {ranges.AbstractMultiRange: values.MultiRange}
    )

    def __init__(
        self,
        client_encoding: str | None = None,
        native_inet_types: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)  # type: ignore[no-untyped-call]
        values.register_adapters()
        self._native_inet_types = native_inet_types  # which psycopg2's dialect refuses
        # psycopg2's dialect would set it on the connection, where asynchronous ones refuse it
        self._encoding = client_encoding

    @classmethod
    def import_dbapi(cls) -> AsyncAdapt_aiopgx_dbapi:
        return AsyncAdapt_aiopgx_dbapi()

    @classmethod
    def load_provisioning(cls) -> None:
        # the fixtures of SQLAlchemy's tests, for all of PostgreSQL's dialects
        PGDialect_psycopg2.load_provisioning()  # type: ignore[no-untyped-call]

    def create_connect_args(self, url: URL) -> Any:
        args, options = super().create_connect_args(url)  # type: ignore[no-untyped-call]
        if self._encoding is not None:
            options["client_encoding"] = self._encoding
        for name, kind in OPTIONS.items():
            try:
                util.coerce_kw_type(options, name, kind)
            except ValueError as error:
                raise ArgumentError(f"{name} in the URL: {error}") from None
        return args, options

    def on_connect(self) -> Any:
        register = super().on_connect()  # type: ignore[no-untyped-call]

        def on_connect(connection: AsyncAdapt_aiopgx_connection) -> None:
            # psycopg2's registries take its own connections only, which can't look up OIDs
            if self.use_native_hstore:
                self._hstore_oids(connection)
            raw = connection.driver_connection._wire.raw
            register(raw)
            values.register_multiranges(raw)
            if self._native_inet_types:
                values.register_inet(raw)

        return on_connect

    def _hstore_oids(self, connection: Any) -> Any:
        return super()._hstore_oids(connection.cursor())  # type: ignore[no-untyped-call]

    def do_terminate(self, dbapi_connection: Any) -> None:
        dbapi_connection.terminate()

    def get_driver_connection(self, connection: Any) -> Any:
        return connection.driver_connection
