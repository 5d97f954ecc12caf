"""Stream: a statement whose rows are given as they arrive, in batches that libpq makes.

A batch is taken only when the one before is used up, and while there is one nothing is read: so the
server waits for whoever uses the rows, and memory holds a batch and what libpq has read.

Who stops early is gone at once: the request goes on as housekeeping, which cancels the statement on
the server and throws away what still comes. The next statement waits for its end, and for that of a
cancel request under way, which would hit it. In a transaction, which a cancel would abort, the rest
is read instead. After `cancel_timeout` seconds the connection is closed.
"""

from cpython.bytes cimport PyBytes_AS_STRING
from libc.limits cimport INT_MAX

import psycopg2
from psycopg2.extensions import TRANSACTION_STATUS_INTRANS

from ._cancel cimport Stopper
from ._core cimport MORE, STALLED, Request, Taken, Wire, check_timeout
from ._libpq cimport (
    PGRES_COPY_IN,
    PGRES_COPY_OUT,
    PGRES_SINGLE_TUPLE,
    PGRES_TUPLES_CHUNK,
    PGRES_TUPLES_OK,
    PGresult,
    pq,
)
from ._plans cimport Plans
from ._requests cimport Statement, keep_unseen, written
from ._rows cimport Result
from ._structs cimport give_command, is_closed

cdef extern from "_frames.h":
    pass

cdef int INTRANS = TRANSACTION_STATUS_INTRANS

NOTHING = object()  # in place of a row: None may be one


