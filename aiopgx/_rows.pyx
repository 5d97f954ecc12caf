"""Result: a PGresult as rows, in the shape of the cursor's factory, with psycopg2's attributes."""

from cpython.list cimport PyList_New, PyList_SET_ITEM, PyList_SetSlice
from cpython.long cimport PyLong_AsLong
from cpython.dict cimport PyDict_Copy, PyDict_SetItem
from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF
from cpython.tuple cimport PyTuple_New
from libc.limits cimport INT_MAX, INT_MIN
from libc.stdlib cimport atol
from libc.string cimport memset, strlen

import re
from collections import OrderedDict, namedtuple
from contextlib import suppress
from functools import lru_cache
from operator import index as as_index

import psycopg2
import psycopg2.extensions
import psycopg2.extras

from ._binary cimport in_text
from ._columns cimport Columns
from ._errors cimport codec_of, decode, make_error
from ._libpq cimport PGRES_COMMAND_OK, PGresult, pq
from ._statements cimport Unwritten
from ._structs cimport (
    give_attributes,
    give_command,
    give_position,
    give_result,
    give_rowcount,
    is_closed,
    member_offset,
    new_reference,
    take_result,
)

cdef extern from "_frames.h":
    pass

cdef extern from *:
    """
    #define aiopgx_items(row) (((PyTupleObject *)(row))->ob_item)
    #define aiopgx_list_items(row) (((PyListObject *)(row))->ob_item)

    /* A row of a class that is list and one slot, which stays empty: filled with NULL, and not yet
       known to the collector. */
    typedef struct { PyListObject list; PyObject *slot; } aiopgx_dict_row;

    static PyObject *aiopgx_new_dict_row(PyTypeObject *cls, Py_ssize_t count) {
        PyObject **items = PyMem_Calloc(count ? count : 1, sizeof(PyObject *));
        aiopgx_dict_row *row;
        if (items == NULL) return PyErr_NoMemory();
        row = PyObject_GC_New(aiopgx_dict_row, cls);
        if (row == NULL) {
            PyMem_Free(items);
            return NULL;
        }
        row->list.ob_item = items;
        row->list.allocated = count;
        Py_SET_SIZE(&row->list, count);
        row->slot = NULL;
        return (PyObject *)row;
    }

    /* A row of a subclass of tuple, the same otherwise. */
    static PyObject *aiopgx_new_record(PyTypeObject *cls, Py_ssize_t count) {
        PyObject *row = cls->tp_alloc(cls, count);
        if (row == NULL) return NULL;
        PyObject_GC_UnTrack(row);
    #if PY_VERSION_HEX >= 0x030E0000
        ((PyTupleObject *)row)->ob_hash = -1;
    #endif
        return row;
    }

    /* A dict's keys are one block of memory, which PyDict_Copy() copies as it is: the values in it
       are where those of the original are. */
    #define aiopgx_dict_block(row) ((PyObject **)((PyDictObject *)(row))->ma_keys)
    #define aiopgx_is_combined(row) (((PyDictObject *)(row))->ma_values == NULL)

    /* In free-threaded builds the items of a list are kept in another way. */
    #ifdef Py_GIL_DISABLED
    #define aiopgx_lists_known 0
    #else
    #define aiopgx_lists_known 1
    #endif
    """
    ctypedef struct DictRowStruct "aiopgx_dict_row":
        PyObject *slot
    PyObject **aiopgx_items(object row)
    PyObject **aiopgx_list_items(object row)
    object aiopgx_new_dict_row(PyTypeObject *cls, Py_ssize_t count)
    object aiopgx_new_record(PyTypeObject *cls, Py_ssize_t count)
    bint aiopgx_lists_known
    PyObject **aiopgx_dict_block(object row)
    bint aiopgx_is_combined(object row)

cdef extern from "Python.h":
    PyObject *_PyType_Lookup(type, object)      # borrowed
    void PyObject_GC_Track(void *)
    int PyObject_GC_IsTracked(object)
    void PyObject_GC_UnTrack(void *)
    int PyODict_SetItem(object, object, object) except -1
    int PyObject_GenericSetAttr(object, object, object) except -1

