"""What is asked of the server: the kinds of requests that a Wire serves.

execute() makes a Statement, which goes out in the simple protocol and whose outcome is a Result;
execute_foreign() a Foreign, which lets psycopg2 execute. A Command is a text on nobody's cursor, on
the road that is open: BEGIN in front of a statement, COMMIT, the end of a portal.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memchr

import psycopg2
from psycopg2.extensions import (
    STATUS_BEGIN,
    STATUS_READY,
    TRANSACTION_STATUS_IDLE,
    TRANSACTION_STATUS_INTRANS,
    QuotedString,
)

from ._core cimport AGAIN, DROP, ENOUGH, GO, MORE, STALLED, WAIT, Request, Taken, Turn, Wire
from ._core cimport check_timeout
from ._binary cimport binary_worth
from ._binds cimport Binds
from ._eligibility cimport SAME, Text
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
from ._plans cimport (
    ASKED,
    DIRECT,
    NOT_ASKED,
    TO_ASK,
    Hot,
    Lesson,
    Plan,
    Plans,
    describe,
    is_refusal,
    nothing_was_done,
    text_of,
)
from ._rows cimport SHAPE_TUPLE, Result
from ._statements cimport Unwritten, merge
from ._structs cimport give_failure, is_closed

cdef extern from "_frames.h":
    pass

# Characters of a text, up to which its verdict is kept.
cdef enum:
    CACHED = 20000

# Bytes of an identifier that every server keeps: NAMEDATALEN - 1.
cdef enum:
    MAX_IDENTIFIER = 63

cdef int READY = STATUS_READY
cdef int BEGUN = STATUS_BEGIN
cdef int IDLE = TRANSACTION_STATUS_IDLE
cdef int INTRANS = TRANSACTION_STATUS_INTRANS


cdef class Statement(Request):
    """A text in the simple protocol: one statement or several. The outcome is a Result.

    Of several results it keeps what psycopg2 keeps: the first error, else the last.
    """

    def __dealloc__(self):
        if self.result != NULL:
            pq.clear(self.result)

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
        if self.result != NULL:
            if pq.resultStatus(self.result) == PGRES_FATAL_ERROR:
                pq.clear(res)
                return MORE
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

    cdef PGresult *kept(self) noexcept:
        """Give the result away."""
        res, self.result = self.result, NULL
        return res

    cdef object outcome(self, Wire wire):
        cdef PGresult *res = self.kept()
        cdef int status
        if self.blame is not None:
            pq.clear(res)
            give_failure(self.impl, self.query)
            raise self.blame
        if self.refused is not None:
            pq.clear(res)
            give_failure(self.impl, self.query)
            raise psycopg2.ProgrammingError(self.refused)
        if res == NULL:
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


# What a Prepared does next.
cdef enum Stage:
    READ                        # the text with its literals, to know its columns
    SHOW
    PARSE
    DESCRIBE
    LOOK                        # in the catalogue, at types that the server has found
    EXECUTE
    WRITE                       # its text, after all


cdef class Prepared(Statement):
    """A statement executed by its name, and prepared first if it has none.

    Where it turns out that this is not the same, and nothing is lost by it, its text is sent.
    """

    cdef Plans plans
    cdef Hot hot
    cdef Plan plan
    cdef Binds binds
    cdef tuple values
    cdef bytes name             # while it is prepared
    cdef Stage stage
    cdef bint unfit             # the server has refused to prepare it
    cdef bint in_transaction

    cdef bint sent_by(self, Wire wire) except -1:
        cdef Binds binds = self.binds
        cdef const char *name
        if self.stage == WRITE:
            self.query = self.text()
            return Statement.sent_by(self, wire)
        if self.stage == LOOK:
            return pq.sendQuery(wire.conn, PyBytes_AS_STRING(self.plan.question(self.plans)))
        if self.stage == PARSE:
            self.plans.begin(wire.conn)
            self.name = self.plans.new_name()
            return pq.sendPrepare(
                wire.conn, PyBytes_AS_STRING(self.name), PyBytes_AS_STRING(self.hot.text.sql),
                binds.count, binds.types)
        if self.stage == DESCRIBE:
            return pq.sendDescribePrepared(wire.conn, PyBytes_AS_STRING(self.name))
        if self.stage == READ:
            self.query = self.text()
            return pq.sendPrepare(wire.conn, b"", PyBytes_AS_STRING(<bytes>self.query), 0, NULL)
        if self.stage == SHOW:
            return pq.sendDescribePrepared(wire.conn, b"")
        if self.plan.name is None:      # closed while this one was waiting
            self.stage = WRITE
            return self.sent_by(wire)
        self.plans.use(self.plan)
        return pq.sendQueryPrepared(
            wire.conn, PyBytes_AS_STRING(self.plan.name), binds.count, binds.values,
            binds.lengths, binds.formats, self.in_binary()) \
            and (not wire.piping or pq.pipelineSync(wire.conn))

    cdef bint in_binary(self) except -1:
        oids = self.plan.oids
        return oids is not None and binary_worth(oids, self.impl, self.plans.all_digits)

    cdef bytes text(self):
        return (<Unwritten>self.query).write() if type(self.query) is Unwritten else self.query

    cdef object outcome(self, Wire wire):
        cdef bint failed = self.result != NULL and pq.resultStatus(self.result) == PGRES_FATAL_ERROR
        if self.stage == WRITE and self.unfit and not failed:
            self.plan.never = True      # the text works, and it can't be prepared
            self.hot.text.proven[wire.raw.dsn, self.binds.signature()] = False
        if self.stage == WRITE or self.result == NULL:
            return Statement.outcome(self, wire)
        if self.stage == EXECUTE and not failed:
            return Statement.outcome(self, wire)
        if failed and self.in_transaction:
            return self.give_up(wire)
        if failed and self.stage == EXECUTE:
            if not nothing_was_done(self.result):
                return self.give_up(wire)
            self.plans.drop(self.hot, self.binds.signature())
            self.lesson = Lesson.of(self.hot, self.binds.signature())
            self.stage = WRITE
        elif failed:
            self.unfit = self.stage != READ and is_refusal(self.result)
            self.stage = WRITE
        else:
            self.stage = self.next_stage(wire)
        pq.clear(self.kept())
        self.extended = False           # it goes alone from now on
        return AGAIN

    cdef object give_up(self, Wire wire):
        """An error that is the user's."""
        self.query = self.text()
        return Statement.outcome(self, wire)

    cdef Stage next_stage(self, Wire wire) except *:
        if self.stage == READ:
            return SHOW
        if self.stage == SHOW:
            self.plan = self.plans.learn(self.hot, self.binds.signature(), self.result, 0)
            return WRITE if self.plan is None else PARSE
        if self.stage == PARSE:
            return DESCRIBE
        if self.stage == DESCRIBE:
            if describe(self.result) != self.plan.columns:
                return self.never()
            self.plan.note(self.hot.text, self.binds, self.result)
            if self.plan.question(self.plans) is not None:
                return LOOK
        else:
            self.plans.note_types(self.result, self.plan)
        if not self.plan.fits(self.plans):
            return self.never()
        self.plan.name = self.name
        self.plans.add(self.plan)
        self.hot.text.proven[wire.raw.dsn, self.binds.signature()] = True
        return EXECUTE if self.plan.admits(self.values, self.in_transaction) else WRITE

    cdef Stage never(self):
        self.plan.never = True
        self.plans.doomed.append(self.name)
        return WRITE

    cdef int answer(self, Wire wire, object outcome) except -1:
        Statement.answer(self, wire, outcome)
        if self.plans.doomed and not wire.is_closed():
            look_after(wire, self.plans)
        return 0


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


