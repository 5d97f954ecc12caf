"""`python -m aiopgx run`: a program runs as `python` would run it, with aiopgx as aiopg."""

import os
import shutil
import subprocess
import sys

import pytest

from aiopgx.__main__ import main

LOOK = """\
import sys
main = sys.modules["__main__"]
assert main.__dict__ is globals()
for name in ("__name__", "__file__", "__package__", "__cached__", "__doc__"):
    print(name, globals().get(name, "missing"))
print(type(__spec__), getattr(__spec__, "name", None), sys.argv, sys.path[0])
print(sorted({*globals()} - {"__annotations__"}))
print(type(__builtins__), sys.exc_info())
"""
# What the programs are, by file.
FILES = {
    "look.py": '"""Its docstring."""\n' + LOOK,
    "fails.py": "def f():\n    raise ValueError('of the program')\n\n\nf()\n",
    "fails_twice.py": "try:\n    1 / 0\nexcept Exception as e:\n    raise KeyError(1) from e\n",
    "syntax.py": "x = 1\ny = (\n",
    "imports.py": "import nowhere_to_be_found\n",
    "exits.py": "import sys\nsys.exit(int(sys.argv[1]))\n",
    "says.py": "raise SystemExit('a message')\n",
    "interrupted.py": "import atexit\natexit.register(print, 'at exit')\nraise KeyboardInterrupt\n",
    "hooked.py": "import sys\nsys.excepthook = lambda *e: print('hook', e[:2])\n1 / 0\n",
    "late.py": (
        "import atexit, threading\nx = 1\n"
        "def f():\n    print(x, __name__)\n"
        "atexit.register(f)\nt = threading.Timer(0.01, f)\nt.start()\n"
    ),
    "pickles.py": (
        "import pickle\nclass C: pass\nprint(type(pickle.loads(pickle.dumps(C()))), C.__module__)\n"
    ),
    "pool.py": (
        "import multiprocessing\n"
        "def f(x):\n    return x * x\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        print(pool.map(f, [2, 3]))\n"
    ),
    "package/__init__.py": "print('the package')\n",
    "package/__main__.py": LOOK,
    "package/module.py": "from . import __name__ as n\nprint(n)\n" + LOOK,
    "bare/__init__.py": "",
    "directory/__main__.py": LOOK + "import beside\n",
    "directory/beside.py": "print('beside', __file__)\n",
    "empty/nothing.txt": "",
}
PROGRAMS = [
    "look.py -x --dsn y -- z", "./package/../look.py",
    "-m look a -b", "-m package -m x", "-m package.module", "directory a", "directory.zip",
    "fails.py", "-m fails", "fails_twice.py", "syntax.py", "imports.py",
    "exits.py 7", "says.py", "interrupted.py", "hooked.py",
    "late.py", "pickles.py", "pool.py",
    "nowhere.py", "empty", "-m nowhere", "-m nowhere.at.all", "-m bare",
]  # fmt: skip


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    place = tmp_path_factory.mktemp("programs")
    for name, text in FILES.items():
        path = place / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    shutil.make_archive(str(place / "directory"), "zip", place / "directory")
    return place


def start(cwd, *arguments):
    return subprocess.Popen(
        [sys.executable, *arguments], cwd=cwd,
        env=os.environ | {"PYTHON_COLORS": "0", "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def outcome(process):
    output, errors = process.communicate(timeout=45)
    return process.returncode, output, errors


def plain(errors):
    """Without the frames of runpy, which Python itself shows for `-m`."""
    lines, skipped = [], False
    for line in errors.splitlines():
        if line.startswith("  File "):
            skipped = 'runpy>"' in line or 'runpy.py"' in line
        elif not line.startswith("    "):
            skipped = False
        if not skipped:
            lines.append(line)
    return lines


@pytest.mark.parametrize("program", PROGRAMS)
def test_as_python_itself(programs, program):
    under_python = start(programs, *program.split())
    under_run = start(programs, "-m", "aiopgx", "run", *program.split())
    expected, made = outcome(under_python), outcome(under_run)
    assert made[:2] == expected[:2]
    assert plain(made[2]) == plain(expected[2])


def test_without_the_directory_of_the_program(programs):
    """-P: nothing is put in front of sys.path, and nothing is taken from it."""
    code = "import sys; print(sys.path, sys.argv)"
    options = [[], ["-P"]] if sys.version_info >= (3, 11) else [[]]
    for option in options:
        under_python = start(programs, *option, "-c", code, "x")
        under_run = start(programs, *option, "-m", "aiopgx", "run", "--", "-c", code, "x")
        assert outcome(under_run) == outcome(under_python)


def test_aiopg_is_aiopgx(programs):
    code = "import aiopg, aiopgx, aiopg.sa; print(aiopg is aiopgx, aiopg.sa.__name__)"
    made = outcome(start(programs, "-m", "aiopgx", "run", "-c", code))
    assert made == (0, "True aiopgx.sa\n", "")


@pytest.mark.parametrize("arguments", [[], ["--"], ["-m"], ["-x"], ["--", "-c"]])
def test_no_program(capsys, arguments):
    assert main(["run", *arguments]) == 2
    assert "error: no program is named" in capsys.readouterr().err


def test_help(capsys):
    assert main(["run", "--help"]) == 0
    assert "aiopgx run [--] (FILE | -m MODULE | -c CODE)" in capsys.readouterr().out
