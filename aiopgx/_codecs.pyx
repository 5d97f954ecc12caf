"""Decoders: the values of a PGresult as the objects that psycopg2 makes of them.

A decoder knows the usual form of a type's values only, and returns UNUSUAL for every other: then
psycopg2's own typecaster is called, so values and exceptions are psycopg2's by construction. So a
decoder raises nothing itself but MemoryError.
"""

cimport cython
from cpython.buffer cimport PyBUF_ND, PyBUF_STRIDES, PyBUF_WRITABLE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.datetime cimport (
    date_new,
    datetime_new,
    import_datetime,
    time_new,
    timedelta_new,
    timezone_new,
)
from cpython.long cimport PyLong_FromLongLong, PyLong_FromString
from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_DECREF
from cpython.unicode cimport PyUnicode_DecodeLatin1
from libc.string cimport memcmp

import datetime
import decimal
import json
import uuid

cdef extern from "_frames.h":
    pass

import_datetime()

cdef extern from *:
    """
    /* Each digit's value is turned into the digit again and compared, which finds what is no
       lower-case digit: without a branch in it, compilers make vector instructions of this. */
    #if defined(__GNUC__) && !defined(__clang__)
    __attribute__((optimize("O3")))
    #endif
    static int aiopgx_unhex(unsigned char *out, const unsigned char *in, Py_ssize_t count) {
        unsigned char wrong = 0;
        Py_ssize_t i;
        for (i = 0; i < count; i++) {
            unsigned char a = in[2 * i], b = in[2 * i + 1];
            unsigned char high = (a & 15) + 9 * (a >> 6 & 1), low = (b & 15) + 9 * (b >> 6 & 1);
            wrong |= a ^ (unsigned char)(high + (high > 9 ? 0x57 : 0x30));
            wrong |= b ^ (unsigned char)(low + (low > 9 ? 0x57 : 0x30));
            wrong |= (high | low) & 0xf0;           /* "g" is no digit of value 16 */
            out[i] = (unsigned char)(high << 4 | low);
        }
        return wrong == 0;
    }
    """
    bint aiopgx_unhex(unsigned char *out, const unsigned char *text, Py_ssize_t count)

cdef extern from "Python.h":
    double PyOS_string_to_double(const char *, char **, PyObject *) except? -1.0
    int PyObject_GenericSetAttr(object, object, object) except -1
    object PyMemoryView_FromObject(object)
    PyObject *decoded_utf8 "PyUnicode_DecodeUTF8"(const char *, Py_ssize_t, const char *)
    void PyErr_Clear()

# What a decoder returns for a value that is not of the form it knows.
cdef object UNUSUAL = Ellipsis

cdef object Decimal = decimal.Decimal
cdef type UUID = uuid.UUID
cdef object unknown_safety = uuid.SafeUUID.unknown
cdef object loads = json.loads
cdef object scan_once = json.JSONDecoder().scan_once
cdef tuple no_arguments = ()


# --- text, numbers, bool -------------------------------------------------------------------------


cdef object decode_utf8(Column *column, const char *text, Py_ssize_t size):
    cdef PyObject *decoded = decoded_utf8(text, size, NULL)
    if decoded == NULL:
        PyErr_Clear()
        return UNUSUAL
    value = <object>decoded
    Py_DECREF(value)            # the reference was ours
    return value


cdef object decode_latin1(Column *column, const char *text, Py_ssize_t size):
    return PyUnicode_DecodeLatin1(text, size, NULL)


cdef object decode_by_codec(Column *column, const char *text, Py_ssize_t size):
    try:
        value, _ = (<object>column.context.codec)(PyBytes_FromStringAndSize(text, size))
    except UnicodeDecodeError:
        return UNUSUAL
    return value


cdef object decode_text(Column *column, const char *text, Py_ssize_t size):
    return column.context.text(column, text, size)


cdef object decode_bytes(Column *column, const char *text, Py_ssize_t size):
    return PyBytes_FromStringAndSize(text, size)


cdef object decode_bool(Column *column, const char *text, Py_ssize_t size):
    if size != 1:
        return UNUSUAL
    if text[0] == c"t":
        return True
    return False if text[0] == c"f" else UNUSUAL


