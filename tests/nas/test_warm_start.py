"""First networks chosen by a cheap evaluator: the best of many, within limits, and no part of what is told."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from hw_models.errors import InputError
from nas import pareto
from nas.loop import search
from nas.run import same
from nas.screen import first_networks
from nas.strategies import nsga2, ppo, random_search
from nas.toy import ToySpace, toy_error, toy_evaluator, toy_objective
from nas.types import CandidateFailure, Quality
from nas.warm_start import LOOKED_AT, promising

SPACE, KEY = ToySpace(), jax.random.key(3)
ERRORS = jax.jit(jax.vmap(toy_error))


def scored(goal, genes):
    costs = goal.price(genes).costs
    return np.stack([np.asarray(ERRORS(genes)), *[np.asarray(costs[n]) for n in goal.minimize[1:]]], axis=1)


def judge_of(error_of, name="judge", **changes):
    judge = toy_evaluator(SPACE)._replace(name=name, **changes)
    return judge._replace(evaluate=lambda key, state, genes, index: Quality(np.asarray(error_of(genes), np.float32)))


def test_first_networks_are_the_front_of_what_was_looked_at():
    goal = toy_objective(SPACE)
    said = []
    genes = promising(SPACE, goal, judge_of(ERRORS), 6, KEY, said.append)
    pool = np.unique(first_networks(SPACE, goal, 6 * LOOKED_AT, KEY), axis=0)
    table = scored(goal, pool)
    front = {row.tobytes() for row in pool[pareto.non_dominated(table)]}
    assert len(front) >= 6 and all(row.tobytes() in front for row in genes) and len(np.unique(genes, axis=0)) == 6
    assert said == [f"first networks: the best 6 of {len(pool)} by judge"]
    # the ends of the front are among them: the loneliest come first
    chosen = scored(goal, genes)
    np.testing.assert_allclose(chosen.min(0), table.min(0), rtol=1e-6)


def test_limits_hold_and_targets_count_as_distance():
    goal = toy_objective(SPACE, limits={"params": 9.0}, scalar="mnasnet_soft", targets={"latency_s": 8.0})
    genes = promising(SPACE, goal, judge_of(ERRORS), 4, KEY, print)
    priced = goal.price(genes)
    assert (np.asarray(priced.violation) == 0).all()
    nearest = np.abs(np.asarray(priced.costs["latency_s"]) - 8).min()
    every = first_networks(SPACE, goal, 4 * LOOKED_AT, KEY)
    assert nearest == np.abs(np.asarray(goal.price(every).costs["latency_s"]) - 8).min()


def test_networks_that_the_judge_cannot_judge_are_left_out():
    goal = toy_objective(SPACE, minimize=("error",))

    def some(genes):
        return np.where(np.asarray(genes)[:, 0] == 0, np.nan, ERRORS(genes))

    def fails(genes):  # as a table without the row does, one row after the other
        if (np.asarray(genes)[:, 0] == 0).any():
            raise CandidateFailure("no row")
        return ERRORS(genes)

    for error_of in (some, fails):
        assert (promising(SPACE, goal, judge_of(error_of), 4, KEY, print)[:, 0] > 0).all()
    with pytest.raises(InputError, match="evaluator blind judged none of"):
        promising(SPACE, goal, judge_of(lambda g: np.full(len(g), np.nan), "blind"), 4, KEY, print)


def test_a_population_larger_than_what_there_is_repeats_it():
    goal = toy_objective(SPACE, limits={"params": 2.5})
    said = []
    genes = promising(SPACE, goal, judge_of(ERRORS), 32, KEY, said.append)
    distinct = len(np.unique(genes, axis=0))
    assert genes.shape == (32, 6) and said[0] == f"first networks: the best {distinct} of {distinct} by judge"


def run_of(strategy, warm, steps=1, out=None, seed=0):
    key = jax.random.key(seed)
    judge, goal = toy_evaluator(SPACE), toy_objective(SPACE)
    return search(SPACE, strategy, judge, goal, steps=steps, key=key, out=out, warm_start=warm)


def test_a_search_begins_better_and_is_another_run(tmp_path):
    plan, goal = nsga2.strategy(SPACE, population=8), toy_objective(SPACE)
    corner = scored(goal, first_networks(SPACE, goal, 256, KEY)).max(0) * 1.1

    def volume(run):
        return pareto.hypervolume(scored(goal, np.asarray([record["genes"] for record in run.records])), corner)

    better = [volume(run_of(plan, judge_of(ERRORS), seed=s)) > volume(run_of(plan, None, seed=s)) for s in range(5)]
    assert all(better)
    run_of(plan, judge_of(ERRORS), out=tmp_path / "run")
    again = run_of(plan, judge_of(ERRORS), steps=3, out=tmp_path / "run")
    assert again.meta["strategy"]["warm_start"] == {"name": "judge"} and len(again.records) == 24
    with pytest.raises(InputError, match="holds another run: strategy.warm_start"):
        run_of(plan, None, steps=3, out=tmp_path / "run")


def test_a_search_that_was_stopped_in_its_training_does_not_choose_again(tmp_path):
    calls, plan = [], nsga2.strategy(SPACE, population=8)
    trained = toy_evaluator(SPACE, rounds=3)

    def train(key, state):
        if len(calls) == 1 and float(state[0]) == 2:
            raise KeyboardInterrupt
        return trained.train(key, state)

    def warm(genes):
        calls.append(len(genes))
        return ERRORS(genes)

    def go(judge, out):
        once = judge_of(warm, chunk=4096)
        goal, key = toy_objective(SPACE), jax.random.key(0)
        return search(SPACE, plan, judge, goal, steps=2, key=key, out=out, warm_start=once, snapshot_s=0.0)

    with pytest.raises(KeyboardInterrupt):
        go(trained._replace(train=train), tmp_path / "stopped")
    continued = go(trained, tmp_path / "stopped")
    assert len(calls) == 1
    assert same(continued, go(trained, tmp_path / "whole")) and len(calls) == 2


def test_what_cannot_begin_warm_says_so():
    with pytest.raises(InputError, match="strategy random_search begins by itself and has no warm start"):
        run_of(random_search.strategy(SPACE), judge_of(ERRORS))
    with pytest.raises(InputError, match="strategy ppo takes its first networks for a fair sample"):
        run_of(ppo.strategy(SPACE), judge_of(ERRORS))
    with pytest.raises(InputError, match="warm_start: evaluator slow is trained before it judges: take proxy"):
        run_of(nsga2.strategy(SPACE, population=8), judge_of(ERRORS, "slow", rounds=2))
