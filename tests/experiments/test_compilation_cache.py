"""Commands keep what they compile in the user's cache folder."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import sys
if sys.argv[1] == "late":
    import jax
from experiments.compilation_cache import switch_on
folder = switch_on()
import jax, jax.monitoring
hits = []
jax.monitoring.register_event_listener(lambda name, **_: name.endswith("/cache_hits") and hits.append(name))
print(folder, len(hits), jax.jit(lambda x: (x @ x.T).sum())(jax.numpy.ones((3, 4))), len(hits), sep="|")
"""


def run(*code, **environment):
    kept = {name: value for name, value in os.environ.items() if "CACHE" not in name}
    return subprocess.run(
        [sys.executable, *code], env={**kept, **environment}, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("when", ["early", "late"])
def test_a_second_process_takes_programs_from_the_cache(tmp_path, when):
    every = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "XDG_CACHE_HOME": str(tmp_path)}
    found = []
    for _ in range(2):
        done = run("-c", SCRIPT, when, **every)
        assert done.returncode == 0, done.stderr
        folder, before, result, after = done.stdout.strip().split("|")
        assert folder == str(tmp_path / "flynas" / "jax") and result == "36.0" and before == "0"
        found.append(int(after))
    assert found[0] == 0 and found[1] > 0


def test_commands_switch_it_on_and_the_user_off(tmp_path):
    listed = ("-m", "experiments.cli", "list", "strategies", "--json")
    assert run(*listed, XDG_CACHE_HOME=str(tmp_path / "a")).returncode == 0
    assert (tmp_path / "a" / "flynas" / "jax").is_dir()
    assert run(*listed, XDG_CACHE_HOME=str(tmp_path / "b"), FLYNAS_COMPILATION_CACHE="off").returncode == 0
    assert run(
        *listed, XDG_CACHE_HOME=str(tmp_path / "b"), JAX_COMPILATION_CACHE_DIR=str(tmp_path / "c")
    ).returncode == 0  # fmt: skip
    assert not (tmp_path / "b").exists()
    assert run(*listed, FLYNAS_COMPILATION_CACHE=str(tmp_path / "d")).returncode == 0
    assert (tmp_path / "d").is_dir()


def test_a_folder_that_cannot_be_written_costs_only_the_cache(tmp_path):
    (tmp_path / "file").write_text("")
    done = run("-c", SCRIPT, "early", XDG_CACHE_HOME=str(tmp_path / "file"))
    assert done.returncode == 0 and done.stdout.startswith("None|0|36.0|0")
    (note,) = [line for line in done.stderr.splitlines() if "note" in line]
    assert "cannot be written (Not a directory)" in note and "FLYNAS_COMPILATION_CACHE" in note
