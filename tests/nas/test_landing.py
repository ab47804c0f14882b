"""Searches end on the latency that was asked for: the best network seen and the most probable one of the policy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models import discover
from nas.accuracy_tables import table_of
from nas.objectives import Objective
from nas.policy import factorised, recurrent
from nas.rewards import reward
from nas.types import bound
from search_spaces.spaces import macro

SPACE = macro.space()


def landings(name, device, steps=100, population=64, seed=0, count=10):
    """Latency over target of the most probable and of the best network, `[count, 2]`, and their errors, `[count, 2]`.

    Targets lie evenly between the tenth and the ninetieth percentile of random networks.
    """
    base = Objective(SPACE, device, ("error",))
    random = jax.vmap(SPACE.sample)(jax.random.split(jax.random.key(99), 2000))
    targets = np.quantile(base.price(random).costs["latency_s"], np.linspace(0.1, 0.9, count))
    found = table_of(SPACE, None)
    powers = 3 ** np.arange(7, -1, -1)
    errors = np.zeros(3**8, np.float32)
    errors[np.asarray(found.genes) @ powers] = np.asarray(found.errors).mean(axis=1)
    strategy = discover.load("nas.strategies", name, "strategy")(SPACE, population=population)

    def error_of(genes):
        return jnp.asarray(errors)[genes @ powers]

    def one(target):
        # the target is traced, so that all searches are one program
        join = reward("absolute", base.cost_names, {"latency_s": target})
        goal = Objective(SPACE, base.devices, ("error",), scalar=join, table=lambda *_: base.tables[0])
        plan = bound(strategy, goal)

        def step(state, key):
            state, proposal = plan.ask(key, state)
            priced = jax.vmap(goal.price_one)(proposal.genes)
            feedback = goal.feedback(error_of(proposal.genes), priced, jnp.ones(population, bool))
            return plan.tell(state, proposal, feedback), None

        first, rest = jax.random.split(jax.random.key(seed))
        state = jax.lax.scan(step, plan.init(first), jax.random.split(rest, steps))[0]
        policy = factorised(SPACE) if name == "reinforce" else recurrent(SPACE)
        genes = jnp.stack([policy.likeliest(state.parameters, jnp.zeros(0)), plan.final(state)[0]])
        return jax.vmap(base.price_one)(genes).costs["latency_s"] / target, error_of(genes)

    return [np.asarray(part) for part in jax.jit(jax.vmap(one))(jnp.asarray(targets, jnp.float32))]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["reinforce", "recurrent_controller", "ppo"])
def test_ten_targets_are_landed_on_within_two_percent(name):
    ratio, _ = landings(name, "raspberry_pi_4")
    assert (np.abs(ratio - 1) <= 0.02).all(), np.round(ratio, 3).tolist()