cdef class Stream(Statement):
    """A text in the simple protocol, of whose statements one may give rows.

    It is what its cursor's attributes are read from, also when it is over.
    """

    cdef Wire wire              # until it is over
    cdef int size               # rows of a batch
    cdef int before             # the transaction status in front of it
    cdef Result rows            # the batch at hand; None in front of the first
    cdef Result last            # what the last statement gave, without the rows; or None
    cdef long total             # rows that have come
    cdef bint complete          # all rows have come
    cdef readonly bint over
    cdef object failure
    cdef object wake            # the future of whoever waits for rows, or None
    cdef Stopper stopper

    # Of a Request

    cdef bint sent_by(self, Wire wire) except -1:
        self.before = wire.transaction_status()
        if not pq.sendQuery(wire.conn, PyBytes_AS_STRING(<bytes>self.query)):
            return False
        if self.size > 1 and pq.setChunkedRowsMode != NULL:
            return pq.setChunkedRowsMode(wire.conn, self.size)
        return pq.setSingleRowMode(wire.conn)

    cdef Taken take(self, Wire wire, PGresult *res) except? MORE:
        cdef int status = pq.resultStatus(res)
        cdef bint some = status == PGRES_TUPLES_CHUNK or status == PGRES_SINGLE_TUPLE
        if some or status == PGRES_TUPLES_OK:
            if self.complete:
                self.refused = "can't stream the rows of several statements"
            self.complete = self.complete or not some
        if not some:
            return Statement.take(self, wire, res)
        if self.housekeeping or self.refused is not None:
            pq.clear(res)
            return MORE
        return self.take_rows(wire, res)

    cdef Taken take_rows(self, Wire wire, PGresult *res) except? MORE:
        self.total += pq.ntuples(res)
        if self.rows is None:
            self.rows = Result.make(
                res, wire.raw, wire.codec, self.impl, self.shape, self.query)
            self.rows.count = -1
        else:
            self.rows.feed(res)
        self.full = True
        self.deadline = float("inf")    # the time of whoever uses the rows does not count
        self.woken()
        return STALLED

    cdef object outcome(self, Wire wire):
        if pq.enterPipelineMode != NULL:
            end_batches(wire)
        if self.housekeeping:
            keep_unseen(wire, self.kept(), self.impl)
        else:
            self.last = Statement.outcome(self, wire)
        return None

    cdef int answer(self, Wire wire, object outcome) except -1:
        if self.over:                   # out of time, and then closed
            return 0
        self.over = True
        self.wire = self.session = None
        if isinstance(outcome, BaseException):
            self.failure = outcome
            self.full = False           # what is left of a batch goes with its connection
        if self.stopper is not None:
            self.stopper.end()
            self.stopper = None
        self.woken()
        return Request.answer(self, wire, None)     # `failure` is taken out, this would stay

    cdef int woken(self) except -1:
        wake, self.wake = self.wake, None
        if wake is not None and not wake.done():
            wake.set_result(None)
        return 0

    # Of whoever uses the rows

    def next(self):
        """The next row, NOTHING if it is not here."""
        if not self.full:
            return NOTHING
        row = self.rows.next_row()
        if row is None and self.rows.exhausted:
            self.full = False
            return NOTHING
        return row

    def reshape(self, int shape):
        """Give rows of another shape from now on."""
        if self.rows is not None:
            self.rows.reshape(shape)
        self.shape = shape

    def make(self, maker):
        """Set what makes the rows of those that are here and that come."""
        self.rows.maker = maker

    def wait(self):
        """A future that is done when next() gives a row or all is over; None if that is so now."""
        cdef Wire wire = self.wire
        if self.begun:
            wire.pull()
        if self.full or self.over:
            return None
        if self.begun:
            wire.resume()
            wire.expect(self)
        self.wake = wire.loop.create_future()
        return self.wake

    def take_failure(self):
        """The exception that ended it, or None; once."""
        failure, self.failure = self.failure, None
        return failure

    def stop(self):
        """Nobody wants the rows any more. May be called from anywhere; the rest is for later."""
        cdef Wire wire = self.wire
        self.full = False
        if self.over or self.housekeeping or wire.is_forked():
            return
        if not self.begun:
            wire.abandon(self.waiter)
            return
        wire.retire(self, self.before)
        if not wire.loop.is_closed():
            wire.loop.call_soon_threadsafe(self.go)

    def go(self):
        """Bring the server to its end."""
        cdef Wire wire = self.wire
        if wire is None:
            return
        self.limit = wire.cancel_timeout
        wire.expect(self)
        wire.pull()
        if not self.over:
            wire.resume()
            if self.before != INTRANS:
                self.stopper = Stopper(wire.loop, self.asked)
                self.stopper.start(wire.conn, wire.raw)

    def asked(self, under_way):
        """Whether a cancel request is under way."""
        self.held = under_way
        if not under_way:
            self.wire.pull()

    # Of the cursor

    def fetchone(self):
        """Raise ProgrammingError: it is the iteration that gives the rows. As the other fetches."""
        raise psycopg2.ProgrammingError("no results to fetch: the iteration of a stream gives them")

    def fetchmany(self, size=None):
        return self.fetchone()

    def fetchall(self):
        return self.fetchone()

    def scroll(self, value, mode="relative"):
        return self.fetchone()

    @property
    def description(self):
        """As Result has it; None in front of the first rows."""
        result = self.last if self.rows is None else self.rows
        return None if result is None else result.description

    @property
    def rowcount(self):
        """The number of rows given or changed; -1 until all is over."""
        if self.last is None or self.complete:
            return -1 if self.last is None else self.total
        return self.last.rowcount

    @property
    def rownumber(self):
        """The index of the row that is given next."""
        return self.total if self.rows is None else self.total - self.rows.rows + self.rows.position

    @property
    def lastrowid(self):
        return 0 if self.last is None else self.last.lastrowid

    @property
    def statusmessage(self):
        """The command tag, None until all is over."""
        if self.last is None:
            return None
        # libpq writes the tag into the last batch, if rows were left for it
        return self.last.statusmessage or self.rows.statusmessage

    def hand_over(self, impl):
        """Leave a psycopg2 cursor as after a statement without rows."""
        give_command(impl, (
            self.rowcount, 0, self.lastrowid, None, self.statusmessage, self.query))


cdef int end_batches(Wire wire) noexcept:
    """libpq goes on to make batches for the next statement, if that is the first in pipeline mode.

    It stops when something is sent otherwise, and has done so when it refuses what is no statement.
    A change of mode clears the error, which would be part of the next.
    """
    pq.sendQueryParams(wire.conn, NULL, 0, NULL, NULL, NULL, NULL, 0)
    pq.setnonblocking(wire.conn, 0)
    return pq.setnonblocking(wire.conn, 1)


def start(Wire wire, impl, int shape, operation, parameters, size, timeout):
    """Send a statement whose rows are given as they arrive: a Stream. After refusal()."""
    cdef Stream request
    check_timeout(timeout)
    query, _ = written(wire, impl, operation, parameters)
    if wire.plans is not None:
        (<Plans>wire.plans).heed(operation, parameters is not None)
    refusal = wire.refusal("cursor.stream")     # an adapter may have executed something
    if refusal is not None:
        raise refusal
    if is_closed(impl) or wire.is_closed():
        raise wire.closed_error("cursor already closed")
    request = Stream.__new__(Stream)
    request.impl, request.query, request.shape = impl, query, shape
    request.size = min(size, INT_MAX)
    request.wire = wire
    request.session = request       # nobody shares the connection with a stream
    wire.put(request, timeout)
    return request
