"""Casters: which decoder makes the values that a psycopg2 typecaster would make.

The typecaster of a type is looked up as psycopg2 does it, at each execution. For one that psycopg2
ships there is a native decoder; any other is called as psycopg2 calls it.
"""

from cpython.dict cimport PyDict_Check, PyDict_GetItem
from cpython.list cimport PyList_Append
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.method cimport PyMethod_Check, PyMethod_GET_FUNCTION, PyMethod_GET_SELF
from cpython.object cimport PyObject
from cpython.ref cimport Py_XDECREF

import json
import uuid
from collections import namedtuple

import psycopg2._json
import psycopg2._psycopg
import psycopg2._range
import psycopg2.extras

from ._codecs cimport (
    Column,
    Decoder,
    decode_bool,
    decode_bytea,
    decode_bytes,
    decode_date,
    decode_float,
    decode_int,
    decode_interval,
    decode_json,
    decode_numeric,
    decode_text,
    decode_time,
    decode_timestamp,
    decode_uuid,
)
from ._containers cimport (
    decode_array,
    decode_composite,
    decode_hstore,
    decode_range,
    ranges_known,
)
from ._structs cimport CasterStruct, caster_struct, casters_known

cdef extern from "_frames.h":
    pass

cdef extern from "Python.h":
    bint PyFunction_Check(object)
    PyObject *PyFunction_GetCode(object)        # borrowed
    PyObject *PyFunction_GetClosure(object)     # borrowed
    PyObject *_PyType_Lookup(type, object)      # borrowed

# Composites within composites and so on, after which psycopg2's caster is asked.
cdef enum:
    MAX_DEPTH = 8

cdef object loads = json.loads
cdef object UUID = uuid.UUID
cdef dict string_types = psycopg2._psycopg.string_types
cdef object default_caster = psycopg2._psycopg.UNICODE  # psycopg2's own has no name in Python


# --- look-up -------------------------------------------------------------------------------------


cdef object find_caster(unsigned int oid, Registry *types):
    cdef object key = oid
    cdef PyObject *caster = NULL        # borrowed from the dict
    if PyDict_Check(<object>types.of_cursor):
        caster = PyDict_GetItem(<object>types.of_cursor, key)
    if caster == NULL:
        caster = PyDict_GetItem(<object>types.of_connection, key)
    if caster == NULL:
        caster = PyDict_GetItem(string_types, key)
    return <object>caster if caster != NULL else default_caster


cdef int choose_decoder(Column *column, object caster, Registry *types, int depth=0) except -1:
    """Set the column's decoders; leaves NULL what psycopg2's caster is to do."""
    cdef CasterStruct *fields = caster_struct(caster)
    if fields == NULL:
        return 0
    if fields.ccast == array_ccast and fields.bcast != NULL:
        column.element = one_decoder(column, <object>fields.bcast, types, depth)
        if column.element != NULL:
            column.decode = decode_array
    else:
        column.decode = one_decoder(column, caster, types, depth)
        column.shared = is_atomic(column.decode) and column.decode != decode_bool
    return 0


cdef Decoder one_decoder(Column *column, object caster, Registry *types, int depth) except? NULL:
    """The decoder for a caster that is no array's, or NULL."""
    cdef Decoder decode = scalar_decoder(caster)
    cdef CasterStruct *fields = caster_struct(caster)
    if decode == decode_text:
        return column.context.text
    if decode == NULL and fields != NULL and fields.pcast != NULL and depth < MAX_DEPTH:
        return parser_decoder(column, <object>fields.pcast, types, depth)
    return decode


# --- casters written in C ------------------------------------------------------------------------


cdef struct Known:
    void *ccast
    Decoder decode

cdef Known known[16]
cdef int known_count = 0
cdef void *array_ccast = NULL


cdef int know(str name, Decoder decode) except -1:
    """Connect the C function of one of psycopg2's casters with a decoder."""
    global known_count
    cdef CasterStruct *caster = caster_struct(getattr(psycopg2._psycopg, name))
    if caster != NULL and caster.ccast != NULL:
        known[known_count] = Known(caster.ccast, decode)
        known_count += 1
    return 0


