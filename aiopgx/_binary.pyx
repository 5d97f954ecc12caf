"""Results in binary: which columns are exact in it, their decoders, and the text of their values.

Values come in binary where that gives exactly what psycopg2 makes of the text. Whether it does depends
on the type, and on the caster: only psycopg2's own for this type is replaced.

    binary_possible(oids, all_digits)         of the types alone: to be asked once for a statement
    binary_worth(oids, cursor, all_digits)    with the casters of a cursor: before each execution

Exact and worth it are two questions: text is exact and as fast; it may come along. So a result is asked
for in binary if all of its columns are exact and one of them gains.

What is not decoded here after all (a caster that was registered meanwhile, a text that is none in the
client's encoding, bounds that psycopg2 refuses) is written as the server would have done it, for
psycopg2's caster; so is a result that is handed over to psycopg2, which reads texts only.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_GetItem
from cpython.list cimport PyList_New, PyList_SET_ITEM
from cpython.long cimport PyLong_FromLong, PyLong_FromLongLong
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from libc.string cimport memset

from psycopg2 import DataError

from ._casters cimport Registry, choose_decoder, find_caster, release
from ._codecs cimport (
    Column,
    Context,
    Decoder,
    decode_bool,
    decode_by_codec,
    decode_bytea,
    decode_bytes,
    decode_float,
    decode_int,
    decode_json,
    decode_latin1,
    decode_utf8,
    decode_uuid,
    make_bytea,
    make_uuid,
)
from ._containers cimport decode_array
from ._libpq cimport PGresAttDesc, PGresult, pq
from ._structs cimport CasterStruct, caster_struct

cdef extern from "_frames.h":
    pass

cdef extern from *:
    """
    #include <string.h>

    static unsigned int aiopgx_u32(const char *at) {
        const unsigned char *b = (const unsigned char *)at;
        return (unsigned int)b[0] << 24 | (unsigned int)b[1] << 16 | (unsigned int)b[2] << 8 | b[3];
    }
    static unsigned long long aiopgx_u64(const char *at) {
        return (unsigned long long)aiopgx_u32(at) << 32 | aiopgx_u32(at + 4);
    }
    static double aiopgx_double(const char *at) {
        unsigned long long bits = aiopgx_u64(at);
        double number;
        memcpy(&number, &bits, sizeof number);
        return number;
    }
    """
    unsigned int aiopgx_u32(const char *)
    unsigned long long aiopgx_u64(const char *)
    double aiopgx_double(const char *)

cdef extern from "Python.h":
    double Py_NAN
    void PyObject_GC_Track(void *)
    void PyObject_GC_UnTrack(void *)

cdef object UNUSUAL = Ellipsis

cdef enum:
    BOOL = 16
    BYTEA = 17
    NAME = 19
    INT8 = 20
    INT2 = 21
    INT4 = 23
    TEXT = 25
    OID = 26
    JSON = 114
    FLOAT8 = 701
    UNKNOWN = 705
    BPCHAR = 1042
    VARCHAR = 1043
    UUID = 2950

cdef enum:
    MAX_DIMENSIONS = 6

# OID of an array: OID of its elements
cdef dict elements = {
    1000: BOOL, 1001: BYTEA, 1003: NAME, 1005: INT2, 1007: INT4, 1009: TEXT, 1014: BPCHAR,
    1015: VARCHAR, 1016: INT8, 1022: FLOAT8, 1028: OID, 2951: UUID,
}
cdef frozenset exact = frozenset([
    BOOL, BYTEA, NAME, INT8, INT2, INT4, TEXT, OID, JSON, FLOAT8, UNKNOWN, BPCHAR, VARCHAR, UUID, *elements,
])
# Measured; numbers and texts alone are read as fast in either format.
cdef frozenset gaining = frozenset([BYTEA, FLOAT8, UUID, *elements])
cdef frozenset of_floats = frozenset([FLOAT8, 1022])


# --- what to ask for -----------------------------------------------------------------------------


cpdef bint binary_possible(tuple oids, bint all_digits):
    """Whether columns of these types can be read in binary, and it pays.

    all_digits: whether the server writes floats so that they are read back the same, as it does if
    extra_float_digits is more than 0.
    """
    return (exact.issuperset(oids) and not gaining.isdisjoint(oids)
            and (all_digits or of_floats.isdisjoint(oids)))


cpdef bint binary_worth(tuple oids, object cursor, bint all_digits):
    """The same, with the casters that a psycopg2 cursor has at this moment."""
    cdef Registry types
    cdef Context context
    cdef Column column
    cdef bint found = True
    if not binary_possible(oids, all_digits) or cursor.connection.encoding != "UTF8":
        return False
    of_cursor, of_connection, kept = cursor.string_types, cursor.connection.string_types, []
    types = Registry(<PyObject *>of_cursor, <PyObject *>of_connection)
    context.text = decode_utf8
    context.kept = <PyObject *>kept
    for oid in oids:
        caster = find_caster(oid, &types)
        if PyDict_GetItem(accepted, oid) == <PyObject *>caster:
            continue
        memset(&column, 0, sizeof(Column))
        column.context = &context
        column.oid = oid
        try:
            choose_decoder(&column, caster, &types)
            choose_binary(&column)
            found = column.decode != NULL
            if found and never_changes(caster):
                accepted[oid] = caster
        finally:
            release(&column)
        if not found:
            return False
    return True


# OID: the caster that was exact for it when it was last asked for
cdef dict accepted = {}


cdef bint never_changes(object caster) noexcept:
    """Whether a caster, and that of its elements, is written in C."""
    cdef CasterStruct *fields = caster_struct(caster)
    if fields == NULL or fields.ccast == NULL:
        return False
    return fields.bcast == NULL or never_changes(<object>fields.bcast)


cdef int choose_binary(Column *column) except -1:
    """Replace the decoder of texts of column.oid by that of the binary format, NULL if there is none."""
    cdef Decoder decode = NULL
    cdef object element
    column.binary = True
    if column.decode == decode_array:
        element = elements.get(column.oid)
        if element is not None:
            column.element = scalar_decoder(element, column.element)
            if column.element != NULL:
                decode = binary_array
    else:
        decode = scalar_decoder(column.oid, column.decode)
        # which costs more than it saves for numbers, and a NaN must not be shared
        column.shared = column.shared and decode == column.decode
    column.decode = decode
    return 0


cdef Decoder scalar_decoder(unsigned int oid, Decoder text) noexcept:
    """The decoder of this type's binary format that does the same as one for texts, or NULL."""
    cdef int i
    for i in range(known_count):
        if known[i].oid == oid and known[i].text == text:
            return known[i].binary
    if oid in (TEXT, VARCHAR, BPCHAR, NAME, UNKNOWN) and (
            text == decode_utf8 or text == decode_bytes or text == decode_latin1
            or text == decode_by_codec):
        return text                 # the server sends the same
    return NULL


