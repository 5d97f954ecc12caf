"""aiopg's name for this package: `import aiopg` gives aiopgx, in code that nobody edits."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from collections.abc import Iterable, Sequence
from importlib.machinery import BuiltinImporter, ModuleSpec
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:  # not quick to import
    from importlib.abc import InspectLoader, Loader
    from importlib.metadata import Distribution, DistributionFinder

ALIAS = "aiopg"
PACKAGE = "aiopgx"


def install_as_aiopg() -> None:
    """Let `import aiopg` give aiopgx in this process. New in aiopgx.

    From then on aiopg and its submodules are the modules of aiopgx, the very same objects, also
    where aiopg is installed, and where it was imported before: `sys.modules` is changed then, but
    names that a module took from the real aiopg stay what they are, so call this first.
    `importlib.metadata` tells that aiopg 1.4.0 is installed, the release whose API this is.

    To call it again changes nothing. `uninstall_as_aiopg()` undoes it.
    """
    counterparts = _counterparts()
    with _lock:
        if _finder in sys.meta_path:
            return
        # Behind the hooks that agents put in front of all finders, so that they see the import.
        here = next((i for i, f in enumerate(sys.meta_path) if f is BuiltinImporter), 0)
        sys.meta_path.insert(here, _finder)
        for name in _loaded():
            _replaced[name] = sys.modules[name]
            if name in counterparts:
                sys.modules[name] = counterparts[name]
            else:
                del sys.modules[name]


def uninstall_as_aiopg() -> None:
    """Undo `install_as_aiopg()`: `sys.modules` and the finders are as before. New in aiopgx.

    What was imported as aiopg meanwhile goes on being aiopgx where it is in use. To call this
    where nothing is installed changes nothing.
    """
    with _lock:
        if _finder not in sys.meta_path:
            return
        sys.meta_path.remove(_finder)
        for name in _loaded():
            del sys.modules[name]
        sys.modules.update(_replaced)
        _replaced.clear()


class _Finder:
    """Finds aiopg and its submodules, and the distribution of that name. Nothing else."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not _is_alias(fullname):
            return None
        spec = importlib.util.find_spec(_ours(fullname))
        if spec is None:
            return None
        alias = ModuleSpec(fullname, cast("Loader", _Loader(spec)), origin=spec.origin)
        alias.submodule_search_locations = spec.submodule_search_locations
        return alias

    def find_distributions(self, context: DistributionFinder.Context) -> Iterable[Distribution]:
        """Give aiopg's, when all are asked for or it; not those of other places than sys.path."""
        name = (context.name or ALIAS).lower()
        if name != ALIAS or list(context.path) != sys.path:
            return []
        # It needs importlib.metadata, which whoever asks has imported.
        from ._distribution import AiopgDistribution

        return [AiopgDistribution()]


class _Loader:
    """Gives a module of ours to the import system, which takes it for a new one."""

    def __init__(self, spec: ModuleSpec) -> None:
        self._spec = spec

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self._spec.name)
        self._spec = cast(ModuleSpec, module.__spec__)
        return module

    def exec_module(self, module: ModuleType) -> None:
        # The import system has written the alias into it, by which reload() would not find it.
        module.__spec__ = self._spec
        # What aiopgx has loaded of itself, aiopg would have, too.
        for name in list(sys.modules):
            if name.startswith(f"{self._spec.name}."):
                importlib.import_module(ALIAS + name.removeprefix(PACKAGE))

    def get_code(self, fullname: str) -> CodeType | None:
        """Return the code, as `python -m` needs it."""
        return cast("InspectLoader", self._spec.loader).get_code(self._spec.name)


def _is_alias(name: str) -> bool:
    return name == ALIAS or name.startswith(f"{ALIAS}.")


def _ours(name: str) -> str:
    return PACKAGE + name.removeprefix(ALIAS)


def _loaded() -> list[str]:
    return [name for name in list(sys.modules) if _is_alias(name)]


def _counterparts() -> dict[str, ModuleType]:
    """Import our modules of the names in use; of those that we have."""
    return {
        name: importlib.import_module(_ours(name))
        for name in _loaded()
        if importlib.util.find_spec(_ours(name))
    }


_finder = _Finder()
_lock = threading.Lock()
# The modules that were in sys.modules before, to be put back.
_replaced: dict[str, ModuleType] = {}
