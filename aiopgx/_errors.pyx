"""psycopg2's exceptions, built from a PGresult as psycopg2 builds them.

`cursor`, `diag` and what they read live in fields of psycopg2.Error that only C can write. The
layout is compared with psycopg2's own at import; where it differs the native road is closed.
"""

from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.string cimport strlen, strncmp

import codecs

import psycopg2
import psycopg2.errors
import psycopg2.extensions

from ._libpq cimport (
    CONNECTION_BAD,
    PG_DIAG_SQLSTATE,
    PGRES_COPY_BOTH,
    PGRES_COPY_IN,
    PGRES_COPY_OUT,
    PGconn,
    PGresult,
    pq,
)
from ._structs cimport member_offset, set_field

cdef extern from "_frames.h":
    pass

cdef extern from *:
    """
    typedef struct {
        PyBaseExceptionObject exc;
        PyObject *pgerror;
        PyObject *pgcode;
        PyObject *cursor;
        PyObject *pydecoder;
        void *pgres;
    } aiopgx_error;
    """
    ctypedef struct aiopgx_error:
        PyObject *pgerror
        PyObject *pgcode
        PyObject *cursor
        PyObject *pydecoder
        void *pgres
    Py_ssize_t offsetof_pgerror "offsetof(aiopgx_error, pgerror)"
    Py_ssize_t offsetof_pgcode "offsetof(aiopgx_error, pgcode)"
    Py_ssize_t offsetof_cursor "offsetof(aiopgx_error, cursor)"

cdef object Error = psycopg2.Error
cdef object _members = vars(Error)

layout_known = (
    Error.__basicsize__ == sizeof(aiopgx_error)
    and member_offset(_members["pgerror"]) == offsetof_pgerror
    and member_offset(_members["pgcode"]) == offsetof_pgcode
    and member_offset(_members["cursor"]) == offsetof_cursor
)
errors_known = layout_known

# What psycopg2 raises for a SQLSTATE that it has no class for, by the first two characters.
cdef dict _class_errors = {
    "08": psycopg2.OperationalError, "0A": psycopg2.NotSupportedError,
    "20": psycopg2.ProgrammingError, "21": psycopg2.ProgrammingError,
    "22": psycopg2.DataError, "23": psycopg2.IntegrityError,
    "24": psycopg2.InternalError, "25": psycopg2.InternalError,
    "26": psycopg2.OperationalError, "27": psycopg2.OperationalError,
    "28": psycopg2.OperationalError, "2B": psycopg2.InternalError,
    "2D": psycopg2.InternalError, "2F": psycopg2.InternalError,
    "34": psycopg2.OperationalError, "38": psycopg2.InternalError,
    "39": psycopg2.InternalError, "3B": psycopg2.InternalError,
    "3D": psycopg2.ProgrammingError, "3F": psycopg2.ProgrammingError,
    "40": psycopg2.extensions.TransactionRollbackError,
    "42": psycopg2.ProgrammingError, "44": psycopg2.ProgrammingError,
}
cdef dict _family_errors = {
    "5": psycopg2.OperationalError, "F": psycopg2.InternalError,
    "H": psycopg2.OperationalError, "P": psycopg2.InternalError,
    "X": psycopg2.InternalError,
}


cdef object _error_class(str sqlstate):
    try:
        return psycopg2.errors.lookup(sqlstate)
    except KeyError:
        pass
    cls = _class_errors.get(sqlstate[:2]) or _family_errors.get(sqlstate[:1])
    return psycopg2.DatabaseError if cls is None else cls


cdef object utf8_codec = codecs.getdecoder("utf-8")


cdef object codec_of(object raw):
    """The function that decodes the texts of a connection; psycopg2 keeps that of the connect."""
    return codecs.getdecoder(psycopg2.extensions.encodings[raw.encoding])


cdef object decode(object codec, const char *text):
    """A text of the server or of libpq; never fails on bytes that are not valid."""
    if text == NULL:
        return None
    if codec is utf8_codec:
        return PyUnicode_DecodeUTF8(text, strlen(text), "replace")
    return codec(text[:strlen(text)], "replace")[0]


