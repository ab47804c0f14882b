"""The experiment on automatic pruning: it goes on where it was stopped, and compares networks of one size."""

import doctest
import json

import pytest

from hw_models.errors import InputError
from search_spaces.precision import with_bits
from search_spaces.spaces import tiny

ROW = {"error": 12.0, "bytes": 2048.0}


@pytest.fixture(scope="module")
def judge(scripts_by_name):
    import judge_automatic_pruning

    return judge_automatic_pruning


def test_its_examples_hold(judge):
    assert doctest.testmod(judge).failed == 0


def test_a_run_that_was_stopped_goes_on(judge, tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(judge, "judged", lambda settings, seed: asked.append(seed) or {"angle": ROW})
    judge.main(["--out", str(tmp_path), "--seeds", "1"])
    judge.main(["--out", str(tmp_path), "--seeds", "2"])
    assert asked == [0, 1]
    assert list(json.loads((tmp_path / "automatic_pruning.json").read_text())["seeds"]) == ["0", "1"]
    assert "| angle | 12.00 ± 0.00 | 2.0 ± 0.0 | 2.0 ± 0.0 |" in capsys.readouterr().out
    with pytest.raises(InputError, match="holds results of .*give the same settings, or another --out"):
        judge.main(["--out", str(tmp_path), "--epochs", "3"])


def test_the_uniform_share_leaves_the_size_that_is_asked_for(judge):
    space = with_bits(tiny.space().freeze([0] * 6), "w2a8")
    whole = judge.size_bytes(space)
    assert judge.uniform_ratio(space, whole) == 0
    assert 0.15 < judge.uniform_ratio(space, 0.7 * whole) < 0.4
