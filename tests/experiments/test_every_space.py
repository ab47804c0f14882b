"""A search in every space that comes with a configuration, from training to records."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hw_models import discover

SPACES = discover.names("search_spaces.spaces")
FLYNAS = Path(sys.executable).parent / "flynas"
SHORT = ("steps=2", "data=digits", "evaluator.epochs=1", "evaluator.train=200", "evaluator.validation=100",
         "evaluator.calibration=100", "strategy.population=4")  # fmt: skip


def test_every_space_has_a_configuration():
    assert set(SPACES) <= set(discover.names("experiments.configs"))


@pytest.mark.slow
@pytest.mark.parametrize("name", SPACES)
def test_two_steps_of_a_search(name, tmp_path):
    settings = [word for setting in SHORT for word in ("--set", setting)]
    command = [FLYNAS, "search", name, "--out", tmp_path / "run", *settings]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    records = [json.loads(line) for line in (tmp_path / "run/records.jsonl").read_text().splitlines()]
    assert len(records) == 8 and any(record["status"] == "ok" for record in records)
    assert all(0 <= record["objectives"]["error"] <= 1 for record in records if record["status"] == "ok")
