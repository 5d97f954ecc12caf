"""Decoders of values that are made of values: arrays, ranges, composites, hstore.

As all decoders (see _codecs) they know what the server writes, and return UNUSUAL for the rest.
"""

from cpython.dict cimport PyDict_SetItem
from cpython.list cimport PyList_Append
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject, PyTypeObject
from libc.string cimport memchr, memcmp

import psycopg2.extras

from ._codecs cimport Column, Decoder, decode_utf8
from ._structs cimport member_offset, set_field

cdef extern from "_frames.h":
    pass

cdef object UNUSUAL = Ellipsis
cdef tuple no_arguments = ()

# Where a Range keeps what it has in its __slots__.
cdef Py_ssize_t lower_offset = member_offset(psycopg2.extras.Range._lower)
cdef Py_ssize_t upper_offset = member_offset(psycopg2.extras.Range._upper)
cdef Py_ssize_t bounds_offset = member_offset(psycopg2.extras.Range._bounds)
ranges_known = lower_offset >= 0 and upper_offset >= 0 and bounds_offset >= 0


cdef object decode_nothing(Column *column, const char *text, Py_ssize_t size):
    """Leave all values to psycopg2's caster."""
    return UNUSUAL


# --- strings in quotes ---------------------------------------------------------------------------


cdef const char *closing_quote(const char *text, const char *end, bint doubled,
                               bint *escapes) noexcept:
    """Where the string that begins at `text` ends, NULL if it is malformed.

    doubled: quotes and backslashes in it are escaped by themselves, else by a backslash.
    """
    escapes[0] = False
    while text < end:
        if text[0] == c'"':
            if not doubled or end - text < 2 or text[1] != c'"':
                return text
        elif text[0] == c"\\":
            if end - text < 2 or (text[1] != c"\\" and (doubled or text[1] != c'"')):
                return NULL
        else:
            text += 1
            continue
        escapes[0] = True
        text += 2
    return NULL


cdef object read_quoted(Decoder decode, Column *column, const char **position, const char *end,
                        bint doubled):
    """The value of the string in quotes at `position`, which moves behind it."""
    cdef const char *text = position[0] + 1
    cdef bint escapes
    cdef const char *stop = closing_quote(text, end, doubled, &escapes)
    if stop == NULL:
        return UNUSUAL
    position[0] = stop + 1
    return read_escaped(decode, column, text, stop) if escapes else decode(column, text, stop - text)


cdef object read_escaped(Decoder decode, Column *column, const char *text, const char *stop):
    cdef Py_ssize_t size = 0
    cdef char *plain = <char *>PyMem_Malloc(stop - text)
    if plain == NULL:
        raise MemoryError
    try:
        while text < stop:
            text += text[0] == c'"' or text[0] == c"\\"
            plain[size] = text[0]
            size += 1
            text += 1
        plain[size] = 0         # where a number ends; an escape has left room
        return decode(column, plain, size)
    finally:
        PyMem_Free(plain)


# --- arrays --------------------------------------------------------------------------------------


cdef object decode_array(Column *column, const char *text, Py_ssize_t size):
    cdef const char *position = text
    if size < 2 or text[1] == 0:
        return UNUSUAL          # psycopg2 sees a lone brace
    items = read_array(column, &position, text + size, 6)
    return items if position == text + size else UNUSUAL


cdef object read_array(Column *column, const char **position, const char *end, int depth):
    """The list at `position`; UNUSUAL if anything in it is not as the server writes it."""
    cdef const char *text = position[0]
    if depth == 0 or text == end or text[0] != c"{":
        return UNUSUAL
    text += 1
    items = []
    if text < end and text[0] == c"}":
        position[0] = text + 1
        return items
    while text < end:
        if text[0] == c"{":
            item = read_array(column, &text, end, depth - 1)
        elif text[0] == c'"':
            item = read_quoted(column.element, column, &text, end, False)
        else:
            item = read_bare(column, &text, end)
        if item is UNUSUAL or text == end:
            return UNUSUAL
        PyList_Append(items, item)
        if text[0] == c"}":
            position[0] = text + 1
            return items
        if text[0] != c",":
            return UNUSUAL
        text += 1
    return UNUSUAL


cdef object read_bare(Column *column, const char **position, const char *end):
    cdef const char *text = position[0]
    cdef Py_ssize_t size
    while text < end and text[0] != c"," and text[0] != c"}":
        if text[0] == c'"' or text[0] == c"\\" or text[0] == c"{":
            return UNUSUAL
        text += 1
    size = text - position[0]
    if size == 0 or text == end:
        return UNUSUAL
    if size == 4 and is_null(position[0]):
        item = None
    else:
        item = column.element(column, position[0], size)
    position[0] = text
    return item


