"""Plans: what a connection knows of its hot statements, and has prepared of them.

    find()      counts an execution; the text's Hot once it is to be prepared
    Hot.plan()  what is known of it with parameters of these types: a Plan
    heed()      looks at what is sent as text: a SET, DDL and the like outdate what was prepared

A text is executed as such first, with the same types of parameters, so that its columns are known:
those that the server then describes must be the same. What it makes of a parameter whose type was
left to it must be known to be read as a literal is. Both are asked once for a Plan; the values
are looked at each time (admits()).

In a transaction no error may come that psycopg2 had not met. So the first execution of each is
sent as text: its columns are compared, and its locks keep them as they are.

Nothing is sent from here: that is `_requests`'.
"""

from cpython.dict cimport PyDict_GetItem
from cpython.object cimport PyObject
from libc.string cimport strncmp

import datetime
import os
import re
from functools import lru_cache
from uuid import UUID

from psycopg2.extras import Json

from ._binary cimport binary_possible
from ._binds cimport Binds
from ._eligibility cimport Text, read_text
from ._libpq cimport (
    PG_DIAG_CONTEXT,
    PG_DIAG_SOURCE_FUNCTION,
    PG_DIAG_SQLSTATE,
    PGconn,
    PGresult,
    pq,
)

cdef extern from "_frames.h":
    pass

DEFAULT_THRESHOLD = 5
DEFAULT_MAXIMUM = 100

cdef enum:
    MIN_TEXTS = 100             # texts that are counted at a time, at least
    MAX_CLOSED = 1000           # statements that are closed at a time
    PAYS = 20                   # executions for which it pays to prepare a statement
    MAX_UNPAID = 2              # times

# Types that a literal without a type, or a parameter without one, is read into alike. Not interval
# ('5' is five days where a column says so), and of user's types only those that have no checks.
cdef frozenset safe = frozenset([
    16, 17, 18, 19, 20, 21, 23, 25, 26, 114, 142, 600, 650, 700, 701, 774, 790, 829, 869, 1000, 1001,
    1005, 1007, 1009, 1014, 1015, 1016, 1021, 1022, 1041, 1042, 1043, 1082, 1083, 1114, 1115, 1182,
    1183, 1184, 1185, 1231, 1266, 1560, 1562, 1700, 2950, 2951, 3614, 3615, 3802, 3807, 3904, 3906,
    3908, 3910, 3912, 3926,
])
# Any text can be read into these: that can't fail.
cdef frozenset textual = frozenset([19, 25, 1042, 1043])

# SET: types of columns without a length or precision at which a value may fail.
cdef frozenset _of_text = frozenset([
    16, 17, 19, 20, 21, 23, 25, 114, 142, 600, 700, 701, 829, 869, 1000, 1001, 1005, 1007, 1009, 1016,
    1021, 1022, 1082, 1083, 1114, 1115, 1182, 1183, 1184, 1185, 1266, 1270, 2950, 2951, 3802, 3904, 3906,
    3908, 3910, 3912, 3926,
])
cdef dict settable = {
    str: _of_text,
    type(None): _of_text | {1014, 1015, 1042, 1186, 1231, 1560, 1562, 1700},
    int: frozenset([20, 21, 23]),
    bool: frozenset([16]),
    float: frozenset([701]),
    bytes: frozenset([17]),
    datetime.date: frozenset([1082]),
    UUID: frozenset([2950]),
    Json: frozenset([25, 114, 3802]),
}
cdef dict ranges = {21: range(-2**15, 2**15), 23: range(-2**31, 2**31), 20: range(-2**63, 2**63)}
# Type of the value: the types of columns without and with time zone.
cdef dict zoned = {datetime.time: (1083, 1266), datetime.datetime: (1114, 1184)}

cdef enum:
    FIRST_OF_USERS = 16384      # types with smaller OIDs are the server's own


cdef bint fits_column(unsigned int oid, object value) except -1:
    """Whether SET stores a value in a column of this type as it stores the literal."""
    cdef type kind = type(value)
    if kind in zoned:
        return oid == zoned[kind][value.tzinfo is not None]
    if oid not in settable.get(kind, ()):
        return False
    return kind is not int or value in ranges[oid]


cdef tuple describe(PGresult *res):
    """The columns of a result, or of a described statement."""
    cdef int i
    columns = []
    for i in range(pq.nfields(res)):
        columns.append((
            <bytes>pq.fname(res, i), pq.ftype(res, i), pq.fmod(res, i), pq.fsize(res, i),
            pq.ftable(res, i), pq.ftablecol(res, i)))
    return tuple(columns)