cdef struct Known:
    unsigned int oid
    Decoder text
    Decoder binary

cdef Known known[9]
cdef int known_count = 0


cdef int know(unsigned int oid, Decoder text, Decoder binary) except -1:
    global known_count
    known[known_count] = Known(oid, text, binary)
    known_count += 1
    return 0


know(BOOL, decode_bool, binary_bool)
know(INT2, decode_int, binary_int2)
know(INT4, decode_int, binary_int4)
know(INT8, decode_int, binary_int8)
know(OID, decode_int, binary_oid)
know(FLOAT8, decode_float, binary_float8)
know(BYTEA, decode_bytea, binary_bytea)
know(UUID, decode_uuid, binary_uuid)
know(JSON, decode_json, decode_json)


# --- single values -------------------------------------------------------------------------------


cdef object binary_bool(Column *column, const char *value, Py_ssize_t size):
    if size != 1:
        return UNUSUAL
    return value[0] != 0


cdef object binary_int2(Column *column, const char *value, Py_ssize_t size):
    if size != 2:
        return UNUSUAL
    return PyLong_FromLong(<signed char>value[0] * 256 + <unsigned char>value[1])


cdef object binary_int4(Column *column, const char *value, Py_ssize_t size):
    return PyLong_FromLong(<int>aiopgx_u32(value)) if size == 4 else UNUSUAL


