"""Row factories: functions that say what a row is, by psycopg 3's names and protocol.

A row factory is called with the cursor, when the first row of a result is fetched, and returns what
makes a row of the values, a tuple. `row_factory=` of `connect()`, `create_pool()`, `conn.cursor()`
and `conn.execute()` takes one. New in aiopgx.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import psycopg2
from psycopg2.extensions import cursor as PsycopgCursor

from ._rows import (
    SHAPE_DICT,
    SHAPE_FOREIGN,
    SHAPE_MADE,
    SHAPE_RECORD,
    SHAPE_SCALAR,
    SHAPE_TUPLE,
    Unready,
    record_of,
    shape_of,
)

if TYPE_CHECKING:
    # with defaults: a bare `Cursor` is a `Cursor[Any]`, and so is one without a row factory
    from typing_extensions import TypeVar

    from .cursor import Cursor

    Row = TypeVar("Row", covariant=True, default=Any)
    T = TypeVar("T", default=Any)
else:
    from typing import TypeVar

    Row = TypeVar("Row", covariant=True)
    T = TypeVar("T")

__all__ = (
    "DictRow",
    "RowFactory",
    "RowMaker",
    "TupleRow",
    "args_row",
    "class_row",
    "dict_row",
    "kwargs_row",
    "namedtuple_row",
    "scalar_row",
    "tuple_row",
)

TupleRow: TypeAlias = tuple[Any, ...]
DictRow: TypeAlias = dict[str, Any]


class RowMaker(Protocol[Row]):
    """Makes a row of the values of one."""

    def __call__(self, values: Sequence[Any], /) -> Row: ...


class RowFactory(Protocol[Row]):
    """Returns what makes the rows of a cursor's result, whose columns `cursor.description` has."""

    def __call__(self, cursor: "Cursor[Any]", /) -> RowMaker[Row]: ...


def tuple_row(cursor: "Cursor[Any]", /) -> RowMaker[TupleRow]:
    """Rows are tuples."""
    return tuple


def dict_row(cursor: "Cursor[Any]", /) -> RowMaker[DictRow]:
    """Rows are dicts. Of several columns of one name the last counts."""
    names = _names(cursor)
    return _no_result if names is None else lambda values: dict(zip(names, values, strict=True))


def namedtuple_row(cursor: "Cursor[Any]", /) -> "RowMaker[Any]":
    """Rows are namedtuples, of a class `Row`.

    What can't be in an attribute's name is written `_`, an `f` is put in front where it would start
    with a digit or `_`. Raises `psycopg2.DataError` for two columns of one name and for keywords.
    """
    names = _names(cursor)
    if names is None:
        return _no_result
    make: RowMaker[Any] = record_of(names)._make
    return make


def scalar_row(cursor: "Cursor[Any]", /) -> RowMaker[Any]:
    """Rows are the values of the first column.

    fetchone() returns None for a NULL as well as after the last row; iterating tells them apart.
    """
    names = _names(cursor)
    if names is None:
        return _no_result
    if not names:
        raise psycopg2.ProgrammingError("at least one column expected")
    return lambda values: values[0]


def class_row(cls: type[T]) -> RowFactory[T]:
    """Rows are objects of a class, called with the columns as keyword arguments."""
    return kwargs_row(cls)


def args_row(func: Callable[..., T]) -> RowFactory[T]:
    """Rows are what a function returns, called with the values in order."""
    _check_callable("func", func)
    return lambda cursor: lambda values: func(*values)


def kwargs_row(func: Callable[..., T]) -> RowFactory[T]:
    """Rows are what a function returns, called with the columns as keyword arguments."""
    _check_callable("func", func)

    def factory(cursor: "Cursor[Any]", /) -> RowMaker[T]:
        names = _names(cursor)
        if names is None:
            return _no_result
        return lambda values: func(**dict(zip(names, values, strict=True)))

    return factory


def _names(cursor: "Cursor[Any]") -> tuple[str, ...] | None:
    columns = cursor.description
    return None if columns is None else tuple(column.name for column in columns)


def _no_result(values: Sequence[Any], /) -> Any:
    raise psycopg2.InterfaceError("the cursor doesn't have a result")


def _check_callable(name: str, value: Any) -> None:
    if not callable(value):
        raise TypeError(f"{name} must be callable, not {value!r}")


def shape_of_factory(factory: Any) -> int:
    """The shape of the rows of a row factory; raises TypeError if it is none."""
    _check_callable("row_factory", factory)
    for known, shape in _SHAPES:
        if factory is known:
            return shape
    return SHAPE_MADE


_SHAPES = (
    (tuple_row, SHAPE_TUPLE),
    (dict_row, SHAPE_DICT),
    (namedtuple_row, SHAPE_RECORD),
    (scalar_row, SHAPE_SCALAR),
)


class PsycopgRows:
    """What a psycopg2 cursor has, its rows made by a row factory: psycopg2's road of Result.

    What is not found here is the cursor's.
    """

    def __init__(self, impl: Any) -> None:
        self._impl = impl
        self.maker: Any = None
        self.exhausted: bool = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._impl, name)

    def fetchone(self) -> Any:
        rows = self._take("fetchone")
        self.exhausted = not rows
        return rows[0] if rows else None

    def fetchmany(self, size: int) -> list[Any]:
        return self._take("fetchmany", size)

    def fetchall(self) -> list[Any]:
        return self._take("fetchall")

    def _take(self, method: str, *size: int) -> list[Any]:
        if self.maker is None and self._impl.description is not None:
            raise Unready
        start = self._impl.rownumber
        try:
            rows = plain_rows(self._impl, method, *size)
            if method == "fetchone":
                rows = [] if rows is None else [rows]
            return [self.maker(self._checked(row)) for row in rows]
        except BaseException:
            with suppress(psycopg2.Error):
                self._impl.scroll(start, "absolute")
            raise

    def _checked(self, row: Any) -> tuple[Any, ...]:
        if isinstance(row, tuple | list):
            return tuple(row)
        raise TypeError(
            f"a row factory makes rows of sequences, and {type(self._impl).__qualname__} gives "
            f"{type(row).__qualname__}: leave out row_factory or cursor_factory"
        )


def plain_rows(impl: Any, method: str, *size: int) -> Any:
    """What a method of a psycopg2 cursor fetches, as tuples if its class is psycopg2's own."""
    if shape_of(type(impl)) == SHAPE_FOREIGN:
        return getattr(impl, method)(*size)
    made, impl.row_factory = impl.row_factory, None  # which DictCursor makes its rows by
    try:
        return getattr(PsycopgCursor, method)(impl, *size)
    finally:
        impl.row_factory = made
