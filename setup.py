"""Build the compiled modules. The metadata is in pyproject.toml.

The modules are translated and compiled side by side, without debug information.

Switches, as environment variables:
  AIOPGX_DEBUG=1     keep debug information and symbols, for gdb, perf and valgrind
  AIOPGX_SANITIZE=1  build with AddressSanitizer and UndefinedBehaviorSanitizer
  AIOPGX_SANITIZE=fuzz  the same for `python -m fuzz`, which preloads their runtime; needs clang
  AIOPGX_TRACE=1     build with line tracing, for coverage of the .pyx files
"""

import os
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

debug = os.environ.get("AIOPGX_DEBUG") == "1"
sanitize = os.environ.get("AIOPGX_SANITIZE") in ("1", "fuzz")
fuzz = os.environ.get("AIOPGX_SANITIZE") == "fuzz"
trace = os.environ.get("AIOPGX_TRACE") == "1"

compile_args: list[str] = []
link_args: list[str] = []
libraries: list[str] = []
macros: list[tuple[str, str | None]] = []
if sys.platform != "win32":
    compile_args += ["-O2", "-fvisibility=hidden"]
if sys.platform.startswith("linux"):
    libraries += ["dl"]
if not (debug or sanitize) and sys.platform != "win32":
    compile_args += ["-g0"]
    link_args += ["-Wl,-x" if sys.platform == "darwin" else "-Wl,-s"]
if sanitize:
    compile_args += ["-g", "-O1", "-fno-omit-frame-pointer", "-fsanitize=address,undefined"]
    if fuzz:
        compile_args += ["-fsanitize=fuzzer-no-link"]
    else:
        link_args += ["-fsanitize=address,undefined"]
if trace:
    macros += [("CYTHON_TRACE", "1"), ("CYTHON_TRACE_NOGIL", "1")]
    macros += [("CYTHON_USE_SYS_MONITORING", "0")]

extensions = [
    Extension(
        f"aiopgx.{source.stem}",
        [str(source)],
        include_dirs=["aiopgx"],
        extra_compile_args=compile_args,
        extra_link_args=link_args,
        libraries=libraries,
        define_macros=macros,
    )
    for source in sorted(Path("aiopgx").glob("_*.pyx"))
]

# The start of a process imports this file again where processes are not forked.
if __name__ == "__main__":
    workers = os.cpu_count() or 1
    setup(
        ext_modules=cythonize(
            extensions,
            build_dir="build",
            nthreads=workers,
            compiler_directives={
                "language_level": 3,
                "annotation_typing": False,
                "boundscheck": False,
                "wraparound": False,
                "linetrace": trace,
            },
        ),
        options={"build_ext": {"parallel": workers}},
    )
