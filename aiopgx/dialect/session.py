"""What psycopg2 keeps of a session: the characteristics of its transactions, as SQL."""

from typing import Any

LEVELS = {1: "READ COMMITTED", 2: "REPEATABLE READ", 3: "SERIALIZABLE", 4: "READ UNCOMMITTED"}

_NUMBERS = {name: number for number, name in LEVELS.items()}


def level_of(value: Any) -> int | None:
    """The number of an isolation level that is given as psycopg2 allows; None for the default.

    Raises ValueError and TypeError as psycopg2 does.
    """
    if value is None:
        return None
    if isinstance(value, int):
        if value not in LEVELS:
            raise ValueError("isolation_level must be between 1 and 4")
        return int(value)
    if isinstance(value, bytes):
        value = value.decode()
    if not isinstance(value, str):
        raise TypeError(f"Expected bytes or unicode string, got {type(value).__name__} instead")
    if value.upper() == "DEFAULT":
        return None
    if value.upper() not in _NUMBERS:
        raise ValueError(f"bad value for isolation_level: '{value}'")
    return _NUMBERS[value.upper()]


def switch_of(value: Any) -> bool | None:
    """On, off or None (the server's default), given as psycopg2 allows. Raises ValueError."""
    if isinstance(value, bytes):
        value = value.decode()
    if isinstance(value, str):
        if value.upper() != "DEFAULT":
            raise ValueError(f"the only string accepted is 'default'; got {value}")
        return None
    return None if value is None else bool(value)


class Characteristics:
    """Isolation level, read-only and deferrable of a session's transactions; None: the default."""

    __slots__ = ("deferrable", "level", "readonly")

    def __init__(
        self, level: int | None = None, readonly: bool | None = None, deferrable: bool | None = None
    ) -> None:
        self.level: int | None = level
        self.readonly: bool | None = readonly
        self.deferrable: bool | None = deferrable

    def begin(self) -> bytes:
        """The statement that opens a transaction with them."""
        words = ["BEGIN"]
        if self.level is not None:
            words.append(f"ISOLATION LEVEL {LEVELS[self.level]}")
        if self.readonly is not None:
            words.append("READ ONLY" if self.readonly else "READ WRITE")
        if self.deferrable is not None:
            words.append("DEFERRABLE" if self.deferrable else "NOT DEFERRABLE")
        return " ".join(words).encode()

    def settings(self) -> dict[str, str]:
        """The same as the server's settings, for sessions that open no transactions."""
        return {
            "default_transaction_isolation": _setting(self.level and LEVELS[self.level].lower()),
            "default_transaction_read_only": _setting(self.readonly),
            "default_transaction_deferrable": _setting(self.deferrable),
        }


def _setting(value: Any) -> str:
    if value is None:
        return "DEFAULT"
    return f"'{value}'" if isinstance(value, str) else "on" if value else "off"
