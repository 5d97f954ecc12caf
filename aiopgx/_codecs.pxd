"""Decoders: the values of a PGresult as the objects that psycopg2 makes of them."""

from cpython.object cimport PyObject

# Makes an object of a value's text, which need not end with NUL (but a float must be followed by
# something that ends a number); Ellipsis (named UNUSUAL) if the text is not of the form that the
# decoder knows.
ctypedef object (*Decoder)(Column *column, const char *text, Py_ssize_t size)

cdef enum Zone:
    ZONE_NATIVE                 # tzinfo_factory is datetime.timezone
    ZONE_NONE                   # it is None: values without tzinfo
    ZONE_FOREIGN                # anything else: psycopg2's caster calls it

# What the decoders of a result's columns share.
cdef struct Context:
    Decoder text
    PyObject *codec             # borrowed from Columns.codec
    PyObject *kept              # a list of what `parts` need; borrowed from Columns.kept
    Zone zone

cdef struct Column:
    Context *context
    Decoder decode              # NULL: psycopg2's caster makes the values
    Decoder element             # of an array
    Column *parts               # of a range: its bounds'; of a composite: its attributes'; owned
    Py_ssize_t part_count
    PyObject *owner             # the RangeCaster or CompositeCaster; borrowed from the typecaster
    PyObject *recipe            # what `parts` were made of: see recipe_of(); kept
    PyObject *maker             # the class of a range, the _make() of a composite; borrowed from it
    PyObject *caster            # of a part: what psycopg2 would look up; kept
    unsigned int oid            # of a part, and of a column in binary
    bint binary                 # values come in the binary format
    bint shared                 # equal neighbours may be one object
    Py_ssize_t size             # of the value above, -1 if there is none
    const char *text            # of the value above: lives in the PGresult
    PyObject *value             # made from it; owned
    unsigned int misses         # values in a row that differed from the remembered one

cdef object decode_utf8(Column *column, const char *text, Py_ssize_t size)
cdef object decode_latin1(Column *column, const char *text, Py_ssize_t size)
cdef object decode_by_codec(Column *column, const char *text, Py_ssize_t size)
cdef object decode_text(Column *column, const char *text, Py_ssize_t size)
cdef object decode_bytes(Column *column, const char *text, Py_ssize_t size)
cdef object decode_bool(Column *column, const char *text, Py_ssize_t size)
cdef object decode_int(Column *column, const char *text, Py_ssize_t size)
cdef object decode_float(Column *column, const char *text, Py_ssize_t size)
cdef object decode_numeric(Column *column, const char *text, Py_ssize_t size)
cdef object decode_bytea(Column *column, const char *text, Py_ssize_t size)
cdef object decode_json(Column *column, const char *text, Py_ssize_t size)
cdef object decode_uuid(Column *column, const char *text, Py_ssize_t size)
cdef object decode_date(Column *column, const char *text, Py_ssize_t size)
cdef object decode_time(Column *column, const char *text, Py_ssize_t size)
cdef object decode_timestamp(Column *column, const char *text, Py_ssize_t size)
cdef object decode_interval(Column *column, const char *text, Py_ssize_t size)
cdef object make_bytea(bytes content)
cdef object make_uuid(object number)
