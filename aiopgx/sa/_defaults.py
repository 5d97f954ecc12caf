"""What callable defaults of columns are called with."""

from typing import Any

from sqlalchemy.exc import InvalidRequestError


class DefaultContext:
    """The argument of a callable `default` or `onupdate`: SQLAlchemy's context without its engine.

    As in aiopg it stands for the dialect: it is equal to it, and has its attributes.

    compiled: the compiled statement.
    current_parameters: the parameters of this execution, by the names that they have in it.
    current_column: the column whose default is called.
    """

    __slots__ = ("compiled", "current_column", "current_parameters", "dialect")

    def __init__(self, compiled: Any, parameters: dict[str, Any]) -> None:
        self.compiled = compiled
        self.dialect = compiled.dialect
        self.current_parameters = parameters
        self.current_column: Any = None

    def get_current_parameters(self, isolate_multiinsert_groups: bool = True) -> dict[str, Any]:
        """Return the parameters of the row that is written, by the keys of its columns.

        Defaults that come later in the table are None as yet; an UPDATE has the parameters of its
        WHERE, too. New in aiopgx.

        isolate_multiinsert_groups: whether of an INSERT of several rows by `values([...])` this
            row alone is meant; if not, the result has all of them, by their names in the statement.
        """
        column = self.current_column
        if column is None:
            raise InvalidRequestError("there is no current column outside of a column's default")
        state = self.compiled.compile_state
        if not (isolate_multiinsert_groups and getattr(state, "_has_multi_parameters", False)):
            return self.current_parameters
        of_first = not getattr(column, "_is_multiparam_column", False)
        row = 0 if of_first else column.index + 1
        own = column.key if of_first else column.original.key
        parameters = {own: self.current_parameters[column.key]}
        for given in state._dict_parameters:
            key = getattr(given, "key", given)
            name = f"{key}_m{row}"
            if name in self.current_parameters:  # an SQL expression is no parameter
                parameters[key] = self.current_parameters[name]
        return parameters

    @property
    def isinsert(self) -> bool:
        """Whether the statement is an INSERT."""
        return bool(self.compiled.isinsert)

    @property
    def isupdate(self) -> bool:
        """Whether the statement is an UPDATE."""
        return bool(self.compiled.isupdate)

    def __getattr__(self, name: str) -> Any:
        if name in DefaultContext.__slots__:  # not there yet
            raise AttributeError(name)
        return getattr(self.dialect, name)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, DefaultContext):
            return self is other
        return bool(self.dialect == other)

    def __hash__(self) -> int:
        return hash(self.dialect)
