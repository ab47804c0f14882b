"""Successive halving: who is promoted, what the loop records of short trainings, and that it saves training."""

from collections import Counter

import jax
import numpy as np
import pytest

from hw_models.errors import InputError
from hw_models.programs import for_few_runs
from nas.loop import search
from nas.run import same
from nas.store import load
from nas.strategies import random_search, successive_halving
from nas.toy import ToySpace, toy_error, toy_evaluator, toy_objective
from nas.types import Quality, bound

SPACE = ToySpace()
ALONE = toy_objective(SPACE, ("error",))
NINE = bound(successive_halving.strategy(SPACE, population=9), ALONE)._replace(bind=None)  # compiled once for all tests


def _trainable(asked=None):
    """A toy whose short trainings are noisier; `asked` counts networks by their share of the training."""
    full = toy_evaluator(SPACE, chunk=4)

    def at(share):
        def evaluate(key, state, genes, index):
            if asked is not None:
                asked[round(float(share), 3)] += len(genes)
            exact = np.asarray(full.evaluate(key, state, genes, index).error)
            noise = np.asarray([np.random.default_rng([7, *map(int, row)]).normal() for row in genes])
            return Quality(np.float32(exact + 0.05 * (1 - share) * noise))

        return full._replace(evaluate=evaluate, shortened=at)

    return at(1.0)


def test_short_trainings_are_recorded_as_such_and_never_win():
    asked = Counter()
    run = search(SPACE, NINE, _trainable(asked), ALONE, steps=12, key=jax.random.key(0))
    shares = Counter(round(record.get("training_share", 1.0), 3) for record in run.records)
    assert set(shares) == {0.111, 0.333, 1.0}
    assert shares[0.111] > 2 * shares[0.333] > 2 * shares[1.0] > 0
    assert {r["status"] for r in run.records if "training_share" in r} == {"partial"}
    assert all("training_share" not in record for record in run.front())
    assert sum(asked.values()) <= len(run.records)  # a network is trained once for a length


def test_the_best_third_is_promoted():
    run = search(SPACE, NINE, _trainable(), ALONE, steps=2, key=jax.random.key(0))
    first = sorted((r for r in run.records if r["step"] == 0), key=lambda r: r["objectives"]["error"])
    second = [r for r in run.records if r["step"] == 1 and r["training_share"] > 0.3]
    assert [r["genes"] for r in second] == [r["genes"] for r in first[:3]]


def test_a_continued_search_equals_one_that_was_not_interrupted(tmp_path):
    def run(steps, out):
        return search(SPACE, NINE, _trainable(), ALONE, steps=steps, key=jax.random.key(3), out=out, snapshot_s=0)

    run(3, tmp_path / "parts")
    assert same(run(7, tmp_path / "parts"), run(7, tmp_path / "whole"))
    assert any(record["status"] == "partial" for record in load(tmp_path / "parts").records)


def test_it_finds_more_than_random_search_for_the_same_training():
    lowest = {"halving": [], "random": []}
    other = bound(random_search.strategy(SPACE, population=10), ALONE)._replace(bind=None)
    for seed in range(5):
        key = jax.random.key(seed)
        run = search(SPACE, NINE, _trainable(), ALONE, steps=30, key=key)
        spent = sum(record.get("training_share", 1.0) for record in run.records)
        lowest["halving"].append(min(r["objectives"]["error"] for r in run.records if r["status"] in ("ok", "cached")))
        run = search(SPACE, other, _trainable(), ALONE, steps=max(1, int(spent // 10)), key=key)
        lowest["random"].append(min(r["objectives"]["error"] for r in run.records))
    assert np.mean(lowest["halving"]) < np.mean(lowest["random"])


def test_evaluators_without_trainings_are_refused():
    with pytest.raises(InputError, match="evaluator toy cannot: take standalone"):
        search(SPACE, successive_halving.strategy(SPACE), toy_evaluator(SPACE), ALONE, steps=1, key=jax.random.key(0))
    with pytest.raises(InputError, match="rungs 1 is not allowed: give a whole number from 2 to 8"):
        successive_halving.strategy(SPACE, rungs=1)


def test_the_answer_holds_the_best_full_trainings():
    ask, tell, error_of = for_few_runs(NINE.ask), for_few_runs(NINE.tell), jax.jit(jax.vmap(toy_error))
    state, full = for_few_runs(NINE.init)(jax.random.key(0)), {}
    for t in range(15):
        state, proposal = ask(jax.random.key(t), state)
        error = error_of(proposal.genes)
        state = tell(state, proposal, ALONE.feedback(error, ALONE.price(proposal.genes), np.ones(9, bool)))
        done = np.asarray(proposal.share) == 1
        full |= {
            tuple(row): float(e) for row, e in zip(np.asarray(proposal.genes)[done].tolist(), error[done], strict=True)
        }
    best = sorted(full, key=full.get)[:9]
    assert [tuple(row) for row in np.asarray(NINE.final(state)).tolist()][: len(best)] == best


def test_no_place_is_given_away_while_its_network_is_promoted():
    space = ToySpace(decisions=8)
    goal = toy_objective(space, ("error",))
    plan = bound(successive_halving.strategy(space, population=256), goal)
    ask, tell, error_of = for_few_runs(plan.ask), for_few_runs(plan.tell), jax.jit(jax.vmap(toy_error))
    state = for_few_runs(plan.init)(jax.random.key(0))
    for t in range(14):  # more than the ring of 1,024 holds
        state, proposal = ask(jax.random.key(t), state)
        assert len(set(np.asarray(proposal.aux.place).tolist())) == 256, f"a place twice at step {t}"
        error = error_of(proposal.genes)
        state = tell(state, proposal, goal.feedback(error, goal.price(proposal.genes), np.ones(256, bool)))
