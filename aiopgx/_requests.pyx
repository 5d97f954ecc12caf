"""What is asked of the server: the kinds of requests that a Wire serves.

A Statement goes out as text, and its outcome is a Result; `_prepared` makes it, and what is executed
by its name. execute_foreign() makes a Foreign, which lets psycopg2 execute. A Command is a text on
nobody's cursor, on the road that is open: BEGIN in front of a statement, COMMIT, the end of a portal.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memchr

import psycopg2
from psycopg2.extensions import (
    STATUS_BEGIN,
    STATUS_READY,
    TRANSACTION_STATUS_IDLE,
    TRANSACTION_STATUS_INERROR,
    TRANSACTION_STATUS_INTRANS,
    QuotedString,
)

from ._core cimport AGAIN, DROP, ENOUGH, GO, MORE, STALLED, WAIT, Request, Taken, Turn, Wire
from ._core cimport check_timeout
from ._eligibility cimport read_text
from ._errors cimport connection_error, make_error, result_error
from ._libpq cimport (
    CONNECTION_OK,
    PGRES_BAD_RESPONSE,
    PGRES_COMMAND_OK,
    PGRES_COPY_BOTH,
    PGRES_COPY_IN,
    PGRES_COPY_OUT,
    PGRES_EMPTY_QUERY,
    PGRES_FATAL_ERROR,
    PGRES_NONFATAL_ERROR,
    PGRES_TUPLES_OK,
    PGresult,
    pq,
)
from ._limits cimport TOO_LARGE, refuse_large, too_large
from ._plans cimport MAX_TEXT, Lesson, Plans, text_of
from ._rows cimport SHAPE_TUPLE, Result
from ._statements cimport merge
from ._structs cimport give_failure, is_closed

cdef extern from "_frames.h":
    pass

# Bytes of an identifier that every server keeps: NAMEDATALEN - 1.
cdef enum:
    MAX_IDENTIFIER = 63

cdef int READY = STATUS_READY
cdef int BEGUN = STATUS_BEGIN
cdef int IDLE = TRANSACTION_STATUS_IDLE
cdef int INERROR = TRANSACTION_STATUS_INERROR
cdef int INTRANS = TRANSACTION_STATUS_INTRANS


cdef class Sharer:
    """Is told what becomes of a statement, in the place of its waiter."""

    cdef int over(self, Wire wire, Statement request, object outcome) except -1:
        raise NotImplementedError

    cdef int expired(self, Wire wire, Statement request) except -1:
        raise NotImplementedError


cdef class Statement(Request):
    """A text in the simple protocol: one statement or several. The outcome is a Result.

    Of several results it keeps what psycopg2 keeps: the first error, else the last.
    """

    def __dealloc__(self):
        if self.result != NULL:
            pq.clear(self.result)

    cdef Turn turn(self, Wire wire) except? DROP:
        return DROP if self.sharer is not None and self.waiter.done() else GO

    cdef int send(self, Wire wire) except -1:
        if wire.raw.isexecuting():
            raise make_error(
                psycopg2.ProgrammingError,
                "execute cannot be used while an asynchronous query is underway", self.impl)
        if pq.status(wire.conn) != CONNECTION_OK or not self.sent_by(wire):
            raise wire.broken()
        return 0

    cdef bint sent_by(self, Wire wire) except -1:
        cdef const char *text = PyBytes_AS_STRING(<bytes>self.query)
        if not wire.piping:
            return pq.sendQuery(wire.conn, text)
        return pq.sendQueryParams(wire.conn, text, 0, NULL, NULL, NULL, NULL, 0) \
            and (self.joined or wire.sync())

    cdef Taken take(self, Wire wire, PGresult *res) except? MORE:
        cdef int status = pq.resultStatus(res)
        if status == PGRES_COPY_IN or status == PGRES_COPY_OUT:
            pq.clear(res)
            return self.refuse_copy(wire, status)
        if self.result != NULL and pq.resultStatus(self.result) == PGRES_FATAL_ERROR:
            pq.clear(res)
        else:
            pq.clear(self.result)
            self.result = res
        # libpq would give this one again and again
        return ENOUGH if status == PGRES_COPY_BOTH else MORE

    cdef Taken refuse_copy(self, Wire wire, int status) except? MORE:
        """End a COPY that execute() can't serve."""
        cdef char *data = NULL
        cdef int length
        if status == PGRES_COPY_IN:
            self.refused = "can't execute COPY FROM: use the copy_from() method instead"
            if pq.putCopyEnd(wire.conn, b"COPY FROM STDIN was given to execute()") != 1:
                wire.lost(connection_error(wire.conn))
                return STALLED
            wire.flush()
            return STALLED if wire.is_closed() else MORE
        self.refused = "can't execute COPY TO: use the copy_to() method instead"
        while True:
            length = pq.getCopyData(wire.conn, &data, 1)
            if length <= 0:
                return MORE if length != 0 else STALLED
            pq.freemem(data)

    cdef bint is_executed(self) except -1:
        """Whether the server may have executed it."""
        return self.begun

    cdef int answer(self, Wire wire, object outcome) except -1:
        cdef Sharer sharer = self.sharer
        if sharer is not None:
            self.sharer = None          # which nobody else may hold
            return sharer.over(wire, self, outcome)
        return Request.answer(self, wire, outcome)

    cdef int expire(self, Wire wire) except -1:
        cdef Sharer sharer = self.sharer        # held, since it may be over by that
        if sharer is not None:
            return sharer.expired(wire, self)
        return Request.expire(self, wire)

    cdef PGresult *kept(self) noexcept:
        """Give the result away."""
        res, self.result = self.result, NULL
        return res

    cdef object outcome(self, Wire wire):
        cdef PGresult *res
        cdef int status
        if wire.unseen is not None and self.result != NULL \
                and pq.resultStatus(self.result) != PGRES_EMPTY_QUERY:
            unseen = take_unseen(wire, self.query, has_failed(self.result))
            if unseen is not None:
                give_failure(self.impl, self.query)
                raise unseen
        res = self.kept()
        if self.blame is not None:
            pq.clear(res)
            give_failure(self.impl, self.query)
            raise self.blame
        if self.refused is not None:
            pq.clear(res)
            give_failure(self.impl, self.query)
            raise psycopg2.ProgrammingError(self.refused)
        if res == NULL:
            wire.close()                # who knows to what the next one belongs?
            raise psycopg2.DatabaseError("the server sent no result")
        status = pq.resultStatus(res)
        if status == PGRES_TUPLES_OK or status == PGRES_COMMAND_OK:
            if self.lesson is not None:
                learn(wire, self.lesson, res)
            return Result.make(res, wire.raw, wire.codec, self.impl, self.shape, self.query)
        if status == PGRES_FATAL_ERROR or status == PGRES_BAD_RESPONSE \
                or status == PGRES_NONFATAL_ERROR:
            error = result_error(wire.conn, res, wire.codec, self.impl)
            give_failure(self.impl, self.query)
            raise error
        pq.clear(res)
        give_failure(self.impl, self.query)
        if status == PGRES_EMPTY_QUERY:
            raise psycopg2.ProgrammingError("can't execute an empty query")
        raise psycopg2.NotSupportedError(
            f"got server response with unsupported status {pq.resStatus(status).decode()}")

    cdef object reason(self, Wire wire, object error):
        """What the server has said before it went, if it has."""
        cdef PGresult *res = self.kept()
        if res == NULL:
            return error
        if pq.resultStatus(res) != PGRES_FATAL_ERROR:
            pq.clear(res)
            return error
        give_failure(self.impl, self.query)
        said = result_error(wire.conn, res, wire.codec, self.impl)
        return error if said.pgcode is None else said


