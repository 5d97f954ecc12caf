"""Wire: one PGconn driven by an event loop, and the queue of what is asked of it.

What happens between execute() and the socket: `_requests` makes a Request, put() sends it if the
connection is free and queues it otherwise, the loop says readable, the request takes its results one
after the other, and its outcome goes to the future of whoever waits; then comes the next. The Wire
never asks what kind a request is.

    state       put()             socket readable                  becomes
    CONNECTING  refused           psycopg2's poll()                IDLE
    IDLE        sends             psycopg2's poll(): notices,      BUSY, FOREIGN
                                  notifies, end of connection
    BUSY        queues            libpq: `head` takes its results  that of the next, or IDLE
                                  (several in pipeline mode)
    FOREIGN     queues            psycopg2's poll()                that of the next, or IDLE
    CLOSED      refused           -

Two that are put together and may travel in the extended protocol go out together, in libpq's pipeline
mode: entered when the first is sent and left when nothing is in flight, so that psycopg2 never meets
it. The queue is first in, first out, with two liberties: what says WAIT is overtaken (a portal is not
closed in an aborted transaction), and what says DROP is over without being sent. A user's request
in flight refuses a second user's (see refusal()); housekeeping refuses nobody.

An outcome comes as a list, out of which the caller takes what was asked for, or the exception to
raise: a future that raised it would keep it and its frames alive, and a dropped connection open,
until the task waits again. FOREIGN is psycopg2's own execution: foreign cursor classes, or the
psycopg2 road. The loop holds the Wire and the Wire holds nothing above it, so a connection that is
dropped is collected.
"""

import asyncio
import os
import weakref
from asyncio import _get_running_loop
from collections import deque
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
from psycopg2.extensions import cursor as PsycopgCursor

from ._cancel import cancel_and_close

from cpython.pycapsule cimport PyCapsule_GetPointer

from ._cancel cimport cancel_query
from ._errors cimport (
    codec_of,
    connection_error,
    decode,
    farewell_error,
    layout_known,
    readable_error,
    utf8_codec,
)
from ._libpq cimport (
    CONNECTION_BAD,
    PGRES_PIPELINE_SYNC,
    PG_DIAG_SEVERITY_NONLOCALIZED,
    PG_DIAG_SQLSTATE,
    NoticeProcessor,
    NoticeReceiver,
    PGconn,
    PGnotify,
    PGresult,
    pq,
)
from ._socket cimport socket_ready
from ._statements cimport quotes_plainly
from ._structs cimport genuine_connection, take_connection

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

# Requests in flight: neither side's buffers may fill while nobody reads.
cdef enum:
    MAX_PIPED = 64

cdef double NEVER = float("inf")

cdef int NO_TRANSACTION = TRANSACTION_STATUS_IDLE
cdef int ACTIVE = TRANSACTION_STATUS_ACTIVE

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


AGAIN = object()


cdef class Request:
    """One thing that is asked of the server. The kinds are in `_requests`.

    The Wire calls turn() when everything in front is over, send() to have it put into libpq's
    buffer, take() for each PGresult, outcome() when all have been taken, and answer() once, with
    the outcome or with the exception that came in its place. reason() may know better than libpq
    why the connection was lost.
    """

    cdef Turn turn(self, Wire wire) except? DROP:
        return GO

    cdef int send(self, Wire wire) except -1:
        return 0

    cdef Taken take(self, Wire wire, PGresult *res) except? MORE:
        pq.clear(res)
        return MORE

    cdef object outcome(self, Wire wire):
        return None

    cdef object reason(self, Wire wire, object error):
        return error

    cdef int answer(self, Wire wire, object outcome) except -1:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result([outcome])
        return 0


