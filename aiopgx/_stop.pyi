import asyncio

from ._core import Wire

class Stop:
    @property
    def done(self) -> asyncio.Future[bool]: ...

def stop(wire: Wire, limit: float) -> Stop | None: ...
