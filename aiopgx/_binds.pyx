"""Binds: parameters of the extended protocol, typed as psycopg2's literals would be.

    Binds.of(values, untyped)       None where psycopg2 has to write literals instead
    binds.count, types, values, lengths, formats        as PQsendQueryParams() wants them
    binds.signature()               its types, as a key

The value and its type on the server are those of the literal that psycopg2's adapter writes: for
numbers, dates and the like the same text goes into the same type, and where the binary format can
only mean the same (int, bool, bytes, UUID, lists of int and str) that is sent.

Exact types only, and only while the adapter registered for the type is psycopg2's own. What psycopg2
refuses (a NUL in a str, half a surrogate pair) is not bound either: its own exception is to come.
Texts are UTF-8: call this only where the client's encoding is.

untyped: None, or a byte for each value. Where it is not 0 the server shall find out the type, as for
psycopg2's strings: OID 0, and the value as a text.
"""

cimport cython
from cpython.bytes cimport (
    PyBytes_AS_STRING,
    PyBytes_CheckExact,
    PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
)
from cpython.datetime cimport (
    PyDate_CheckExact,
    PyDateTime_CheckExact,
    PyDelta_CheckExact,
    PyTime_CheckExact,
    datetime_tzinfo,
    import_datetime,
    time_tzinfo,
    timedelta_days,
    timedelta_microseconds,
    timedelta_seconds,
)
from cpython.dict cimport PyDict_GetItem
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from cpython.list cimport PyList_CheckExact, PyList_GET_ITEM, PyList_GET_SIZE
from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_CheckExact
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_GET_SIZE
from cpython.unicode cimport PyUnicode_CheckExact
from libc.math cimport isfinite, isnan
from libc.string cimport memchr, memcpy, strlen

import datetime
import decimal
import uuid

import psycopg2._json
import psycopg2._psycopg
import psycopg2.extensions
import psycopg2.extras
from psycopg2.extensions import ISQLQuote, QuotedString

from ._limits cimport TOO_LARGE, too_large
from ._put cimport put32, put64

cdef extern from "_frames.h":
    pass

cdef extern from "Python.h":
    bint PyUnicode_IS_ASCII(object)
    Py_ssize_t PyUnicode_GET_LENGTH(object)
    char *PyUnicode_DATA(object)
    bytes PyUnicode_AsUTF8String(object)
    char *PyOS_double_to_string(double, char, int, int, int *)
    int Py_DTSF_ADD_DOT_0
    PyObject *_PyType_Lookup(type, object)      # borrowed

import_datetime()

cdef enum:
    BOOL = 16
    BYTEA = 17
    INT8 = 20
    INT4 = 23
    TEXT = 25
    FLOAT8 = 701
    INT4_ARRAY = 1007
    TEXT_ARRAY = 1009
    INT8_ARRAY = 1016
    DATE = 1082
    TIME = 1083
    TIMESTAMP = 1114
    DATE_ARRAY = 1182
    TIMESTAMPTZ = 1184
    INTERVAL = 1186
    TIMETZ = 1266
    NUMERIC = 1700
    UUID = 2950
    UUID_ARRAY = 2951

cdef enum:
    MAX_COUNT = 65535           # of parameters, in the protocol
    ARRAY_HEAD = 20             # bytes in front of the elements of a list
    MAX_INT32 = 0x7fffffff

cdef dict adapters = psycopg2.extensions.adapters
cdef object Decimal = decimal.Decimal
cdef type UUIDType = uuid.UUID
cdef type Json = psycopg2._json.Json
cdef type UUIDAdapter = psycopg2.extras.UUID_adapter

cdef list keys = [(cls, ISQLQuote) for cls in (
    int, bool, float, str, bytes, list, datetime.date, datetime.time, datetime.datetime,
    datetime.timedelta, Decimal, uuid.UUID)]