know("LONGINTEGER", decode_int)
know("UNICODE", decode_text)
know("BOOLEAN", decode_bool)
know("PYDATETIMETZ", decode_timestamp)
know("PYDATETIME", decode_timestamp)
know("PYDATE", decode_date)
know("DECIMAL", decode_numeric)
know("FLOAT", decode_float)
know("PYTIME", decode_time)
know("PYINTERVAL", decode_interval)
know("BINARY", decode_bytea)
know("BYTES", decode_bytes)
know("UNKNOWN", decode_text)
if casters_known:
    array_ccast = caster_struct(psycopg2._psycopg.INTEGERARRAY).ccast


cdef Decoder scalar_decoder(object caster) except? NULL:
    """The decoder for a caster, NULL if it is none of psycopg2's own or an array's."""
    cdef CasterStruct *fields = caster_struct(caster)
    cdef int i
    if fields == NULL:
        return NULL
    if fields.ccast != NULL:
        for i in range(known_count):
            if known[i].ccast == fields.ccast:
                return known[i].decode
    elif fields.pcast != NULL:
        if closes_over(<object>fields.pcast, json_code, loads):
            return decode_json
        if closes_over(<object>fields.pcast, uuid_code, uuid) and uuid.UUID is UUID:
            return decode_uuid
    return NULL


# --- casters written in Python: json, uuid -------------------------------------------------------


def inner_code(function, name):
    """The code of a function defined inside another one."""
    for constant in function.__code__.co_consts:
        if getattr(constant, "co_name", None) == name:
            return constant
    return None


cdef object json_code = inner_code(psycopg2._json._create_json_typecasters, "typecast_json")
cdef object uuid_code = inner_code(psycopg2.extras.register_uuid, "<lambda>")


cdef bint closes_over(object function, object code, object value) except -1:
    """Whether a caster's function is the one with this code, over this value and nothing else.

    register_default_json() and register_uuid() make new ones at each call.
    """
    cdef PyObject *closure
    if not PyFunction_Check(function) or PyFunction_GetCode(function) != <PyObject *>code:
        return False
    closure = PyFunction_GetClosure(function)
    return closure != NULL and len(<object>closure) == 1 \
        and (<object>closure)[0].cell_contents is value


# --- casters written in Python: hstore, ranges, composites ---------------------------------------


cdef dict originals(cls, names):
    return {name: vars(cls)[name] for name in names}


cdef object RangeCaster = psycopg2._range.RangeCaster
cdef object CompositeCaster = psycopg2.extras.CompositeCaster
cdef object HstoreAdapter = psycopg2.extras.HstoreAdapter
cdef object hstore_parse = vars(HstoreAdapter)["parse"].__func__
cdef dict of_range = originals(psycopg2._range.Range, ["__init__", "_lower", "_upper", "_bounds"])
cdef dict of_range_caster = originals(RangeCaster, ["parse", "_re_range", "_re_undouble"])
cdef dict of_composite_caster = originals(
    CompositeCaster, ["parse", "make", "tokenize", "_re_tokenize", "_re_undouble"])
of_range.update(__new__=object.__new__, __setattr__=object.__setattr__)
# one code for the _make() of all namedtuples
cdef PyObject *make_code = PyFunction_GetCode(namedtuple("anything", "")._make.__func__)


cdef bint inherits(type cls, dict originals) except -1:
    """Whether a class has these attributes, and not its own ones of their names."""
    for name, original in originals.items():
        if _PyType_Lookup(cls, name) != <PyObject *>original:
            return False
    return True


cdef tuple recipe_of(object caster):
    """What makes the values of a RangeCaster or CompositeCaster, and the OIDs of their parts.

    None for a caster with anything of the program's in it: no code of the program runs while
    values are decoded, nor here.
    """
    maker, oids = None, ()
    if type(caster) is RangeCaster:
        fields = caster.__dict__
        maker, oids = fields.get("range"), (fields.get("subtype_oid"),)
        if not (ranges_known and is_as_shipped(RangeCaster, fields, of_range_caster)
                and type(maker) is type and inherits(maker, of_range)):
            return None
    elif type(caster) is CompositeCaster:
        fields = caster.__dict__
        maker, oids = fields.get("_ctor"), fields.get("atttypes")
        if not (is_as_shipped(CompositeCaster, fields, of_composite_caster)
                and makes_namedtuples(maker) and type(oids) is list):
            return None
    for oid in oids:
        if type(oid) is not int or not 0 <= oid <= 0xffffffff:
            return None
    return (maker, *oids) if oids else None


