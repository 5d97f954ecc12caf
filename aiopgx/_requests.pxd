"""Requests that others are made of."""

from ._core cimport MORE, Request, Taken, Wire
from ._libpq cimport PGresult
from ._plans cimport Lesson

cdef class Statement

cdef class Sharer:
    cdef int over(self, Wire wire, Statement request, object outcome) except -1
    cdef int expired(self, Wire wire, Statement request) except -1

cdef class Statement(Request):
    cdef object impl            # the psycopg2 cursor
    cdef Sharer sharer          # on a shared connection, who is told; else None
    cdef readonly object query  # the text; of a Prepared what writes it
    cdef int shape
    cdef Lesson lesson          # to be learned when it has worked; or None
    cdef object refused         # a COPY: what is to be said of it
    cdef PGresult *result       # owned

    cdef bint sent_by(self, Wire wire) except -1
    cdef Taken refuse_copy(self, Wire wire, int status) except? MORE
    cdef PGresult *kept(self) noexcept
    cdef bint is_executed(self) except -1

cdef class Command(Request):
    cdef bytes text
    cdef Request how            # a Statement or a Foreign

cdef class Session:
    cdef public int status
    cdef public bytes opening

    cdef object put(self, Wire wire, Request request, timeout)

cdef int keep_unseen(Wire wire, PGresult *res, object impl) except -1
cdef bint may_travel(operation, bint has_parameters) except -1
cdef tuple written(Wire wire, object impl, object operation, object parameters)
