"""Results of `SAConnection.execute()`: rows by name, index and Column."""

from collections import abc
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.util.langhelpers import string_or_unprintable

from .._row_proxy import RowCore, proxies
from . import exc
from ._columns import AMBIGUOUS, Columns, Labels, has_own, order_of, places

if TYPE_CHECKING:
    from .connection import SAConnection

_Processor = Callable[[Any], Any] | None

# Columns given as keys that a ResultMetaData remembers; it may live as long as the compiled cache.
_REMEMBERED = 256


class RowProxy(RowCore, Mapping[Any, Any]):
    """A row: `row.name`, `row["name"]`, `row[0]`, `row[table.c.name]`.

    As a mapping its keys are the column names. Values pass SQLAlchemy's result processors when
    they are read. A row can be copied and pickled; what comes out has the values by name and
    index (new in aiopgx).

    result_proxy: the `ResultMetaData`. row: the values, as the cursor gave them.
    processors: unused; those of the keymap count, in aiopg, too.
    keymap: the `_keymap` of a ResultMetaData, by default that of `result_proxy`.
    """

    __slots__ = ()

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...
    else:
        __getattr__ = RowCore._attribute

    def __iter__(self) -> Iterator[str]:
        return iter(self._result_proxy.keys)

    def __contains__(self, key: object) -> bool:
        known: bool = self._result_proxy._has_key(self._row, key)
        return known

    def values(self) -> "ValuesView":
        """Return the values, also of columns that have the same name."""
        return ValuesView(self)

    def items(self) -> "ItemsView":
        """Return the pairs of name and value, also of columns that have the same name."""
        return ItemsView(self)

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, RowProxy):
            return self.as_tuple() == other.as_tuple()
        if isinstance(other, Sequence):
            return self.as_tuple() == other
        return NotImplemented

    def as_tuple(self) -> tuple[Any, ...]:
        """Return the values."""
        return tuple([self[key] for key in self._result_proxy._single_keys])

    def __repr__(self) -> str:
        return repr(self.as_tuple())

    def __reduce__(self) -> tuple[Any, ...]:
        values = tuple([self[index] for index in range(len(self._row))])
        metadata = self._result_proxy
        return _restore, (tuple(metadata.keys), values, tuple(metadata._columns().labels()))


def _restore(
    names: tuple[str, ...], values: tuple[Any, ...], labels: Sequence[str | None] = ()
) -> RowProxy:
    metadata = ResultMetaData.__new__(ResultMetaData)
    metadata._index(names, [None] * len(names))
    metadata._found = Labels(names, labels or [None] * len(names))
    return _RowProxy(metadata, values)


# A program may put a class of its own in the place of RowProxy.
_RowProxy = RowProxy


class ValuesView(abc.ValuesView[Any]):
    """The values of a row."""

    __slots__ = ()

    _mapping: RowProxy

    def __iter__(self) -> Iterator[Any]:
        for key in self._mapping._result_proxy._single_keys:
            yield self._mapping[key]

    def __contains__(self, value: object) -> bool:
        return any(one is value or one == value for one in self)


class ItemsView(abc.ItemsView[Any, Any]):
    """The names of a row with their values."""

    __slots__ = ()

    _mapping: RowProxy

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        yield from zip(self._mapping, self._mapping.values(), strict=True)

    def __contains__(self, item: Any) -> bool:
        try:
            return super().__contains__(item)
        except exc.InvalidRequestError:  # several columns have the name
            return item in list(self)


