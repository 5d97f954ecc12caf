import asyncio
from typing import Any

def cancel_and_close(raw: Any, loop: asyncio.AbstractEventLoop) -> asyncio.Future[None] | None: ...
def watched_sockets() -> set[int]: ...

# Seconds for which the end of the program waits.
LAST: float
