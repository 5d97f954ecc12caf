"""Transactions that are tried again when the server has rolled them back for others' sake."""

import asyncio
import functools
import inspect
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar, overload

from psycopg2.errors import DeadlockDetected, SerializationFailure

from .log import logger

_P = ParamSpec("_P")
_T = TypeVar("_T")
_Errors = tuple[type[BaseException], ...]

# Both mean that nothing of the transaction was kept, and that it may well succeed now.
ERRORS: _Errors = (SerializationFailure, DeadlockDetected)


@overload
def retry(function: Callable[_P, Awaitable[_T]], /) -> Callable[_P, Coroutine[Any, Any, _T]]: ...


@overload
def retry(
    *, attempts: int = ..., delay: float = ..., max_delay: float = ..., errors: _Errors = ...
) -> Callable[[Callable[_P, Awaitable[_T]]], Callable[_P, Coroutine[Any, Any, _T]]]: ...


def retry(
    function: Any = None,
    /,
    *,
    attempts: int = 10,
    delay: float = 0.02,
    max_delay: float = 1.0,
    errors: _Errors = ERRORS,
) -> Any:
    """Make a coroutine function try again when its transaction could not be serialized.

    Write `@retry` or `@retry(attempts=3)` above a function, or call `await retry(function)(...)`.
    The function is called again from its beginning, so the whole transaction must be in it, from
    BEGIN to COMMIT, and what it does besides happens once more.

    attempts: how often the function is called at most; the last error is raised.
    delay: seconds. Before the next call up to so many are waited, at random; up to twice as many
        before each further one.
    max_delay: seconds that are waited at most.
    errors: psycopg2's exception classes after which it is called again: SerializationFailure
        (SQLSTATE 40001) and DeadlockDetected (40P01). SQLAlchemy's, which have one of these as
        `orig`, count as that. All others are raised at once.

    Each new attempt is logged to the logger "aiopg" at level INFO. Raises TypeError and ValueError
    about the arguments. New in aiopgx.
    """
    _check(attempts, delay, max_delay, errors)

    def decorate(function: Any) -> Any:
        _check_function(function)

        @functools.wraps(function)
        async def call(*args: Any, **kwargs: Any) -> Any:
            for attempt in range(1, attempts):
                try:
                    return await function(*args, **kwargs)
                except Exception as error:
                    cause = getattr(error, "orig", error)
                    if not isinstance(cause, errors):
                        raise
                    # full jitter: those who met in the server shall not meet there again
                    pause = random.uniform(0, min(max_delay, delay * 2 ** (attempt - 1)))
                    _log(function, cause, attempt, attempts, pause)
                await asyncio.sleep(pause)
            return await function(*args, **kwargs)

        return call

    return decorate if function is None else decorate(function)


def _log(function: Any, error: BaseException, attempt: int, attempts: int, pause: float) -> None:
    logger.info(
        "attempt %d of %d of %s failed with %s, the next begins in %.3f s",
        attempt,
        attempts,
        getattr(function, "__qualname__", function),
        type(error).__name__,
        pause,
    )


def _check(attempts: Any, delay: Any, max_delay: Any, errors: Any) -> None:
    if not isinstance(attempts, int) or isinstance(attempts, bool):
        raise TypeError(f"attempts must be an int, not {attempts!r}")
    if attempts < 1:
        raise ValueError(f"attempts must be at least 1, but is {attempts}")
    for name, value in (("delay", delay), ("max_delay", max_delay)):
        if not isinstance(value, (int, float)):
            raise TypeError(f"{name} must be a number of seconds, not {value!r}")
        if not value >= 0:
            raise ValueError(f"{name} must not be negative, but is {value}")
    if not isinstance(errors, tuple) or not all(
        isinstance(cls, type) and issubclass(cls, Exception) for cls in errors
    ):
        raise TypeError(f"errors must be a tuple of exception classes, not {errors!r}")


def _check_function(function: Any) -> None:
    if inspect.isawaitable(function):
        raise TypeError(
            "retry() takes a coroutine function, not what calling it gives, which can be awaited "
            "only once"
        )
    if not callable(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"retry() takes a coroutine function, not {function!r}")
