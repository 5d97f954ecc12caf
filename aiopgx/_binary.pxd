"""Results in binary: which columns are exact in it, their decoders, and the text of their values."""

from ._codecs cimport Column
from ._libpq cimport PGresult

cpdef bint binary_possible(tuple oids, bint all_digits)
cpdef bint binary_worth(tuple oids, object cursor, bint all_digits)
cdef int choose_binary(Column *column) except -1
cdef bytes text_of(unsigned int oid, const char *value, Py_ssize_t size)
cdef PGresult *in_text(PGresult *res) except NULL