cdef object Column = psycopg2.extensions.Column
cdef type DictRow = psycopg2.extras.DictRow
cdef object index_slot = vars(DictRow)["_index"]
cdef object RealDictRow = psycopg2.extras.RealDictRow
cdef tuple no_arguments = ()

cdef dict shapes = {
    psycopg2.extensions.cursor: SHAPE_TUPLE,
    psycopg2.extras.DictCursor: SHAPE_DICT_ROW,
    psycopg2.extras.RealDictCursor: SHAPE_REAL_DICT,
    psycopg2.extras.NamedTupleCursor: SHAPE_NAMED_TUPLE,
}


def shape_of(cursor_factory):
    """The shape of the rows of a cursor class, -1 if only psycopg2 can make them."""
    return shapes.get(cursor_factory, SHAPE_FOREIGN)


class Unready(Exception):
    """Rows can't be given yet: their statement is in flight, or what makes them is not known."""


@lru_cache(512)
def record_of(names):
    """The type of namedtuple_row's rows. Raises DataError as psycopg 3 does."""
    try:
        return namedtuple("Row", map(identifier, names))
    except ValueError as error:
        raise psycopg2.DataError(f"can't create a namedtuple row: {error}") from None


def identifier(name):
    """The name of an attribute for a column, as psycopg 3 has it."""
    name = re.sub(r"\W", "_", name)
    return name if name[:1].isidentifier() and name[0] != "_" else "f" + name


def take(impl):
    """The Result of what a psycopg2 cursor has just executed; leaves the cursor without it.

    The inverse of Result.hand_over(). Raises ProgrammingError if there are no rows.
    """
    raw, shape, query = impl.connection, shape_of(type(impl)), impl.query
    codec = codec_of(raw)
    return Result.make(take_result(impl), raw, codec, impl, shape, query)


def c_int(value):
    """A C int; raises psycopg2's errors about what is none."""
    cdef long number = PyLong_AsLong(as_index(value))
    if not INT_MIN <= number <= INT_MAX:
        raise OverflowError("signed integer is greater than maximum" if number > 0
                            else "signed integer is less than minimum")
    return number


def scroll_target(value, mode):
    """The first argument of scroll() as an int; raises psycopg2's errors about either of them."""
    target = c_int(value)
    if not isinstance(mode, str):
        kind = None if mode is None else type(mode).__name__
        raise TypeError(f"argument 2 must be str, not {kind}")
    if b"\0" in mode.encode():
        raise ValueError("embedded null character")
    return target


cdef bint dict_rows_are_shipped = (
    aiopgx_lists_known and DictRow.__bases__ == (list,)
    and DictRow.__basicsize__ == sizeof(DictRowStruct)
    and member_offset(index_slot) == sizeof(DictRowStruct) - sizeof(PyObject *))


cdef bint dict_rows_are_known():
    """Whether rows are lists with one slot, as psycopg2 ships them: not patched since."""
    return (dict_rows_are_shipped and (<PyTypeObject *>DictRow).tp_new == (<PyTypeObject *>list).tp_new
            and _PyType_Lookup(DictRow, "_index") == <PyObject *>index_slot)


# Rows from which on it pays to look where the values of dict rows are; columns up to which it does.
cdef enum:
    SOME = 8
    MOST_PLACES = 64


cdef Places places_in(dict blank, tuple names) except *:
    """Where the values of a dict, all None, are in its memory: found by looking, else not known."""
    cdef Places places = Places(0, 0)
    cdef Py_ssize_t i, step, count = len(names)
    cdef dict row = PyDict_Copy(blank)
    # in pointers; what sizeof tells besides the block is behind its end
    cdef Py_ssize_t size = (row.__sizeof__() - dict.__basicsize__) // <Py_ssize_t>sizeof(PyObject *)
    cdef PyObject **block = aiopgx_dict_block(row)
    if not aiopgx_lists_known or not aiopgx_is_combined(row):
        return places
    if not 1 < count == len(blank) <= MOST_PLACES or blank.__sizeof__() != row.__sizeof__():
        return places
    for step in range(2, 4):
        for i in range(1, size - (count - 1) * step):
            if is_place(block + i, step, names):
                places.first, places.step = i, step
                return places
    return places


