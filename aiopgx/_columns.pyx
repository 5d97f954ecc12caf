"""Columns: the values of a result's rows, by a decoder for each column."""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF
from cpython.tuple cimport PyTuple_New, PyTuple_SET_ITEM
from libc.string cimport memcmp

import datetime

import psycopg2.extensions

from ._binary cimport choose_binary, text_of
from ._casters cimport (
    Registry,
    choose_decoder,
    find_caster,
    is_atomic,
    is_outdated,
    release,
    tells_time,
)
from ._codecs cimport (
    ZONE_FOREIGN,
    ZONE_NATIVE,
    ZONE_NONE,
    Column,
    Zone,
    decode_by_codec,
    decode_latin1,
    decode_utf8,
)
from ._containers cimport decode_nothing
from ._libpq cimport PGresAttValue, PGresult, pq
from ._malformed cimport is_deadly
from ._structs cimport new_reference

cdef extern from "_frames.h":
    pass

cdef extern from "Python.h":
    void PyObject_GC_UnTrack(PyObject *)
    PyObject *new_tuple "PyTuple_New"(Py_ssize_t) except NULL
    void set_item "PyList_SET_ITEM"(PyObject *list, Py_ssize_t, PyObject *)

cdef extern from *:
    """
    #define aiopgx_items(row) (((PyTupleObject *)(row))->ob_item)
    """
    PyObject **aiopgx_items(PyObject *row)

# Values in a row that differ from the one above, after which a column is not watched any more.
cdef enum:
    MAX_MISSES = 32

# Rows of a result that the garbage collector may meet before it is done with: its first pass comes
# after so many new objects.
cdef enum:
    LARGE = 2000

# A Decoder, which returns a reference that the caller owns.
ctypedef PyObject *(*OwnedDecoder)(Column *column, const char *text, Py_ssize_t size) except NULL

cdef object UNUSUAL = Ellipsis          # as decoders say it
cdef object timezone = datetime.timezone
cdef object new_array_type = psycopg2.extensions.new_array_type