cpdef object make_error(object cls, str message, object cursor):
    """An exception of psycopg2's with its `cursor`, if the inside of exceptions is known."""
    error = cls(message)
    if layout_known and cursor is not None and isinstance(error, Error):
        set_field(&(<aiopgx_error *>error).cursor, cursor)
    return error


cdef object result_error(PGconn *conn, PGresult *res, object codec, object cursor):
    """The exception for a failed result, which it takes over: `diag` reads it."""
    cdef aiopgx_error *fields
    cdef const char *text = pq.resultErrorMessage(res)
    cdef const char *sqlstate = pq.resultErrorField(res, PG_DIAG_SQLSTATE)
    cdef const char *message = text
    try:
        if text == NULL or text[0] == 0:
            message = text = pq.errorMessage(conn)
        if text == NULL or text[0] == 0:
            return psycopg2.DatabaseError(
                "error with status %s and no message from the libpq"
                % pq.resStatus(pq.resultStatus(res)).decode())
        if sqlstate != NULL:
            cls = _error_class(sqlstate.decode("ascii", "replace"))
        elif pq.status(conn) == CONNECTION_BAD:
            cls = psycopg2.OperationalError
        else:
            cls = psycopg2.DatabaseError
        if strlen(text) > 8 and (strncmp(text, b"ERROR:  ", 8) == 0
                                 or strncmp(text, b"FATAL:  ", 8) == 0
                                 or strncmp(text, b"PANIC:  ", 8) == 0):
            message = text + 8
        error = make_error(cls, decode(codec, message), cursor)
        if not isinstance(error, Error):
            return error
        fields = <aiopgx_error *>error
        set_field(&fields.pydecoder, codec)
        set_field(&fields.pgerror, decode(codec, text))
        set_field(&fields.pgcode, decode(codec, sqlstate))
        fields.pgres = res
        res = NULL
        return error
    finally:
        if res != NULL:
            pq.clear(res)


cdef object connection_error(PGconn *conn):
    """What psycopg2 raises when libpq can't send or receive."""
    cdef const char *text = pq.errorMessage(conn)
    # psycopg2 decodes these with PyErr_SetString, as UTF-8
    return psycopg2.OperationalError((text[:strlen(text)] if text != NULL else b"").decode(
        "utf-8", "replace"))


cdef int refuse_copy(PGresult *res) except -1:
    """Raise if a COPY begins that the request can't end; `res` is freed then.

    libpq gives this result as often as it is asked for the next.
    """
    cdef int status = pq.resultStatus(res)
    if status == PGRES_COPY_IN or status == PGRES_COPY_OUT or status == PGRES_COPY_BOTH:
        pq.clear(res)
        raise psycopg2.DatabaseError("the server began a COPY that nobody has asked for")
    return 0


cdef object farewell_error(tuple farewell, object codec, object error):
    """The exception for the server's last words to an idle connection: its text, its SQLSTATE.

    error: what psycopg2 says of the connection's end. The whole is what it raises for a statement
    whose connection ends so.
    """
    cdef aiopgx_error *fields
    words, sqlstate = farewell
    text = decode(utf8_codec if codec is None else codec, words)
    if sqlstate is None or not layout_known:
        return psycopg2.OperationalError(text + str(error))
    cls = _error_class(sqlstate.decode("ascii", "replace"))
    told = cls((text.partition(":  ")[2] or text) + str(error))
    fields = <aiopgx_error *>told
    set_field(&fields.pgerror, text + str(error))
    set_field(&fields.pgcode, sqlstate.decode("ascii", "replace"))
    return told


cdef object readable_error(object error):
    """An OperationalError in place of psycopg2's failure to decode what the server has said."""
    if not isinstance(error, UnicodeDecodeError):
        return error
    readable = psycopg2.OperationalError(error.object.decode(error.encoding, "replace"))
    readable.__cause__ = error
    return readable
