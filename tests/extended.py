"""The extended protocol on a psycopg2 connection, by its libpq: what psycopg2 does not offer.

res = execute(raw, "SELECT $1", [(23, 0, b"1")], result_format=1)     a PGresult, or DatabaseError
rows(res)                                     its values, bytes
give(cursor, res)                             let a psycopg2 cursor own it (forge.give)
"""

from __future__ import annotations

import ctypes

import psycopg2
from forge import PGRES_TUPLES_OK, function, get_value, give, libpq

__all__ = ["execute", "give", "rows"]

PGRES_COMMAND_OK = 1
POINTER, INT = ctypes.c_void_p, ctypes.c_int
exec_params = function(
    *(libpq, "PQexecParams", POINTER, POINTER, ctypes.c_char_p, INT),
    *(ctypes.POINTER(ctypes.c_uint), ctypes.POINTER(ctypes.c_char_p), ctypes.POINTER(INT)),
    *(ctypes.POINTER(INT), INT),
)
result_status = function(libpq, "PQresultStatus", INT, POINTER)
error_message = function(libpq, "PQresultErrorMessage", ctypes.c_char_p, POINTER)
clear = function(libpq, "PQclear", None, POINTER)
tuples = function(libpq, "PQntuples", INT, POINTER)
fields = function(libpq, "PQnfields", INT, POINTER)
is_null = function(libpq, "PQgetisnull", INT, POINTER, INT, INT)
get_length = function(libpq, "PQgetlength", INT, POINTER, INT, INT)
get_type = function(libpq, "PQftype", ctypes.c_uint, POINTER, INT)


def execute(raw, sql, parameters=(), result_format=0):
    """A new PGresult with rows, which the caller owns.

    parameters: of each OID, format and bytes, None for NULL.
    """
    count = len(parameters)
    values = [value for _, _, value in parameters]
    res = exec_params(
        raw.pgconn_ptr,
        sql.encode(),
        count,
        (ctypes.c_uint * count)(*[oid for oid, _, _ in parameters]),
        (ctypes.c_char_p * count)(*values),
        (INT * count)(*[0 if value is None else len(value) for value in values]),
        (INT * count)(*[form for _, form, _ in parameters]),
        result_format,
    )
    if result_status(res) in (PGRES_TUPLES_OK, PGRES_COMMAND_OK):
        return res
    message = error_message(res).decode()
    clear(res)
    raise psycopg2.DatabaseError(message)


def types(res):
    return tuple(get_type(res, i) for i in range(fields(res)))


def value(res, row, column):
    if is_null(res, row, column):
        return None
    return ctypes.string_at(get_value(res, row, column), get_length(res, row, column))


def rows(res):
    """The rows of a result, which is cleared."""
    found = [tuple(value(res, i, j) for j in range(fields(res))) for i in range(tuples(res))]
    clear(res)
    return found
