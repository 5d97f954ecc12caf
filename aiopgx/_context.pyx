"""The engine of `_ContextManager`: one is made for every checkout and for every cursor."""

import asyncio
import types

cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF

cdef extern from "_frames.h":
    pass

cdef extern from "Python.h":
    ctypedef enum PySendResult:
        PYGEN_RETURN
        PYGEN_ERROR
        PYGEN_NEXT
    PySendResult PyIter_Send(object iterator, object value, PyObject **result) except PYGEN_ERROR

cdef object Coroutine = types.CoroutineType
cdef object Future = asyncio.Future


cdef class ContextCore:
    # The first lines, at the margin, are where `inspect` finds a signature.
    """ContextCore(coro, release, release_on_exception=None)
--

Await `coro` for an object; `__aexit__` gives it to `release`.
"""
    # To enter is left to Python: its own coroutines are the fastest there.

    cdef public object _coro
    cdef public object _obj
    cdef public object _release
    cdef public object _release_on_exception

    def __init__(self, coro, release, release_on_exception=None):
        self._coro = coro
        self._release = release
        self._release_on_exception = release if release_on_exception is None else release_on_exception

    @classmethod
    def __class_getitem__(cls, item):
        return cls  # a generic alias in its place would triple the price of an instance

    cdef object stepper(self):
        """What can be sent to: the coroutine, or the iterator of what is only awaitable."""
        if type(self._coro) is not Coroutine and not hasattr(self._coro, "send"):
            self._coro = self._coro.__await__()
        return self._coro

    def send(self, value):
        return self.stepper().send(value)

    def throw(self, typ, val=None, tb=None):
        return self.stepper().throw(one_exception(typ, val, tb))

    def close(self):
        self.stepper().close()

    def __await__(self):
        return self._coro.__await__()

    def __aexit__(self, exc_type, exc, tb):
        obj = self._obj
        if obj is None:
            return DONE
        self._obj = None
        awaitable = (self._release if exc_type is None else self._release_on_exception)(obj)
        if type(awaitable) is Future and awaitable.done() and awaitable.exception() is None:
            return DONE
        if type(awaitable) is not Coroutine:
            awaitable = awaitable.__await__()
        return Released.__new__(Released, awaitable)


@cython.final
@cython.freelist(16)
cdef class Released:
    """Awaits what a release returned, and drops its result, which could hide an exception."""

    cdef object iterator

    def __cinit__(self, iterator):
        self.iterator = iterator

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        cdef PyObject *result = NULL
        if self.iterator is None:
            raise StopIteration
        # A coroutine has no __next__ to call, but this drives it as it drives iterators.
        status = PyIter_Send(self.iterator, None, &result)
        value = <object>result
        Py_DECREF(value)  # the reference was ours
        if status == PYGEN_NEXT:
            return value
        raise StopIteration

    def send(self, value):
        return self.resume(self.iterator.send, value)

    def throw(self, typ, val=None, tb=None):
        return self.resume(self.iterator.throw, one_exception(typ, val, tb))

    def close(self):
        if self.iterator is not None:
            self.iterator.close()

    cdef object resume(self, method, argument):
        try:
            return method(argument)
        except StopIteration:
            pass
        raise StopIteration


cdef object DONE = Released.__new__(Released, None)


cdef object one_exception(typ, val, tb):
    """The exception that the three arguments of `throw` mean."""
    if isinstance(val, BaseException):
        typ = val
    elif val is not None:
        typ = typ(val)
    if tb is None:
        return typ
    return (typ() if isinstance(typ, type) else typ).with_traceback(tb)