cdef bint is_as_shipped(type cls, dict fields, dict originals) except -1:
    return inherits(cls, originals) and originals.keys().isdisjoint(fields)


cdef bint makes_namedtuples(object maker) except -1:
    if not PyMethod_Check(maker):
        return False
    function = <object>PyMethod_GET_FUNCTION(maker)
    return (PyFunction_Check(function) and PyFunction_GetCode(function) == make_code
            and (<object>PyMethod_GET_SELF(maker)).__mro__[1:] == (tuple, object))


cdef Decoder parser_decoder(Column *column, object method, Registry *types, int depth) except? NULL:
    """The decoder for a parse() of psycopg2's casters that are written in Python, or NULL."""
    if not PyMethod_Check(method):
        return NULL
    function = <object>PyMethod_GET_FUNCTION(method)
    owner = <object>PyMethod_GET_SELF(method)
    if function is hstore_parse:
        if owner is HstoreAdapter:
            return decode_hstore
    elif function is of_range_caster["parse"]:
        if set_parts(column, owner, types, depth):
            return decode_range
    elif function is of_composite_caster["parse"]:
        if set_parts(column, owner, types, depth):
            return decode_composite
    return NULL


cdef bint set_parts(Column *column, object owner, Registry *types, int depth) except -1:
    """Look up what the parts are cast with; False if psycopg2 is to do it all."""
    cdef Column *part
    cdef Py_ssize_t i
    cdef tuple recipe = recipe_of(owner)
    if recipe is None:
        return False
    column.part_count = len(recipe) - 1
    column.parts = <Column *>PyMem_Calloc(column.part_count, sizeof(Column))
    if column.parts == NULL:
        column.part_count = 0
        raise MemoryError
    column.owner = <PyObject *>owner
    column.recipe = keep(column, recipe)
    column.maker = <PyObject *>recipe[0]
    for i in range(column.part_count):
        part = &column.parts[i]
        part.context = column.context
        part.oid = recipe[i + 1]
        caster = find_caster(part.oid, types)
        part.caster = keep(column, caster)
        choose_decoder(part, caster, types, depth + 1)
        if part.decode == NULL:
            return False
    return True


cdef PyObject *keep(Column *column, object value) except NULL:
    PyList_Append(<object>column.context.kept, value)
    return <PyObject *>value


# --- what a column is like -----------------------------------------------------------------------


cdef bint is_atomic(Decoder decode) noexcept:
    """Whether values can't be changed and hold no others."""
    return not (decode == NULL or decode == decode_bytea or decode == decode_json
                or decode == decode_array or decode == decode_range
                or decode == decode_composite or decode == decode_hstore)


cdef bint has_clock(Decoder decode) noexcept:
    return decode == decode_timestamp or decode == decode_time


cdef bint tells_time(Column *column) noexcept:
    """Whether values depend on the cursor's tzinfo_factory."""
    cdef Py_ssize_t i
    for i in range(column.part_count):
        if tells_time(&column.parts[i]):
            return True
    return has_clock(column.decode) or has_clock(column.element)


cdef bint is_outdated(Column *column, Registry *types) except -1:
    """Whether psycopg2, which looks the casters of parts up at each value, would find others."""
    cdef Py_ssize_t i
    if column.recipe != NULL and recipe_of(<object>column.owner) != <object>column.recipe:
        return True
    for i in range(column.part_count):
        if find_caster(column.parts[i].oid, types) is not <object>column.parts[i].caster \
                or is_outdated(&column.parts[i], types):
            return True
    return False


cdef void release(Column *column) noexcept:
    """Let go of what a column owns."""
    cdef Py_ssize_t i
    for i in range(column.part_count):
        release(&column.parts[i])
    PyMem_Free(column.parts)
    Py_XDECREF(column.value)
