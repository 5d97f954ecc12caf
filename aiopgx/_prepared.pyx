"""Statements executed by their names: execute(), and what it does for hot ones.

execute() asks `_plans` whether a text is hot. Then it makes a Prepared, whose stages may end in its
text after all; else a Statement of `_requests`, from which may be learned. What is to be done for the
prepared statements of a connection (Probe, PlanEnd) goes out behind the user's request.
"""

from cpython.bytes cimport PyBytes_AS_STRING

import psycopg2
from psycopg2.extensions import (
    STATUS_READY,
    TRANSACTION_STATUS_IDLE,
    TRANSACTION_STATUS_INTRANS,
)

from ._binary cimport binary_worth
from ._binds cimport Binds
from ._core cimport AGAIN, DROP, GO, MORE, WAIT, Request, Taken, Turn, Wire, check_timeout
from ._eligibility cimport SAME, Text, read_text
from ._libpq cimport PGRES_FATAL_ERROR, PGRES_TUPLES_OK, PGresult, pq
from ._plans cimport (
    ASKED,
    DIRECT,
    NOT_ASKED,
    POOLED,
    TO_ASK,
    Hot,
    Lesson,
    Plan,
    Plans,
    describe,
    is_missing,
    is_refusal,
    nothing_was_done,
)
from ._requests cimport Command, Session, Statement, may_travel, written
from ._statements cimport Unwritten
from ._structs cimport is_closed

cdef extern from "_frames.h":
    pass

cdef int READY = STATUS_READY
cdef int IDLE = TRANSACTION_STATUS_IDLE
cdef int INTRANS = TRANSACTION_STATUS_INTRANS

# What a Prepared does next.
cdef enum Stage:
    READ                        # the text with its literals, to know its columns
    SHOW
    SAVE                        # in a transaction: Parse may fail
    PARSE
    DESCRIBE
    LOOK                        # in the catalogue, at types that the server has found
    RELEASE
    UNDO
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
    cdef Stage after            # RELEASE and UNDO
    cdef bint guarded           # by a savepoint
    cdef bint unfit             # the server has refused to prepare it
    cdef bint in_transaction
    cdef bint prepares

    cdef bint sent_by(self, Wire wire) except -1:
        cdef Binds binds = self.binds
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
        if self.stage == SAVE:
            return pq.sendQuery(wire.conn, b"SAVEPOINT aiopgx_prepare")
        if self.stage == RELEASE:
            return pq.sendQuery(wire.conn, b"RELEASE SAVEPOINT aiopgx_prepare")
        if self.stage == UNDO:
            return pq.sendQuery(wire.conn, b"ROLLBACK TO SAVEPOINT aiopgx_prepare;"
                                           b" RELEASE SAVEPOINT aiopgx_prepare")
        if self.plan.name is None:      # closed while this one was waiting
            self.stage = WRITE
            return self.sent_by(wire)
        self.plans.use(self.plan)
        return pq.sendQueryPrepared(
            wire.conn, PyBytes_AS_STRING(self.plan.name), binds.count, binds.values,
            binds.lengths, binds.formats, self.in_binary()) \
            and (not wire.piping or wire.sync())

    cdef bint is_executed(self) except -1:
        return self.begun and (self.stage == EXECUTE or self.stage == WRITE)

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
        if self.stage == WRITE or self.result == NULL or self.stage == EXECUTE and not failed:
            return Statement.outcome(self, wire)
        if failed and not self.falls_back():
            self.query = self.text()    # for the error, which is the user's
            return Statement.outcome(self, wire)
        if not failed:
            self.stage = self.next_stage(wire)
            if self.stage == EXECUTE or self.stage == WRITE:
                self.stage = self.behind(RELEASE, self.stage)
        pq.clear(self.kept())
        self.extended = False           # it goes alone from now on
        return AGAIN

    cdef bint falls_back(self) except -1:
        """Whether the text is executed in the place of what has failed."""
        if self.stage == EXECUTE:
            if not nothing_was_done(self.result):
                return False
            self.outdate()
        if self.in_transaction and not self.guarded:
            return False
        if self.stage == EXECUTE:
            self.lesson = Lesson.of(self.hot, self.binds.signature())
            self.stage = WRITE
        else:
            self.unfit = self.stage != READ and is_refusal(self.result)
            self.stage = self.behind(UNDO, WRITE)
        return True

    cdef int outdate(self) except -1:
        """What has failed before it was executed must not do so again."""
        if is_missing(self.result):
            self.plans.forget()         # it will not be the only one
        else:
            self.plans.drop(self.hot, self.binds.signature())
        return 0

    cdef Stage behind(self, Stage end, Stage then):
        """The end of the savepoint, if there is one, and then another stage."""
        if not self.guarded:
            return then
        self.guarded = False
        self.after = then
        return end

    cdef Stage next_stage(self, Wire wire) except *:
        if self.stage == RELEASE or self.stage == UNDO:
            return self.after
        if self.stage == SAVE:
            self.guarded = True
            return PARSE
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
        self.plan.born = self.plans.transaction(wire.rests) if self.in_transaction else 0
        self.plans.add(self.plan)
        self.hot.text.proven[wire.raw.dsn, self.binds.signature()] = True
        return EXECUTE if self.plan.admits(self.values, self.in_transaction) else WRITE

    cdef Stage never(self):
        self.plan.never = True
        self.plans.doomed.append(self.name)
        return WRITE

    cdef int answer(self, Wire wire, object outcome) except -1:
        if self.prepares:
            self.hot.busy = False
        if self.stage == DESCRIBE or self.stage == LOOK:    # its user has gone meanwhile
            self.plans.doomed.append(self.name)
        Statement.answer(self, wire, outcome)
        look_after(wire, self.plans)
        return 0


