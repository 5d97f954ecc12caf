from typing import Any, TypeVar

_E = TypeVar("_E", bound=Exception)

errors_known: bool

def make_error(cls: type[_E], message: str, cursor: Any) -> _E: ...
