"""Every name of aiopg is here, with the same signature and of the same kind."""

import importlib
import inspect
import logging
import os
import subprocess
import sys

import aiopg
import psycopg2
import psycopg2.extensions
import psycopg2.extras
import pytest
from support import is_coroutine_function

import aiopgx

MODULES = ["", ".connection", ".pool", ".utils", ".log"]

# Modules that aiopg imports are no part of its API; of what it defines, these are internals
# that nobody was seen to use.
INTERNAL = {
    "aiopg": {"_parse_version"},
    "connection": {
        *("_close_cursor", "_commit_transaction", "_is_bad_descriptor_error"),
        *("_release_savepoint", "_rollback_savepoint", "_rollback_transaction"),
    },
    "pool": {"_destroy_pool"},
}

# Where aiopgx does more than refuse.
MORE = {"Cursor.executemany", "Connection.set_isolation_level"}

CONSTANTS = {
    "": {"__version__", "version", "version_info", "DEFAULT_TIMEOUT", "VersionInfo", "__all__"},
    ".connection": {"TIMEOUT"},
    ".pool": {"TIMEOUT"},
    ".log": {"logger"},
}


def defined(module):
    """The names that a module of aiopg defines or exports."""
    for name, value in vars(module).items():
        if name.startswith("__") or name in INTERNAL.get(module.__name__.rpartition(".")[2], ()):
            continue
        if callable(value) and getattr(value, "__module__", "").startswith("aiopg"):
            yield name


def pairs():
    """(name, aiopg's object, aiopgx's object or None) of all classes and functions."""
    for suffix in MODULES:
        theirs = importlib.import_module("aiopg" + suffix)
        ours = importlib.import_module("aiopgx" + suffix)
        for name in defined(theirs):
            yield f"{suffix}.{name}".strip("."), getattr(theirs, name), getattr(ours, name, None)


PAIRS = list(pairs())
CLASSES = {theirs.__name__: (theirs, ours) for _, theirs, ours in PAIRS if inspect.isclass(theirs)}
GENERIC = {"_ContextManager", "_IterableContextManager"}
MEMBERS = [
    (cls, name)
    for cls, (theirs, _) in sorted(CLASSES.items())
    for name in sorted(vars(theirs))
    if name not in ("__module__", "__doc__", "__dict__", "__weakref__", "__slots__")
    and not name.startswith(("_abc_", "__static", "__firstline", "__orig", "__abstract"))
    and (not name.startswith("_") or name.startswith("__"))
    and not (cls in GENERIC and name.startswith("__"))
]


def test_the_lists_are_not_empty():
    assert {"Connection", "Cursor", "Pool", "Transaction", "ClosableQueue"} <= set(CLASSES)
    assert len(PAIRS) > 30
    assert len(MEMBERS) > 130


@pytest.mark.parametrize(("name", "theirs", "ours"), PAIRS, ids=[name for name, _, _ in PAIRS])
def test_name(name, theirs, ours):
    assert ours is not None
    assert inspect.isclass(ours) == inspect.isclass(theirs)
    assert callable(ours) == callable(theirs)
    if inspect.isclass(theirs):
        assert ours.__name__ == theirs.__name__
        assert_same_bases(theirs, ours)
    else:
        assert_same_callable(name, theirs, ours)


def assert_same_bases(theirs, ours):
    for base in theirs.__mro__[1:]:
        if base.__module__.startswith("aiopg"):
            assert CLASSES[base.__name__][1] in ours.__mro__
        elif base.__module__ not in ("typing", "abc"):
            assert issubclass(ours, base)


def assert_same_callable(name, theirs, ours):
    assert is_coroutine_function(ours) == is_coroutine_function(theirs)
    if name not in MORE:
        assert_same_signature(inspect.signature(theirs), inspect.signature(ours))


def assert_same_signature(theirs, ours):
    """Names, kinds, order and defaults agree; ours may go on with optional parameters.

    What aiopg refuses, whatever it is given, may have parameters of its own here.
    """
    kinds = inspect.Parameter
    if [p.kind for p in list(theirs.parameters.values())[-2:]] == [
        kinds.VAR_POSITIONAL,
        kinds.VAR_KEYWORD,
    ]:
        return
    rest = dict(ours.parameters)
    order = iter(ours.parameters)
    for name, parameter in theirs.parameters.items():
        mine = rest.pop(name)
        assert mine.kind == parameter.kind
        if parameter.default is not kinds.empty:
            assert mine.default == parameter.default
        if parameter.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD):
            assert next(order) == name
    for parameter in rest.values():
        assert parameter.default is not kinds.empty or parameter.kind in (
            kinds.VAR_POSITIONAL,
            kinds.VAR_KEYWORD,
        )


def static(cls, name):
    """The attribute as the class holds it, its own or inherited."""
    return inspect.getattr_static(cls, name)


@pytest.mark.parametrize(("cls", "name"), MEMBERS, ids=[".".join(m) for m in MEMBERS])
def test_member(cls, name):
    their_class, our_class = CLASSES[cls]
    theirs, ours = static(their_class, name), static(our_class, name)
    for kind in (staticmethod, classmethod):
        assert isinstance(ours, kind) == isinstance(theirs, kind)
    theirs_value, ours_value = getattr(their_class, name), getattr(our_class, name)
    if inspect.isdatadescriptor(theirs):
        assert inspect.isdatadescriptor(ours)
        if getattr(theirs, "fset", None) is not None:
            assert getattr(ours, "fset", True) is not None
    elif callable(theirs_value) and name not in ("__init__", "__new__", "__class_getitem__"):
        assert_same_callable(f"{cls}.{name}", theirs_value, ours_value)
    elif name != "__init__":
        assert type(ours_value) is type(theirs_value)


