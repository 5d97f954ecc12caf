"""Where aiopgx can't run is said at its import, in a sentence, before anything compiled is loaded.

psycopg2 and the compiled modules keep Python objects in C variables that are one for the process,
under its one GIL. In a subinterpreter, psycopg2's own import fails, or worse its values come from
another interpreter; on a free-threaded build nothing guards those variables.
"""

from __future__ import annotations

import importlib
import sys


def is_free_threaded() -> bool:
    """Whether this is a build of Python without a GIL, even if one was switched on."""
    return "t" in getattr(sys, "abiflags", "")


def is_main() -> bool:
    """Whether this is the process' first interpreter; True where Python can't tell."""
    for name in ("_interpreters", "_xxsubinterpreters"):  # since 3.13, before
        try:
            interpreters = importlib.import_module(name)
        except ImportError:
            continue
        return bool(interpreters.get_current() == interpreters.get_main())
    return True


if is_free_threaded():
    raise ImportError(
        "aiopgx does not run on free-threaded builds of Python: use "
        "python{}.{} without the t".format(*sys.version_info)
    )
if not is_main():
    raise ImportError(
        "aiopgx does not run in a subinterpreter: import it in the main one, or use processes"
    )
