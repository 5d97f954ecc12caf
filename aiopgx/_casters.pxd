"""Casters: which decoder makes the values that a psycopg2 typecaster would make."""

from cpython.object cimport PyObject

from ._codecs cimport Column, Decoder

# The `string_types` of a cursor, which may be None, and of its connection; borrowed.
cdef struct Registry:
    PyObject *of_cursor
    PyObject *of_connection

cdef object find_caster(unsigned int oid, Registry *types)
cdef int choose_decoder(Column *column, object caster, Registry *types, int depth=*) except -1
cdef void release(Column *column) noexcept
cdef bint is_atomic(Decoder decode) noexcept
cdef bint tells_time(Column *column) noexcept
cdef bint is_outdated(Column *column, Registry *types) except -1
