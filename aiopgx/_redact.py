"""No password in what is said of a connection string, however broken it is; clear words for none.

libpq's errors quote what they could not read: a whole URL, or a part of a password with a "/" or a
"%" in it.
"""

import os
import re
from typing import Any
from urllib.parse import unquote

import psycopg2
from psycopg2.extensions import make_dsn, parse_dsn

from ._keywords import LIBPQ

# The last three are libpq 18's: who has them needs no password.
_PASSWORDS = [
    *("password", "sslpassword"),
    *("oauth_client_secret", "scram_client_key", "scram_server_key"),
]
_HIDDEN = "xxx"  # as psycopg2 shows it

_NAMES = rf"\b(?:{'|'.join(_PASSWORDS)})"

# What may be a password: whatever stands where one belongs, to the last place where it could end.
_SECRETS = [
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r"^\s*(?:[\w+.-]+:/+)?[^:@]*?:(.*)@",
        rf"[?&]{_NAMES}=([^&]*)",
        rf"{_NAMES}\s*=\s*('(?:[^'\\]|\\.)*'?\S*)",
        rf"{_NAMES}\s*=\s*(.*?)(?=\s+(?:{'|'.join(LIBPQ.split())})\s*=|$)",
    )
]


def make_clear(error: BaseException, dsn: Any) -> None:
    """Take passwords out of an error of connecting, and of those behind it; give words to none."""
    if isinstance(dsn, bytes):
        dsn = dsn.decode(errors="replace")
    behind: BaseException | None = error
    while behind is not None:
        if isinstance(behind, psycopg2.Error) and len(behind.args) == 1:
            text = str(behind.args[0])
            told = hidden(text, dsn) if isinstance(dsn, str) else text
            told = told if told.strip() else _unsaid()
            if told != text:
                behind.args = (told,)
        behind = behind.__cause__ or behind.__context__


def hidden(text: str, dsn: str) -> str:
    """The text, without what it quotes of the passwords of a connection string."""
    for form in dict.fromkeys((dsn, unquote(dsn))):
        spans = [match.span(1) for secret in _SECRETS for match in secret.finditer(form)]
        spans = [span for span in spans if span[0] < span[1]]
        if spans:
            text = _without(text, form, spans)
    return text


def _without(text: str, dsn: str, spans: list[tuple[int, int]]) -> str:
    """What is quoted, and stands in the string only where a password does."""
    shown = ""
    while True:
        before, mark, rest = text.partition('"')
        shown += before + mark
        if not mark:
            return shown
        length = 0
        while length < len(rest) and rest[: length + 1] in dsn:
            length += 1
        quoted = rest[:length]
        if quoted and all(_meets(place, length, spans) for place in _places(quoted, dsn)):
            start, end = _covered(dsn.index(quoted), length, spans)
            quoted = quoted[:start] + _HIDDEN + quoted[end:]
        inside, mark, text = rest[length:].partition('"')
        shown += quoted + inside + mark


def _places(part: str, dsn: str) -> list[int]:
    return [n for n in range(len(dsn)) if dsn.startswith(part, n)]


def _meets(place: int, length: int, spans: list[tuple[int, int]]) -> bool:
    return any(start < place + length and place < end for start, end in spans)


def _covered(place: int, length: int, spans: list[tuple[int, int]]) -> tuple[int, int]:
    """From where to where the part at `place` is a password, counted from its start."""
    met = [span for span in spans if _meets(place, length, [span])]
    start = max(min(start for start, _ in met) - place, 0)
    return start, min(max(end for _, end in met) - place, length)


def without_passwords(dsn: str) -> str:
    """A connection string that can be read, to be shown."""
    parameters = parse_dsn(dsn)
    found = {name: _HIDDEN for name in _PASSWORDS if name in parameters}
    return make_dsn(**{**parameters, **found}) if found else dsn


def _unsaid() -> str:
    """libpq has no words for a socket that it could not make."""
    try:
        os.close(os.dup(0))
    except OSError as error:
        return f"could not create a socket: {error.strerror}\n"
    return "the connection failed; libpq does not say why\n"
