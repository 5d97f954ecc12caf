"""Decoders: the values of a PGresult as the objects that psycopg2 makes of them."""

from cpython.object cimport PyObject

from ._libpq cimport PGresult

# Makes a value's text, which need not end with NUL, into an object; UNUSUAL if it is not of the
# form that the decoder knows.
ctypedef object (*Decoder)(Column *column, const char *text, Py_ssize_t size)

cdef enum Zone:
    ZONE_NATIVE                 # tzinfo_factory is datetime.timezone
    ZONE_NONE                   # it is None: values without tzinfo
    ZONE_FOREIGN                # anything else: psycopg2's caster calls it

# What the decoders of a result's columns share.
cdef struct Context:
    Decoder text
    PyObject *codec             # borrowed from Columns.codec
    Zone zone

cdef struct Column:
    Context *context
    Decoder decode              # NULL: psycopg2's caster makes the values
    Decoder element             # of an array
    bint shared                 # equal neighbours may be one object
    Py_ssize_t size             # of the value above, -1 if there is none
    const char *text            # of the value above: lives in the PGresult
    PyObject *value             # made from it; owned

cdef class Columns:
    cdef Py_ssize_t count
    cdef Column *columns
    cdef Context context
    cdef object codec
    cdef object cursor
    cdef tuple casters
    cdef dict null_casters
    cdef bint zoned

    @staticmethod
    cdef Columns of(PGresult *res, object raw, object cursor)
    cdef int prepare(self) except -1
    cdef int decode_row(self, PGresult *res, int row, PyObject **out) except -1
    cdef int choose_text(self, raw) except -1
    cdef PyObject *new_value(self, Column *column, int i, const char *text,
                             Py_ssize_t size) except NULL
    cdef object ask_for_null(self, int i)
