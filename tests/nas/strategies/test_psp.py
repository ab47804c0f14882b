"""Structure parameters of options: what is dead and what comes back, the two gradients, the decay, and the optimum."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models.errors import InputError
from nas.loop import search
from nas.strategies import psp
from nas.strategies.psp import decayed, shares
from nas.toy import ToySpace, toy_error, toy_evaluator, toy_objective
from nas.types import Feedback, bound

TOY = ToySpace()
ALL = jnp.ones((1, 4), bool)


def _told(plan, state, grads):
    _, proposal = jax.jit(plan.ask)(jax.random.key(0), state)
    return proposal, _tell(plan, state, proposal, grads)


def _tell(plan, state, proposal, grads):
    ones = jnp.ones(1)
    told = Feedback(ones[:, None], ones, 0 * ones, ones > 0, ones > 0, grads)
    return jax.jit(plan.tell)(state, proposal, told)


def test_options_below_the_threshold_are_dead_and_one_always_lives():
    nu = jnp.asarray([[0.1, 0.3, 0.0999, 0.6], [0.05, 0.02, 0.0, 0.01], [0.2, 0.2, 9.0, 9.0]])
    legal = jnp.asarray([[True] * 4, [True] * 4, [True, True, False, False]])
    # a parameter at the threshold is kept (equation 6.8)
    wanted = [[0.1, 0.3, 0.0, 0.6], [1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0]]
    gates = shares(nu, legal, 0.1)
    np.testing.assert_allclose(gates, wanted, rtol=1e-6)
    np.testing.assert_allclose(shares(nu, legal, 0.0)[1], [0.625, 0.25, 0.0, 0.125], rtol=1e-6)


@pytest.mark.parametrize("gradient", ["exact", "printed"])
def test_the_gradient_passes_the_threshold_by_the_formula_that_was_asked_for(gradient):
    nu, slope = jnp.asarray([[0.5, 1.0, 0.05, 1.5]]), jnp.asarray([[1.0, -2.0, 3.0, 0.5]])
    found = jax.grad(lambda nu: (shares(nu, ALL, 0.1, gradient) * slope).sum())(nu)
    total = 3.0  # of what lives
    mean = (0.5 * 1.0 - 1.0 * 2.0 + 1.5 * 0.5) / total
    np.testing.assert_allclose(found, (slope - mean) / (total if gradient == "exact" else 1.0), rtol=1e-5)
    # where nothing is dead the exact one is the derivative of nu over its sum
    whole = jax.grad(lambda nu: (nu / nu.sum() * slope).sum())(nu)
    np.testing.assert_allclose(jax.grad(lambda nu: (shares(nu, ALL, 0.0) * slope).sum())(nu), whole, rtol=1e-4)


def test_illegal_options_get_no_gate_and_no_gradient():
    legal = jnp.asarray([[True, True, False, False]])
    nu = jnp.ones((1, 4))
    assert jax.grad(lambda nu: (shares(nu, legal, 0.1) * jnp.arange(4.0)).sum())(nu)[0, 2:].tolist() == [0.0, 0.0]
    assert decayed(nu, nu, legal, 0.1, 0.0, 0.0).tolist() == [[1.0, 1.0, 0.0, 0.0]]


def test_the_decay_is_the_step_of_the_elastic_net_and_leaves_the_largest_at_the_threshold():
    # equation 7.8 at a rate of 0.1, l1 of 0.01, l2 of 1e-4 and no gradient: 0.5 becomes 0.498995
    nu = jnp.asarray([[0.5, 0.0005, 0.2, 0.0]])
    once = decayed(nu, nu, ALL, 0.1, 0.1 * 0.01, 0.1 * 1e-4)
    np.testing.assert_allclose(once, [[0.498995, 0.0, 0.198998, 0.0]], rtol=1e-5)
    for _ in range(600):
        nu = decayed(nu, nu, ALL, 0.1, 1e-3, 1e-5)
    np.testing.assert_allclose(nu, [[0.1, 0.0, 0.0, 0.0]], atol=1e-6)
    nothing = decayed(jnp.zeros((1, 4)), jnp.zeros((1, 4)), ALL, 0.0, 0.1, 0.1)
    np.testing.assert_allclose(shares(nothing, ALL, 0.0), 0.25)


def test_what_the_loss_does_not_hold_dies_and_comes_back_when_it_does():
    plan = psp.strategy(TOY, learning_rate=0.1)
    state = plan.init(jax.random.key(0))
    np.testing.assert_allclose(state.logits, 1.0, atol=0.02)
    against = jnp.zeros((1, 6, 4)).at[0, 0].set(jnp.asarray([3.0, 0.0, -1.0, 2.0]))
    for _ in range(15):
        proposal, state = _told(plan, state, against)
    assert proposal.gates[0, 0, 0] == 0 and proposal.gates[0, 0, 3] == 0 and state.logits[0, 0, 0] == 0
    for _ in range(25):
        proposal, state = _told(plan, state, -against)
    assert proposal.gates[0, 0, 0] > 0.5 and proposal.genes[0, 0] == 0
    np.testing.assert_allclose(proposal.gates.sum(-1), 1.0, rtol=1e-6)


@pytest.mark.parametrize("gradient", ["exact", "printed"])
@pytest.mark.parametrize("population", [1, 3])
def test_it_finds_the_best_network_of_the_toy(gradient, population):
    goal = toy_objective(TOY, scalar=lambda values: values["error"] + 0.05 * values["latency_s"])
    every = jnp.asarray(list(itertools.product(range(4), repeat=6)))
    priced = goal.price(jax.vmap(TOY.canonical)(every))
    best = float((jax.vmap(lambda row: toy_error(TOY.canonical(row)))(every) + 0.05 * priced.costs["latency_s"]).min())
    plan = psp.strategy(TOY, population=population, gradient=gradient)

    def run():
        judge = toy_evaluator(TOY, gradients=True)
        return search(TOY, plan, judge, goal, steps=80, key=jax.random.key(0))

    found, again = run(), run()
    last = np.asarray(found.records[-1]["genes"])
    reached = float(toy_error(jnp.asarray(last)) + 0.05 * goal.price(last[None]).costs["latency_s"][0])
    assert reached <= best + 0.01
    assert [record["genes"] for record in again.records] == [record["genes"] for record in found.records]


def test_before_anything_is_told_the_answer_is_what_it_would_ask_for():
    """By sums of logarithms 0.5 and 0.5 are more than 0.9 and 0.2, by sums of the parameters less."""
    goal = toy_objective(TOY, ("error",), limits={"params": 5.0})
    plan = bound(psp.strategy(TOY), goal)
    state = plan.init(jax.random.key(0))
    for seed in range(8):
        nu = jax.random.uniform(jax.random.key(seed), state.logits.shape)
        tried = state._replace(logits=nu)
        _, proposal = jax.jit(plan.ask)(jax.random.key(1), tried)
        np.testing.assert_array_equal(jax.jit(plan.final)(tried), proposal.genes)


def test_more_decay_leaves_fewer_options():
    goal = toy_objective(TOY, scalar="absolute", targets={"latency_s": 11.0})

    def alive(l1):
        plan = psp.strategy(TOY, l1=l1)
        state = plan.init(jax.random.key(0))
        for step in range(80):
            _, proposal = jax.jit(plan.ask)(jax.random.key(step), state)
            grads = goal.gate_grads(jnp.zeros(1), jnp.zeros_like(proposal.gates), proposal.gates)
            state = _tell(plan, state, proposal, grads)
        return int((proposal.gates > 0).sum())

    assert alive(0.0) > alive(0.5) >= 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": 1.0}, "eps 1.0 is not allowed: give a number from 0 to 0.9"),
        ({"l1": -0.1}, "l1 -0.1 is not allowed: give a number from 0 to 1"),
        ({"l2": 2}, "l2 2 is not allowed: give a number from 0 to 1"),
        ({"gradient": "prinded"}, "unknown gradient 'prinded': did you mean 'printed'"),
        ({"population": 0}, "population 0"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(InputError, match=message):
        psp.strategy(TOY, **options)


def test_it_says_what_it_is_and_has_no_temperature():
    told = psp.strategy(TOY, eps=0.2).describe
    assert (told["eps"], told["l1"], told["gradient"]) == (0.2, 0.1, "exact") and "temperature" not in told
    assert json.dumps(dict(told))
