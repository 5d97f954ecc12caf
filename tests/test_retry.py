"""`aiopgx.retry`: transactions that the server rolled back are tried again."""

import asyncio
import logging
import random

import psycopg2
import pytest
import sqlalchemy
from psycopg2.errors import DeadlockDetected, LockNotAvailable, SerializationFailure
from support import is_coroutine_function


@pytest.fixture
def account(side):
    with side.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS account")
        cursor.execute("CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL)")
        cursor.execute("INSERT INTO account VALUES (1, 0), (2, 0)")

    def balances():
        with side.cursor() as cursor:
            cursor.execute("SELECT balance FROM account ORDER BY id")
            return [balance for (balance,) in cursor.fetchall()]

    return balances


def failing(error, times, calls):
    """A coroutine function that raises `error` so many times, and keeps its arguments."""

    async def function(*args, **kwargs):
        calls.append((args, kwargs))
        if len(calls) <= times:
            raise error
        return "done"

    return function


@pytest.fixture
def pauses(monkeypatch):
    """The upper bounds of the pauses, none of which is made."""
    bounds = []
    monkeypatch.setattr(random, "uniform", lambda low, high: bounds.append((low, high)) or 0)
    return bounds


# --- on a server ----------------------------------------------------------------------------------


@pytest.mark.all_loops
async def test_serialization_failures(ours, pool, account):
    """Everybody reads and writes the same row; nothing is lost."""
    connections = await pool(minsize=8, maxsize=8)
    together = asyncio.Event()
    attempts = []

    @ours.retry(attempts=100, delay=0.002)
    async def deposit(amount):
        async with connections.acquire() as conn:
            cur = await conn.cursor(isolation_level=ours.IsolationLevel.serializable)
            async with cur.begin():
                await cur.execute("SELECT balance FROM account WHERE id = 1")
                (balance,) = await cur.fetchone()
                attempts.append(balance)
                if len(attempts) == 8:
                    together.set()
                await together.wait()
                await cur.execute(
                    "UPDATE account SET balance = %s WHERE id = 1", (balance + amount,)
                )
        return balance

    seen = await asyncio.gather(*(deposit(1) for _ in range(24)))
    assert sorted(seen) == list(range(24))
    assert account() == [24, 0]
    assert len(attempts) >= 24 + 7
    assert connections.freesize == connections.size == 8


async def test_deadlocks(ours, pool, account):
    connections = await pool(minsize=2)
    both = asyncio.Event()
    attempts = []

    @ours.retry
    async def move(source, target):
        async with connections.acquire() as conn, conn.cursor() as cur:
            await cur.execute("SET deadlock_timeout = '10ms'")
            async with cur.begin():
                sql = "UPDATE account SET balance = balance + %s WHERE id = %s"
                await cur.execute(sql, (-5, source))
                attempts.append(source)
                if len(attempts) == 2:
                    both.set()
                await both.wait()
                await cur.execute(sql, (5, target))

    await asyncio.gather(move(1, 2), move(2, 1))
    assert account() == [0, 0]
    assert len(attempts) >= 3


async def test_of_sqlalchemys_engine(ours, dsn, account):
    """`aiopgx.sa` raises psycopg2's errors."""
    sa = pytest.importorskip("aiopgx.sa")
    tries = []

    @ours.retry(delay=0)
    async def conflict():
        tries.append(1)
        async with sa.create_engine(dsn) as engine, engine.acquire() as conn, conn.begin():
            await conn.execute("UPDATE account SET balance = balance + 1 WHERE id = 1")
            if len(tries) == 1:
                await conn.execute("DO $$ BEGIN RAISE 'no' USING ERRCODE = '40001'; END $$")

    await conflict()
    assert account() == [1, 0]


# --- which errors, and how often ------------------------------------------------------------------


async def test_arguments_and_result(ours, pauses):
    calls = []
    function = failing(SerializationFailure(), 2, calls)
    assert await ours.retry(function)(1, key=2) == "done"
    assert calls == [((1,), {"key": 2})] * 3


@pytest.mark.parametrize("error", [SerializationFailure(), DeadlockDetected()])
async def test_the_last_error_is_raised(ours, pauses, error):
    calls = []
    with pytest.raises(type(error)) as caught:
        await ours.retry(attempts=3)(failing(error, 9, calls))()
    assert caught.value is error
    assert len(calls) == 3


