from ._libpq cimport PGconn

cdef int cancel_query(PGconn *conn, object loop) except -1
