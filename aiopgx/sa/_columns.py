"""Which column of a result a Column of SQLAlchemy means.

A Column that the statement selects means its own place. Any other is found as aiopg finds it, by
its label or key among the names of the result; but no column's value is given out as another's. So
what SQLAlchemy knows decides between columns of equal names: the columns that they come from,
through aliases and subqueries, and the tables of the statement.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import Column, Table
from sqlalchemy.sql import visitors
from sqlalchemy.sql.compiler import _CompileLabel
from sqlalchemy.sql.elements import (
    ClauseElement,
    ColumnClause,
    ColumnElement,
    Grouping,
    Label,
    WrapsColumnExpression,
)
from sqlalchemy.sql.selectable import (
    AliasedReturnsRows,
    FromClause,
    Join,
    SelectBase,
    SelectStatementGrouping,
)

from .utils import RECENT

# A column's name with its table's.
_LABEL = "_tq_label" if RECENT else "_label"

# The index of what several columns could be.
AMBIGUOUS = -1


def places(result_map: Sequence[Any], names: Sequence[str]) -> list[int | None]:
    """Return for each column of a result, by its name there, its place in `result_map`.

    None where that can't be told. Columns of a `text()` are found by their names if these are
    unique, as in aiopg, else in their order; those of other statements have an order.
    """
    order = getattr(result_map, "order", None)
    if order == "all" and len(result_map) == len(names):
        return list(range(len(names)))
    compiled = [entry[0] for entry in result_map]
    found: list[int | None] = [
        compiled.index(name) if names.count(name) == compiled.count(name) == 1 else None
        for name in names
    ]
    if order == "text":
        taken = set(found)
        for place in range(min(len(names), len(compiled))):
            if found[place] is None and place not in taken:
                found[place] = place
    return found


def order_of(compiled: Any) -> str | None:
    """Whether the columns of a compiled statement have the order of its result.

    "all" if they do when there are as many, "text" if they are those of a `text()`, in the order
    that the program gave, or None.
    """
    if compiled._textual_ordered_columns:
        return "text"
    if compiled._ordered_columns or getattr(compiled, "_ad_hoc_textual", False):
        return "all"
    return None


def has_own(statement: Any) -> bool:
    """Whether a statement has columns that another one of the same shape need not have.

    Tables are the same in all statements of a shape; aliases, labels and the like may not be.
    """
    statement = getattr(statement, "_resolved", statement)
    if any(type(one) is not Column or type(one.table) is not Table for one in selected(statement)):
        return True
    return any(
        isinstance(one, FromClause) and not isinstance(one, (Table, Join))
        for element in visitors.iterate(statement)
        for one in (element, getattr(element, "table", None))
    )


class Columns:
    """The columns of a result of a statement.

    names: those of the result.
    places: for each of them the place in what SQLAlchemy compiled, or None.
    objects: for each place what SQLAlchemy's result map has for it.
    statement: the one that was executed, None if it isn't known.
    """

    __slots__ = ("_chosen", "_names", "_own", "_statement")

    def __init__(
        self,
        names: Sequence[str],
        places: Sequence[int | None],
        objects: Sequence[Any],
        statement: Any,
    ) -> None:
        self._names = names
        self._statement = statement = getattr(statement, "_resolved", statement)
        branches = [selected(branch) for branch in _branches(statement)]
        if not branches or any(len(branch) != len(objects) for branch in branches):
            branches = [[_first(some) for some in objects]]
        # for each column what the statement selects there, in each SELECT of a UNION
        self._chosen: list[list[Any]] = [
            []
            if place is None
            else [one for branch in branches if (one := branch[place]) is not None]
            for place in places
        ]
        self._own: dict[Any, int] = {}
        for index, some in enumerate(self._chosen):
            if some:
                self._own.setdefault(some[0], index)

    def find(self, key: Any) -> int | None:
        """Return the index of what a Column means: AMBIGUOUS or None if that is not one column."""
        own = self._own.get(key)
        if own is not None:
            return own
        likely = self._likely(key, _core(key))
        if not likely:
            return None
        first = self._cores(likely[0])
        if len(likely) == 1 or (first and all(self._cores(index) == first for index in likely)):
            return likely[0]  # maybe the same column, several times
        return AMBIGUOUS

    def labels(self) -> list[str | None]:
        """Return the names of the columns with their tables', None where there is no table."""
        return [
            str(getattr(_core(some[0]), _LABEL)) if some and _is_column(some[0]) else None
            for some in self._chosen
        ]

    def _likely(self, key: Any, meant: Any) -> list[int]:
        """The indexes of what may be meant by `key`, which is not selected itself.

        meant: what is in it, if it is a label.
        """
        lineages = [frozenset().union(*map(_lineage, some)) for some in self._chosen]
        claims = self._claims(key, lineages)
        for some in claims:
            origins = [
                i
                for i in some
                if any(_comes_from(one, meant, self._statement) for one in self._chosen[i])
            ]
            if origins:
                return origins
        table = getattr(meant, "table", None)
        if table is not None and table in _tables(self._statement, lineages):
            # other columns than this one are not meant; an expression may have its name
            named = sorted(set().union(*claims))
            is_column = [bool(self._chosen[i]) and _is_column(self._chosen[i][0]) for i in named]
            return [] if all(is_column) else named
        ancestors = _lineage(meant)
        for some in claims:
            relatives = [i for i in some if ancestors & lineages[i]]
            if relatives:
                return relatives
        return claims[0] if claims else []

    def _claims(self, key: Any, lineages: Sequence[frozenset[Any]]) -> list[list[int]]:
        """The indexes of the columns that have a name by which aiopg finds `key`.

        Those that have its label come before those that have its key.
        """
        names = self._names
        label, name = getattr(key, _LABEL, None), getattr(key, "key", None)
        claims = []
        if label in names:
            labels = [getattr(some[0], _LABEL, None) if some else None for some in self._chosen]
            claims.append([i for i in range(len(names)) if label in (names[i], labels[i])])
        if name in names:
            keys = [{one.key for one in lineage} for lineage in lineages]
            claims.append([i for i in range(len(names)) if name == names[i] or name in keys[i]])
        return claims

    def _cores(self, index: int) -> set[Any]:
        return set(map(_core, self._chosen[index]))


