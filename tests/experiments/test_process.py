"""Threads and memory of the process that trains."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import jax.numpy as jnp
import pytest

from experiments.process import prepare
from search_spaces.kernels import depthwise as kernels
from search_spaces.kernels import native


def test_threads_are_in_force_in_a_fresh_process() -> None:
    """XLA's pool has as many threads as asked for, although jax was imported on the way."""
    program = """
import os
from experiments.process import set_threads
from experiments.config import check, load_config
check(load_config("tiny"))
print(set_threads(1))
import jax.numpy as jnp
(jnp.ones((256, 256)) @ jnp.ones((256, 256))).block_until_ready()
names = [open(f"/proc/self/task/{task}/comm").read().strip() for task in os.listdir("/proc/self/task")]
print(sum("XLAEigen" in name for name in names))
print(set_threads(3))
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    first, pool, late = run.stdout.splitlines()
    assert first.startswith("1 thread of") and pool == "1" and "has computed before" in late, run.stderr


def test_freed_memory_is_kept_for_the_next_step() -> None:
    """A large block that was freed comes back without page faults."""
    program = """
import ctypes, resource
from concurrent.futures import ThreadPoolExecutor
from experiments.process import keep_freed_memory
kept = keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
def step():
    block = libc.malloc(48 << 20)
    ctypes.memset(block, 1, 48 << 20)
    libc.free(block)
def faults():
    step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(kept, max(faults(), ThreadPoolExecutor(1).submit(faults).result()))
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    kept, faults = run.stdout.split()
    if kept == "False":
        pytest.skip("this C library has no such setting")
    assert int(faults) < 1000, run.stderr  # 12,288 pages in a block


def test_commands_say_once_in_one_line_that_the_compiled_kernels_are_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / native.RECORD).write_text(json.dumps({"built": False, "reason": "no C++ compiler was found"}))
    monkeypatch.setattr(native, "FOLDER", tmp_path)
    monkeypatch.setattr(kernels, "_told", [])
    for _ in range(2):
        prepare("all")
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("warning: training is slower without the compiled kernels (depthwise")
    assert said.err.endswith(f": no C++ compiler was found: {native.REINSTALL}\n") and said.err.count("\n") == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kernels.depthwise(jnp.ones((1, 3, 3, 2)), jnp.ones((3, 3, 2)))
