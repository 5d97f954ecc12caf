"""Whether a statement may be prepared: a verdict on its text, and one on its parameters."""

from ._placement cimport Slot

cdef enum Verdict:
    REFUSED = 0             # the text road is the only one
    SAME = 1                # the outcome is the same, whatever plan the server chooses
    SAME_IF_PLANNED = 2     # the same only as long as the server plans with the values in hand


cdef class Text:
    cdef readonly bint eligible
    cdef readonly object reason         # why not, a sentence; None if eligible
    cdef readonly bytes sql             # for Parse, with $1 ... $n; None if not eligible
    cdef readonly tuple names           # of the placeholders' parameters; None if by position
    cdef readonly Py_ssize_t count      # of the placeholders
    cdef readonly bint single           # surely one statement, with or without its semicolon
    cdef readonly str kind              # the first word in upper case: "SELECT", "BEGIN", ...
    cdef readonly bint changes_session  # maybe: prepared statements are to be forgotten
    cdef readonly bint shareable        # it leaves nothing behind in its session, nor needs it
    cdef bytes columns                  # not 0 for each placeholder that is bound as a column; or None
    cdef bint arrays                    # there are casts to arrays
    cdef readonly bint quotes           # there is a literal in quotes, or a name
    cdef readonly dict proven           # (database, types): whether the server has prepared it
    cdef bint has_parameters
    cdef Slot *slots                    # of an eligible text

    cdef int note_binds(self) except -1
    cdef bytes untyped(self, tuple values)
    cdef tuple arrange(self, object parameters)
    cdef int judge(self, tuple values) except -1
    cpdef int admits(self, object parameters) except -1


cpdef Text read_text(object operation, bint has_parameters)
