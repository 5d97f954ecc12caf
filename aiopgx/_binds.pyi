from typing import Any

def bound(
    values: tuple[Any, ...], untyped: bytes | None = None
) -> list[tuple[int, int, bytes | None]] | None: ...
