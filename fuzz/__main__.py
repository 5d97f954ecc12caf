"""Fuzzing of what reads a server's bytes: any bytes for every type, under AddressSanitizer.

    python -m fuzz --seconds 3600     new inputs, found by what of the decoders' code they reach
    python -m fuzz --cases 1000000    the same, until there were so many
    python -m fuzz FILE...            the inputs in these files, such as the one that failed

Ends at the first input that crashes, reads what it should not, hangs, or gives something else than
psycopg2 does; the input is kept in build/fuzz-found. The compiled modules are built for it in
build/fuzz: clang is needed, and the packages of `make fuzz`.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import atheris

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "fuzz"
FOUND = ROOT / "build" / "fuzz-found"
CORPUS = ROOT / "build" / "fuzz-corpus"

LIMITS = [
    "-max_len=400",
    "-detect_leaks=0",
    "-timeout=30",
    "-rss_limit_mb=4096",
    "-report_slow_units=30",
]
SANITIZERS = {
    "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:detect_stack_use_after_return=0",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
}


def build():
    """The package in BUILD, with its modules under watch."""
    clang = os.environ.get("CC") or shutil.which("clang")
    if not clang:
        sys.exit("clang is needed (Debian: apt install clang); CC names one")
    command = ["setup.py", "-q", "build", "--build-lib", BUILD, "--build-temp", f"{BUILD}.temp"]
    subprocess.run(
        [sys.executable, *command],
        check=True,
        cwd=ROOT,
        env={**os.environ, "CC": clang, "AIOPGX_SANITIZE": "fuzz"},
    )


def runtime():
    """The library with AddressSanitizer and libFuzzer in it, to be loaded before Python."""
    return Path(atheris.path()) / "asan_with_fuzzer.so"


def run(dsn, arguments):
    environment = {
        **os.environ,
        **SANITIZERS,
        "PYTHONMALLOC": "malloc",
        "PYTHONPATH": os.pathsep.join([str(BUILD), str(ROOT / "tests")]),
        "FUZZ_DSN": dsn,
        "FUZZ_PACKAGE": str(BUILD / "aiopgx"),
        "FUZZ_CORPUS": str(CORPUS),
        "LD_PRELOAD": str(runtime()),
    }
    command = [sys.executable, str(ROOT / "fuzz" / "target.py"), *LIMITS]
    return subprocess.run([*command, *arguments], env=environment).returncode


def main():
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, help="for new inputs (default: 60)")
    parser.add_argument("--cases", type=int, help="how many new inputs, instead of how long")
    parser.add_argument("files", nargs="*", metavar="FILE", help="run these inputs instead")
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT / "aiopgx" / "tools"))  # without the package, which is compiled
    import server

    build()
    FOUND.mkdir(exist_ok=True)
    CORPUS.mkdir(exist_ok=True)
    limit = f"-runs={args.cases}" if args.cases else f"-max_total_time={args.seconds or 60}"
    arguments = args.files or [
        limit,
        f"-artifact_prefix={FOUND}/",
        str(CORPUS),
    ]
    with server.start() as running:
        failed = run(running.dsn, arguments)
    if failed:
        sys.exit("FAILED. Once more: python -m fuzz build/fuzz-found/NAME")


if __name__ == "__main__":
    main()
