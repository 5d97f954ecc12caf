"""The dialect behind PgBouncer: what is cancelled or out of time stops on the server."""

import asyncio

import pytest
import sqlalchemy as sa
from sqlalchemy.pool import NullPool
from support import nothing_left, running, until

pytestmark = [pytest.mark.needs("pgbouncer"), pytest.mark.needs("openssl")]

MARK = "/* by the dialect */"


# not statement mode, where SQLAlchemy's first questions are refused: they are in a transaction
@pytest.fixture(params=["session", "transaction"])
def bouncer(request, pooler, side):
    with nothing_left(side, MARK):
        yield pooler(request.param)


@pytest.mark.parametrize("way", ["cancel", "timeout"])
async def test_given_up(engine, url, bouncer, side, way):
    url = url.set(host="127.0.0.1", port=bouncer.port)
    url = url.update_query_dict({"sslmode": "disable"})
    if way == "timeout":
        url = url.update_query_dict({"timeout": "1"})
    engine = engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")

    async def sleep():
        async with engine.connect() as connection:
            connected.append(connection)
            await until(lambda: len(connected) == 20)
            await connection.execute(sa.text(f"SELECT pg_sleep(30) {MARK}"))

    connected = []
    async with engine.connect() as connection:  # SQLAlchemy's own first questions
        await connection.execute(sa.text("SELECT 1"))
    tasks = [asyncio.create_task(sleep()) for _ in range(20)]
    # on a loaded machine the first may be out of time before the last has begun
    await until(lambda: running(side, MARK) == 20 or any(task.done() for task in tasks))
    if way == "cancel":
        for task in tasks:
            task.cancel()
    done, waiting = await asyncio.wait(tasks, timeout=4)
    assert not waiting, "they wait for the server"
    if way == "timeout":
        assert {type(task.exception()) for task in done} == {asyncio.TimeoutError}
    else:
        assert all(task.cancelled() for task in done)
    await until(lambda: running(side, MARK) == 0)
    assert bouncer.alive, bouncer.log.read_text()
    async with engine.connect() as connection:
        assert await connection.scalar(sa.text("SELECT 1")) == 1
