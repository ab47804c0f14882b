"""The surrogate evaluator: what it draws, remembers, predicts and refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models.errors import InputError
from nas.evaluators import surrogate, tabular
from nas.loop import search
from nas.strategies import random_search
from nas.toy import ToySpace, toy_evaluator, toy_objective
from nas.types import CandidateFailure, Evaluator, Quality
from search_spaces.spaces import macro, mnasnet, tiny


@pytest.fixture(scope="module", autouse=True)
def few_members():
    """These tests are about what surrounds the ensemble, which is tested in test_surrogate.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nas.surrogate.MEMBERS", 5)
        yield


def trained(judge, seed=0):
    state, every = judge.init(jax.random.key(seed)), []
    for round in range(judge.rounds):
        state, metrics = judge.train(jax.random.fold_in(jax.random.key(seed + 1), round), state)
        every.append(metrics)
    return state, every


@pytest.fixture(scope="module")
def of_macro():
    judge = surrogate.evaluator(macro.space(), base="tabular", samples=60, rounds=3)
    return judge, *trained(judge)


def test_rounds_judge_distinct_networks_and_say_how_good_the_ensemble_is(of_macro):
    judge, state, metrics = of_macro
    assert judge.rounds == 3 and [each["networks"] for each in metrics] == [20, 40, 60]
    assert len({tuple(row) for row in np.asarray(state.genes).tolist()}) == 60
    assert metrics[-1]["kendall_tau"] > metrics[0]["kendall_tau"] - 0.1 and 0 < metrics[-1]["rmse"] < 0.05
    assert metrics[-1]["failed"] == 0
    truth = tabular.evaluator(macro.space()).evaluate(None, (), state.genes, None).error
    assert np.array_equal(np.asarray(state.errors), truth)


def test_judged_networks_keep_their_errors_and_others_are_predicted(of_macro):
    judge, state, _ = of_macro
    space = macro.space()
    seen = {tuple(row) for row in np.asarray(state.genes).tolist()}
    other = np.asarray([row for row in tabular.networks(space) if tuple(row.tolist()) not in seen][:3], np.int32)
    both = np.concatenate([np.asarray(state.genes)[:2], other])
    errors = judge.evaluate(jax.random.key(0), state, both, np.arange(5)).error
    assert np.array_equal(errors[:2], np.asarray(state.errors)[:2])
    found = surrogate.predict(space, state, both)
    np.testing.assert_array_equal(errors[2:], found.error[2:].astype(np.float32))
    assert (found.deviation > 0).all() and not np.array_equal(errors[:2], found.error[:2].astype(np.float32))


def test_a_base_that_knows_few_networks_is_asked_for_those():
    space = mnasnet.space()
    judge = surrogate.evaluator(space, base="tabular", samples=40, rounds=1)
    state, _ = trained(judge)
    rows = {row.tobytes() for row in tabular.networks(space)}
    assert all(row.tobytes() in rows for row in np.asarray(state.genes))
    assert judge.describe["drawn_from"] == "2567 networks of the base"
    anything = np.asarray(jax.vmap(space.sample)(jax.random.split(jax.random.key(3), 4)))
    assert (np.abs(judge.evaluate(None, state, anything, np.arange(4)).error - 0.45) < 0.15).all()


def test_the_rounds_of_the_base_come_first():
    space = ToySpace()
    base = toy_evaluator(space, rounds=2)
    judge = surrogate.evaluator(space, base=base, samples=20, rounds=2)
    state, metrics = trained(judge)
    assert judge.rounds == 4 and "loss" in metrics[1] and metrics[2]["networks"] == 10
    assert float(state.base[0]) == 2 and judge.describe["base"]["name"] == "toy"
    assert judge.version(state) != judge.version(state._replace(base=state.base + 1))


def failing(share):
    """A toy evaluator of which networks with a first gene below `share` fail."""
    base = toy_evaluator(ToySpace())

    def evaluate(key, state, genes, index):
        if (np.asarray(genes)[:, 0] < share).any():
            raise CandidateFailure("it exploded")
        quality = base.evaluate(key, state, genes, index)
        return Quality(np.where(np.asarray(genes)[:, 1] == 3, np.nan, quality.error))

    return base._replace(evaluate=evaluate, chunk=4)


