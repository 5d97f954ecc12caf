"""Batches: one statement for many parameter sets, prepared, and sent in libpq's pipeline mode.

    batch = Batch(wire, impl, operation, timeout, session, own, echo)
    batch.fill(iterator, limit)     take parameter sets
    batch.put(last)                 send them; the waiters
    batch.show(True)                leave psycopg2's cursor as executemany() does

A set travels in one of three ways. As Bind and Execute of the prepared statement, where that is known
to come to the same as psycopg2's literals. As a text of its own, in the pipeline too, if it surely is
one statement with psycopg2's own literals. What is neither is `odd`: the next to be executed, by
execute(), when all that was sent is over.

All of it is one transaction, the user's or the batch's own (BEGIN in front of the first, COMMIT behind the
last), and each Rows has a Sync of its own: when one fails, nothing behind it is executed. The first
sets go as texts, and behind them a Trial: so whatever is prepared has worked as a text before, as the
rules ask for, and a Parse that is refused never ends a user's transaction. The statement has no name
and is parsed once in each Rows: nothing stays on the server, and nobody has to be told when it is gone.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF
from cpython.tuple cimport PyTuple_GET_ITEM
from libc.math cimport isfinite
from libc.stdlib cimport atol
from libc.string cimport memchr, strncmp

from contextlib import suppress
from time import monotonic

import psycopg2
from psycopg2.extensions import STATUS_BEGIN, STATUS_READY, TRANSACTION_STATUS_IDLE

from .log import logger

from ._binds cimport KIND_FLOAT, Binds
from ._core cimport AGAIN, MORE, Request, Taken, Wire, check_timeout
from ._eligibility cimport SAME, Text
from ._errors cimport connection_error, decode, make_error, refuse_copy, result_error
from ._libpq cimport (
    CONNECTION_OK,
    PGRES_COMMAND_OK,
    PGRES_PIPELINE_ABORTED,
    PGRES_TUPLES_OK,
    PGconn,
    PGresult,
    pq,
)
from ._limits cimport refuse_large
from ._placement cimport IN_VALUES
from ._plans cimport Plan, Plans, nothing_was_done, verdict
from ._put cimport put_double
from ._statements cimport merge
from ._structs cimport give_command, give_failure, is_closed

cdef extern from "_frames.h":
    pass

cdef extern from "Python.h":
    PyObject *PyIter_Next(object) except? NULL      # new reference

cdef enum:
    FLOAT8 = 701
    NUMERIC = 1700

cdef enum:
    MAX_SIZE = 200000           # bytes of Rows: two of them are in flight
    MAX_TRIALS = 10
    SMALL = 16                  # up to so many rows each is answered at once
    WATCHED = 32                # results, after which a deadline is moved

# Seconds that sets are taken for at a time, before the event loop gets its turn.
cdef double TAKING = 0.01

cdef int READY = STATUS_READY
cdef int BEGUN = STATUS_BEGIN
cdef int IDLE = TRANSACTION_STATUS_IDLE
cdef double NEVER = float("inf")

# Where there is none (libpq 13), every set is executed by execute().
pipelines = pq.enterPipelineMode != NULL

# Those that run no code of the program, which may register adapters.
cdef tuple plain_iterators = (type(iter([])), type(iter(())))

cdef frozenset manipulating = frozenset(["SELECT", "INSERT", "UPDATE", "DELETE", "WITH", "VALUES"])


# --- what is sent ---------------------------------------------------------------------------------

cdef unsigned int *oids_of(bytes signature) noexcept:
    return <unsigned int *>PyBytes_AS_STRING(signature)


cdef class Form:

    @staticmethod
    cdef Form of(Text text, Binds binds, tuple values):
        cdef Form self = Form.__new__(Form)
        cdef Py_ssize_t i
        self.text, self.binds = text, binds
        self.signature = self.declared = binds.signature()
        floats = bytes([
            binds.types[i] == NUMERIC and type(values[i]) is float
            and text.slots[i].place == IN_VALUES for i in range(text.count)])
        self.floats = floats if any(floats) else None
        self.plan = Plan.__new__(Plan)
        self.plan.columns = ()
        return self

    cdef bint covers(self, Binds binds) noexcept:
        """Whether a row can be bound to it. A NULL has the type of what else may stand there."""
        cdef int i
        cdef const unsigned int *types = oids_of(self.declared)
        for i in range(binds.count):
            if binds.types[i] != types[i] and binds.lengths[i] >= 0:
                return False
        return True

    cdef bint admits(self, tuple values, bint in_transaction) except -1:
        """Whether the row means the same to it; in a user's transaction: and is not refused at Bind."""
        return self.good and (
            self.any_value and not in_transaction or self.plan.admits(values, in_transaction))

    cdef bytes without_floats(self):
        """The types, left open where a float stands."""
        cdef Py_ssize_t i
        types = bytearray(self.signature)
        for i in range(self.text.count):
            if self.floats[i]:
                (<unsigned int *><char *>types)[i] = 0
        return bytes(types)

    cdef int note(self, PGresult *res) except -1:
        """What the server has made of it."""
        self.plan.note(self.text, self.binds, res)
        self.any_value = self.text.columns is None
        return 0

    cdef int note_floats(self, PGresult *res) except -1:
        """The same without_floats(). In a column of type float8, they need not be numeric before."""
        cdef int i
        floats = bytearray(self.floats)
        declared = bytearray(self.signature)
        for i in range(self.text.count):
            floats[i] = floats[i] and pq.paramtype(res, i) == FLOAT8
            if floats[i]:
                (<unsigned int *><char *>declared)[i] = FLOAT8
        self.floats = bytes(floats) if any(floats) else None
        self.declared = bytes(declared)
        return 0


