"""Searches that look accuracies up or predict them, through their configurations."""

import json

import pytest

from experiments.build import banner, build
from experiments.config import load_config
from experiments.overrides import override
from nas.loop import search


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("macro_table", ["steps=3", "run=0"], "CIFAR-10, test images"),
        ("mnasnet_surrogate", ["steps=2", "samples=60"], "ImageNet, validation images"),
    ],
)
def test_shipped_configurations_search(name, changes, said, tmp_path, monkeypatch):
    monkeypatch.setattr("nas.surrogate.MEMBERS", 5)
    built = build(override(load_config(name), changes))
    assert said in dict(banner(built))["error"]
    run = search(*built[:4], steps=built.experiment.steps, key=built.key, out=tmp_path, config=built.config())
    assert {record["status"] for record in run.records} <= {"ok", "cached"}
    assert all(0 < record["objectives"]["error"] < 0.7 for record in run.records)
    kept = json.loads((tmp_path / "run.json").read_text())
    assert kept["evaluator"]["licence" if name == "macro_table" else "base"]


def test_options_of_the_base_are_options_of_the_surrogate():
    changes = ["evaluator=surrogate", "base=proxy", "samples=12", "rounds=1"]
    experiment = override(load_config("tiny"), changes)
    assert experiment.evaluator.arguments["base"] == "proxy"
    built = build(experiment)
    assert built.evaluator.describe["base"]["seed"] == built.experiment.seed
    assert dict(banner(built))["error"].startswith("minus the score")
