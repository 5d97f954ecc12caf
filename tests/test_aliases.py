"""aiopgx under aiopg's name: install_as_aiopg(). Each test is a program of its own."""

import pkgutil
import subprocess
import sys
from pathlib import Path

import aiopg
import psycopg2
import pytest

import aiopgx

MODULES = ["aiopg", *(m.name for m in pkgutil.walk_packages(aiopg.__path__, "aiopg."))]


def run(code, *options, **kwargs):
    done = subprocess.run(
        [sys.executable, *options, "-c", code], capture_output=True, text=True, timeout=50, **kwargs
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout


def test_every_module_of_aiopg_is_ours_under_both_names():
    run(f"""
import importlib, pickle, sys
import aiopgx
aiopgx.install_as_aiopg()
import aiopg
assert aiopg is aiopgx
# what `import aiopg` has loaded, and what it has not yet
assert sys.modules["aiopg.connection"] is aiopg.connection
assert "aiopg.sa" not in sys.modules and "sqlalchemy" not in sys.modules
for name in {MODULES}:
    module = importlib.import_module(name)
    ours = name.replace("aiopg", "aiopgx", 1)
    assert module is sys.modules[ours] is sys.modules[name] is importlib.import_module(ours)
    assert module.__name__ == module.__spec__.name == ours
    assert module.__spec__.loader is module.__loader__
    assert importlib.reload(module) is module
    assert importlib.util.find_spec(name) is module.__spec__
from aiopg.sa.exc import NoSuchColumnError
assert aiopg.sa is aiopgx.sa and aiopg.sa.exc is sys.modules["aiopgx.sa.exc"]
assert pickle.loads(pickle.dumps(NoSuchColumnError)) is NoSuchColumnError
old = b"caiopg.sa.exc\\nNoSuchColumnError\\n."  # pickled on the real one
assert pickle.loads(old) is NoSuchColumnError
""")


def test_a_submodule_is_imported_by_its_full_name_at_once():
    run("""
import aiopgx
aiopgx.install_as_aiopg()
import aiopg.sa.result
import aiopgx.sa.result
assert aiopg.sa.result.RowProxy is aiopgx.sa.result.RowProxy
assert aiopgx.sa.__spec__.name == "aiopgx.sa"
""")


def test_an_unknown_module_is_told_by_the_name_that_was_imported():
    run("""
import aiopgx
aiopgx.install_as_aiopg()
for name in ("aiopg.nothing", "aiopgfoo", "aiopg.pool.nothing"):
    try:
        __import__(name)
    except ModuleNotFoundError as error:
        assert error.name == name and str(error).startswith(f"No module named {name!r}"), error
    else:
        raise AssertionError(name)
""")


def test_what_was_imported_before_is_replaced_and_put_back():
    run("""
import sys
import aiopg.utils
import aiopgx
def modules():
    return {n: m for n, m in sys.modules.items() if n == "aiopg" or n.startswith("aiopg.")}
def finders():
    return list(sys.meta_path)
sys.modules["aiopg.of_a_plugin"] = plugin = type(sys)("aiopg.of_a_plugin")
before, finders_before, real = modules(), finders(), aiopg
aiopgx.uninstall_as_aiopg()
assert (modules(), finders()) == (before, finders_before)

aiopgx.install_as_aiopg()
after, finders_after = modules(), finders()
assert set(after) == set(before) - {"aiopg.of_a_plugin"}
for name, module in after.items():
    assert module is sys.modules[name.replace("aiopg", "aiopgx", 1)]
aiopgx.install_as_aiopg()
assert (modules(), finders()) == (after, finders_after)
import aiopg.sa, aiopg.transaction
assert aiopg is aiopgx and aiopg.pool.Pool is aiopgx.Pool and aiopg.sa is aiopgx.sa

aiopgx.uninstall_as_aiopg()
assert (modules(), finders()) == (before, finders_before)
aiopgx.uninstall_as_aiopg()
import aiopg.pool
assert aiopg is real and real.pool.Pool.__module__ == "aiopg.pool"
assert real.__spec__.name == "aiopg" and aiopgx.__spec__.name == "aiopgx"
aiopgx.install_as_aiopg()
assert sys.modules["aiopg"] is aiopgx
""")


def test_a_first_import_after_uninstall_gives_the_real_one():
    run("""
import aiopgx
aiopgx.install_as_aiopg()
import aiopg.sa
aiopgx.uninstall_as_aiopg()
import aiopg.pool
assert aiopg is not aiopgx and aiopg.pool.__spec__.name == "aiopg.pool"
assert aiopgx.sa.__spec__.name == aiopgx.sa.__name__ == "aiopgx.sa"
""")


def test_threads_install_and_import_at_once():
    run("""
import sys, threading
import aiopgx
barrier, got = threading.Barrier(8), []
def work():
    barrier.wait()
    aiopgx.install_as_aiopg()
    import aiopg.sa.engine
    got.append((aiopg, aiopg.sa, aiopg.sa.engine))
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
import aiopgx.sa
assert got == [(aiopgx, aiopgx.sa, aiopgx.sa.engine)] * 8
assert aiopgx.sa.engine.__spec__.name == "aiopgx.sa.engine"
finders = [f for f in sys.meta_path if type(f).__module__ == "aiopgx._aliases"]
assert len(finders) == 1
""")


def test_hooks_that_wait_for_the_import_of_aiopg_see_it():
    """Agents put theirs in front of all finders, long before the program starts."""
    run("""
import sys
seen = []
class Hook:
    @staticmethod
    def find_spec(name, path=None, target=None):
        seen.append(name)
sys.meta_path.insert(0, Hook)
import aiopgx
aiopgx.install_as_aiopg()
import aiopg
assert {"aiopg", "aiopg.connection"} <= set(seen)
""")


METADATA = """
import importlib.metadata as metadata, sys
import aiopgx
aiopgx.install_as_aiopg()
assert metadata.version("aiopg") == metadata.version("AIOPG") == "1.4.0"
distribution = metadata.distribution("aiopg")
assert (distribution.name, distribution.files, list(distribution.entry_points)) == (
    "aiopg", None, [])
assert metadata.requires("aiopg")[0] == "aiopgx ==" + aiopgx.__version__
assert metadata.metadata("aiopg").get_all("Provides-Extra") == ["sa"]
found = [d for d in metadata.distributions() if d.metadata["Name"] == "aiopg"]
assert found[0].version == "1.4.0"
assert "aiopg" in metadata.packages_distributions()["aiopg"]
assert distribution.locate_file("aiopgx/pool.py").read_text()
for finder in sys.meta_path:
    if type(finder).__module__ == "aiopgx._aliases":
        Context = metadata.DistributionFinder.Context
        assert finder.find_distributions(Context(name="psycopg2-binary")) == []
        assert finder.find_distributions(Context(name="aiopgx")) == []
        # another environment is asked about
        assert finder.find_distributions(Context(name="aiopg", path=["/nowhere"])) == []
"""


def test_the_distribution():
    """Whatever the version of the real one, the code that runs is the same."""
    run(METADATA)


@pytest.fixture
def without_aiopg(tmp_path):
    """A directory for sys.path where only aiopgx and psycopg2 are."""
    place = Path(psycopg2.__file__).parent
    packages = [Path(aiopgx.__file__).parent, place, place.with_name("psycopg2_binary.libs")]
    for package in packages:
        if package.exists():
            (tmp_path / package.name).symlink_to(package)
    return {"PYTHONPATH": str(tmp_path)}


def test_the_distribution_where_no_aiopg_is_installed(without_aiopg):
    run(
        "import importlib.util; assert not importlib.util.find_spec('aiopg')",
        "-S",
        env=without_aiopg,
    )
    run(METADATA + "import aiopg.pool; assert aiopg is aiopgx", "-S", env=without_aiopg)


def test_uninstalled_it_is_told_no_more(without_aiopg):
    run(
        """
import importlib.metadata
import aiopgx
aiopgx.install_as_aiopg()
aiopgx.uninstall_as_aiopg()
for call in (lambda: importlib.metadata.version("aiopg"), lambda: __import__("aiopg")):
    try:
        call()
    except ModuleNotFoundError: # PackageNotFoundError is one
        continue
    raise AssertionError
""",
        "-S", env=without_aiopg,
    )  # fmt: skip
