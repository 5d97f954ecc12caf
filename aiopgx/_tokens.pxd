"""The tokens of an SQL text, and what can be told of it without understanding it."""

# What a token is. Words that play no part are T_WORD; a few are told apart by their traits only.
cdef enum Token:
    T_NONE                  # before the first and after the last
    T_QUOTED                # "..."
    T_STRING                # '...'
    T_NUMBER
    T_HOLDER                # a placeholder
    T_OPERATOR
    T_COMPARISON            # any but the next
    T_EQUAL
    T_ARROW                 # -> ->>
    T_CONTAINMENT           # @> <@ &&
    T_PLUS                  # or minus
    T_CONCATENATION
    T_OPEN
    T_CLOSE
    T_OPEN_BRACKET
    T_CLOSE_BRACKET
    T_COMMA
    T_DOT
    T_DOUBLE_COLON
    T_OTHER                 # semicolons inside and lone colons
    T_WORD                  # from here on: words
    T_ALL
    T_AND
    T_ANY
    T_ARRAY
    T_AS
    T_BETWEEN
    T_CASE
    T_CAST
    T_COALESCE
    T_CONFLICT
    T_CUBE
    T_CURRENT
    T_DELETE
    T_DISTINCT
    T_EXCEPT
    T_EXISTS
    T_FETCH
    T_FOR
    T_FROM
    T_GENERATE_SERIES
    T_GREATEST
    T_GROUP
    T_GROUPING
    T_HAVING
    T_ILIKE
    T_IN
    T_INSERT
    T_INTERSECT
    T_INTO
    T_IS
    T_LEAST
    T_LIKE
    T_LIMIT
    T_LOWER
    T_MERGE
    T_NOT
    T_NOW
    T_NULL
    T_NULLIF
    T_OF
    T_OFFSET
    T_ON
    T_OR
    T_ORDER
    T_PRECISION
    T_RETURNING
    T_ROLLUP
    T_ROW
    T_SELECT
    T_SET
    T_SOME
    T_UNION
    T_UPDATE
    T_UPPER
    T_USING
    T_UUID
    T_VALUES
    T_VARYING
    T_WHEN
    T_WHERE
    T_WINDOW
    T_WITH
    T_WITHOUT
    T_NAMED                 # from here on: words known by their traits

cdef enum Trait:
    AFTER = 1               # may follow a placeholder that is a whole operand
    QUERY = 2               # begins a query in parentheses
    JOINS = 4               # begins a JOIN
    TYPE = 8                # a type to which a parameter can be cast: no domain, no precision
    NO_COLUMN = 16          # a value, where a column would do
    NO_OPERAND = 4096       # the same, or the beginning of an expression
    AGGREGATE = 32
    FORBIDDEN = 64          # in a statement that is prepared
    TELLING = 128           # a function or view that shows how a statement was sent
    SETTING = 256           # a function that changes the session
    PREPARABLE = 512        # begins a statement that may be prepared
    HARMLESS = 1024         # begins a statement that leaves the session as it was
    COMPARES = 2048

cdef unsigned short *traits_of          # by Token


cdef class Tokens:
    cdef bytes text                     # UTF-8
    cdef unsigned char *codes           # of type Token; they end where `trouble` began
    cdef Py_ssize_t count               # of the codes
    cdef list holders                   # (start, end, name or None) of each placeholder
    cdef bint has_parameters            # otherwise a percent sign is an operator
    cdef str trouble                    # why the text is not to be prepared, or None
    cdef bint certain                   # where each string and comment ends
    cdef Py_ssize_t statements
    cdef str kind                       # the first word in upper case, or ""
    cdef bint changes_session           # maybe
    cdef bint needs_session             # maybe: what is its own, such as locks
    # while reading
    cdef Py_ssize_t at
    cdef unsigned char last             # Token
    cdef bint begun                     # a statement, after its first word
    cdef bint ended                     # by a semicolon


cdef Tokens read_tokens(bytes text, bint has_parameters)