cdef class Command(Request):
    """A text on the connection's own cursor, on the road that is open."""

    cdef bytes text
    cdef Request how

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

    cdef public int status
    cdef public bytes opening

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
            and (not wire.piping or pq.sendPipelineSync(wire.conn))    # which does not flush


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


cdef bint _may_travel(operation, bint has_parameters) except -1:
    """Whether a text, with plain literals in it, does the same in the extended protocol."""
    return type(operation) is str and len(operation) < CACHED \
        and text_of(operation, has_parameters).eligible


cdef Statement hot_statement(Wire wire, Plans plans, impl, str operation, parameters, prepare,
                             bint begins):
    """A Prepared; or a Statement without its text from which is to be learned; or None.

    begins: whether it is the first of a transaction, whose BEGIN goes in front of it.
    """
    cdef Hot hot = plans.find(operation, parameters is not None, prepare)
    cdef tuple values
    cdef Binds binds
    cdef Plan plan
    cdef Prepared request
    cdef int status
    if hot is None:
        return None
    values = hot.text.arrange(parameters)
    if values is None or hot.text.judge(values) != SAME:
        return None
    binds = Binds.of(values, hot.text.untyped(values))
    if binds is None or wire.is_closed():
        return None
    signature = binds.signature()
    plan = hot.plan(signature)
    status = wire.transaction_status()
    if begins or (status == INTRANS and (
            plan is None or plan.seen != plans.transaction(wire.rests))):
        return taught(plans, hot, signature)
    if status != IDLE and status != INTRANS:
        return None
    if plan is None:
        if prepare is None and plans.threshold != 0:
            return taught(plans, hot, signature)
    elif plan.never:
        return None
    elif plan.name is None:
        if not may_prepare(wire, plans, hot.text, signature, status == INTRANS, prepare):
            return None
    elif not plan.admits(values, status == INTRANS):
        return None
    elif hot.text.quotes and not plans.settled(wire.conn):
        plans.forget()
        return None
    request = Prepared.__new__(Prepared)
    request.plans, request.hot, request.plan, request.binds = plans, hot, plan, binds
    request.values = values
    request.query = Unwritten.of(impl, operation, hot.text.names, values, parameters is not None)
    if plan is None:
        request.stage = READ
    else:
        request.stage = PARSE if plan.name is None else EXECUTE
        request.extended = plan.name is not None and pq.enterPipelineMode != NULL
    request.in_transaction = status == INTRANS
    return request