cdef bint put_text(PGconn *conn, bytes text) noexcept:
    return pq.sendQueryParams(conn, PyBytes_AS_STRING(text), 0, NULL, NULL, NULL, NULL, 0)


cdef bint put_form(PGconn *conn, Form form, bytes types) except -1:
    """Parse and Describe."""
    return pq.sendPrepare(conn, b"", PyBytes_AS_STRING(form.text.sql), <int>form.text.count,
                          oids_of(types)) and pq.sendDescribePrepared(conn, b"")


cdef int enter_pipeline(Wire wire, impl) except -1:
    if wire.raw.isexecuting():
        raise make_error(
            psycopg2.ProgrammingError,
            "execute cannot be used while an asynchronous query is underway", impl)
    if pq.status(wire.conn) != CONNECTION_OK:
        raise wire.broken()
    if not wire.piping:
        if not pq.enterPipelineMode(wire.conn):
            raise wire.broken()
        wire.piping = True
    return 0


cdef int broken_pipeline(Wire wire) except -1:
    """A part was sent, and the Sync is missing for which the server waits."""
    error = connection_error(wire.conn)
    wire.lost(error)
    raise error


cdef class Rows(Request):

    def __cinit__(self):
        self.extended = True
        self.items = []
        self.values = []

    def __dealloc__(self):
        if self.failed != NULL:
            pq.clear(self.failed)

    cdef int add(self, object item, tuple values, Py_ssize_t size) except -1:
        """Both or none, also without memory: each row's result is looked up in both lists."""
        self.values.append(values)
        try:
            self.items.append(item)
        except MemoryError:
            self.values.pop()
            raise
        self.size += size
        return 0

    cdef int send(self, Wire wire) except -1:
        cdef Rows previous = self.previous
        session = self.batch.session
        self.previous = None
        enter_pipeline(wire, self.batch.impl)
        if previous is not None and previous.parsed and self.items \
                and self.items[0] is previous.form and last_in_flight(wire) is previous:
            del self.items[0]           # it is parsed, and nothing comes between
        if session is None:
            self.opening = b"BEGIN" if self.batch.own and wire.transaction_status() == IDLE else None
        elif session.status == READY:
            self.opening = session.opening
        if not self.put_all(wire):
            broken_pipeline(wire)
        return 0

    cdef bint put_all(self, Wire wire) except -1:
        cdef Form form
        cdef bint small = len(self.values) <= SMALL
        if self.opening is not None and not put_text(wire.conn, self.opening):
            return False
        for item in self.items:
            if type(item) is Form:
                form = item
                if not pq.sendPrepare(
                        wire.conn, b"", PyBytes_AS_STRING(form.text.sql), <int>form.text.count,
                        oids_of(form.declared)):
                    return False
            elif not self.put_row(wire, item) or (small and not pq.sendFlushRequest(wire.conn)):
                return False
        if self.ending is not None and not put_text(wire.conn, self.ending):
            return False
        return pq.pipelineSync(wire.conn)

    cdef bint put_row(self, Wire wire, object item) noexcept:
        cdef Binds binds
        if type(item) is not Binds:
            return put_text(wire.conn, <bytes>item)
        binds = <Binds>item
        return pq.sendQueryPrepared(
            wire.conn, b"", binds.count, binds.values, binds.lengths, binds.formats, 0)

    cdef object item_of(self, Py_ssize_t number):
        """What a result belongs to; None for BEGIN and COMMIT."""
        number -= self.opening is not None
        if 0 <= number < PyList_GET_SIZE(self.items):
            return <object>PyList_GET_ITEM(self.items, number)
        return None

    cdef Taken take(self, Wire wire, PGresult *res) except? MORE:
        cdef int status = pq.resultStatus(res)
        if status != PGRES_COMMAND_OK and status != PGRES_TUPLES_OK:
            refuse_copy(res)
            if self.failed == NULL and status != PGRES_PIPELINE_ABORTED:
                self.failed = res
            else:
                pq.clear(res)
            return MORE                 # `taken` stays at what has failed
        item = self.item_of(self.taken)
        if item is not None and type(item) is not Form:
            self.batch.note(self, item, res)
            self.done += 1
            if self.done % WATCHED == 0 or len(self.values) <= SMALL:
                self.keep_up(wire)
        else:
            pq.clear(res)
            if self.taken == 0 and self.opening is not None and self.batch.session is not None:
                self.batch.session.status = BEGUN
        self.taken += 1
        return MORE

    cdef int keep_up(self, Wire wire) except -1:
        """The server has executed some: the time of those that follow begins."""
        if self.limit < NEVER:
            self.deadline = self.batch.newest.deadline = wire.loop.time() + self.limit
        return 0

    cdef object outcome(self, Wire wire):
        cdef PGresult *res = self.failed
        if res == NULL:
            self.expect_all(wire)
            return len(self.values)
        item = self.item_of(self.taken)
        suspect = type(item) is Form or type(item) is Binds and nothing_was_done(res)
        self.failed = NULL
        error = result_error(wire.conn, res, wire.codec, self.batch.impl)
        if self.batch.failed:
            raise error                 # what it is behind has failed
        self.batch.failed = True
        text = self.text_of_row(item)
        give_failure(self.batch.impl, text)
        if item is not None:
            self.batch.failed_at = self.first + self.done
            self.batch.suspect = text if suspect else None
        raise error

    cdef int expect_all(self, Wire wire) except -1:
        """Nothing has failed: there is one result for each of what was sent."""
        cdef Py_ssize_t sent = len(self.items) + (self.opening is not None) + (self.ending is not None)
        if self.taken != sent:
            wire.close()
            raise psycopg2.DatabaseError(f"the server sent {self.taken} results for {sent} statements")
        return 0

    cdef bytes text_of_row(self, object item):
        if item is None:
            return self.opening if self.taken == 0 and self.opening is not None else self.ending
        if type(item) is bytes:
            return item
        return self.batch.impl.mogrify(
            self.batch.operation, self.batch.values_of(self.values[self.done]))

    cdef object reason(self, Wire wire, object error):
        """What the server has said before it went, if it has."""
        cdef PGresult *res = self.failed
        if res == NULL:
            return error
        self.failed = NULL
        said = result_error(wire.conn, res, wire.codec, self.batch.impl)
        return error if said.pgcode is None else said


