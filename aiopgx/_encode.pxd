"""Encoder: records as the data of a COPY FROM STDIN."""

cdef class Encoder:
    cdef readonly bint binary       # else the text format
    cdef readonly Py_ssize_t count  # records
    cdef readonly Py_ssize_t used   # bytes that have not been taken
    cdef char *data                 # owned
    cdef Py_ssize_t size
    cdef tuple names
    cdef Py_ssize_t width           # columns
    cdef int *kinds                 # owned; of the columns, or of their elements
    cdef unsigned int *elements     # owned; the OID of an array's elements, 0 for other types
    cdef list categories            # of the columns' types
    cdef object raw                 # the psycopg2 connection
    cdef object encode              # str to bytes in another encoding than UTF-8, or None
    cdef bint utc                   # the session's time zone
    cdef bint unfit                 # the value that failed is for the text format
    cdef unsigned int own           # Python types whose adapter is psycopg2's own

    cdef char *room(self, Py_ssize_t size) except NULL
    cdef int append(self, const char *data, Py_ssize_t size) except -1
    cdef int add(self, record) except -1
    cdef int add_values(self, record) except -1
    cdef object checked(self, record)
    cdef object placed(self, Py_ssize_t i, error)
    cdef int put(self, int kind, object value) except -1
    cdef object fitting(self, int kind, object value, object plain)
    cdef bint fits(self, int kind, object value) except -1
    cdef bint is_own(self, unsigned int bit) noexcept
    cdef int put_int(self, int kind, object value) except -1
    cdef int put_text(self, int kind, str text) except -1
    cdef int put_bytes(self, const char *data, Py_ssize_t size) except -1
    cdef int put_real(self, double number) except -1
    cdef int put_double(self, double number) except -1
    cdef int put_numeric(self, object value) except -1
    cdef int put_digits(self, const char *text, Py_ssize_t size) except -1
    cdef int put_special(self, unsigned int sign) except -1
    cdef int put_time(self, int kind, object value) except -1
    cdef int put_stamp(self, int kind, object value) except -1
    cdef int put_uuid(self, object value) except -1
    cdef int put_array(self, int kind, unsigned int element, object value) except -1
    cdef int put_items(self, int kind, object items, list lengths, Py_ssize_t depth) except -1
    cdef int add_text(self, record) except -1
    cdef object field(self, Py_ssize_t i, value)
    cdef object text_of(self, int kind, value, category)
    cdef object array_text(self, int kind, value)
    cdef object misfit(self, int kind, value, str suffix)
