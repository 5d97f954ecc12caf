from ._libpq cimport PGconn

cdef object cancel_query(PGconn *conn, bint unsent, object loop, double limit)
