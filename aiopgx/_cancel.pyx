"""Ending a session in which a query runs: the server is told to stop, then the session is closed.

The order matters: a connection pooler knows whom a cancel request is for only as long as the client
is there. So the PGconn goes on living here, without its psycopg2 connection: the request is sent, the
query's end is read, and only then is the session closed. A server that still reads the query ignores
a request, so it is asked again until the query is over.

A daemon thread does all this while there is something to do, so that it goes on when the event loop
is held up, or ends. The request is on its way before anybody goes on. Nobody has to wait for the
rest, and nothing is said when it fails: the server may be gone. The end of the program waits for it,
for a second.
"""

import atexit
import os
import select
import sys
import threading
import time
import weakref
from contextlib import suppress

import psycopg2

from ._libpq cimport (
    PGRES_COPY_BOTH,
    PGRES_COPY_IN,
    PGRES_COPY_OUT,
    PGRES_POLLING_READING,
    PGRES_POLLING_WRITING,
    PGcancel,
    PGcancelConn,
    PGconn,
    PGresult,
    pq,
)
from ._socket cimport socket_close, socket_dup, socket_end, socket_ended, socket_ready

cdef extern from "_frames.h":
    pass

# Seconds until the server is asked again, at first; each time twice as long.
AGAIN = 0.1
# Seconds for which the end of the program waits.
LAST = 1.0
# Milliseconds between looks for what has come to be done, and for the time.
LOOK = 10

# The requests that an event loop watches.
cdef object _watching = weakref.WeakSet()
# Counts the forks above this process.
cdef unsigned int _forks = 0

cdef object _lock = threading.Lock()    # of the next two
cdef set _endings = set()
cdef object _worker = None
# The parent's, in a forked child, where nothing may be sent or closed.
cdef list _parents = []


cdef void _ignore_notice(void *arg, const PGresult *res) noexcept nogil:
    pass


cdef class _Request:
    """Asks the server to stop, as often as start() is called."""

    cdef int start(self) except -1:
        raise NotImplementedError

    cdef bint pending(self) except -1:
        """Whether it is under way."""
        raise NotImplementedError

    cdef int go_on(self) except -1:
        """Do what can be done without waiting."""
        return 0

    cdef int register(self, poller) except -1:
        """Name what go_on() waits for."""
        return 0

    cdef int watch(self, loop, callback) except -1:
        """Let an event loop call back, once, when go_on() can do something, or all is done."""
        raise NotImplementedError

    cdef int unwatch(self, loop) except -1:
        raise NotImplementedError


cdef class _Driven(_Request):
    """Step by step, with libpq's PQcancelStart."""

    cdef PGcancelConn *conn
    cdef int status
    cdef bint asked
    cdef bint sending
    cdef int watched            # the socket, by its descriptor; -1 while it is not

    cdef object __weakref__

    def __cinit__(self):
        self.watched = -1

    def __dealloc__(self):
        if self.conn != NULL:
            pq.cancelFinish(self.conn)

    cdef int start(self) except -1:
        if self.sending or self.conn == NULL:
            return 0
        if self.asked:
            pq.cancelReset(self.conn)
        self.asked = True
        self.sending = pq.cancelStart(self.conn) != 0
        self.status = PGRES_POLLING_WRITING
        return self.go_on()

    cdef bint pending(self) except -1:
        return self.sending

    cdef int go_on(self) except -1:
        # before its socket is ready, libpq would wait there, with the GIL: for ever if the server is gone
        while self.sending and socket_ready(
                pq.cancelSocket(self.conn), self.status == PGRES_POLLING_WRITING):
            self.status = pq.cancelPoll(self.conn)
            self.sending = self.status in (PGRES_POLLING_READING, PGRES_POLLING_WRITING)
        return 0

    cdef int register(self, poller) except -1:
        if self.sending:
            poller.register(
                pq.cancelSocket(self.conn),
                select.POLLIN if self.status == PGRES_POLLING_READING else select.POLLOUT)
        return 0

    cdef int watch(self, loop, callback) except -1:
        self.watched = pq.cancelSocket(self.conn)
        _watching.add(self)
        if self.status == PGRES_POLLING_READING:
            loop.add_reader(self.watched, callback)
        else:
            loop.add_writer(self.watched, callback)
        return 0

    cdef int unwatch(self, loop) except -1:
        if self.watched >= 0:
            loop.remove_reader(self.watched)
            loop.remove_writer(self.watched)
            self.watched = -1
            _watching.discard(self)
        return 0


