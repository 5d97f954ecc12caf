"""Values as psycopg2's literals of them: for those that `_encode` has no binary form for."""

import codecs
import re
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import ROUND_HALF_UP, Decimal
from typing import Any
from uuid import UUID

import psycopg2
from psycopg2 import _psycopg, extensions, extras
from psycopg2.extensions import ISQLQuote, adapt, adapters, encodings
from psycopg2.extras import DateTimeTZRange, HstoreAdapter, Json, Range

# The types that are what they are, with the adapter that psycopg2 has for them.
PLAIN = {
    int: extensions.Int,
    bool: extensions.Boolean,
    float: extensions.Float,
    str: extensions.QuotedString,
    bytes: extensions.Binary,
    list: _psycopg.List,
    date: _psycopg.DateFromPy,
    time: _psycopg.TimeFromPy,
    datetime: _psycopg.TimestampFromPy,
    timedelta: _psycopg.IntervalFromPy,
    Decimal: _psycopg.Decimal,
    UUID: extras.UUID_adapter,
}
# What goes into no type that is not known, or into those of one category of pg_type's.
_CATEGORIES: list[tuple[Any, str]] = [
    (list, "A"),
    (tuple, "C"),
    (Range, "R"),
    ((bool, bytes, UUID, date, time, timedelta), ""),
]
_NUMBER = re.compile(rb"\s*[+-]?\d+(\.\d*)?([eE][+-]?\d+)?\Z")
_QUOTED = re.compile(rb"\s*(?:'((?:[^']|'')*)'|E'((?:[^'\\]|''|\\\\)*)')(?:::([\w ]+))?\Z")
_WORDS = {b"NULL": None, b"true": True, b"false": False}
_BY_CAST: dict[str, Callable[[str], Any]] = {
    "float": float,
    "numeric": Decimal,
    "bytea": lambda text: bytes.fromhex(text[2:]) if text[:2] == "\\x" else text,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "timetz": time.fromisoformat,
    "timestamp": datetime.fromisoformat,
    "timestamptz": datetime.fromisoformat,
}


class _Typed(str):
    """What a literal with a cast says, where the cast makes more of it than a text."""

    __slots__ = ()


def simple(value: Any, raw: Any) -> Any:
    """The value as one of a plain type, or None: what the literal of its adapter says.

    Raises psycopg2's ProgrammingError if there is no adapter, or if it writes an expression.
    """
    cls = type(value)
    if cls in PLAIN and adapters.get((cls, ISQLQuote)) is PLAIN[cls]:
        return value
    adapted = adapt(value)
    if type(adapted) is Json:
        return adapted.dumps(adapted.adapted)
    if type(adapted) is HstoreAdapter:
        return _Typed(_hstore(adapted.wrapped, raw))
    if hasattr(adapted, "prepare"):
        adapted.prepare(raw)
    return _read(adapted.getquoted(), raw)


def _read(literal: bytes, raw: Any) -> Any:
    """A literal as the value that it stands for."""
    if literal in _WORDS:
        return _WORDS[literal]
    if _NUMBER.match(literal):
        text = literal.decode().strip()
        return int(text) if text.lstrip("+-").isdigit() else Decimal(text)
    found = _QUOTED.match(literal)
    if found is None:
        shown = literal.decode("utf-8", "replace")
        raise psycopg2.ProgrammingError(f"an expression can't be copied: {shown:.80}")
    plain, escaped, cast = found.groups()
    body = plain if escaped is None else escaped.replace(b"\\\\", b"\\")
    text = codecs.decode(body.replace(b"''", b"'"), encodings[raw.encoding])
    return text if cast is None else _BY_CAST.get(cast.decode(), _Typed)(text)


def field_text(value: Any, raw: Any, category: str) -> str | None:
    """A value for a type that is not known, as a text that its input function reads.

    category: the type's in pg_type. Refuses what the server would store as another type's text: a
    type like citext has casts.
    """
    for cls, wanted in _CATEGORIES:
        if isinstance(value, cls) and category != wanted:
            kind = type(value).__name__
            raise psycopg2.DataError(
                f"a {kind} can't be copied to a column of this type: give it as a str"
            )
    return _inner(value, raw)


