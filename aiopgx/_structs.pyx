"""psycopg2's own C structs: what its cursors and typecasters keep where only C can reach it.

They are compared with the running psycopg2 at import, member by member. Where they differ, the
flags in the .pxd are false and nobody may read or write through them.
"""

from cpython.object cimport PyObject, PyObject_TypeCheck, PyTypeObject
from cpython.ref cimport Py_INCREF, Py_XDECREF

import psycopg2
import psycopg2._psycopg
import psycopg2.extensions

from ._libpq cimport PGconn, PGresult, pq

cdef extern from "_frames.h":
    pass

cdef extern from *:
    """
    #include <structmember.h>

    /* The offset of a member of a C type, or -1. */
    static Py_ssize_t aiopgx_offset(PyObject *descr) {
        if (!Py_IS_TYPE(descr, &PyMemberDescr_Type)) return -1;
        return ((PyMemberDescrObject *)descr)->d_member->offset;
    }

    #define CASTER(field) ((Py_ssize_t)offsetof(aiopgx_caster, field))
    #define CURSOR(field) ((Py_ssize_t)offsetof(aiopgx_cursor, field))
    """
    Py_ssize_t aiopgx_offset(object descr)
    Py_ssize_t caster_name "CASTER(name)"
    Py_ssize_t caster_values "CASTER(values)"
    Py_ssize_t cursor_conn "CURSOR(conn)"
    Py_ssize_t cursor_rowcount "CURSOR(rowcount)"
    Py_ssize_t cursor_arraysize "CURSOR(arraysize)"
    Py_ssize_t cursor_itersize "CURSOR(itersize)"
    Py_ssize_t cursor_row "CURSOR(row)"
    Py_ssize_t cursor_description "CURSOR(description)"
    Py_ssize_t cursor_pgstatus "CURSOR(pgstatus)"
    Py_ssize_t cursor_lastoid "CURSOR(lastoid)"
    Py_ssize_t cursor_caster "CURSOR(caster)"
    Py_ssize_t cursor_tuple_factory "CURSOR(tuple_factory)"
    Py_ssize_t cursor_tzinfo_factory "CURSOR(tzinfo_factory)"
    Py_ssize_t cursor_query "CURSOR(query)"
    Py_ssize_t cursor_name "CURSOR(name)"
    Py_ssize_t cursor_string_types "CURSOR(string_types)"
    Py_ssize_t cursor_binary_types "CURSOR(binary_types)"

cdef type CursorType = psycopg2.extensions.cursor
cdef type ConnectionType = psycopg2.extensions.connection
cdef type XidType = psycopg2.extensions.Xid
cdef type CasterType = type(psycopg2._psycopg.STRING)


cdef inline bint _is_cursor(object cursor) noexcept:
    """Whether it is one inside: isinstance() believes what a proxy says of itself."""
    return PyObject_TypeCheck(cursor, <PyTypeObject *>CursorType)


cdef Py_ssize_t member_offset(object descr) noexcept:
    """The offset of a member of a C type, or -1."""
    return aiopgx_offset(descr)


cdef bint _same(type cls, Py_ssize_t size, dict offsets) except -1:
    if cls.__basicsize__ != size:
        return False
    for name, offset in offsets.items():
        if member_offset(vars(cls)[name]) != offset:
            return False
    return True


cdef bint _casters_known() except -1:
    """Whether the fields that have no name in Python are where we think, too."""
    if not _same(CasterType, sizeof(CasterStruct),
                 {"name": caster_name, "values": caster_values}):
        return False
    function = object()
    python = psycopg2.extensions.new_type((0,), "python", function)
    array = psycopg2.extensions.new_array_type((0,), "array", python)
    shipped = psycopg2._psycopg.INTEGERARRAY
    cdef CasterStruct *p = <CasterStruct *>python
    cdef CasterStruct *a = <CasterStruct *>array
    cdef CasterStruct *s = <CasterStruct *>shipped
    return (p.ccast == NULL and p.pcast == <PyObject *>function and p.bcast == NULL
            and a.ccast != NULL and a.pcast == NULL and a.bcast == <PyObject *>python
            and s.ccast == a.ccast and s.bcast == <PyObject *>psycopg2._psycopg.INTEGER)


