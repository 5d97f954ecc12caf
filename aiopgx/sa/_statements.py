"""Statements of SQLAlchemy: compiled once for each shape, and their parameters at each execution.

The cache is SQLAlchemy's own LRUCache, keyed by the cache keys that its statements make. There is
one for each dialect object, so engines with the same dialect share it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.dialects.postgresql.psycopg2 import PGCompiler_psycopg2
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import Insert, Update
from sqlalchemy.util import LRUCache

from . import exc
from .result import ResultMap

# As many statements as an Engine of SQLAlchemy keeps.
CACHE_SIZE = 500


class APGCompiler_psycopg2(PGCompiler_psycopg2):
    """Adds the values of Python-side column defaults to the parameters."""

    def construct_params(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the parameters of one execution. Callable defaults are called with the dialect."""
        parameters: dict[str, Any] = super().construct_params(*args, **kwargs)
        for column in self.prefetch:
            # aiopg's order: an UPDATE, too, takes `default` first
            default = column.default if column.default is not None else column.onupdate
            parameters[column.key] = self._exec_default(default)
        return parameters

    def _exec_default(self, default: Any) -> Any:
        return default.arg(self.dialect) if default.is_callable else default.arg


# What is known to do no more than look values up; see Statement._plan.
_PLAIN = (APGCompiler_psycopg2.construct_params, SQLCompiler.construct_params)


class Statement:
    """A compiled statement.

    compiled: SQLAlchemy's.
    """

    __slots__ = ("_compiled", "_expanding", "_plan", "_text", "result_map")

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._text = str(compiled)
        self._expanding = bool(compiled.post_compile_params or compiled.literal_execute_params)
        self._plan = None if self._expanding else _plan(compiled)
        self.result_map = ResultMap(compiled._result_columns)

    def bind(
        self, values: Any, extracted: Sequence[Any] | None, collected: Any
    ) -> tuple[str, Mapping[str, Any]]:
        """Return the text and the parameters of one execution.

        values: parameters given to execute(), by name.
        extracted: the bound values of the statement at hand; None if it is this one's.
        collected: values given with its `params()`, from SQLAlchemy 2.1 on.
        """
        if self._plan is None or not extracted or collected:
            return self._construct(values, extracted, collected)
        parameters = {}
        for name, key, position, required, processor in self._plan:
            if values and key in values:
                value = values[key]
            elif values and name in values:
                value = values[name]
            elif required:
                return self._construct(values, extracted, collected)  # raises SQLAlchemy's error
            else:
                value = extracted[position].effective_value
            parameters[name] = value if processor is None else processor(value)
        return self._text, parameters

    def _construct(
        self, values: Any, extracted: Sequence[Any] | None, collected: Any
    ) -> tuple[str, dict[str, Any]]:
        """The same by SQLAlchemy's means."""
        compiled = self._compiled
        keywords: dict[str, Any] = {}
        if extracted:
            # what was compiled may have had a value where this one has a callable
            keywords["extracted_parameters"] = [
                bound if bound.callable is None else bound._with_value(bound.effective_value)
                for bound in extracted
            ]
        if collected:
            keywords["_collected_params"] = collected
        if compiled.escaped_bind_names:
            keywords["escape_names"] = False
        parameters: dict[str, Any] = compiled.construct_params(values, **keywords)
        processors: dict[str, Any] = compiled._bind_processors
        text = self._text
        if self._expanding:
            state = compiled._process_parameters_for_postcompile(parameters)
            text = state.statement
            processors = {**processors, **state.processors}
        escaped = compiled.escaped_bind_names or {}
        return text, {
            escaped.get(name, name): processors[name](value) if name in processors else value
            for name, value in parameters.items()
        }

    def bind_many(
        self, sets: Sequence[Any], extracted: Sequence[Any] | None, collected: Any
    ) -> tuple[str, list[Mapping[str, Any]]]:
        """Return the text and the parameters for each of several sets of values."""
        if self._expanding:
            raise exc.ArgumentError(
                "a statement with several parameter sets cannot have lists in IN (...)"
            )
        return self._text, [self.bind(values, extracted, collected)[1] for values in sets]


def _plan(compiled: Any) -> Any:
    """What `Statement.bind()` needs of each parameter, None where only SQLAlchemy can tell."""
    if (
        type(compiled).construct_params not in _PLAIN
        or compiled.prefetch
        or compiled.escaped_bind_names
        or compiled.cache_key is None
    ):
        return None
    matches = compiled._cache_key_bind_match
    if isinstance(matches, tuple):  # from SQLAlchemy 2.0 on
        matches = matches[0]
    positions = {
        bound: position
        for position, original in enumerate(compiled.cache_key[1])
        for bound in matches[original]
    }
    processors = compiled._bind_processors
    plan = []
    for bound, name in compiled.bind_names.items():
        if bound not in positions:
            return None
        plan.append((name, bound.key, positions[bound], bound.required, processors.get(name)))
    return plan


def statement_for(
    query: Any, dialect: Any, values: Any, many: bool
) -> tuple[Statement, Sequence[Any] | None, Any]:
    """Return the compiled statement, and of `query` the arguments of its `bind()`.

    values: the parameters given to execute(), or the first of several sets.
    many: whether there are several sets.
    """
    columns = _columns(query, values)
    cache = _cache_of(dialect)
    key = None if cache is None else query._generate_cache_key()
    if key is None:
        compiled = query.compile(
            dialect=dialect, column_keys=list(columns), for_executemany=many
        )
        return Statement(compiled), None, None
    found = cache.get((key[0], columns, many))
    if found is None:
        compiled = query.compile(
            dialect=dialect, cache_key=key, column_keys=list(columns), for_executemany=many
        )
        found = cache[key[0], columns, many] = Statement(compiled)
    return found, key[1], key[2] if len(key) > 2 else None


def _columns(query: Any, values: Any) -> tuple[str, ...]:
    """The columns that an INSERT or UPDATE without values of its own takes from the parameters."""
    if not values or not isinstance(query, (Insert, Update)) or _has_values(query):
        return ()
    columns = query.table.c
    return tuple(sorted(key for key in values if isinstance(key, str) and key in columns))


def _has_values(query: Any) -> bool:
    return any(
        getattr(query, name, None)
        for name in ("_values", "_multi_values", "_ordered_values", "_select_names", "select")
    )


def _cache_of(dialect: Any) -> Any:
    try:
        return dialect._aiopgx_compiled_cache
    except AttributeError:
        # A subclass that has not said that its statements may be cached compiles each time.
        # SQLAlchemy's own property would warn, and aiopg doesn't.
        cachable = type(dialect).__dict__.get("supports_statement_cache")
        dialect._aiopgx_compiled_cache = LRUCache(CACHE_SIZE) if cachable else None
        return dialect._aiopgx_compiled_cache
