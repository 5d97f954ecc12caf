from asyncio import Future
from collections import deque
from typing import Any

from psycopg2.extensions import cursor

from .pool import Pool
from .rows import RowFactory

ALONE: object

def may_share(operation: Any, has_parameters: bool) -> bool: ...

class Ticket:
    waiter: Future[list[Any]]
    impl: cursor
    row_factory: RowFactory[Any] | None
    def __new__(
        cls,
        pool: Pool,
        sharing: Sharing,
        operation: Any,
        parameters: Any,
        factory: Any,
        timeout: float | None,
    ) -> Ticket: ...
    def abandon(self) -> None: ...

class Lane:
    conn: Any
    in_flight: int
    drained: bool

class Sharing:
    lanes: list[Lane]
    queue: deque[Ticket]
    owed: bool
    scouts: int
    def __new__(cls, limit: int) -> Sharing: ...
    def submit(self, pool: Pool, ticket: Ticket) -> None: ...
    def unserved(self, pool: Pool) -> Future[list[Any]] | None: ...
    def settle(self, pool: Pool) -> None: ...
    def waiting(self) -> int: ...
    def scouted(self, pool: Pool, conn: Any, error: BaseException | None) -> None: ...
    def take(self, pool: Pool, conn: Any) -> bool: ...
    def passed_by(self) -> None: ...
    def end(self, error: BaseException) -> None: ...
