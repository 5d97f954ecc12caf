"""A drop-in replacement for aiopg: `import aiopgx as aiopg`."""

from . import _interpreter  # noqa: F401  # before psycopg2: refuses subinterpreters

# isort: split

import re
import sys
import warnings
from typing import NamedTuple

from psycopg2.extras import DictCursor, NamedTupleCursor, RealDictCursor

from ._aliases import install_as_aiopg, uninstall_as_aiopg
from ._retry import retry
from ._roads import Capabilities, capabilities, explain_road
from ._version import __version__
from .connection import TIMEOUT as DEFAULT_TIMEOUT
from .connection import (
    Connection,
    Cursor,
    DefaultCompiler,
    IsolationCompiler,
    IsolationLevel,
    ReadCommittedCompiler,
    RepeatableReadCompiler,
    SerializableCompiler,
    Transaction,
    connect,
)
from .listener import Listener
from .named import NamedCursor
from .pool import Pool, create_pool
from .pool_upkeep import TooManyRequests, check_connection, discard_all
from .utils import get_running_loop

__all__ = (
    "DEFAULT_TIMEOUT",
    "Capabilities",
    "Connection",
    "Cursor",
    "DefaultCompiler",
    "DictCursor",
    "IsolationCompiler",
    "IsolationLevel",
    "Listener",
    "NamedCursor",
    "NamedTupleCursor",
    "Pool",
    "ReadCommittedCompiler",
    "RealDictCursor",
    "RepeatableReadCompiler",
    "SerializableCompiler",
    "TooManyRequests",
    "Transaction",
    "__version__",
    "capabilities",
    "check_connection",
    "connect",
    "create_pool",
    "discard_all",
    "explain_road",
    "get_running_loop",
    "install_as_aiopg",
    "retry",
    "uninstall_as_aiopg",
    "version",
    "version_info",
)

# As aiopg does: what is left open is always told.
warnings.filterwarnings("always", category=ResourceWarning, module=r"aiopgx(\.\w+)*$")

version: str = f"{__version__}, Python {sys.version}"


class VersionInfo(NamedTuple):
    """The parts of the version, as in sys.version_info."""

    major: int
    minor: int
    micro: int
    releaselevel: str
    serial: int


def _parse_version(text: str) -> VersionInfo:
    match = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)(?:(a|b|rc)(\d+))?", text)
    if match is None:
        raise ImportError(f"Invalid package version {text}")
    major, minor, micro, level, serial = match.groups()
    levels = {"a": "alpha", "b": "beta", "rc": "candidate", None: "final"}
    return VersionInfo(int(major), int(minor), int(micro), levels[level], int(serial or 0))


version_info: VersionInfo = _parse_version(__version__)
