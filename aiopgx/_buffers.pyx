"""How much memory libpq's buffers of a connection take.

libpq makes a buffer larger for a message that does not fit, and never smaller again; it has no
function that tells. So the fields are looked for in the PGconn of a connection that is new: a pointer
and four numbers for what is read, the same for what is written, sizes first, both as they are at
the beginning. Where that is not found exactly once, nothing is known.
"""

from cpython.pycapsule cimport PyCapsule_GetPointer

cdef extern from "_frames.h":
    pass

cdef extern from *:
    """
    #include <stddef.h>
    #if defined(__APPLE__)
    #include <malloc/malloc.h>
    #define aiopgx_allocated(p) malloc_size(p)
    #elif defined(__linux__)
    #include <malloc.h>
    #define aiopgx_allocated(p) malloc_usable_size((void *)(p))
    #else
    #define aiopgx_allocated(p) 0
    #endif

    typedef struct { char *data; int size, first, next, end; } aiopgx_buffer;
    """
    size_t allocated "aiopgx_allocated"(const void *p) noexcept
    ctypedef struct Buffer "aiopgx_buffer":
        char *data
        int size
        int first
        int next
        int end

cdef int FRESH = 16384
cdef Py_ssize_t _offset = -1


cdef const char *_inside(raw) except NULL:
    return <const char *>PyCapsule_GetPointer(
        raw.get_native_connection(), b"psycopg2.connection.native_connection")


def find(raw):
    """Find the buffers in a connection that is new. Whether held() can tell from now on."""
    global _offset
    cdef const char *inside = _inside(raw)
    cdef Py_ssize_t size = allocated(inside), offset, found = -1
    cdef const Buffer *pair
    if _offset >= 0:
        return True
    for offset in range(0, size - <Py_ssize_t>(2 * sizeof(Buffer)) + 1, sizeof(void *)):
        pair = <const Buffer *>(inside + offset)
        if _is_fresh(pair) and _is_fresh(pair + 1) and pair[0].data != pair[1].data:
            if found >= 0:
                return False
            found = offset
    _offset = found
    return found >= 0


cdef bint _is_fresh(const Buffer *buffer) noexcept:
    return (buffer.data != NULL and buffer.size == FRESH
            and 0 <= buffer.first <= FRESH and 0 <= buffer.next <= FRESH
            and 0 <= buffer.end <= FRESH)


def held(raw):
    """Bytes of both buffers of a psycopg2 connection that is open; 0 before find() was successful."""
    cdef const Buffer *pair
    if _offset < 0:
        return 0
    pair = <const Buffer *>(_inside(raw) + _offset)
    return <Py_ssize_t>pair[0].size + pair[1].size
