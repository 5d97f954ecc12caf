"""Wire: the queue of what is asked of one connection, whose socket is `_link`'s.

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

What may travel in the extended protocol goes out together, in libpq's pipeline mode: entered when the
first of two is sent, or housekeeping that something may follow, and left when nothing is in flight,
so that psycopg2 never meets it. The queue is first in, first out, with two liberties: what says WAIT
is overtaken by what is not in flight with others (a portal is not closed in an aborted transaction),
and what says DROP is over without being sent. A user's request in flight refuses a second user's (see
refusal()); housekeeping refuses nobody.

An outcome comes as a list, out of which the caller takes what was asked for, or the exception to
raise: a future that raised it would keep it and its frames alive, and a dropped connection open,
until the task waits again. FOREIGN is psycopg2's own execution: foreign cursor classes, or the
psycopg2 road. The loop holds the Wire and the Wire holds nothing above it, so a connection that is
dropped is collected.
"""

import asyncio
from asyncio import _get_running_loop
from collections import deque
from numbers import Real

import psycopg2
from psycopg2.extensions import (
    POLL_OK,
    POLL_WRITE,
    TRANSACTION_STATUS_ACTIVE,
    TRANSACTION_STATUS_IDLE,
    TRANSACTION_STATUS_INERROR,
    TRANSACTION_STATUS_UNKNOWN,
)

from ._errors cimport connection_error, refuse_copy
from ._libpq cimport CONNECTION_BAD, PGRES_PIPELINE_SYNC, PGresult, pq
from ._link cimport BUSY, CLOSED, CONNECTING, FOREIGN, IDLE, Link, frameless, operational
from ._socket cimport socket_pending, socket_ready

cdef extern from "_frames.h":
    pass

# Reads in one go of the event loop: a fast server must not starve the other connections.
cdef enum:
    MAX_READS = 64

# What libpq reads at once into its buffer, before a long message has made it larger.
cdef enum:
    LIBPQ_BUFFER = 16384

# Requests in flight: neither side's buffers may fill while nobody reads.
cdef enum:
    MAX_PIPED = 256

cdef double NEVER = float("inf")

cdef int NO_TRANSACTION = TRANSACTION_STATUS_IDLE
cdef int ACTIVE = TRANSACTION_STATUS_ACTIVE
cdef int IN_ERROR = TRANSACTION_STATUS_INERROR

# Seconds between looks at a connection that owes an answer: whoever closes the psycopg2 connection
# itself tells us nothing, and the server may be slow to hang up.
cdef double LOOK = 1.0

cpdef int check_timeout(timeout) except -1:
    """Raise TypeError for what is no number of seconds."""
    if timeout is not None and not isinstance(timeout, (int, float, Real)):
        raise TypeError(f"timeout must be a number of seconds or None, not {timeout!r}")
    return 0


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
        refuse_copy(res)
        pq.clear(res)
        return MORE

    cdef int incoming(self, Wire wire) except -1:
        """The socket has something that is about to be read."""
        return 0

    cdef int drained(self, Wire wire) except -1:
        """What was written has left, after the socket had been full."""
        return 0

    cdef object outcome(self, Wire wire):
        return None

    cdef object reason(self, Wire wire, object error):
        return error

    cdef int answer(self, Wire wire, object outcome) except -1:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result([outcome])
        return 0

    cdef int expire(self, Wire wire) except -1:
        """Its time is over."""
        return wire.time_out(self)


cdef class Lent:
    pass