@cython.final
@cython.no_gc_clear                     # `columns` borrows from the attributes
cdef class Columns:
    """The decoders of a result's columns."""

    def __dealloc__(self):
        cdef Py_ssize_t i
        if self.columns != NULL:
            for i in range(self.count):
                release(&self.columns[i])
            PyMem_Free(self.columns)

    @staticmethod
    cdef Columns of(PGresult *res, object raw, object codec, object cursor):
        """Look the casters up, as psycopg2 does it when it has executed.

        raw, cursor: the psycopg2 connection, and the psycopg2 cursor given to casters.
        codec: decodes texts.
        """
        cdef Columns self = Columns.__new__(Columns)
        cdef Py_ssize_t i
        cdef Column *column
        cdef Registry types
        self.count = pq.nfields(res)
        self.columns = <Column *>PyMem_Calloc(max(self.count, 1), sizeof(Column))
        if self.columns == NULL:
            raise MemoryError
        self.cursor = cursor
        self.casters = PyTuple_New(self.count)
        self.kept = []
        self.context.kept = <PyObject *>self.kept
        self.atomic = True
        self.native = pq.direct_rows
        self.choose_text(raw.encoding, codec)
        of_cursor, of_connection = cursor.string_types, raw.string_types
        types = Registry(<PyObject *>of_cursor, <PyObject *>of_connection)
        for i in range(self.count):
            column = &self.columns[i]
            column.context = &self.context
            column.size = -1
            caster = find_caster(pq.ftype(res, <int>i), &types)
            Py_INCREF(caster)
            PyTuple_SET_ITEM(self.casters, i, caster)
            choose_decoder(column, caster, &types)
            if tells_time(column):
                self.zoned = True
            if column.parts != NULL:
                self.composed = True
            if not is_atomic(column.decode):
                self.atomic = False
            if pq.fformat(res, <int>i):
                column.oid = pq.ftype(res, <int>i)
                choose_binary(column)
                self.binary = True
            if column.decode == NULL:
                self.native = False
        return self

    cdef int choose_text(self, str encoding, codec) except -1:
        # psycopg2 asks no codec about these
        if encoding == "UTF8":
            self.context.text = decode_utf8
        elif encoding == "LATIN1":
            self.context.text = decode_latin1
        else:
            self.codec = codec
            self.context.text = decode_by_codec
            self.context.codec = <PyObject *>codec
        return 0

    cdef int prepare(self) except -1:
        """Call before the rows of each fetch: what values depend on may have changed."""
        if self.composed:
            self.check_parts()
        if self.zoned:
            self.check_zone()
        return 0

    cdef int check_parts(self) except -1:
        cdef Py_ssize_t i
        cdef Registry types
        of_cursor, of_connection = self.cursor.string_types, self.cursor.connection.string_types
        types = Registry(<PyObject *>of_cursor, <PyObject *>of_connection)
        for i in range(self.count):
            if is_outdated(&self.columns[i], &types):
                self.columns[i].decode = decode_nothing
                self.native = False         # casters may look at the cursor
        return 0

    cdef void forget(self) noexcept:
        """Forget the values above: their result goes, or they are no longer right."""
        cdef Py_ssize_t i
        for i in range(self.count):
            self.columns[i].size = -1

    cdef int check_zone(self) except -1:
        cdef Zone zone
        factory = self.cursor.tzinfo_factory
        if factory is timezone:
            zone = ZONE_NATIVE
        else:
            zone = ZONE_NONE if factory is None else ZONE_FOREIGN
        if zone != self.context.zone:
            self.context.zone = zone
            self.forget()
        return 0

    cdef int decode_row(self, PGresult *res, int row, PyObject **out) except -1:
        """Put new references to a row's values into `out`; on an error, to the first of them."""
        if self.native:
            return self.decode_fields(res.tuples[row], out)
        return self.decode_any(res, row, out)

    cdef int decode_any(self, PGresult *res, int row, PyObject **out) except -1:
        cdef bint direct = pq.direct_rows
        cdef PGresAttValue *values = res.tuples[row] if direct else NULL
        cdef Column *column = self.columns
        cdef const char *text
        cdef Py_ssize_t size
        cdef int i
        for i in range(<int>self.count):
            if direct:
                text = values[i].value
                size = values[i].len
            else:
                text = pq.getvalue(res, row, i)
                size = -1 if pq.getisnull(res, row, i) else pq.getlength(res, row, i)
            if size < 0 and column.decode != NULL:
                out[i] = new_reference(None)
            elif size < 0 or column.decode == NULL:
                out[i] = new_reference(self.ask_caster(i, text, size))
            elif size == column.size and same(text, column.text, size):
                out[i] = new_reference(<object>column.value)
                column.misses = 0
            else:
                out[i] = (<OwnedDecoder>column.decode)(column, text, size)
                if out[i] == <PyObject *>UNUSUAL:
                    Py_DECREF(UNUSUAL)
                    out[i] = NULL
                    out[i] = new_reference(self.ask_caster(i, text, size))
                elif column.shared:
                    consider(column, text, size, out[i])
            column += 1
        return 0

    cdef inline int decode_fields(self, PGresAttValue *field, PyObject **out) except -1:
        """decode_any() without its questions: for native columns, whose rows are direct."""
        cdef Py_ssize_t i, size
        cdef Column *column = self.columns
        for i in range(self.count):
            size = field.len
            if size < 0:
                out[i] = new_reference(None)
            elif size == column.size and same(field.value, column.text, size):
                out[i] = new_reference(<object>column.value)
                column.misses = 0
            else:
                out[i] = (<OwnedDecoder>column.decode)(column, field.value, size)
                if out[i] == <PyObject *>UNUSUAL:
                    Py_DECREF(UNUSUAL)
                    out[i] = NULL
                    out[i] = new_reference(self.ask_caster(<int>i, field.value, size))
                elif column.shared:
                    consider(column, field.value, size, out[i])
            field += 1
            column += 1
        return 0

    cdef int decode_tuples(self, PGresult *res, long start, long *row, list rows) except -1:
        """Fill `rows` with tuples from `start` on; `row` follows. For native columns."""
        cdef Py_ssize_t r
        cdef long number = start            # what a tzinfo_factory may fetch is another matter
        cdef bint atomic = self.atomic and len(rows) >= LARGE
        cdef PyObject *values
        for r in range(len(rows)):
            values = new_tuple(self.count)
            set_item(<PyObject *>rows, r, values)       # the list owns it
            row[0] = number + 1
            self.decode_fields(res.tuples[number], aiopgx_items(values))
            number += 1
            if atomic:
                PyObject_GC_UnTrack(values)
        return 0

    cdef object ask_caster(self, int i, const char *text, Py_ssize_t size):
        """What psycopg2's caster makes of a value, or of NULL if `size` is negative.

        Called from Python with None, a caster gives None at once. psycopg2's C code does call its
        function for NULL; a caster for arrays brings it to do so.
        """
        if size >= 0:
            caster = self.casters[i]
            if self.columns[i].binary:
                written = text_of(self.columns[i].oid, text, size)
            else:
                written = PyBytes_FromStringAndSize(text, size)
            if is_deadly(caster, written, len(written)):
                raise psycopg2.DataError("malformed array")
            value = caster(written, self.cursor)
            if self.composed:
                self.check_parts()      # it may have registered others
            return value
        if self.null_casters is None:
            self.null_casters = {}
        caster = self.null_casters.get(i)
        if caster is None:
            caster = self.null_casters[i] = new_array_type((0,), "NULL", self.casters[i])
        return caster(b"{NULL}", self.cursor)[0]


cdef inline bint same(const char *a, const char *b, Py_ssize_t size) noexcept:
    # numbers and keys that follow each other differ at their end
    return size == 0 or (a[size - 1] == b[size - 1] and memcmp(a, b, size) == 0)


cdef inline bint is_nan(const char *text, Py_ssize_t size) noexcept:
    # one NaN in two rows would make the rows equal
    return size == 3 and memcmp(text, b"NaN", 3) == 0


cdef inline void consider(Column *column, const char *text, Py_ssize_t size,
                          PyObject *value) noexcept:
    """Remember a value for the rows below; give up where neighbours are never equal."""
    cdef PyObject *above = column.value
    column.misses += 1
    if column.misses > MAX_MISSES:
        column.shared = False
    elif not is_nan(text, size):
        Py_INCREF(<object>value)
        column.value = value
        column.text = text
        column.size = size
        Py_XDECREF(above)
