"""Whether a statement may be prepared, so that nobody can tell except by the speed.

Prepared, a placeholder is a parameter of the server; otherwise it is a literal that psycopg2 has
written. The two are known to come to the same only in some places of a statement, for values of
some types; all else stays on the text road. docs/prepared.md has the rules as users see them.

read_text() decides on the text, once. What depends on the values is left in a Slot for each
placeholder, which admits() compares with the parameters of an execution.
"""

from cpython.dict cimport PyDict_CheckExact
from cpython.float cimport PyFloat_AS_DOUBLE
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from cpython.long cimport PyLong_AsLongLongAndOverflow
from cpython.mem cimport PyMem_Free
from cpython.object cimport Py_TYPE, PyObject
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_GET_SIZE
from cpython.unicode cimport PyUnicode_CheckExact
from libc.math cimport fabs, isfinite

import datetime
from decimal import Decimal
from uuid import UUID

from psycopg2.extras import Json

from ._placement import Refused

from ._placement cimport *
from ._statements cimport in_order
from ._tokens cimport Tokens, read_tokens

cdef extern from "_frames.h":
    pass

cdef extern from "Python.h":
    Py_ssize_t PyUnicode_GET_LENGTH(object)
    Py_ssize_t PyUnicode_FindChar(object, Py_UCS4, Py_ssize_t, Py_ssize_t, int)

# --- values ---------------------------------------------------------------------------------------

cdef enum Fault:
    FITS = 10                   # beside the Verdicts
    WRONG_TYPE
    WRONG_LIST
    HAS_NUL
    HAS_BACKSLASH
    OUT_OF_RANGE

cdef tuple types = (
    type(None), int, float, Decimal, bool, str, bytes, bytearray, memoryview, datetime.date,
    datetime.datetime, datetime.time, datetime.timedelta, UUID, Json, list,
)
cdef PyObject *type_at[16]      # in the order of Type's bits
for _index, _type in enumerate(types):
    type_at[_index] = <PyObject *>_type
del _index, _type

cdef object int8_limit = 2**63
cdef object int_limit = 10**37
cdef object int4_decimal = Decimal(2**31)


cdef unsigned int type_of(object value) noexcept:
    """The Type of a value, 0 for any that is not bound."""
    cdef PyObject *kind = <PyObject *>Py_TYPE(value)
    cdef int i
    for i in range(16):
        if type_at[i] == kind:
            return 1 << i
    return 0


cdef int judge_value(Slot *slot, object value) except -1:
    """SAME, SAME_IF_PLANNED, or the Fault that is found."""
    cdef unsigned int kind = type_of(value)
    cdef int found = SAME
    if not kind & slot.types:
        return WRONG_TYPE
    if kind == INT:
        found = judge_int(slot, value)
    elif kind == STR:
        found = judge_str(slot, value)
    elif kind == FLOAT:
        found = judge_float(slot, PyFloat_AS_DOUBLE(value))
    elif kind == DECIMAL:
        found = judge_decimal(value)
    elif kind == LIST:
        found = judge_list(value)
    if found == SAME_IF_PLANNED and slot.limits & ANY_SIZE:
        found = SAME
    return SAME_IF_PLANNED if found == SAME and slot.limits & NEEDS_PLAN else found


cdef int judge_int(Slot *slot, object value) except -1:
    cdef int overflow = 0
    cdef long long number = PyLong_AsLongLongAndOverflow(value, &overflow)
    cdef bint is_int4 = not overflow and -2147483648 <= number <= 2147483647
    if slot.limits & INT4_ONLY:
        if is_int4:
            return SAME
        return OUT_OF_RANGE
    if overflow and (slot.limits & INT8_ONLY or not -int_limit < value < int_limit):
        return OUT_OF_RANGE
    # compared with a column of type oid, it is cast, which may fail
    return SAME if is_int4 and number > -2147483648 else SAME_IF_PLANNED


