"""Connections that are used after their release to a pool.

With `guard=True` the pool takes the session out of the object that was released, into a new one:
the old object, and its cursors, refuse. In debug mode of the event loop, without that, a connection
is the same object for its next user, and using it is told only while it is free.
"""

from __future__ import annotations

import warnings
import weakref
from typing import Any

import psycopg2
from psycopg2.extensions import TRANSACTION_STATUS_UNKNOWN

from .connection import Connection
from .cursor import Cursor

_TEXT = "used after its release to the pool"


class _Released:
    """Stands in an object that was released for its Wire, and for what else it had."""

    closed = 1
    forked = True  # nothing is to be closed with the object
    native = busy = executing = False
    leaving = ending = shared = None
    status = TRANSACTION_STATUS_UNKNOWN
    reason = psycopg2.InterfaceError(f"connection {_TEXT}")

    def refusal(self, caller: str, session: object = None) -> psycopg2.Error:
        return psycopg2.InterfaceError(f"{caller}() of a connection that is {_TEXT}")

    def closed_error(self, text: str) -> psycopg2.Error:
        return psycopg2.InterfaceError(f"connection {_TEXT}")

    def close(self) -> None:
        """Nothing: the session is the pool's."""

    def __getattr__(self, name: str) -> Any:
        raise psycopg2.InterfaceError(f"connection {_TEXT}")


_released: Any = _Released()


class GuardedConnection(Connection):
    """A connection that can be taken away from its object and its cursors."""

    _cursors: weakref.WeakSet[Cursor]

    async def _cursor(self, *args: Any, **kwargs: Any) -> Cursor:
        cursor = await super()._cursor(*args, **kwargs)
        self._cursors.add(cursor)
        return cursor


def guarded(conn: Any) -> Any:
    """Prepare a new connection for renewed(). Connections of other classes are left alone."""
    cls: Any = type(conn)
    if cls is Connection:
        conn.__class__ = GuardedConnection
        conn._cursors = weakref.WeakSet()
    return conn


def renewed(conn: Any) -> Any:
    """Move a session into a new object, which is returned; the old one, and its cursors, refuse."""
    if type(conn) is not GuardedConnection:
        return conn
    new = object.__new__(GuardedConnection)
    new.__dict__.update(conn.__dict__)
    new._cursors = weakref.WeakSet()
    new._inbox._conn = weakref.ref(new)
    for cursor in conn._cursors:
        cursor._wire = _released
    conn._wire = conn._conn = conn._notifies = _released
    conn._portals = None
    return new


class RestingConnection(Connection):
    """A connection that is free, in debug mode."""


def _telling(name: str) -> Any:
    method = getattr(Connection, name)

    def tell(self: Connection, *args: Any, **kwargs: Any) -> Any:
        wake(self)  # it is told once
        warnings.warn(f"connection {_TEXT}: {name}()", RuntimeWarning, stacklevel=2)
        return method(self, *args, **kwargs)

    return tell


for _name in ("cursor", "execute", "pipeline", "copy_records_to_table"):
    setattr(RestingConnection, _name, _telling(_name))


def rest(conn: Any) -> None:
    if type(conn) is Connection:
        conn.__class__ = RestingConnection


def wake(conn: Any) -> None:
    cls: Any = type(conn)
    if cls is RestingConnection:
        conn.__class__ = Connection