cdef bint is_null(const char *text) noexcept:
    """psycopg2 takes "NULL" in any mixture of cases."""
    return (text[0] | 32 == c"n" and text[1] | 32 == c"u"
            and text[2] | 32 == c"l" and text[3] | 32 == c"l")


# --- ranges, composites --------------------------------------------------------------------------


cdef bint readable(Column *column, const char *text, Py_ssize_t size) except -1:
    """Whether parts can be decoded one by one.

    psycopg2 decodes the whole, and encodes parts in UTF-8.
    """
    cdef Py_ssize_t i
    for i in range(size):
        if <unsigned char>text[i] >= 0x80:
            return (column.context.text == decode_utf8
                    and decode_utf8(column, text, size) is not UNUSUAL)
    return True


cdef object read_part(Column *part, const char **position, const char *end):
    """A bound or an attribute; UNUSUAL if it is not as the server writes it."""
    cdef const char *text = position[0]
    if text < end and text[0] == c'"':
        return read_quoted(part.decode, part, position, end, True)
    while text < end and text[0] != c",":
        if text[0] == c'"' or text[0] == c"\\" or text[0] == c"(" or text[0] == c")":
            return UNUSUAL
        text += 1
    if text == position[0]:
        return None
    item = part.decode(part, position[0], text - position[0])
    position[0] = text
    return item


cdef object decode_range(Column *column, const char *text, Py_ssize_t size):
    cdef const char *end = text + size - 1
    cdef const char *start = text
    if size == 5 and memcmp(text, b"empty", 5) == 0:
        return make_range(column, None, None, None)
    if (size < 3 or not (text[0] == c"[" or text[0] == c"(")
            or not (end[0] == c"]" or end[0] == c")") or not readable(column, text, size)):
        return UNUSUAL
    text += 1
    lower = read_part(column.parts, &text, end)
    if lower is UNUSUAL or text == end or text[0] != c",":
        return UNUSUAL
    text += 1
    if text[0] != c'"' and memchr(text, c"]", end - text) != NULL:
        return UNUSUAL          # for psycopg2 it is the end
    upper = read_part(column.parts, &text, end)
    if upper is UNUSUAL or text != end:
        return UNUSUAL
    if start[0] == c"[":
        return make_range(column, lower, upper, "[)" if end[0] == c")" else "[]")
    return make_range(column, lower, upper, "()" if end[0] == c")" else "(]")


cdef object make_range(Column *column, object lower, object upper, object bounds):
    """A range, empty if `bounds` is None."""
    cls = <object>column.maker
    made = (<PyTypeObject *>cls).tp_new(cls, <PyObject *>no_arguments, NULL)
    set_field(<PyObject **>(<char *><PyObject *>made + lower_offset), lower)
    set_field(<PyObject **>(<char *><PyObject *>made + upper_offset), upper)
    set_field(<PyObject **>(<char *><PyObject *>made + bounds_offset), bounds)
    return made


cdef object decode_composite(Column *column, const char *text, Py_ssize_t size):
    cdef const char *end = text + size - 1
    cdef Py_ssize_t i
    if size < 2 or text[0] != c"(" or end[0] != c")" or not readable(column, text, size):
        return UNUSUAL
    values = []
    for i in range(column.part_count):
        text += 1               # the parenthesis, or the comma
        item = read_part(&column.parts[i], &text, end)
        if item is UNUSUAL or (text == end) != (i + 1 == column.part_count):
            return UNUSUAL
        if text < end and text[0] != c",":
            return UNUSUAL
        PyList_Append(values, item)
    return (<object>column.maker)(values)


# --- hstore --------------------------------------------------------------------------------------


cdef object decode_hstore(Column *column, const char *text, Py_ssize_t size):
    cdef const char *end = text + size
    pairs = {}
    if size == 0:
        return pairs
    if not readable(column, text, size):
        return UNUSUAL
    while text < end and text[0] == c'"':
        key = read_quoted(decode_utf8, column, &text, end, False)
        if key is UNUSUAL or end - text < 4 or memcmp(text, b"=>", 2) != 0:
            return UNUSUAL
        text += 2
        if text[0] == c'"':
            item = read_quoted(decode_utf8, column, &text, end, False)
        elif end - text >= 4 and memcmp(text, b"NULL", 4) == 0:
            item = None
            text += 4
        else:
            return UNUSUAL
        if item is UNUSUAL:
            return UNUSUAL
        PyDict_SetItem(pairs, key, item)
        if text == end:
            return pairs
        if end - text < 2 or memcmp(text, b", ", 2) != 0:
            return UNUSUAL
        text += 2
    return UNUSUAL
