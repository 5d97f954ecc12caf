"""Statements: an SQL text with placeholders, and psycopg2's literals put in their places.

psycopg2's mogrify() is the reference. What is done here gives the same bytes for the plain cases:
a str with %s or %(name)s, a tuple, list or dict, and parameters of the types int, bool, float,
str (ASCII without backslash) and None, as long as nobody registered another adapter for them.
For everything else merge() returns None, and psycopg2 is to do it.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_CheckExact, PyDict_GetItem
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from cpython.list cimport PyList_AsTuple, PyList_CheckExact
from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_CheckExact
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport (
    PyTuple_CheckExact,
    PyTuple_GET_ITEM,
    PyTuple_GET_SIZE,
    PyTuple_New,
    PyTuple_SET_ITEM,
)
from cpython.unicode cimport PyUnicode_CheckExact
from libc.math cimport isfinite
from libc.string cimport memcpy, strlen

import re

import psycopg2
import psycopg2.extensions
from psycopg2.extensions import ISQLQuote

cdef extern from "_frames.h":
    pass

cdef extern from "Python.h":
    bint PyUnicode_IS_ASCII(object)
    Py_ssize_t PyUnicode_GET_LENGTH(object)
    char *PyUnicode_DATA(object)
    char *PyOS_double_to_string(double, char, int, int, int *)
    int Py_DTSF_ADD_DOT_0

cdef dict adapters = psycopg2.extensions.adapters
cdef tuple int_key = (int, ISQLQuote)
cdef tuple bool_key = (bool, ISQLQuote)
cdef tuple float_key = (float, ISQLQuote)
cdef tuple str_key = (str, ISQLQuote)
# psycopg2's own adapters; PyObject pointers, for comparison only
cdef PyObject *int_adapter = <PyObject *>psycopg2.extensions.Int
cdef PyObject *bool_adapter = <PyObject *>psycopg2.extensions.Boolean
cdef PyObject *float_adapter = <PyObject *>psycopg2.extensions.Float
cdef PyObject *str_adapter = <PyObject *>psycopg2.extensions.QuotedString

cdef object find_placeholders = re.compile(r"%(?:%|s|\(([^()%]*)\)s|)").finditer

# Texts that were taken apart. A program that writes values into its SQL must not fill the memory.
cdef dict _statements = {}
cdef enum:
    MAX_STATEMENTS = 1000
    MAX_TEXT = 20000
    MAX_MERGED = 1000000


cdef class Statement:
    """A text taken apart: pieces[0] <parameter> pieces[1] <parameter> ... pieces[-1]."""

    cdef tuple pieces           # of bytes, UTF-8
    cdef tuple names            # of the parameters; None if they go by position
    cdef Py_ssize_t count       # of the parameters


cdef object take_apart(str operation):
    """The Statement, or None for a text that psycopg2 is to treat."""
    cdef Statement statement
    pieces = []
    names = []
    piece = ""
    end = 0
    for match in find_placeholders(operation):
        piece += operation[end:match.start()]
        end = match.end()
        if match[0] == "%%":
            piece += "%"
        elif match[0] == "%":
            return None
        else:
            pieces.append(piece.encode())
            names.append(match[1])
            piece = ""
    pieces.append((piece + operation[end:]).encode())
    if not names or (None in names and any([name is not None for name in names])):
        return None
    statement = Statement.__new__(Statement)
    statement.pieces = tuple(pieces)
    statement.names = None if names[0] is None else tuple(names)
    statement.count = len(names)
    return statement


cdef object find_statement(str operation):
    cdef PyObject *found = PyDict_GetItem(_statements, operation)
    if found != NULL:
        return <object>found
    if PyUnicode_GET_LENGTH(operation) > MAX_TEXT or "\0" in operation:
        return None
    try:
        statement = take_apart(operation)
    except UnicodeEncodeError:
        return None
    if len(_statements) >= MAX_STATEMENTS:
        _statements.clear()
    _statements[operation] = statement
    return statement


cdef bint quotes_plainly(object raw) except -1:
    """Whether psycopg2 writes strings without E'' on this connection."""
    quoted = psycopg2.extensions.QuotedString("a")
    quoted.prepare(raw)
    return quoted.getquoted() == b"'a'"


# The text under construction: one for the process, since nothing runs Python code, or lets go of the
# GIL, while a text is made. Very long texts are psycopg2's: what was needed once is kept for ever.
cdef char *_buffer = NULL
cdef Py_ssize_t _room = 0


cdef char *reserve(Py_ssize_t used, Py_ssize_t more) except NULL:
    """The end of what is used, with room for more."""
    global _buffer, _room
    cdef char *larger
    if used + more > _room:
        larger = <char *>PyMem_Realloc(_buffer, (used + more) * 2)
        if larger == NULL:
            raise MemoryError
        _buffer = larger
        _room = (used + more) * 2
    return _buffer + used


cdef Py_ssize_t add(Py_ssize_t used, const char *text, Py_ssize_t size) except -1:
    memcpy(reserve(used, size), text, size)
    return used + size


cdef tuple in_order(tuple names, Py_ssize_t count, object parameters):
    """A tuple of what the placeholders stand for, or None if psycopg2 is to look.

    names: of the parameters; None if they go by position.

    The keys of a dict may compare in Python, and that code may come back here: so this is done
    before the text is begun.
    """
    cdef Py_ssize_t i
    cdef PyObject *found
    cdef tuple values
    if names is None:
        if PyList_CheckExact(parameters):
            parameters = PyList_AsTuple(parameters)
        elif not PyTuple_CheckExact(parameters):
            return None
        return parameters if PyTuple_GET_SIZE(parameters) == count else None
    if not PyDict_CheckExact(parameters):
        return None
    values = PyTuple_New(count)
    for i in range(count):
        found = PyDict_GetItem(parameters, <object>PyTuple_GET_ITEM(names, i))
        if found == NULL:
            return None
        Py_INCREF(<object>found)
        PyTuple_SET_ITEM(values, i, <object>found)
    return values


cdef bytes merge(object operation, object parameters):
    """The text with its parameters as mogrify() gives it, or None if psycopg2 is to do it."""
    cdef Statement statement
    cdef Py_ssize_t i, used
    cdef bytes piece
    cdef tuple values
    if not PyUnicode_CheckExact(operation):
        return None
    statement = find_statement(operation)
    if statement is None:
        return None
    values = in_order(statement.names, statement.count, parameters)
    if values is None:
        return None
    piece = <bytes>PyTuple_GET_ITEM(statement.pieces, 0)
    used = add(0, PyBytes_AS_STRING(piece), PyBytes_GET_SIZE(piece))
    for i in range(statement.count):
        used = add_literal(used, <object>PyTuple_GET_ITEM(values, i))
        if used == 0 or used > MAX_MERGED:
            return None
        piece = <bytes>PyTuple_GET_ITEM(statement.pieces, i + 1)
        used = add(used, PyBytes_AS_STRING(piece), PyBytes_GET_SIZE(piece))
    return PyBytes_FromStringAndSize(_buffer, used)


cdef bint adapts(tuple key, PyObject *adapter) except -1:
    """Whether this adapter is the one in use."""
    return PyDict_GetItem(adapters, key) == adapter


cdef Py_ssize_t add_literal(Py_ssize_t used, object parameter) except -1:
    """Add a parameter's literal; 0 if it is none of the plain ones."""
    if parameter is None:
        return add(used, b"NULL", 4)
    if PyLong_CheckExact(parameter):
        return add_int(used, parameter) if adapts(int_key, int_adapter) else 0
    if PyUnicode_CheckExact(parameter):
        return add_str(used, parameter) if adapts(str_key, str_adapter) else 0
    if parameter is True or parameter is False:
        if not adapts(bool_key, bool_adapter):
            return 0
        return add(used, b"true", 4) if parameter is True else add(used, b"false", 5)
    if PyFloat_CheckExact(parameter) and isfinite(PyFloat_AS_DOUBLE(parameter)):
        return add_float(used, parameter) if adapts(float_key, float_adapter) else 0
    return 0


