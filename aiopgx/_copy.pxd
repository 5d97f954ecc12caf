"""Copy: a COPY FROM STDIN or TO STDOUT, as a request."""

from ._cancel cimport Stopper
from ._core cimport MORE, Taken, Wire
from ._requests cimport Statement

cpdef enum:                  # directions
    UNKNOWN
    COPY_FROM
    COPY_TO

cdef class Copy(Statement):
    cdef Wire wire              # None before it is sent, and when it is over
    cdef object future          # of the task that waits for something to happen, or None
    cdef readonly int direction # what the statement turned out to be
    cdef readonly bint over     # the waiter has its outcome
    cdef int before             # the transaction status in front of it
    cdef Stopper stopper        # once the server is asked to stop
    cdef bint ended             # all data, or why there is no more, is in libpq's hands; has come
    cdef bint unheard           # what the server sends can't be told by its first byte
    cdef readonly long long sent    # bytes of records
    cdef Py_ssize_t unsent      # bytes since the last flush
    cdef Py_ssize_t burst       # bytes since the event loop had its turn
    cdef list rows              # that have come, and nobody has fetched
    cdef Py_ssize_t size        # of these, in bytes
    cdef readonly Py_ssize_t discarded  # bytes that nobody wants; -1 while they are wanted

    cdef Taken take_rows(self, Wire wire) except? MORE
    cdef int keep_row(self, char *data, int length) except -1
    cdef int write(self, const char *data, Py_ssize_t length) except -1
    cdef bint may_go_on(self) except -1
    cdef int wake(self) except -1
