"""Settings of all tests."""

import gc
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

# The tests compile much and compute little: code that is made quickly, by the older emitters (a third of the time of
# the newer ones) and in one piece. XLA reads this when the first array is made, also in commands they start.
QUICK = (
    "--xla_backend_optimization_level=0",
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_cpu_parallel_codegen_split_count=1",
)
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *QUICK]).strip()
# Nobody reads which lines of Python an instruction came from, and to record them takes a tenth of the time.
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")

# Commands and workers compile the same programs again and again: the first to do so keeps them for the others. Small
# ones as well: a command has a hundred of them.
CACHE = "JAX_COMPILATION_CACHE_DIR"
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
_made = None
if CACHE not in os.environ:
    _made = os.environ[CACHE] = tempfile.mkdtemp(prefix="flynas-tests-")


# Workers take file after file. One that takes long must not come last, when the other worker has nothing left to do;
# xdist's own order, by the number of tests, puts the longest ones there.
LONG = ("test_blocks.py", "test_resume.py", "test_readme.py")


def pytest_configure(config):
    """Files in the order in which they were collected."""
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items):
    """Files that take long first."""
    items.sort(key=lambda item: item.path.name not in LONG)


def pytest_collection_finish(session):
    """What was imported stays: to look through it for garbage again and again takes a quarter of a second each time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


def pytest_runtest_teardown(item, nextitem):
    """Forget the programs of a file after its last test: all of them together take gigabytes; examples take little."""
    last = nextitem is None or nextitem.path != item.path
    if last and isinstance(item, pytest.Function) and "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
        gc.collect()


def pytest_unconfigure():
    """Remove the compiled programs of this run."""
    if _made:
        shutil.rmtree(_made, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def quick_searches():
    """Searches of a few steps, whose programs need none of the optimisation that those of hundreds get."""
    from hw_models import programs

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(programs, "SOON", programs.QUICK)
        yield


@pytest.fixture(scope="module")
def scripts_by_name():
    """Modules of `scripts`, which is no package, can be imported by their names."""
    folder = str(Path(__file__).parents[1] / "scripts")
    sys.path.insert(0, folder)
    yield
    sys.path.remove(folder)


# Programs compile inside the tests, and machines differ: time limits of single examples say nothing about the code.
settings.register_profile("flynas", deadline=None, derandomize=True)
settings.load_profile("flynas")