cdef Statement hot_statement(Wire wire, Plans plans, impl, str operation, parameters, prepare,
                             int status, bint begins):
    """A Prepared; or a Statement without its text from which is to be learned; or None.

    status: the transaction status in which it is executed.
    begins: whether it is the first of a transaction, whose BEGIN goes in front of it.
    """
    cdef Hot hot = plans.find(operation, parameters is not None, prepare)
    cdef tuple values
    cdef Binds binds
    cdef Plan plan
    cdef Prepared request
    if hot is None:
        return None
    if not plans.heeds:
        plans.attend(status == INTRANS)
    values = hot.text.arrange(parameters)
    if values is None or hot.text.judge(values) != SAME:
        return None
    binds = Binds.of(values, hot.text.untyped(values))
    if binds is None or wire.is_closed():
        return None
    signature = binds.signature()
    plan = hot.plan(signature)
    if begins or (status == INTRANS and (
            plan is None or plan.seen != plans.transaction(wire.rests))):
        return taught(plans, hot, signature)
    if status != IDLE and status != INTRANS:
        return None
    if status == INTRANS and plan.is_outlived():
        if prepare is None and plan.texts < plans.threshold:
            plan.texts += 1
            return None
        plans.retract(plan)             # its types are found anew
    if plan is None:
        if prepare is None and plans.threshold != 0:
            return taught(plans, hot, signature)
    elif plan.never:
        return None
    elif plan.name is None:
        if not may_prepare(wire, plans, hot.text, signature, prepare):
            return None
    elif not plan.admits(values, status == INTRANS):
        return None
    elif hot.text.quotes and not plans.settled(wire.conn):
        plans.forget()
        return None
    if hot.busy and (plan is None or plan.name is None):
        return None                     # another is about to prepare it
    request = Prepared.__new__(Prepared)
    request.plans, request.hot, request.plan, request.binds = plans, hot, plan, binds
    request.values = values
    request.query = Unwritten.of(
        impl, operation, hot.text.names, binds.dumped(values), parameters is not None)
    if plan is None:
        request.stage = READ
    else:
        request.stage = EXECUTE if plan.name is not None else first_stage(
            wire, hot.text, signature, plan, status == INTRANS)
        request.extended = plan.name is not None and pq.enterPipelineMode != NULL
    request.in_transaction = status == INTRANS
    request.prepares = request.stage != EXECUTE
    if request.prepares:
        hot.busy = True
    return request


cdef Statement taught(Plans plans, Hot hot, bytes signature):
    cdef Statement request = Statement.__new__(Statement)
    request.lesson = Lesson.of(hot, signature)
    if plans.pooler == NOT_ASKED:
        plans.pooler = TO_ASK
    return request


