"""Wire: one PGconn driven by an event loop.

A request is sent at once and answered through a future. It gives a list, out of which the caller
takes what was asked for, or the exception to raise: a future that raised it would keep it and its
frames alive, and a dropped connection open, until the task waits again.
What is legal where:

    state       execute   socket readable              becomes
    CONNECTING  refused   psycopg2's poll()            IDLE
    IDLE        yes       psycopg2's poll(): notices,  BUSY, FOREIGN
                          notifies, end of connection
    BUSY        refused   libpq: read until done       IDLE
    FOREIGN     refused   psycopg2's poll()            IDLE
    CLOSED      refused   -

FOREIGN is psycopg2's own execution: foreign cursor classes, or the psycopg2 road. The loop holds
the Wire and the Wire holds nothing above it, so a connection that is dropped is collected.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memchr

import asyncio
import os
import weakref
from asyncio import _get_running_loop
from contextlib import suppress
from copy import copy

import psycopg2
from psycopg2.extensions import (
    POLL_OK,
    POLL_WRITE,
    TRANSACTION_STATUS_ACTIVE,
    TRANSACTION_STATUS_IDLE,
    TRANSACTION_STATUS_UNKNOWN,
    Notify,
)

from ._cancel import cancel_and_close

from cpython.pycapsule cimport PyCapsule_GetPointer

from ._cancel cimport cancel_query
from ._errors cimport (
    codec_of,
    connection_error,
    decode,
    farewell_error,
    layout_known,
    make_error,
    readable_error,
    result_error,
    utf8_codec,
)
from ._libpq cimport (
    CONNECTION_BAD,
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
    PG_DIAG_SEVERITY_NONLOCALIZED,
    PG_DIAG_SQLSTATE,
    NoticeProcessor,
    NoticeReceiver,
    PGconn,
    PGnotify,
    PGresult,
    pq,
)
from ._rows cimport Result
from ._socket cimport socket_ready
from ._statements cimport merge, quotes_plainly
from ._structs cimport genuine_connection, give_failure, is_closed, take_connection

cdef extern from "_frames.h":
    pass

cdef enum State:
    CONNECTING
    IDLE
    BUSY
    FOREIGN
    CLOSED

# Reads in one go of the event loop: a fast server must not starve the other connections.
cdef enum:
    MAX_READS = 64

cdef double NEVER = float("inf")

cdef int NO_TRANSACTION = TRANSACTION_STATUS_IDLE

# Seconds between looks at a connection that owes an answer: whoever closes the psycopg2 connection
# itself takes the socket away, and no event tells us.
cdef double LOOK = 1.0

# Counts the forks above this process: a Wire made below another count is the parent's.
cdef unsigned int _forks = 0

# The wire that watches a file descriptor. libpq and `raw.close()` close sockets without our
# knowledge, and the number comes back for another connection.
cdef object _watchers = weakref.WeakValueDictionary()

# Who reads while libpq's notice callbacks may be called: itself, or by psycopg2's poll().
cdef Wire _reader = None
cdef Wire _poller = None
cdef NoticeProcessor _psycopg2_notice = NULL
cdef NoticeReceiver _default_receiver = NULL

# Notices that are kept, if psycopg2's list is: as psycopg2 has it.
cdef enum:
    MAX_NOTICES = 50


def evict(int fd, loop):
    """A socket with this number is new: the connection that watched it before is closed."""
    cdef Wire other = _watchers.get(fd)
    if other is None:
        return
    if other.loop is not loop and other.loop.is_running():
        other.loop.call_soon_threadsafe(other._on_readable)
    else:
        other._closed_elsewhere()


def _after_fork():
    global _forks
    _forks += 1
    _watchers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


cdef void _on_result(void *arg, const PGresult *res) noexcept with gil:
    """What an idle connection hears: a notice, or why the server ends the session."""
    cdef const char *severity = pq.resultErrorField(res, PG_DIAG_SEVERITY_NONLOCALIZED)
    cdef const char *sqlstate
    if _poller is not None and severity != NULL and severity[0] in b"FP":     # FATAL, PANIC
        sqlstate = pq.resultErrorField(res, PG_DIAG_SQLSTATE)
        _poller.farewell = (
            <bytes>pq.resultErrorMessage(res), None if sqlstate == NULL else <bytes>sqlstate)
    _default_receiver(arg, res)


cdef void _on_notice(void *arg, const char *message) noexcept with gil:
    if _reader is None:
        _psycopg2_notice(arg, message)
    else:
        _reader.texts.append(<bytes>message)    # libpq is at work: nothing may be collected here


cdef str _road = os.environ.get("AIOPGX_ROAD") or "native"
if _road not in ("native", "psycopg2"):
    raise ImportError(f"AIOPGX_ROAD must be native or psycopg2, not {_road!r}")
# The native road needs libpq's functions and the layout of psycopg2's exceptions.
native_road = bool(pq.libVersion and layout_known) and _road == "native"
cdef bint _native = native_road


cdef int check_timeout(timeout) except -1:
    if timeout is not None and not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout must be a number of seconds or None, not {timeout!r}")
    return 0


cdef object _frameless(error):
    """The same exception to be kept: it holds nobody's frames."""
    if isinstance(error, psycopg2.Error):
        return copy(error)
    return psycopg2.OperationalError(f"Connection closed: {error!r}")


