"""Columns: which decoder makes the values of each column of a result."""

from cpython.object cimport PyObject

from ._codecs cimport Column, Context
from ._libpq cimport PGresAttValue, PGresult

cdef class Columns:
    cdef Py_ssize_t count
    cdef Column *columns
    cdef Context context
    cdef object codec
    cdef list kept              # what the columns' parts hold: the collector must see it
    cdef object cursor
    cdef tuple casters
    cdef dict null_casters
    cdef bint zoned             # values depend on the cursor's tzinfo_factory
    cdef bint composed          # values depend on what is registered for their parts
    cdef bint binary            # some values come in the binary format
    cdef bint native            # no column needs psycopg2's caster
    cdef bint atomic            # no value can ever refer to its row: nothing for the collector

    @staticmethod
    cdef Columns of(PGresult *res, object raw, object codec, object cursor)
    cdef int prepare(self) except -1
    cdef int decode_row(self, PGresult *res, int row, PyObject **out) except -1
    cdef int decode_any(self, PGresult *res, int row, PyObject **out) except -1
    cdef inline int decode_fields(self, PGresAttValue *field, PyObject **out) except -1
    cdef int decode_tuples(self, PGresult *res, long start, long *row, list rows) except -1
    cdef void forget(self) noexcept
    cdef int check_parts(self) except -1
    cdef int check_zone(self) except -1
    cdef int choose_text(self, str encoding, codec) except -1
    cdef object ask_caster(self, int i, const char *text, Py_ssize_t size)