cdef bint may_prepare(Wire wire, Plans plans, Text text, bytes signature, prepare) except -1:
    """Whether nothing speaks against Parse."""
    if plans.pooler == NOT_ASKED:
        plans.pooler = TO_ASK
    if plans.pooler != DIRECT and not plans.given and prepare is None:
        return False
    return text.proven.get((wire.raw.dsn, signature), True)


cdef Stage first_stage(Wire wire, Text text, bytes signature, Plan plan,
                       bint in_transaction) except *:
    """A Parse that has never worked for this database must not abort a transaction.

    Nor one whose types may have changed since.
    """
    proven = not plan.places and (wire.raw.dsn, signature) in text.proven
    return SAVE if in_transaction and not proven else PARSE


cdef class Probe(Command):
    """Asks whether a pooler is in between: then the process is not the one we were told of."""

    cdef Plans plans
    cdef tuple seen             # as the server has written it: casters are the program's

    def __cinit__(self):
        self.housekeeping = True
        self.text = (b"SELECT pg_catalog.pg_backend_pid(),"
                     b" pg_catalog.current_setting('extra_float_digits', true)::int > 0")

    cdef Turn turn(self, Wire wire) except? DROP:
        status = wire.transaction_status()
        if status == IDLE:
            return GO
        # what only looks like PostgreSQL might fail, and abort the user's transaction
        return GO if status == INTRANS and wire.raw.server_version >= 120000 else WAIT

    cdef Taken take(self, Wire wire, PGresult *res) except? MORE:
        if pq.resultStatus(res) == PGRES_TUPLES_OK and pq.ntuples(res) == 1:
            self.seen = (<bytes>pq.getvalue(res, 0, 0), <bytes>pq.getvalue(res, 0, 1))
        return Command.take(self, wire, res)

    cdef object outcome(self, Wire wire):
        result = Command.outcome(self, wire)
        pid, digits = self.seen
        self.plans.all_digits = digits == b"t"
        self.plans.found(int(pid) != wire.raw.get_backend_pid())
        return result

    cdef int answer(self, Wire wire, object outcome) except -1:
        if self.plans.pooler == ASKED:          # it has failed: nobody knows
            self.plans.pooler = POOLED
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
        if not wire.sync():
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
        look_after(wire, self.plans)
        return 0


cdef bint is_open(Wire wire) except -1:
    """Whether more can be sent: with what was sent last, the connection may have ended."""
    return not (wire.is_closed() or wire.raw.closed)


cdef int look_after(Wire wire, Plans plans) except -1:
    """What is to be done for the prepared statements, behind the user's request."""
    cdef Probe probe
    cdef PlanEnd end
    if plans.pooler == TO_ASK and is_open(wire):
        plans.pooler = ASKED
        probe = Probe.__new__(Probe)
        probe.plans = plans
        wire.put(probe, None)
    if plans.doomed and not plans.closing and is_open(wire):
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
            wire, plans, impl, operation, parameters, prepare, wire.transaction_status(),
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
        request.extended = may_travel(operation, bool(parameters))
    if session is None:
        waiter = wire.put(request, timeout)
    else:
        waiter = session.put(wire, request, timeout)
    if plans is not None and (plans.pooler == TO_ASK or plans.doomed):
        look_after(wire, plans)
    return waiter


cdef Statement shared_statement(Wire wire, impl, int shape, str operation, parameters):
    """The request of a statement on a shared connection; None if it must not be executed there.

    It finds no transaction open, and leaves none. Text.shareable is known of the operation.
    """
    cdef Statement request = None
    cdef Plans plans = wire.plans
    cdef bint plain = True
    if not wire.plain:
        return None
    if plans is not None and plans.watches(None):
        request = hot_statement(wire, plans, impl, operation, parameters, None, IDLE, False)
    if request is None:
        request = Statement.__new__(Statement)
    if request.query is None:
        request.query, plain = written(wire, impl, operation, parameters)
        # adapters may have written anything
        if not plain and not read_text((<bytes>request.query).decode(), False).shareable:
            return None
    if not is_open(wire):                               # an adapter may have done that
        raise wire.closed_error("connection already closed")
    request.impl, request.shape = impl, shape
    request.extended |= type(request) is Statement
    return request