cdef object decode_int(Column *column, const char *text, Py_ssize_t size):
    cdef unsigned long long number = 0
    cdef unsigned int digit
    cdef bint negative = size > 0 and text[0] == c"-"
    cdef const char *end = text + size
    text += negative
    size -= negative
    # 19 digits always fit into 64 bits without a sign; a leading zero is not a number's usual form
    if size < 1 or size > 19 or (text[0] == c"0" and (size > 1 or negative)):
        return UNUSUAL
    while text < end:
        digit = <unsigned char>text[0] - <unsigned int>c"0"
        if digit > 9:
            return UNUSUAL
        number = number * 10 + digit
        text += 1
    if number > 0x7fffffffffffffffULL:
        return UNUSUAL
    return PyLong_FromLongLong(-<long long>number if negative else <long long>number)


cdef object decode_float(Column *column, const char *text, Py_ssize_t size):
    cdef char *end
    cdef double number
    if size < 1 or text[0] == c" " or c"\t" <= text[0] <= c"\r":
        return UNUSUAL
    try:
        number = PyOS_string_to_double(text, &end, NULL)
    except ValueError:
        return UNUSUAL
    return number if end == text + size else UNUSUAL


cdef object decode_numeric(Column *column, const char *text, Py_ssize_t size):
    digits = decode_utf8(column, text, size)
    if digits is UNUSUAL:
        return UNUSUAL
    try:
        return Decimal(digits)
    except ArithmeticError:
        return UNUSUAL


# --- bytea ---------------------------------------------------------------------------------------


@cython.final
@cython.freelist(64)
cdef class Chunk:
    """Bytes whose memoryview has the format "c" and is read-only, as psycopg2's."""

    cdef bytes content

    def __getbuffer__(self, Py_buffer *view, int flags):
        if flags & PyBUF_WRITABLE == PyBUF_WRITABLE:
            raise BufferError("Object is not writable.")
        view.obj = self
        view.buf = PyBytes_AS_STRING(self.content)
        view.len = PyBytes_GET_SIZE(self.content)
        view.readonly = 1
        view.itemsize = 1
        view.format = b"c"
        view.ndim = 1
        view.shape = &view.len if flags & PyBUF_ND == PyBUF_ND else NULL
        view.strides = &view.itemsize if flags & PyBUF_STRIDES == PyBUF_STRIDES else NULL
        view.suboffsets = NULL
        view.internal = NULL


cdef object decode_bytea(Column *column, const char *text, Py_ssize_t size):
    cdef Chunk chunk = Chunk.__new__(Chunk)
    cdef Py_ssize_t count
    if size >= 2 and text[0] == c"\\" and text[1] == c"x":
        count = (size - 2) // 2
        chunk.content = PyBytes_FromStringAndSize(NULL, count)
        if size % 2 or not aiopgx_unhex(<unsigned char *>PyBytes_AS_STRING(chunk.content),
                                        <const unsigned char *>text + 2, count):
            return UNUSUAL
    else:
        count = unescaped_size(text, size)
        if count < 0:
            return UNUSUAL
        chunk.content = PyBytes_FromStringAndSize(NULL, count)
        unescape(PyBytes_AS_STRING(chunk.content), text, size)
    return PyMemoryView_FromObject(chunk)


cdef object make_bytea(bytes content):
    cdef Chunk chunk = Chunk.__new__(Chunk)
    chunk.content = content
    return PyMemoryView_FromObject(chunk)


cdef Py_ssize_t unescaped_size(const char *text, Py_ssize_t size) noexcept:
    """The number of bytes in bytea's "escape" format, -1 if it is malformed."""
    cdef const char *end = text + size
    cdef Py_ssize_t count = 0
    while text < end:
        if text[0] != c"\\":
            text += 1
        elif end - text >= 2 and text[1] == c"\\":
            text += 2
        elif (end - text >= 4 and c"0" <= text[1] <= c"3"
                and c"0" <= text[2] <= c"7" and c"0" <= text[3] <= c"7"):
            text += 4
        else:
            return -1
        count += 1
    return count


cdef void unescape(char *out, const char *text, Py_ssize_t size) noexcept:
    cdef const char *end = text + size
    while text < end:
        if text[0] != c"\\":
            out[0] = text[0]
            text += 1
        elif text[1] == c"\\":
            out[0] = c"\\"
            text += 2
        else:
            out[0] = <char>((text[1] & 3) << 6 | (text[2] & 7) << 3 | (text[3] & 7))
            text += 4
        out += 1


# --- json, uuid ----------------------------------------------------------------------------------


cdef object decode_json(Column *column, const char *text, Py_ssize_t size):
    cdef object document = column.context.text(column, text, size)
    cdef tuple found
    if document is UNUSUAL:
        return UNUSUAL
    try:
        found = scan_once(document, 0)
        return found[0] if found[1] == len(document) else loads(document)
    except (StopIteration, ValueError, RecursionError):
        return UNUSUAL          # blanks in front, which jsonb has not, or no JSON


