"""Statements of SQLAlchemy: compiled once for each shape, and their parameters at each execution.

The cache is SQLAlchemy's own LRUCache, keyed by the cache keys that its statements make. There is
one for each dialect object, so engines with the same dialect share it.
"""

import warnings
from collections.abc import Sequence
from typing import Any

from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2
from sqlalchemy.exc import InvalidRequestError, SAWarning
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import Insert, Update
from sqlalchemy.util import LRUCache

from . import exc
from ._defaults import DefaultContext
from ._outline import outline
from .result import ResultMap
from .utils import RECENT

# aiopg makes no cache keys, so its programs see nothing of this advice.
warnings.filterwarnings(
    "ignore", r".* will not produce a cache key", SAWarning, r"aiopgx\.sa\._statements$"
)

# As many statements as an Engine of SQLAlchemy keeps.
CACHE_SIZE = 500

_Compiler: Any = PGDialect_psycopg2.statement_compiler  # its name depends on the release


class APGCompiler_psycopg2(_Compiler):  # type: ignore[misc]
    """Adds the values of Python-side column defaults to the parameters."""

    def construct_params(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the parameters of one execution.

        Callable defaults are called with a `DefaultContext`.
        """
        parameters: dict[str, Any] = super().construct_params(*args, **kwargs)
        if not self.prefetch:
            return parameters
        escaped = self.escaped_bind_names or {}
        originals = {name: key for key, name in escaped.items()}
        current = {originals.get(name, name): value for name, value in parameters.items()}
        context = DefaultContext(self, current)
        for column in self.prefetch:
            # aiopg's order: an UPDATE, too, takes `default` first
            default = column.default if column.default is not None else column.onupdate
            context.current_column = column
            current[column.key] = self._exec_default(default, context)
        return {escaped.get(key, key): value for key, value in current.items()}

    def _exec_default(self, default: Any, context: Any = None) -> Any:
        if not default.is_callable:
            return default.arg
        return default.arg(self.dialect if context is None else context)


# What is known to do no more than look values up.
_PLAIN = (APGCompiler_psycopg2.construct_params, SQLCompiler.construct_params)


class Statement:
    """A compiled statement.

    compiled: SQLAlchemy's.
    """

    __slots__ = ("_binds", "_compiled", "_expanding", "_plain", "_text", "names", "result_map")

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._text = str(compiled)
        self._expanding = bool(compiled.post_compile_params or compiled.literal_execute_params)
        self._binds = _binds(compiled)
        self._plain = not (
            self._expanding
            or compiled.prefetch
            or compiled.escaped_bind_names
            or type(compiled).construct_params not in _PLAIN
            or any(position is None for _, _, position, _ in self._binds)
        )
        self.names = _names(compiled)
        self.result_map = ResultMap(compiled)

    def bind(
        self, values: Any, extracted: Sequence[Any] | None, collected: Any
    ) -> tuple[str, dict[str, Any]]:
        """Return the text and the parameters of one execution.

        values: parameters given to execute(), by name.
        extracted: the bound values of the statement at hand, if this one was compiled for another.
        collected: values given with its `params()`, from SQLAlchemy 2.1 on.
        """
        if extracted is None:
            return self._construct(values)
        if collected:
            values = {**collected, **values} if values else collected
        parameters = {} if self._plain or not values else dict(values)
        for name, key, position, processor in self._binds:
            if values and key in values:
                value = values[key]
            elif values and name in values:
                value = values[name]
            elif position is None:
                continue
            else:
                bound = extracted[position]
                if bound.required:
                    raise InvalidRequestError(
                        f"A value is required for bind parameter {bound.key!r}", code="cd3x"
                    )
                value = bound.effective_value
            if self._plain:
                parameters[name] = value if processor is None else processor(value)
            else:
                parameters[key] = value
        return (self._text, parameters) if self._plain else self._construct(parameters)

    def _construct(self, values: Any) -> tuple[str, dict[str, Any]]:
        """The same by SQLAlchemy's means."""
        compiled = self._compiled
        escaped = compiled.escaped_bind_names or {}
        parameters: dict[str, Any] = compiled.construct_params(values)
        if escaped:  # names that can't be in %(name)s; processors go by the original ones
            originals = {name: original for original, name in escaped.items()}
            parameters = {originals.get(name, name): v for name, v in parameters.items()}
        processors: dict[str, Any] = compiled._bind_processors
        text = self._text
        if self._expanding:
            state = compiled._process_parameters_for_postcompile(parameters)
            text = state.statement
            processors = {**processors, **state.processors}
        processed = {
            name: processors[name](value) if name in processors else value
            for name, value in parameters.items()
        }
        if escaped:
            processed = {escaped.get(name, name): value for name, value in processed.items()}
        return text, processed

    def bind_many(
        self, sets: Sequence[Any], extracted: Sequence[Any] | None, collected: Any
    ) -> tuple[str, list[dict[str, Any]]]:
        """Return the text and the parameters for each of several sets of values."""
        if self._expanding:
            raise exc.ArgumentError(
                "a statement with several parameter sets cannot have lists in IN (...)"
            )
        return self._text, [self.bind(values, extracted, collected)[1] for values in sets]


def _names(compiled: Any) -> frozenset[str]:
    """The names that parameters can have, without those that a column's default overrides."""
    names = {name for bound, text in compiled.bind_names.items() for name in (bound.key, text)}
    return frozenset(names.difference(column.key for column in compiled.prefetch))


def _binds(compiled: Any) -> list[tuple[str, str, int | None, Any]]:
    """Of each parameter its name in the text, its key, its position in the cache key, if it is
    there, and its processor. Nothing for what is not to be cached."""
    if compiled.cache_key is None:
        return []
    matches = compiled._cache_key_bind_match
    if isinstance(matches, tuple):  # from SQLAlchemy 2.0 on
        matches = matches[0]
    positions = {
        bound: position
        for position, original in enumerate(compiled.cache_key[1])
        for bound in matches[original]
    }
    processors = compiled._bind_processors
    return [
        (name, bound.key, positions.get(bound), processors.get(name))
        for bound, name in compiled.bind_names.items()
    ]


def statement_for(
    query: Any, dialect: Any, values: Any, many: bool
) -> tuple[Statement, Sequence[Any] | None, Any]:
    """Return the compiled statement, and of `query` the arguments of its `bind()`.

    values: the parameters given to execute(), or the first of several sets.
    many: whether there are several sets.
    """
    cache = _cache_of(dialect)
    plain = None if cache is None or many else outline(query)
    if plain is not None:
        found = cache.get(plain[0])
        if found is not None:
            return found, plain[1], None
    columns = _columns(query, values)
    key = None if cache is None else query._generate_cache_key()
    if key is None:
        compiled = query.compile(dialect=dialect, column_keys=list(columns), for_executemany=many)
        return Statement(compiled), None, None
    # SQLAlchemy's key has no names of unique parameters, but values may be given by them
    names = _unique_names(key[1])
    found = cache.get((key[0], columns, many, names))
    if found is None:
        compiled = query.compile(
            dialect=dialect, cache_key=key, column_keys=list(columns), for_executemany=many
        )
        found = cache[key[0], columns, many, names] = Statement(compiled)
    if plain is not None and list(map(id, plain[1])) == list(map(id, key[1])):
        cache[plain[0]] = found
    return found, key[1], key[2] if len(key) > 2 else None


def _unique_names(binds: Sequence[Any]) -> tuple[str | None, ...]:
    """What the names are made of, None where that is no plain name either."""
    return tuple(
        [
            bound._orig_key if bound.unique and type(bound._orig_key) is str else None
            for bound in binds
        ]
    )


def check_parameters(query: Any, statement: Statement, sets: Sequence[Any], given: bool) -> None:
    """Refuse an INSERT or UPDATE that would lose a parameter, or has nothing to write.

    What aiopg executes is executed: one set may have more than the statement takes, if that has
    values of its own, or if all columns are in the set.

    sets: the parameters by name. given: whether execute() was given any, be they empty.
    """
    own = _has_values(query)
    columns = query.table.c.keys()
    first = sets[0] if sets else ()
    if len(sets) > 1 or not (own or all(key in first for key in columns)):
        for values in sets:
            for key in values:
                if key not in statement.names:
                    raise InvalidRequestError(_lost(query, key, own))
    if isinstance(query, Update):
        if not (_writes(query) if own else any(key in first for key in columns)):
            raise InvalidRequestError("the UPDATE has no value for any column")
    elif given and not (own or first) and columns:
        raise InvalidRequestError(
            "the parameters of the INSERT are empty; give none at all for a row of defaults"
        )


def _lost(query: Any, key: Any, own: bool) -> str:
    if key not in query.table.c.keys():  # noqa: SIM118 (a collection of columns, not a dict)
        reason = f"neither a column of {query.table} nor a bind parameter of the statement"
    elif own:
        reason = "not among the statement's own values"
    else:
        reason = "not in the first parameter set"
    return f"parameter {key!r} is {reason}"


def _writes(query: Any) -> bool:
    """Whether an UPDATE with values of its own, maybe an empty dict, sets a column."""
    return (
        query._values is None
        or bool(query._values)
        or any(column.onupdate is not None for column in query.table.c)
    )


def _columns(query: Any, values: Any) -> tuple[str, ...]:
    """The columns that an INSERT or UPDATE without values of its own takes from the parameters."""
    if not values or not isinstance(query, (Insert, Update)) or _has_values(query):
        return ()
    columns = query.table.c
    return tuple(sorted(key for key in values if isinstance(key, str) and key in columns))


def _has_values(query: Any) -> bool:
    return query._values is not None or any(
        getattr(query, name, None)
        for name in ("_multi_values", "_ordered_values", "_select_names", "select")
    )


def _cache_of(dialect: Any) -> Any:
    try:
        return dialect._aiopgx_compiled_cache
    except AttributeError:
        # A subclass that has not said that its statements may be cached compiles each time.
        # SQLAlchemy's own property would warn, and aiopg doesn't.
        cachable = RECENT and type(dialect).__dict__.get("supports_statement_cache")
        dialect._aiopgx_compiled_cache = LRUCache(CACHE_SIZE) if cachable else None
        return dialect._aiopgx_compiled_cache