cdef list own_adapters = [
    psycopg2.extensions.Int, psycopg2.extensions.Boolean, psycopg2.extensions.Float,
    psycopg2.extensions.QuotedString, psycopg2.extensions.Binary, psycopg2._psycopg.List,
    psycopg2._psycopg.DateFromPy, psycopg2._psycopg.TimeFromPy, psycopg2._psycopg.TimestampFromPy,
    psycopg2._psycopg.IntervalFromPy, psycopg2._psycopg.Decimal, UUIDAdapter,
]
assert len(keys) == len(own_adapters) == KINDS
cdef tuple json_key = (Json, ISQLQuote)
cdef tuple object_key = (object, ISQLQuote)


cdef dict methods(type cls, tuple names):
    return {name: vars(cls)[name] for name in names}


# Classes written in Python can be patched.
cdef dict of_json = methods(Json, ("__conform__", "dumps", "prepare", "getquoted"))
cdef dict of_uuid = methods(UUIDAdapter, ("__init__", "__conform__", "getquoted"))
cdef object json_fields = {"adapted", "_conn", "_dumps"}


cdef bint is_unpatched(type cls, dict methods) except -1:
    for name, method in methods.items():
        if _PyType_Lookup(cls, name) != <PyObject *>method:
            return False
    return True