cdef object _operational(error):
    """What those get who wait for notifications, whatever class the server's reason has."""
    kept = _frameless(error)
    if isinstance(kept, psycopg2.OperationalError):
        return kept
    told = psycopg2.OperationalError(str(kept))
    told.__cause__ = kept
    return told


cdef class Wire:
    """Drives one psycopg2 connection on one event loop.

    raw: what psycopg2.connect() gave; what is kept is the genuine connection behind proxies.
    queue: gets the notifications; `notifies`, its reading side, is closed with the connection.
    cancel_timeout: seconds that a query gets to stop after the connection was closed.
    """

    cdef object __weakref__
    cdef readonly object raw
    cdef readonly object loop
    cdef readonly bint native
    cdef readonly unsigned long rests   # requests that left no transaction open
    cdef readonly object leaving    # done when a session closed with a query in flight has ended
    cdef readonly object reason     # the exception with which the connection was lost, or None
    cdef double cancel_timeout
    cdef tuple farewell             # the server's last words to an idle connection, and SQLSTATE
    cdef object codec               # decodes texts
    cdef bint plain                 # simple parameters need not go through psycopg2
    cdef object queue
    cdef object notifies
    cdef PGconn *conn               # borrowed from raw: valid while raw is open
    cdef State state
    cdef unsigned int forks
    cdef int fd                     # -1 while nothing is watched
    cdef bint reading
    cdef bint writing
    # the request in flight
    cdef object waiter
    cdef object impl
    cdef object query
    cdef bytes queued               # what is sent when an `opening` has gone well
    cdef object copy_error
    cdef int shape
    cdef list texts                 # of notices that nobody has seen yet
    cdef PGresult *result           # owned
    # one timer a connection, which is armed again when it fires before the deadline
    cdef double limit               # seconds that the request has
    cdef double deadline
    cdef double timer_at
    cdef object timer

    def __cinit__(self, raw, loop, queue, notifies, cancel_timeout):
        self.raw = genuine_connection(raw)
        self.cancel_timeout = cancel_timeout
        self.loop = loop
        self.queue = queue
        self.notifies = notifies
        self.state = CONNECTING
        self.forks = _forks
        self.fd = -1
        self.deadline = NEVER
        self.texts = []

    def __dealloc__(self):
        if self.result != NULL:
            pq.clear(self.result)

    # What the rooms above ask

    @property
    def closed(self):
        """psycopg2's `closed`, 0 while the connection is open."""
        return self.raw.closed or <int>(self.state == CLOSED)

    @property
    def busy(self):
        """Whether a request is in flight: its answer has not been read."""
        return self.state == BUSY or self.state == FOREIGN or self.state == CONNECTING

    @property
    def forked(self):
        """Whether this process is a child of the one that made the connection."""
        return self.forks != _forks

    def look(self):
        """Hear what has come to an idle connection; whether it is open afterwards."""
        if self.state == IDLE and self.fd >= 0 and socket_ready(self.fd, False):
            self._on_readable()
        return not self.closed

    def refusal(self, str caller):
        """The error for what would hang or break (another loop or process, a second request), or None.
        """
        if self.forks != _forks:
            return RuntimeError(
                f"{caller}() called in a forked child process: a connection can't be shared "
                f"with the process that made it; connect again after the fork")
        if _get_running_loop() is not self.loop:
            return RuntimeError(
                f"{caller}() called on another event loop than the connection was made on")
        if self.waiter is not None:
            return RuntimeError(
                f"{caller}() called while another coroutine "
                f"is already waiting for incoming data")
        return None

    def closed_error(self, str text):
        """psycopg2's error for the use of what is closed; it tells why the connection was lost."""
        if self.reason is None or not self.closed:
            return psycopg2.InterfaceError(text)
        error = psycopg2.InterfaceError(f"{text}: {str(self.reason).strip()}")
        error.__cause__ = _frameless(self.reason)
        return error

    def connect(self, timeout):
        """Start the connection's dialogue; the future gets [None] or [an exception]."""
        refusal = self.refusal("connect")
        if refusal is not None:
            raise refusal
        if self.state != CONNECTING:
            raise RuntimeError("connect() called on a connection that was connected before")
        check_timeout(timeout)
        if pq.libVersion:
            self.conn = <PGconn *>PyCapsule_GetPointer(
                self.raw.get_native_connection(), b"psycopg2.connection.native_connection")
        waiter = self._wait(CONNECTING, timeout)
        self._on_connecting()
        return waiter

    def execute(self, impl, int shape, operation, parameters, timeout, bytes opening=None):
        """Send one statement on the native road; the future gets [its Result]. After refusal().

        psycopg2 adapts the parameters, so that the text is what it would have sent.
        opening: a command such as BEGIN to execute before; if it fails, that is the outcome.
        """
        cdef bytes query = None
        check_timeout(timeout)
        if is_closed(impl) or self.state == CLOSED:
            raise self.closed_error("cursor already closed")
        if parameters is None:
            query = impl.mogrify(operation)
        else:
            if self.plain:
                query = merge(operation, parameters)
            if query is None:
                query = impl.mogrify(operation, parameters)
        if self.waiter is not None:                     # an adapter may have done that
            raise self.refusal("cursor.execute")
        if memchr(PyBytes_AS_STRING(query), 0, PyBytes_GET_SIZE(query)) != NULL:
            raise ValueError("a statement cannot contain NUL (0x00) characters")
        if is_closed(impl) or self.state == CLOSED:
            raise self.closed_error("cursor already closed")
        if self.raw.isexecuting():
            raise make_error(
                psycopg2.ProgrammingError,
                "execute cannot be used while an asynchronous query is underway", impl)
        self.queued = None
        if opening is not None:
            self.queued = query
            query = opening
        if pq.status(self.conn) != CONNECTION_OK or not pq.sendQuery(
                self.conn, PyBytes_AS_STRING(query)):
            raise self._broken()
        self.impl = impl
        self.query = query
        self.shape = shape
        waiter = self._wait(BUSY, timeout)
        self._flush()
        return waiter

    def execute_foreign(self, start, operation, parameters, timeout):
        """Let psycopg2 execute: call `start`, drive poll(). The future gets [None]. After refusal()."""
        if self.state == CLOSED:
            raise self.closed_error("cursor already closed")
        check_timeout(timeout)
        start(operation, parameters)
        waiter = self._wait(FOREIGN, timeout)
        self._poll()
        return waiter

    def close(self):
        """Close now. A query in flight is cancelled on the server, in the background."""
        cdef State was = self.state
        self.state = CLOSED
        if self.forks != _forks:
            return                  # the session and the loop's selector are the parent's
        if self.loop.is_running() and _get_running_loop() is not self.loop:
            self.loop.call_soon_threadsafe(self._shut, was)
        else:
            self._shut(was)

    def _shut(self, int was):
        cdef bint unsent = self.writing
        self._unwatch()
        try:
            self._close_raw(was, unsent)
        finally:
            self.conn = NULL
            self._end(psycopg2.OperationalError("Connection closed"))

    cdef int _end(self, error) except -1:
        """Nothing comes any more: let go of everything, and tell those who wait."""
        self.state = CLOSED
        self._unwatch()
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.result != NULL:
            pq.clear(self.result)
            self.result = NULL
        if self.loop.is_closed():
            return 0
        self._answer(error)
        self.notifies.close(_operational(error))
        return 0

    cdef int _close_raw(self, int was, bint unsent) except -1:
        """Close the psycopg2 connection. unsent: a part of the query has not been sent."""
        if not (was == BUSY or was == FOREIGN) or self.raw.closed:
            self.raw.close()
        elif self.conn != NULL and take_connection(self.raw, self.conn):
            try:
                self.leaving = cancel_query(
                    self.conn, unsent, self.loop, self.cancel_timeout)
            finally:
                self.raw.close()
        else:
            self.leaving = cancel_and_close(self.raw, self.loop)
        return 0

    # The waiter and its deadline

    cdef object _wait(self, State state, timeout):
        self.state = state
        self.waiter = waiter = self.loop.create_future()
        self.limit = NEVER if timeout is None else timeout
        if self.limit <= 0:
            self._time_out()
        else:
            self._arm(self.loop.time(), self.limit)
        return waiter

    cdef int _arm(self, double now, double timeout) except -1:
        self.deadline = now + timeout
        if self.timer is None or self.timer_at > self.deadline:
            if self.timer is not None:
                self.timer.cancel()
            self._set_timer(now)
        return 0

    cdef int _set_timer(self, double now) except -1:
        self.timer_at = min(self.deadline, now + LOOK)
        self.timer = self.loop.call_at(self.timer_at, self._on_timer)
        return 0

    def _on_timer(self):
        self.timer = None
        try:
            self._look()
        except BaseException as error:
            self._broken_off(error)

    cdef int _look(self) except -1:
        """The timer has fired: for the deadline, or to see whether the connection is still ours."""
        cdef double now
        if self.waiter is None or self.state == CLOSED:
            return 0
        now = self.loop.time()
        if self.raw.closed:
            self._closed_elsewhere()
        elif now >= self.deadline:
            self._time_out()
        else:
            self._set_timer(now)
        return 0

    cdef int _time_out(self) except -1:
        self.deadline = NEVER
        if self.waiter is not None and not self.waiter.done():
            wanted = "connected" if self.state == CONNECTING else "answered"
            self.waiter.set_result([asyncio.TimeoutError(
                f"the server has not {wanted} within {self.limit:g} s")])
        return 0

    cdef object _done(self):
        """The request is over: its waiter, or None if nobody waits any more."""
        waiter = self.waiter
        self.waiter = None
        self.deadline = NEVER
        if self.state != CLOSED:
            self.state = IDLE
        return None if waiter is None or waiter.done() else waiter

    cdef int _answer(self, outcome) except -1:
        """The request is over: None or a Result if it went well, else the exception."""
        waiter = self._done()
        if waiter is not None:
            waiter.set_result([outcome])
        return 0

    # The socket

    cdef int _watch(self) except -1:
        self.fd = self.raw.fileno()
        evict(self.fd, self.loop)
        _watchers[self.fd] = self
        return 0

    cdef int _unwatch(self) except -1:
        if self.fd < 0:
            return 0
        if not self.loop.is_closed():
            # raises, and forgets it all the same, if the socket was closed elsewhere
            if self.reading:
                with suppress(OSError):
                    self.loop.remove_reader(self.fd)
            if self.writing:
                with suppress(OSError):
                    self.loop.remove_writer(self.fd)
        self.reading = self.writing = False
        if _watchers.get(self.fd) is self:
            del _watchers[self.fd]
        self.fd = -1
        return 0

    cdef int _want_write(self, bint wanted) except -1:
        if wanted and not self.writing:
            self.loop.add_writer(self.fd, self._on_writable)
        elif self.writing and not wanted:
            self.loop.remove_writer(self.fd)
        self.writing = wanted
        return 0

    def _on_connecting(self):
        try:
            self._go_on_connecting()
        except BaseException as error:
            self._broken_off(error)

    cdef int _go_on_connecting(self) except -1:
        # libpq opens and closes sockets on the way, one after the other with several hosts:
        # nothing stays watched over a poll()
        self._unwatch()
        if self.state != CONNECTING or self.waiter is None or self.waiter.done():
            return 0
        wanted = self.raw.poll()
        if wanted == POLL_OK:
            return self._connected()
        self._watch()
        if wanted == POLL_WRITE:
            self.writing = True
            self.loop.add_writer(self.fd, self._on_connecting)
        else:
            self.reading = True
            self.loop.add_reader(self.fd, self._on_connecting)
        return 0

    cdef int _connected(self) except -1:
        global _psycopg2_notice, _default_receiver
        if pq.libVersion:
            _default_receiver = pq.setNoticeReceiver(self.conn, _on_result, NULL)
        if _native:
            # the same for every connection of psycopg2, which is its argument
            _psycopg2_notice = pq.setNoticeProcessor(self.conn, _on_notice, <void *>self.raw)
            self.native = True
            self.codec = codec_of(self.raw)
            self.plain = self.codec is utf8_codec and quotes_plainly(self.raw)
        self._watch()
        self.reading = True
        self.loop.add_reader(self.fd, self._on_readable)
        self._done().set_result([None])
        self._poll_notices()
        return 0

    cdef int _closed_elsewhere(self) except -1:
        """Somebody has closed the psycopg2 connection: its socket tells us nothing."""
        return self._lost(psycopg2.OperationalError("Connection closed"))

    cdef int _broken_off(self, error) except -1:
        """A callback has failed: nobody is left waiting for what may never come."""
        cdef State was = self.state
        cdef bint unsent = self.writing
        cdef bint heard = self.waiter is not None and not self.waiter.done()
        told = self._readable(error)
        self.state = CLOSED
        try:
            self._unwatch()
            self._close_raw(was, unsent)
        except Exception:
            pass                        # it is the first failure that counts
        finally:
            self.conn = NULL
            self.reason = _frameless(told)
            self._end(told)
        if not heard and not isinstance(error, psycopg2.Error | UnicodeDecodeError):
            raise error                 # at least the loop's exception handler hears of it
        return 0

    cdef object _readable(self, error):
        """The error, with the server's text also where psycopg2 could not decode it."""
        error = readable_error(error)
        if isinstance(error, psycopg2.Error) and not str(error) \
                and self.conn != NULL and self.raw.closed != 1:
            return connection_error(self.conn)  # Python 3.10 has lost it on the way
        return error

    def _on_readable(self):
        try:
            if self.raw.closed:
                self._closed_elsewhere()
            elif self.state == BUSY:
                self._read()
            else:
                self._poll()
        except BaseException as error:
            self._broken_off(error)

    def _on_writable(self):
        try:
            if self.raw.closed:
                self._closed_elsewhere()
            elif self.state == BUSY:
                self._flush()
            else:
                self._poll()
        except BaseException as error:
            self._broken_off(error)

    cdef int _flush(self) except -1:
        cdef int left
        if self.raw.closed:         # a collection may have done that
            return self._closed_elsewhere()
        left = pq.flush(self.conn)
        if left < 0:
            self._lost(connection_error(self.conn))
        elif left or self.writing:
            self._want_write(left == 1)
        return 0

    cdef int _poll(self) except -1:
        """Let psycopg2 do what the socket is ready for, for as long as there is more."""
        cdef int reads
        for reads in range(MAX_READS):
            try:
                wanted = self._poll_raw()
            except BaseException as error:
                self._poll_failed(error)
                return 0
            if wanted == POLL_OK and self.state == FOREIGN:
                self.rests += self.raw.get_transaction_status() == NO_TRANSACTION
                self._answer(None)
                self._poll_notices()    # those behind the result
            self._pass_notifies()
            if wanted == POLL_WRITE or self.fd < 0 or not socket_ready(self.fd, False):
                break
        self._want_write(wanted == POLL_WRITE)
        return 0

    cdef object _poll_raw(self):
        global _poller
        _poller = self
        try:
            return self.raw.poll()
        finally:
            _poller = None

    cdef int _poll_failed(self, error) except -1:
        if self.raw.closed:
            return self._lost(error)
        status = self.raw.get_transaction_status()
        if status == TRANSACTION_STATUS_UNKNOWN:
            self._lost(error)           # which psycopg2 has not understood
        elif self.raw.isexecuting():
            self._broken_off(error)
        elif self.waiter is None and not isinstance(error, (psycopg2.Error, UnicodeError)):
            self._lost(error)           # poll() itself is out of order: it would be called for ever
        elif status == TRANSACTION_STATUS_ACTIVE:
            self._answer(error)         # psycopg2 leaves a COPY unfinished
            self.close()
        else:
            self.rests += status == NO_TRANSACTION
            self._want_write(False)
            self._answer(error)
        return 0

    cdef int _read(self) except -1:
        """Take what the server has sent, for as long as there is more."""
        global _reader
        cdef int reads
        cdef int finished = 0
        _reader = self
        try:
            for reads in range(MAX_READS):
                if not pq.consumeInput(self.conn):
                    finished = -1
                    break
                finished = self._take_results()
                if finished or not socket_ready(self.fd, False):
                    break
        finally:
            _reader = None
        if self.texts:
            self._show_notices()
            if self.raw.closed:     # by what the program keeps notices in: `conn` is gone
                self._closed_elsewhere()
        if self.state != BUSY:
            return 0
        if finished < 0:
            return self._lost(self._last_error())
        if self.writing:
            self._flush()           # a long query is still being sent
        if finished:
            self._finish()
        return 0

    cdef object _last_error(self):
        """Why the connection is lost: what the server has said last, else what libpq says."""
        cdef PGresult *res
        error = connection_error(self.conn)     # before libpq is asked again, and adds to it
        self._take_results()
        if self.state == CLOSED:
            return self.reason
        res, self.result = self.result, NULL
        if res != NULL and pq.resultStatus(res) == PGRES_FATAL_ERROR:
            impl, query = self.impl, self.query
            give_failure(impl, query)
            said = result_error(self.conn, res, self.codec, impl)
            return error if said.pgcode is None else said
        if res != NULL:
            pq.clear(res)
        return error

    cdef int _take_results(self) except -1:
        """Keep what psycopg2 keeps: the first error, else the last result. 1 when all is read."""
        cdef PGresult *res
        cdef int status
        while not pq.isBusy(self.conn):
            res = pq.getResult(self.conn)
            if res == NULL:
                return 1
            status = pq.resultStatus(res)
            if status == PGRES_COPY_IN or status == PGRES_COPY_OUT:
                pq.clear(res)
                if not self._refuse_copy(status):
                    return 0
            elif self.result != NULL and pq.resultStatus(self.result) == PGRES_FATAL_ERROR:
                pq.clear(res)
            else:
                if self.result != NULL:
                    pq.clear(self.result)
                self.result = res
                if status == PGRES_COPY_BOTH:
                    return 1            # libpq would give it again and again
        return 0

    cdef bint _refuse_copy(self, int status) except -1:
        """End a COPY that execute() can't serve; False while its data are still to come."""
        cdef char *data = NULL
        cdef int length
        if status == PGRES_COPY_IN:
            self.copy_error = "can't execute COPY FROM: use the copy_from() method instead"
            if pq.putCopyEnd(self.conn, b"COPY FROM STDIN was given to execute()") != 1:
                self._lost(connection_error(self.conn))
                return False
            self._flush()
            return self.state == BUSY
        self.copy_error = "can't execute COPY TO: use the copy_to() method instead"
        while True:
            length = pq.getCopyData(self.conn, &data, 1)
            if length <= 0:
                return length != 0
            pq.freemem(data)

    cdef int _finish(self) except -1:
        """All is read: give the waiter its Result or its exception."""
        cdef PGresult *res = self.result
        if self.queued is not None and self.state == BUSY and res != NULL \
                and pq.resultStatus(res) == PGRES_COMMAND_OK and not self.waiter.done():
            return self._go_on()
        impl, query, copy_error = self.impl, self.query, self.copy_error
        self.result = NULL
        self.impl = self.query = self.copy_error = None
        if self.state == BUSY:      # else it is lost already, and `conn` may be gone
            self.rests += pq.transactionStatus(self.conn) == NO_TRANSACTION
        waiter = self._done()
        if waiter is None or copy_error is not None:
            if res != NULL:
                pq.clear(res)
            if waiter is not None:
                give_failure(impl, query)
                waiter.set_result([psycopg2.ProgrammingError(copy_error)])
        else:
            self._conclude(waiter, res, impl, query)
        if self.raw.closed:         # code of the program has run: a codec, a collection
            self._closed_elsewhere()
        elif self.state != CLOSED:
            self._collect_notifies()
        return 0

    cdef int _go_on(self) except -1:
        """The opening has gone well: send the statement itself."""
        pq.clear(self.result)
        self.result = NULL
        self.query, self.queued = self.queued, None
        if pq.sendQuery(self.conn, PyBytes_AS_STRING(self.query)):
            self._flush()
        else:
            self._answer(self._broken())
        return 0

    cdef int _conclude(self, waiter, PGresult *res, impl, query) except -1:
        try:
            result = self._outcome(res, impl, query)
        except BaseException as error:
            waiter.set_result([error])
            if self.raw.closed:
                return 0
            if pq.status(self.conn) == CONNECTION_BAD:
                self._lost(error)
            elif pq.transactionStatus(self.conn) == TRANSACTION_STATUS_ACTIVE:
                self.close()            # replication, which is not for plain cursors
        else:
            waiter.set_result([result])
        return 0

    cdef object _outcome(self, PGresult *res, impl, query):
        """The Result, or the exception that psycopg2 raises; takes `res` over."""
        cdef int status
        if res == NULL:
            raise psycopg2.DatabaseError("the server sent no result")
        status = pq.resultStatus(res)
        if status == PGRES_TUPLES_OK or status == PGRES_COMMAND_OK:
            return Result.make(res, self.raw, self.codec, impl, self.shape, query)
        if status == PGRES_FATAL_ERROR or status == PGRES_BAD_RESPONSE \
                or status == PGRES_NONFATAL_ERROR:
            error = result_error(self.conn, res, self.codec, impl)
            give_failure(impl, query)
            raise error
        pq.clear(res)
        give_failure(impl, query)
        if status == PGRES_EMPTY_QUERY:
            raise psycopg2.ProgrammingError("can't execute an empty query")
        raise psycopg2.NotSupportedError(
            f"got server response with unsupported status {pq.resStatus(status).decode()}")

    cdef int _show_notices(self) except -1:
        """Do with texts what psycopg2 does, which has no call for it but poll()."""
        texts, self.texts = self.texts, []
        notices = self.raw.notices
        try:
            for text in texts:
                notices.append(self.codec(text, "replace")[0])
            if isinstance(notices, list) and len(notices) > MAX_NOTICES:
                del notices[:len(notices) - MAX_NOTICES]
        except BaseException:
            pass                    # of the program's own list; the statement goes on
        return 0

    cdef int _poll_notices(self) except -1:
        """Let psycopg2 show the notices that it has kept."""
        try:
            self._poll_raw()
        except Exception as error:
            if self.raw.closed or self.raw.get_transaction_status() == TRANSACTION_STATUS_UNKNOWN:
                self._lost(error)
        self._pass_notifies()
        return 0

    cdef int _pass_notifies(self) except -1:
        """Pass on what psycopg2's poll() has collected."""
        while self.raw.notifies:
            self.queue.put_nowait(self.raw.notifies.pop(0))
        return 0

    cdef int _collect_notifies(self) except -1:
        cdef PGnotify *notify
        while not self.raw.closed:  # code of the program may have done that, such as its casters'
            notify = pq.notifies(self.conn)
            if notify == NULL:
                return 0
            try:
                self.queue.put_nowait(Notify(
                    notify.be_pid, decode(self.codec, notify.relname),
                    decode(self.codec, notify.extra)))
            finally:
                pq.freemem(notify)

    cdef object _broken(self):
        """The exception for a libpq call that failed; the connection goes if libpq gave it up."""
        error = connection_error(self.conn)
        if pq.status(self.conn) == CONNECTION_BAD:
            self._lost(error)
        return error

    cdef int _lost(self, error) except -1:
        """The server is gone."""
        self._unwatch()
        try:
            if not self.raw.closed:
                self._poll_raw()    # psycopg2 finds out, and sets raw.closed
        except Exception:
            pass
        error = self._readable(error)
        if not self.raw.closed:
            self.raw.close()        # it has not understood what the server said
            self.conn = NULL
        if self.farewell is not None and getattr(error, "pgcode", None) is None:
            error = farewell_error(self.farewell, self.codec, error)
        self.reason = _frameless(error)
        return self._end(error)
