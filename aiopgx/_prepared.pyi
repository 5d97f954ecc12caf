import asyncio
from typing import Any

from ._core import Wire
from ._requests import Session

def execute(
    wire: Wire,
    impl: Any,
    shape: int,
    operation: Any,
    parameters: Any,
    timeout: float | None,
    session: Session | None = None,
    prepare: bool | None = None,
) -> asyncio.Future[list[Any]]: ...
