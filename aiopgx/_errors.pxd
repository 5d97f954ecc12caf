from ._libpq cimport PGconn, PGresult

cdef bint layout_known          # whether errors can be built natively
cdef object utf8_codec          # what codec_of() gives for a connection in UTF-8
cdef object codec_of(object raw)
cdef object decode(object codec, const char *text)
cpdef object make_error(object cls, str message, object cursor)
cdef object result_error(PGconn *conn, PGresult *res, object codec, object cursor)
cdef object connection_error(PGconn *conn)
cdef int refuse_copy(PGresult *res) except -1
cdef object farewell_error(tuple farewell, object codec, object error)
cdef object readable_error(object error)
