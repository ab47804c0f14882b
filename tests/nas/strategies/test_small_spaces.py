"""Strategies that look at neighbours, or at everything, against what can be enumerated."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models.errors import InputError
from nas import pareto
from nas.loop import search
from nas.strategies import exhaustive, local_search, netadapt
from nas.toy import ToySpace, toy_error, toy_evaluator, toy_objective
from nas.types import bound

SPACE = ToySpace(decisions=4, options=3)
EVERY = np.asarray([genes for genes in itertools.product(range(3), repeat=4) if genes[0] > 1 or genes[2:] == (0, 0)])
ERRORS = np.asarray(jax.vmap(toy_error)(jnp.asarray(EVERY)))


def test_exhaustive_search_finds_the_true_front():
    goal = toy_objective(SPACE)
    plan = exhaustive.strategy(SPACE, population=9)
    assert plan.describe["networks"] == len(EVERY) == 33
    run = search(SPACE, plan, toy_evaluator(SPACE), goal, steps=4, key=jax.random.key(0))
    assert {tuple(record["genes"]) for record in run.records} == {tuple(row) for row in EVERY.tolist()}
    latency = np.asarray(goal.price(EVERY).costs["latency_s"])
    noisy = {tuple(record["genes"]): record["objectives"]["error"] for record in run.records}
    points = np.stack([[noisy[tuple(row)] for row in EVERY.tolist()], latency], axis=1)
    assert len(run.front()) == pareto.non_dominated(points).sum()


def test_exhaustive_search_refuses_what_nobody_can_enumerate():
    with pytest.raises(InputError, match="16,777,216 encodings, too many for exhaustive search"):
        exhaustive.strategy(ToySpace(decisions=12))


def _climb(goal, population, steps):
    plan = bound(local_search.strategy(SPACE, population=population), goal)
    state = plan.init(jax.random.key(1))
    ask, tell = jax.jit(plan.ask), jax.jit(plan.tell)
    asked = []
    for t in range(steps):
        before = state
        state, proposal = ask(jax.random.key(t), state)
        error = jax.vmap(toy_error)(proposal.genes)
        state = tell(state, proposal, goal.feedback(error, goal.price(proposal.genes), jnp.ones(len(error), bool)))
        asked.append((before, proposal))
    return plan, state, asked


def test_climbers_ask_for_neighbours_and_reach_the_lowest_error():
    plan, state, asked = _climb(toy_objective(SPACE, ("error",)), 2, 60)
    for before, proposal in asked[1:]:
        for row in range(2):
            if not bool(proposal.aux.again[row]):
                changed = np.asarray(before.at.genes[row]) != np.asarray(proposal.aux.genes[row])
                live = np.asarray(SPACE.active(before.at.genes[row]))
                assert changed.sum() == 1 and live[changed].all(), "not a neighbour in a live decision"
    assert tuple(np.asarray(plan.final(state))[0].tolist()) == tuple(EVERY[ERRORS.argmin()].tolist())


def test_climbers_start_again_only_where_no_neighbour_is_left():
    _, _, asked = _climb(toy_objective(SPACE, ("error",)), 1, 60)
    neighbours = 8  # of a network with all four decisions alive: two other options each
    restarts = [t for t, (_, proposal) in enumerate(asked) if bool(proposal.aux.again[0])]
    assert restarts[0] == 0 and len(restarts) > 2
    assert all(later - earlier <= 1 + 8 * neighbours for earlier, later in itertools.pairwise(restarts))
    ends = [np.asarray(asked[t][0].at.genes[0]) for t in restarts[1:]]
    for end in ends:
        around = [row for row in EVERY if (row != np.asarray(SPACE.canonical(end))).sum() <= 1]
        value = float(toy_error(SPACE.canonical(end)))
        assert all(float(toy_error(jnp.asarray(row))) >= value - 1e-6 for row in around), "left before the top"


def test_netadapt_shrinks_step_by_step_from_the_top():
    space, goal = ToySpace(), toy_objective(ToySpace())
    plan = bound(netadapt.strategy(space, step=0.1), goal)
    ask, tell = jax.jit(plan.ask), jax.jit(plan.tell)
    state = plan.init(jax.random.key(0))
    assert np.asarray(state.at).tolist() == [3] * 6  # the dearest
    latencies = []
    for t in range(8):
        at, latency = state.at, float(goal.price(state.at[None]).costs["latency_s"][0])
        latencies.append(latency)
        state, proposal = ask(jax.random.key(t), state)
        rows = np.asarray(proposal.genes)[np.asarray(proposal.aux)]
        assert ((rows != np.asarray(at)).sum(1) >= 1).all()
        costs = np.asarray(goal.price(rows).costs["latency_s"])
        assert (costs < latency).all()
        errors = jax.vmap(toy_error)(proposal.genes)
        feedback = goal.feedback(errors, goal.price(proposal.genes), jnp.ones(len(errors), bool))
        state = tell(state, proposal, feedback)
        usable = np.where(np.asarray(proposal.aux), np.asarray(errors), np.inf)
        assert np.array_equal(state.at, proposal.genes[int(usable.argmin())])
    assert all(later < earlier for earlier, later in itertools.pairwise(latencies))


def test_netadapt_starts_within_its_limits_and_says_what_it_needs():
    space = ToySpace()
    tight = toy_objective(space, ("error",), limits={"params": 6.0})
    state = bound(netadapt.strategy(space), tight).init(jax.random.key(0))
    priced = tight.price(state.at[None])
    assert float(priced.violation[0]) == 0 and float(priced.costs["params"][0]) == 6.0  # nothing more fits
    with pytest.raises(InputError, match="shrinks a cost and there is none"):
        bound(netadapt.strategy(space), toy_objective(space, ("error",)))
    with pytest.raises(InputError, match="unknown cost 'latency': did you mean 'latency_s'"):
        bound(netadapt.strategy(space, cost="latency"), toy_objective(space))
    with pytest.raises(InputError, match="step 1 is not allowed"):
        netadapt.strategy(space, step=1)
