"""Shared weights under gates, on real digits: the loss and its gradient, descent, and weights that follow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models.errors import InputError
from nas.data import split
from nas.data_source import load
from nas.evaluators import supernet
from nas.loop import search
from nas.objectives import Objective
from nas.run import gap, same
from nas.strategies import darts
from nas.training.images import normalise
from nas.training.loss import cross_entropy
from search_spaces.encoding import one_hot, uniform_gates
from search_spaces.spaces import tiny
from search_spaces.supernet import Supernet

SPACE = tiny.space()
SETTINGS = {"data": "digits", "seed": 1, "validation": 96, "epochs": 2, "batch": 64, "calibration": 64, "chunk": 2}
WIDTH = SPACE.names.index("stages/1/width")


def _trained(judge):
    state = judge.init(jax.random.key(0))
    for round in range(judge.rounds):
        state, _ = judge.train(jax.random.key(round), state)
    return state


@pytest.fixture(scope="module")
def trained():
    """All validation images are looked at, so that the choice of them does not matter."""
    judge = supernet.evaluator(SPACE, relaxed_images=96, **SETTINGS)
    return judge, _trained(judge)


def test_one_hot_gates_are_judged_as_the_network_they_are(trained):
    judge, state = trained
    splits, net = split(load("digits"), 96, 1), Supernet(SPACE)
    x = normalise(jnp.asarray(splits.validation_images), jnp.asarray(splits.mean), jnp.asarray(splits.std))
    genes = np.asarray([[0, 1, 0, 1, 2, 1], [1, 0, 1, 0, 1, 0]], np.int32)  # of both widths
    hot = np.stack([one_hot(SPACE, row) for row in genes])
    found = judge.evaluate(jax.random.key(3), state, hot, np.arange(2))
    logits = jax.jit(lambda row: net.apply(state.params, x, row, "train"))
    wanted = [float(cross_entropy(logits(jnp.asarray(row)), jnp.asarray(splits.validation_labels))) for row in genes]
    np.testing.assert_allclose(found.error, wanted, rtol=1e-4)


def test_the_gradient_is_that_of_the_loss_for_widths_as_well(trained):
    judge, state = trained
    gates = np.asarray(uniform_gates(SPACE))[None]
    found = judge.evaluate(jax.random.key(3), state, gates, np.arange(1))
    gradient = np.asarray(found.error_grads)[0]
    assert np.isfinite(gradient).all() and (np.abs(np.diff(gradient[:, :2])) > 1e-6).all()
    for d in (0, WIDTH):
        move = np.zeros_like(gates)
        move[0, d, :2] = 0.0025, -0.0025  # small: activations have kinks
        moved = (judge.evaluate(jax.random.key(3), state, gates + s * move, np.arange(1)) for s in (1, -1))
        ends = [float(quality.error[0]) for quality in moved]
        assert (ends[0] - ends[1]) / 2 == pytest.approx(float((gradient * move[0]).sum()), rel=0.1, abs=2e-5)


def test_descent_lowers_the_loss_of_frozen_weights(trained):
    judge, state = trained
    goal = Objective(SPACE, "raspberry_pi_4", minimize=("error",))
    ready = judge._replace(init=lambda key: state, rounds=0)
    run = search(SPACE, darts.strategy(SPACE, learning_rate=0.3), ready, goal, steps=12, key=jax.random.key(0))
    soft = [record["objectives"]["error"] for record in run.records if record["status"] == "relaxed"]
    assert soft[-1] < soft[0] - 0.02
    assert np.isfinite(gap(run).network)


@pytest.fixture(scope="module")
def following():
    return supernet.evaluator(SPACE, relaxed_images=64, follow=8, follow_rate=0.1, **{**SETTINGS, "epochs": 1})


@pytest.mark.slow  # three programs of the whole supernet; the toy has the same test
def test_weights_follow_the_gates_and_a_resumed_search_is_equal(following, tmp_path):
    goal = Objective(SPACE, "raspberry_pi_4", scalar="fbnet")
    plan = darts.strategy(SPACE, judge_every=2)

    def run(judge=following, **options):
        return search(SPACE, plan, judge, goal, steps=4, key=jax.random.key(0), **options)

    straight = run()
    versions = [record["evaluator_version"] for record in straight.records]
    assert len(set(versions)) == len(versions) == 7  # four relaxed, judged at steps 0, 2 and 3
    calls = []

    def follow(key, state, gates):
        calls.append(None)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return following.follow(key, state, gates)

    with pytest.raises(KeyboardInterrupt):
        run(following._replace(follow=follow), out=tmp_path / "run")
    assert same(run(out=tmp_path / "run"), straight)


def test_following_lowers_the_training_loss_and_changes_no_state_it_was_given(following):
    state, gates = following.init(jax.random.key(0)), np.asarray(uniform_gates(SPACE))[None]
    before, after, losses = jax.tree.map(np.array, state), state, []
    for number in range(4):
        after, metrics = following.follow(jax.random.key(number), after, gates)
        losses.append(metrics["loss"])
    assert losses[-1] < losses[0] - 0.2
    assert all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (before, state)), strict=True))
    assert following.version(after) != following.version(state)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"relaxed_images": 0}, "relaxed_images 0 is not allowed: give a whole number from 1 to"),
        ({"relaxed_loss": "hinge"}, "hinge.*cross_entropy.*doubt"),
        ({"follow": -1}, "follow -1 is not allowed: give a whole number from 0"),
    ],
)
def test_settings_are_checked(options, said):
    with pytest.raises(InputError, match=said):
        supernet.evaluator(SPACE, **SETTINGS | {"epochs": 1} | options)