cdef Py_ssize_t add_int(Py_ssize_t used, object parameter) except -1:
    cdef char digits[24]
    cdef int overflow = 0
    cdef int start = 24
    cdef long long number = PyLong_AsLongLongAndOverflow(parameter, &overflow)
    cdef unsigned long long rest = number if number >= 0 else 0 - <unsigned long long>number
    if overflow:
        return 0
    while True:
        start -= 1
        digits[start] = <char>(c"0" + rest % 10)
        rest //= 10
        if rest == 0:
            break
    if number < 0:
        # the blank keeps "1 - -1" from being a comment
        start -= 2
        digits[start] = c" "
        digits[start + 1] = c"-"
    return add(used, digits + start, 24 - start)


cdef Py_ssize_t add_float(Py_ssize_t used, object parameter) except -1:
    cdef char *text = PyOS_double_to_string(
        PyFloat_AS_DOUBLE(parameter), c"r", 0, Py_DTSF_ADD_DOT_0, NULL)
    if text == NULL:
        raise MemoryError
    try:
        if text[0] == c"-":
            used = add(used, b" ", 1)
        return add(used, text, strlen(text))
    finally:
        PyMem_Free(text)


cdef Py_ssize_t add_str(Py_ssize_t used, object parameter) except -1:
    cdef Py_ssize_t i, size
    cdef const char *text
    cdef char *out
    cdef char c
    if not PyUnicode_IS_ASCII(parameter):
        return 0
    size = PyUnicode_GET_LENGTH(parameter)
    if size > MAX_TEXT:
        return 0
    text = PyUnicode_DATA(parameter)
    out = reserve(used, 2 * size + 2)
    out[0] = c"'"
    out += 1
    for i in range(size):
        c = text[i]
        if c == c"\\" or c == 0:
            return 0
        if c == c"'":
            out[0] = c
            out += 1
        out[0] = c
        out += 1
    out[0] = c"'"
    return out + 1 - _buffer


