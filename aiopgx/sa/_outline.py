"""A quick cache key for the plainest SELECT, which is the one that is executed most.

SQLAlchemy's own key costs about as much as all that aiopgx does to execute a small query. Here is
one for SELECTs of tables and columns WHERE columns compare to values. It says no to anything else:
every part has to be of the exact class, and to have exactly the attributes, of a sample. So what
another release, an ORM or a program adds to a statement leads to SQLAlchemy's key.
"""

import operator
from typing import Any

from sqlalchemy import Column, Integer, MetaData, Table, select
from sqlalchemy.sql.elements import BinaryExpression, BindParameter
from sqlalchemy.sql.selectable import Select

_table = Table("sample", MetaData(), Column("id", Integer))
_select: Any = select(_table).where(_table.c.id == 1)
_comparison: Any = _select._where_criteria[0]

_SELECT = _select.__dict__.keys()
_COMPARISON = _comparison.__dict__.keys()
_VALUE = _comparison.right.__dict__.keys()
_LABEL_STYLE = _select._label_style
_BOOLEAN = _comparison.type
_OPERATORS = {operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge}


def outline(query: Any) -> tuple[Any, list[Any]] | None:
    """Return a key and the bound values of a statement, None if it isn't that plain.

    Statements with equal keys have equal cache keys, and their values are in the same order.
    """
    if type(query) is not Select:
        return None
    attributes = query.__dict__
    if attributes.keys() != _SELECT or attributes["_label_style"] is not _LABEL_STYLE:
        return None
    columns = attributes["_raw_columns"]
    key = [*columns, None]
    for column in columns:
        if type(column) is not Table:
            if not _is_column(column):
                return None
            key.append(column.type)  # may be another one by now
    values = []
    for comparison in attributes["_where_criteria"]:
        if type(comparison) is not BinaryExpression:
            return None
        parts = comparison.__dict__
        column, value = parts["left"], parts["right"]
        if (
            parts.keys() != _COMPARISON
            or parts["operator"] not in _OPERATORS
            or parts["type"] is not _BOOLEAN
            or parts["modifiers"]
            or parts["_propagate_attrs"]
            or type(value) is not BindParameter
            or not _is_column(column)
        ):
            return None
        bound = value.__dict__
        if bound.keys() != _VALUE or not bound["unique"] or bound["literal_execute"]:
            return None
        if bound["expanding"] or bound["isoutparam"]:
            return None
        # its name in the text is made of the original one
        key += column, parts["operator"], parts["negate"], bound["type"], bound["_orig_key"]
        values.append(value)
    return tuple(key), values


def _is_column(element: Any) -> bool:
    return type(element) is Column and type(element.table) is Table
