"""What the strategies around a policy share: options, infeasible candidates, one number or several."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models import discover
from hw_models.errors import InputError
from nas.policy import factorised
from nas.toy import ToySpace, toy_error, toy_objective
from nas.types import bound

NAMES = ("reinforce", "recurrent_controller", "ppo")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("reinforce", {"learning_rate": 0}, "learning_rate 0 is not allowed: give a number above 0$"),
        ("reinforce", {"memory": 1.0}, "memory 1.0 is not allowed: give a number from 0 to 0.9999"),
        ("reinforce", {"entropy": -1}, "entropy -1 is not allowed: give a number from 0$"),
        ("reinforce", {"entropy_halving": 0}, "entropy_halving 0 is not allowed: give a number above 0"),
        ("reinforce", {"imitation": float("nan")}, "imitation nan is not allowed"),
        ("recurrent_controller", {"hidden": 0}, "hidden 0 is not allowed: give a whole number from 1 to 1024"),
        ("ppo", {"clip": 1.0}, "clip 1.0 is not allowed: give a number above 0 to 0.9"),
        ("ppo", {"epochs": 2.5}, "epochs 2.5 is not allowed: give a whole number from 1 to 64"),
        ("ppo", {"policy": "recurent"}, "unknown policy 'recurent': did you mean 'recurrent'"),
    ],
)
def test_what_is_wrong_is_said(name, options, message):
    with pytest.raises(InputError, match=message):
        discover.load("nas.strategies", name, "strategy")(ToySpace(), **options)


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_described(name):
    import inspect

    make = discover.load("nas.strategies", name, "strategy")
    assert set(make(ToySpace()).describe) == set(inspect.signature(make).parameters) - {"space"}


def _searched(goal, steps=60):
    from nas.strategies.reinforce import strategy

    plan = bound(strategy(goal.space, population=16), goal)

    def step(state, key):
        state, proposal = plan.ask(key, state)
        priced = jax.vmap(goal.price_one)(proposal.genes)
        feedback = goal.feedback(jax.vmap(toy_error)(proposal.genes), priced, priced.violation == 0)
        return plan.tell(state, proposal, feedback), feedback.valid.mean()

    keys = jax.random.split(jax.random.key(1), steps)
    state, valid = jax.jit(lambda: jax.lax.scan(step, plan.init(jax.random.key(0)), keys))()
    return plan, state, np.asarray(valid)


def test_the_most_probable_network_and_the_first_answer_are_the_best_by_the_one_number():
    space = ToySpace(decisions=5, options=3)
    goal = toy_objective(space, scalar="absolute", targets={"latency_s": 6.1})
    plan, state, _ = _searched(goal)
    every = jnp.asarray(np.stack(np.meshgrid(*[range(3)] * 5), axis=-1).reshape(-1, 5), jnp.int32)
    every = jnp.unique(jax.vmap(space.canonical)(every), axis=0)
    best = goal.feedback(jax.vmap(toy_error)(every), goal.price(every), jnp.ones(len(every), bool)).scalar.min()
    likeliest = factorised(space).likeliest(state.parameters, jnp.zeros(0))
    for genes in (likeliest, plan.final(state)[0]):
        priced = goal.price(genes[None])
        ours = goal.feedback(toy_error(genes)[None], priced, jnp.ones(1, bool)).scalar[0]
        np.testing.assert_allclose(ours, best, rtol=1e-5)


def test_a_policy_learns_to_keep_a_limit_that_most_networks_break():
    _, _, valid = _searched(toy_objective(ToySpace(), limits={"params": 5.0}))
    assert valid[0] < 0.4 and valid[-10:].mean() > 0.9, valid