def test_failures_are_left_out_and_counted():
    space = ToySpace()
    judge = surrogate.evaluator(space, base=failing(1), samples=60, rounds=2)
    state, metrics = trained(judge)
    genes, errors = np.asarray(state.genes), np.asarray(state.errors)
    assert np.array_equal(np.isnan(errors), (genes[:, 0] < 1) | (genes[:, 1] == 3))
    assert metrics[-1]["failed"] == np.isnan(errors).sum() > 5
    good = genes[~np.isnan(errors)]
    assert np.isfinite(judge.evaluate(None, state, good, np.arange(len(good))).error).all()


def test_too_many_failures_end_the_search():
    judge = surrogate.evaluator(ToySpace(), base=failing(3), samples=40, rounds=2)
    with pytest.raises(InputError, match=r"of 20 networks failed with evaluator toy, the last because it exploded"):
        trained(judge)
    judge = surrogate.evaluator(ToySpace(), base=failing(2), samples=10, rounds=5)
    with pytest.raises(InputError, match="a surrogate needs at least 10, raise samples|failed with evaluator"):
        trained(judge)


def test_a_search_continues_to_the_same_end(tmp_path):
    space = ToySpace()
    plan, goal = random_search.strategy(space, population=4), toy_objective(space)

    def run(out, steps):
        judge = surrogate.evaluator(space, base=toy_evaluator(space), samples=20, rounds=2)
        return search(space, plan, judge, goal, steps=steps, key=jax.random.key(0), out=out)

    run(tmp_path / "a", 1)
    again, straight = run(tmp_path / "a", 3), run(tmp_path / "b", 3)
    assert [r["objectives"] for r in again.records] == [r["objectives"] for r in straight.records]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"base": "tabula"}, "unknown evaluator 'tabula': did you mean 'tabular'"),
        ({"base": "surrogate"}, "base='surrogate' is not allowed"),
        ({"base": 3}, "base=3 is not allowed"),
        ({"base": "tabular", "ran": 0}, "unknown option of evaluator tabular 'ran': did you mean 'run'"),
        ({"base": "tabular", "samples": 9}, "samples=9 is out of range: give at least 10"),
        ({"base": "tabular", "samples": 5000}, "samples=5000 are more than the 3,969 networks of tabular"),
        ({"base": "tabular", "samples": 20, "rounds": 21}, "rounds=21 is out of range: give 1 to 20"),
        ({"base": "tabular", "rounds": 0}, "rounds=0 is out of range"),
    ],
)
def test_bad_settings_are_named(options, said):
    with pytest.raises(InputError, match=said):
        surrogate.evaluator(macro.space(), **options)


def test_options_are_for_bases_by_name_and_spaces_run_dry():
    with pytest.raises(InputError, match="options run are for a base given by name"):
        surrogate.evaluator(macro.space(), base=tabular.evaluator(macro.space()), run=0)
    space = tiny.space()  # 144 encodings, fewer networks
    judge = surrogate.evaluator(space, base="proxy", proxy="params", samples=140, rounds=1)
    with pytest.raises(InputError, match="gave no new network after"):
        trained(judge)


def test_scores_of_proxies_are_learnt_too():
    space = tiny.space()
    judge = surrogate.evaluator(space, base="proxy", proxy="params", samples=60, rounds=1)
    state, (metrics,) = trained(judge)
    assert metrics["kendall_tau"] > 0.9 and judge.describe["error_is"].startswith("minus the score params")
    assert jnp.all(state.errors < 0)


def test_a_network_that_the_base_failed_on_fails_again():
    space = macro.space()

    def evaluate(key, state, genes, index):
        if (np.asarray(genes)[:, 0] == 0).any():
            raise CandidateFailure("no such network")
        return Quality(np.asarray(genes, np.float32).sum(1) / 100)

    base = Evaluator(lambda key: (), lambda key, state: (state, {}), 0, evaluate, lambda state: "1", 1, "fussy")
    judge = surrogate.evaluator(space, base=base, samples=60, rounds=1)
    state, metrics = judge.train(jax.random.key(0), judge.init(jax.random.key(0)))
    assert metrics["failed"] > 0
    genes, failed = np.asarray(state.genes), np.isnan(np.asarray(state.errors))
    with pytest.raises(CandidateFailure, match="evaluator fussy, which the surrogate stands in for, failed on macro"):
        judge.evaluate(jax.random.key(1), state, genes[failed][:1], np.arange(1))
    assert np.isfinite(judge.evaluate(jax.random.key(1), state, genes[~failed][:1], np.arange(1)).error).all()
