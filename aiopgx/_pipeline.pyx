"""Statements of `conn.pipeline()`: queued, to go out with others."""

from cpython.bytes cimport PyBytes_GET_SIZE

from ._core cimport Wire, check_timeout
from ._eligibility cimport Text, read_text
from ._libpq cimport pq
from ._plans cimport Plans, text_of
from ._requests cimport Statement, written
from ._structs cimport is_closed

cdef extern from "_frames.h":
    pass

# Bytes of a text, up to which it is looked at.
cdef enum:
    LONG = 20000

# By their first words, statements that do the same in either protocol: COPY does not, and some may
# not be executed in a pipeline.
cdef frozenset KINDS = frozenset([
    "SELECT", "WITH", "VALUES", "TABLE", "INSERT", "UPDATE", "DELETE", "MERGE",
    "BEGIN", "START", "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE",
])


def enqueue(Wire wire, impl, int shape, operation, parameters, timeout):
    """Queue one statement on the native road; the future gets [its Result]. After refusal()."""
    cdef Statement request
    check_timeout(timeout)
    if is_closed(impl) or wire.is_closed():
        raise wire.closed_error("cursor already closed")
    query, plain = written(wire, impl, operation, parameters)
    if wire.plans is not None:
        (<Plans>wire.plans).heed(operation, parameters is not None)
    if is_closed(impl) or wire.is_closed():         # an adapter may have done that
        raise wire.closed_error("cursor already closed")
    request = Statement.__new__(Statement)
    request.impl, request.query, request.shape = impl, query, shape
    request.extended = pq.enterPipelineMode != NULL and wire.plain \
        and travels(operation, parameters, query, plain)
    return wire.put_soon(request, timeout)


cdef bint travels(operation, parameters, bytes query, bint plain) except -1:
    """Whether the text with its parameters does the same in the extended protocol."""
    cdef Text text
    if type(operation) is not str or PyBytes_GET_SIZE(query) > LONG:
        return False
    if plain:
        text = text_of(operation, bool(parameters))
    else:                           # adapters may have written anything
        text = read_text(query.decode(), False)
    return text.single and text.kind in KINDS
