"""Relaxed steps of the loop: gates and then the networks that stand for them, what is kept, and how it continues."""

from collections import Counter

import jax
import numpy as np
import pytest

from hw_models.errors import InputError
from nas.loop import search
from nas.run import gap, same
from nas.strategies import darts, gumbel_gates
from nas.toy import ToySpace, toy_evaluator, toy_objective
from nas.types import CandidateFailure, Quality

SPACE = ToySpace()
PLAN = darts.strategy(SPACE, judge_every=3)
GOAL = toy_objective(SPACE, scalar=lambda values: values["error"] + 0.02 * values["latency_s"])


def _search(steps=5, evaluator=None, strategy=PLAN, goal=GOAL, **options):
    judge = evaluator or toy_evaluator(SPACE, gradients=True)
    return search(SPACE, strategy, judge, goal, steps=steps, key=jax.random.key(0), **options)


def _following(evaluator=None, calls=None):
    """Weights that follow the gates: the state counts, and adds the gates' sum up."""
    judge = evaluator or toy_evaluator(SPACE, gradients=True)

    def follow(key, state, gates):
        if calls is not None:
            calls.append(np.asarray(gates).shape)
        return state + np.asarray([1.0, jax.random.uniform(key)], np.float32), {"loss": 0.0}

    return judge._replace(follow=follow)


def test_gates_and_their_networks_have_records_and_only_networks_reach_the_front():
    run = _search(steps=5, strategy=gumbel_gates.strategy(SPACE, population=3, judge_every=3))
    soft = [record for record in run.records if record["status"] == "relaxed"]
    assert [(r["step"], r["index"]) for r in soft] == [(t, i) for t in range(5) for i in range(3)]
    networks = [record for record in run.records if record["status"] != "relaxed"]
    # judged at every third step, and at the last
    assert [(r["step"], r["index"]) for r in networks] == [(t, 3 + i) for t in (0, 3, 4) for i in range(3)]
    assert {record["status"] for record in networks} <= {"ok", "cached"}
    named = {(r["step"], r["index"] + 3): r["genes"] for r in soft}
    assert all(named[r["step"], r["index"]] == r["genes"] for r in networks)
    assert run.front() and all(record["status"] != "relaxed" for record in run.front())
    last = [r["objectives"]["error"] for r in run.records if r["step"] == 4]
    assert gap(run) == (min(last[:3]), min(last[3:])) and "soft loss" in str(gap(run))


def test_expected_costs_of_gates_and_exact_ones_of_networks():
    run = _search(steps=1)
    soft, network = run.records
    state = PLAN.init(jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 3), 1))
    gates = PLAN.ask(jax.random.key(0), state)[1].gates
    assert soft["costs"]["latency_s"] == pytest.approx(float(GOAL.price_gates(gates).costs["latency_s"][0]))
    exact = GOAL.price(np.asarray([network["genes"]]))
    assert network["costs"]["latency_s"] == float(exact.costs["latency_s"][0])


def test_limits_are_penalties_on_gates_and_screen_networks():
    goal = toy_objective(SPACE, scalar=lambda values: values["error"], limits={"params": 7.0})
    run = _search(steps=40, goal=goal, strategy=darts.strategy(SPACE, judge_every=1))
    soft = [record["costs"]["params"] for record in run.records if record["status"] == "relaxed"]
    assert len(soft) == 40 and soft[0] > 7.5 > soft[-1]
    assert all(record["costs"]["params"] <= 7 for record in run.records if record["status"] == "ok")


def test_a_row_that_fails_moves_nothing():
    judge = toy_evaluator(SPACE, gradients=True)

    def evaluate(key, state, genes, index):
        if np.ndim(genes) == 3:
            raise CandidateFailure("no memory")
        return judge.evaluate(key, state, genes, index)

    run = _search(steps=3, evaluator=judge._replace(evaluate=evaluate))
    assert [record["status"] for record in run.records] == ["failed", "ok", "failed", "failed", "cached"]
    assert gap(run) is None


@pytest.mark.parametrize("follows", [False, True])
def test_an_interrupted_search_ends_as_the_uninterrupted_one_and_goes_on(tmp_path, follows):
    def judge():
        return _following() if follows else toy_evaluator(SPACE, gradients=True)

    straight = _search(steps=8, evaluator=judge())
    stop = Counter()

    def evaluate(key, state, genes, index):
        stop["calls"] += 1
        if stop["calls"] == 7:
            raise ZeroDivisionError
        return judge().evaluate(key, state, genes, index)

    out = tmp_path / "run"
    with pytest.raises(ZeroDivisionError):
        _search(steps=8, evaluator=judge()._replace(evaluate=evaluate), out=out, snapshot_s=1e9)
    assert same(_search(steps=8, evaluator=judge(), out=out), straight)
    # from a snapshot of an earlier step than the records
    longer = _search(steps=10, evaluator=judge(), out=out)
    ahead = _search(steps=10, evaluator=judge())
    kept = [r for r in longer.records if (r["step"], r["index"]) != (7, 1)]  # judged only because it was the last step
    for record, other in zip(kept, ahead.records, strict=True):
        assert record["genes"] == other["genes"] and record["objectives"] == other["objectives"]


def test_weights_that_follow_the_gates_have_a_version_at_every_judged_step():
    calls, versions = [], []
    judge = _following(calls=calls)

    def version(state):
        versions.append(float(state[1]))
        return f"toy-{float(state[1]):g}"

    run = _search(steps=7, evaluator=judge._replace(version=version))
    assert calls == [(1, 6, 4)] * 7 and len(versions) == 3 == len(set(versions))  # steps 0, 3 and 6
    judged = [record for record in run.records if record["status"] != "relaxed"]
    assert [record["status"] for record in judged] == ["ok"] * 3, "an error of other weights is not taken over"
    assert len({record["evaluator_version"] for record in judged}) == 3


def test_weights_that_have_no_gates_to_follow_are_an_error():
    from nas.strategies import random_search

    plan, key = random_search.strategy(SPACE, population=2), jax.random.key(0)
    with pytest.raises(
        InputError, match="toy are to follow gates and strategy random_search proposes none: set follow=0"
    ):
        search(SPACE, plan, _following(), GOAL, steps=2, key=key)


def test_what_does_not_go_together_is_named():
    with pytest.raises(InputError, match="darts needs gradients and evaluator toy gives none: take tabular.*supernet"):
        _search(evaluator=toy_evaluator(SPACE))
    with pytest.raises(InputError, match="darts descends one number and minimize names error, latency_s: give scalar"):
        _search(goal=toy_objective(SPACE))


def test_errors_of_gates_are_not_offered_as_errors_of_networks():
    soft = {"status": "relaxed", "objectives": {"error": 0.1}}
    from nas.run import Run

    run = Run(None, {"objective": {"limits": {"error": 0.2}}}, [soft, {"status": "ok", "objectives": {"error": 0.5}}])
    assert "the lowest is 0.5" in run.nothing_usable()


def test_gradients_that_are_not_finite_are_left_out():
    judge = toy_evaluator(SPACE, gradients=True)

    def evaluate(key, state, genes, index):
        found = judge.evaluate(key, state, genes, index)
        return found if np.ndim(genes) == 2 else Quality(found.error, np.full_like(found.error_grads, np.nan))

    run = _search(steps=4, evaluator=judge._replace(evaluate=evaluate))
    soft = [record["objectives"]["error"] for record in run.records if record["status"] == "relaxed"]
    assert len(soft) == 4 and soft == [pytest.approx(soft[0], rel=0.05)] * 4  # only the temperature has changed
