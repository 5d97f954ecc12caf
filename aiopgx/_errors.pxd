from ._libpq cimport PGconn, PGresult

cdef bint layout_known          # whether errors can be built natively
cdef object decode(object raw, const char *text)
cdef object text_decoder(object raw)
cdef object make_error(object cls, str message, object cursor)
cdef object result_error(PGconn *conn, PGresult *res, object raw, object cursor)
cdef object connection_error(PGconn *conn, object raw)
