"""A search with the real supernet, killed without warning, continues to the result of the undisturbed one."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.results import load_run
from nas.run import differences
from nas.run_files import read_snapshot

FLYNAS = Path(sys.executable).parent / "flynas"
CHANGES = ["evaluator.epochs=20", "steps=3"]
SMALL = [part for change in CHANGES for part in ("--set", change)]
# the command keeps a snapshot every 30 s, longer than this search takes
SNAPSHOT_EVERY_ROUND = f"""
import sys
from experiments.build import build
from experiments.config import load_config
from experiments.overrides import override
from nas.loop import search
built = build(override(load_config("tiny"), {CHANGES}))
search(built.space, built.strategy, built.evaluator, built.objective, steps=built.experiment.steps, key=built.key,
       out=sys.argv[1], config=built.config(), snapshot_s=0)
"""


def command(out):
    return [str(FLYNAS), "search", "tiny", "--out", str(out), *SMALL]


def finish(out):
    done = subprocess.run(command(out), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def kill_when(out, reached, line_text=None, start=command):
    """Start the search and SIGKILL it as soon as `reached()`."""
    process = subprocess.Popen(start(out), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        if line_text is not None:
            for line in process.stdout:
                if line_text in line:
                    break
        deadline = time.monotonic() + 200
        while not reached() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        assert process.poll() is None, "it finished before it could be killed"
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    finish(out)  # not here: this process may have computed before, with threads of its own, and results depend on them
    return load_run(out)


def test_killed_in_the_middle_of_training(undisturbed, tmp_path):
    out = tmp_path / "run"
    kill_when(out, lambda: True, line_text="training 1/20")
    finish(out)
    assert not differences(undisturbed, load_run(out))


@pytest.mark.slow
def test_killed_in_the_middle_of_training_after_a_snapshot(undisturbed, tmp_path):
    out = tmp_path / "run"

    def trained():
        snapshot = read_snapshot(out)
        return snapshot is not None and snapshot.round >= 5

    kill_when(out, trained, start=lambda out: [sys.executable, "-c", SNAPSHOT_EVERY_ROUND, str(out)])
    snapshot = read_snapshot(out)
    assert 5 <= snapshot.round < 20 and snapshot.step == 0
    finish(out)
    assert not differences(undisturbed, load_run(out))


@pytest.mark.slow  # tests/nas/test_continued_search.py cuts records of a search that takes less time
def test_killed_in_the_search_and_a_record_cut_in_half(undisturbed, tmp_path):
    out = tmp_path / "run"
    records = out / "records.jsonl"
    kill_when(out, lambda: records.exists() and records.read_bytes().count(b"\n") >= 5)
    whole = records.read_bytes()
    finished = whole.count(b"\n")
    last_start = whole[:-1].rfind(b"\n") + 1
    records.write_bytes(whole[: last_start + (len(whole) - last_start) // 2])  # as a kill inside the write leaves it
    said = finish(out)
    run = load_run(out)
    assert not differences(undisturbed, run)
    assert "half" in said or "incomplete" in said or "cut" in said, said
    assert finished < len(run.records)
    shutil.rmtree(out)
