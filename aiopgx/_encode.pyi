from collections.abc import Iterator, Sequence
from typing import Any, final

KINDS: dict[int, int]
ELEMENTS: dict[int, int]

@final
class Encoder:
    binary: bool
    count: int
    used: int
    def __new__(
        cls, raw: Any, names: Sequence[str], types: Sequence[tuple[int, str]]
    ) -> Encoder: ...
    def begin(self, first: list[Any]) -> None: ...
    def fill(self, records: Iterator[Any]) -> bool: ...
    def append_record(self, record: Any) -> bool: ...
    def end(self) -> None: ...
