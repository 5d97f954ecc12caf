"""What a connection has because psycopg2's have it."""

from typing import Any

import psycopg2
from psycopg2.extensions import (
    ISOLATION_LEVEL_AUTOCOMMIT,
    STATUS_BEGIN,
    STATUS_PREPARED,
    Xid,
)

from . import two_phase
from ._core import Wire


class Connection:
    """psycopg2's attributes and methods, for `aiopgx.Connection`, whose base this is.

    It has the same name, since what Python tells of a coroutine is told by its class.
    """

    _conn: Any  # what psycopg2.connect() gave
    _wire: Wire = None  # type: ignore[assignment]  # until psycopg2 is asked to connect
    _dsn: str
    _xid: Xid | None = None  # of the two-phase transaction that is open

    @property
    def raw(self) -> Any:
        """What `psycopg2.connect()` gave: the psycopg2 connection, or a tracer's proxy of it."""
        return self._conn

    @property
    def dsn(self) -> str:
        """The connection string, without the password."""
        return self._dsn

    def isexecuting(self) -> bool:
        """Whether a statement is being executed."""
        if self._wire is None:
            return True  # about to connect to the first of several servers
        return self._wire.executing

    @property
    def notices(self) -> list[str]:
        """The last messages of the server below an error, 50 at most."""
        notices: list[str] = self._conn.notices
        return notices

    @property
    def cursor_factory(self) -> Any:
        """The default class of psycopg2 cursor."""
        return self._conn.cursor_factory

    @property
    def encoding(self) -> str:
        """The client encoding, by PostgreSQL's name."""
        encoding: str = self._conn.encoding
        return encoding

    async def set_client_encoding(self, val: str) -> None:
        """Refused by psycopg2 on asynchronous connections."""
        self._conn.set_client_encoding(val)

    @property
    def autocommit(self) -> bool:
        """Always True."""
        autocommit: bool = self._conn.autocommit
        return autocommit

    @autocommit.setter
    def autocommit(self, val: bool) -> None:
        self._conn.autocommit = val

    @property
    def isolation_level(self) -> int:
        """psycopg2's constant for autocommit."""
        level: int = self._conn.isolation_level
        return level

    async def set_isolation_level(self, val: int) -> None:
        """Accept 0 (autocommit), which is what is already so; the rest is refused."""
        if val != ISOLATION_LEVEL_AUTOCOMMIT:
            self._conn.set_isolation_level(val)

    @property
    def protocol_version(self) -> int:
        version: int = self._conn.protocol_version
        return version

    @property
    def server_version(self) -> int:
        """The server's version, 150004 for 15.4."""
        version: int = self._conn.server_version
        return version

    @property
    def status(self) -> int:
        """psycopg2's status of the connection; STATUS_BEGIN only in a two-phase transaction."""
        if self._xid is not None:
            return int(STATUS_PREPARED if self._wire.prepared else STATUS_BEGIN)
        status: int = self._conn.status
        return status

    async def get_backend_pid(self) -> int:
        """Return the process ID of the server process."""
        pid: int = self._conn.get_backend_pid()
        return pid

    async def get_parameter_status(self, parameter: str) -> str | None:
        """Return a setting that the server reports, None for any other."""
        value: str | None = self._conn.get_parameter_status(parameter)
        return value

    async def get_transaction_status(self) -> int:
        """Return one of psycopg2.extensions.TRANSACTION_STATUS_*."""
        return self._wire.status

    async def xid(self, format_id: int, gtrid: str, bqual: str) -> Any:
        """Return a transaction ID for two-phase commit."""
        return self._conn.xid(format_id, gtrid, bqual)

    # Two-phase commit; new in aiopgx, as psycopg2's synchronous connections have it

    async def tpc_begin(self: Any, xid: Any) -> None:
        """Open a two-phase transaction. xid: what xid() returned, or a str."""
        await two_phase.begin(self, xid)

    async def tpc_prepare(self: Any) -> None:
        """Prepare the transaction: the server keeps it, also if the connection is lost.

        Until tpc_commit() or tpc_rollback() nothing can be executed. Raises
        `psycopg2.errors.InFailedSqlTransaction` if an error had aborted the transaction, which is
        then over; psycopg2 says nothing.
        """
        await two_phase.prepare(self)

    async def tpc_commit(self: Any, xid: Any = None) -> None:
        """Commit the transaction, prepared or not; with an xid, one that was prepared anywhere."""
        await two_phase.finish(self, "COMMIT", xid)

    async def tpc_rollback(self: Any, xid: Any = None) -> None:
        """Roll the transaction back, prepared or not; with an xid, as tpc_commit()."""
        await two_phase.finish(self, "ROLLBACK", xid)

    async def tpc_recover(self: Any) -> list[Any]:
        """Return the IDs of the prepared transactions of the server, of all databases."""
        return await two_phase.recover(self)

    # What connections in autocommit refuse: a silent no-op would lose data

    async def commit(self) -> None:
        raise _refused("commit")

    async def rollback(self) -> None:
        raise _refused("rollback")

    async def set_session(self, *args: Any, **kwargs: Any) -> None:
        raise _refused("set_session")

    async def lobject(self, *args: Any, **kwargs: Any) -> None:
        raise _refused("lobject")


def _refused(name: str) -> psycopg2.ProgrammingError:
    return psycopg2.ProgrammingError(f"{name} cannot be used in asynchronous mode")