cdef int judge_str(Slot *slot, object value) except -1:
    cdef Py_ssize_t size = PyUnicode_GET_LENGTH(value)
    if PyUnicode_FindChar(value, 0, 0, size, 1) >= 0:
        return HAS_NUL
    if slot.limits & NO_BACKSLASH and PyUnicode_FindChar(value, c"\\", 0, size, 1) >= 0:
        return HAS_BACKSLASH
    return SAME


cdef int judge_float(Slot *slot, double value) noexcept:
    """Beyond the range of float4, a cast to it fails: when planning with a literal."""
    if slot.limits & NO_ZERO and value == 0:
        return OUT_OF_RANGE
    if value == 0 or not isfinite(value) or 1e-37 < fabs(value) < 1e38:
        return SAME
    return OUT_OF_RANGE


cdef int judge_decimal(object value) except -1:
    if not value or not value.is_finite():
        return SAME_IF_PLANNED if value.is_infinite() else SAME
    if not -36 <= value.adjusted() <= 36:
        return OUT_OF_RANGE
    return SAME if -int4_decimal < value < int4_decimal else SAME_IF_PLANNED


cdef int judge_list(list value) except -1:
    """Elements of one type. With None among others, array_nulls has a say."""
    cdef Py_ssize_t i
    cdef unsigned int kind, first = 0
    cdef int overflow = 0, found = SAME
    cdef long long number
    cdef object item
    for i in range(PyList_GET_SIZE(value)):
        item = <object>PyList_GET_ITEM(value, i)
        kind = type_of(item)
        if i == 0:
            first = kind
        if kind != first or not kind & (NULL_VALUE | INT | STR | UUID_VALUE | DATE):
            return WRONG_LIST
        if kind == INT:
            number = PyLong_AsLongLongAndOverflow(item, &overflow)
            if overflow:
                return OUT_OF_RANGE
            if not -2147483648 < number <= 2147483647:
                found = SAME_IF_PLANNED
        elif kind == STR and PyUnicode_FindChar(item, 0, 0, PyUnicode_GET_LENGTH(item), 1) >= 0:
            return HAS_NUL
    return found


# --- the verdict ----------------------------------------------------------------------------------

cdef class Text:
    """What is known of an SQL text; it can be kept for as long as one likes.

    admits() tells whether an execution with these parameters may be prepared. The adapters that the
    program has registered are not looked at; nor is the connection, or what the server answers.
    """

    def __dealloc__(self):
        PyMem_Free(self.slots)

    @property
    def binds(self):
        """How each placeholder is bound: "literal", "cast array" or "column"."""
        names = ("literal", "cast array", "column")
        return tuple([names[self.slots[i].bind] for i in range(self.count if self.eligible else 0)])

    cdef int note_binds(self) except -1:
        cdef Py_ssize_t i
        columns = bytes([self.slots[i].bind == AS_COLUMN for i in range(self.count)])
        self.columns = columns if any(columns) else None
        for i in range(self.count):
            self.arrays |= self.slots[i].bind == AS_CAST_ARRAY
        return 0

    cdef bytes untyped(self, tuple values):
        """Not 0 for each value whose type the server is to find out; None if there is none."""
        cdef Py_ssize_t i
        if not self.arrays:
            return self.columns
        left = bytearray(self.count)
        for i in range(self.count):
            value = values[i]
            left[i] = self.slots[i].bind == AS_COLUMN or (
                self.slots[i].bind == AS_CAST_ARRAY and type(value) is list
                and (not value or type(value[0]) is str))
        return bytes(left)

    cdef tuple arrange(self, object parameters):
        """The value of each placeholder, or None if these parameters are none for the text."""
        if not self.has_parameters:
            return () if parameters is None else None
        if self.count == 0 and PyDict_CheckExact(parameters):
            return ()
        return in_order(self.names, self.count, parameters)

    cdef int judge(self, tuple values) except -1:
        """The Verdict on what arrange() has given."""
        cdef Py_ssize_t i
        cdef int found, verdict = SAME
        for i in range(self.count):
            found = judge_value(&self.slots[i], <object>PyTuple_GET_ITEM(values, i))
            if found > FITS:
                return REFUSED
            if found == SAME_IF_PLANNED:
                verdict = SAME_IF_PLANNED
        return verdict

    cpdef int admits(self, object parameters) except -1:
        """0: the text road only; 1: may be prepared; 2: only with plans made with the values."""
        cdef tuple values
        if not self.eligible:
            return REFUSED
        values = self.arrange(parameters)
        return REFUSED if values is None else self.judge(values)

    def refusal(self, parameters):
        """Why admits() gives 0, a sentence; None if it does not."""
        cdef Py_ssize_t i
        cdef int found
        if not self.eligible:
            return self.reason
        values = self.arrange(parameters)
        if values is None:
            return ("the parameters are no tuple or list with a value for each placeholder"
                    if self.names is None else
                    "the parameters are no dict with a value for each placeholder")
        for i in range(self.count):
            found = judge_value(&self.slots[i], values[i])
            if found > FITS:
                name = i + 1 if self.names is None else self.names[i]
                return f"parameter {name} {describe(found, &self.slots[i], values[i])}"
        return None


