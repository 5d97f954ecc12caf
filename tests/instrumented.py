"""The suite, or a part of it, under what sees more of memory than Python does.

    python tests/instrumented.py asan      AddressSanitizer and UndefinedBehaviorSanitizer
    python tests/instrumented.py valgrind  reads and writes beyond blocks, also libpq's; leaks
    python tests/instrumented.py debug     a debug build of Python: references that are lost,
                                           its own assertions; run by that Python
    ... asan tests/test_copy.py -k rows    another part, other options: arguments of pytest

`make asan`, `make valgrind` and `make debug` run it. The compiled modules are built for each in a
directory of its own below build/. The server is started outside of the instrument, or named by
AIOPGX_TEST_DSN. See docs/memory.md.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS = ROOT / "tests"

# Left out: what compares with aiopg, or measures a process that an instrument makes larger.
QUICK = [
    *("test_memory", "test_errors", "test_results", "test_rows", "test_copy", "test_copy_records"),
    *("test_stream", "test_pipeline", "test_prepared", "test_shared", "test_named", "test_notices"),
]
LEFT_OUT = "not aiopg- and not does_not_grow and not leave_no_memory and not flat"


def parts(names):
    return [str(TESTS / f"{name}.py") for name in names]


def chosen(arguments, usual):
    """Arguments of pytest, with the usual tests if they name none."""
    named = any(Path(argument.split("::")[0]).exists() for argument in arguments)
    return arguments if named else [*usual, *arguments]


def built(name, switches):
    """The directory that has the package, with its modules compiled for an instrument."""
    build = ROOT / "build" / name
    command = ["setup.py", "-q", "build", "--build-lib", build, "--build-temp", f"{build}.temp"]
    environment = {**os.environ, **switches}
    subprocess.run([sys.executable, *command], check=True, cwd=ROOT, env=environment)
    return build


class Logs:
    """What the processes of one run write, each into a file of its own: NAME.PID."""

    def __init__(self, directory, name):
        self.directory, self.name = directory, name
        for log in self.files():
            log.unlink()

    def files(self):
        return sorted(self.directory.glob(f"{self.name}.*"))

    def read(self):
        return [log.read_text(errors="replace") for log in self.files()]


def run(name, environment, arguments, before=()):
    """pytest's exit status."""
    command = [*before, sys.executable, "-m", "pytest", "-c", ROOT / "pyproject.toml"]
    command += ["--rootdir", ROOT, "-p", "no:cacheprovider", "-o", "timeout=600"]
    build = ROOT / "build" / name
    environment = {**os.environ, "PYTHONPATH": str(build), **environment}
    command += arguments
    return subprocess.run(command, cwd=build, env=environment).returncode


def library_of_the_compiler(name):
    compiler = (os.environ.get("CC") or "gcc").split()[-1]
    command = [compiler, f"-print-file-name={name}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def asan(arguments):
    """Fails if there was a report: each one ends its process. Shows them."""
    build = built("asan", {"AIOPGX_SANITIZE": "1"})
    logs = Logs(build, "report")
    # greenlet throws exceptions of C++, which the sanitizer has to find at its start
    libraries = [library_of_the_compiler(name) for name in ("libasan.so", "libstdc++.so.6")]
    environment = {
        "LD_PRELOAD": " ".join(libraries),
        "PYTHONMALLOC": "malloc",
        "ASAN_OPTIONS": f"detect_leaks=0:allocator_may_return_null=1:log_path={build}/report",
        "UBSAN_OPTIONS": f"halt_on_error=1:print_stacktrace=1:log_path={build}/report",
    }
    arguments = ["-n", "0", "-k", LEFT_OUT, *chosen(arguments, [str(TESTS)])]
    failed = run("asan", environment, arguments)
    print(*logs.read(), sep="\n\n")
    return failed or bool(logs.read())


# Of an import, for the life of the process.
IMPORTED = re.compile(r"__pyx_pymod_exec|PyInit_|PyModule_ExecDef|_dl_")


def ours(log):
    """The reports of valgrind that have a frame in one of our files."""
    frame = re.compile("|".join(rf"\({path.stem}\.(?:c|h):" for path in SOURCES))
    lines = (re.sub(r"^==\d+== ?", "", line) for line in log.splitlines())
    reports = "\n".join(lines).split("\n\n")
    return [report for report in reports if frame.search(report) and not IMPORTED.search(report)]


SOURCES = sorted((ROOT / "aiopgx").glob("_*.pyx"))


def valgrind(arguments):
    """Fails if there is a report that has to do with our code; shows these."""
    if shutil.which("valgrind") is None:
        sys.exit("valgrind is needed (Debian: apt install valgrind)")
    build = built("valgrind", {"AIOPGX_DEBUG": "1"})
    logs = Logs(build, "log")
    before = [
        *("valgrind", "--leak-check=full", "--show-leak-kinds=definite", "--num-callers=40"),
        *("--error-limit=no", f"--log-file={build}/%p.log"),
    ]
    environment = {"PYTHONMALLOC": "malloc"}
    arguments = chosen(arguments, ["-m", "not all_loops", *parts(QUICK)])
    failed = run("valgrind", environment, ["-n", "0", "-k", LEFT_OUT, *arguments], before)
    reports = [report for log in logs.read() for report in ours(log)]
    print(*reports, f"valgrind: {len(reports)} reports of our code", sep="\n\n")
    return failed or bool(reports)


def debug(arguments):
    """Fails where each of many operations loses a reference, or an assertion of Python's fails."""
    if not hasattr(sys, "gettotalrefcount"):
        sys.exit("a debug build of Python is needed (Debian: apt install python3-dbg)")
    built("debug", {"AIOPGX_DEBUG": "1"})
    arguments = chosen(arguments, parts(["test_drill_flat", *QUICK]))
    # uvloop's wheel was made for another build, whose references are not counted
    return run("debug", {}, ["-k", "not aiopg- and not uvloop", *arguments])


def located(argument):
    """pytest is run elsewhere: a file's name has to be whole."""
    return str(ROOT / argument) if (ROOT / argument.split("::")[0]).is_file() else argument


def main():
    instruments = {function.__name__: function for function in (asan, valgrind, debug)}
    if len(sys.argv) < 2 or sys.argv[1] not in instruments:
        sys.exit(__doc__)
    sys.path.insert(0, str(ROOT / "aiopgx" / "tools"))  # without the package, which is compiled
    import server

    with server.start() as running:
        os.environ["AIOPGX_TEST_DSN"] = running.dsn
        sys.exit(instruments[sys.argv[1]]([located(argument) for argument in sys.argv[2:]]))


if __name__ == "__main__":
    main()