cdef object decode_uuid(Column *column, const char *text, Py_ssize_t size):
    cdef char digits[33]
    cdef int i, count = 0
    if size != 36:
        return UNUSUAL
    for i in range(36):
        if i == 8 or i == 13 or i == 18 or i == 23:
            if text[i] != c"-":
                return UNUSUAL
        elif (c"0" <= text[i] <= c"9" or c"a" <= text[i] <= c"f"):
            digits[count] = text[i]
            count += 1
        else:
            return UNUSUAL
    digits[32] = 0
    return make_uuid(PyLong_FromString(digits, NULL, 16))


cdef object make_uuid(object number):
    value = (<PyTypeObject *>UUID).tp_new(UUID, <PyObject *>no_arguments, NULL)
    # UUID's own __setattr__ refuses
    PyObject_GenericSetAttr(value, "int", number)
    PyObject_GenericSetAttr(value, "is_safe", unknown_safety)
    return value


# --- dates and times -----------------------------------------------------------------------------


cdef struct Clock:
    int hour
    int minute
    int second
    int microsecond
    bint zoned
    int offset                  # seconds east of UTC


cdef inline int two_digits(const char *text) noexcept:
    """0..99, or -1."""
    cdef unsigned int tens = <unsigned char>text[0] - <unsigned int>c"0"
    cdef unsigned int ones = <unsigned char>text[1] - <unsigned int>c"0"
    return -1 if tens > 9 or ones > 9 else <int>(tens * 10 + ones)


cdef int fraction(const char **position, const char *end) noexcept:
    """The microseconds of 1 to 6 digits, or -1."""
    cdef const char *text = position[0]
    cdef int digits = 0, number = 0
    while text < end and c"0" <= text[0] <= c"9":
        if digits == 6:
            return -1
        number = number * 10 + (text[0] - c"0")
        digits += 1
        text += 1
    position[0] = text
    if digits == 0:
        return -1
    while digits < 6:
        number *= 10
        digits += 1
    return number


cdef bint read_offset(const char *text, Py_ssize_t size, Clock *clock) noexcept:
    """`+HH`, `+HH:MM` or `+HH:MM:SS`."""
    cdef int hours, minutes = 0, seconds = 0
    if (size != 3 and size != 6 and size != 9) or (text[0] != c"+" and text[0] != c"-"):
        return False
    hours = two_digits(text + 1)
    if size >= 6:
        minutes = two_digits(text + 4) if text[3] == c":" else -1
    if size == 9:
        seconds = two_digits(text + 7) if text[6] == c":" else -1
    if not (0 <= hours < 24 and 0 <= minutes < 60 and 0 <= seconds < 60):
        return False
    clock.zoned = True
    clock.offset = hours * 3600 + minutes * 60 + seconds
    if text[0] == c"-":
        clock.offset = -clock.offset
    return True


cdef bint read_clock(const char *text, Py_ssize_t size, Clock *clock) noexcept:
    """`HH:MM:SS`, maybe with fraction and offset."""
    cdef const char *end = text + size
    if size < 8 or text[2] != c":" or text[5] != c":":
        return False
    clock.hour = two_digits(text)
    clock.minute = two_digits(text + 3)
    clock.second = two_digits(text + 6)
    clock.microsecond = 0
    clock.zoned = False
    if not (0 <= clock.hour < 24 and 0 <= clock.minute < 60 and 0 <= clock.second < 60):
        return False
    text += 8
    if text < end and text[0] == c".":
        text += 1
        clock.microsecond = fraction(&text, end)
        if clock.microsecond < 0:
            return False
    return text == end or read_offset(text, end - text, clock)


cdef int *days_of_month = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]


cdef bint read_date(const char *text, int *year, int *month, int *day) noexcept:
    """`YYYY-MM-DD`, of the Gregorian calendar."""
    cdef int century = two_digits(text), rest = two_digits(text + 2)
    if century < 0 or rest < 0 or text[4] != c"-" or text[7] != c"-":
        return False
    year[0] = century * 100 + rest
    month[0] = two_digits(text + 5)
    day[0] = two_digits(text + 8)
    if year[0] < 1 or not 1 <= month[0] <= 12 or day[0] < 1:
        return False
    if month[0] == 2 and year[0] % 4 == 0 and (year[0] % 100 != 0 or year[0] % 400 == 0):
        return day[0] <= 29
    return day[0] <= days_of_month[month[0] - 1]


cdef dict zones = {}            # offset in seconds -> datetime.timezone
cdef int last_offset = 0
cdef object last_zone = datetime.timezone.utc