def watched_sockets():
    """The descriptors of requests that an event loop watches."""
    return {(<_Driven>driven).watched for driven in _watching}


cdef class _Blocking(_Request):
    """PQcancel, for libpq 16 and older: in a thread of its own, since it may take its time."""

    cdef PGcancel *cancel
    cdef bint running
    cdef object told            # called when it has been sent, in the thread; or None

    def __dealloc__(self):
        if self.cancel != NULL:
            pq.freeCancel(self.cancel)

    cdef int start(self) except -1:
        if not self.running and self.possible():
            self.running = True
            if _in_thread(self) is None:
                self.running = False
        return 0

    cdef bint possible(self) except -1:
        return self.cancel != NULL

    cdef bint pending(self) except -1:
        return self.running

    cdef int send(self) except -1:
        cdef char error[256]
        with nogil:
            pq.cancel(self.cancel, error, sizeof(error))
        return 0

    def __call__(self):
        self.send()
        self.running = False
        told, self.told = self.told, None
        if told is not None:
            told()

    cdef int watch(self, loop, callback) except -1:
        def told():
            with suppress(RuntimeError):        # the loop is closed
                loop.call_soon_threadsafe(callback)
        self.told = told
        if not self.running:                    # it was quicker
            told()
        return 0

    cdef int unwatch(self, loop) except -1:
        self.told = None
        return 0


cdef class _ByPsycopg(_Blocking):
    """psycopg2's cancel(), for want of libpq's functions. It holds the GIL meanwhile."""

    cdef object raw

    cdef bint possible(self) except -1:
        return True

    cdef int send(self) except -1:
        with suppress(psycopg2.Error):
            self.raw.cancel()
        return 0


cdef _Request _request(PGconn *conn, raw=None):
    cdef _Driven driven
    cdef _Blocking blocking
    cdef _ByPsycopg asking
    if conn == NULL:
        asking = _ByPsycopg()
        asking.raw = raw
        return asking
    if pq.cancelCreate != NULL:
        driven = _Driven()
        driven.conn = pq.cancelCreate(conn)
        return driven
    blocking = _Blocking()
    blocking.cancel = pq.getCancel(conn)
    return blocking


cdef class Stopper:
    """Asks the server, from the event loop, to stop what runs on a connection that stays open.

    It asks until end(): a server that has not read the query yet ignores a request. A request that
    is under way hits whatever runs when it arrives, so nothing may be sent meanwhile.

    told: is told whether one is under way.
    waiter: a future; when it is done, what runs is another's. None if whoever asks looks to that.
    """

    def __cinit__(self, loop, told):
        self.loop, self.told = loop, told
        self.forks = _forks
        self.delay = AGAIN

    cdef int start(self, PGconn *conn, raw) except -1:
        """raw: is asked where `conn` is NULL."""
        self.request = _request(conn, raw)
        self.ask()
        return 0

    def ask(self):
        if self.forks != _forks:        # what it would hit is the parent's
            return
        if self.waiter is not None and self.waiter.done():
            return
        self.timer = self.loop.call_later(self.delay, self.ask)
        self.delay *= 2
        if not self.watching:
            self.request.start()
            self.watching = True
            self.told(True)
            self.look()

    cdef int look(self) except -1:
        if self.request.pending():
            self.request.watch(self.loop, self.go_on)
        else:
            self.loop.call_soon(self.go_on)
        return 0

    def go_on(self):
        if not self.watching or self.forks != _forks:
            return
        self.request.unwatch(self.loop)
        self.request.go_on()
        self.watching = self.request.pending()
        if self.watching:
            self.look()
        else:
            self.told(False)

    cdef int end(self) except -1:
        """Ask no more."""
        self.timer.cancel()
        if self.watching and not self.loop.is_closed() and self.forks == _forks:
            self.request.unwatch(self.loop)
        self.watching = False
        self.told = None
        return 0


