"""python -m aiopgx run: a program that imports aiopg, on aiopgx, as `python` would run it."""

from __future__ import annotations

import builtins
import importlib.util
import os
import sys
import zipfile
from collections.abc import Sequence
from importlib.abc import InspectLoader
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType
from typing import NoReturn, cast

import aiopgx

USAGE = """\
usage: python -m aiopgx run [--] (FILE | -m MODULE | -c CODE) [arguments of the program ...]

Run a Python program, in which `import aiopg` gives aiopgx. FILE may be a directory or a zip file
with a __main__.py in it."""


def run(arguments: Sequence[str]) -> int:
    """Run the program that the arguments name, in this process, with its own arguments.

    `sys.argv`, `sys.path[0]` and `__main__` are what the program finds under `python`, and what it
    raises is told without frames of aiopgx, then raised. Its SystemExit goes on to the caller.
    """
    arguments = list(arguments[1:] if arguments[:1] == ["--"] else arguments)
    what = arguments[0] if arguments else ""
    if what in ("-h", "--help"):
        print(USAGE)
        return 0
    if not what or (what.startswith("-") and (what not in ("-m", "-c") or len(arguments) < 2)):
        print(f"{USAGE}\n\nerror: no program is named", file=sys.stderr)
        return 2
    aiopgx.install_as_aiopg()
    # One that stays, as threads, atexit and multiprocessing look at it after the last line.
    main = ModuleType("__main__")
    main.__dict__["__builtins__"] = builtins
    sys.modules["__main__"] = main
    try:
        exec(_load(main, arguments), main.__dict__)
    except SystemExit:
        raise
    except BaseException as error:
        _tell(error)
        raise  # for the exit status, and the signal that a KeyboardInterrupt ends with
    return 0


def _load(main: ModuleType, arguments: list[str]) -> CodeType:
    """Set sys.argv, sys.path[0] and the attributes of __main__; return the code."""
    what = arguments[0]
    if what == "-c":
        sys.argv[:] = ["-c", *arguments[2:]]
        _set_path("")
        return compile(arguments[1], "<string>", "exec", dont_inherit=True)
    if what == "-m":
        sys.argv[:] = arguments[:1] + arguments[2:]
        spec = _find_module(arguments[1])
        sys.argv[0] = spec.origin or "-m"
        return _load_spec(main, spec)
    sys.argv[:] = arguments
    path = os.path.join(os.getcwd(), what)
    if os.path.isdir(path) or zipfile.is_zipfile(path):
        sys.path.insert(0, path)
        found = PathFinder.find_spec("__main__", [path])
        return _load_spec(main, found or _give_up(f"can't find '__main__' module in {path!r}"))
    _set_path(os.path.dirname(os.path.realpath(path)))
    return _load_file(main, path)


def _load_file(main: ModuleType, path: str) -> CodeType:
    loader = SourceFileLoader("__main__", path)
    main.__file__, main.__loader__ = path, loader
    main.__dict__["__cached__"] = None
    try:
        source = loader.get_data(path)
    except OSError as error:
        _give_up(f"can't open file {path!r}: [Errno {error.errno}] {error.strerror}", 2)
    return compile(source, path, "exec", dont_inherit=True)


def _load_spec(main: ModuleType, spec: ModuleSpec) -> CodeType:
    code = cast(InspectLoader, spec.loader).get_code(spec.name)
    if code is None:
        _give_up(f"No code object available for {spec.name}")
    main.__spec__, main.__loader__, main.__package__ = spec, spec.loader, spec.parent
    main.__file__ = spec.origin
    main.__dict__["__cached__"] = spec.cached
    return code


def _find_module(name: str) -> ModuleSpec:
    """Find the module, or the package's __main__, as runpy does."""
    spec = _find_spec(name) or _give_up(f"No module named {name}")
    if spec.submodule_search_locations is None:
        return spec
    return _find_spec(f"{name}.__main__") or _give_up(
        f"No module named {name}.__main__; {name!r} is a package and cannot be directly executed"
    )


def _find_spec(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        _give_up(
            f"Error while finding module specification for {name!r} "
            f"({type(error).__name__}: {error})"
        )


def _set_path(place: str) -> None:
    """Put it where `python -m` has put the working directory, if it has (-P: it has not)."""
    if not getattr(sys.flags, "safe_path", False):
        sys.path[0] = place


def _give_up(why: str, status: int = 1) -> NoReturn:
    print(f"{sys.executable}: {why}", file=sys.stderr)
    sys.exit(status)


def _tell(error: BaseException) -> None:
    """Print it as Python does, from the program's first frame on, and not once more at exit."""
    tb = error.__traceback__
    while tb is not None and tb.tb_frame.f_code.co_filename == __file__:
        tb = tb.tb_next
    sys.excepthook(type(error), error.with_traceback(tb), tb)
    sys.excepthook = lambda *_: None
