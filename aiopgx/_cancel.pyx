"""Telling the server to stop a query whose connection is being closed.

The request goes over a connection of its own. Where psycopg2's libpq has PQcancelStart the event
loop drives it; elsewhere PQcancel runs in a daemon thread, since it blocks. Nobody waits for it,
and nothing is said when it fails: the server may be gone, or the query already over.

A server that still reads the query when the request comes ignores the request, and runs the query
for nobody. So the connection's socket is kept until the server has hung up, and it is asked again.
"""

import threading
import time

from ._libpq cimport (
    PGRES_POLLING_READING,
    PGRES_POLLING_WRITING,
    PGcancel,
    PGcancelConn,
    PGconn,
    pq,
)
from ._socket cimport socket_close, socket_dup, socket_end, socket_ended, socket_ready

cdef extern from "_frames.h":
    pass

# Seconds after which the server is left to itself.
LIMIT = 10.0
# Seconds until it is asked again, at first; each time twice as long.
AGAIN = 0.1


cdef class Cancel:
    """One query to be stopped: `closed()` is to be called when its connection has been closed."""

    # `peer` is the connection's socket, a descriptor of our own; -1 if there is none

    def __cinit__(self):
        self.peer = -1

    def __dealloc__(self):
        if self.peer >= 0:
            socket_close(self.peer)

    cdef int closed(self) except -1:
        if self.peer >= 0:
            socket_end(self.peer)   # libpq's close alone would not, while we hold the socket
        return 0


cdef class _Driven(Cancel):
    """The event loop drives it, and keeps it alive."""

    cdef PGcancelConn *conn
    cdef object loop
    cdef object evict           # called with the number of a socket that we are about to watch
    cdef object timer
    cdef double delay
    cdef double end
    cdef int fd                 # of the request, while it is watched
    cdef bint writing
    cdef bint sending

    def __cinit__(self):
        self.fd = -1

    def __dealloc__(self):
        if self.conn != NULL:
            pq.cancelFinish(self.conn)

    cdef int start(self, PGconn *conn, loop, evict) except -1:
        self.conn = pq.cancelCreate(conn)
        if self.conn == NULL or not pq.cancelStart(self.conn):
            return 0
        self.loop = loop
        self.evict = evict
        self.delay = AGAIN
        self.end = loop.time() + LIMIT
        self.timer = loop.call_later(self.delay, self.again)
        self.sending = True
        self.step()
        return 0

    def step(self):
        """Go on until the socket would block; on this machine that is often the whole way."""
        cdef int status
        self._unwatch()
        while self.sending:
            status = pq.cancelPoll(self.conn)
            if status != PGRES_POLLING_READING and status != PGRES_POLLING_WRITING:
                self.sending = False
                break
            self.writing = status == PGRES_POLLING_WRITING
            if not socket_ready(pq.cancelSocket(self.conn), self.writing):
                self._watch()
                break

    cdef int closed(self) except -1:
        Cancel.closed(self)
        if self.timer is not None and self.peer >= 0:
            self.evict(self.peer, self.loop)
            self.loop.add_reader(self.peer, self.on_peer)
        return 0

    def on_peer(self):
        if socket_ended(self.peer):
            self._finish()

    def again(self):
        """The server has not hung up."""
        if self.loop.time() >= self.end or self.peer < 0:
            self._finish()
            return
        if not self.sending:
            pq.cancelReset(self.conn)
            self.sending = pq.cancelStart(self.conn) != 0
            self.step()
        self.delay *= 2
        self.timer = self.loop.call_later(self.delay, self.again)

    cdef int _finish(self) except -1:
        self._unwatch()
        self.timer.cancel()
        if self.peer >= 0:
            self.loop.remove_reader(self.peer)
            socket_close(self.peer)
            self.peer = -1
        pq.cancelFinish(self.conn)
        self.conn = NULL
        self.sending = False
        return 0

    cdef int _watch(self) except -1:
        self.fd = pq.cancelSocket(self.conn)
        self.evict(self.fd, self.loop)
        if self.writing:
            self.loop.add_writer(self.fd, self.step)
        else:
            self.loop.add_reader(self.fd, self.step)
        return 0

    cdef int _unwatch(self) except -1:
        if self.fd < 0:
            return 0
        if self.writing:
            self.loop.remove_writer(self.fd)
        else:
            self.loop.remove_reader(self.fd)
        self.fd = -1
        return 0


cdef class _Blocking(Cancel):
    """PQcancel, for libpq 16 and older: to be called in a thread."""

    cdef PGcancel *cancel

    def __dealloc__(self):
        if self.cancel != NULL:
            pq.freeCancel(self.cancel)

    def __call__(self):
        cdef char error[256]
        cdef double delay = AGAIN
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            with nogil:
                pq.cancel(self.cancel, error, sizeof(error))
            time.sleep(delay)
            delay *= 2
            if self.peer < 0 or socket_ended(self.peer):
                return


cdef Cancel cancel_query(PGconn *conn, object loop, object evict):
    """Ask the server to stop what it does for `conn`, which is to be closed right afterwards."""
    cdef _Driven driven
    cdef _Blocking blocking
    if pq.cancelCreate != NULL and not loop.is_closed():
        driven = _Driven()
        driven.peer = socket_dup(pq.socket(conn))
        driven.start(conn, loop, evict)
        return driven
    blocking = _Blocking()
    blocking.peer = socket_dup(pq.socket(conn))
    blocking.cancel = pq.getCancel(conn)
    if blocking.cancel != NULL:
        _in_thread(blocking)
    return blocking


def cancel_and_close(raw):
    """The same without libpq's functions: psycopg2 cancels, then closes, in a thread.

    Its cancel() holds the GIL while it talks to the server, so this is for want of better.
    """
    def work():
        try:
            raw.cancel()
        finally:
            raw.close()
    if not _in_thread(work):
        raw.close()


cdef bint _in_thread(function) except -1:
    """False at the interpreter's end, when there are no threads to be had."""
    try:
        threading.Thread(target=function, name="aiopgx-cancel", daemon=True).start()
    except RuntimeError:
        return False
    return True
