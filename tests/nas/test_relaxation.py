"""Gradients through gates: expectations of tables and samples, the rules of the strategies, and landing."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models.errors import InputError
from nas import multilinear
from nas.evaluators import surrogate, tabular
from nas.loop import search
from nas.objectives import Objective
from nas.relaxation import softmax
from nas.rounding import landing
from nas.strategies import darts, gumbel_gates, proxyless_gates, psp
from nas.toy import ToySpace, toy_error, toy_gate_error, toy_objective
from nas.types import Feedback, bound
from search_spaces.encoding import one_hot
from search_spaces.spaces import macro, mnasnet

TOY = ToySpace()
MACRO = macro.space()


def _gates(shape, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(shape[-1]), shape[:-1]).astype(np.float32)


@pytest.fixture(scope="module")
def toy_table():
    genes = jnp.asarray(list(itertools.product(range(4), repeat=6)))
    errors = jax.jit(jax.vmap(lambda row: toy_error(TOY.canonical(row))))(genes)
    return np.asarray(errors, np.float64).reshape((4,) * 6)


def test_value_and_gradient_of_a_table_are_those_of_the_sum_over_networks(toy_table):
    gates = _gates((6, 4)).astype(np.float64)
    value, gradient = multilinear.of_table(toy_table, gates)
    outer = gates[0]
    for row in gates[1:]:
        outer = outer[..., None] * row
    assert value == pytest.approx(float((outer * toy_table).sum()))
    for d, c in [(0, 0), (2, 3), (5, 1)]:
        ends = []
        for step in (1e-4, -1e-4):
            moved = gates.copy()
            moved[d, c] += step
            ends.append(multilinear.of_table(toy_table, moved)[0])
        assert (ends[0] - ends[1]) / 2e-4 == pytest.approx(gradient[d, c], rel=1e-6)


def test_the_extension_of_the_toy_is_that_of_its_table(toy_table):
    gates = _gates((6, 4), 1)
    value, gradient = multilinear.of_table(toy_table, gates)
    found, slope = jax.value_and_grad(toy_gate_error)(jnp.asarray(gates))
    assert float(found) == pytest.approx(value, rel=1e-5)
    # on the simplex only differences within a row matter
    centred = [side - np.asarray(side).mean(1, keepdims=True) for side in (gradient, slope)]
    np.testing.assert_allclose(*centred, atol=1e-5)


def test_sampled_estimates_are_unbiased(toy_table):
    gates = _gates((6, 4), 2)
    value, gradient = multilinear.of_table(toy_table, gates)
    found, slope = multilinear.sampled(
        lambda genes: toy_table[tuple(genes.T)], gates, [4] * 6, np.random.default_rng(0), 20_000
    )
    assert found == pytest.approx(value, abs=0.01)
    np.testing.assert_allclose(slope, gradient, atol=0.01)


@pytest.fixture(scope="module")
def fitted():
    judge = surrogate.evaluator(MACRO, base="tabular", samples=40, rounds=1, samples_per_gate=2)
    return judge, judge.train(jax.random.key(0), judge.init(jax.random.key(0)))[0]


@pytest.mark.parametrize("name", ["tabular", "surrogate"])
def test_one_hot_gates_are_judged_as_the_genes(name, fitted):
    judge, state = (tabular.evaluator(MACRO), ()) if name == "tabular" else fitted
    genes = np.asarray([MACRO.check(row) for row in ([0, 1, 2, 0, 1, 2, 0, 1], [2] * 8)], np.int32)
    hot = np.stack([one_hot(MACRO, row) for row in genes])
    by_genes = judge.evaluate(jax.random.key(0), state, genes, np.arange(2)).error
    by_gates = judge.evaluate(jax.random.key(0), state, hot, np.arange(2))
    np.testing.assert_allclose(by_gates.error, by_genes, rtol=1e-6)
    # the entry of an option is the error of the network that has it, so that of the options it has is its own
    np.testing.assert_allclose((by_gates.error_grads * hot).sum(-1), np.tile(by_genes[:, None], 8), rtol=1e-6)
    alone = judge.evaluate(jax.random.key(0), state, _gates((2, 8, 3))[1:], np.asarray([1])).error
    both = judge.evaluate(jax.random.key(0), state, _gates((2, 8, 3)), np.arange(2)).error
    assert alone[0] == both[1]


def test_a_table_with_gaps_refuses_gates():
    space = mnasnet.space(activation="relu")
    judge = tabular.evaluator(space)
    assert not judge.gives_gradients
    with pytest.raises(InputError, match="holds 2,567 of 104,485,552,128 networks.*surrogate"):
        judge.evaluate(None, (), np.zeros((1, 28, 4)), np.arange(1))
    with pytest.raises(InputError, match="darts needs gradients and evaluator tabular gives none"):
        goal = Objective(space, "raspberry_pi_4", minimize=("error",))
        search(space, darts.strategy(space), judge, goal, steps=1, key=jax.random.key(0))


def test_softmax_gives_nothing_to_options_that_are_not_there():
    legal = np.arange(3) < np.asarray([[3], [2]])
    gates = softmax(jnp.zeros((2, 3)), legal, 0.5)
    assert gates[1].tolist() == [0.5, 0.5, 0.0]
    assert np.isfinite(jax.grad(lambda x: softmax(x, legal)[0, 0])(jnp.zeros((2, 3)))).all()


def _told(plan, state, proposal, grads):
    rows = len(proposal.genes)
    ones = jnp.ones(rows)
    return plan.tell(state, proposal, Feedback(ones[:, None], ones, 0 * ones, ones > 0, ones > 0, grads))


@pytest.mark.parametrize("paths", [0, 2])
def test_the_gradient_of_proxylessnas_is_its_formula(paths):
    plan = proxyless_gates.strategy(TOY, paths=paths)
    state = plan.init(jax.random.key(0))
    state = state._replace(logits=jax.random.normal(jax.random.key(1), (1, 6, 4)))
    _, proposal = plan.ask(jax.random.key(2), state)
    grads = jax.random.normal(jax.random.key(3), (1, 6, 4))
    alpha, dl = np.asarray(state.logits[0], np.float64), np.asarray(grads[0], np.float64)
    compared = np.asarray(proposal.aux[0])
    assert (compared.sum(1) == (paths or 4)).all() and (np.asarray(proposal.gates[0])[~compared] == 0).all()
    wanted = np.zeros((6, 4))
    for d in range(6):
        inside = np.flatnonzero(compared[d])
        p = np.exp(alpha[d, inside]) / np.exp(alpha[d, inside]).sum()
        for i, option in enumerate(inside):
            wanted[d, option] = sum(dl[d, j] * p[k] * ((k == i) - p[i]) for k, j in enumerate(inside))
    after = _told(plan, state, proposal, grads)
    # Adam's first step keeps the gradient in its first moment: (1 - b1) of it
    np.testing.assert_allclose(np.asarray(after.moments[0].mu[0]) / 0.5, wanted, atol=1e-6)
    if paths:
        old, new = (np.exp(np.asarray(each.logits[0])) for each in (state, after))
        np.testing.assert_allclose((old * compared).sum(1), (new * compared).sum(1), rtol=1e-5)
        assert np.array_equal(old[~compared], new[~compared])


def test_warm_up_moves_no_logits_and_gumbel_samples_sharpen():
    plan = gumbel_gates.strategy(TOY, population=4, warmup=2, anneal_steps=2, temperature=5.0, last_temperature=0.05)
    state = first = plan.init(jax.random.key(0))
    for step in range(6):
        state, proposal = plan.ask(jax.random.key(step), state)
        state = _told(plan, state, proposal, jnp.ones((4, 6, 4)) * jnp.arange(4.0))
        assert bool((state.logits == first.logits).all()) == (step < 2)
    assert float(proposal.gates.max(-1).mean()) > 0.9


def test_rounding_meets_limits_and_targets():
    goal = toy_objective(TOY, scalar="absolute", targets={"latency_s": 11.0}, limits={"params": 9.5})
    genes = jax.jit(landing(TOY, goal))(jnp.tile(jnp.arange(4.0), (6, 1)))
    priced = goal.price(genes[None])
    assert abs(float(priced.costs["latency_s"][0]) / 11 - 1) <= 0.01 and float(priced.violation[0]) == 0


@pytest.mark.parametrize("module", [darts, gumbel_gates, proxyless_gates, psp])
def test_a_search_lands_on_the_latency_it_was_asked_for(module):
    plan = module.strategy(MACRO)
    goal = Objective(MACRO, "raspberry_pi_4", scalar="absolute[weight=0.3]", targets={"latency_s": 0.02})
    middle = float(np.median(goal.price(tabular.networks(MACRO)).costs["latency_s"]))
    goal = Objective(MACRO, "raspberry_pi_4", scalar="absolute[weight=0.3]", targets={"latency_s": middle})
    run = search(MACRO, plan, tabular.evaluator(MACRO), goal, steps=80, key=jax.random.key(0))
    last = run.records[-1]
    assert last["index"] == 1 and last["status"] in ("ok", "cached")
    assert abs(last["costs"]["latency_s"] / middle - 1) <= 0.02
    inside = [r for r in run.records if r["status"] == "ok"]
    assert last["objectives"]["error"] < 0.1 and inside


def test_options_are_checked():
    with pytest.raises(InputError, match="paths=3 is not allowed: give 2"):
        proxyless_gates.strategy(TOY, paths=3)
    with pytest.raises(InputError, match="learning_rate 0 is not allowed: give a number above 0 to 100"):
        darts.strategy(TOY, learning_rate=0)
    with pytest.raises(InputError, match="proxyless_gates descends one number"):
        bound(proxyless_gates.strategy(TOY), toy_objective(TOY))
