"""What a connection knows of its hot statements."""

from ._binds cimport Binds
from ._eligibility cimport Text
from ._libpq cimport PGconn, PGresult

cdef enum:
    MAX_TEXT = 20000            # characters of a text that is remembered

cdef enum Pooler:
    NOT_ASKED
    TO_ASK                      # as soon as the user's statement is on its way
    ASKED
    DIRECT                      # the session is with the server itself
    POOLED

cdef class Plans

cdef class Plan:
    cdef readonly bytes name    # of the prepared statement; None before there is one
    cdef public bint never      # it is not to be prepared
    cdef tuple columns          # of its result, as describe() gives them
    cdef unsigned long seen     # the transaction in which the columns were seen to be those
    cdef unsigned long born     # the transaction in which it was prepared, 0 if outside of any
    cdef int texts              # executions as text in the transaction `seen`, behind the first
    cdef tuple oids             # of the columns, if they may come in binary; else None
    cdef list places            # (position, whether SET, type) of parameters typed by the server
    cdef unsigned long used

    cdef int note(self, Text text, Binds binds, PGresult *res) except -1
    cdef bytes question(self, Plans plans)
    cdef bint fits(self, Plans plans) except -1
    cdef bint is_outlived(self) except -1
    cdef bint admits(self, tuple values, bint in_transaction) except -1

cdef class Hot:
    cdef readonly Text text
    cdef readonly int count     # executions
    cdef unsigned long epoch
    cdef dict plans             # types of the parameters: Plan
    cdef bint busy              # it is being prepared

    cdef Plan plan(self, bytes signature)

cdef class Plans:
    cdef public bint given    # the user has asked for it: a pooler is no obstacle
    cdef object asked           # prepare_threshold as it was given
    cdef public object maximum  # of prepared statements, None for no limit
    cdef readonly unsigned long epoch   # how often all was forgotten
    cdef public int pooler      # Pooler
    cdef public bint all_digits # floats are written so that they are read back the same
    cdef int threshold          # -1 is never
    cdef list recent            # of texts that were executed: without parameters, with them
    cdef list older             # the same, of the generation before
    cdef list prepared          # Plans that have a name
    cdef list doomed            # names of statements that are to be closed
    cdef bint closing           # some of them are being closed
    cdef bint heeds             # a text has been hot, so that what is sent as text matters
    cdef bint live              # something was learned since all was forgotten
    cdef bint dirty             # the session was changed, maybe in a transaction
    cdef bint digits_set        # as above, extra_float_digits
    cdef int unpaid             # how often what was prepared was forgotten too soon
    cdef int patience           # a factor of the threshold
    cdef unsigned long names_before     # when all was forgotten
    cdef unsigned long tick_before
    cdef bytes settings         # what literals in texts were read by
    cdef unsigned long names
    cdef unsigned long tick
    cdef unsigned long rollbacks

    cdef dict types             # of users: whether they are simple

    cdef bint watches(self, object prepare) except -1
    cdef int found(self, bint pooled) except -1
    cdef int note_types(self, PGresult *res, Plan plan) except -1
    cdef Hot find(self, str operation, bint has_parameters, object prepare)
    cdef Hot _remember(self, str operation, bint has_parameters)
    cdef int begin(self, PGconn *conn) except -1
    cdef bint settled(self, PGconn *conn) except -1
    cdef Plan learn(self, Hot hot, bytes signature, PGresult *res, unsigned long transaction)
    cdef bytes new_name(self)
    cdef unsigned long transaction(self, unsigned long rests) noexcept
    cdef int use(self, Plan plan) noexcept
    cdef int add(self, Plan plan) except -1
    cdef list closed(self, bint several)
    cdef int retract(self, Plan plan) except -1
    cdef int drop(self, Hot hot, bytes signature) except -1
    cdef int attend(self, bint in_transaction) noexcept
    cdef int ask_for_digits(self, bint needed) noexcept
    cdef int heed(self, object operation, bint has_parameters) except -1

cdef class Lesson:
    cdef Hot hot
    cdef bytes signature

    @staticmethod
    cdef Lesson of(Hot hot, bytes signature)

cdef tuple describe(PGresult *res)
cdef bint nothing_was_done(PGresult *res) except -1
cdef bint is_missing(PGresult *res) noexcept
cdef bint is_refusal(PGresult *res) noexcept
cpdef Text text_of(str operation, bint has_parameters)
cdef Text verdict(object operation, bint has_parameters)
