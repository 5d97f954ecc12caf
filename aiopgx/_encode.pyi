from collections.abc import Iterator, Sequence
from typing import Any

KINDS: dict[int, int]
ELEMENTS: dict[int, int]

class Encoder:
    binary: bool
    count: int
    used: int
    def __init__(
        self, raw: Any, names: Sequence[str], types: Sequence[tuple[int, str]]
    ) -> None: ...
    def begin(self, first: list[Any]) -> None: ...
    def fill(self, records: Iterator[Any]) -> bool: ...
    def append_record(self, record: Any) -> bool: ...
    def end(self) -> None: ...
