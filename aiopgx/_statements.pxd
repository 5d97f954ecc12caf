cdef bint quotes_plainly(object raw) except -1
cdef bytes merge(object operation, object parameters)
cdef tuple in_order(tuple names, Py_ssize_t count, object parameters)

cdef class Unwritten:
    cdef object impl
    cdef str operation
    cdef tuple names
    cdef tuple values
    cdef bint has_parameters

    @staticmethod
    cdef Unwritten of(object impl, str operation, tuple names, tuple values, bint has_parameters)
    cdef bytes write(self)
    cdef bytes written_alone(self)
