"""Requests that others are made of."""

from ._core cimport MORE, Request, Taken, Wire
from ._libpq cimport PGresult

cdef class Statement(Request):
    cdef object impl            # the psycopg2 cursor
    cdef readonly bytes query
    cdef int shape
    cdef object refused         # a COPY: what is to be said of it
    cdef PGresult *result       # owned

    cdef bint sent_by(self, Wire wire) except -1
    cdef Taken refuse_copy(self, Wire wire, int status) except? MORE
    cdef PGresult *kept(self) noexcept