cdef bint has_failed(PGresult *res) noexcept:
    return res != NULL and pq.resultStatus(res) == PGRES_FATAL_ERROR


cdef int keep_unseen(Wire wire, PGresult *res, impl) except -1:
    """Nobody waits for this result; but the transaction that has failed with it is somebody's."""
    if has_failed(res) and pq.transactionStatus(wire.conn) == INERROR:
        wire.unseen = result_error(wire.conn, res, wire.codec, impl)
    else:
        pq.clear(res)
    return 0


cdef object take_unseen(Wire wire, query, bint failed):
    """What the first that is executed behind that in the transaction raises: COMMIT would hide it."""
    error, wire.unseen = wire.unseen, None
    if failed or query is None or read_text(query, False).kind in ("ROLLBACK", "ABORT"):
        return None
    return error


cdef class Foreign(Request):
    """Lets psycopg2 execute; the outcome is None, and the result is in its cursor."""

    cdef object start           # called with the two
    cdef object operation
    cdef object parameters

    def __cinit__(self):
        self.polled = True

    cdef int send(self, Wire wire) except -1:
        self.start(self.operation, self.parameters)
        return 0

    cdef object outcome(self, Wire wire):
        if wire.unseen is not None:
            executed = getattr(self.start, "__self__", None)    # a psycopg2 cursor
            unseen = take_unseen(wire, getattr(executed, "query", None), False)
            if unseen is not None:
                raise unseen
        return None


