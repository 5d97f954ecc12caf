from collections.abc import Awaitable, Callable, Generator
from types import TracebackType
from typing import Any, Generic, TypeVar

_T = TypeVar("_T")

class ContextCore(Generic[_T]):
    _coro: Any
    _obj: Any
    _release: Callable[[_T], Awaitable[Any]]
    _release_on_exception: Callable[[_T], Awaitable[Any]]
    def __init__(
        self,
        coro: Awaitable[_T],
        release: Callable[[_T], Awaitable[Any]],
        release_on_exception: Callable[[_T], Awaitable[Any]] | None = None,
    ) -> None: ...
    def send(self, value: Any) -> Any: ...
    def throw(self, typ: Any, val: Any = None, tb: TracebackType | None = None) -> Any: ...
    def close(self) -> None: ...
    def __await__(self) -> Generator[Any, None, _T]: ...
    def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> Awaitable[None]: ...