def _inner(value: Any, raw: Any) -> str | None:
    """The same for a value, or a part of one."""
    if isinstance(value, Range) and type(value).__module__ == Range.__module__:
        return _range(value, raw)
    if isinstance(value, tuple) and (
        type(value) is tuple or (type(value), ISQLQuote) not in adapters
    ):
        return _composite(value, raw)
    plain = simple(value, raw)
    if plain is None:
        return None
    return _array(plain, raw) if isinstance(plain, list) else plain_text(plain)


def plain_text(value: Any) -> str:
    """A value of a plain type, no list, as the server reads it."""
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case float() | Decimal():
            return _digits(value or abs(value))
        case bytes():
            return "\\x" + value.hex()
        case date() | time():
            return value.isoformat()
        case timedelta():
            return f"{value.days} days {value.seconds}.{value.microseconds:06} seconds"
        case _:
            return str(value)


def _digits(number: Any) -> str:
    if isinstance(number, Decimal) and not number.is_finite():
        return "NaN"  # as psycopg2 writes all of these
    text = str(number)
    if text[-1] not in "0123456789":
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[text]
    return format(Decimal(text), "f") if "e" in text.lower() else text


def _array(items: list[Any], raw: Any) -> str:
    parts = []
    for item in items:
        if isinstance(item, list):
            parts.append(_array(item, raw))
        else:
            text = _inner(item, raw)
            parts.append("NULL" if text is None else in_quotes(text))
    return "{" + ",".join(parts) + "}"


def _composite(items: tuple[Any, ...], raw: Any) -> str:
    texts = []
    for item in items:
        if isinstance(item, datetime) and item.tzinfo is not None:
            # the same for a timestamp with and without time zone
            if raw.get_parameter_status("TimeZone") not in ("UTC", "Etc/UTC"):
                raise psycopg2.DataError(
                    "a datetime with time zone in a composite can only be copied while the "
                    "session's time zone is UTC: give it as a str"
                )
            item = item.astimezone(timezone.utc)
        texts.append(_inner(item, raw))
    return "(" + ",".join("" if text is None else in_quotes(text) for text in texts) + ")"


def _range(value: Any, raw: Any) -> str:
    if value.isempty:
        return "empty"
    bounds = (value.lower, value.upper)
    if not isinstance(value, DateTimeTZRange) and any(getattr(b, "tzinfo", None) for b in bounds):
        raise psycopg2.DataError(f"a {type(value).__name__} has no time zone")
    texts = [_inner(bound, raw) for bound in bounds]
    lower, upper = ("" if text is None else in_quotes(text) for text in texts)
    return f"{'[' if value.lower_inc else '('}{lower},{upper}{']' if value.upper_inc else ')'}"


def _hstore(items: dict[Any, Any], raw: Any) -> str:
    def quoted(item: Any) -> str:
        text = _inner(item, raw)
        return "NULL" if text is None else in_quotes(text)

    return ", ".join(f"{quoted(key)}=>{quoted(item)}" for key, item in items.items())


def in_quotes(text: str) -> str:
    """An element of an array, field of a composite or bound of a range."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def number_text(value: Any) -> Any:
    """What the server's assignment of a number, bool or UUID to a text stores."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | UUID():
            return str(value)
        case float() | Decimal():
            return _digits(value or abs(value))
        case _:
            return NotImplemented


def rounded(number: float | Decimal) -> int:
    """A number as the server rounds it to an integer: halves away from zero."""
    exact = number if isinstance(number, Decimal) else Decimal(repr(number))
    if not exact.is_finite():
        raise psycopg2.DataError(f"cannot convert {number} to integer")
    return int(exact.to_integral_value(ROUND_HALF_UP))


def shortened(value: Any) -> str:
    """A value in an error's text."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def hint(name: str, value: Any) -> str:
    """What can be done for a value that a type does not take."""
    if name in ("json", "jsonb") and isinstance(value, dict | list):
        return ": wrap it in psycopg2.extras.Json"
    if name == "timestamp with time zone" and isinstance(value, date):
        return " unless the first record has one without time zone, too"
    if name.startswith(("timestamp", "date")) and getattr(value, "tzinfo", None) is not None:
        return ": its outcome depends on the session's time zone"
    return ""
