"""How a connection comes to be open: the server, or the first of several, and its own types."""

import asyncio
import uuid
from typing import TYPE_CHECKING, Any

import psycopg2.extensions
import psycopg2.extras

from .hosts import connect_timeout, connect_to_first, expired

if TYPE_CHECKING:
    from .connection import Connection

# The adapters that psycopg2's register_hstore() and register_uuid() set.
_SET_BY_PSYCOPG2 = [(cls, psycopg2.extensions.ISQLQuote) for cls in (dict, uuid.UUID)]


async def reach(conn: "Connection[Any]") -> None:
    """Connect to the server, or to the first of several that lets us in."""
    end = None if conn._timeout is None else conn._loop.time() + conn._timeout

    async def attempt(server: dict[str, str]) -> None:
        conn._open(**server)
        error = await _attempt(conn, end)
        try:
            if error is not None:
                conn._wire.close()
                raise error
        finally:
            del error  # an exception must not hold itself, by way of this frame

    if conn._plan is not None:
        await connect_to_first(conn._plan, conn._loop, end, attempt)
        return
    error = await _attempt(conn, end)
    try:
        if error is not None:
            raise error
    finally:
        del error  # as above


async def _attempt(conn: "Connection[Any]", end: float | None) -> BaseException | None:
    """Connect to one server; return the error. end: of all attempts, in the loop's time."""
    raw = conn._wire.raw
    limit = connect_timeout(raw)
    left = None if end is None else max(end - conn._loop.time(), 0.0)
    own = limit is not None and (left is None or limit < left)
    error = (await conn._wire.connect(limit if own else left)).pop()
    if own and isinstance(error, asyncio.TimeoutError):
        error = expired(raw)
    return error


async def register_types(conn: "Connection[Any]") -> None:
    """Give psycopg2 the casters and adapters of json, uuid and hstore that were asked for."""
    hstore = await _hstore_oids(conn) if conn._enable_hstore else None
    raw = conn._wire.raw  # psycopg2's registries take no proxies
    adapters = psycopg2.extensions.adapters
    # psycopg2 sets adapters for the whole process: what the program has chosen stays
    chosen = {key: adapters[key] for key in _SET_BY_PSYCOPG2 if key in adapters}
    if conn._enable_json:
        psycopg2.extras.register_default_json(raw)
    if conn._enable_uuid:
        psycopg2.extras.register_uuid(conn_or_curs=raw)  # type: ignore[no-untyped-call, unused-ignore]
    if hstore is not None:
        oids, array_oids = hstore
        psycopg2.extras.register_hstore(raw, oid=oids, array_oid=array_oids)
    adapters.update(chosen)


async def _hstore_oids(conn: "Connection[Any]") -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The OIDs of hstore and of its array, in each schema that has the extension."""
    cursor = conn._plain_cursor(conn._timeout)
    try:
        await cursor.execute(
            "SELECT oid, typarray FROM pg_type WHERE typname = 'hstore'", prepare=False
        )
        rows = await cursor.fetchall()
    finally:
        cursor.close()
    if not all(len(row) == 2 for row in rows):  # the OIDs are what the program's casters make
        raise psycopg2.DatabaseError("the server's answer about hstore can't be understood")
    return tuple(row[0] for row in rows), tuple(row[1] for row in rows)