cdef class Plan:
    """A text with parameters of certain types."""

    cdef int note(self, Text text, Binds binds, PGresult *res) except -1:
        """What the server says of a statement that was prepared for it."""
        cdef int i
        places = text.binds
        self.places = []
        for i in range(binds.count):
            if binds.types[i] == 0:
                self.places.append((i, places[i] == "column", pq.paramtype(res, i)))
        oids = tuple([column[1] for column in self.columns])
        self.oids = oids if binary_possible(oids, True) else None
        return 0

    cdef bytes question(self, Plans plans):
        """The query that tells which of the types are the user's and simple, if there are any."""
        asked = [b"%d" % oid for _, is_column, oid in self.places
                 if oid >= FIRST_OF_USERS and not is_column and oid not in plans.types]
        if not asked:
            return None
        return (b"SELECT oid FROM pg_catalog.pg_type WHERE oid IN (%b) AND typelem = 0"
                b" AND typtype IN ('b', 'e')" % b", ".join(asked))

    cdef bint fits(self, Plans plans) except -1:
        """Whether the types that the server has found are read as literals are."""
        for _, is_column, oid in self.places:
            if not is_column and oid not in safe and not plans.types.get(oid, False):
                return False
        return True

    cdef bint is_outlived(self) except -1:
        """In a transaction: whether the types that the server has found may be others by now."""
        return self.name is not None and self.born != self.seen and bool(self.places)

    cdef bint admits(self, tuple values, bint in_transaction) except -1:
        """Whether these values mean the same to it as literals; in a transaction: and can't fail."""
        for i, is_column, oid in self.places:
            value = values[i]
            if is_column and not fits_column(oid, value):
                return False
            if in_transaction and oid not in textual and (
                    type(value) is str or type(value) is Json
                    or (not is_column and value is not None)):
                return False
        return True


cdef class Hot:
    """A text as it was executed on a connection."""

    cdef Plan plan(self, bytes signature):
        cdef PyObject *found = PyDict_GetItem(self.plans, signature)
        return None if found == NULL else <Plan>found