cdef bint is_place(PyObject **slot, Py_ssize_t step, tuple names) noexcept:
    cdef Py_ssize_t i
    for i in range(len(names)):
        if slot[0] != <PyObject *>None or slot[-1] != <PyObject *>names[i]:
            return False
        slot += step
    return True


cdef class Result:
    """What a statement gave: rows to fetch and psycopg2's attributes of a cursor.

    Made by the Wire. A cursor has one position in its result: after hand_over() it is that of the
    psycopg2 cursor, and everything here asks there.
    """

    def __dealloc__(self):
        if self.res != NULL:
            pq.clear(self.res)

    @staticmethod
    cdef Result make(PGresult *res, object raw, object codec, object impl, int shape, object query):
        """Take over a result with rows, or of status COMMAND_OK, also if this raises."""
        cdef Result self
        cdef const char *affected
        try:
            self = Result.__new__(Result)
        except BaseException:
            pq.clear(res)
            raise
        self.res = res
        self.raw = raw
        self.codec = codec
        self.impl = impl
        self.shape = shape
        self.sent = query
        if pq.resultStatus(res) != PGRES_COMMAND_OK:
            self.rows = pq.ntuples(res)
            self.count = self.rows
            self.columns = Columns.of(res, raw, codec, impl)
        else:
            affected = pq.cmdTuples(res)
            self.count = atol(affected) if affected != NULL and affected[0] else -1
        return self

    cdef int feed(self, PGresult *res) except -1:
        """Go on with the next rows of the same statement; those before are given."""
        self.columns.forget()
        pq.clear(self.res)
        self.res = res
        self.rows = pq.ntuples(res)
        self.position = 0
        self.exhausted = False
        return 0

    # Fetching

    def fetchone(self):
        """The next row, None after the last."""
        return self.next_row()

    def fetchmany(self, size=None):
        """A list of the next rows: at most `size`, all if it is negative, arraysize if None."""
        cdef long limit = PyLong_AsLong(self.impl.arraysize if size is None else size)
        if self.handed_over:
            return self.impl.fetchmany(limit)
        return self.take(limit)

    def fetchall(self):
        """A list of the rows that are left."""
        if self.handed_over:
            return self.impl.fetchall()
        return self.take(-1)

    def scroll(self, value, mode="relative"):
        """Move by `value` rows, or to row `value` if mode is "absolute".

        Raises ProgrammingError for another mode and outside the result, which isn't moved then.
        """
        cdef long target
        if self.handed_over:
            self.impl.scroll(value, mode)
            return
        target = scroll_target(value, mode)
        self.check()
        if mode == "relative":
            target += self.position
        elif mode != "absolute":
            raise make_error(psycopg2.ProgrammingError,
                             "scroll mode must be 'relative' or 'absolute'", self.impl)
        if not 0 <= target < self.count:
            raise make_error(psycopg2.ProgrammingError,
                             "scroll destination out of bounds", self.impl)
        self.position = target
        self.exhausted = False

    cdef object next_row(self):
        """The next row, None after the last."""
        cdef int shape
        cdef long start = self.position
        cdef bint done = False
        if self.handed_over:
            return self.impl.fetchone()
        self.fetching += 1
        try:
            self.begin()
            if self.position >= self.rows:
                self.exhausted = done = True
                return None
            shape = self.settled_shape()
            row = self.row(shape)
            if shape != self.shape:
                self.raise_impossible()
            done = True
            return row
        finally:
            self.fetching -= 1
            if not done:
                self.stay(start)

    cdef list take(self, long limit):
        """At most `limit` rows, all that are left if it is negative."""
        cdef Py_ssize_t i, size
        cdef long start = self.position
        cdef int shape
        cdef list rows
        cdef bint done = False
        self.fetching += 1
        try:
            self.begin()
            shape = self.settled_shape()
            start = self.position           # a collection may move it
            size = max(self.rows - start, 0)
            if 0 <= limit < size:
                size = limit
            rows = PyList_New(size)
            PyObject_GC_UnTrack(<void *>rows)   # a caster could find it, half empty
            if shape == SHAPE_TUPLE and self.columns.native:
                self.columns.decode_tuples(self.res, start, &self.position, rows)
            else:
                for i in range(size):
                    row = self.row(shape)
                    Py_INCREF(row)
                    PyList_SET_ITEM(rows, i, row)
            PyObject_GC_Track(<void *>rows)
            if shape != self.shape:
                self.raise_impossible()
            done = True
            return rows
        finally:
            self.fetching -= 1
            if not done:
                self.stay(start)

    cdef void stay(self, long start) noexcept:
        """A fetch has failed: row factories make its rows again, as psycopg 3's; casters do not."""
        if self.shape >= SHAPE_DICT and not self.handed_over:
            self.position = start

    def reshape(self, int shape):
        """Give rows of another shape from now on."""
        if self.fetching:
            raise RuntimeError("the result is being fetched")
        self.shape = shape
        self.maker = self.record = self.index = None

    cdef int check(self) except -1:
        if not self.outlives and is_closed(self.impl):
            raise psycopg2.InterfaceError("cursor already closed")
        return 0

    cdef int begin(self) except -1:
        self.check()
        if self.columns is None:
            # psycopg2 looks for a result, finds none and forgets what it knew
            self.count = -1
            self.position = 0
            raise psycopg2.ProgrammingError("no results to fetch")
        self.columns.prepare()
        self.quick = self.shape == SHAPE_DICT_ROW and dict_rows_are_known()
        if self.shape >= SHAPE_DICT:
            self.settle_factory()
        if not self.columns.native and not self.introduced:
            give_attributes(self.impl, self.fields())
            self.introduced = True
        return 0

    cdef object row(self, int shape):
        """The row at the position, which moves on even if this raises."""
        cdef int number = <int>self.position
        if number >= self.rows:
            raise psycopg2.ProgrammingError("a typecaster moved the cursor that it works for")
        self.position = number + 1
        if self.introduced:
            give_position(self.impl, number)
        if shape >= SHAPE_DICT:
            return self.factory_row(shape, number)
        if shape == SHAPE_DICT_ROW:
            return self.dict_row(number)
        if shape == SHAPE_REAL_DICT:
            return self.real_dict_row(number)
        if shape == SHAPE_NAMED_TUPLE:
            return self.named_tuple(number)
        values = self.values(number)
        if self.columns.atomic:
            PyObject_GC_UnTrack(<void *>values)
        return values

    cdef tuple values(self, int number):
        cdef tuple values = PyTuple_New(self.columns.count)
        self.columns.decode_row(self.res, number, aiopgx_items(values))
        return values

    cdef object dict_row(self, int number):
        if self.quick:
            row = aiopgx_new_dict_row(<PyTypeObject *>DictRow, self.columns.count)
            self.columns.decode_row(self.res, number, aiopgx_list_items(row))
        else:
            values = self.values(number)
            row = (<PyTypeObject *>DictRow).tp_new(DictRow, <PyObject *>no_arguments, NULL)
            PyList_SetSlice(row, 0, 0, values)
        if self.index is None:
            self.index = OrderedDict((name, i) for i, name in enumerate(self.names()))
        if self.quick:
            (<DictRowStruct *>row).slot = new_reference(self.index)
            PyObject_GC_Track(<void *>row)
        else:
            PyObject_GenericSetAttr(row, "_index", self.index)
        return row

    cdef object real_dict_row(self, int number):
        cdef tuple values = self.values(number), names = self.names()
        cdef Py_ssize_t i
        row = (<PyTypeObject *>RealDictRow).tp_new(RealDictRow, <PyObject *>no_arguments, NULL)
        for i in range(len(names)):
            PyODict_SetItem(row, names[i], values[i])
        if not names:
            # psycopg2 never gets to the last column, where it would remove its own entry
            PyODict_SetItem(row, RealDictRow, [])
        return row

    cdef object named_tuple(self, int number):
        row = aiopgx_new_record(<PyTypeObject *>self.record, self.columns.count)
        self.columns.decode_row(self.res, number, aiopgx_items(row))
        PyObject_GC_Track(<void *>row)
        return row

    cdef int settle_factory(self) except -1:
        """Know what makes the rows. Raises Unready if somebody has to say so."""
        if self.shape == SHAPE_DICT:
            if self.blank is None:
                self.blank = dict.fromkeys(self.names())
                if self.rows >= SOME:
                    self.places = places_in(self.blank, self.names())
        elif self.shape == SHAPE_RECORD:
            if self.record is None:
                self.record = record_of(self.names())
        elif self.shape == SHAPE_SCALAR:
            if self.columns.count == 0:
                raise psycopg2.ProgrammingError("at least one column expected")
        elif self.maker is None:
            raise Unready
        return 0

    cdef object factory_row(self, int shape, int number):
        cdef tuple values, names
        cdef dict row
        cdef Py_ssize_t i
        if shape == SHAPE_RECORD:
            return self.named_tuple(number)
        if shape == SHAPE_DICT and self.places.first:
            return self.plain_dict(number)
        values = self.values(number)
        if shape == SHAPE_SCALAR:
            return values[0]
        if shape == SHAPE_MADE:
            return self.maker(values)
        names = self.column_names
        row = PyDict_Copy(self.blank)
        for i in range(self.columns.count):
            PyDict_SetItem(row, names[i], values[i])
        return row

    cdef dict plain_dict(self, int number):
        """A dict row, its values put where the `None`s of the blank one are."""
        cdef PyObject *values[MOST_PLACES]
        cdef Py_ssize_t i, count = self.columns.count
        cdef PyObject **slot
        cdef dict row
        memset(values, 0, count * sizeof(PyObject *))
        try:
            self.columns.decode_row(self.res, number, values)
            row = PyDict_Copy(self.blank)
        except BaseException:
            for i in range(count):
                Py_XDECREF(values[i])
            raise
        slot = aiopgx_dict_block(row) + self.places.first
        for i in range(count):
            Py_DECREF(<object>slot[0])
            slot[0] = values[i]
            slot += self.places.step
        if not self.columns.atomic and not PyObject_GC_IsTracked(row):
            PyObject_GC_Track(<void *>row)
        return row

    cdef int settled_shape(self) except -2:
        """The shape of the rows to make now.

        The namedtuple type may be impossible (two columns of one name). psycopg2 finds that after
        it has fetched, so plain tuples are made first, and then raise_impossible() does.
        """
        if self.shape != SHAPE_NAMED_TUPLE or self.record is not None:
            return self.shape
        try:
            self.record_type()
        except Exception as error:
            self.impossible = error
            return SHAPE_TUPLE
        return SHAPE_NAMED_TUPLE

    cdef int raise_impossible(self) except -1:
        error = self.impossible
        if self.fetching == 1:          # else a typecaster is told, and who waits for it, too
            self.impossible = None
        raise error

    cdef object record_type(self):
        if self.record is None:
            # on the cursor, as psycopg2 does: programs replace it
            record = self.impl._cached_make_nt(self.names())
            if not issubclass(record, tuple) or len(record._fields) != self.columns.count:
                raise TypeError(f"{record!r} is not a namedtuple of {self.columns.count} fields")
            self.record = record
        return self.record

    # Attributes

    @property
    def description(self):
        """A tuple of psycopg2.extensions.Column; None if the statement gives no rows."""
        cdef int i
        if self.handed_over:
            return self.impl.description
        if self.columns_seen is None and self.columns is not None:
            names = self.names()
            self.columns_seen = tuple(
                [column_of(self.res, i, names[i]) for i in range(len(names))])
        return self.columns_seen

    @property
    def returns_rows(self):
        """Whether `description` is not None."""
        if self.handed_over:
            return self.impl.description is not None
        return self.columns is not None

    @property
    def rowcount(self):
        """The number of rows given or changed, -1 if unknown."""
        return self.impl.rowcount if self.handed_over else self.count

    @property
    def rownumber(self):
        """The index of the row that is fetched next."""
        return self.impl.rownumber if self.handed_over else self.position

    @property
    def lastrowid(self):
        """The OID of the row that an INSERT made, 0 if there is none."""
        if self.handed_over:
            return self.impl.lastrowid
        return pq.oidValue(self.res) if self.columns is None else 0

    @property
    def statusmessage(self):
        """The command tag, such as "UPDATE 3"."""
        if self.handed_over:
            return self.impl.statusmessage
        return decode(self.codec, pq.cmdStatus(self.res))

    @property
    def query(self):
        """The statement as it was sent, bytes."""
        return self.impl.query if self.handed_over else self.text()

    cdef object text(self):
        if type(self.sent) is Unwritten:
            self.sent = (<Unwritten>self.sent).write()
        return self.sent

    cdef tuple names(self):
        cdef int i
        cdef PGresult *res = self.res       # maybe another's before this ends, but alive
        if self.column_names is None:
            names = []
            for i in range(<int>self.columns.count):
                names.append(decode(self.codec, pq.fname(res, i)))
            self.column_names = tuple(names)
        return self.column_names

    # Handing over

    def hand_over(self, impl):
        """Give everything to a psycopg2 cursor, as if psycopg2 had executed the statement.

        Raises NotSupportedError, and keeps everything, if this psycopg2's cursors can't be filled,
        and RuntimeError during a fetch.
        """
        if self.handed_over:
            return
        if self.fetching:
            raise RuntimeError("the result is being fetched")
        self.fetching += 1
        try:
            give_to_factory(impl, shape_of(type(impl)))
            fields = self.fields()
            if self.columns is None:
                give_result(impl, NULL, fields, ())
                pq.clear(self.res)
            else:
                self.give_rows(impl, fields)
            self.res = NULL
            self.columns = None
            self.impl = impl
            self.handed_over = True
        finally:
            self.fetching -= 1

    cdef int give_rows(self, impl, tuple fields) except -1:
        cdef PGresult *res = self.res
        if self.columns.binary:
            res = in_text(self.res)         # psycopg2 takes every value for a text
        try:
            give_result(impl, res, fields, self.columns.casters)
        except BaseException:
            if res != self.res:
                pq.clear(res)
            raise
        if res != self.res:
            pq.clear(self.res)
        return 0

    cdef tuple fields(self):
        return (self.count, self.position, self.lastrowid, self.description, self.statusmessage,
                self.text())