casters_known = _casters_known()
cdef bint _attributes_known = _same(CursorType, sizeof(CursorStruct), {
    "connection": cursor_conn, "rowcount": cursor_rowcount, "arraysize": cursor_arraysize,
    "itersize": cursor_itersize, "rownumber": cursor_row, "description": cursor_description,
    "statusmessage": cursor_pgstatus, "lastrowid": cursor_lastoid, "typecaster": cursor_caster,
    "row_factory": cursor_tuple_factory, "tzinfo_factory": cursor_tzinfo_factory,
    "query": cursor_query, "name": cursor_name, "string_types": cursor_string_types,
    "binary_types": cursor_binary_types,
})
cursors_known = pq.libVersion != 0 and _attributes_known
cdef Py_ssize_t _connection_closed = member_offset(vars(ConnectionType)["closed"])


cdef CasterStruct *caster_struct(object caster) noexcept:
    """The inside of a typecaster; NULL if it isn't one or its inside isn't known."""
    if casters_known and type(caster) is CasterType:
        return <CasterStruct *>caster
    return NULL


cdef bint is_closed(object cursor) except -1:
    """`cursor.closed`, which is true also if the connection is closed."""
    cdef CursorStruct *c
    if not cursors_known or _connection_closed < 0 or not _is_cursor(cursor):
        return cursor.closed
    c = <CursorStruct *>cursor
    if c.conn == NULL:
        return cursor.closed
    return c.closed or (<long *>(<char *>c.conn + _connection_closed))[0] != 0


cdef void set_field(PyObject **field, object value) noexcept:
    cdef PyObject *old = field[0]
    Py_INCREF(value)
    field[0] = <PyObject *>value
    Py_XDECREF(old)


def fill_xid(object xid, prepared, owner, database):
    """Set what psycopg2's tpc_recover() tells of a transaction ID besides its parts; return it."""
    cdef Py_ssize_t offset
    cdef char *inside = <char *><PyObject *>xid
    for name, value in (("prepared", prepared), ("owner", owner), ("database", database)):
        offset = member_offset(vars(XidType)[name])
        if type(xid) is not XidType or offset < 0:
            raise psycopg2.NotSupportedError("the inside of this psycopg2's Xid is not known")
        set_field(<PyObject **>(inside + offset), value)
    return xid


cdef object _genuine(object stand_in, type cls):
    """What a proxy stands for (`__wrapped__`, any depth); proxies pass for it with isinstance()."""
    while not issubclass(type(stand_in), cls):
        stand_in = getattr(stand_in, "__wrapped__", None)
        if stand_in is None:
            return None
    return stand_in


cpdef object genuine_connection(object raw):
    """The psycopg2 connection behind the proxies of monitoring agents."""
    connection = _genuine(raw, ConnectionType)
    if connection is None:
        raise TypeError(
            f"psycopg2.connect() gave {raw!r}, which is no psycopg2 connection and stands for none")
    return connection


cpdef object genuine_cursor(object cursor):
    """The psycopg2 cursor behind proxies; None if there is none."""
    return _genuine(cursor, CursorType)


# Where psycopg2's connection has its PGconn; -1 until one has been looked at.
cdef Py_ssize_t _pgconn_offset = -1


cdef bint take_connection(object raw, PGconn *conn) except -1:
    """Take the PGconn out of a genuine psycopg2 connection, as its close() does; the caller owns it.

    False if its place isn't known.
    """
    global _pgconn_offset
    cdef char *inside = <char *><PyObject *>raw
    cdef Py_ssize_t size = ConnectionType.__basicsize__
    cdef Py_ssize_t place, found = -1
    if _pgconn_offset < 0:
        for place in range(0, size, sizeof(void *)):
            if (<void **>(inside + place))[0] == conn:
                if found >= 0:
                    return False
                found = place
        if found < 0:
            return False
        _pgconn_offset = found
    if (<void **>(inside + _pgconn_offset))[0] != conn:
        return False
    (<void **>(inside + _pgconn_offset))[0] = NULL
    return True