cdef class Plans:
    """The statements of one connection that were executed and prepared.

    threshold: executions after which a statement is prepared, None for never; `given` tells whether
        the user has said so: then a pooler in between is no obstacle.
    maximum: of prepared statements, None for no limit.
    """

    def __cinit__(self, threshold, maximum, given):
        self.given = given
        self.recent = [{}, {}]
        self.older = [{}, {}]
        self.prepared = []
        self.doomed = []
        self.types = {}
        self.maximum = maximum
        self.patience = 1
        self.prepare_threshold = threshold
        # Nobody else's: behind a pooler, sessions may meet each other's statements.
        self.names = self.names_before = int.from_bytes(os.urandom(6), "big")

    @property
    def prepare_threshold(self):
        """As it was given."""
        return self.asked

    @prepare_threshold.setter
    def prepare_threshold(self, threshold):
        self.asked = threshold
        self.threshold = -1 if threshold is None else min(threshold, 2**31 - 1)

    @property
    def executions(self):
        """How often a statement was executed by its name."""
        return self.tick

    @property
    def texts(self):
        """The texts that are counted, in their dicts."""
        return [*self.recent, *self.older]

    @property
    def names_in_use(self):
        """The names of the prepared statements."""
        return [(<Plan>plan).name for plan in self.prepared]

    # Texts

    cdef Hot find(self, str operation, bint has_parameters, object prepare):
        """Count an execution. The Hot of a text that is to be prepared, else None."""
        cdef PyObject *found = PyDict_GetItem(<dict>self.recent[has_parameters], operation)
        cdef Hot hot
        if found != NULL:
            hot = <Hot>found
        elif len(operation) > MAX_TEXT:
            return None
        else:
            hot = self._remember(operation, has_parameters)
        if hot.epoch != self.epoch:
            hot.epoch = self.epoch
            hot.count = 0
            hot.plans = {}
        hot.count += 1
        if prepare is None and hot.count < self.threshold * self.patience:
            return None
        if hot.text is None:
            hot.text = text_of(operation, has_parameters)
        return hot if hot.text.eligible else None

    cdef Hot _remember(self, str operation, bint has_parameters):
        cdef Hot hot = (<dict>self.older[has_parameters]).pop(operation, None)
        if hot is None:
            hot = Hot.__new__(Hot)
            hot.epoch = self.epoch
            hot.plans = {}
        texts = self.recent[has_parameters]
        if len(texts) >= max(self.maximum or 0, MIN_TEXTS):
            self.older[has_parameters] = texts
            texts = self.recent[has_parameters] = {}
        texts[operation] = hot
        return hot

    # Prepared statements

    cdef Plan learn(self, Hot hot, bytes signature, PGresult *res, unsigned long transaction):
        """The columns of a text; its Plan, or None if there is to be none.

        transaction: see transaction(); 0 if none is open.
        """
        cdef Plan plan
        if hot.epoch != self.epoch:
            return None                 # something has changed meanwhile
        columns = describe(res)
        plan = hot.plan(signature)
        if plan is not None and plan.columns != columns:
            self.drop(hot, signature)
            plan = None
        if plan is None:
            if len(hot.plans) >= MIN_TEXTS:
                return None             # a text with that many types is none for a plan
            plan = hot.plans[signature] = Plan.__new__(Plan)
            plan.columns = columns
        if plan.seen != transaction:
            plan.seen = transaction
            plan.texts = 0
        return plan

    cdef bytes new_name(self):
        self.names += 1
        return b"aiopgx_%d" % self.names

    cdef unsigned long transaction(self, unsigned long rests) noexcept:
        """A number for the transaction that is open, up to a ROLLBACK TO. Never 0."""
        return (rests << 16) + (self.rollbacks & 0xffff) + 1

    cdef int use(self, Plan plan) noexcept:
        self.tick += 1
        plan.used = self.tick
        return 0

    cdef int add(self, Plan plan) except -1:
        """A statement was prepared."""
        self.prepared.append(plan)
        plan.used = self.tick
        self.shrink()
        return 0

    def shrink(self):
        """Those beyond the maximum that were not used for the longest time have to go."""
        cdef Plan other, eldest
        while self.maximum is not None and len(self.prepared) > self.maximum:
            eldest = self.prepared[0]
            for other in self.prepared:
                if other.used < eldest.used:
                    eldest = other
            self.retract(eldest)        # it is prepared again when it is executed again

    cdef int retract(self, Plan plan) except -1:
        """A statement is not to be executed by its name any more."""
        self.prepared.remove(plan)
        self.doomed.append(plan.name)
        plan.name = None
        return 0

    cdef int drop(self, Hot hot, bytes signature) except -1:
        """Its plan is of no use any more."""
        cdef Plan plan = hot.plans.pop(signature, None)
        if plan is not None and plan.name is not None:
            self.retract(plan)
        return 0

    cdef int note_types(self, PGresult *res, Plan plan) except -1:
        """The answer to the plan's question()."""
        cdef int i
        simple = {int(<bytes>pq.getvalue(res, i, 0)) for i in range(pq.ntuples(res))}
        for _, is_column, oid in plan.places:
            if oid >= FIRST_OF_USERS and not is_column:
                self.types[oid] = oid in simple
        return 0

    cdef int found(self, bint pooled) except -1:
        self.pooler = POOLED if pooled else DIRECT
        return 0

    cdef bint watches(self, object prepare) except -1:
        """Whether an execution counts."""
        if self.maximum == 0:
            return False
        if prepare is not None:
            return prepare
        return self.threshold >= 0 and (self.pooler != POOLED or self.given)

    cdef list closed(self, bint several):
        """Take out names that are to be closed now."""
        count = MAX_CLOSED if several else 1
        names = self.doomed[:count]
        del self.doomed[:count]
        return names

    def forget(self):
        """What was prepared may be outdated: texts are counted from the beginning.

        Where that has not paid for some times, twice as long as before.
        """
        cdef Plan plan
        cdef unsigned long made = self.names - self.names_before
        if made:
            paid = self.tick - self.tick_before >= PAYS * made
            self.unpaid = 0 if paid else self.unpaid + 1
            self.patience = 1 << max(0, min(self.unpaid - MAX_UNPAID, 10))
        self.names_before, self.tick_before = self.names, self.tick
        for plan in self.prepared:
            self.doomed.append(plan.name)
            plan.name = None
        self.prepared.clear()
        self.epoch += 1
        self.live = False

    # What outdates them

    cdef int attend(self, bint in_transaction) noexcept:
        """A text is hot for the first time: from now on, what is sent as text is heeded.

        What was SET in the open transaction has not been.
        """
        self.heeds = True
        self.dirty = self.digits_set = in_transaction
        return 0

    cdef int begin(self, PGconn *conn) except -1:
        """Something is about to be prepared: by these settings its literals are read."""
        if not self.live:
            self.live = True
            self.settings = settings_of(conn)
        return 0

    cdef bint settled(self, PGconn *conn) except -1:
        """Whether they are still the same: a function may have changed them."""
        return self.settings == settings_of(conn)

    cdef int heed(self, object operation, bint has_parameters) except -1:
        """A statement is sent as text."""
        cdef Text text
        if not self.heeds:
            return 0
        text = verdict(operation, has_parameters)
        if text.single and not text.changes_session and text.kind not in _ends:
            return 0
        if not text.single or text.kind in _ends:
            self.rollbacks += 1         # COMMIT may begin another (AND CHAIN)
        if text.single and text.kind in _ends:
            if self.dirty:              # what was SET may be so no more
                self.dirty = type(operation) is not str or bool(_goes_on(operation))
                self.forget()
                self.ask_for_digits(self.digits_set)
                self.digits_set = self.dirty
            return 0
        if text.kind == "SET" and text.single and type(operation) is str \
                and _unrelated(operation):
            return 0
        self.dirty = True
        self.forget()
        self.ask_for_digits(self.digits_set or not (text.single and type(operation) is str and (
            text.kind in _definitions
            or (text.kind == "SET" and "float" not in operation.lower()))))
        return 0

    cdef int ask_for_digits(self, bint needed) noexcept:
        """Floats may be written with fewer digits from now on, or after the transaction."""
        self.digits_set = needed
        if needed and self.pooler == DIRECT:
            self.pooler = NOT_ASKED
            self.all_digits = False
        return 0


