"""Executes SQLAlchemy Core statements on an aiopgx pool, with aiopg.sa's API."""

try:
    import sqlalchemy as _sqlalchemy  # noqa: F401
except ImportError as _error:
    raise ModuleNotFoundError(
        "aiopgx.sa needs SQLAlchemy 1.4, 2.0 or 2.1: pip install sqlalchemy", name=_error.name
    ) from _error

from . import utils as utils  # an attribute of the package, as in aiopg
from .connection import SAConnection
from .engine import Engine, create_engine
from .exc import (
    ArgumentError,
    Error,
    InvalidRequestError,
    NoSuchColumnError,
    ResourceClosedError,
)

__all__ = (
    "ArgumentError",
    "Engine",
    "Error",
    "InvalidRequestError",
    "NoSuchColumnError",
    "ResourceClosedError",
    "SAConnection",
    "create_engine",
)