@cython.final
@cython.freelist(16)
cdef class Binds:
    """The values of one execution. The memory is theirs; libpq copies it while it sends."""

    def __dealloc__(self):
        if self.types != self.own_types:
            PyMem_Free(self.types)
            PyMem_Free(self.values)
            PyMem_Free(self.lengths)
            PyMem_Free(self.formats)
        if self.bytes != self.own_bytes:
            PyMem_Free(self.bytes)

    @staticmethod
    cdef Binds of(tuple values, bytes untyped):
        """Bind the values; None if one of them is for psycopg2."""
        cdef Py_ssize_t i, count = PyTuple_GET_SIZE(values)
        cdef Binds self
        cdef bint left
        if count > MAX_COUNT or (untyped is not None and PyBytes_GET_SIZE(untyped) != count):
            return None
        self = Binds.__new__(Binds)
        self.make_places(count)
        for i in range(count):
            left = untyped is not None and PyBytes_AS_STRING(untyped)[i] != 0
            if not self.add(<int>i, <object>PyTuple_GET_ITEM(values, i), left):
                return None
        self.settle()
        return self

    cdef bytes signature(self):
        """The types: what a statement is prepared for, beside its text."""
        return PyBytes_FromStringAndSize(<char *>self.types, self.count * sizeof(unsigned int))

    cdef tuple dumped(self, tuple values):
        """The values; in place of each Json what it was dumped as, and may be only once."""
        cdef Py_ssize_t i
        cdef list found = None
        for i in range(self.count):
            if type(<object>PyTuple_GET_ITEM(values, i)) is Json:
                if found is None:
                    found = list(values)
                found[i] = QuotedString(self.values[i][:self.lengths[i]].decode())
        return values if found is None else tuple(found)

    # Memory

    cdef int make_places(self, Py_ssize_t count) except -1:
        self.count = <int>count
        self.used = 0
        self.known = 0
        self.bytes = self.own_bytes
        self.size = OWN_BYTES
        self.types = self.own_types
        self.values = self.own_values
        self.lengths = self.own_lengths
        self.formats = self.own_formats
        if count > OWN_PLACES:
            self.types = <unsigned int *>PyMem_Malloc(count * sizeof(unsigned int))
            self.values = <const char **>PyMem_Malloc(count * sizeof(char *))
            self.lengths = <int *>PyMem_Malloc(count * sizeof(int))
            self.formats = <int *>PyMem_Malloc(count * sizeof(int))
            if (self.types == NULL or self.values == NULL or self.lengths == NULL
                    or self.formats == NULL):
                raise MemoryError
        return 0

    cdef int settle(self) noexcept:
        """Values are kept as places while `bytes` may move."""
        cdef int i
        for i in range(self.count):
            self.values[i] = NULL if self.lengths[i] < 0 else self.bytes + <size_t>self.values[i]
        return 0

    cdef char *begin(self, int i, unsigned int oid, int format, size_t size) except NULL:
        """Make room for a value; the caller fills it, the NUL behind it is there."""
        cdef size_t wanted = self.used + size + 1
        cdef char *larger
        if size >= TOO_LARGE or wanted >= TOO_LARGE:
            raise too_large()
        if wanted > self.size:
            larger = <char *>PyMem_Realloc(
                NULL if self.bytes == self.own_bytes else self.bytes, 2 * wanted)
            if larger == NULL:
                raise MemoryError
            if self.bytes == self.own_bytes:
                memcpy(larger, self.own_bytes, self.used)
            self.bytes = larger
            self.size = 2 * wanted
        self.types[i] = oid
        self.formats[i] = format
        self.lengths[i] = <int>size
        self.values[i] = <const char *>self.used
        self.used = wanted
        self.bytes[wanted - 1] = 0
        return self.bytes + <size_t>self.values[i]

    cdef int put(self, int i, unsigned int oid, int format, const char *value, size_t size) except -1:
        memcpy(self.begin(i, oid, format, size), value, size)
        return 0

    cdef bint put_text(self, int i, unsigned int oid, str text) except -1:
        """A text; False where psycopg2 refuses it."""
        cdef bytes encoded = None
        cdef const char *start
        cdef Py_ssize_t size
        if PyUnicode_IS_ASCII(text):
            start = PyUnicode_DATA(text)
            size = PyUnicode_GET_LENGTH(text)
        else:
            try:
                encoded = PyUnicode_AsUTF8String(text)
            except UnicodeEncodeError:
                return False
            start = PyBytes_AS_STRING(encoded)
            size = PyBytes_GET_SIZE(encoded)
        if memchr(start, 0, size) != NULL:
            return False
        self.put(i, oid, 0, start, size)
        return True

    # Values: each returns whether it could be bound

    cdef bint add(self, int i, object value, bint untyped) except -1:
        if value is None:
            self.types[i] = 0
            self.formats[i] = 0
            self.lengths[i] = -1
            return True
        if PyLong_CheckExact(value):
            return self.is_own(KIND_INT, None) and self.add_int(i, value, untyped)
        if PyUnicode_CheckExact(value):
            return self.is_own(KIND_STR, None) and self.put_text(i, 0, value)
        if value is True or value is False:
            if not self.is_own(KIND_BOOL, None):
                return False
            if untyped:
                return self.put_text(i, 0, "true" if value else "false")
            self.begin(i, BOOL, 1, 1)[0] = value is True
            return True
        if PyFloat_CheckExact(value):
            return self.is_own(KIND_FLOAT, None) and self.add_float(
                i, PyFloat_AS_DOUBLE(value), untyped)
        if PyBytes_CheckExact(value):
            return self.is_own(KIND_BYTES, None) and self.add_bytes(i, value, untyped)
        if PyList_CheckExact(value):
            return self.is_own(KIND_LIST, None) and self.add_list(i, value, untyped)
        if type(value) is UUIDType:
            return self.is_own(KIND_UUID, UUIDAdapter) and self.add_uuid(i, value, untyped)
        if type(value) is Decimal:
            return self.is_own(KIND_DECIMAL, None) and self.add_decimal(i, value, untyped)
        if type(value) is Json:
            return self.add_json(i, value)
        return self.add_clock(i, value, untyped)

    cdef bint is_own(self, int kind, object cls) except -1:
        """Whether psycopg2's own adapter is in use; looked at once for all values of a kind.

        cls: the adapter's class, if it is written in Python.
        """
        if self.known >> kind & 1:
            return True
        if PyDict_GetItem(adapters, keys[kind]) != PyList_GET_ITEM(own_adapters, kind):
            return False
        if cls is not None and not is_unpatched(cls, of_uuid):
            return False
        self.known |= 1u << kind
        return True

    cdef bint add_int(self, int i, object value, bint untyped) except -1:
        cdef int overflow = 0
        cdef long long number = PyLong_AsLongLongAndOverflow(value, &overflow)
        if untyped or overflow:
            try:
                return self.put_text(i, 0 if untyped else NUMERIC, str(value))
            except ValueError:
                return False            # more digits than Python writes
        if -MAX_INT32 - 1 <= number <= MAX_INT32:
            put32(self.begin(i, INT4, 1, 4), <unsigned int>number)
        else:
            put64(self.begin(i, INT8, 1, 8), <unsigned long long>number)
        return True

    cdef bint add_float(self, int i, double number, bint untyped) except -1:
        cdef char *text
        if not isfinite(number):
            name = "NaN" if isnan(number) else "Infinity" if number > 0 else "-Infinity"
            return self.put_text(i, 0 if untyped else FLOAT8, name)
        text = PyOS_double_to_string(number, c"r", 0, Py_DTSF_ADD_DOT_0, NULL)
        if text == NULL:
            raise MemoryError
        try:
            self.put(i, 0 if untyped else NUMERIC, 0, text, strlen(text))
        finally:
            PyMem_Free(text)
        return True

    cdef bint add_decimal(self, int i, object value, bint untyped) except -1:
        text = str(value) if value.is_finite() else "NaN"
        if len(text) <= 20 and text.lstrip("-").isdigit():
            return self.add_int(i, int(text), untyped)      # for the server it is one
        return self.put_text(i, 0 if untyped else NUMERIC, text)

    cdef bint add_bytes(self, int i, object value, bint untyped) except -1:
        if untyped:
            return self.put_text(i, 0, "\\x" + value.hex())
        self.put(i, BYTEA, 1, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
        return True

    cdef bint add_uuid(self, int i, object value, bint untyped) except -1:
        cdef object number
        cdef char *out
        if untyped:
            return self.put_text(i, 0, str(value))
        number = value.int
        if type(number) is not int or not 0 <= number < 1 << 128:
            return False
        out = self.begin(i, UUID, 1, 16)
        put64(out, number >> 64)
        put64(out + 8, number & 0xffffffffffffffff)
        return True

    cdef bint add_clock(self, int i, object value, bint untyped) except -1:
        """Dates and times, as texts of the form that psycopg2 writes."""
        cdef unsigned int oid
        if PyDateTime_CheckExact(value):
            if not self.is_own(KIND_DATETIME, None):
                return False
            oid = TIMESTAMP if datetime_tzinfo(value) is None else TIMESTAMPTZ
        elif PyDate_CheckExact(value):
            if not self.is_own(KIND_DATE, None):
                return False
            oid = DATE
        elif PyTime_CheckExact(value):
            if not self.is_own(KIND_TIME, None):
                return False
            oid = TIME if time_tzinfo(value) is None else TIMETZ
        elif PyDelta_CheckExact(value):
            if not self.is_own(KIND_TIMEDELTA, None):
                return False
            text = (f"{timedelta_days(value)} days "
                    f"{timedelta_seconds(value)}.{timedelta_microseconds(value):06} seconds")
            return self.put_text(i, 0 if untyped else INTERVAL, text)
        else:
            return False
        try:
            text = value.isoformat()
        except Exception:
            return False                # a tzinfo's: psycopg2 will meet it as well
        return self.put_text(i, 0 if untyped else oid, text)

    cdef bint add_json(self, int i, object value) except -1:
        if (not is_unpatched(Json, of_json) or value.__dict__.keys() != json_fields
                or PyDict_GetItem(adapters, json_key) != NULL
                or PyDict_GetItem(adapters, object_key) != NULL):
            return False
        try:
            text = value.dumps(value.adapted)
        except Exception:
            return False
        return PyUnicode_CheckExact(text) and self.put_text(i, 0, text)

    # Lists: of one type, without None

    cdef bint add_list(self, int i, list items, bint untyped) except -1:
        cdef Py_ssize_t count = PyList_GET_SIZE(items)
        cdef object first
        if count == 0:
            return self.put_text(i, 0, "{}")
        first = <object>PyList_GET_ITEM(items, 0)
        if first is None:
            return count == 1 and self.put_text(i, 0, "{NULL}")
        for item in items:
            if type(item) is not type(first):
                return False
        if PyLong_CheckExact(first):
            return self.is_own(KIND_INT, None) and self.add_ints(i, items, untyped)
        if PyUnicode_CheckExact(first):
            return self.is_own(KIND_STR, None) and self.add_texts(i, items, untyped)
        if PyDate_CheckExact(first):
            return self.is_own(KIND_DATE, None) and self.put_text(
                i, 0 if untyped else DATE_ARRAY, joined([item.isoformat() for item in items]))
        if type(first) is UUIDType:
            return self.is_own(KIND_UUID, UUIDAdapter) and self.put_text(
                i, 0 if untyped else UUID_ARRAY, joined([str(item) for item in items]))
        return False

    cdef bint add_ints(self, int i, list items, bint untyped) except -1:
        cdef Py_ssize_t n, count = PyList_GET_SIZE(items)
        cdef int overflow = 0, width = 4
        cdef long long number
        cdef char *out
        for n in range(count):
            number = PyLong_AsLongLongAndOverflow(<object>PyList_GET_ITEM(items, n), &overflow)
            if overflow:
                return False
            if not -MAX_INT32 - 1 <= number <= MAX_INT32:
                width = 8
        if untyped:
            return self.put_text(i, 0, joined([str(item) for item in items]))
        out = self.begin(i, INT4_ARRAY if width == 4 else INT8_ARRAY, 1,
                         ARRAY_HEAD + count * (4 + width))
        out = put_head(out, INT4 if width == 4 else INT8, count)
        for n in range(count):
            number = PyLong_AsLongLongAndOverflow(<object>PyList_GET_ITEM(items, n), &overflow)
            put32(out, width)
            if width == 4:
                put32(out + 4, <unsigned int>number)
            else:
                put64(out + 4, <unsigned long long>number)
            out += 4 + width
        return True

    cdef bint add_texts(self, int i, list items, bint untyped) except -1:
        cdef Py_ssize_t size = ARRAY_HEAD
        cdef list encoded = []
        cdef bytes piece
        cdef char *out
        try:
            encoded = [PyUnicode_AsUTF8String(item) for item in items]
        except UnicodeEncodeError:
            return False
        for piece in encoded:
            if b"\0" in piece:
                return False
            size += 4 + PyBytes_GET_SIZE(piece)
        if untyped:
            return self.put_text(i, 0, joined([in_quotes(item) for item in items]))
        out = put_head(self.begin(i, TEXT_ARRAY, 1, size), TEXT, PyList_GET_SIZE(encoded))
        for piece in encoded:
            size = PyBytes_GET_SIZE(piece)
            put32(out, <unsigned int>size)
            memcpy(out + 4, PyBytes_AS_STRING(piece), size)
            out += 4 + size
        return True


cdef char *put_head(char *out, unsigned int element, Py_ssize_t count) noexcept:
    """One dimension, no NULL, the OID of the elements, their number, from 1 on."""
    put32(out, 1)
    put32(out + 4, 0)
    put32(out + 8, element)
    put32(out + 12, <unsigned int>count)
    put32(out + 16, 1)
    return out + ARRAY_HEAD


cdef str joined(list items):
    return "{" + ",".join(items) + "}"


cdef str in_quotes(str item):
    return '"' + item.replace("\\", "\\\\").replace('"', '\\"') + '"'


def bound(values, untyped=None):
    """Binds.of() as a list of OID, format and bytes, for the tests that hold it against mogrify()."""
    cdef Binds binds = Binds.of(values, untyped)
    cdef int i
    if binds is None:
        return None
    return [
        (binds.types[i], binds.formats[i],
         None if binds.values[i] == NULL else binds.values[i][:binds.lengths[i]])
        for i in range(binds.count)
    ]