cdef object binary_int8(Column *column, const char *value, Py_ssize_t size):
    return PyLong_FromLongLong(<long long>aiopgx_u64(value)) if size == 8 else UNUSUAL


cdef object binary_oid(Column *column, const char *value, Py_ssize_t size):
    return PyLong_FromLongLong(aiopgx_u32(value)) if size == 4 else UNUSUAL


cdef object binary_float8(Column *column, const char *value, Py_ssize_t size):
    cdef double number
    if size != 8:
        return UNUSUAL
    number = aiopgx_double(value)
    return number if number == number else Py_NAN       # whatever its sign and its other bits are


cdef object binary_bytea(Column *column, const char *value, Py_ssize_t size):
    return make_bytea(PyBytes_FromStringAndSize(value, size))


cdef object binary_uuid(Column *column, const char *value, Py_ssize_t size):
    if size != 16:
        return UNUSUAL
    return make_uuid(<object>aiopgx_u64(value) << 64 | aiopgx_u64(value + 8))


# --- arrays --------------------------------------------------------------------------------------


# An array being read, from `at` to `end`.
cdef struct Reader:
    const char *at
    const char *end
    int dimensions
    int sizes[MAX_DIMENSIONS]
    int bounds[MAX_DIMENSIONS]


cdef bint read_header(Reader *reader, const char *value, Py_ssize_t size) noexcept:
    """Dimensions, a flag for NULLs, the OID of the elements, and of each dimension size and bound."""
    cdef int i
    if size < 12 or aiopgx_u32(value) > MAX_DIMENSIONS:
        return False
    reader.dimensions = <int>aiopgx_u32(value)
    reader.at = value + 12
    reader.end = value + size
    if reader.end - reader.at < 8 * reader.dimensions:
        return False
    for i in range(reader.dimensions):
        reader.sizes[i] = <int>aiopgx_u32(reader.at)
        reader.bounds[i] = <int>aiopgx_u32(reader.at + 4)
        reader.at += 8
        if not 0 < reader.sizes[i] <= (reader.end - reader.at) // 4:
            return False
    return True


cdef object binary_array(Column *column, const char *value, Py_ssize_t size):
    cdef Reader reader
    cdef int i
    if not read_header(&reader, value, size):
        return UNUSUAL
    if reader.dimensions == 0:
        return [] if reader.at == reader.end else UNUSUAL
    if reader.dimensions > 1:
        for i in range(reader.dimensions):
            if reader.bounds[i] != 1:
                return UNUSUAL          # which psycopg2 refuses
    items = read_items(column, &reader, 0)
    return items if reader.at == reader.end else UNUSUAL


cdef object read_items(Column *column, Reader *reader, int dimension):
    """The list of a dimension; UNUSUAL if an element is."""
    cdef Py_ssize_t i, size, count = reader.sizes[dimension]
    cdef bint innermost = dimension + 1 == reader.dimensions
    cdef Decoder decode = column.element
    cdef list items = PyList_New(count)
    PyObject_GC_UnTrack(<void *>items)          # half empty
    for i in range(count):
        if not innermost:
            item = read_items(column, reader, dimension + 1)
        else:
            if reader.end - reader.at < 4:
                return UNUSUAL
            size = <int>aiopgx_u32(reader.at)
            reader.at += 4
            if size < 0:
                item = None
            elif reader.end - reader.at < size:
                return UNUSUAL
            else:
                item = decode(column, reader.at, size)
                reader.at += size
        if item is UNUSUAL:
            return UNUSUAL
        Py_INCREF(item)
        PyList_SET_ITEM(items, i, item)
    PyObject_GC_Track(<void *>items)
    return items


# --- the text of a value -------------------------------------------------------------------------


