"""Result: a PGresult as rows."""

from ._columns cimport Columns
from ._libpq cimport PGresult

cpdef enum:
    SHAPE_FOREIGN = -1          # rows that only psycopg2 can make
    SHAPE_TUPLE = 0
    SHAPE_DICT_ROW = 1
    SHAPE_REAL_DICT = 2
    SHAPE_NAMED_TUPLE = 3
    SHAPE_DICT = 4              # from here on, of row factories
    SHAPE_RECORD = 5            # namedtuple_row's
    SHAPE_SCALAR = 6
    SHAPE_MADE = 7              # whatever a function makes

cdef struct Places:
    Py_ssize_t first            # of the first value from the start of the keys, 0 if not known
    Py_ssize_t step             # to the next; both in pointers

cdef class Result:
    cdef PGresult *res          # owned; NULL once handed over
    cdef Columns columns        # None after a command without rows
    cdef object raw             # the psycopg2 connection
    cdef object codec           # decodes texts
    cdef object impl            # the psycopg2 cursor
    cdef int shape
    cdef int rows
    cdef long count             # rowcount
    cdef long position          # rownumber
    cdef object sent            # query, or what writes it
    cdef bint handed_over
    cdef public bint outlives   # rows can be fetched when the connection is closed
    cdef bint introduced        # casters find the attributes of their cursor
    cdef bint quick             # a DictRow is what it was
    cdef int fetching           # the depth of fetches under way
    cdef object columns_seen    # description, once asked for
    cdef tuple column_names
    cdef object index           # DictRow: name -> position
    cdef object record          # the namedtuple type
    cdef object impossible      # the error about it that is raised behind the rows
    cdef dict blank             # a dict row without its values
    cdef Places places          # of the values in such a dict
    cdef public object maker    # for SHAPE_MADE: makes a row of a tuple
    cdef readonly bint exhausted    # behind the last row fetchone() has found none

    @staticmethod
    cdef Result make(PGresult *res, object raw, object codec, object impl, int shape, object query)
    cdef int feed(self, PGresult *res) except -1
    cdef object next_row(self)
    cdef int check(self) except -1
    cdef int begin(self) except -1
    cdef int give_rows(self, impl, tuple fields) except -1
    cdef object text(self)
    cdef tuple fields(self)
    cdef object row(self, int shape)
    cdef list take(self, long limit)
    cdef int settled_shape(self) except -2
    cdef int raise_impossible(self) except -1
    cdef object record_type(self)
    cdef tuple names(self)
    cdef tuple values(self, int number)
    cdef object dict_row(self, int number)
    cdef object real_dict_row(self, int number)
    cdef object named_tuple(self, int number)
    cdef void stay(self, long start) noexcept
    cdef object factory_row(self, int shape, int number)
    cdef dict plain_dict(self, int number)
    cdef int settle_factory(self) except -1
