"""Alembic's way into the database: over the service's own driver."""

from __future__ import annotations

import asyncio

from alembic import context
from sqlalchemy import Connection, func, pool, select
from sqlalchemy.ext.asyncio import create_async_engine

from database import url
from models import Base

LOCK = 7_061_736  # any number that nobody else in this database locks


def migrate(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=Base.metadata)
    with context.begin_transaction():
        # Services that start at the same time take turns.
        connection.execute(select(func.pg_advisory_xact_lock(LOCK)))
        context.run_migrations()


async def online() -> None:
    engine = create_async_engine(url(), poolclass=pool.NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(migrate)


if context.is_offline_mode():
    context.configure(url=url(), target_metadata=Base.metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    asyncio.run(online())
