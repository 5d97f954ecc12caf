from ._libpq cimport PGconn

cdef int cancel_query(PGconn *conn, object loop, object evict) except -1
