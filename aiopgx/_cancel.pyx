"""Telling the server to stop a query whose connection is being closed.

The request goes over a connection of its own. Where psycopg2's libpq has PQcancelStart the event
loop drives it; elsewhere PQcancel runs in a daemon thread, since it blocks. Nobody waits for it,
and nothing is said when it fails: the server may be gone, or the query already over.
"""

import threading

from ._libpq cimport (
    PGRES_POLLING_READING,
    PGRES_POLLING_WRITING,
    PGcancel,
    PGcancelConn,
    PGconn,
    pq,
)
from ._socket cimport socket_ready

cdef extern from "_frames.h":
    pass

# Seconds after which a cancel request that got no answer is given up.
LIMIT = 10.0


cdef class _Request:
    """One cancel request, driven by the event loop; the loop keeps it alive."""

    cdef PGcancelConn *conn
    cdef object loop
    cdef object evict           # called with the number of a socket that we are about to watch
    cdef object timer
    cdef int fd
    cdef bint writing

    def __cinit__(self):
        self.fd = -1

    def __dealloc__(self):
        if self.conn != NULL:
            pq.cancelFinish(self.conn)

    def step(self):
        """Go on until the socket would block; on this machine that is often the whole way."""
        cdef int status
        self._unwatch()
        if self.conn == NULL:
            return
        while True:
            status = pq.cancelPoll(self.conn)
            if status != PGRES_POLLING_READING and status != PGRES_POLLING_WRITING:
                return self.finish()
            self.writing = status == PGRES_POLLING_WRITING
            if not socket_ready(pq.cancelSocket(self.conn), self.writing):
                break
        self.fd = pq.cancelSocket(self.conn)
        self.evict(self.fd, self.loop)
        if self.writing:
            self.loop.add_writer(self.fd, self.step)
        else:
            self.loop.add_reader(self.fd, self.step)

    def finish(self):
        self._unwatch()
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.conn != NULL:
            pq.cancelFinish(self.conn)
            self.conn = NULL

    cdef _unwatch(self):
        if self.fd < 0:
            return
        if self.writing:
            self.loop.remove_writer(self.fd)
        else:
            self.loop.remove_reader(self.fd)
        self.fd = -1


cdef class _Blocking:
    """PQcancel, for libpq 16 and older: to be called in a thread."""

    cdef PGcancel *cancel

    def __dealloc__(self):
        if self.cancel != NULL:
            pq.freeCancel(self.cancel)

    def __call__(self):
        cdef char error[256]
        with nogil:
            pq.cancel(self.cancel, error, sizeof(error))


cdef int cancel_query(PGconn *conn, object loop, object evict) except -1:
    """Ask the server to stop what it does for `conn`, which may be closed right afterwards."""
    cdef _Request request
    cdef _Blocking blocking
    if pq.cancelCreate != NULL and not loop.is_closed():
        request = _Request()
        request.conn = pq.cancelCreate(conn)
        if request.conn == NULL or not pq.cancelStart(request.conn):
            return 0
        request.loop = loop
        request.evict = evict
        request.timer = loop.call_later(LIMIT, request.finish)
        request.step()
    else:
        blocking = _Blocking()
        blocking.cancel = pq.getCancel(conn)
        if blocking.cancel != NULL:
            _in_thread(blocking)
    return 0


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
