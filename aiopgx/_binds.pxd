"""Binds: parameters of the extended protocol, typed as psycopg2's literals would be."""

cdef enum:
    OWN_PLACES = 8              # parameters without memory of their own
    OWN_BYTES = 192             # bytes of their values, too

# What a value may be; each stands for a bit in Binds.known, and for an adapter of psycopg2's.
cdef enum Kind:
    KIND_INT
    KIND_BOOL
    KIND_FLOAT
    KIND_STR
    KIND_BYTES
    KIND_LIST
    KIND_DATE
    KIND_TIME
    KIND_DATETIME
    KIND_TIMEDELTA
    KIND_DECIMAL
    KIND_UUID
    KINDS


cdef class Binds:
    cdef int count              # nParams
    cdef unsigned int *types    # OIDs, 0 for what the server finds out
    cdef const char **values    # NULL is NULL; until settle() places in `bytes`
    cdef int *lengths           # -1 for NULL
    cdef int *formats           # 1 is binary
    cdef char *bytes            # all values, each followed by a NUL byte
    cdef size_t used
    cdef size_t size
    cdef unsigned int known     # kinds whose adapter has been looked at
    cdef unsigned int own_types[OWN_PLACES]
    cdef const char *own_values[OWN_PLACES]
    cdef int own_lengths[OWN_PLACES]
    cdef int own_formats[OWN_PLACES]
    cdef char own_bytes[OWN_BYTES]

    @staticmethod
    cdef Binds of(tuple values, bytes untyped)
    cdef bytes signature(self)
    cdef tuple dumped(self, tuple values)
    cdef int make_places(self, Py_ssize_t count) except -1
    cdef int settle(self) noexcept
    cdef char *begin(self, int i, unsigned int oid, int format, size_t size) except NULL
    cdef int put(self, int i, unsigned int oid, int format, const char *value, size_t size) except -1
    cdef bint put_text(self, int i, unsigned int oid, str text) except -1
    cdef bint add(self, int i, object value, bint untyped) except -1
    cdef bint is_own(self, int kind, object cls) except -1
    cdef bint add_int(self, int i, object value, bint untyped) except -1
    cdef bint add_float(self, int i, double number, bint untyped) except -1
    cdef bint add_decimal(self, int i, object value, bint untyped) except -1
    cdef bint add_bytes(self, int i, object value, bint untyped) except -1
    cdef bint add_uuid(self, int i, object value, bint untyped) except -1
    cdef bint add_clock(self, int i, object value, bint untyped) except -1
    cdef bint add_json(self, int i, object value) except -1
    cdef bint add_list(self, int i, list items, bint untyped) except -1
    cdef bint add_ints(self, int i, list items, bint untyped) except -1
    cdef bint add_texts(self, int i, list items, bint untyped) except -1