cdef bytes text_of(unsigned int oid, const char *value, Py_ssize_t size):
    """What the server writes for a value in the text format (bytea in hex).

    Raises DataError if it is malformed, or of a type that is not exact.
    """
    cdef Reader reader
    cdef unsigned int element
    if oid in elements:
        if read_header(&reader, value, size):
            element = elements[oid]
            return array_text(element, &reader)
    elif oid in (TEXT, VARCHAR, BPCHAR, NAME, UNKNOWN, JSON):
        return value[:size]
    elif oid == BYTEA:
        return b"\\x" + value[:size].hex().encode()
    elif oid == BOOL and size == 1:
        return b"t" if value[0] else b"f"
    elif oid == INT2 and size == 2:
        return b"%d" % binary_int2(NULL, value, size)
    elif oid == INT4 and size == 4:
        return b"%d" % binary_int4(NULL, value, size)
    elif oid == INT8 and size == 8:
        return b"%d" % binary_int8(NULL, value, size)
    elif oid == OID and size == 4:
        return b"%d" % aiopgx_u32(value)
    elif oid == FLOAT8 and size == 8:
        return float_text(binary_float8(NULL, value, size))
    elif oid == UUID and size == 16:
        return str(binary_uuid(NULL, value, size)).encode()
    raise DataError(f"malformed value in binary of the type with OID {oid}")


cdef bytes float_text(object number):
    text = repr(number).removesuffix(".0")
    return {"nan": b"NaN", "inf": b"Infinity", "-inf": b"-Infinity"}.get(text, text.encode())


cdef bytes array_text(unsigned int element, Reader *reader):
    cdef int i
    if reader.dimensions == 0:
        return b"{}"
    lengths = [reader.sizes[i] for i in range(reader.dimensions)]
    bounds = [reader.bounds[i] for i in range(reader.dimensions)]
    text = items_text(element, reader, 0)
    if any([bound != 1 for bound in bounds]):
        spans = [f"[{b}:{b + n - 1}]" for b, n in zip(bounds, lengths)]
        text = "".join(spans).encode() + b"=" + text
    return text


cdef bytes items_text(unsigned int element, Reader *reader, int dimension):
    cdef Py_ssize_t i, size
    pieces = []
    for i in range(reader.sizes[dimension]):
        if dimension + 1 < reader.dimensions:
            pieces.append(items_text(element, reader, dimension + 1))
            continue
        size = -1 if reader.end - reader.at < 4 else <int>aiopgx_u32(reader.at)
        reader.at += 4
        if reader.end - reader.at < size:
            raise DataError("malformed array in binary")
        if size < 0:
            pieces.append(b"NULL")
        else:
            pieces.append(element_text(text_of(element, reader.at, size)))
            reader.at += size
    return b"{" + b",".join(pieces) + b"}"


cdef bytes element_text(bytes text):
    """In quotes where the server writes them."""
    if text and text.upper() != b"NULL" and not any([c in text for c in b'{},"\\ \t\n\r\v\f']):
        return text
    return b'"' + text.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


cdef PGresult *in_text(PGresult *res) except NULL:
    """A copy of a result with all values as texts; the caller owns it."""
    cdef int i, row, count = pq.nfields(res)
    cdef PGresult *copy = pq.copyResult(res, 0)
    cdef PGresAttDesc *columns = <PGresAttDesc *>PyMem_Malloc(max(count, 1) * sizeof(PGresAttDesc))
    cdef bytes text
    try:
        if copy == NULL or columns == NULL:
            raise MemoryError
        for i in range(count):
            columns[i] = PGresAttDesc(
                pq.fname(res, i), pq.ftable(res, i), pq.ftablecol(res, i), 0, pq.ftype(res, i),
                pq.fsize(res, i), pq.fmod(res, i))
        if count and not pq.setResultAttrs(copy, count, columns):
            raise MemoryError
        for row in range(pq.ntuples(res)):
            for i in range(count):
                if pq.getisnull(res, row, i):
                    text = None
                elif pq.fformat(res, i):
                    text = text_of(pq.ftype(res, i), pq.getvalue(res, row, i),
                                   pq.getlength(res, row, i))
                else:
                    text = pq.getvalue(res, row, i)[:pq.getlength(res, row, i)]
                if not set_text(copy, row, i, text):
                    raise MemoryError
        return copy
    except BaseException:
        pq.clear(copy)
        raise
    finally:
        PyMem_Free(columns)


cdef bint set_text(PGresult *res, int row, int column, bytes text) noexcept:
    if text is None:
        return pq.setvalue(res, row, column, NULL, -1)
    return pq.setvalue(res, row, column, PyBytes_AS_STRING(text), <int>PyBytes_GET_SIZE(text))
