import asyncio
from collections.abc import Callable
from typing import Any

import psycopg2

from .utils import ClosableQueue

native_road: bool

class Wire:
    def __init__(
        self,
        raw: Any,
        loop: asyncio.AbstractEventLoop,
        queue: asyncio.Queue[Any],
        notifies: ClosableQueue,
        cancel_timeout: float,
    ) -> None: ...
    @property
    def raw(self) -> Any: ...
    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...
    @property
    def native(self) -> bool: ...
    @property
    def rests(self) -> int: ...
    @property
    def leaving(self) -> asyncio.Future[None] | None: ...
    @property
    def reason(self) -> BaseException | None: ...
    def closed_error(self, text: str) -> psycopg2.InterfaceError: ...
    @property
    def closed(self) -> int: ...
    @property
    def busy(self) -> bool: ...
    @property
    def forked(self) -> bool: ...
    def refusal(self, caller: str) -> RuntimeError | None: ...
    def connect(self, timeout: float | None) -> asyncio.Future[list[BaseException | None]]: ...
    def execute(
        self,
        impl: Any,
        shape: int,
        operation: Any,
        parameters: Any,
        timeout: float | None,
        opening: bytes | None = None,
    ) -> asyncio.Future[list[Any]]: ...
    def execute_foreign(
        self,
        start: Callable[[Any, Any], Any],
        operation: Any,
        parameters: Any,
        timeout: float | None,
    ) -> asyncio.Future[list[BaseException | None]]: ...
    def close(self) -> None: ...
