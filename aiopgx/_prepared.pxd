"""Statements that others share a connection with."""

from ._core cimport Wire
from ._plans cimport Plans
from ._requests cimport Statement

cdef int look_after(Wire wire, Plans plans) except -1
cdef Statement shared_statement(Wire wire, object impl, int shape, str operation, object parameters)
