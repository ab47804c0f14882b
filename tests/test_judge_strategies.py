"""Strategies against each other: what a search counts as an evaluation, and the page on what was kept."""

from __future__ import annotations

import importlib
import json

import pytest

from nas.toy import ToySpace, toy_evaluator, toy_objective

pytestmark = pytest.mark.usefixtures("scripts_by_name")


def curve(name, options, count, tmp_path, **goal):
    space, script = ToySpace(), importlib.import_module("judge_strategies")
    judge = toy_evaluator(space, gradients=name.endswith("gates"))
    return script.curve(space, judge, toy_objective(space, **goal), name, options, 0, count, tmp_path / name)


def test_a_curve_counts_evaluated_networks_once_and_goes_on_until_there_are_enough(tmp_path):
    rows = curve("random_search", {"population": 8}, 100, tmp_path)
    spent = [row[0] for row in rows]
    assert spent == list(range(1, 101)), "repeats are known and cost nothing, so there are more steps"
    assert len({tuple(row[1:]) for row in rows}) == 100
    again = curve("random_search", {"population": 8}, 100, tmp_path)
    assert again == rows, "a finished folder gives the same"


def test_steps_of_gates_cost_an_evaluation_too(tmp_path):
    aims = {"minimize": ("error",), "scalar": "absolute", "targets": {"latency_s": 8.0}}
    rows = curve("gumbel_gates", {"judge_every": 2}, 30, tmp_path, **aims)
    assert rows[0][0] == 2, "the gates, and then the network that stands for them"
    assert all(row[0] <= 30 for row in rows) and len(rows) < 15


def test_a_strategy_that_repeats_itself_ends(tmp_path):
    rows = curve("netadapt", {"population": 4}, 200, tmp_path)
    assert 0 < len(rows) < 200


def test_the_page_says_what_was_kept(tmp_path, capsys):
    page = importlib.import_module("strategies_page")
    # [evaluations, error, seconds] by search
    good, fair = [[10, 0.2, 1e-3], [60, 0.1, 2e-3]], [[10, 0.2, 1e-3], [60, 0.15, 2e-3]]
    found = {f"front/nsga2/{seed}": good for seed in range(4)} | {
        f"front/random_search/{seed}": fair for seed in range(4)
    }
    found |= {f"number/ppo/{seed}": good for seed in range(4)} | {"number/random_search/0": [[51, 0.3, 2e-3]]}
    page.write(found, tmp_path, (50, 100))
    numbers = json.loads((tmp_path / "strategies.json").read_text())
    # the reference is a fifth beyond the worst of the front, and the limit on latency
    assert numbers["reference"] == pytest.approx([0.24, 3e-3])
    whole = 0.04 * 1e-3 + 0.14 * 1e-3
    assert numbers["best_known"] == pytest.approx(whole)
    front = numbers["rows"]["front"]
    assert list(front) == ["nsga2", "random_search"], "the best first"
    assert front["nsga2"]["50"] == pytest.approx([0.04 * 2e-3 / whole] * 4)
    assert front["random_search"]["100"] == pytest.approx([(0.04 * 1e-3 + 0.09 * 1e-3) / whole] * 4)
    assert numbers["behind"] == {"nsga2": [0.0] * 4, "random_search": pytest.approx([0.5] * 4)}
    number = numbers["rows"]["number"]
    assert number["ppo"]["100"] == pytest.approx([-0.9] * 4) and number["random_search"]["50"] == [None]
    said = capsys.readouterr().out
    assert "| `nsga2` | 0.4444 (0.4444 to 0.4444) | 1.0000 (1.0000 to 1.0000) | 0.0000 (0.0000 to 0.0000) |" in said
    assert "| front | 50 | 100 | behind | by chance, beside random | seeds |" in said and "| 1 |" in said
    assert (tmp_path / "strategies.png").stat().st_size > 10_000
