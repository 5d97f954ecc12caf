"""Where the placeholders of a text stand, and what a parameter may be in such a place."""

from ._tokens cimport Tokens

# What a placeholder takes: one bit for each exact type.
cdef enum Type:
    NULL_VALUE = 1
    INT = 2
    FLOAT = 4
    DECIMAL = 8
    BOOL = 16
    STR = 32
    BYTES = 64
    BYTEARRAY = 128
    MEMORYVIEW = 256
    DATE = 512
    DATETIME = 1024
    TIME = 2048
    TIMEDELTA = 4096
    UUID_VALUE = 8192
    JSON = 16384
    LIST = 32768            # of int, str, UUID or date, without None among others

# What else is asked of a value.
cdef enum Limit:
    NO_BACKSLASH = 1
    NO_ZERO = 2             # no float 0.0: as a numeric literal, -0.0 has no sign
    INT4_ONLY = 4
    INT8_ONLY = 8
    ANY_SIZE = 16           # an integer beyond int4 needs no plan of its own
    NEEDS_PLAN = 32         # the verdict is SAME_IF_PLANNED at best

cdef enum Bind:
    AS_LITERAL              # with the type of psycopg2's literal
    AS_CAST_ARRAY           # the same, but OID 0 for lists of str and lists without elements
    AS_COLUMN               # OID 0: Describe tells the type of the column that is SET

cdef struct Slot:           # a placeholder
    unsigned short types    # Type
    unsigned char limits    # Limit
    unsigned char bind      # Bind
    unsigned char place     # Place

cdef enum Place:
    IN_LIMIT
    IN_SERIES
    IN_CASE_FUNCTION
    IN_VALUES
    IN_SELECT_LIST
    IN_COALESCE
    IN_HAVING
    IN_IN
    IN_ANY
    IN_ARRAY
    IN_ROW
    IN_SET
    IN_COMPARISON
    BESIDE_CONTAINMENT
    BESIDE_ARROW
    IN_LIKE
    BESIDE_CONCATENATION
    BESIDE_NOW
    IN_BETWEEN
    IN_DISTINCT
    IN_ARITHMETIC
    ON_THE_LEFT
    BEFORE_IS


cdef tuple places           # in words, by Place

cdef Slot *place_all(Tokens tokens) except NULL
