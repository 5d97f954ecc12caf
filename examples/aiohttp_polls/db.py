"""The tables, and what is done with them. Each function takes a connection of `aiopgx.sa`."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from aiopgx.sa import Engine, SAConnection
from psycopg2.errors import ForeignKeyViolation, UniqueViolation
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

metadata = sa.MetaData()

poll = sa.Table(
    "poll",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("question", sa.Text, nullable=False, unique=True),
    sa.Column("tags", postgresql.ARRAY(sa.Text), nullable=False),
    sa.Column("asked", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
)

choice = sa.Table(
    "choice",
    metadata,
    sa.Column("poll_id", sa.ForeignKey(poll.c.id, ondelete="CASCADE"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("label", sa.Text, nullable=False),
    sa.Column("votes", sa.Integer, server_default="0", nullable=False),
)

ballot = sa.Table(
    "ballot",
    metadata,
    sa.Column("poll_id", sa.ForeignKey(poll.c.id, ondelete="CASCADE"), primary_key=True),
    sa.Column("voter", sa.Text, primary_key=True),
)

# One statement can be executed by the engine, on a connection that others share, or on a given one.
On = Engine | SAConnection

LOCK = 7_061_737  # any number that nobody else in this database locks


class NotFound(Exception):
    """There is no such poll, or no such choice in it."""


class Conflict(Exception):
    """What is in the database already rules this out."""


async def create_tables(conn: SAConnection) -> None:
    """Make the tables that are missing; services that start at the same time take turns."""
    async with conn.begin():
        await conn.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK)))
        for table in metadata.sorted_tables:
            await conn.execute(CreateTable(table, if_not_exists=True))


async def list_polls(on: On) -> list[dict[str, Any]]:
    """All polls, the newest first, with the number of votes."""
    query = (
        sa.select(poll, sa.func.coalesce(sa.func.sum(choice.c.votes), 0).label("votes"))
        .select_from(poll.outerjoin(choice))
        .group_by(poll.c.id)
        .order_by(poll.c.id.desc())
    )
    return [dict(row) async for row in on.execute(query)]


async def get_poll(on: On, poll_id: int) -> dict[str, Any]:
    """One poll with its choices. Raises NotFound."""
    row = await (await on.execute(sa.select(poll).where(poll.c.id == poll_id))).first()
    if row is None:
        raise NotFound("there is no such poll")
    choices = (
        sa.select(choice.c.number, choice.c.label, choice.c.votes)
        .where(choice.c.poll_id == poll_id)
        .order_by(choice.c.number)
    )
    result = await on.execute(choices)
    return {**row, "choices": [dict(row) for row in await result.fetchall()]}


async def create_poll(conn: SAConnection, question: str, labels: list[str], tags: list[str]) -> int:
    """Add a poll with its choices and return its id. Raises Conflict."""
    try:
        async with conn.begin():
            new = poll.insert().values(question=question, tags=tags).returning(poll.c.id)
            poll_id: int = await conn.scalar(new)
            rows = [
                {"poll_id": poll_id, "number": number, "label": label}
                for number, label in enumerate(labels, 1)
            ]
            await conn.execute(choice.insert().values(rows))
    except UniqueViolation:
        raise Conflict("this question has been asked already") from None
    return poll_id


async def vote(conn: SAConnection, poll_id: int, number: int, voter: str) -> None:
    """Count a vote; each voter has one. Raises NotFound or Conflict, and nothing is counted."""
    try:
        async with conn.begin():
            await conn.execute(ballot.insert().values(poll_id=poll_id, voter=voter))
            counted = await conn.scalar(
                choice.update()
                .where(choice.c.poll_id == poll_id, choice.c.number == number)
                .values(votes=choice.c.votes + 1)
                .returning(choice.c.votes)
            )
            if counted is None:
                raise NotFound("there is no such choice")
    except ForeignKeyViolation:
        raise NotFound("there is no such poll") from None
    except UniqueViolation:
        raise Conflict(f"{voter} has voted already") from None


async def delete_poll(on: On, poll_id: int) -> None:
    """Delete a poll with all votes. Raises NotFound."""
    result = await on.execute(poll.delete().where(poll.c.id == poll_id))
    if result.rowcount == 0:
        raise NotFound("there is no such poll")