class ResultMetaData:
    """The columns of a result: their names, result processors, and what finds them.

    result_proxy: has the `dialect`, and in `_result_map` the columns that SQLAlchemy compiled, or
        None. cursor_description: the cursor's `description`.
    """

    __slots__ = (
        "_found",
        "_keymap",
        "_objects",
        "_places",
        "_processors",
        "_single_keys",
        "_statement",
        "keys",
    )

    _keymap: dict[Any, tuple[_Processor, int | None]]
    _processors: list[_Processor]
    _single_keys: list[Any]  # the names, with indexes in place of those that several columns have
    _found: Columns | Labels | None  # made when a Column is looked up
    keys: list[str]

    def __init__(self, result_proxy: Any, cursor_description: Sequence[Any]) -> None:
        result_map = result_proxy._result_map or ()
        types, names = self.result_map(result_map)
        dialect = result_proxy.dialect
        self._places = places(result_map, [column[0] for column in cursor_description])
        self._objects = [entry[2] for entry in result_map]
        self._statement: Any = getattr(result_map, "statement", None)
        processors: list[_Processor] = []
        for column, place in zip(cursor_description, self._places, strict=True):
            type_ = types.get(column[0]) if place is None else result_map[place][3]
            processors.append(
                None if type_ is None else type_._cached_result_processor(dialect, column[1])
            )
        self._index([names.get(column[0], column[0]) for column in cursor_description], processors)

    def _index(self, names: Sequence[str], processors: list[_Processor]) -> None:
        keymap: dict[Any, tuple[_Processor, int | None]] = {}
        for index, (name, processor) in enumerate(zip(names, processors, strict=True)):
            keymap[index] = (processor, index)
            # two columns of one name are an error only where that name is used
            keymap[name] = (None, None) if name in keymap else (processor, index)
        self._keymap = keymap
        self._processors = processors
        self._found = None
        self._single_keys = [
            index if keymap[name][1] is None else name for index, name in enumerate(names)
        ]
        self.keys = list(names)

    def _of(self, statement: Any) -> "ResultMetaData":
        """The same for another statement of this shape, which has columns of its own."""
        other = ResultMetaData.__new__(ResultMetaData)
        other._places, other._objects, other._statement = self._places, self._objects, statement
        other._index(self.keys, self._processors)
        return other

    def _columns(self) -> Columns | Labels:
        if self._found is None:
            self._found = Columns(self.keys, self._places, self._objects, self._statement)
        return self._found

    def result_map(self, data_map: Any) -> tuple[dict[str, Any], dict[str, str]]:
        """Return the types and the keys of SQLAlchemy's columns, by their names in the result."""
        types, names = {}, {}
        for name, _, objects, type_, *_ in data_map or ():
            types[name] = type_
            # a column that is selected again has no objects
            names[name] = (getattr(objects[0], "key", None) if objects else None) or name
        return types, names

    def _key_fallback(self, key: Any, raiseerr: bool = True) -> Any:
        """Find what a Column means."""
        if isinstance(key, ColumnElement):
            index = self._columns().find(key)
            if index is not None:
                found = (None, None) if index == AMBIGUOUS else (self._processors[index], index)
                if len(self._keymap) < _REMEMBERED:
                    self._keymap[key] = found
                return found
        if raiseerr:
            raise exc.NoSuchColumnError(
                f"Could not locate column in row for column {string_or_unprintable(key)!r}"
            )
        return None

    def _ambiguous(self, key: Any) -> NoReturn:
        raise exc.InvalidRequestError(
            f"Ambiguous column name {key!r} in result set! "
            f"try 'use_labels' option on select statement."
        )

    def _has_key(self, row: Any, key: Any) -> bool:
        return key in self._keymap or self._key_fallback(key, False) is not None


class ResultMap(list[Any]):
    """The columns that SQLAlchemy compiled, with the metadata of the last result that had them.

    compiled: the statement.
    order: see `order_of()`.
    statement: what the columns are those of.
    """

    __slots__ = ("_base", "_columns", "_metadata", "_shared", "order", "statement")

    _metadata: ResultMetaData

    def __init__(self, compiled: Any) -> None:
        super().__init__(compiled._result_columns)
        self._base: ResultMap | None = None
        self._columns: list[Any] | None = None
        self._shared: bool | None = None
        self.order: str | None = order_of(compiled)
        self.statement: Any = compiled.statement

    def of(self, statement: Any) -> "ResultMap":
        """Return the same for another statement of this shape."""
        if statement is self.statement:
            return self
        if self._shared is None:
            self._shared = not has_own(self.statement)
        if self._shared:
            return self
        other = ResultMap.__new__(ResultMap)
        other.extend(self)
        other._base, other.order, other.statement = self, self.order, statement
        return other

    def metadata(self, result: "ResultProxy", description: Sequence[Any]) -> ResultMetaData:
        """Return the metadata of a result: those of the last one, if its columns were the same."""
        base = self._base or self
        # a table may have been altered since: name and type have to agree
        columns = [(column.name, column.type_code) for column in description]
        if columns != base._columns:
            base._metadata = ResultMetaData(result, description)
            base._metadata._statement = base.statement
            base._columns = columns
        return base._metadata if base is self else base._metadata._of(self.statement)


