import asyncio
from typing import Any

from ._core import Wire

def enqueue(
    wire: Wire,
    impl: Any,
    shape: int,
    operation: Any,
    parameters: Any,
    timeout: float | None,
) -> asyncio.Future[list[Any]]: ...
