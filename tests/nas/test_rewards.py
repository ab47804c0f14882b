"""Rewards against the formulas of their papers, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models.errors import InputError
from nas.rewards import reward
from nas.toy import ToySpace, toy_objective

COSTS = ("latency_s", "params")


def _values(error=0.25, latency_s=0.02, params=1e6):
    return {name: jnp.float32(v) for name, v in (("error", error), ("latency_s", latency_s), ("params", params))}


@pytest.mark.parametrize(
    ("text", "targets", "expected"),
    [
        ("mnasnet_soft", {"latency_s": 0.01}, -0.75 * 2**-0.07),
        ("mnasnet_soft[exponent=-0.5]", {"latency_s": 0.01}, -0.75 * 2**-0.5),
        ("mnasnet_hard", {"latency_s": 0.01}, -0.75 / 2),
        ("mnasnet_hard", {"latency_s": 0.04}, -0.75),  # within the target: the accuracy alone
        ("absolute", {"latency_s": 0.01}, -(0.75 - 2.0 * 1.0)),
        ("absolute[weight=0.1]", {"latency_s": 0.04, "params": 2e6}, -(0.75 - 0.1 * (0.5 + 0.5))),
        ("product", {}, -0.75 * 0.02**-0.07 * 1e6**-0.05),
        ("product[params=-0.1]", {}, -0.75 * 1e6**-0.1),
        ("fbnet", {}, 0.25 * 0.2 * np.log1p(2e4) ** 0.6),
    ],
)
def test_rewards_are_the_formulas(text, targets, expected):
    np.testing.assert_allclose(reward(text, COSTS, targets)(_values()), expected, rtol=1e-5)


def test_halving_the_step_time_multiplies_the_product_by_a_twentieth():
    # docs of the survey: 2^0.07 = 1.0497
    join = reward("product", COSTS, {})
    np.testing.assert_allclose(join(_values(latency_s=0.01)) / join(_values(latency_s=0.02)), 1.0497, rtol=1e-4)


@pytest.mark.parametrize("latency_s", [1e-9, 1e-6, 1e-3, 10.0])
def test_the_logarithm_of_fbnet_is_positive_and_finite_in_any_unit(latency_s):
    join = reward("fbnet", COSTS, {})
    value, slope = jax.value_and_grad(lambda s: join(_values() | {"latency_s": s}))(jnp.float32(latency_s))
    assert 0 < float(value) < np.inf and 0 < float(slope) < np.inf


def test_the_absolute_reward_is_best_on_the_target():
    join = reward("absolute", COSTS, {"latency_s": 0.01})
    on, below, above = (float(join(_values(latency_s=s))) for s in (0.01, 0.008, 0.012))
    assert on < min(below, above)


def test_several_devices_share_a_cost_of_the_product():
    costs = ("latency_s@a", "latency_s@b", "params")
    values = {"error": jnp.float32(0.25), "latency_s@a": 0.01, "latency_s@b": 0.02, "params": 1e6}
    expected = -0.75 * 0.01**-0.07 * 0.02**-0.07 * 1e6**-0.05
    np.testing.assert_allclose(reward("product", costs, {})(values), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("text", "targets", "message"),
    [
        ("mnasnet", {}, "unknown scalar 'mnasnet': did you mean 'mnasnet_soft'"),
        ("absolute", {}, "goes by targets and there is none: give targets.latency_s"),
        ("product", {"latency_s": 1.0}, "has no use for targets"),
        ("absolute[weigth=1]", {"latency_s": 1.0}, "did you mean 'weight'"),
        ("absolute[weight=0]", {"latency_s": 1.0}, "weight=0 is not allowed: give a number above 0"),
        ("product[latency_s=fast]", {}, "latency_s=fast is not allowed: give a number below 0"),
        ("product[speed=1]", {}, "option of scalar product"),
        ("mnasnet_soft[exponent=0.5]", {"latency_s": 1.0}, "exponent=0.5 is not allowed: give a number below 0"),
        ("fbnet[unit_s=-1]", {}, "unit_s=-1 is not allowed"),
    ],
)
def test_what_is_wrong_is_said(text, targets, message):
    with pytest.raises(InputError, match=message.replace("[", r"\[")):
        reward(text, COSTS, targets)


def test_objectives_take_rewards_by_name():
    goal = toy_objective(ToySpace(), scalar="absolute", targets={"latency_s": 5.0})
    genes = jnp.zeros((1, 6), jnp.int32)
    priced = goal.price(genes)
    feedback = goal.feedback(jnp.asarray([0.5]), priced, [True])
    np.testing.assert_allclose(feedback.scalar, -(0.5 - 2.0 * 0.8), rtol=1e-5)
    assert goal.joined and goal.describe()["targets"] == {"latency_s": 5.0}
    assert not toy_objective(ToySpace()).joined and toy_objective(ToySpace(), ("error",)).joined
    with pytest.raises(InputError, match="aim at nothing: set scalar=absolute"):
        toy_objective(ToySpace(), targets={"latency_s": 5.0})
    with pytest.raises(InputError, match="unknown target 'latency': did you mean 'latency_s'"):
        toy_objective(ToySpace(), scalar="absolute", targets={"latency": 5.0})