class ResultProxy:
    """The rows of an execution; closed by itself after the last, or if there are no rows at all.

    connection: the `SAConnection`.
    cursor: the cursor that has executed.
    dialect: the SQLAlchemy dialect.
    result_map: the columns that SQLAlchemy compiled, None for a plain string.
    """

    def __init__(
        self,
        connection: "SAConnection",
        cursor: Any,
        dialect: Any,
        result_map: Any = None,
    ) -> None:
        self._connection = connection
        self._cursor = cursor
        self._dialect = dialect
        self._result_map = result_map
        self._metadata: ResultMetaData | None = None
        self._rowcount: int = cursor.rowcount
        self._init_metadata()

    def _init_metadata(self) -> None:
        description = self._cursor.description
        if description is None:
            self.close()
        elif isinstance(self._result_map, ResultMap):
            self._metadata = self._result_map.metadata(self, description)
        else:
            self._metadata = ResultMetaData(self, description)

    @property
    def dialect(self) -> Any:
        """The SQLAlchemy dialect."""
        return self._dialect

    @property
    def cursor(self) -> Any:
        """The `aiopgx.Cursor`, None once the result is closed."""
        return self._cursor

    def keys(self) -> tuple[str, ...]:
        """Return the names of the columns, as the rows have them."""
        return () if self._metadata is None else tuple(self._metadata.keys)

    @property
    def rowcount(self) -> int:
        """The number of rows that the statement gave or changed, -1 if unknown."""
        return self._rowcount

    @property
    def returns_rows(self) -> bool:
        """Whether there are rows to fetch, be it none at all."""
        return self._metadata is not None

    @property
    def closed(self) -> bool:
        """Whether the result, or the cursor or connection behind it, is closed."""
        return self._cursor is None or bool(self._cursor.closed)

    def close(self) -> None:
        """Close the result and its cursor."""
        cursor = self._cursor
        if cursor is None:
            return
        cursor.close()
        self._cursor = None

    def __aiter__(self) -> "ResultProxy":
        return self

    async def __anext__(self) -> RowProxy:
        row = await self.fetchone()
        if row is None:
            raise StopAsyncIteration
        return row

    def _non_result(self) -> NoReturn:
        if self._metadata is None:
            raise exc.ResourceClosedError(
                "This result object does not return rows. It has been closed automatically."
            )
        raise exc.ResourceClosedError("This result object is closed.")

    def _process_rows(self, rows: Any) -> list[RowProxy]:
        metadata: Any = self._metadata
        if RowProxy is _RowProxy:
            return proxies(RowProxy, metadata, rows)
        keymap, processors = metadata._keymap, metadata._processors
        return [RowProxy(metadata, row, processors, keymap) for row in rows]

    def _open(self) -> Any:
        if self._cursor is None or self._metadata is None:
            self._non_result()
        return self._cursor

    async def fetchall(self) -> list[RowProxy]:
        """Return the rows that are left, and close the result.

        Raises ResourceClosedError if it is closed, also by having no rows; so do the others.
        """
        rows = self._process_rows(await self._open().fetchall())
        self.close()
        return rows

    async def fetchone(self) -> RowProxy | None:
        """Return the next row; after the last, close the result and return None."""
        row = await self._open().fetchone()
        if row is None:
            self.close()
            return None
        return self._process_rows([row])[0]

    async def fetchmany(self, size: int | None = None) -> list[RowProxy]:
        """Return the next rows, at most `size` of them (the cursor's `arraysize` by default).

        After the last, close the result and return an empty list.
        """
        cursor = self._open()
        rows = await (cursor.fetchmany() if size is None else cursor.fetchmany(size))
        if not rows:
            self.close()
        return self._process_rows(rows)

    async def first(self) -> RowProxy | None:
        """Return the first row, None if there is none, and close the result."""
        if self._metadata is None:
            self._non_result()
        try:
            return await self.fetchone()
        finally:
            self.close()

    async def scalar(self) -> Any:
        """Return the first value of the first row, None if there is no row; close the result."""
        row = await self.first()
        return None if row is None else row[0]
