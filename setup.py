"""Build the compiled modules. The metadata is in pyproject.toml.

The modules are translated and compiled side by side, without debug information. What is up to date
stays, also for pip, whose build environments and directories are new each time.

Switches, as environment variables:
  AIOPGX_DEBUG=1     keep debug information and symbols, for gdb, perf and valgrind
  AIOPGX_SANITIZE=1  build with AddressSanitizer and UndefinedBehaviorSanitizer
  AIOPGX_SANITIZE=fuzz  the same for `python -m fuzz`, which preloads their runtime; needs clang
  AIOPGX_TRACE=1     build with line tracing, for coverage of the .pyx files
"""

import os
import sys
import sysconfig
from pathlib import Path

import Cython
from Cython.Build import cythonize
from Cython.Build.Dependencies import create_dependency_tree
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

debug = os.environ.get("AIOPGX_DEBUG") == "1"
sanitize = os.environ.get("AIOPGX_SANITIZE") in ("1", "fuzz")
fuzz = os.environ.get("AIOPGX_SANITIZE") == "fuzz"
trace = os.environ.get("AIOPGX_TRACE") == "1"
switches = {"debug": debug, "sanitize": sanitize, "fuzz": fuzz, "trace": trace}

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

CYTHON = Path(Cython.__file__).parent
TRANSLATED = Path("build", "traced") if trace else Path("build")
COMPILED = Path("build", "compiled", *(switch for switch, on in switches.items() if on))


class KeepingBuildExt(build_ext):
    """For the working tree, modules are compiled into a directory that is there the next time."""

    def finalize_options(self) -> None:
        if self.inplace or self.editable_mode:
            self.build_lib, self.build_temp = str(COMPILED), str(COMPILED / "objects")
        super().finalize_options()


def heed_own_files_alone() -> None:
    """Let cythonize() look at our files' times, not at those of Cython's own."""
    tree = create_dependency_tree()
    timestamp = tree.timestamp
    tree.timestamp = lambda name: 0 if CYTHON in Path(name).absolute().parents else timestamp(name)


def by_another_cython(source: str) -> bool:
    """Whether there is a translation of a module that another version of Cython has made."""
    path = (TRANSLATED / source).with_suffix(".c")
    if not path.exists():
        return False
    with path.open(encoding="utf-8") as lines:
        return f" {Cython.__version__} " not in next(lines, "")


# The start of a process imports this file again where processes are not forked.
if __name__ == "__main__":
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        sys.exit("aiopgx can't be built for free-threaded Python: use a build without the t")
    workers = os.cpu_count() or 1
    heed_own_files_alone()
    setup(
        ext_modules=cythonize(
            extensions,
            build_dir=str(TRANSLATED),
            nthreads=workers,
            force=any(by_another_cython(extension.sources[0]) for extension in extensions),
            compiler_directives={
                "language_level": 3,
                "annotation_typing": False,
                "boundscheck": False,
                "wraparound": False,
                "linetrace": trace,
            },
        ),
        cmdclass={"build_ext": KeepingBuildExt},
        options={"build_ext": {"parallel": workers}},
    )