cdef Statement taught(Plans plans, Hot hot, bytes signature):
    cdef Statement request = Statement.__new__(Statement)
    request.lesson = Lesson.of(hot, signature)
    if plans.pooler == NOT_ASKED:
        plans.pooler = TO_ASK
    return request


cdef bint may_prepare(Wire wire, Plans plans, Text text, bytes signature, bint in_transaction,
                      prepare) except -1:
    """Whether nothing speaks against Parse here and now."""
    if plans.pooler == NOT_ASKED:
        plans.pooler = TO_ASK
    if plans.pooler != DIRECT and not plans.given and prepare is None:
        return False
    proven = text.proven.get((wire.raw.dsn, signature))
    return proven or (proven is None and not in_transaction)


cdef class Probe(Command):
    """Asks whether a pooler is in between: then the process is not the one we were told of."""

    cdef Plans plans

    def __cinit__(self):
        self.housekeeping = True
        self.text = (b"SELECT pg_catalog.pg_backend_pid(),"
                     b" pg_catalog.current_setting('extra_float_digits')::int > 0")

    cdef Turn turn(self, Wire wire) except? DROP:
        status = wire.transaction_status()
        return GO if status == IDLE or status == INTRANS else WAIT

    cdef object outcome(self, Wire wire):
        result = Command.outcome(self, wire)
        pid, self.plans.all_digits = result.fetchone()
        self.plans.found(pid != wire.raw.get_backend_pid())
        return result

    cdef int answer(self, Wire wire, object outcome) except -1:
        if self.plans.pooler == ASKED:          # it has failed: to be asked again
            self.plans.pooler = NOT_ASKED
        return Command.answer(self, wire, outcome)