cdef class Unwritten:
    """The text that psycopg2 would have sent, to be written when somebody asks for it."""

    @staticmethod
    cdef Unwritten of(object impl, str operation, tuple names, tuple values, bint has_parameters):
        """impl: the psycopg2 cursor; names: of the values, None if they go by position.

        values: that don't change, but for lists.
        """
        cdef Unwritten self = Unwritten.__new__(Unwritten)
        cdef Py_ssize_t i
        cdef bint copied = False
        self.impl, self.operation, self.names, self.values = impl, operation, names, values
        self.has_parameters = has_parameters
        for i in range(PyTuple_GET_SIZE(values)):
            copied |= PyList_CheckExact(<object>PyTuple_GET_ITEM(values, i))
        if copied:
            self.values = tuple([value[:] if type(value) is list else value for value in values])
        return self

    cdef bytes write(self):
        cdef object parameters = None
        if self.has_parameters:
            parameters = self.values if self.names is None else dict(zip(self.names, self.values))
        text = None if parameters is None else merge(self.operation, parameters)
        if text is not None:
            return text
        try:
            return self.impl.mogrify(self.operation, parameters)
        except psycopg2.InterfaceError:         # its connection was closed meanwhile
            return self.written_alone()

    cdef bytes written_alone(self):
        """The same without a connection."""
        if not self.has_parameters:
            return self.operation.encode()
        literals = []
        for value in self.values:
            adapted = psycopg2.extensions.adapt(value)
            if hasattr(adapted, "encoding"):
                adapted.encoding = "utf8"
            literals.append(adapted.getquoted().decode())
        return (self.operation % (
            tuple(literals) if self.names is None else dict(zip(self.names, literals)))).encode()


def merged(operation, parameters):
    """merge(), for the tests that hold it against mogrify()."""
    return merge(operation, parameters)