@pytest.mark.parametrize(
    "error",
    [
        psycopg2.OperationalError("server closed the connection unexpectedly"),
        psycopg2.errors.StatementCompletionUnknown(),
        psycopg2.errors.UniqueViolation(),
        psycopg2.errors.LockNotAvailable(),
        asyncio.TimeoutError(),
        asyncio.CancelledError(),
        KeyError(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_other_errors_are_raised_at_once(ours, pauses, error):
    """Whether a COMMIT was done when the connection broke, nobody knows."""
    calls = []
    with pytest.raises(type(error)):
        await ours.retry(failing(error, 1, calls))()
    assert len(calls) == 1


async def test_errors_can_be_chosen(ours, pauses):
    errors = (LockNotAvailable,)
    assert await ours.retry(errors=errors)(failing(LockNotAvailable(), 1, []))() == "done"
    with pytest.raises(SerializationFailure):
        await ours.retry(errors=errors)(failing(SerializationFailure(), 1, []))()


async def test_errors_of_sqlalchemy(ours, pauses):
    """They have psycopg2's as `orig`."""

    def wrapped(error):
        return sqlalchemy.exc.OperationalError("UPDATE ...", {}, error)

    assert await ours.retry(failing(wrapped(SerializationFailure()), 1, []))() == "done"
    with pytest.raises(sqlalchemy.exc.OperationalError):
        await ours.retry(failing(wrapped(psycopg2.OperationalError()), 1, []))()


async def test_pauses_are_random_and_grow(ours, pauses):
    function = failing(SerializationFailure(), 5, [])
    await ours.retry(delay=0.1, max_delay=0.5)(function)()
    assert pauses == [(0, 0.1), (0, 0.2), (0, 0.4), (0, 0.5), (0, 0.5)]


async def test_one_attempt_makes_no_pause(ours, pauses):
    with pytest.raises(SerializationFailure):
        await ours.retry(attempts=1)(failing(SerializationFailure(), 1, []))()
    assert pauses == []


async def test_cancelled_in_a_pause(ours):
    calls = []
    function = ours.retry(delay=1e6, max_delay=1e6)(failing(SerializationFailure(), 1, calls))
    task = asyncio.ensure_future(function())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(calls) == 1


async def test_each_attempt_is_logged(ours, pauses, caplog):
    caplog.set_level(logging.INFO, "aiopg")
    await ours.retry(attempts=3)(failing(SerializationFailure("secret"), 1, []))()
    (record,) = caplog.records
    assert record.getMessage() == (
        "attempt 1 of 3 of failing.<locals>.function failed with SerializationFailure, "
        "the next begins in 0.000 s"
    )


# --- arguments ------------------------------------------------------------------------------------


def test_it_stays_the_same_function(ours):
    @ours.retry
    async def transfer(amount):
        """Move money."""

    assert (transfer.__name__, transfer.__doc__) == ("transfer", "Move money.")
    assert is_coroutine_function(transfer)


async def test_methods(ours, pauses):
    class Bank:
        calls = 0

        @ours.retry
        async def transfer(self, amount):
            self.calls += 1
            if self.calls == 1:
                raise SerializationFailure
            return amount

    bank = Bank()
    assert await bank.transfer(5) == 5
    assert bank.calls == 2


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"attempts": 0}, ValueError, "attempts must be at least 1, but is 0"),
        ({"attempts": 2.5}, TypeError, "attempts must be an int, not 2.5"),
        ({"attempts": True}, TypeError, "attempts must be an int, not True"),
        ({"delay": -1}, ValueError, "delay must not be negative, but is -1"),
        ({"delay": float("nan")}, ValueError, "delay must not be negative, but is nan"),
        ({"max_delay": "1"}, TypeError, "max_delay must be a number of seconds, not '1'"),
        ({"errors": LockNotAvailable}, TypeError, "errors must be a tuple of exception classes"),
        ({"errors": ("40001",)}, TypeError, "errors must be a tuple of exception classes"),
        ({"errors": (BaseException,)}, TypeError, "errors must be a tuple of exception classes"),
    ],
)
def test_bad_arguments(ours, arguments, error, text):
    with pytest.raises(error, match=text):
        ours.retry(**arguments)


async def test_what_is_no_coroutine_function(ours):
    async def rows():
        yield 1

    async def transfer():
        pass

    with pytest.raises(TypeError, match="awaited only once"):
        ours.retry(coroutine := transfer())
    await coroutine
    for bad in (rows, 5):
        with pytest.raises(TypeError, match="takes a coroutine function, not "):
            ours.retry(bad)
