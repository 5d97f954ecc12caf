"""Two-phase commit: psycopg2's tpc_*() methods, on a connection in autocommit.

States, order of the checks, errors and their texts are psycopg2's. One thing differs: a transaction
that is aborted can't be prepared, and the server then rolls it back and calls that no error.
"""

from typing import TYPE_CHECKING, Any

import psycopg2
from psycopg2.extensions import TRANSACTION_STATUS_IDLE, QuotedString, Xid

from ._structs import fill_xid

if TYPE_CHECKING:
    from .connection import Connection


def _checked(xid: Any) -> Xid:
    if isinstance(xid, Xid):
        return xid
    if isinstance(xid, str):
        return Xid.from_string(xid)  # type: ignore[no-untyped-call, no-any-return, arg-type, unused-ignore]
    raise TypeError("not a valid transaction id")


def _check_open(conn: "Connection") -> None:
    if conn.closed:
        raise conn._wire.closed_error("connection already closed")


def _refused_when_prepared(name: str) -> psycopg2.ProgrammingError:
    return psycopg2.ProgrammingError(f"{name} cannot be used with a prepared two-phase transaction")


def _statement(conn: "Connection", verb: str, xid: Xid) -> bytes:
    literal = QuotedString(str(xid))
    literal.prepare(conn._wire.raw)
    quoted: bytes = literal.getquoted()
    return verb.encode() + b" " + quoted


async def begin(conn: "Connection", xid: Any) -> None:
    """See `Connection.tpc_begin()`; so for the others."""
    _check_open(conn)
    xid = _checked(xid)
    if conn._xid is not None or conn._wire.status != TRANSACTION_STATUS_IDLE:
        raise psycopg2.ProgrammingError("tpc_begin cannot be used inside a transaction")
    await conn._command("BEGIN")
    conn._xid = xid


async def prepare(conn: "Connection") -> None:
    _check_open(conn)
    wire = conn._wire
    if conn._xid is None:
        raise psycopg2.ProgrammingError("prepare must be called inside a two-phase transaction")
    if wire.prepared:
        raise _refused_when_prepared("tpc_prepare")
    conn._refuse_in_pipeline("tpc_prepare")
    async with conn._plain_cursor(conn._timeout) as cursor:
        await cursor.execute(_statement(conn, "PREPARE TRANSACTION", conn._xid), prepare=False)
        done = cursor.statusmessage
    if done != "PREPARE TRANSACTION":
        conn._xid = None
        raise psycopg2.errors.InFailedSqlTransaction(
            f"the transaction could not be prepared, since it was aborted; the server did {done}"
        )
    wire.prepared = True
    conn._note_left()


async def finish(conn: "Connection", verb: str, xid: Any) -> None:
    """verb: COMMIT or ROLLBACK."""
    _check_open(conn)
    wire = conn._wire
    if xid is not None:
        xid = _checked(xid)
        if conn._xid is not None or wire.status != TRANSACTION_STATUS_IDLE:
            raise psycopg2.ProgrammingError(
                "tpc_commit/tpc_rollback with a xid must be called outside a transaction"
            )
        await conn._command(_statement(conn, f"{verb} PREPARED", xid))
        return
    if conn._xid is None:
        raise psycopg2.ProgrammingError(
            "tpc_commit/tpc_rollback with no parameter must be called in a two-phase transaction"
        )
    if not wire.prepared:
        try:
            await conn._command(verb)
        except psycopg2.Error as error:
            if error.pgcode is not None:  # which has ended the transaction
                conn._xid = None
            raise
    else:
        wire.prepared = False  # else it would refuse this, too
        try:
            await conn._command(_statement(conn, f"{verb} PREPARED", conn._xid))
        except BaseException:
            wire.prepared = True
            raise
    conn._xid = None
    conn._note_left()


async def recover(conn: "Connection") -> list[Xid]:
    _check_open(conn)
    if conn._wire.prepared:
        raise _refused_when_prepared("tpc_recover")
    async with conn._plain_cursor(conn._timeout) as cursor:
        await cursor.execute(
            "SELECT gid, prepared, owner, database FROM pg_prepared_xacts", prepare=False
        )
        rows = await cursor.fetchall()
    if any(len(row) != 4 for row in rows):
        raise psycopg2.DatabaseError("the server's answer about transactions can't be understood")
    return [fill_xid(Xid.from_string(gid), *described) for gid, *described in rows]  # type: ignore[no-untyped-call, unused-ignore]