cdef class Command(Request):
    """A text on the connection's own cursor, on the road that is open."""

    cdef int send(self, Wire wire) except -1:
        cdef Statement statement
        cdef Foreign foreign
        if wire.native:
            statement = Statement.__new__(Statement)
            statement.impl, statement.query = wire.control(), self.text
            statement.shape = SHAPE_TUPLE
            statement.joined = self.joined
            self.how = statement
        else:
            foreign = Foreign.__new__(Foreign)
            foreign.start, foreign.operation = wire.control().execute, self.text
            self.how = foreign
        self.polled = self.how.polled
        return self.how.send(wire)

    cdef Taken take(self, Wire wire, PGresult *res) except? MORE:
        return self.how.take(wire, res)

    cdef object outcome(self, Wire wire):
        return self.how.outcome(wire)

    cdef object reason(self, Wire wire, object error):
        return self.how.reason(wire, error)


cdef class Session:
    """Transactions as psycopg2's synchronous connections have them: opened by the first statement.

    The requests of a session wait for each other. Whether BEGIN is needed is decided when a
    statement's turn has come, since those in front may end the transaction.

    status: psycopg2's STATUS_READY, STATUS_BEGIN or STATUS_PREPARED.
    opening: the command that opens a transaction, None in autocommit.
    """

    def __cinit__(self):
        self.status = READY

    cdef object put(self, Wire wire, Request request, timeout):
        """Send a request, with BEGIN in front if it may be needed."""
        cdef Opening opening
        request.session = self
        if self.opening is None or (self.status != READY and wire.users == 0):
            return wire.put(request, timeout)
        opening = Opening.__new__(Opening)
        opening.text, opening.session, opening.follower = self.opening, self, request
        opening.extended = opening.joined = request.extended
        return wire.put_both(opening, request, timeout)


cdef class Opening(Command):
    """BEGIN in front of another request, which it takes with it if it fails."""

    cdef Request follower       # None: nothing but the transaction is wanted

    cdef Turn turn(self, Wire wire) except? DROP:
        if wire.engaged():
            return WAIT                 # for what may open the transaction
        return GO if (<Session>self.session).status == READY else DROP

    cdef int send(self, Wire wire) except -1:
        if self.follower is not None:
            self.follower.begun = True
        return Command.send(self, wire)

    cdef int answer(self, Wire wire, object outcome) except -1:
        if not isinstance(outcome, BaseException):
            if self.how is not None:
                (<Session>self.session).status = BEGUN
        elif self.follower is not None:
            self.follower.blame = outcome
            wire.drop(self.follower, outcome)
        return Request.answer(self, wire, outcome)


cdef class Ending(Command):
    """COMMIT or its like. Nothing is sent if no transaction is open; one that fails has ended it."""

    cdef Turn turn(self, Wire wire) except? DROP:
        return GO if (<Session>self.session).status == BEGUN else DROP

    cdef int answer(self, Wire wire, object outcome) except -1:
        if self.how is not None:
            (<Session>self.session).status = READY
        return Request.answer(self, wire, outcome)


cdef class Pause(Request):
    """Nothing: a place in the queue, whose turn comes when everything in front is over."""

    cdef Turn turn(self, Wire wire) except? DROP:
        return DROP


cdef class Close(Statement):
    """The protocol's message that frees a portal: no error if there is none of the name."""

    cdef bytes name             # as it is, where SQL cuts identifiers off

    cdef bint sent_by(self, Wire wire) except -1:
        return pq.sendClosePortal(wire.conn, PyBytes_AS_STRING(self.name)) \
            and (not wire.piping or wire.sync())


cdef class PortalEnd(Command):
    """Frees a portal; one that is gone already, by ways that nobody has seen, is no error.

    By the protocol's Close if that can be had and means the same name, which goes out together with
    what follows (`extended`). Else the server is asked first whether the portal is there: a CLOSE
    that fails would abort the transaction it runs in. In an aborted transaction both wait:
    ROLLBACK TO may bring the portal back into reach.
    """

    cdef object portals         # is told the outcome: freed(portal, error or None)
    cdef object portal
    cdef bint found

    def __cinit__(self):
        self.housekeeping = True

    cdef Turn turn(self, Wire wire) except? DROP:
        if not self.portals.lasts(self.portal):
            return DROP                 # its transaction has ended meanwhile
        if wire.engaged():
            return WAIT
        status = wire.transaction_status()
        return GO if status == IDLE or status == INTRANS else WAIT

    cdef int send(self, Wire wire) except -1:
        cdef Close close
        if self.extended:
            close = Close.__new__(Close)
            close.impl, close.query = wire.control(), b"CLOSE " + self.portal.quoted
            close.name, close.shape = self.portal.name, SHAPE_TUPLE
            self.how = close
            return close.send(wire)
        if self.found:
            self.text = b"CLOSE " + self.portal.quoted
        else:
            literal = QuotedString(self.portal.name)
            literal.prepare(wire.raw)
            self.text = (b"SELECT FROM pg_catalog.pg_cursors WHERE name = %b::name::text"
                         % literal.getquoted())
        return Command.send(self, wire)

    cdef object outcome(self, Wire wire):
        outcome = Command.outcome(self, wire)
        if self.extended or self.found or not (outcome or wire.control()).rowcount:
            return None
        self.found = True
        return AGAIN

    cdef int answer(self, Wire wire, object outcome) except -1:
        self.portals.freed(self.portal, outcome)
        if self.waiter.done():
            return 0
        if outcome is None:
            self.waiter.set_result(None)
        else:
            self.waiter.set_exception(outcome)
            self.waiter.exception()     # else the loop complains when nobody awaits it
        return 0