cdef class Trial(Request):

    def __cinit__(self):
        self.extended = True

    cdef int send(self, Wire wire) except -1:
        cdef Form form = self.form
        cdef PGconn *conn = wire.conn
        cdef bint sent
        enter_pipeline(wire, None)
        if self.stage == UNDO:
            sent = put_text(conn, b"ROLLBACK TO SAVEPOINT aiopgx") \
                and put_text(conn, b"RELEASE SAVEPOINT aiopgx")
        elif self.stage == LOOK:
            sent = put_text(conn, self.question)
        else:
            sent = put_text(conn, b"SAVEPOINT aiopgx") and put_form(conn, form, form.signature) \
                and (form.floats is None or put_form(conn, form, form.without_floats())) \
                and put_text(conn, b"RELEASE SAVEPOINT aiopgx")
        if not sent or not pq.pipelineSync(conn):
            broken_pipeline(wire)
        return 0

    cdef Taken take(self, Wire wire, PGresult *res) except? MORE:
        cdef int status = pq.resultStatus(res)
        refuse_copy(res)
        try:
            if status == PGRES_TUPLES_OK:
                (<Plans>wire.plans).note_types(res, self.form.plan)
            elif status != PGRES_COMMAND_OK:
                self.failed = True
            elif self.taken == 0:
                self.saved = True
            elif self.taken == 2:
                self.form.note(res)
            elif self.taken == 4 and self.form.floats is not None:
                self.form.note_floats(res)
            self.taken += 1
        finally:
            pq.clear(res)
        return MORE

    cdef object outcome(self, Wire wire):
        if self.failed and self.saved and self.stage == ASK:
            self.stage = UNDO
            return AGAIN
        if not self.failed and self.stage == ASK:
            self.question = self.form.plan.question(wire.plans)
            if self.question is not None:
                self.stage = LOOK
                return AGAIN
        self.form.good = not self.failed and self.form.plan.fits(wire.plans)
        return 0


