"""The engine of `aiopgx.sa`'s RowProxy: one is made for each row, and read key by key.

Making 1000 of them in Python takes as long as fetching the 1000 rows.
"""

from cpython.object cimport PyObject, PyTypeObject
from cpython.dict cimport PyDict_GetItemWithError

cdef extern from "_frames.h":
    pass


cdef tuple NOTHING = ()


cdef class RowCore:
    # The first lines, at the margin, are where `inspect` finds a signature.
    """RowCore(result_proxy, row, processors=None, keymap=None)
--

The values of `row`, by the keys of `result_proxy`, a ResultMetaData.
"""

    cdef public object _result_proxy
    cdef public object _row
    cdef public dict _keymap        # key -> (processor, index); no index if the key is ambiguous

    def __init__(self, result_proxy, row, processors=None, keymap=None):
        self._result_proxy = result_proxy
        self._row = row
        self._keymap = result_proxy._keymap if keymap is None else keymap

    def __len__(self):
        return len(self._row)

    def __getitem__(self, key):
        cdef dict keymap = self._keymap
        if keymap is None:
            raise TypeError("this RowProxy was made without a call of its __init__()")
        cdef PyObject *found = PyDict_GetItemWithError(keymap, key)
        processor, index = self._result_proxy._key_fallback(key) if found is NULL else <object>found
        if index is None:
            self._result_proxy._ambiguous(key)
        value = self._row[index]
        return value if processor is None else processor(value)

    def _attribute(self, name):
        """The value of a column as an attribute."""
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(error.args[0]) from error


def proxies(cls, result_proxy, rows):
    """A list of `cls(result_proxy, row)` for each row; cls adds nothing to RowCore's constructor."""
    cdef PyTypeObject *type_ = <PyTypeObject *>cls
    cdef RowCore proxy
    cdef dict keymap = result_proxy._keymap
    made = []
    for row in rows:
        proxy = type_.tp_new(cls, <PyObject *>NOTHING, NULL)
        proxy._result_proxy = result_proxy
        proxy._row = row
        proxy._keymap = keymap
        made.append(proxy)
    return made