cdef class PlanEnd(Command):
    """Frees prepared statements: by the protocol's Close, which can't fail, else by DEALLOCATE."""

    cdef Plans plans
    cdef list names

    def __cinit__(self):
        self.housekeeping = True
        self.extended = pq.sendClosePrepared != NULL

    cdef Turn turn(self, Wire wire) except? DROP:
        if wire.engaged():
            return WAIT
        status = wire.transaction_status()
        return GO if status == IDLE or (self.extended and status == INTRANS) else WAIT

    cdef int send(self, Wire wire) except -1:
        self.names = self.plans.closed(wire.piping)
        if not wire.piping:
            self.text = b"DEALLOCATE " + <bytes>self.names[0]
            return Command.send(self, wire)
        for name in self.names:
            if not pq.sendClosePrepared(wire.conn, PyBytes_AS_STRING(<bytes>name)):
                raise wire.broken()
        if not pq.sendPipelineSync(wire.conn):      # which does not flush
            raise wire.broken()
        return 0

    cdef Taken take(self, Wire wire, PGresult *res) except? MORE:
        if self.how is not None:
            return Command.take(self, wire, res)
        return Request.take(self, wire, res)

    cdef object outcome(self, Wire wire):
        return None if self.how is None else Command.outcome(self, wire)

    cdef object reason(self, Wire wire, object error):
        return error

    cdef int answer(self, Wire wire, object outcome) except -1:
        self.plans.closing = False      # what has failed was gone already, or goes with the session
        Command.answer(self, wire, outcome)
        if not wire.is_closed():
            look_after(wire, self.plans)
        return 0


cdef int look_after(Wire wire, Plans plans) except -1:
    """What is to be done for the prepared statements, behind the user's request."""
    cdef Probe probe
    cdef PlanEnd end
    if plans.pooler == TO_ASK:
        plans.pooler = ASKED
        probe = Probe.__new__(Probe)
        probe.plans = plans
        wire.put(probe, None)
    if plans.doomed and not plans.closing:
        plans.closing = True
        end = PlanEnd.__new__(PlanEnd)
        end.plans = plans
        wire.put(end, None)
    return 0


def execute(Wire wire, impl, int shape, operation, parameters, timeout, Session session=None,
            prepare=None):
    """Send one statement on the native road; the future gets [its Result]. After refusal().

    Where it is not executed by its name, psycopg2 adapts the parameters, so that the text is what it
    would have sent.
    session: opens a transaction before, if none is open.
    prepare: True to prepare it at once, False not to, None for when it is executed often.
    """
    cdef Statement request = None
    cdef Plans plans = wire.plans
    cdef bint plain = True
    check_timeout(timeout)
    if is_closed(impl) or wire.is_closed():
        raise wire.closed_error("cursor already closed")
    if plans is not None and plans.watches(prepare) and type(operation) is str \
            and wire.plain and wire.users == 0:
        request = hot_statement(
            wire, plans, impl, operation, parameters, prepare,
            session is not None and session.opening is not None and session.status == READY)
    if request is None:
        request = Statement.__new__(Statement)
    if request.query is None:
        request.query, plain = written(wire, impl, operation, parameters)
        if plans is not None:
            plans.heed(operation, parameters is not None)
    if wire.users > 0:                                  # an adapter may have done that
        refusal = wire.refusal("cursor.execute", session)
        if refusal is not None:
            raise refusal
    if is_closed(impl) or wire.is_closed():
        raise wire.closed_error("cursor already closed")
    request.impl, request.shape = impl, shape
    if (wire.head is not None or session is not None and session.status == READY) \
            and plain and wire.plain and pq.enterPipelineMode != NULL and type(request) is Statement:
        request.extended = _may_travel(operation, bool(parameters))
    if session is None:
        waiter = wire.put(request, timeout)
    else:
        waiter = session.put(wire, request, timeout)
    if plans is not None and (plans.pooler == TO_ASK or plans.doomed):
        look_after(wire, plans)
    return waiter


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
            query = impl.mogrify(operation, parameters)
    if memchr(PyBytes_AS_STRING(query), 0, PyBytes_GET_SIZE(query)) != NULL:
        raise ValueError("a statement cannot contain NUL (0x00) characters")
    return query, plain


def execute_foreign(Wire wire, start, operation, parameters, timeout, Session session=None):
    """Let psycopg2 execute by `start`; the future gets [None]. After refusal()."""
    cdef Foreign request
    if wire.is_closed():
        raise wire.closed_error("cursor already closed")
    check_timeout(timeout)
    if wire.plans is not None:
        (<Plans>wire.plans).heed(
            "SELECT" if getattr(start, "__name__", None) == "callproc" else operation,
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