cdef object zone_of(int offset):
    global last_offset, last_zone
    if offset != last_offset:
        zone = zones.get(offset)
        if zone is None:
            zone = zones[offset] = timezone_new(timedelta_new(0, offset, 0))
        last_zone = zone
        last_offset = offset
    return last_zone


cdef object tzinfo_of(Column *column, Clock *clock):
    """The tzinfo of a value; UNUSUAL if psycopg2 has to ask the user's factory."""
    if not clock.zoned or column.context.zone == ZONE_NONE:
        return None
    return zone_of(clock.offset) if column.context.zone == ZONE_NATIVE else UNUSUAL


cdef object decode_date(Column *column, const char *text, Py_ssize_t size):
    cdef int year, month, day
    if size != 10 or not read_date(text, &year, &month, &day):
        return UNUSUAL
    return date_new(year, month, day)


cdef object decode_time(Column *column, const char *text, Py_ssize_t size):
    cdef Clock clock
    if not read_clock(text, size, &clock):
        return UNUSUAL
    tzinfo = tzinfo_of(column, &clock)
    if tzinfo is UNUSUAL:
        return UNUSUAL
    return time_new(clock.hour, clock.minute, clock.second, clock.microsecond, tzinfo)


cdef object decode_timestamp(Column *column, const char *text, Py_ssize_t size):
    cdef int year, month, day
    cdef Clock clock
    if (size < 19 or text[10] != c" " or not read_date(text, &year, &month, &day)
            or not read_clock(text + 11, size - 11, &clock)):
        return UNUSUAL
    tzinfo = tzinfo_of(column, &clock)
    if tzinfo is UNUSUAL:
        return UNUSUAL
    return datetime_new(year, month, day, clock.hour, clock.minute, clock.second,
                        clock.microsecond, tzinfo)


cdef int read_unit(const char **position, const char *end) noexcept:
    """Read " years", " mon", " days" ...; the days that psycopg2 counts for it, or 0."""
    cdef const char *text = position[0]
    cdef int days = 0
    if end - text >= 5 and memcmp(text, b" year", 5) == 0:
        days = 365
        text += 5
    elif end - text >= 4 and memcmp(text, b" mon", 4) == 0:
        days = 30
        text += 4
    elif end - text >= 4 and memcmp(text, b" day", 4) == 0:
        days = 1
        text += 4
    if text < end and text[0] == c"s":
        text += 1
    position[0] = text
    return days if text == end or text[0] == c" " else 0


cdef object decode_interval(Column *column, const char *text, Py_ssize_t size):
    """`1 year 2 mons -3 days -04:05:06.789`, each part at most once and in this order."""
    cdef const char *end = text + size
    cdef long long days = 0, seconds = 0, number
    cdef int digits, unit, previous = 1000, micros = 0
    cdef Clock clock
    cdef bint negative
    while True:
        negative = text < end and text[0] == c"-"
        if negative or (text < end and text[0] == c"+"):
            text += 1
        digits = 0
        number = 0
        while text < end and c"0" <= text[0] <= c"9" and digits < 10:
            number = number * 10 + (text[0] - c"0")
            digits += 1
            text += 1
        # psycopg2 refuses components that don't fit into an int
        if digits == 0 or digits > 9 or text == end:
            return UNUSUAL
        if text[0] == c":":
            break
        unit = read_unit(&text, end)
        if unit == 0 or unit >= previous:
            return UNUSUAL
        previous = unit
        days += -unit * number if negative else unit * number
        if text == end:
            break
        text += 1
    if text < end:
        if not read_minutes(text, end - text, &clock):
            return UNUSUAL
        seconds = number * 3600 + clock.minute * 60 + clock.second
        micros = clock.microsecond
        if negative:
            seconds = -seconds
            micros = -micros
    days += seconds // 86400
    # negative microseconds take one from the days
    if not -999999999 < days <= 999999999:
        return UNUSUAL
    return timedelta_new(<int>days, <int>(seconds % 86400), micros)


cdef bint read_minutes(const char *text, Py_ssize_t size, Clock *clock) noexcept:
    """`:MM:SS`, maybe with fraction."""
    cdef const char *end = text + size
    if size < 6 or text[0] != c":" or text[3] != c":":
        return False
    clock.minute = two_digits(text + 1)
    clock.second = two_digits(text + 4)
    clock.microsecond = 0
    text += 6
    if text < end:
        if text[0] != c".":
            return False
        text += 1
        clock.microsecond = fraction(&text, end)
    return text == end and 0 <= clock.minute < 60 and 0 <= clock.second < 60 \
        and clock.microsecond >= 0
