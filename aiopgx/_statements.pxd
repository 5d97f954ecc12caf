cdef bint quotes_plainly(object raw) except -1
cdef bytes merge(object operation, object parameters)
cdef tuple in_order(tuple names, Py_ssize_t count, object parameters)
