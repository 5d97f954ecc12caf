"""Decoders of values that are made of values: arrays, ranges, composites, hstore."""

from ._codecs cimport Column

cdef bint ranges_known          # Range keeps its three values in slots
cdef object decode_array(Column *column, const char *text, Py_ssize_t size)
cdef object decode_range(Column *column, const char *text, Py_ssize_t size)
cdef object decode_composite(Column *column, const char *text, Py_ssize_t size)
cdef object decode_hstore(Column *column, const char *text, Py_ssize_t size)
cdef object decode_nothing(Column *column, const char *text, Py_ssize_t size)