# Kinds of statements that are executed for their rows, or to change some.
cdef frozenset queries = frozenset([
    "SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "VALUES", "TABLE", "WITH",
])


cdef str describe(int fault, Slot *slot, object value):
    place = places[slot.place]
    if fault == WRONG_TYPE and type_of(value) == 0:
        return f"is of type {type(value).__name__}, which is never bound"
    if fault == WRONG_TYPE and value is None:
        return f"is None, which means something else {place}"
    if fault == WRONG_TYPE:
        return f"is of type {type(value).__name__}, which is not bound {place}"
    if fault == WRONG_LIST:
        return "is a list of something else than only int, only str, only UUID or only date"
    if fault == HAS_NUL:
        return "contains a NUL character"
    if fault == HAS_BACKSLASH:
        return f"contains a backslash {place}"
    return f"is a number out of the range that is known to be the same {place}"


cpdef Text read_text(object operation, bint has_parameters):
    """Read an SQL text, whatever it is. Nothing is kept.

    has_parameters: whether execute() gets any, so that percent signs are placeholders.
    operation: only a str can be eligible; what else there is to know is told of bytes, too.
    """
    cdef Text self = Text.__new__(Text)
    cdef Tokens tokens
    self.has_parameters = has_parameters
    self.kind = ""
    self.changes_session = True
    try:
        if isinstance(operation, str):
            text = str.encode(operation)
        elif isinstance(operation, bytes):
            text = bytes(operation)
        else:
            raise Refused("the operation is no str")
        tokens = read_tokens(text, has_parameters)
        self.kind = tokens.kind
        self.changes_session = tokens.changes_session
        self.single = tokens.certain and tokens.statements == 1
        self.shareable = self.single and self.kind in queries \
            and not self.changes_session and not tokens.needs_session
        if not PyUnicode_CheckExact(operation):
            raise Refused("the operation is no str")
        if tokens.trouble is not None:
            raise Refused(tokens.trouble)
        self.slots = place_all(tokens)
        self.count = len(tokens.holders)
        self.names = names_of(tokens)
        self.sql = numbered(tokens)
        self.quotes = b"'" in self.sql
        self.note_binds()
        self.proven = {}
        self.eligible = True
    except UnicodeEncodeError:
        self.reason = "the text can't be encoded"
    except Refused as refused:
        self.reason = str(refused)
    return self


cdef tuple names_of(Tokens tokens):
    """The names of the placeholders, None if they have none."""
    names = [name for _, _, name in tokens.holders]
    named = [name for name in names if name is not None]
    if named and len(named) < len(names):
        raise Refused("placeholders with and without names are mixed")
    return tuple(names) if named else None


cdef bytes numbered(Tokens tokens):
    """The text with $1, $2 ... for its placeholders."""
    cdef bytes text = tokens.text
    cdef list pieces = []
    if not tokens.has_parameters:
        return text
    done = 0
    for number, (start, end, _) in enumerate(tokens.holders, 1):
        pieces.append(text[done:start].replace(b"%%", b"%"))
        pieces.append(b"$%d" % number)
        done = end
    pieces.append(text[done:].replace(b"%%", b"%"))
    return b"".join(pieces)
