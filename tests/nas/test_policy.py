"""Policies against enumeration, and what one step of a gradient does to them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nas.policy import factorised, recurrent
from nas.toy import ToySpace

SPACE = ToySpace(decisions=4, options=3)
EVERY = np.asarray(list(itertools.product(range(3), repeat=4)), np.int32)
NETWORKS = np.unique(np.asarray(jax.vmap(SPACE.canonical)(EVERY)), axis=0)
DIRECTION = jnp.asarray([0.3, 0.7])


def _scattered(policy, seed=0):
    leaves, tree = jax.tree.flatten(policy.init(jax.random.key(seed)))
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    return tree.unflatten([leaf + 0.7 * jax.random.normal(k, leaf.shape) for leaf, k in zip(leaves, keys, strict=True)])


@pytest.mark.parametrize("make", [factorised, recurrent])
def test_probabilities_of_all_networks_sum_to_one_and_are_how_often_they_are_drawn(make):
    policy = make(SPACE, 2)
    parameters = _scattered(policy)
    score = jax.jit(jax.vmap(policy.score, (None, None, 0)))
    chance = np.exp(np.asarray(score(parameters, DIRECTION, NETWORKS)[0]).sum(axis=1))
    np.testing.assert_allclose(chance.sum(), 1.0, rtol=1e-5)
    draws = jax.jit(jax.vmap(policy.sample, (None, None, 0)))(
        parameters, DIRECTION, jax.random.split(jax.random.key(5), 20_000)
    )
    drawn = np.asarray(jax.vmap(SPACE.canonical)(draws))
    often = (drawn[:, None] == NETWORKS[None]).all(axis=-1).mean(axis=0)
    np.testing.assert_allclose(often, chance, atol=0.02)
    # what dead decisions hold changes neither their own score nor that of another
    raw, canonical = score(parameters, DIRECTION, draws[:200]), score(parameters, DIRECTION, drawn[:200])
    np.testing.assert_allclose(raw[0], canonical[0], atol=1e-5)
    dead = ~np.asarray(jax.vmap(SPACE.active)(drawn[:200]))
    assert dead.any() and (np.asarray(raw[0])[dead] == 0).all() and (np.asarray(raw[1])[dead] == 0).all()


@pytest.mark.parametrize("make", [factorised, recurrent])
def test_a_fresh_policy_is_uniform_and_its_first_entropy_exact(make):
    policy = make(SPACE)
    logs, entropy = policy.score(policy.init(jax.random.key(0)), jnp.zeros(0), jnp.asarray([2, 0, 1, 2]))
    np.testing.assert_allclose(logs, -np.log(3), rtol=1e-5)
    np.testing.assert_allclose(entropy, np.log(3), rtol=1e-5)


@pytest.mark.parametrize("make", [factorised, recurrent])
def test_a_step_up_the_gradient_makes_a_network_likelier(make):
    policy, genes = make(SPACE), jnp.asarray([2, 0, 1, 2])

    def chance(parameters):
        return policy.score(parameters, jnp.zeros(0), genes)[0].sum()

    parameters = _scattered(policy)
    before, slopes = jax.jit(jax.value_and_grad(chance))(parameters)
    after = chance(jax.tree.map(lambda value, slope: value + 0.01 * slope, parameters, slopes))
    assert float(after) > float(before)


def test_options_that_a_decision_does_not_have_are_never_drawn():
    from search_spaces.spaces import mnasnet

    space = mnasnet.space()
    policy = factorised(space)
    draws = jax.jit(jax.vmap(policy.sample, (None, None, 0)))(
        policy.init(jax.random.key(0)), jnp.zeros(0), jax.random.split(jax.random.key(1), 200)
    )
    assert (np.asarray(draws).max(axis=0) == space.cardinality - 1).all()