# Where psycopg2's connection has its list of notices. The PGconn, the PGcancel, the cursor that
# executes, its status, and the result that poll() has taken stand right in front of it.
cdef Py_ssize_t _connection_notices = member_offset(vars(ConnectionType)["notices"])


cdef PGresult **place_of_polled(object raw, PGconn *conn) noexcept:
    """Where a genuine psycopg2 connection keeps what its poll() has taken; NULL if that isn't known."""
    cdef char *notices = <char *><PyObject *>raw + _connection_notices
    if _connection_notices < 0 or (<void **>(notices - 5 * sizeof(void *)))[0] != conn:
        return NULL
    return <PGresult **>(notices - sizeof(void *))


cdef CursorStruct *cursor_struct(object cursor) except NULL:
    """The inside of a cursor. Raises NotSupportedError if it isn't known."""
    if _attributes_known:
        cursor = _genuine(cursor, CursorType)       # which the proxy holds
        if cursor is not None:
            return <CursorStruct *>cursor
    raise psycopg2.NotSupportedError("the inside of this psycopg2's cursors is not known")


cdef CursorStruct *result_struct(object cursor) except NULL:
    """The same, where its result may be touched."""
    if not cursors_known:
        raise psycopg2.NotSupportedError("the inside of this psycopg2's cursors is not known")
    return cursor_struct(cursor)


cdef int give_attributes(object cursor, tuple fields) except -1:
    """Set what a psycopg2 cursor shows of a result.

    fields: rowcount, rownumber, lastrowid, description, statusmessage, query.
    """
    cdef CursorStruct *c = cursor_struct(cursor)
    c.rowcount, c.row, c.lastoid, description, statusmessage, query = fields
    set_field(&c.description, description)
    set_field(&c.pgstatus, statusmessage)
    set_field(&c.query, query)
    return 0


cdef int give_position(object cursor, long row) except -1:
    """Set which row of its result a psycopg2 cursor is at."""
    cursor_struct(cursor).row = row
    return 0


cdef int give_rowcount(object cursor, long rowcount) except -1:
    cursor_struct(cursor).rowcount = rowcount
    return 0


cdef int give_command(object cursor, tuple fields) except -1:
    """Leave a psycopg2 cursor as after a command without rows; see give_attributes()."""
    if cursors_known:
        return give_result(cursor, NULL, fields, ())
    give_attributes(cursor, fields)
    cursor_struct(cursor).notuples = True
    return 0


cdef int give_result(object cursor, PGresult *res, tuple fields, tuple casts) except -1:
    """Put a result into a psycopg2 cursor, as if psycopg2 had executed it.

    res: becomes the cursor's, unless this raises. NULL after a command without rows.
    fields: see give_attributes().
    casts: the typecasters of the columns.
    """
    cdef CursorStruct *c = result_struct(cursor)
    cdef PGresult *old = <PGresult *>c.pgres
    give_attributes(cursor, fields)
    c.pgres = res
    if old != NULL:
        pq.clear(old)
    c.notuples = res == NULL
    c.columns = len(casts)
    set_field(&c.casts, casts)
    return 0


cdef int give_failure(object cursor, object query) except -1:
    """Leave a psycopg2 cursor as after a statement that failed: nothing but its text."""
    if cursors_known and _is_cursor(cursor):
        give_result(cursor, NULL, (-1, 0, 0, None, "", query), ())
    return 0


cdef PGresult *take_result(object cursor) except NULL:
    """Take the result with rows out of a psycopg2 cursor; the caller owns it."""
    cdef CursorStruct *c = result_struct(cursor)
    cdef PGresult *res = <PGresult *>c.pgres
    if res == NULL:
        raise psycopg2.ProgrammingError("no results to fetch")
    c.pgres = NULL
    return res
