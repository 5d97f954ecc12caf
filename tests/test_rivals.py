"""bench/drill.py, which shows who loses what: in its short form aiopgx loses nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

DRILL = Path(__file__).parents[1] / "bench" / "drill.py"

# A server that is down has tests of its own, with clocks (test_drill_server.py).
DRILLS = [
    *("storm", "steps", "handed", "wave", "connecting", "left", "fair", "cut", "killed", "middle"),
    *("frozen", "damage", "forked"),
]
if sys.version_info >= (3, 11):  # which before raises KeyboardInterrupt anywhere
    DRILLS.append("interrupted")


def drilled(library, drills, patience):
    """What drills have shown, on a machine that may be slow."""
    command = [sys.executable, "-W", "ignore", DRILL, library, "--inside", "--short"]
    command += ["--rounds", "1", "--patience", patience, "--drill", *drills]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return {line.split()[0]: line.split(": ")[1] for line in done.stdout.splitlines()}


def test_nothing_is_lost():
    assert drilled("aiopgx", DRILLS, "10") == dict.fromkeys(DRILLS, "nothing lost")


@pytest.mark.needs("openssl")
def test_no_cancel_request_in_clear():
    assert drilled("aiopgx", ["clear"], "10") == {"clear": "nothing lost"}


def test_what_is_lost_is_seen():
    """aiopg gives up queries, and the server goes on with them."""
    assert drilled("aiopg", ["left"], "0.1") == {"left": "20 queries"}
