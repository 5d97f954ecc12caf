from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

_T = TypeVar("_T", bound=RowCore)

class RowCore:
    _result_proxy: Any
    _row: Sequence[Any]
    _keymap: dict[Any, Any]
    def __init__(
        self, result_proxy: Any, row: Sequence[Any], processors: Any = None, keymap: Any = None
    ) -> None: ...
    def __len__(self) -> int: ...
    def __getitem__(self, key: Any, /) -> Any: ...
    def _attribute(self, name: str) -> Any: ...

def proxies(cls: type[_T], result_proxy: Any, rows: Iterable[Sequence[Any]]) -> list[_T]: ...