class Labels:
    """The columns of a row that was pickled: what is left of them is their names.

    labels: see `Columns.labels()`. What has one is found by it alone.
    """

    __slots__ = ("_labels", "_names")

    def __init__(self, names: Sequence[str], labels: Sequence[str | None]) -> None:
        self._names = names
        self._labels = labels

    def find(self, key: Any) -> int | None:
        """See `Columns.find()`."""
        meant = getattr(_core(key), _LABEL, None)
        names = (getattr(key, _LABEL, None), getattr(key, "key", None))
        own = [i for i, label in enumerate(self._labels) if label is not None and label == meant]
        named = [i for i, name in enumerate(self._names) if name in names]
        if own:
            return next((i for i in own if i in named), own[0])
        found = [i for i in named if self._labels[i] is None]
        if len(found) > 1:
            return AMBIGUOUS
        return found[0] if found else None

    def labels(self) -> Sequence[str | None]:
        """Return the labels."""
        return self._labels


def _branches(statement: Any) -> Iterator[Any]:
    """The SELECTs of a UNION and the like, or the statement itself."""
    if isinstance(statement, SelectStatementGrouping):
        statement = statement.element
    if hasattr(statement, "selects"):
        for select in statement.selects:
            yield from _branches(select)
    elif isinstance(statement, ClauseElement):
        yield statement


def selected(statement: Any) -> list[Any]:
    """What a statement selects or returns, in its order; empty if it doesn't tell."""
    try:
        return list(statement._all_selected_columns)
    except (AttributeError, NotImplementedError):
        return []


def _froms(statement: Any) -> Iterator[Any]:
    """The tables, aliases and subqueries that a statement reads, without what is within those."""
    elements = list(_branches(statement))
    while elements:
        for element in elements.pop().get_children():
            source = element if isinstance(element, FromClause) else getattr(element, "table", None)
            if isinstance(source, FromClause) and not isinstance(source, Join):
                yield source
            elif not isinstance(element, SelectBase):
                elements.append(element)


def _comes_from(column: Any, origin: Any, statement: Any) -> bool:
    """Whether a column that `statement` selects is `origin`, by way of aliases and subqueries.

    Of a table that is read itself, and as an alias as well, a column of the alias is another.
    """
    column = _core(column)
    if column is origin:
        return True
    if any(source is getattr(origin, "table", None) for source in _froms(statement)):
        return False
    inner = getattr(getattr(column, "table", None), "element", None)
    return any(_comes_from(one, origin, inner) for one in getattr(column, "_proxies", ()))


def _tables(statement: Any, lineages: Iterable[frozenset[Any]]) -> set[Any]:
    """The tables, aliases and subqueries that are anywhere in a statement, or in its columns."""
    found = {getattr(one, "table", None) for lineage in lineages for one in lineage}
    statements = [] if statement is None else [statement]
    while statements:
        for element in visitors.iterate(statements.pop()):
            for source in (element, getattr(element, "table", None)):
                if isinstance(source, FromClause) and source not in found:
                    found.add(source)
                    if isinstance(source, AliasedReturnsRows):
                        statements.append(source.element)
    return found


def _first(objects: Sequence[Any]) -> Any:
    """The column among what a result map has for one, such as names and the compiler's labels."""
    for one in objects:
        if isinstance(one, ColumnElement) and not isinstance(one, _CompileLabel):
            return one
    return None


def _core(element: Any) -> Any:
    """What is in labels, casts and parentheses."""
    while True:
        if isinstance(element, (Label, Grouping)):
            element = element.element
        elif isinstance(element, WrapsColumnExpression):
            element = element.wrapped_column_expression
        else:
            return element


def _lineage(element: Any) -> frozenset[Any]:
    """A column and those that it comes from."""
    found: set[Any] = set()
    elements = [element]
    while elements:
        one = elements.pop()
        if isinstance(one, ColumnElement) and one not in found:
            found.add(one)
            elements += [_core(one), *getattr(one, "_proxies", ())]
    return frozenset(found)


def _is_column(element: Any) -> bool:
    core = _core(element)
    return isinstance(core, ColumnClause) and core.table is not None
