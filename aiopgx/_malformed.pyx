"""Malformed arrays that psycopg2's own caster does not survive: they are refused before.

No server sends such a text for an array; a caster for arrays that is registered for another type
may meet it. psycopg2 then loops for ever or crashes.
"""

import psycopg2._psycopg

from ._structs cimport CasterStruct, caster_struct, casters_known

cdef extern from "_frames.h":
    pass

cdef void *array_ccast = NULL
# Those that copy as many bytes as they are told, even -1; and those that take an empty text.
cdef void *copying[2]
cdef void *lenient[4]


cdef void *ccast(str name):
    return caster_struct(getattr(psycopg2._psycopg, name)).ccast


if casters_known:
    array_ccast = ccast("INTEGERARRAY")
    copying[0], copying[1] = ccast("LONGINTEGER"), ccast("DECIMAL")
    lenient[0], lenient[1] = ccast("UNICODE"), ccast("BYTES")
    lenient[2], lenient[3] = ccast("BINARY"), ccast("UNKNOWN")


cdef bint is_deadly(object caster, const char *text, Py_ssize_t size) noexcept:
    """Whether a caster for arrays does not survive the text; reads it as psycopg2 does."""
    cdef CasterStruct *fields = caster_struct(caster)
    cdef Py_ssize_t start, end = size - 1, i = bounds_size(text, size)
    cdef void *element
    if (fields == NULL or fields.ccast != array_ccast or fields.bcast == NULL
            or size - i < 2 or text[i] != c"{"):
        return False
    element = caster_struct(<object>fields.bcast).ccast
    i += 1
    while i < end:              # whatever the last byte is
        if text[i] == c"{":
            i += 1
            continue
        start = i
        i = i + 1 if text[i] == c"}" else element_end(text, i, end)
        if text[start] == c'"' and i - start == 1 and element in copying:
            return True         # the size of a lone quote is -1
        i += text[i] == c","
    # behind the end it finds empty elements, for ever if they are no errors
    return i > end and (element == NULL or element in lenient)


cdef Py_ssize_t bounds_size(const char *text, Py_ssize_t size) noexcept:
    """The size of the "[1:2][3:4]=" in front."""
    cdef Py_ssize_t i = 1
    cdef int depth = 1
    if size == 0 or text[0] != c"[":
        return 0
    while depth > 0 and i < size:
        depth += (text[i] == c"[") - (text[i] == c"]")
        i += 1
    return i + 1 if i < size and text[i] == c"=" else 0


cdef Py_ssize_t element_end(const char *text, Py_ssize_t i, Py_ssize_t end) noexcept:
    """Where the element at `i` ends: at a comma or brace outside of quotes, or at `end`."""
    cdef bint quoted = False, escaped = False
    while i < end:
        if text[i] == c'"':
            quoted ^= not escaped
            escaped = False
        elif text[i] == c"\\":
            escaped = not escaped
        elif text[i] != c"," and text[i] != c"}":
            escaped = False
        elif not quoted and not escaped:
            break
        i += 1
    return i