cdef class _Ending:
    """One session that ends."""

    cdef PGconn *conn           # owned; NULL when it is closed
    cdef int peer               # then: its socket, a descriptor of our own; -1 when it has ended
    cdef _Request request
    cdef double end
    cdef double next            # when to ask again
    cdef double delay
    cdef object leaving         # a future: the server has hung up, or time is over
    cdef object loop            # that of the future

    def __cinit__(self):
        self.peer = -1

    def __dealloc__(self):
        if self.conn != NULL:
            pq.finish(self.conn)
        if self.peer >= 0:
            socket_close(self.peer)

    cdef int turn(self) except -1:
        """Do what can be done now."""
        now = time.monotonic()
        if self.request.pending():
            self.request.go_on()
        if self.socket() >= 0 and socket_ready(self.socket(), False):
            self.read()
        if self.over() or now >= self.end:
            self.finish()
        elif self.conn != NULL and now >= self.next:
            self.delay *= 2
            self.next = now + self.delay
            self.request.start()
        return 0

    cdef int socket(self) noexcept:
        return self.peer if self.conn == NULL else pq.socket(self.conn)

    cdef bint over(self) except -1:
        # a request that is under way is not given up: a proxy may have ended the session already
        return self.conn == NULL and self.peer < 0 and not self.request.pending()

    cdef int read(self) except -1:
        """Throw away what the server says, until the query is over or the server has hung up."""
        if self.conn == NULL:
            if socket_ended(self.peer):
                socket_close(self.peer)
                self.peer = -1
        elif not pq.consumeInput(self.conn) or self.query_over():
            self.leave()
        elif not pq.drains and not socket_ready(self.socket(), False) and (     # see Link._on_readable()
                not pq.consumeInput(self.conn) or self.query_over()):
            self.leave()
        return 0

    cdef bint query_over(self) except -1:
        cdef PGresult *res
        cdef int status
        cdef bint ended = False
        while not pq.isBusy(self.conn):
            res = pq.getResult(self.conn)
            if res == NULL:
                # in a pipeline that is the end of one statement
                if ended or pq.pipelineStatus == NULL or pq.pipelineStatus(self.conn) == 0:
                    return True
                ended = True
                self.next, self.delay = 0, AGAIN        # the next may be running now: ask at once
                continue
            ended = False
            status = pq.resultStatus(res)
            pq.clear(res)
            if status == PGRES_COPY_OUT and not self.copy_over():
                return False
            if status == PGRES_COPY_IN and pq.putCopyEnd(self.conn, b"cancelled") != 1:
                return True
            if status == PGRES_COPY_BOTH:
                return True             # libpq would give it again and again
        return False

    cdef bint copy_over(self) except -1:
        cdef char *data = NULL
        cdef int length = 1
        while length > 0:
            length = pq.getCopyData(self.conn, &data, 1)
            if length > 0:
                pq.freemem(data)
        return length != 0

    cdef int leave(self) except -1:
        """Close the session; its socket is kept to see the server hang up."""
        self.peer = socket_dup(pq.socket(self.conn))
        pq.finish(self.conn)
        self.conn = NULL
        if self.peer >= 0:
            socket_end(self.peer)       # libpq's close alone would not, while we hold the socket
        return 0

    cdef int finish(self) except -1:
        """Let go of everything, and tell it."""
        if self.conn != NULL:
            pq.finish(self.conn)
            self.conn = NULL
        if self.peer >= 0:
            socket_close(self.peer)
            self.peer = -1
        with _lock:
            _endings.discard(self)
        if self.leaving is not None:
            with suppress(RuntimeError):        # the loop is closed
                self.loop.call_soon_threadsafe(_tell, self.leaving)
        return 0


