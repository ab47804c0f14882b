"""Strategies that take several objectives, with three, and with as many as a user may name."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from hw_models import discover
from nas.loop import search
from nas.pareto import hypervolume
from nas.toy import ToySpace, toy_evaluator, toy_objective

SPACE = ToySpace(decisions=12, options=4)
THREE = ("error", "latency_s", "params")
# local_search is not among them: below a few hundred evaluations it is no better (docs/results/strategies.md)
BY_NAME = {
    "nsga2": {},
    "nsga3": {},
    "regularized_evolution": {"batch": 8},
    "tournament_evolution": {},
    "reinforce": {},
    "recurrent_controller": {},
    "ppo": {},
    "surrogate_bo": {},
    "predictor_evolution": {},
}


def run_of(name, minimize, seed, evaluations=320, **options):
    plan = discover.load("nas.strategies", name, "strategy")(SPACE, population=16, **options)
    steps, key = evaluations // options.get("batch", 16), jax.random.key(seed)
    return search(SPACE, plan, toy_evaluator(SPACE), toy_objective(SPACE, minimize), steps=steps, key=key)


def volume(run):
    rows = [[record["objectives"][name] for name in THREE] for record in run.records if record["status"] == "ok"]
    return hypervolume(rows, [1.1, 60.0, 40.0])


@pytest.fixture(scope="module")
def by_chance():
    return np.mean([volume(run_of("random_search", THREE, seed)) for seed in range(3)])


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_NAME)
def test_three_objectives_are_searched_better_than_by_chance(name, by_chance):
    found = [volume(run_of(name, THREE, seed, **BY_NAME[name])) for seed in range(3)]
    assert np.mean(found) > 1.01 * by_chance, (found, by_chance)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nsga2", "nsga3", "local_search", "reinforce", "surrogate_bo"])
def test_six_objectives_run_and_all_of_them_count(name):
    names = ("error", "latency_s", "params", "energy_j", "peak_memory_bytes", "activations")
    run = run_of(name, names, 0, 64)
    assert run.objectives == names and len(run.front()) > 3
    assert all(np.isfinite([record["objectives"][each] for each in names]).all() for record in run.records)
