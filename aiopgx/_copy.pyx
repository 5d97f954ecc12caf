"""Copy: a COPY FROM STDIN or TO STDOUT, as a request on the Wire's queue.

The data goes by in the task that called: `copy.py` takes it out of the program's file, or puts it there.

    copy = open_copy(...)           sends the statement; copy.waiter gets [None], [a Result], [an exception]
    await copy.changed()            until copy.direction is known, or copy.over
    copy.put(data), copy.end()      COPY FROM: False from put() means: first await copy.room()
    copy.fetch(), copy.give_up()    COPY TO: what has come; nothing more is wanted

Memory is bounded both ways: what put() has taken is in libpq's buffer until the socket takes it, and
who puts waits for that; of rows that nobody fetches at most HELD bytes are read, and then the Wire
pauses until they have been fetched.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdlib cimport atol

import psycopg2
from psycopg2.extensions import TRANSACTION_STATUS_INTRANS

from ._cancel cimport Stopper
from ._core cimport MORE, STALLED, Taken, Wire, check_timeout
from ._encode cimport Encoder
from ._errors cimport connection_error, decode, layout_known
from ._libpq cimport (
    PGRES_COMMAND_OK,
    PGRES_COPY_IN,
    PGRES_COPY_OUT,
    PGRES_TUPLES_OK,
    PGresult,
    pq,
)
from ._limits cimport LARGEST
from ._plans cimport Plans
from ._requests cimport Statement
from ._rows cimport SHAPE_TUPLE
from ._socket cimport socket_next
from ._structs cimport cursors_known, give_command, give_failure, is_closed

from ._libpq import why_not

cdef extern from "_frames.h":
    pass

cdef int INTRANS = TRANSACTION_STATUS_INTRANS

cdef enum:
    FLUSHED = 1 << 15           # bytes that are worth a system call
    BURST = 1 << 18             # bytes after which the event loop gets its turn
    HELD = 1 << 18              # bytes of rows that nobody has fetched, before reading pauses
    DISCARDED = 1 << 26         # bytes that are read for nobody, to keep the connection


cdef class Copy(Statement):
    """One COPY. The text may be any other statement, too: then the outcome is its Result."""

    def __cinit__(self):
        self.rows = []
        self.discarded = -1

    cdef int send(self, Wire wire) except -1:
        self.wire = wire
        self.before = wire.transaction_status()
        return Statement.send(self, wire)

    cdef Taken take(self, Wire wire, PGresult *res) except? MORE:
        cdef int status = pq.resultStatus(res)
        cdef Taken taken
        if status != PGRES_COPY_IN and status != PGRES_COPY_OUT:
            return Statement.take(self, wire, res)
        pq.clear(res)
        if self.ended:                  # the file was for the one before
            taken = self.refuse_copy(wire, status)
            self.refused = "can't execute more than one COPY in a statement"
            return taken
        if self.direction == UNKNOWN:
            self.direction = COPY_FROM if status == PGRES_COPY_IN else COPY_TO
            self.wake()
        return STALLED if self.direction == COPY_FROM else self.take_rows(wire)

    cdef object outcome(self, Wire wire):
        cdef int status
        if not wire.native:
            wire.poll_notices()
        status = -1 if self.result == NULL else pq.resultStatus(self.result)
        if self.direction == UNKNOWN or self.refused is not None or (
                status != PGRES_COMMAND_OK and status != PGRES_TUPLES_OK):
            return Statement.outcome(self, wire)
        if self.discarded >= 0:
            return None
        # as psycopg2 leaves its cursor: without a command tag
        give_command(
            self.impl, (atol(pq.cmdTuples(self.result)), 0, 0, None, "", self.query))
        return None

    cdef int answer(self, Wire wire, object outcome) except -1:
        self.over = True
        self.wire = None
        if self.stopper is not None:
            self.stopper.end()
            self.stopper = None
        self.wake()
        return Statement.answer(self, wire, outcome)

    # Waiting

    cdef int wake(self) except -1:
        future, self.future = self.future, None
        if future is not None and not future.done():
            future.set_result(None)
        return 0

    def _wake(self):
        self.wake()

    def changed(self):
        """A future that is done when something has happened: see at the head of the file."""
        future = self.waiter.get_loop().create_future()
        if self.over:
            future.set_result(None)
        else:
            self.future = future
        return future

    def room(self):
        """A future that is done when more may be put."""
        future = self.changed()
        if self.wire is not None and not self.wire.writing:
            self.wire.loop.call_soon(self._wake)
        return future

    cdef int drained(self, Wire wire) except -1:
        return self.wake()

    # COPY FROM

    cdef int incoming(self, Wire wire) except -1:
        """Hear of an error while data is sent; libpq keeps it to itself until all is sent.

        The first byte the server sends tells it, if the connection is not encrypted.
        """
        cdef int first
        if self.direction != COPY_FROM or self.ended or self.unheard:
            return 0
        first = socket_next(wire.fd)
        if first == c"E":
            self.end(b"the server has reported an error")
        elif first >= 0:
            self.unheard = True         # the next byte may be in the midst of a message
        return 0

    def put(self, bytes data):
        """Send a part of the data; False if whoever has more waits for room() first."""
        self.write(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        return self.may_go_on()

    cdef int write(self, const char *data, Py_ssize_t length) except -1:
        cdef Wire wire = self.wire
        cdef int sent
        if wire is None or self.ended:
            return 0                    # it has failed: the waiter tells why
        if wire.raw.closed:
            return wire.closed_elsewhere()
        self.incoming(wire)
        if self.ended:
            return 0
        while length > LARGEST:         # the server takes no message of 1 GiB
            self.write(data, LARGEST)
            data += LARGEST
            length -= LARGEST
        if self.ended:
            return 0
        wire.keep_notices()
        try:
            sent = pq.putCopyData(wire.conn, data, <int>length)
        finally:
            wire.keep_no_notices()
        if wire.texts:
            wire.show_notices()
        if sent == 0:
            raise MemoryError
        if sent < 0:
            raise wire.broken()
        self.unsent += length
        self.burst += length
        if self.unsent >= FLUSHED:
            self.unsent = 0
            wire.flush()
        return 0

    cdef bint may_go_on(self) except -1:
        if self.wire is None:
            return True                 # it is over, see there
        if self.wire.writing or self.ended or self.burst >= BURST:
            self.burst = 0
            return False
        return True

    def put_encoded(self, Encoder encoder):
        """The same of what has been encoded; it is gone from there."""
        self.sent += encoder.used
        self.write(encoder.data, encoder.used)
        encoder.used = 0
        return self.may_go_on()

    def end(self, bytes error=None):
        """No more data comes; because of an error, if one is given: then nothing is stored."""
        cdef Wire wire = self.wire
        if wire is None or self.ended:
            return
        if wire.raw.closed:
            wire.closed_elsewhere()
            return
        self.ended = True
        if pq.putCopyEnd(wire.conn, NULL if error is None else PyBytes_AS_STRING(error)) == 1:
            wire.flush()
        else:
            wire.lost(connection_error(wire.conn))

    # COPY TO

    cdef Taken take_rows(self, Wire wire) except? MORE:
        cdef char *data = NULL
        cdef int length
        while True:
            length = pq.getCopyData(wire.conn, &data, 1)
            if length <= 0:
                break
            try:
                self.keep_row(data, length)
            finally:
                pq.freemem(data)
        self.wake()
        if length < 0:
            self.ended = True
            return MORE                 # -2 is an error, which is the next result
        if self.discarded > DISCARDED:
            wire.close()                # the server is told to stop
        elif self.size >= HELD:
            wire.pause()
        return STALLED

    cdef int keep_row(self, char *data, int length) except -1:
        if self.discarded >= 0:
            self.discarded += length
        else:
            self.rows.append(PyBytes_FromStringAndSize(data, length))
            self.size += length
        return 0

    def fetch(self):
        """The rows that have come; reading goes on."""
        rows, self.rows = self.rows, []
        self.size = 0
        if self.wire is not None:
            self.wire.resume()
        return rows

    @property
    def in_transaction(self):
        """Whether it is a part of a transaction, which would be aborted if the server was asked to stop."""
        return self.before == INTRANS

    def stop(self):
        """See to the end: by reading on in a transaction, else by asking the server, until it is there.

        It is not over while a cancel request is under way.
        """
        cdef Wire wire = self.wire
        if wire is None:
            return
        self.limit = min(self.limit, wire.cancel_timeout)
        wire.expect(self)
        if self.before == INTRANS:
            return
        self.stopper = Stopper(wire.loop, self.asked)
        self.stopper.start(wire.conn, wire.raw)

    def asked(self, under_way):
        """Whether a cancel request is under way."""
        self.held = under_way
        if not under_way:
            self.wire.pull()

    def give_up(self, bytes error):
        """The program's side has failed: see to the COPY's end, and keep the connection usable."""
        if self.direction == COPY_TO:
            self.discarded = 0
            self.fetch()
        else:
            self.end(error)

    def failed(self):
        """Leave the cursor as after an error."""
        give_failure(self.impl, self.query)


cdef class Lookup(Statement):
    """A question to the server; the outcome is a list of rows, of texts as they come."""

    cdef object outcome(self, Wire wire):
        cdef PGresult *res = self.result
        cdef int row, column
        if not wire.native:
            wire.poll_notices()
        if res == NULL or pq.resultStatus(res) != PGRES_TUPLES_OK:
            Statement.outcome(self, wire)
            raise psycopg2.DatabaseError("the server sent no rows for the columns of the table")
        return [
            tuple([decode(wire.codec, pq.getvalue(res, row, column))
                   for column in range(pq.nfields(res))])
            for row in range(pq.ntuples(res))
        ]


def open_copy(Wire wire, impl, bytes query, int shape, timeout):
    """Send a COPY; after refusal()."""
    return _open(wire, Copy.__new__(Copy), impl, query, shape, timeout)


def look_up(Wire wire, bytes query, timeout):
    """Ask the server; the future gets [a list of tuples of str] or [an exception]. After refusal()."""
    return _open(wire, Lookup.__new__(Lookup), wire.control(), query, SHAPE_TUPLE, timeout).waiter


cdef object _open(Wire wire, Statement request, impl, bytes query, int shape, timeout):
    if not pq.libVersion:
        raise psycopg2.NotSupportedError(f"COPY needs psycopg2's libpq: {why_not}")
    if not (layout_known and cursors_known):
        raise psycopg2.NotSupportedError(
            "COPY needs the inside of psycopg2's cursors and exceptions, which this psycopg2 "
            f"({psycopg2.__version__}) lays out in a way that is not known")
    check_timeout(timeout)
    if is_closed(impl) or wire.is_closed():
        raise wire.closed_error("cursor already closed")
    if b"\0" in query:
        raise ValueError("a statement cannot contain NUL (0x00) characters")
    if wire.plans is not None:
        (<Plans>wire.plans).heed(query, False)      # it may be another statement
    request.impl, request.query, request.shape = impl, query, shape
    wire.put(request, timeout)
    return request