def set_rowcount(impl, long rowcount):
    """Set `rowcount` of a psycopg2 cursor, if its inside is known."""
    with suppress(psycopg2.NotSupportedError):
        give_rowcount(impl, rowcount)


def set_total(impl, last, long rowcount):
    """Leave a psycopg2 cursor as executemany() does: the sum, else what the last execution left."""
    with suppress(psycopg2.NotSupportedError):
        give_command(impl, (rowcount, 0, last.lastrowid, None, last.statusmessage, last.query))


cdef int give_to_factory(impl, int shape) except -1:
    """What execute() of psycopg2.extras' cursors does besides executing."""
    if shape == SHAPE_DICT_ROW:
        impl.index = OrderedDict()
        impl._query_executed = True
    elif shape == SHAPE_REAL_DICT:
        impl.column_mapping = []
        impl._query_executed = True
    elif shape == SHAPE_NAMED_TUPLE:
        impl.Record = None
    return 0


cdef object column_of(PGresult *res, int i, name):
    """A column's description, with psycopg2's reading of the type modifier."""
    cdef unsigned int oid = pq.ftype(res, i), table = pq.ftable(res, i)
    cdef int size = pq.fsize(res, i), modifier = pq.fmod(res, i), number = pq.ftablecol(res, i)
    precision = scale = None
    if modifier > 0:
        modifier -= <int>sizeof(int)
    if oid == NUMERICOID:
        precision = (modifier >> 16) & 0xffff
        scale = modifier & 0xffff
    if size == -1:
        size = modifier >> 16 if oid == NUMERICOID else modifier
    return Column(name, oid, None, size, precision, scale, None,
                  table or None, number if number > 0 else None)


cdef enum:
    NUMERICOID = 1700
