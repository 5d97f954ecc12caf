"""Batches: one statement for many parameter sets."""

from ._binds cimport Binds
from ._core cimport Request, Wire
from ._eligibility cimport Text
from ._libpq cimport PGresult
from ._plans cimport Plan


cdef class Form:
    """A statement with parameters of certain types, as it is prepared for a batch."""

    cdef Text text
    cdef Binds binds            # of a row
    cdef Plan plan              # what the server has made of it
    cdef bytes signature        # the types of psycopg2's literals
    cdef bytes declared         # those that are declared to the server
    cdef bytes floats           # not 0 for each float in VALUES; None if there is none
    cdef bint good              # parameters mean what psycopg2's literals do
    cdef bint any_value         # whatever the values are

    @staticmethod
    cdef Form of(Text text, Binds binds, tuple values)
    cdef bint covers(self, Binds binds) noexcept
    cdef bint admits(self, tuple values, bint in_transaction) except -1
    cdef bytes without_floats(self)
    cdef int note(self, PGresult *res) except -1
    cdef int note_floats(self, PGresult *res) except -1


cdef class Rows(Request):
    """Some of a batch's parameter sets, which travel together."""

    cdef Batch batch
    cdef list items             # Form: Parse; Binds: a row; bytes: a row as a text
    cdef list values            # of the rows
    cdef size_t size            # bytes
    cdef bint parsed            # the statement without name is a Form behind the last row
    cdef Form form              # this one
    cdef Rows previous          # those that were put before; None when this is sent
    cdef Py_ssize_t first       # index of the first row in the batch
    cdef bytes opening          # BEGIN, in front
    cdef bytes ending           # COMMIT, behind
    cdef Py_ssize_t taken       # results
    cdef Py_ssize_t done        # rows that were executed
    cdef PGresult *failed       # owned

    cdef int add(self, object item, tuple values, Py_ssize_t size) except -1
    cdef bint put_all(self, Wire wire) except -1
    cdef bint put_row(self, Wire wire, object item) noexcept
    cdef object item_of(self, Py_ssize_t number)
    cdef int keep_up(self, Wire wire) except -1
    cdef int expect_all(self, Wire wire) except -1
    cdef bytes text_of_row(self, object item)


cdef enum Stage:
    ASK
    LOOK                        # in the catalogue, at types that the server has found
    UNDO


cdef class Trial(Request):
    """Asks the server what it makes of a Form: in a savepoint, since it may refuse."""

    cdef Form form
    cdef Py_ssize_t taken
    cdef Stage stage
    cdef bytes question         # about types of users
    cdef bint saved
    cdef bint failed


cdef class Batch:
    """One statement for many parameter sets."""

    cdef Wire wire
    cdef object impl            # the psycopg2 cursor
    cdef object operation
    cdef object session
    cdef object timeout
    cdef bint own               # the transaction is the batch's
    cdef bint echo
    cdef Text text              # None: each set is executed by execute()
    cdef bint binds             # rows may be bound
    cdef unsigned int known     # see Binds
    cdef dict forms             # by signature
    cdef Form form              # the one in use
    cdef Form candidate         # one that has not been tried
    cdef int trials
    cdef Rows rows              # those that are taken and not sent
    cdef Rows newest            # those that were sent last
    cdef PGresult *last         # of the row that was executed last; owned
    cdef object last_item
    cdef tuple last_values
    cdef readonly bint odd      # there is a set for execute()
    cdef readonly object parameters     # that one
    cdef readonly bint exhausted
    cdef readonly Py_ssize_t count      # rows that were taken
    cdef readonly Py_ssize_t executed
    cdef readonly long total            # the sum of rowcount, -1 if unknown
    cdef bint failed
    cdef readonly object failed_at      # the index of the row that failed, or None
    cdef readonly object suspect        # its text, if its parameters were refused

    cdef int look_at(self, operation) except -1
    cpdef bint wants(self, Py_ssize_t limit) except -1
    cdef int add(self, parameters) except -1
    cdef int log(self, operation, parameters) except -1
    cdef bint add_bound(self, object parameters) except -1
    cdef bint add_text(self, object parameters) except -1
    cdef Binds bind(self, tuple values, Form form)
    cdef Form form_of(self, tuple values)
    cdef int note(self, Rows rows, object item, PGresult *res) except -1
    cdef int add_up(self, long rowcount) noexcept
    cdef object values_of(self, tuple values)
