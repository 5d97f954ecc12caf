"""psycopg2's own C structs: what its cursors and typecasters keep where only C can reach it."""

from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF

from ._libpq cimport PGconn, PGresult

cdef extern from *:
    """
    typedef struct {
        PyObject_HEAD
        PyObject *name;
        PyObject *values;
        void *ccast;
        PyObject *pcast;
        PyObject *bcast;
    } aiopgx_caster;

    typedef struct {
        PyObject_HEAD
        PyObject *conn;
        int closed:1;
        int notuples:1;
        int withhold:1;
        int scrollable;
        long rowcount;
        long columns;
        long arraysize;
        long itersize;
        long row;
        long mark;
        PyObject *description;
        void *pgres;
        PyObject *pgstatus;
        unsigned int lastoid;
        PyObject *casts;
        PyObject *caster;
        PyObject *copyfile;
        Py_ssize_t copysize;
        PyObject *tuple_factory;
        PyObject *tzinfo_factory;
        PyObject *query;
        char *qattr;
        char *notice;
        char *name;
        char *qname;
        PyObject *string_types;
        PyObject *binary_types;
        PyObject *weakreflist;
    } aiopgx_cursor;
    """
    ctypedef struct CasterStruct "aiopgx_caster":
        void *ccast             # the C function, NULL for a caster written in Python
        PyObject *pcast         # the Python function, NULL for a caster written in C
        PyObject *bcast         # the caster of an array's elements, or NULL

    ctypedef struct CursorStruct "aiopgx_cursor":
        PyObject *conn
        int closed
        int notuples
        long rowcount
        long columns
        long row
        PyObject *description
        void *pgres
        PyObject *pgstatus
        unsigned int lastoid
        PyObject *casts
        PyObject *query

cdef bint casters_known         # CasterStruct is what psycopg2 has
cdef bint cursors_known         # CursorStruct is what psycopg2 has
cdef Py_ssize_t member_offset(object descr) noexcept
cdef void set_field(PyObject **field, object value) noexcept
cpdef object genuine_connection(object raw)
cpdef object genuine_cursor(object cursor)
cdef bint take_connection(object raw, PGconn *conn) except -1
cdef PGresult **place_of_polled(object raw, PGconn *conn) noexcept
cdef CasterStruct *caster_struct(object caster) noexcept
cdef bint is_closed(object cursor) except -1
cdef int give_attributes(object cursor, tuple fields) except -1
cdef int give_position(object cursor, long row) except -1
cdef int give_rowcount(object cursor, long rowcount) except -1
cdef int give_command(object cursor, tuple fields) except -1
cdef int give_result(object cursor, PGresult *res, tuple fields, tuple casts) except -1
cdef int give_failure(object cursor, object query) except -1
cdef PGresult *take_result(object cursor) except NULL


cdef inline PyObject *new_reference(object value) noexcept:
    Py_INCREF(value)
    return <PyObject *>value
