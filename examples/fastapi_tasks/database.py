"""Where the database is, and the session that a request works in."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Request
from psycopg2.extensions import parse_dsn
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncSession


def url() -> URL:
    """Return AIOPGX_DSN, a URL or libpq's key=value pairs, as SQLAlchemy wants it."""
    parameters = parse_dsn(os.environ["AIOPGX_DSN"])
    port = parameters.pop("port", None)
    return URL.create(
        "postgresql+aiopgx",
        username=parameters.pop("user", None),
        password=parameters.pop("password", None),
        host=parameters.pop("host", None),
        port=int(port) if port else None,
        database=parameters.pop("dbname", None),
        query=parameters,
    )


async def session(request: Request) -> AsyncIterator[AsyncSession]:
    """Give a request its session: one transaction, which an exception rolls back."""
    async with request.app.state.sessions.begin() as session:
        yield session


async def reading_session(request: Request) -> AsyncIterator[AsyncSession]:
    """Give a request a session that commits nothing: the client may leave in the middle."""
    async with request.app.state.sessions() as session:
        yield session


# scope="function": committed before the response is sent, so that nobody reads of it too early.
Session = Annotated[AsyncSession, Depends(session, scope="function")]

# scope="request": open while the response is sent, which is read from it.
StreamingSession = Annotated[AsyncSession, Depends(reading_session, scope="request")]
