"""Encoder: records as the data of a COPY FROM STDIN, in the binary format or in the text format.

    encoder = Encoder(raw, names, types)    the columns
    encoder.begin(first)                    chooses the format, by the types and by the first record
    encoder.fill(records)                   until CHUNK bytes are there; False if no more come

A value becomes what an INSERT with psycopg2's literal of it would store. In binary that is so for the
types in KINDS and values of the Python type that belongs to each; for other values only where the
outcome can't depend on the server (a float in an integer column is rounded as the server does it). A
first record that has others, or a column of another type, has all sent as text, which the server reads
with the type's own input function.
"""

cimport cpython.datetime as clock
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from cpython.list cimport PyList_CheckExact
from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_CheckExact
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from cpython.unicode cimport PyUnicode_CheckExact
from libc.math cimport isfinite, isinf, isnan
from libc.string cimport memchr, memcpy, memmove, strlen

import codecs
import datetime
import decimal
import uuid

import psycopg2
import psycopg2.extensions
from psycopg2.extensions import ISQLQuote

from ._limits cimport TOO_LARGE

from ._literals import (
    PLAIN,
    field_text,
    hint,
    in_quotes,
    number_text,
    plain_text,
    rounded,
    shortened,
    simple,
)

from ._put cimport put16, put32, put64, put_double, put_float

cdef extern from "_frames.h":
    pass

cdef extern from *:
    """
    #include <string.h>
    /* As the server reads the number's shortest decimal form: a double in the middle between two
       floats need not be so in that form. */
    static int aiopgx_between_floats(double d) {
        unsigned long long bits;
        memcpy(&bits, &d, 8);
        return (bits & 0x1fffffff) == 0x10000000;
    }
    /* Days from 2000-01-01. */
    static int aiopgx_days(int y, int m, int d) {
        int era, of_era, of_year;
        y -= m <= 2;
        era = y / 400;
        of_year = (153 * (m + (m > 2 ? -3 : 9)) + 2) / 5 + d - 1;
        of_era = (y - era * 400) * 365 + (y - era * 400) / 4 - (y - era * 400) / 100 + of_year;
        return era * 146097 + of_era - 730425;
    }
    """
    bint aiopgx_between_floats(double number)
    int aiopgx_days(int year, int month, int day)

cdef extern from "Python.h":
    bint PyUnicode_IS_ASCII(object)
    Py_ssize_t PyUnicode_GET_LENGTH(object)
    char *PyUnicode_DATA(object)
    const char *PyUnicode_AsUTF8AndSize(object, Py_ssize_t *) except NULL
    char *PyOS_double_to_string(double, char, int, int, int *)
    int Py_DTSF_ADD_DOT_0

cdef extern from "<stdlib.h>":
    float strtof(const char *, char **)

clock.import_datetime()

cdef enum:
    CHUNK = 1 << 16             # bytes, after which fill() returns
    MAX_DIGITS = 16000          # of a numeric, on either side of the point
    MAX_DIMENSIONS = 6

# What a column's type is encoded as.
cdef enum Kind:
    NO_KIND
    BOOL
    INT2
    INT4
    INT8
    FLOAT4
    FLOAT8
    NUMERIC
    TEXT
    BYTEA
    DATE
    TIME
    TIMETZ
    TIMESTAMP
    TIMESTAMPTZ
    INTERVAL
    UUID
    JSON
    JSONB

KINDS = {
    16: BOOL, 17: BYTEA, 20: INT8, 21: INT2, 23: INT4, 25: TEXT, 114: JSON, 700: FLOAT4, 701: FLOAT8,
    1042: TEXT, 1043: TEXT, 1082: DATE, 1083: TIME, 1114: TIMESTAMP, 1184: TIMESTAMPTZ,
    1186: INTERVAL, 1266: TIMETZ, 1700: NUMERIC, 2950: UUID, 3802: JSONB,
}
# Of an array's type, the type of its elements.
ELEMENTS = {
    199: 114, 1000: 16, 1001: 17, 1005: 21, 1007: 23, 1009: 25, 1014: 1042, 1015: 1043, 1016: 20,
    1021: 700, 1022: 701, 1115: 1114, 1182: 1082, 1183: 1083, 1185: 1184, 1187: 1186, 1231: 1700,
    1270: 1266, 2951: 2950, 3807: 3802,
}
cdef dict type_names = {
    BOOL: "boolean", INT2: "smallint", INT4: "integer", INT8: "bigint", FLOAT4: "real",
    FLOAT8: "double precision", NUMERIC: "numeric", TEXT: "text", BYTEA: "bytea", DATE: "date",
    TIME: "time without time zone", TIMETZ: "time with time zone",
    TIMESTAMP: "timestamp without time zone", TIMESTAMPTZ: "timestamp with time zone",
    INTERVAL: "interval", UUID: "uuid", JSON: "json", JSONB: "jsonb",
}

