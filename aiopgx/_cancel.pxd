from ._libpq cimport PGconn


cdef class Cancel:
    cdef int peer

    cdef int closed(self) except -1


cdef Cancel cancel_query(PGconn *conn, object loop, object evict)
