"""The judge of pruning: it goes on where it was stopped, and says what it found."""

from __future__ import annotations

import importlib
import json

import pytest

from hw_models.errors import InputError

pytestmark = pytest.mark.usefixtures("scripts_by_name")
ROW = {
    "error_percent": 12.0,
    "before_percent": 12.5,
    "validation_percent": 11.0,
    "params": 100,
    "macs": 1000,
    "params_share": 1.0,
    "macs_share": 1.0,
    "seconds": 3.0,
}


@pytest.fixture
def script():
    return importlib.import_module("judge_pruning")


def test_a_run_that_was_stopped_goes_on(script, tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(
        script, "row", lambda task, *rest: asked.append(task) or ROW | {"error_percent": 12 + task.seed}
    )
    options = ["--out", str(tmp_path), "--methods", "filter_l1", "--seeds", "2"]
    script.main([*options, "--tasks", "2"])
    script.main(options)
    assert asked == script.tasks(["filter_l1"], 2)
    rows = json.loads((tmp_path / "pruning.json").read_text())["rows"]
    assert {name: list(seeds) for name, seeds in rows.items() if len(seeds) > 1} == dict.fromkeys(
        script.GOAL_TASKS, ["0", "1"]
    )
    found = (tmp_path / "pruning.md").read_text()
    assert "| psp/kernel | 12.00 | 12.50 | 11.00 | 100 | 1,000 | 100.0% | 1.00 / 1.00 | 3 |" in found
    assert "| psp/column | 12.50 ± 6.35 |" in found
    script.main([*options, "--only", "psp/layer/printed,psp/column"])
    assert asked[-1] == ("psp/layer/printed", 0)
    with pytest.raises(InputError, match="holds results of"):
        script.main([*options, "--epochs", "3"])
    capsys.readouterr()


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("filter_l3/0.5", "method"),
        ("filter_l1/0.3", "density"),
        ("psp/rows", "structure"),
        ("psp/layer/own", "gradient"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is(script, tmp_path, names, said):
    with pytest.raises(InputError, match=f"unknown {said}"):
        script.main(["--out", str(tmp_path), "--only", f"dense,{names}"])


@pytest.mark.parametrize(
    ("error", "share", "said"), [(12.4, 0.25, "is met"), (12.6, 0.2, "is missed"), (12, 0.3, "is missed")]
)
def test_the_page_says_whether_the_goal_is_met(script, error, share, said):
    pruned = ROW | {"error_percent": error, "params_share": share}
    assert said in script.page({"dense": {"0": ROW}, "psp/column": {"0": pruned}}, script.Settings())


def test_gates_shrink_alike_whatever_the_length_of_the_training(script):
    short, long = (script.gates_of("column", script.Settings(epochs=epochs)).l2 for epochs in (10, 40))
    assert short == pytest.approx(4 * long)
    assert script.gates_of("layer/printed", script.Settings()).gradient == "printed"