cdef frozenset _definitions = frozenset(["ALTER", "CREATE", "DROP"])
cdef frozenset _ends = frozenset(["ROLLBACK", "COMMIT", "END", "ABORT"])

# ROLLBACK TO: the transaction goes on, and what was SET in it ends later.
cdef object _goes_on = re.compile(r"\bTO\b", re.IGNORECASE).search

# Settings on which no plan depends.
cdef object _unrelated = re.compile(
    r"\s*SET\s+(?:(?:LOCAL|SESSION)\s+)?(?:application_name|statement_timeout|lock_timeout|"
    r"idle_in_transaction_session_timeout|client_min_messages|synchronous_commit|transaction)\b",
    re.IGNORECASE).match


cdef bytes settings_of(PGconn *conn):
    cdef const char *value
    found = []
    for name in (b"DateStyle", b"IntervalStyle", b"TimeZone"):
        value = pq.parameterStatus(conn, <const char *><bytes>name)
        found.append(b"" if value == NULL else <bytes>value)
    return b"\0".join(found)


cdef class Lesson:
    """To be learned when a text has been executed as such: its columns."""

    @staticmethod
    cdef Lesson of(Hot hot, bytes signature):
        cdef Lesson self = Lesson.__new__(Lesson)
        self.hot, self.signature = hot, signature
        return self


@lru_cache(maxsize=1000)
def _text_of(operation, has_parameters):
    return read_text(operation, has_parameters)


cpdef Text text_of(str operation, bint has_parameters):
    """read_text(), kept for the process."""
    return _text_of(operation, has_parameters)


cdef Text verdict(object operation, bint has_parameters):
    """The same of anything that may be executed; long texts are not kept."""
    if type(operation) is str and len(operation) <= MAX_TEXT:
        return text_of(operation, has_parameters)
    return read_text(operation, has_parameters)


cdef bint is_refusal(PGresult *res) noexcept:
    """Whether a statement can't be prepared: not for want of time, a lock or a right."""
    cdef const char *state = pq.resultErrorField(res, PG_DIAG_SQLSTATE)
    return state != NULL and strncmp(state, b"42", 2) == 0 and strncmp(state, b"42501", 5) != 0


cdef bint is_missing(PGresult *res) noexcept:
    """Whether there is no prepared statement of the name."""
    cdef const char *state = pq.resultErrorField(res, PG_DIAG_SQLSTATE)
    return state != NULL and strncmp(state, b"26000", 5) == 0


# A parameter that was refused before anything was executed; the words around are the server's language.
cdef object _at_parameter = re.compile(rb"\$[0-9]+(?: = .*)?\Z", re.DOTALL).search


cdef bint nothing_was_done(PGresult *res) except -1:
    """Whether a prepared statement failed before it was executed, as the text might not."""
    cdef const char *state = pq.resultErrorField(res, PG_DIAG_SQLSTATE)
    cdef const char *function = pq.resultErrorField(res, PG_DIAG_SOURCE_FUNCTION)
    cdef const char *context = pq.resultErrorField(res, PG_DIAG_CONTEXT)
    if state == NULL:
        return False
    if is_missing(res):
        return True
    if strncmp(state, b"0A000", 5) == 0:
        return function != NULL and strncmp(function, b"RevalidateCachedQuery", 21) == 0
    if context == NULL:
        return strncmp(state, b"42", 2) == 0
    return _at_parameter(<bytes>context) is not None


def can_bind(Text text, parameters):
    """Whether parameters that Text.admits() can be bound, by the adapters that are registered."""
    cdef tuple values = text.arrange(parameters)
    return Binds.of(values, text.untyped(values)) is not None
