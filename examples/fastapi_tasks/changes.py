"""From NOTIFY to the open pages.

Triggers of the database notify of every change, whoever makes it. One connection of the service
listens and counts; each page waits for the count to move.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import psycopg2
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

CHANNEL = "tasks_changed"
RETRY_SECONDS = 1.0

logger = logging.getLogger(__name__)


class Changes:
    """How many changes have been seen. It is for one event loop."""

    def __init__(self) -> None:
        self._count = 0
        self._closed = False
        self._moved = asyncio.Condition()

    async def follow(self, engine: AsyncEngine) -> None:
        """Listen until cancelled; when the connection is lost, on a new one."""
        while True:
            try:
                await self._listen(engine)
            except (DBAPIError, psycopg2.Error, OSError) as error:
                logger.warning("not listening for %.0f s: %s", RETRY_SECONDS, error)
                await asyncio.sleep(RETRY_SECONDS)

    async def _listen(self, engine: AsyncEngine) -> None:
        async with engine.connect() as conn:
            await conn.execution_options(isolation_level="AUTOCOMMIT")
            await conn.execute(text(f"LISTEN {CHANNEL}"))
            await self._move()  # something may have happened while nobody listened
            driver: Any = (await conn.get_raw_connection()).driver_connection
            async for _ in driver.notifies:
                await self._move()

    async def _move(self) -> None:
        async with self._moved:
            self._count += 1
            self._moved.notify_all()

    async def close(self) -> None:
        """End all streams."""
        async with self._moved:
            self._closed = True
            self._moved.notify_all()

    async def stream(self) -> AsyncIterator[int]:
        """Yield the count at once, and again when it has moved."""
        seen = -1
        while not self._closed:
            if self._count > seen:
                seen = self._count
                yield seen
            async with self._moved:
                while not self._closed and self._count == seen:
                    await self._moved.wait()