# Python types, as bits of Encoder.own, in the order of PLAIN.
cdef enum:
    OWN_INT = 1 << 0
    OWN_BOOL = 1 << 1
    OWN_FLOAT = 1 << 2
    OWN_STR = 1 << 3
    OWN_BYTES = 1 << 4
    OWN_LIST = 1 << 5
    OWN_DATE = 1 << 6
    OWN_TIME = 1 << 7
    OWN_DATETIME = 1 << 8
    OWN_TIMEDELTA = 1 << 9
    OWN_DECIMAL = 1 << 10
    OWN_UUID = 1 << 11

cdef object Decimal = decimal.Decimal
cdef type UUIDType = uuid.UUID
cdef object utc_zone = datetime.timezone.utc
cdef object DataError = psycopg2.DataError

cdef unsigned int own_types() except? 0:
    cdef unsigned int own = 0
    adapters = psycopg2.extensions.adapters
    for i, (cls, adapter) in enumerate(PLAIN.items()):
        if adapters.get((cls, ISQLQuote)) is adapter:
            own |= 1u << <unsigned int>i
    return own


@cython.final
cdef class Encoder:
    """See at the head of the file.

    raw: the genuine psycopg2 connection.
    names: of the columns.
    types: of each its OID, 0 if it is not known, and its category as in pg_type.
    """

    def __cinit__(self, raw, names, types):
        cdef Py_ssize_t i
        oids = [oid for oid, _ in types]
        self.raw, self.names = raw, tuple(names)
        self.categories = [category for _, category in types]
        self.width = len(self.names)
        codec = codecs.lookup(psycopg2.extensions.encodings[raw.encoding])
        self.encode = None if codec.name == "utf-8" else codec.encode
        self.utc = raw.get_parameter_status("TimeZone") in ("UTC", "Etc/UTC")
        self.own = own_types()
        self.binary = True
        self.kinds = <int *>PyMem_Malloc((self.width + 1) * sizeof(int))
        self.elements = <unsigned int *>PyMem_Malloc((self.width + 1) * sizeof(unsigned int))
        if self.kinds == NULL or self.elements == NULL:
            raise MemoryError
        for i in range(self.width):
            self.elements[i] = ELEMENTS.get(oids[i], 0)
            self.kinds[i] = KINDS.get(self.elements[i] or oids[i], NO_KIND)
            self.binary &= self.kinds[i] != NO_KIND

    def __dealloc__(self):
        PyMem_Free(self.data)
        PyMem_Free(self.kinds)
        PyMem_Free(self.elements)

    # Memory

    cdef char *room(self, Py_ssize_t size) except NULL:
        """Where the next `size` bytes are to be written."""
        cdef char *larger
        cdef Py_ssize_t wanted = self.used + size
        if wanted > self.size:
            if wanted >= TOO_LARGE:
                raise DataError("too long for COPY")
            wanted = 2 * wanted + 1024
            larger = <char *>PyMem_Realloc(self.data, wanted)
            if larger == NULL:
                raise MemoryError
            self.data, self.size = larger, wanted
        self.used += size
        return self.data + self.used - size

    cdef int append(self, const char *data, Py_ssize_t size) except -1:
        memcpy(self.room(size), data, size)
        return 0

    # Records

    def begin(self, list first):
        """Choose the format, and encode the first record if there is one: `first` is [] or [record]."""
        if first and hasattr(first[0], "__next__"):
            first = [tuple(first[0])]           # it may be read twice
        if self.binary:
            self.append(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0", 19)
            if not first:
                return
            try:
                self.add(first[0])
                return
            except psycopg2.Error:
                if not self.unfit:
                    raise
            self.binary = False
            self.used = 0
        if first:
            self.add(first[0])

    def fill(self, records):
        """Encode from an iterator until a chunk is there; False if no more come."""
        while self.used < CHUNK:
            try:
                record = next(records)
            except StopIteration:
                return False
            self.add(record)
        return True

    def append_record(self, record):
        """Encode one record; True if a chunk is there."""
        self.add(record)
        return self.used >= CHUNK

    def end(self):
        """Nothing follows."""
        if self.binary:
            self.append(b"\xff\xff", 2)

    cdef int add(self, record) except -1:
        cdef Py_ssize_t start = self.used
        try:
            if type(record) is not tuple:
                record = self.checked(record)
            if len(<tuple>record) != self.width:
                raise DataError(f"{len(<tuple>record)} values for {self.width} columns")
            if self.binary:
                self.add_values(record)
            else:
                self.add_text(record)
        except psycopg2.Error as error:
            self.used = start
            text = str(error)
            between = ", " if text.startswith("column ") else ": "
            raise type(error)(f"record {self.count + 1}{between}{text}") from error.__cause__
        self.count += 1
        return 0

    cdef object checked(self, record):
        """A record as a tuple."""
        if PyList_CheckExact(record):
            return tuple(<list>record)
        if isinstance(record, (str, bytes, bytearray, dict)):
            raise DataError(f"a sequence of values is wanted, not {type(record).__name__}")
        try:
            values = iter(record)
        except TypeError:
            raise DataError(
                f"a sequence of values is wanted, not {type(record).__name__}") from None
        return tuple(values)

    cdef int add_values(self, record) except -1:
        cdef Py_ssize_t i
        put16(self.room(2), <unsigned int>self.width)
        for i in range(self.width):
            value = (<tuple>record)[i]
            try:
                if value is None:
                    put32(self.room(4), 0xffffffff)
                elif self.elements[i]:
                    self.put_array(self.kinds[i], self.elements[i], value)
                else:
                    self.put(self.kinds[i], value)
            except (ValueError, OverflowError, psycopg2.Error) as error:
                raise self.placed(i, error)
        return 0

    cdef object placed(self, Py_ssize_t i, error):
        """The error of a value, with its column."""
        cls = type(error) if isinstance(error, psycopg2.ProgrammingError) else DataError
        placed = cls(f'column "{self.names[i]}": {error}')
        if not isinstance(error, psycopg2.Error):
            placed.__cause__ = error
        return placed

    # Values in binary

    cdef int put(self, int kind, object value) except -1:
        """A value of a column or array, not None: its length and itself."""
        cdef char *out
        if not self.fits(kind, value):
            value = self.fitting(kind, value, simple(value, self.raw))
            if value is None:
                put32(self.room(4), 0xffffffff)
                return 0
        if kind == INT4 or kind == INT8 or kind == INT2:
            return self.put_int(kind, value)
        if kind == TEXT or kind == JSON or kind == JSONB:
            return self.put_text(kind, value)
        if kind == FLOAT8:
            return self.put_double(PyFloat_AS_DOUBLE(value))
        if kind == FLOAT4:
            return self.put_real(PyFloat_AS_DOUBLE(value))
        if kind == NUMERIC:
            return self.put_numeric(value)
        if kind == TIMESTAMP or kind == TIMESTAMPTZ:
            return self.put_stamp(kind, value)
        if kind == TIME or kind == TIMETZ:
            return self.put_time(kind, value)
        if kind == BYTEA:
            return self.put_bytes(PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
        if kind == UUID:
            return self.put_uuid(value)
        if kind == BOOL:
            out = self.room(5)
            put32(out, 1)
            out[4] = value is True
        elif kind == DATE:
            out = self.room(8)
            put32(out, 4)
            put32(out + 4, <unsigned int>aiopgx_days(
                clock.date_year(value), clock.date_month(value), clock.date_day(value)))
        else:                           # INTERVAL: microseconds, days, months
            out = self.room(20)
            put32(out, 16)
            put64(out + 4, clock.timedelta_seconds(value) * 1000000LL + clock.timedelta_microseconds(value))
            put32(out + 12, <unsigned int>clock.timedelta_days(value))
            put32(out + 16, 0)
        return 0

    cdef bint is_own(self, unsigned int bit) noexcept:
        return self.own & bit != 0

    cdef bint fits(self, int kind, object value) except -1:
        """Whether the value is of the Python type that belongs to the kind."""
        if kind == INT4 or kind == INT8 or kind == INT2:
            return PyLong_CheckExact(value) and self.is_own(OWN_INT)
        if kind == TEXT or kind == JSON or kind == JSONB:
            return PyUnicode_CheckExact(value) and self.is_own(OWN_STR)
        if kind == FLOAT8 or kind == FLOAT4:
            return PyFloat_CheckExact(value) and self.is_own(OWN_FLOAT)
        if kind == NUMERIC:
            return type(value) is Decimal and self.is_own(OWN_DECIMAL) \
                or PyLong_CheckExact(value) and self.is_own(OWN_INT) \
                or PyFloat_CheckExact(value) and self.is_own(OWN_FLOAT)
        if kind == TIMESTAMP or kind == TIMESTAMPTZ:
            return clock.PyDateTime_CheckExact(value) and self.is_own(OWN_DATETIME) \
                and (clock.datetime_tzinfo(value) is not None) == (kind == TIMESTAMPTZ)
        if kind == TIME or kind == TIMETZ:
            return clock.PyTime_CheckExact(value) and self.is_own(OWN_TIME) \
                and (clock.time_tzinfo(value) is not None) == (kind == TIMETZ)
        if kind == BYTEA:
            return PyBytes_CheckExact(value) and self.is_own(OWN_BYTES)
        if kind == UUID:
            return type(value) is UUIDType and self.is_own(OWN_UUID)
        if kind == BOOL:
            return (value is True or value is False) and self.is_own(OWN_BOOL)
        if kind == DATE:
            return clock.PyDate_CheckExact(value) and self.is_own(OWN_DATE)
        return clock.PyDelta_CheckExact(value) and self.is_own(OWN_TIMEDELTA)

    cdef object fitting(self, int kind, object value, object plain):
        """What its literal says as a value that fits, or None for NULL; raises if there is none."""
        converted = NotImplemented
        if plain is None or type(plain) in PLAIN and self.fits(kind, plain):
            return plain
        cls = type(plain)
        if kind == INT4 or kind == INT8 or kind == INT2:
            if cls is float or cls is Decimal:
                return rounded(plain)
        elif kind == FLOAT8 or kind == FLOAT4:
            if cls is int or cls is Decimal:
                return as_float(plain, kind == FLOAT4)
        elif kind == TEXT:
            converted = number_text(plain)
        elif kind == DATE:
            if cls is datetime.datetime and plain.tzinfo is None:
                return plain.date()
        elif kind == TIMESTAMP or kind == TIMESTAMPTZ:
            if cls is datetime.date:
                plain = datetime.datetime(plain.year, plain.month, plain.day)
                cls = datetime.datetime
            if cls is datetime.datetime and plain.tzinfo is None:
                if kind == TIMESTAMP:
                    return plain
                if self.utc:
                    return plain.replace(tzinfo=utc_zone)
        elif kind == UUID and cls is str and len(plain) == 36:
            try:
                converted = UUIDType(plain)
            except ValueError:
                pass
            if converted is not NotImplemented and str(converted) != plain.lower():
                converted = NotImplemented
        if converted is not NotImplemented:
            return converted
        raise self.misfit(kind, value, "")

    cdef int put_int(self, int kind, object value) except -1:
        cdef int overflow = 0
        cdef long long number = PyLong_AsLongLongAndOverflow(value, &overflow)
        cdef char *out
        if overflow or kind == INT4 and not -0x80000000LL <= number <= 0x7fffffffLL \
                or kind == INT2 and not -0x8000 <= number <= 0x7fff:
            raise DataError(f"{type_names[kind]} out of range: {shortened(value)}")
        if kind == INT4:
            out = self.room(8)
            put32(out, 4)
            put32(out + 4, <unsigned int>number)
        elif kind == INT8:
            out = self.room(12)
            put32(out, 8)
            put64(out + 4, <unsigned long long>number)
        else:
            out = self.room(6)
            put32(out, 2)
            put16(out + 4, <unsigned int>number)
        return 0

    cdef int put_text(self, int kind, str text) except -1:
        cdef bytes encoded
        cdef const char *start
        cdef Py_ssize_t size
        cdef char *out
        if PyUnicode_IS_ASCII(text):
            start = PyUnicode_DATA(text)
            size = PyUnicode_GET_LENGTH(text)
        elif self.encode is None:
            encoded = text.encode()
            start = PyBytes_AS_STRING(encoded)
            size = PyBytes_GET_SIZE(encoded)
        else:
            encoded = self.encode(text)[0]
            start = PyBytes_AS_STRING(encoded)
            size = PyBytes_GET_SIZE(encoded)
        if memchr(start, 0, size) != NULL:
            raise DataError("A string literal cannot contain NUL (0x00) characters.")
        out = self.room(4 + (kind == JSONB) + size)
        put32(out, <unsigned int>(size + (kind == JSONB)))
        if kind == JSONB:
            out[4] = 1                  # the version of its format
        memcpy(out + 4 + (kind == JSONB), start, size)
        return 0

    cdef int put_bytes(self, const char *data, Py_ssize_t size) except -1:
        cdef char *out = self.room(4 + size)
        put32(out, <unsigned int>size)
        memcpy(out + 4, data, size)
        return 0

    cdef int put_double(self, double number) except -1:
        cdef char *out = self.room(12)
        put32(out, 8)
        put_double(out + 4, number + 0.0)    # psycopg2's -0.0 is a numeric, which is 0
        return 0

    cdef int put_real(self, double number) except -1:
        cdef char *text
        cdef char *out
        cdef float real = <float>number
        if aiopgx_between_floats(number):
            text = PyOS_double_to_string(number, c"r", 0, 0, NULL)
            if text == NULL:
                raise MemoryError
            real = strtof(text, NULL)
            PyMem_Free(text)
        if isinf(real) and not isinf(number) or real == 0 and number != 0:
            raise DataError(f"{number!r} is out of range for type real")
        out = self.room(8)
        put32(out, 4)
        put_float(out + 4, real + 0.0)
        return 0

    cdef int put_numeric(self, object value) except -1:
        cdef double number
        cdef char *text
        cdef str digits
        if PyFloat_CheckExact(value):
            number = PyFloat_AS_DOUBLE(value)
            if not isfinite(number):
                return self.put_special(
                    0xc000 if isnan(number) else 0xd000 if number > 0 else 0xf000)
            text = PyOS_double_to_string(number, c"r", 0, Py_DTSF_ADD_DOT_0, NULL)
            if text == NULL:
                raise MemoryError
            try:
                return self.put_digits(text, strlen(text))
            finally:
                PyMem_Free(text)
        digits = str(value)
        if not PyLong_CheckExact(value) and not value.is_finite():
            return self.put_special(0xc000)     # psycopg2 writes them all as NaN
        return self.put_digits(PyUnicode_DATA(digits), PyUnicode_GET_LENGTH(digits))

    cdef int put_special(self, unsigned int sign) except -1:
        cdef char *out = self.room(12)
        put32(out, 8)
        put32(out + 4, 0)
        put16(out + 8, sign)
        put16(out + 10, 0)
        return 0

    cdef int put_digits(self, const char *text, Py_ssize_t size) except -1:
        """A number in decimal, as Python writes it: groups of four digits, around the point."""
        cdef Py_ssize_t i, start = 0, digits = 0, point = -1, exponent = 0, end = size
        cdef Py_ssize_t weight, pad, groups, first = 0, scale
        cdef bint negative = text[0] == c"-"
        cdef bint below = False
        cdef char *out
        cdef char *at
        start = negative
        for i in range(start, size):
            if text[i] == c".":
                point = digits
            elif text[i] == c"e" or text[i] == c"E":
                end = i
                break
            else:
                digits += 1
        if point < 0:
            point = digits
        for i in range(end + 1, size):
            if text[i] == c"-":
                below = True
            elif text[i] != c"+" and exponent < 1000000:
                exponent = 10 * exponent + text[i] - c"0"
        point += -exponent if below else exponent
        if not -MAX_DIGITS <= point <= MAX_DIGITS or digits - point > MAX_DIGITS:
            raise DataError("value overflows numeric format")
        scale = digits - point if digits > point else 0
        weight = (point + 3 + 4 * MAX_DIGITS) // 4 - MAX_DIGITS - 1    # rounded down
        pad = 4 * (weight + 1) - point
        groups = (pad + digits + 3) // 4
        out = self.room(12 + 2 * groups)
        at = out + 12
        fill_groups(at, groups, text + start, end - start, pad)
        while first < groups and at[2 * first] == 0 and at[2 * first + 1] == 0:
            first += 1
            weight -= 1
        while groups > first and at[2 * groups - 2] == 0 and at[2 * groups - 1] == 0:
            groups -= 1
            self.used -= 2
        if first == groups:
            weight, negative = 0, False
        elif first:
            memmove(at, at + 2 * first, 2 * (groups - first))
        self.used -= 2 * first
        groups -= first
        put32(out, <unsigned int>(8 + 2 * groups))
        put16(out + 4, <unsigned int>groups)
        put16(out + 6, <unsigned int>weight)
        put16(out + 8, 0x4000 if negative else 0)
        put16(out + 10, <unsigned int>scale)
        return 0

    cdef int put_time(self, int kind, object value) except -1:
        cdef char *out = self.room(12 if kind == TIME else 16)
        put32(out, 8 if kind == TIME else 12)
        put64(out + 4, microseconds(
            clock.time_hour(value), clock.time_minute(value), clock.time_second(value), clock.time_microsecond(value)))
        if kind == TIMETZ:
            put32(out + 12, <unsigned int>-seconds_east(value))
        return 0

    cdef int put_stamp(self, int kind, object value) except -1:
        cdef long long since = aiopgx_days(
            clock.datetime_year(value), clock.datetime_month(value), clock.datetime_day(value)) * 86400000000LL
        cdef char *out
        since += microseconds(clock.datetime_hour(value), clock.datetime_minute(value), clock.datetime_second(value),
                              clock.datetime_microsecond(value))
        if kind == TIMESTAMPTZ and clock.datetime_tzinfo(value) is not utc_zone:
            since -= seconds_east(value) * 1000000LL
        out = self.room(12)
        put32(out, 8)
        put64(out + 4, <unsigned long long>since)
        return 0

    cdef int put_uuid(self, object value) except -1:
        cdef char *out
        number = value.int
        high, low = number >> 64, number & 0xffffffffffffffff
        out = self.room(20)
        put32(out, 16)
        put64(out + 4, high)
        put64(out + 12, low)
        return 0

    # Arrays

    cdef int put_array(self, int kind, unsigned int element, object value) except -1:
        cdef Py_ssize_t place = self.used, depth
        cdef list lengths = []
        cdef char *out
        items = value
        if not (PyList_CheckExact(value) and self.is_own(OWN_LIST)):
            raise self.misfit(kind, value, "[]")
        while PyList_CheckExact(items):
            lengths.append(len(<list>items))
            if not items:
                lengths = []
                break
            items = (<list>items)[0]
        depth = len(lengths)
        if depth > MAX_DIMENSIONS:
            raise DataError(f"number of array dimensions ({depth}) exceeds the maximum allowed (6)")
        out = self.room(16 + 8 * depth)
        put32(out + 4, <unsigned int>depth)
        put32(out + 8, depth != 0)       # there may be NULL in it
        put32(out + 12, element)
        for i, length in enumerate(lengths):
            put32(out + 16 + 8 * <Py_ssize_t>i, length)
            put32(out + 20 + 8 * <Py_ssize_t>i, 1)
        if depth:
            self.put_items(kind, value, lengths, 0)
        put32(self.data + place, <unsigned int>(self.used - place - 4))
        return 0

    cdef int put_items(self, int kind, object items, list lengths, Py_ssize_t depth) except -1:
        if not PyList_CheckExact(items) or len(<list>items) != lengths[depth]:
            raise DataError("the lists in a list must all have the same length")
        for item in tuple(<list>items):
            if depth + 1 < len(lengths):
                self.put_items(kind, item, lengths, depth + 1)
            elif item is None:
                put32(self.room(4), 0xffffffff)
            else:
                self.put(kind, item)
        return 0

    # The text format

    cdef int add_text(self, record) except -1:
        cdef Py_ssize_t i
        cdef list fields = []
        for i in range(self.width):
            try:
                fields.append(self.field(i, (<tuple>record)[i]))
            except (ValueError, OverflowError, psycopg2.Error) as error:
                raise self.placed(i, error)
        line = "\t".join(fields) + "\n"
        try:
            encoded = line.encode() if self.encode is None else self.encode(line)[0]
        except ValueError as error:
            raise DataError(str(error)) from error
        self.append(PyBytes_AS_STRING(encoded), PyBytes_GET_SIZE(encoded))
        return 0

    cdef object field(self, Py_ssize_t i, value):
        """A value of a column, with what would end it escaped."""
        if self.elements[i]:
            text = self.array_text(self.kinds[i], value)
        else:
            text = self.text_of(self.kinds[i], value, self.categories[i])
        if text is None:
            return "\\N"
        if "\0" in text:
            raise DataError("A string literal cannot contain NUL (0x00) characters.")
        if "\\" in text:
            text = text.replace("\\", "\\\\")
        if not text.isprintable():
            text = text.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
        return text

    cdef object text_of(self, int kind, value, category):
        """A value as what the type's input function takes: strings, and what is stored as in binary."""
        if value is None or PyUnicode_CheckExact(value) and self.is_own(OWN_STR):
            return value
        if kind == NO_KIND:
            return field_text(value, self.raw, category)
        plain = simple(value, self.raw)
        if plain is None or type(plain) is str:
            return plain
        if kind == TIMESTAMPTZ and type(plain) in (datetime.datetime, datetime.date) \
                or kind == TIMETZ and type(plain) is datetime.time:
            return plain.isoformat()        # in the session's time zone, if it has none
        if not self.fits(kind, plain):
            plain = self.fitting(kind, value, plain)
        return plain_text(plain)

    cdef object array_text(self, int kind, value):
        if not (PyList_CheckExact(value) and self.is_own(OWN_LIST)):
            plain = None if value is None else simple(value, self.raw)
            if plain is None or type(plain) is str:
                return plain
            raise self.misfit(kind, value, "[]")
        parts = []
        for item in value:
            if PyList_CheckExact(item):
                parts.append(self.array_text(kind, item))
            else:
                text = self.text_of(kind, item, "")
                parts.append("NULL" if text is None else in_quotes(text))
        return "{" + ",".join(parts) + "}"

    cdef object misfit(self, int kind, value, str suffix):
        """The error of a value that has no form for the kind, or none that is surely the same."""
        self.unfit = True
        return DataError(f"{shortened(value)} ({type(value).__name__}) is not encoded as "
                         f"{type_names[kind]}{suffix}{hint(type_names[kind], value)}")


cdef object as_float(number, bint single):
    """An int or Decimal as the float that the server makes of it."""
    cdef bytes text
    if type(number) is Decimal and not number.is_finite():
        return float("nan")
    if single:
        text = str(number).encode()
        converted = <double>strtof(PyBytes_AS_STRING(text), NULL)
        if type(number) is int and -(1 << 63) <= number < 1 << 63:
            converted = <double><float><long long>number
    else:
        converted = float(number)
    if isinf(<double>converted) or not converted and number:
        raise DataError(f"{shortened(number)} is out of range for type "
                        f"{'real' if single else 'double precision'}")
    return converted


cdef long long microseconds(int hour, int minute, int second, int micro) noexcept:
    return ((hour * 60 + minute) * 60 + second) * 1000000LL + micro


cdef int seconds_east(value) except? -1:
    """The UTC offset of a datetime or time."""
    offset = value.utcoffset()
    if offset is None:
        raise DataError(f"{shortened(value)} has a time zone, but no offset")
    seconds = clock.timedelta_days(offset) * 86400 + clock.timedelta_seconds(offset)
    if clock.timedelta_microseconds(offset) or not -57600 < seconds < 57600:
        raise DataError(f"time zone displacement out of range: {offset}")
    return seconds


cdef int fill_groups(char *at, Py_ssize_t groups, const char *text, Py_ssize_t size,
                     Py_ssize_t pad) noexcept:
    """Write decimal digits as numbers of four digits each; pad: zeros in front."""
    cdef Py_ssize_t i, place = pad
    cdef int group = 0
    cdef char *out = at
    for i in range(size):
        if text[i] == c".":
            continue
        group = 10 * group + text[i] - c"0"
        place += 1
        if place % 4 == 0:
            put16(out, group)
            out += 2
            group = 0
    if place % 4:
        while place % 4:
            group *= 10
            place += 1
        put16(out, group)
    return 0
