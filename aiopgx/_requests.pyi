import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from ._core import Wire

class _Portal(Protocol):
    name: bytes
    quoted: bytes

class _Portals(Protocol):
    def lasts(self, portal: Any) -> bool: ...
    def freed(self, portal: Any, error: BaseException | None) -> None: ...

class Session:
    status: int
    opening: bytes | None

def check_size(parameters: Any) -> None: ...
def execute_foreign(
    wire: Wire,
    start: Callable[[Any, Any], Any],
    operation: Any,
    parameters: Any,
    timeout: float | None,
    session: Session | None = None,
) -> asyncio.Future[list[Any]]: ...
def command(
    wire: Wire,
    operation: str | bytes,
    parameters: Any,
    timeout: float | None,
    session: Session | None = None,
) -> asyncio.Future[list[Any]]: ...
def begin(wire: Wire, timeout: float | None, session: Session) -> asyncio.Future[list[Any]]: ...
def end(
    wire: Wire, operation: str | bytes, timeout: float | None, session: Session
) -> asyncio.Future[list[Any]]: ...
def pause(wire: Wire, session: Session) -> asyncio.Future[list[Any]]: ...
def end_portal(
    wire: Wire, portals: _Portals, portal: _Portal, timeout: float | None
) -> asyncio.Future[None] | None: ...