def literal(Wire wire, impl, operation, parameters):
    """What impl.mogrify() gives."""
    cdef bytes text = merge(operation, parameters) if wire.native and wire.plain else None
    if text is None:
        refuse_large(parameters)
        text = impl.mogrify(operation, parameters)
    return text


# --- the batch ------------------------------------------------------------------------------------

cdef Request last_in_flight(Wire wire):
    return wire.sent[len(wire.sent) - 1] if wire.sent else wire.head


cdef long rowcount_of(PGresult *res) noexcept:
    cdef const char *affected
    if pq.resultStatus(res) == PGRES_TUPLES_OK:
        return pq.ntuples(res)
    affected = pq.cmdTuples(res)
    return atol(affected) if affected[0] else -1


cdef bint _is_setting(PGconn *conn, const char *name, const char *wanted) noexcept:
    cdef const char *value = pq.parameterStatus(conn, name)
    return value != NULL and strncmp(value, wanted, 20) == 0


cdef class Batch:
    """One statement for many parameter sets; for one use.

    impl: the psycopg2 cursor.
    timeout: seconds for the execution of each set, or None.
    session: whose transaction it is, where the library opens transactions.
    own: the transaction is to be the batch's.
    native: whether our own road may be taken.
    """

    def __cinit__(self, Wire wire, impl, operation, timeout, session, bint own, bint native, bint echo):
        check_timeout(timeout)
        self.wire, self.impl, self.operation, self.session = wire, impl, operation, session
        self.timeout, self.own, self.echo = timeout, own, echo
        self.forms = {}
        self.rows = Rows.__new__(Rows)
        if native and wire.native and wire.plain and pipelines and not is_closed(impl):
            self.look_at(operation)

    def __dealloc__(self):
        if self.last != NULL:
            pq.clear(self.last)

    cdef int look_at(self, operation) except -1:
        cdef Text text
        cdef Plans plans = self.wire.plans
        if not (_is_setting(self.wire.conn, b"standard_conforming_strings", b"on")
                and _is_setting(self.wire.conn, b"client_encoding", b"UTF8")):
            return 0
        text = verdict(operation, True)
        if not text.single or text.changes_session or text.kind not in manipulating:
            return 0
        self.text = text
        self.binds = text.eligible and plans is not None and plans.threshold >= 0
        return 0

    # Taking

    def fill(self, iterator, Py_ssize_t limit):
        """Take sets off an iterator, but not for long."""
        cdef PyObject *item
        cdef bint plain = type(iterator) in plain_iterators
        cdef double end = monotonic() + TAKING
        while self.wants(limit):
            item = PyIter_Next(iterator)
            if item == NULL:
                self.exhausted = True
                return
            parameters = <object>item
            Py_DECREF(parameters)
            if not plain or self.count % WATCHED == 0:
                self.known = 0
            self.add(parameters)
            if self.count % 8 == 0 and monotonic() > end:
                return

    cpdef bint wants(self, Py_ssize_t limit) except -1:
        return not self.odd and len(self.rows.values) < limit and self.rows.size < MAX_SIZE

    def end(self):
        """The iterable has no more."""
        self.exhausted = True

    def take(self, parameters):
        """Take a set."""
        self.known = 0
        self.add(parameters)

    cdef int add(self, parameters) except -1:
        if self.text is None or not (self.add_bound(parameters) or self.add_text(parameters)):
            self.odd, self.parameters = True, parameters
            return 0
        if self.echo:
            if self.own and self.count == 0:
                self.log("BEGIN", None)
            self.log(self.operation, parameters)
        self.count += 1
        return 0

    cdef int log(self, operation, parameters) except -1:
        logger.info(operation)
        logger.info("%r", parameters)
        return 0

    cdef bint add_bound(self, object parameters) except -1:
        cdef tuple values
        cdef Binds binds
        cdef Form form
        if not self.binds:
            return False
        values = self.text.arrange(parameters)
        if values is None or self.text.judge(values) != SAME:
            return False
        form = self.form
        binds = self.bind(values, form)
        if binds is None:
            return False
        if form is None or not form.covers(binds):
            form = self.form_of(values)
            if form is None:
                return False
            binds = self.bind(values, form)
            if binds is None or not form.covers(binds):
                return False
        if not form.admits(values, not self.own):
            return False
        if self.form is not form or not self.rows.parsed:
            self.rows.items.append(form)
            self.rows.parsed = True
            self.form = form
        self.rows.add(binds, values, binds.used)
        return True

    cdef Binds bind(self, tuple values, Form form):
        """Binds.of(), which need not look at the adapters of each row.

        form: floats are bound as this one wants them.
        """
        cdef Py_ssize_t i
        cdef bytes untyped = self.text.untyped(values)
        cdef bytes floats = None if form is None else form.floats
        cdef Binds binds = Binds.__new__(Binds)
        cdef double number
        binds.make_places(self.text.count)
        binds.known = self.known
        for i in range(self.text.count):
            value = <object>PyTuple_GET_ITEM(values, i)
            if floats is not None and PyBytes_AS_STRING(floats)[i] and PyFloat_CheckExact(value) \
                    and isfinite(PyFloat_AS_DOUBLE(value)) and binds.is_own(KIND_FLOAT, None):
                number = PyFloat_AS_DOUBLE(value)
                # a numeric literal has no negative zero
                put_double(
                    binds.begin(<int>i, FLOAT8, 1, 8), 0.0 if number == 0 else number)
            elif not binds.add(
                    <int>i, value,
                    untyped is not None and PyBytes_AS_STRING(untyped)[i] != 0):
                return None
        binds.settle()
        self.known = binds.known
        return binds

    cdef Form form_of(self, tuple values):
        """The Form for a row; None where there is none yet: it may be tried."""
        cdef Form form
        cdef Binds binds = self.bind(values, None)
        cdef Binds others
        if binds is None:
            return None
        form = self.forms.get(binds.signature())
        if form is not None:
            return form
        for form in self.forms.values():
            others = self.bind(values, form)
            if form.good and others is not None and form.covers(others):
                return form
        if self.candidate is not None or self.trials >= MAX_TRIALS:
            return None
        self.candidate = Form.of(self.text, binds, values)
        return None

    cdef bint add_text(self, object parameters) except -1:
        """As a text of one statement: if all of its literals are psycopg2's own."""
        cdef bytes text = merge(self.operation, parameters)
        if text is None:
            if type(parameters) is dict:
                values = tuple(parameters.values())
            elif type(parameters) is list or type(parameters) is tuple:
                values = tuple(parameters)
            else:
                return False
            if Binds.of(values, None) is None:
                return False
            try:
                text = self.impl.mogrify(self.operation, parameters)
            except Exception:
                return False            # execute() will say it
        if memchr(PyBytes_AS_STRING(text), 0, PyBytes_GET_SIZE(text)) != NULL:
            return False
        self.rows.add(text, None, PyBytes_GET_SIZE(text))
        self.rows.parsed = False        # a statement without name lasts until the next
        return True

    # Sending

    @property
    def filled(self):
        """How many sets are taken and not sent."""
        return len(self.rows.values)

    def put(self, bint last):
        """Send what was taken, and maybe a Trial behind it; the waiters. Raises as Wire.put() does.

        last: nothing follows; a transaction of the batch's own is to end.
        """
        cdef Rows rows = self.rows
        cdef Trial trial
        if is_closed(self.impl) or self.wire.is_closed():
            raise self.wire.closed_error("cursor already closed")
        self.rows = Rows.__new__(Rows)
        rows.batch, rows.session = self, self.session
        rows.first = self.count - len(rows.values)
        rows.ending = b"COMMIT" if last and self.own else None
        rows.form, rows.previous = self.form, self.newest
        self.newest = rows
        if self.echo and rows.ending is not None:
            self.log("COMMIT", None)
        waiters = [self.wire.put(rows, self.timeout)]
        if self.candidate is not None and not last:
            trial = Trial.__new__(Trial)
            trial.form, trial.session = self.candidate, self.session
            self.forms[trial.form.signature] = trial.form
            self.candidate = None
            self.trials += 1
            waiters.append(self.wire.put(trial, self.timeout))
        return waiters

    cdef int note(self, Rows rows, object item, PGresult *res) except -1:
        """A row was executed; takes the result over."""
        if self.last != NULL:
            pq.clear(self.last)
        self.last = res
        self.last_item = item
        self.last_values = rows.values[rows.done]
        self.executed += 1
        self.add_up(rowcount_of(res))
        return 0

    cdef int add_up(self, long rowcount) noexcept:
        self.total = -1 if rowcount < 0 or self.total < 0 else self.total + rowcount
        return 0

    def note_odd(self, long rowcount):
        """execute() has executed the odd set."""
        self.odd, self.parameters = False, None
        if self.last != NULL:
            pq.clear(self.last)
            self.last = NULL
        self.count += 1
        self.executed += 1
        self.add_up(rowcount)

    # The end

    def show(self, bint total):
        """Let psycopg2's cursor show the last row that was executed; False if execute() did that.

        total: as executemany() does, with the sum.
        """
        cdef PGresult *res = self.last
        if res == NULL:
            return False
        query = self.last_item
        if type(query) is not bytes:
            query = self.impl.mogrify(self.operation, self.values_of(self.last_values))
        oid = 0 if pq.resultStatus(res) == PGRES_TUPLES_OK else pq.oidValue(res)
        count = self.total if total else rowcount_of(res)
        with suppress(psycopg2.NotSupportedError):
            give_command(self.impl, (
                count, 0, oid, None, decode(self.wire.codec, pq.cmdStatus(res)), query))
        return True

    cdef object values_of(self, tuple values):
        """The parameters of a row, for mogrify()."""
        names = self.text.names
        return values if names is None else dict(zip(names, values, strict=True))