cdef bint _stays_whole(bytes name) except -1:
    """Whether a name means the same as an identifier in SQL, in any encoding; "" is not one."""
    return 0 < len(name) <= MAX_IDENTIFIER and name.isascii()


cdef bint may_travel(operation, bint has_parameters) except -1:
    """Whether a text, with plain literals in it, does the same in the extended protocol."""
    return type(operation) is str and len(operation) <= MAX_TEXT \
        and text_of(operation, has_parameters).eligible


def check_size(parameters):
    """Raise DataError for a parameter that fits into no message."""
    refuse_large(parameters)


cdef tuple written(Wire wire, impl, operation, parameters):
    """The text with its parameters, and whether all of it was written here."""
    cdef bytes query = None
    cdef bint plain = parameters is None or type(parameters) in (tuple, dict) and not parameters
    if parameters is None:
        query = impl.mogrify(operation)
    else:
        if wire.plain:
            query = merge(operation, parameters)
            plain |= query is not None
        if query is None:
            refuse_large(parameters)
            query = impl.mogrify(operation, parameters)
    if PyBytes_GET_SIZE(query) >= TOO_LARGE:
        raise too_large()
    if memchr(PyBytes_AS_STRING(query), 0, PyBytes_GET_SIZE(query)) != NULL:
        raise ValueError("a statement cannot contain NUL (0x00) characters")
    return query, plain


def execute_foreign(Wire wire, start, operation, parameters, timeout, Session session=None):
    """Let psycopg2 execute by `start`; the future gets [None]. After refusal()."""
    cdef Foreign request
    if wire.is_closed():
        raise wire.closed_error("cursor already closed")
    if wire.raw.closed:                # by somebody else; as psycopg2 says it
        raise psycopg2.InterfaceError("cursor already closed")
    check_timeout(timeout)
    refuse_large((operation,))
    refuse_large(parameters)
    if wire.plans is not None:
        (<Plans>wire.plans).heed(
            f"SELECT {operation}()" if getattr(start, "__name__", None) == "callproc" else operation,
            parameters is not None)
    request = Foreign.__new__(Foreign)
    request.start, request.operation, request.parameters = start, operation, parameters
    if session is None:
        return wire.put(request, timeout)
    return session.put(wire, request, timeout)


def command(Wire wire, operation, parameters, timeout, Session session=None):
    """Execute a statement on nobody's cursor; the future gets [an exception] if it fails."""
    return _command(wire, Command.__new__(Command), operation, parameters, timeout, session)


def begin(Wire wire, timeout, Session session):
    """Open a session's transaction, if none is open."""
    return _command(wire, Opening.__new__(Opening), session.opening, None, timeout, session)


def end(Wire wire, operation, timeout, Session session):
    """End a session's transaction, if one is open."""
    return _command(wire, Ending.__new__(Ending), operation, None, timeout, session)


cdef int learn(Wire wire, Lesson lesson, PGresult *res) except -1:
    cdef Plans plans = wire.plans
    cdef bint in_transaction = pq.transactionStatus(wire.conn) == INTRANS
    plans.learn(lesson.hot, lesson.signature, res,
                plans.transaction(wire.rests) if in_transaction else 0)
    return 0


cdef object _command(Wire wire, Command request, operation, parameters, timeout, session):
    if wire.is_closed():
        raise wire.closed_error("connection already closed")
    request.text = wire.control().mogrify(operation, parameters)
    if wire.plans is not None:
        (<Plans>wire.plans).heed(operation, parameters is not None)
    request.session = session
    return wire.put(request, timeout)


def pause(Wire wire, Session session):
    """The future is done when everything that is in the queue now is over."""
    cdef Pause request = Pause.__new__(Pause)
    request.session = session
    return wire.put(request, None)


def end_portal(Wire wire, portals, portal, timeout):
    """Free a portal as soon as that disturbs nobody.

    The future of it if that is now; None if it has to wait for others.
    """
    cdef PortalEnd request = PortalEnd.__new__(PortalEnd)
    request.portals, request.portal = portals, portal
    request.extended = wire.native and pq.sendClosePortal != NULL and _stays_whole(portal.name)
    waiter = wire.put(request, timeout)
    return waiter if wire.users == 0 and request.begun else None