@pytest.mark.parametrize("cls", sorted(GENERIC))
def test_generic(cls):
    theirs, ours = CLASSES[cls]
    assert ours[int] is not None
    for name in vars(theirs):
        if callable(getattr(theirs, name)):
            assert callable(getattr(ours, name))


@pytest.mark.parametrize("cls", ["Connection", "Cursor", "Pool", "Transaction", "ClosableQueue"])
def test_constructor(cls):
    """Subclasses call it, and mocks are made by hand with it."""
    theirs, ours = CLASSES[cls]
    assert_same_signature(inspect.signature(theirs), inspect.signature(ours))


@pytest.mark.parametrize("suffix", CONSTANTS)
def test_constants(suffix):
    theirs = importlib.import_module("aiopg" + suffix)
    ours = importlib.import_module("aiopgx" + suffix)
    for name in CONSTANTS[suffix]:
        assert type(getattr(ours, name)).__name__ == type(getattr(theirs, name)).__name__


def test_all():
    assert set(aiopg.__all__) <= set(aiopgx.__all__)
    assert all(hasattr(aiopgx, name) for name in aiopgx.__all__)


def test_timeouts():
    assert aiopgx.DEFAULT_TIMEOUT == aiopgx.connection.TIMEOUT == aiopgx.pool.TIMEOUT == 60.0


def test_one_class_under_many_names():
    assert aiopgx.Connection is aiopgx.connection.Connection is aiopgx.pool.Connection
    assert aiopgx.Cursor is aiopgx.connection.Cursor is aiopgx.pool.Cursor
    assert aiopgx.Pool is aiopgx.pool.Pool
    assert aiopgx.connect is aiopgx.connection.connect
    assert aiopgx.create_pool is aiopgx.pool.create_pool
    assert aiopgx.Transaction is aiopgx.connection.Transaction
    assert aiopgx.IsolationLevel is aiopgx.connection.IsolationLevel


def test_version():
    """Programs compare our version with aiopg's numbers."""
    assert aiopgx.version.startswith(f"{aiopgx.__version__}, Python {sys.version[:4]}")
    info = aiopgx.version_info
    assert info._fields == aiopg.version_info._fields
    assert aiopgx.__version__.startswith(f"{info.major}.{info.minor}.{info.micro}")
    assert (1, 4) <= (info.major, info.minor) < (2, 0)


def test_row_cursors_are_psycopg2s():
    for name in "DictCursor", "RealDictCursor", "NamedTupleCursor":
        assert getattr(aiopgx, name) is getattr(psycopg2.extras, name)


def test_logger():
    """What listens to the logger "aiopg" hears us."""
    heard = []
    handler = logging.Handler()
    handler.emit = heard.append
    logger = logging.getLogger("aiopg")
    logger.addHandler(handler)
    try:
        aiopgx.log.logger.warning("heard")
    finally:
        logger.removeHandler(handler)
    assert [record.getMessage() for record in heard] == ["heard"]


def run(code):
    """What a fresh interpreter prints."""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.mark.parametrize("name", ["pool.Pool", "connection.Connection", "utils", "log.logger"])
def test_submodules_after_a_bare_import(name):
    assert run(f"import aiopgx as aiopg; print(aiopg.{name})")


def test_import_is_light():
    """Nothing that aiopg's users needn't have, and no thread or loop."""
    loaded = run(
        "import aiopgx, sys, threading; "
        "print([m for m in ('sqlalchemy', 'async_timeout', 'aiopg', 'uvloop') if m in sys.modules],"
        " threading.active_count())"
    )
    assert loaded == "[] 1"


def test_both_in_one_process():
    """A migrating program may have the two of them side by side."""
    assert run("import aiopgx, aiopg; print(aiopg.Connection is aiopgx.Connection)") == "False"


def test_capabilities():
    """Which roads are open, and why: a value that can be printed."""
    roads = aiopgx.capabilities()
    assert roads.native == (os.environ.get("AIOPGX_ROAD") != "psycopg2")
    assert roads.reason in str(roads)
    assert roads.psycopg2_version == psycopg2.__version__
    if roads.native:
        assert roads.libpq_version == psycopg2.extensions.libpq_version()


@pytest.mark.parametrize("road", ["psycopg2", ""])
def test_road_is_chosen_by_the_environment(road, monkeypatch):
    monkeypatch.setenv("AIOPGX_ROAD", road)
    told = run("import aiopgx; r = aiopgx.capabilities(); print(r.native, r.reason)")
    assert told.startswith("False AIOPGX_ROAD=psycopg2" if road else "True")


def test_unknown_road():
    environment = {**os.environ, "AIOPGX_ROAD": "scenic"}
    run = subprocess.run(
        [sys.executable, "-c", "import aiopgx"], env=environment, capture_output=True, text=True
    )
    assert "ImportError: AIOPGX_ROAD must be native or psycopg2, not 'scenic'" in run.stderr