cdef class Wire:
    """Drives one psycopg2 connection on one event loop.

    raw: what psycopg2.connect() gave; what is kept is the genuine connection behind proxies.
    inbox: gets the notifications; `notifies`, its reading side, is closed with the connection.
    cancel_timeout: seconds that a query gets to stop after the connection was closed.
    """

    def __cinit__(self, raw, loop, inbox, notifies, cancel_timeout):
        self.raw = genuine_connection(raw)
        self.cancel_timeout = cancel_timeout
        self.loop = loop
        self.inbox = inbox
        self.notifies = notifies
        self.state = CONNECTING
        self.forks = _forks
        self.fd = -1
        self.deadline = NEVER
        self.texts = []
        self.waiting = deque()

    # What the rooms above ask

    @property
    def closed(self):
        """psycopg2's `closed`, 0 while the connection is open."""
        return self.raw.closed or <int>(self.state == CLOSED)

    cdef bint is_closed(self) except -1:
        return self.state == CLOSED

    @property
    def busy(self):
        """Whether a user's request is in the queue: its answer has not been read."""
        return self.users > 0

    @property
    def executing(self):
        """The same, also of what somebody lets psycopg2 execute behind our back."""
        return self.users > 0 or self.head is None and bool(self.raw.isexecuting())

    @property
    def forked(self):
        """Whether this process is a child of the one that made the connection."""
        return self.forks != _forks

    @property
    def status(self):
        """The transaction status, as it is for users: housekeeping does not show."""
        return self.transaction_status()

    cdef int transaction_status(self) except -1:
        if self.head is not None and self.head.housekeeping:
            return self.resting
        return self.raw.get_transaction_status()

    def look(self):
        """Hear what has come to an idle connection; whether it is open afterwards."""
        if self.state == IDLE and self.fd >= 0 and socket_ready(self.fd, False):
            self._on_readable()
        return not self.closed

    cpdef object refusal(self, str caller, session=None):
        """The error for what would hang or break (another loop or process, a second request), or None.

        session: whose requests wait for each other instead.
        """
        if self.forks != _forks:
            return RuntimeError(
                f"{caller}() called in a forked child process: a connection can't be shared "
                f"with the process that made it; connect again after the fork")
        if _get_running_loop() is not self.loop:
            return RuntimeError(
                f"{caller}() called on another event loop than the connection was made on")
        if self.users > 0 and (session is None or not self._all_of(session)):
            return RuntimeError(
                f"{caller}() called while another coroutine "
                f"is already waiting for incoming data")
        return None

    cdef bint _all_of(self, session) except -1:
        """Whether every user's request in the queue is of this session."""
        cdef Request request
        for request in self._queue():
            if not request.housekeeping and request.session is not session:
                return False
        return True

    cdef list _queue(self):
        queue = [] if self.head is None else [self.head]
        if self.sent is not None:
            queue.extend(self.sent)
        queue.extend(self.waiting)
        return queue

    cpdef object closed_error(self, str text):
        """psycopg2's error for the use of what is closed; it tells why the connection was lost."""
        if self.reason is None or not self.closed:
            return psycopg2.InterfaceError(text)
        error = psycopg2.InterfaceError(f"{text}: {str(self.reason).strip()}")
        error.__cause__ = _frameless(self.reason)
        return error

    cdef object control(self):
        """A psycopg2 cursor for what is executed on nobody's cursor."""
        if self.plain_cursor is None:
            self.plain_cursor = PsycopgCursor(self.raw)
        return self.plain_cursor

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
        request = Request()
        self._accept(request, timeout)
        request.begun = True
        self.head = request
        self._time(request)
        self._on_connecting()
        return request.waiter

    def abandon(self, waiter):
        """Whoever waited has gone. False if the request is dropped, since nothing of it was sent.

        Else the connection is closed, and the query cancelled on the server.
        """
        cdef Request request
        for request in self.waiting:
            if request.waiter is waiter and not request.begun:
                self.drop(request, None)
                return False
        self.close()
        return True

    def close(self):
        """Close now. A query in flight is cancelled on the server, in the background."""
        cdef int was = self.state
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
        cdef Request request
        self.state = CLOSED
        self._unwatch()
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        queue = self._queue()
        self.head = self.sent = None
        self.piping = False
        self.waiting.clear()
        self.users = 0
        if self.loop.is_closed():
            return 0
        for request in queue:           # what was not sent meets a closed connection
            request.answer(
                self, error if request.begun else self.closed_error("cursor already closed"))
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

    # The queue

    cdef object put(self, Request request, timeout):
        """Send a request, or queue it; its waiter. Raises what sending raises, if it is sent now.

        timeout: seconds until the answer has to be here, None for no limit; housekeeping's count
            from its turn on.
        """
        if self.state == CLOSED:
            raise self.closed_error("connection already closed")
        self._accept(request, timeout)
        if self.state == IDLE and not self.waiting and request.turn(self) == GO:
            self._start(request)
        else:
            self._append(request)
            self._go_on()
        return request.waiter

    cdef object put_both(self, Request first, Request second, timeout):
        """Queue two that belong together; the waiter of the second."""
        if self.state == CLOSED:
            raise self.closed_error("connection already closed")
        self._accept(first, None)
        self._append(first)
        self._accept(second, timeout)
        self._append(second)
        self._go_on()
        return second.waiter

    cdef int _append(self, Request request) except -1:
        self.waiting.append(request)
        if not request.housekeeping:
            self._arm(request.deadline)
        return 0

    cdef int _accept(self, Request request, timeout) except -1:
        request.limit = NEVER if timeout is None else timeout
        request.deadline = self.loop.time() + request.limit
        request.waiter = self.loop.create_future()
        self.users += not request.housekeeping
        return 0

    cdef int _start(self, Request request) except -1:
        """Send a request; one that can't be sent leaves the queue."""
        if request.housekeeping:
            self.resting = self.raw.get_transaction_status()
            request.deadline = self.loop.time() + request.limit
        if request.extended and self.waiting and self.head is None \
                and (<Request>self.waiting[0]).extended:
            self.piping = pq.enterPipelineMode(self.conn)
        try:
            request.send(self)
            if self.state == CLOSED:    # by code of the program
                raise self.closed_error("connection already closed")
        except BaseException:
            if self.state != CLOSED:
                self.users -= not request.housekeeping
            raise
        request.begun = True
        if self.head is None:
            self.head = request
        else:
            if self.sent is None:
                self.sent = deque()
            self.sent.append(request)
        self.state = FOREIGN if request.polled else BUSY
        if not request.polled:
            self.flush()
        elif request.housekeeping:      # it does not overtake what users do in this step of the loop
            self.loop.call_soon(self._on_ready, False)
        else:
            self._poll()
        self._time(request)
        return 0

    cdef int _go_on(self) except -1:
        """Send what can be sent now."""
        cdef Request request
        while self.waiting and (self.state == IDLE or self.piping) and self.forks == _forks \
                and _get_running_loop() is self.loop:
            request = self._next() if self.head is None else self._next_piped()
            if request is None:
                break
            try:
                self._start(request)
            except BaseException as error:
                request.answer(self, error)
                if self.piping:         # the Sync is missing for which the server waits
                    self.lost(error)
        return 0

    cdef Request _next(self):
        """Take the first out of the queue that is to be sent."""
        cdef Request request
        cdef Turn turn
        for request in list(self.waiting):
            turn = request.turn(self)
            if turn == GO and not (request.housekeeping or request.begun) \
                    and request.waiter.done():
                turn = WAIT             # its task was cancelled, and is about to abandon it
            if turn == GO:
                self.waiting.remove(request)
                return request
            if turn == DROP:
                self.drop(request, None)
        return None

    cdef Request _next_piped(self):
        """The same, behind others that are in flight."""
        cdef Request request = self.waiting[0]
        if not request.extended or self.sent is not None and len(self.sent) >= MAX_PIPED:
            return None
        self.waiting.popleft()
        return request

    cdef int drop(self, Request request, outcome) except -1:
        """End a request that waits for its turn."""
        if request in self.waiting:
            self.waiting.remove(request)
            self.users -= not request.housekeeping
            self._first_deadline()
            request.answer(self, outcome)
        return 0

    cdef Request _done(self):
        """The request in flight is over."""
        request = self.head
        self.head = self.sent.popleft() if self.sent else None
        self.users -= not request.housekeeping
        if self.head is None and self.state != CLOSED:
            self.state = IDLE
        if self.users:
            self._first_deadline()
        else:
            self.deadline = NEVER
        return request

    cdef int _over(self, failure) except -1:
        """All of an answer is read, or in its place comes an exception."""
        cdef Request request = self._done()
        cdef bint failed = False
        outcome = failure
        if failure is None:
            try:
                outcome = request.outcome(self)
            except BaseException as error:
                outcome, failed = error, True
        if outcome is AGAIN:
            self.waiting.appendleft(request)
            self.users += not request.housekeeping
        else:
            request.answer(self, outcome)
            if failed:
                self._check_after(outcome)
        return 0

    cdef int _check_after(self, error) except -1:
        """After an error: is the connection still good?"""
        if self.conn == NULL or self.raw.closed:
            return 0
        if pq.status(self.conn) == CONNECTION_BAD:
            self.lost(error)
        elif not self.piping and pq.transactionStatus(self.conn) == ACTIVE:
            self.close()                # replication, which is not for plain cursors
        return 0

    # Deadlines

    cdef int _time(self, Request request) except -1:
        """Watch the time of a request that is in flight; it may be over already."""
        if self.head is not request:
            return 0
        if request.limit <= 0:
            self._time_out(request)
        else:
            self._arm(request.deadline)
        return 0

    cdef int _arm(self, double deadline) except -1:
        if deadline < self.deadline:
            self.deadline = deadline
        if self.timer is None or self.timer_at > self.deadline:
            if self.timer is not None:
                self.timer.cancel()
            self._set_timer(self.loop.time())
        return 0

    cdef int _set_timer(self, double now) except -1:
        self.timer_at = min(self.deadline, now + LOOK)
        self.timer = self.loop.call_at(self.timer_at, self._on_timer)
        return 0

    cdef int _first_deadline(self) except -1:
        cdef Request request
        self.deadline = NEVER
        for request in self._queue():
            if request is self.head or not request.housekeeping:
                self.deadline = min(self.deadline, request.deadline)
        return 0

    def _on_timer(self):
        self.timer = None
        try:
            self._look()
        except BaseException as error:
            self._broken_off(error)

    cdef int _look(self) except -1:
        """The timer has fired: for a deadline, or to see whether the connection is still ours."""
        cdef Request request
        cdef double now
        if self.head is None or self.state == CLOSED:
            return 0
        now = self.loop.time()
        if self.raw.closed:
            return self._closed_elsewhere()
        if now < self.deadline:
            return self._set_timer(now)
        for request in self._queue():
            if now >= request.deadline and (request is self.head or not request.housekeeping):
                return self._time_out(request)
        self._first_deadline()
        return self._set_timer(now)

    cdef int _time_out(self, Request request) except -1:
        """The time of a request is over, and with it the connection's: who knows what comes yet?"""
        wanted = "connected" if self.state == CONNECTING else "answered"
        request.answer(self, asyncio.TimeoutError(
            f"the server has not {wanted} within {request.limit:g} s"))
        if self.state != CONNECTING:    # else who connects has something to ask of `raw` yet
            self.close()
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
        if self.state != CONNECTING or self.head is None or self.head.waiter.done():
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
        self._over(None)
        self._poll_notices()
        return 0

    cdef int _closed_elsewhere(self) except -1:
        """Somebody has closed the psycopg2 connection: its socket tells us nothing."""
        return self.lost(psycopg2.OperationalError("Connection closed"))

    cdef int _broken_off(self, error) except -1:
        """A callback has failed: nobody is left waiting for what may never come."""
        cdef int was = self.state
        cdef bint unsent = self.writing
        cdef bint heard = self.users > 0
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
        self._on_ready(False)

    def _on_writable(self):
        self._on_ready(True)

    def _on_ready(self, to_write):
        try:
            if self.state == CLOSED:
                return
            if self.raw.closed:
                self._closed_elsewhere()
            elif self.state != BUSY:
                self._poll()
            elif to_write:
                self.flush()
            else:
                self._read()
            if self.waiting:
                self._go_on()
        except BaseException as error:
            self._broken_off(error)

    cdef int flush(self) except -1:
        cdef int left
        if self.raw.closed:         # a collection may have done that
            return self._closed_elsewhere()
        left = pq.flush(self.conn)
        if left < 0:
            self.lost(connection_error(self.conn))
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
                self._over(None)
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
            return self.lost(error)
        status = self.raw.get_transaction_status()
        if status == TRANSACTION_STATUS_UNKNOWN:
            self.lost(error)           # which psycopg2 has not understood
        elif self.raw.isexecuting():
            self._broken_off(error)
        elif self.head is None and not isinstance(error, (psycopg2.Error, UnicodeError)):
            self.lost(error)           # poll() itself is out of order: it would be called for ever
        elif status == ACTIVE:
            self._over(error)           # psycopg2 leaves a COPY unfinished
            self.close()
        else:
            self.rests += status == NO_TRANSACTION
            self._want_write(False)
            if self.head is not None:
                self._over(error)
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
            return self.lost(self._last_error())
        if self.writing:
            self.flush()           # a long query is still being sent
        if finished:
            self._finish()
        return 0

    cdef object _last_error(self):
        """Why the connection is lost: what the server has said last, else what libpq says."""
        error = connection_error(self.conn)     # before libpq is asked again, and adds to it
        self._take_results()
        if self.state == CLOSED:
            return self.reason
        return self.head.reason(self, error)

    cdef int _take_results(self) except -1:
        """Give the request in flight what has come. 1 when that was all."""
        cdef PGresult *res
        cdef Request head = self.head
        cdef Taken taken
        cdef bint ended = False
        while not pq.isBusy(self.conn):
            res = pq.getResult(self.conn)
            if res == NULL:
                if ended or not self.piping or head.joined:
                    return 1
                ended = True            # of a statement; the request ends with its Sync
                continue
            ended = False
            if self.piping and pq.resultStatus(res) == PGRES_PIPELINE_SYNC:
                pq.clear(res)
                return 1
            taken = head.take(self, res)
            if taken != MORE:
                return taken == ENOUGH
        return 0

    cdef int _finish(self) except -1:
        """All is read: the request in flight is over."""
        if self.piping and not self.sent and not self._leave_pipeline():
            return 0
        self.rests += pq.transactionStatus(self.conn) == NO_TRANSACTION
        self._over(None)
        if self.raw.closed:         # code of the program has run: a codec, a collection
            self._closed_elsewhere()
        elif self.state != CLOSED:
            self._collect_notifies()
            if self.piping:             # the next answer may be here already
                self._read()
        return 0

    cdef int _leave_pipeline(self) except -1:
        """psycopg2 finds the connection as it knows it. 0 if it is lost."""
        if not pq.exitPipelineMode(self.conn):
            self.lost(connection_error(self.conn))
            return 0
        self.piping = False
        return 1

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
                self.lost(error)
        self._pass_notifies()
        return 0

    cdef int _pass_notifies(self) except -1:
        """Pass on what psycopg2's poll() has collected."""
        while self.raw.notifies:
            self.inbox.put_nowait(self.raw.notifies.pop(0))
        return 0

    cdef int _collect_notifies(self) except -1:
        cdef PGnotify *notify
        while not self.raw.closed:  # code of the program may have done that, such as its casters'
            notify = pq.notifies(self.conn)
            if notify == NULL:
                return 0
            try:
                self.inbox.put_nowait(Notify(
                    notify.be_pid, decode(self.codec, notify.relname),
                    decode(self.codec, notify.extra)))
            finally:
                pq.freemem(notify)

    cdef object broken(self):
        """The exception for a libpq call that failed; the connection goes if libpq gave it up."""
        error = connection_error(self.conn)
        if pq.status(self.conn) == CONNECTION_BAD:
            self.lost(error)
        return error

    cdef int lost(self, error) except -1:
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
