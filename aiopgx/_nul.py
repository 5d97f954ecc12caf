"""NUL bytes in statements and names: refused.

psycopg2 sends what stands before the NUL, and drops the rest without a word: another statement, or
another table, than the one that was named.
"""

from typing import Any

from psycopg2.extensions import quote_ident
from psycopg2.sql import SQL, Composable, Composed, Identifier


def refuse_nul(operation: Any) -> None:
    """Raise ValueError if there is a NUL in a statement: str, bytes, or one of psycopg2.sql."""
    if _has_nul(operation):
        raise ValueError("a statement cannot contain NUL (0x00) characters")


def written(operation: Composable, cursor: Any) -> Any:
    """The text of a composed statement. An empty one stays what it is, for the server to refuse."""
    refuse_nul(operation)
    return operation.as_string(cursor) or operation


def identifier(name: Any, raw: Any) -> str:
    """A name, quoted. Raises ValueError if there is a NUL in it."""
    if _has_nul(name):
        raise ValueError(f"a name cannot contain NUL (0x00) characters: {name!r}")
    if isinstance(name, str):  # psycopg2 takes its UTF-8 for the client's encoding
        doubled = name.replace('"', '""')
        return f'"{doubled}"'
    quoted: str = quote_ident(name, raw)
    return quoted


def _has_nul(operation: Any) -> bool:
    if isinstance(operation, Composed):
        return any(map(_has_nul, operation.seq))
    if isinstance(operation, Identifier):
        return any(map(_has_nul, operation.strings))
    if isinstance(operation, SQL):
        operation = operation.string
    if isinstance(operation, bytes):
        return b"\0" in operation
    return isinstance(operation, str) and "\0" in operation
