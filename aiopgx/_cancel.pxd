"""Asking the server to stop."""

from ._libpq cimport PGconn

cdef class _Request:
    cdef int start(self) except -1
    cdef bint pending(self) except -1
    cdef int go_on(self) except -1
    cdef int register(self, poller) except -1
    cdef int watch(self, loop, callback) except -1
    cdef int unwatch(self, loop) except -1

cdef class Stopper:
    cdef _Request request
    cdef object loop
    cdef object told
    cdef object waiter
    cdef object timer
    cdef double delay           # seconds
    cdef unsigned int forks
    cdef bint watching          # a request is under way

    cdef int start(self, PGconn *conn, raw) except -1
    cdef int look(self) except -1
    cdef int end(self) except -1

cdef object cancel_query(PGconn *conn, bint unsent, object loop, double limit)