cdef class Wire(Link):
    """Serves the requests of one psycopg2 connection; see Link for its arguments."""

    def __cinit__(self):
        self.deadline = NEVER
        self.waiting = deque()
        self.stopped = ()

    # What the rooms above ask

    @property
    def busy(self):
        """Whether a user's request is in the queue: its answer has not been read."""
        return self.users > 0

    @property
    def executing(self):
        """The same, also of what somebody lets psycopg2 execute behind our back."""
        return self.users > 0 or self.head is None and bool(self.raw.isexecuting())

    @property
    def ending(self):
        """The future of what is in flight for a user that has gone; None if nothing is."""
        return self.head.waiter if self.head is not None and self.head.retired else None

    @property
    def status(self):
        """The transaction status, as it is for users: housekeeping does not show."""
        return self.transaction_status()

    cdef int transaction_status(self) except -1:
        if self.head is not None and self.head.housekeeping:
            return self.resting
        return self.raw.get_transaction_status()

    cpdef object refusal(self, str caller, session=None):
        """The error for what would hang or break (another loop or process, a second request), or None.

        So for everything behind tpc_prepare().
        session: whose requests wait for each other instead.
        """
        if self.is_forked() or _get_running_loop() is not self.loop:
            return self.misplaced(caller)
        if self.prepared:
            return psycopg2.ProgrammingError(
                f"{caller.rpartition('.')[2]} cannot be used with a prepared two-phase transaction")
        if session is None:
            session = self.shared
            if isinstance(session, Lent):
                return self.misplaced(caller)
        if self.users > 0 and (session is None or not self._all_of(session)):
            return RuntimeError(
                f"{caller}() called while another coroutine "
                f"is already waiting for incoming data")
        return None

    cpdef object misplaced(self, str caller):
        """The error for the use in another process or loop, or of what others share; or None."""
        error = Link.misplaced(self, caller)
        if error is None and isinstance(self.shared, Lent):
            return psycopg2.InterfaceError(
                f"{caller}() of a connection that is used after its release to the pool")
        return error

    cdef bint _all_of(self, session) except -1:
        """Whether the users' requests in the queue are of this session: they are all of one."""
        cdef Request request
        for part in (() if self.head is None else (self.head,), self.sent or (), self.waiting):
            for request in part:
                if not request.housekeeping:
                    return request.session is session
        return True

    cdef bint engaged(self) except -1:
        """Whether a user's request is in flight. Housekeeping is never sent behind one."""
        last = self.sent[len(self.sent) - 1] if self.sent else self.head
        return last is not None and not (<Request>last).housekeeping

    cdef list _queue(self):
        queue = [] if self.head is None else [self.head]
        if self.sent is not None:
            queue.extend(self.sent)
        queue.extend(self.waiting)
        return queue

    def connect(self, timeout):
        """Start the connection's dialogue; the future gets [None] or [an exception]."""
        refusal = self.refusal("connect")
        if refusal is not None:
            raise refusal
        if self.state != CONNECTING:
            raise RuntimeError("connect() called on a connection that was connected before")
        check_timeout(timeout)
        self.take_native()
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

    def give_up(self, waiter, error):
        """An await of `waiter` has raised `error`: abandon() it, unless the answer was taken."""
        if isinstance(error, asyncio.CancelledError) or not waiter.done():
            return self.abandon(waiter)
        return False

    cdef int end(self, error) except -1:
        """Nothing comes any more: let go of everything, and tell those who wait."""
        cdef Request request
        self.state = CLOSED
        self.unwatch()
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
        self.notifies.close(operational(error))
        return 0

    # The queue

    cdef object put(self, Request request, timeout):
        """Send a request, or queue it; its waiter. Raises what sending raises, if it is sent now.

        timeout: seconds until the answer has to be here, None for no limit; housekeeping's count
            from its turn on.
        """
        self._expect_open()
        self._accept(request, timeout)
        if self.state == IDLE and not self.gates and not self.waiting \
                and request.turn(self) == GO:
            self._start(request)
        else:
            self._append(request)
            self._go_on()
        return request.waiter

    cdef object put_soon(self, Request request, timeout):
        """Queue a request that goes out with others, in the loop's next step; its waiter."""
        self._expect_open()
        self._accept(request, timeout)
        self._append(request)
        if not self.pushing:
            self.pushing = True
            self.loop.call_soon(self._push)
        return request.waiter

    def _push(self):
        self.pushing = False
        try:
            self._go_on()
        except BaseException as error:
            self._broken_off(error)

    cdef int gate(self, bint shut) except -1:
        """While a cancel request is under way, which `stopped` may feel, nothing is sent."""
        if shut:
            self.gates += 1
            self.stopped = [(<Request>request).waiter for request in self._queue()
                            if (<Request>request).begun]
        else:
            self.gates -= 1
            self._push()
        return 0

    cdef object put_both(self, Request first, Request second, timeout):
        """Queue two that belong together; the waiter of the second."""
        self._expect_open()
        self._accept(first, None)
        self._append(first)
        self._accept(second, timeout)
        self._append(second)
        self._go_on()
        return second.waiter

    cdef int _expect_open(self) except -1:
        """Raise where nothing can be sent any more, also if somebody has closed `raw`."""
        if self.state != CLOSED and self.raw.closed:
            self.closed_elsewhere()
        if self.state == CLOSED:
            raise self.closed_error("connection already closed")
        return 0

    cdef int _append(self, Request request) except -1:
        self.waiting.append(request)
        if not request.housekeeping:
            self._arm(request.deadline)
        return 0

    cdef int _accept(self, Request request, timeout) except -1:
        request.limit = NEVER if timeout is None else timeout
        request.deadline = self.loop.time() + request.limit
        if request.waiter is None:
            request.waiter = self.loop.create_future()
        if request.session is None:
            request.session = self.shared
        self.users += not request.housekeeping
        return 0

    cdef int _start(self, Request request) except -1:
        """Send a request; one that can't be sent leaves the queue."""
        if request.housekeeping:
            if self.head is None:
                self.resting = self.raw.get_transaction_status()
            request.deadline = self.loop.time() + request.limit
        if self.unseen is not None and self.head is None \
                and self.raw.get_transaction_status() != IN_ERROR:
            self.unseen = None          # who uses `raw` has ended that transaction
        if request.extended and self.head is None and (
                request.housekeeping or self.shared is not None or self._followed()):
            self.piping = pq.enterPipelineMode(self.conn)
        try:
            request.send(self)
            if self.state == CLOSED:    # by code of the program
                raise self.closed_error("connection already closed")
        except BaseException:
            if self.state != CLOSED:
                self.users -= not request.housekeeping
                if self.piping and self.head is None:
                    self.leave_pipeline()
            raise
        request.begun = True
        if self.head is None:
            self.head = request
            self.forget_polled()
        else:
            if self.sent is None:
                self.sent = deque()
            self.sent.append(request)
        self.state = FOREIGN if request.polled else BUSY
        if self.piping and request.joined:
            pass                        # what follows takes it along
        elif self.piping and request.housekeeping:
            self.unflushed = True       # so does what follows in this step of the loop
            self.loop.call_soon(self._on_unflushed)
        elif self.piping and self.waiting:
            pass                        # _go_on() flushes, for several
        elif not request.polled:
            self.flush()
        elif request.housekeeping:      # it does not overtake what users do in this step of the loop
            self.loop.call_soon(self._on_readable)
        else:
            self._poll()
        self._time(request)
        return 0

    cdef bint _followed(self) except -1:
        """Whether another is to go out with the one that is being sent."""
        cdef Request following
        if not self.waiting:
            return False
        following = self.waiting[0]
        return following.extended and not following.housekeeping

    cdef int _go_on(self) except -1:
        """Send what can be sent now."""
        cdef Request request
        cdef bint unflushed = False
        if self.waiting and self.raw.closed:
            return self.closed_elsewhere()
        while self.waiting and not self.gates and (self.state == IDLE or self.piping) \
                and not self.is_forked() and _get_running_loop() is self.loop:
            request = self._next() if self.head is None else self._next_piped()
            if request is None:
                break
            unflushed |= not request.housekeeping
            try:
                self._start(request)
            except BaseException as error:
                request.answer(self, error)
                if self.piping:         # the Sync is missing for which the server waits
                    self.lost(error)
        if unflushed and self.piping:
            self.flush()
        return 0

    cdef Request _next(self):
        """Take the first out of the queue that is to be sent."""
        cdef Request request
        cdef Turn turn
        for request in list(self.waiting):
            turn = self._turn(request)
            if turn == GO:
                self.waiting.remove(request)
                return request
            if turn == DROP:
                self.drop(request, None)
        return None

    cdef Request _next_piped(self):
        """The same, behind others that are in flight."""
        cdef Request request
        cdef Turn turn
        while self.waiting:
            request = self.waiting[0]
            if not request.extended or self.clogged or self._is_sated():
                return None
            turn = self._turn(request)
            if turn == WAIT:
                return None
            if turn == GO:
                return self.waiting.popleft()
            self.drop(request, None)
        return None

    cdef bint _is_sated(self) except -1:
        """Whether enough is in flight. Then half of it has to come: what follows goes out together."""
        cdef Py_ssize_t count = len(self.sent) if self.sent is not None else 0
        if count >= MAX_PIPED:
            self.sated = True
        elif count <= MAX_PIPED // 2:
            self.sated = False
        return self.sated

    cdef Turn _turn(self, Request request) except? DROP:
        cdef Turn turn = request.turn(self)
        if turn == GO and not (request.housekeeping or request.begun) and request.waiter.done():
            return WAIT                 # its task was cancelled, and is about to abandon it
        return turn

    cdef int drop(self, Request request, outcome) except -1:
        """End a request that waits for its turn."""
        if request in self.waiting:
            self.waiting.remove(request)
            self.users -= not request.housekeeping
            self._first_deadline()
            request.answer(self, outcome)
        return 0

    cdef int expect(self, Request request) except -1:
        """The time of the request in flight counts from now on."""
        request.deadline = self.loop.time() + request.limit
        return self._arm(request.deadline)

    cdef int pull(self) except -1:
        """The request in flight takes what has come, or is over, after it was full or held."""
        try:
            if self.raw.closed:
                self.closed_elsewhere()
            elif self.state == BUSY:
                self._read(False)
            if self.waiting:
                self._go_on()
        except BaseException as error:
            self._broken_off(error)
        return 0

    cdef int retire(self, Request request, int resting) except -1:
        """Nobody waits for the request in flight any more: it ends as housekeeping.

        resting: the transaction status that users see meanwhile. Called from anywhere, also while
        memory is collected: nothing is done.
        """
        if not request.retired:
            request.retired = request.housekeeping = True
            self.users -= 1
            self.resting = resting
        return 0

    cdef Request _done(self):
        """The request in flight is over."""
        request = self.head
        self.head = self.sent.popleft() if self.sent else None
        self.users -= not request.housekeeping
        if self.head is None and self.state != CLOSED:
            self.state = IDLE
        if not self.reading:
            self.resume()               # it had enough; what follows has not
        if not self.users and self.head is None:
            self.deadline = NEVER
        elif not self.piping or self.head.housekeeping:
            self._first_deadline()      # else _look() finds it: there may be many
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
            if failed:                  # before anything else is sent
                self._check_after(outcome)
            request.answer(self, outcome)
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
            request.expire(self)
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
        if self.state == CLOSED or not self._owes():
            return 0
        if self.is_forked():
            return self.end(RuntimeError(
                "a forked child process gets no answer: the connection is its parent's"))
        now = self.loop.time()
        if self.raw.closed:
            return self.closed_elsewhere()
        if now < self.deadline:
            self._look_inside()
            if self.timer is None and self.state != CLOSED and self._owes():
                self._set_timer(now)
            return 0
        for request in self._queue():
            if now >= request.deadline and (request is self.head or not request.housekeeping):
                request.expire(self)
                if self.state == CLOSED:
                    return 0
        self._first_deadline()
        return self._set_timer(now)

    cdef bint _owes(self) except -1:
        """Whether an answer is due: to what is in flight, or waits behind a cancel request."""
        return self.head is not None or self.users > 0

    cdef int _look_inside(self) except -1:
        """What came while somebody called poll() of `raw` is in libpq, and the socket is silent."""
        if self.head is None or not self.reading or self.writing or self.head.full:
            return 0
        if self.state == BUSY:
            self._read(False)
        elif self.state == FOREIGN:
            self._poll()
        if self.waiting:
            self._go_on()
        return 0

    cdef int time_out(self, Request request) except -1:
        """The time of a request is over, and with it the connection's: who knows what comes yet?"""
        request.deadline = NEVER
        wanted = "connected" if self.state == CONNECTING else "answered"
        request.answer(self, asyncio.TimeoutError(
            f"the server has not {wanted} within {request.limit:g} s"))
        if self.state != CONNECTING:    # else who connects has something to ask of `raw` yet
            self.close()
        return 0

    # What the socket brings

    def _on_connecting(self):
        try:
            self._go_on_connecting()
        except BaseException as error:
            self._broken_off(error)

    cdef int _go_on_connecting(self) except -1:
        # libpq opens and closes sockets on the way, one after the other with several hosts:
        # nothing stays watched over a poll()
        self.unwatch()
        if self.is_forked() or self.state != CONNECTING or self.head is None or self.head.waiter.done():
            return 0
        wanted = self.raw.poll()
        if wanted == POLL_OK:
            self.established()
            self._over(None)
            return self.poll_notices()
        self.watch()
        if wanted == POLL_WRITE:
            self.writing = True
            self.loop.add_writer(self.fd, self._on_connecting)
        else:
            self.reading = True
            self.loop.add_reader(self.fd, self._on_connecting)
        return 0

    cdef int _broken_off(self, error) except -1:
        """A callback has failed: nobody is left waiting for what may never come."""
        cdef int was = self.state
        cdef bint heard = self.users > 0
        told = self.legible(error)
        self.state = CLOSED
        try:
            self.close_raw(was)
        except Exception:
            pass                        # it is the first failure that counts
        finally:
            self.conn = NULL
            self.reason = frameless(told)
            self.end(told)
        if not heard and not isinstance(error, psycopg2.Error | UnicodeDecodeError):
            raise error                 # at least the loop's exception handler hears of it
        return 0

    cdef int ready(self, bint to_write) except -1:
        try:
            if self.state == CLOSED:
                return self.unwatch()       # an interrupt has kept close() from it
            if self.raw.closed:
                self.closed_elsewhere()
            elif self.state != BUSY:
                self._poll()
            elif to_write:
                self.head.incoming(self)    # libpq reads while it can't write
                self.flush()
                if not self.writing and self.state == BUSY:
                    self.head.drained(self)
            elif self.head.full:
                self.pause()
            else:
                self.head.incoming(self)
                self._read(True)
            if self.waiting:
                self._go_on()
        except BaseException as error:
            self._broken_off(error)
        return 0

    cdef int read_held(self) except -1:
        if self.head is None or not self.head.full:     # else that is read when it is not
            self.ready(False)
        return 0

    cdef int _poll(self) except -1:
        """Let psycopg2 do what the socket is ready for, for as long as there is more."""
        cdef int reads
        for reads in range(MAX_READS):
            try:
                wanted = self.poll_raw()
            except BaseException as error:
                self._poll_failed(error)
                return 0
            if wanted == POLL_OK and self.state == FOREIGN:
                self.rests += self.raw.get_transaction_status() == NO_TRANSACTION
                self._over(None)
                self.poll_notices()    # those behind the result
            self.pass_notifies()
            if wanted == POLL_WRITE or self.fd < 0 or not socket_ready(self.fd, False):
                break
        else:
            self.read_on()
        self.want_write(wanted == POLL_WRITE)
        return 0

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
            self.want_write(False)
            if self.head is not None:
                self._over(error)
        return 0

    cdef int _read(self, bint fresh) except -1:
        """Take what the server has sent: of several in flight, as many as it has answered."""
        while self._read_one(fresh):
            fresh = False
        return 0

    cdef bint _read_one(self, bint fresh) except -1:
        """Go on with the request in flight, for as long as there is more; whether another is now.

        fresh: the socket has something.
        """
        cdef int reads
        cdef int pending = 0            # bytes that need not be asked for
        cdef int finished = 0
        self.keep_notices()
        try:
            for reads in range(MAX_READS):
                if (fresh or reads) and not pq.consumeInput(self.conn):
                    finished = -1
                    break
                finished = self._take_results()
                if finished or not fresh or self.state != BUSY or self.head.full \
                        or not self.reading:
                    break               # all is here; or paused
                pending -= LIBPQ_BUFFER
                if pending <= 0:
                    if not socket_ready(self.fd, False):
                        break           # nothing more for now
                    pending = socket_pending(self.fd)
            else:
                self.read_on()
        finally:
            self.keep_no_notices()
        if self.texts:
            self.show_notices()
            if self.raw.closed:     # by what the program keeps notices in: `conn` is gone
                self.closed_elsewhere()
        if self.state != BUSY:
            return 0
        if finished < 0:
            self.lost(self._last_error())
            return False
        if self.writing:
            self.flush()           # a long query is still being sent
        return finished and self._finish()

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
        if self.has_polled():           # what is left is another's
            raise psycopg2.InterfaceError(
                "poll() of the raw connection has taken a result: the connection is closed")
        while not pq.isBusy(self.conn):
            res = pq.getResult(self.conn)
            if res == NULL:
                if ended or not self.piping or head.joined:
                    return not head.held
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

    cdef bint _finish(self) except -1:
        """All is read: the request in flight is over. Whether another is in flight now."""
        if self.piping and not self.sent and not self.leave_pipeline():
            return False
        self.rests += pq.transactionStatus(self.conn) == NO_TRANSACTION
        self._over(None)
        if self.state == CLOSED:
            return False
        if self.raw.closed:         # code of the program has run: a codec, a collection
            self.closed_elsewhere()
        else:
            self.collect_notifies()
        return self.state == BUSY
