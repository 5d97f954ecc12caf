"""Subinterpreters and free-threaded builds: refused at the import, in a sentence."""

import subprocess
import sys

import pytest

BUILDS = "aiopgx does not run on free-threaded builds of Python: use python{}.{} without the t"
SUBINTERPRETER = "aiopgx does not run in a subinterpreter: import it in the main one"

# Runs a program in a subinterpreter that shares the GIL, or has one of its own.
WITHIN = """
import sys
{before}
program = f'''
import sys
sys.path[:] = {{sys.path!r}}
import {module}
'''
if sys.version_info >= (3, 13):
    import _interpreters
    failure = _interpreters.exec(_interpreters.create({kind!r}), program)
    print(failure and failure.errdisplay)
else:
    import _xxsubinterpreters
    isolated = {kind!r} == "isolated"
    try:
        _xxsubinterpreters.run_string(_xxsubinterpreters.create(isolated=isolated), program)
    except Exception as error:
        print(error)
"""


def output_of(program):
    """What a program of its own process prints, errors among it."""
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, timeout=50)


@pytest.mark.parametrize("kind", ["legacy", "isolated"])
@pytest.mark.parametrize("before", ["", "import aiopgx"], ids=["first", "also in the main one"])
@pytest.mark.parametrize("module", ["aiopgx", "aiopgx.sa", "aiopgx._core"])
def test_subinterpreters(kind, before, module):
    ended = output_of(WITHIN.format(kind=kind, before=before, module=module))
    assert SUBINTERPRETER in ended.stdout, ended.stderr


def test_the_main_interpreter_goes_on(dsn):
    """After one that was refused."""
    program = f"""
import asyncio, aiopgx
async def main():
    async with aiopgx.connect({dsn!r}) as conn, conn.cursor() as cursor:
        await cursor.execute("SELECT 'as ever'")
        print(await cursor.fetchone())
asyncio.run(main())
"""
    refused = WITHIN.format(kind="legacy", before="", module="aiopgx")
    ended = output_of(refused + program)
    assert SUBINTERPRETER in ended.stdout
    assert "as ever" in ended.stdout, ended.stderr


@pytest.mark.parametrize("module", ["aiopgx", "aiopgx.sa", "aiopgx._core"])
def test_free_threaded_builds(module):
    """By their mark; the weekly run imports aiopgx on real ones."""
    ended = output_of(f"import sys; sys.abiflags += 't'; import {module}")
    assert BUILDS.format(*sys.version_info) in ended.stderr
    assert ended.returncode == 1
