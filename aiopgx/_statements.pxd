cdef bint quotes_plainly(object raw) except -1
cdef bytes merge(object operation, object parameters)