def _tell(future):
    if not future.done():
        future.set_result(None)


cdef object cancel_query(PGconn *conn, bint unsent, object loop, double limit):
    """Take a PGconn over, stop what runs there, and close it.

    unsent: a part of the query has not been sent yet: the server shall not get the rest.
    limit: seconds after which the server is left to itself.

    Returns the future of `loop` that is done when the server has hung up, or time is over; None if
    the loop is closed.
    """
    cdef _Ending ending = _Ending()
    ending.conn = conn
    pq.setNoticeReceiver(conn, _ignore_notice, NULL)
    if unsent:
        socket_end(pq.socket(conn))
    if not loop.is_closed():
        ending.loop = loop
        ending.leaving = loop.create_future()
    now = time.monotonic()
    ending.end = now + limit
    ending.delay = AGAIN
    ending.next = now + AGAIN
    ending.request = _request(conn)
    ending.request.start()
    if not unsent and ending.query_over():      # a COPY waits for us: no request ends it
        ending.leave()
    if not _hand_over(ending):
        _wait(now + LAST)
    return ending.leaving


cdef bint _hand_over(_Ending ending) except -1:
    """Let the thread go on. False if there is none to be had."""
    global _lock, _worker
    if sys.is_finalizing():         # it stands still, maybe with the lock
        _lock, _worker = threading.Lock(), None
    with _lock:
        _endings.add(ending)
        if _worker is None:
            _worker = _in_thread(_work)
        return _worker is not None


def _work():
    """Go on with all that is to be done, until nothing is left."""
    global _worker
    while True:
        with _lock:
            endings = list(_endings)
            if not endings:
                _worker = None
                return
        try:
            _look(endings)
        except Exception:
            _give_up(endings)


def _give_up(endings):
    """Better a session that is just closed than a thread that ends, and places never free again."""
    cdef _Ending ending
    for ending in endings:
        ending.finish()


def _look(endings):
    cdef _Ending ending
    poller = select.poll()
    for ending in endings:
        if ending.socket() >= 0:
            poller.register(ending.socket(), select.POLLIN)
        ending.request.register(poller)
    poller.poll(LOOK)
    for ending in endings:
        ending.turn()


@atexit.register
def _at_exit():
    _wait(time.monotonic() + LAST)


def _wait(end):
    """Wait until nothing is left to do; do it here if there is no thread."""
    while _endings and time.monotonic() < end:
        if _worker is None:
            _look(list(_endings))
        else:
            time.sleep(0.005)


def _after_fork():
    global _lock, _worker, _forks
    _forks += 1
    # what is under way is the parent's: never to be finished here, not even by the collector
    _parents.extend(_endings)
    _endings.clear()
    _lock = threading.Lock()
    _worker = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def cancel_and_close(raw, loop):
    """The same without libpq's functions: psycopg2 cancels, then closes, in a thread.

    Its cancel() holds the GIL while it talks to the server, so this is for want of better. Returns
    the future that is done then, or None.
    """
    leaving = None if loop.is_closed() else loop.create_future()

    def work():
        try:
            raw.cancel()
        finally:
            raw.close()
            if leaving is not None:
                with suppress(RuntimeError):    # the loop is closed
                    loop.call_soon_threadsafe(_tell, leaving)
    if _in_thread(work) is None:
        raw.close()
        return None
    return leaving


cdef object _in_thread(function):
    """A thread that runs it; None at the interpreter's end, when there are none to be had."""
    if sys.is_finalizing():         # Python 3.10 and 3.11 would wait for its start without an end
        return None
    thread = threading.Thread(target=function, name="aiopgx-cancel", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        return None
    return thread
