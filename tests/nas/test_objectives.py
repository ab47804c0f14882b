"""Names, limits and judgements of `Objective`."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models.errors import InputError
from hw_models.metrics import metrics
from nas.objectives import Objective
from nas.screen import first_networks
from nas.toy import ToyDevice, ToySpace, ToyTable, toy_objective, toy_table
from search_spaces.spaces import tiny

SPACE = ToySpace()
GENES = jnp.asarray([[0, 0, 0, 0, 0, 0], [3, 3, 3, 3, 3, 3], [1, 0, 0, 0, 0, 0]], jnp.int32)  # params 1, 19, 2


def test_violation_sums_relative_excess():
    goal = toy_objective(SPACE, limits={"params": 10.0, "weight_bytes": 38.0})
    violation = np.asarray(goal.price(GENES).violation)
    np.testing.assert_allclose(violation, [0.0, 0.9 + 1.0, 0.0], rtol=1e-6)


@pytest.mark.parametrize("limit", [0.1, 0.3, 0.7, 1e-9, 123456.789])
def test_what_is_called_valid_is_within_the_limit_as_a_python_number(limit):
    class Table(ToyTable):
        def exact(self, genes):
            near = np.float32(limit) * np.float32([1 - 1e-7, 1, 1 + 1e-7])
            return super().exact(genes)._replace(latency_s=jnp.asarray(near)[genes[0]])

    goal = Objective(SPACE, ToyDevice(), limits={"latency_s": limit}, table=lambda s, d, p: Table(d))
    priced = goal.price(jnp.asarray([[i, 0, 0, 0, 0, 0] for i in range(3)]))
    values = np.asarray(priced.costs["latency_s"])
    assert [(float(value) <= limit) for value in values] == (np.asarray(priced.violation) == 0).tolist()


def test_a_network_that_fits_no_device_is_infeasible():
    goal = Objective(SPACE, ToyDevice(room=9.5), table=toy_table)
    np.testing.assert_allclose(np.asarray(goal.price(GENES).violation), [0.0, 1.0, 0.0], rtol=1e-6)


def test_several_devices_name_their_costs():
    fast, slow = ToyDevice("fast"), ToyDevice("slow", slowness=10.0)
    goal = Objective(
        SPACE, (fast, slow), ("error", "latency_s@fast", "latency_s@slow"), {"energy_j@slow": 25.0}, table=toy_table
    )
    priced = goal.price(GENES)
    assert set(priced.costs) >= {"latency_s@fast", "latency_s@slow", "params"} and "latency_s" not in priced.costs
    np.testing.assert_allclose(priced.costs["latency_s@slow"], priced.costs["latency_s@fast"] * 10)
    assert (np.asarray(priced.violation) > 0).tolist() == [False, True, True]
    feedback = goal.feedback([0.1, 0.2, 0.3], priced, [True, False, False])
    np.testing.assert_allclose(feedback.objectives[0], [0.1, 1.0, 10.0], rtol=1e-6)


def test_throughput_on_two_devices_latency_on_one_and_counts_at_once():
    space = tiny.space()
    names = ("error", "latency_s@raspberry_pi_4", "interval_s@raspberry_pi_4", "interval_s@a100", "activations")
    goal = Objective(space, ("raspberry_pi_4", "a100"), names, {"interval_s@a100": 1.0}, batch=64)
    genes = jax.vmap(space.sample)(jax.random.split(jax.random.key(0), 3))
    priced = goal.price(genes)
    feedback = goal.feedback([0.1, 0.2, 0.3], priced, [True] * 3)
    assert feedback.objectives.shape == (3, 5) and bool(feedback.valid.all())
    pi = priced.costs["latency_s@raspberry_pi_4"]
    np.testing.assert_allclose(priced.costs["interval_s@raspberry_pi_4"], pi / 64, rtol=1e-5)
    alone = Objective(space, ("raspberry_pi_4", "a100"), names).price(genes)
    assert (alone.costs["interval_s@a100"] > 2 * priced.costs["interval_s@a100"]).all()  # a GPU gains by batches
    np.testing.assert_allclose(
        feedback.objectives[:, 4], [metrics(space.freeze(row).lower()).activations for row in genes]
    )
    assert goal.describe()["batch"] == 64 and "batch" not in Objective(space, "a100").describe()


def test_the_room_of_every_device_counts():
    goal = Objective(SPACE, [ToyDevice("a"), ToyDevice("b", room=10.0)], ["error"], table=toy_table)
    assert (np.asarray(goal.price(GENES).violation) > 0).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"minimize": ("error", "latency")}, "did you mean 'latency_s'"),
        ({"limits": {"weight_byte": 1.0}}, "did you mean 'weight_bytes'"),
        ({"minimize": ()}, "nothing to minimise"),
        ({"minimize": ("error", "error")}, "repeats a name"),
        ({"limits": {"latency_s": 0.0}}, "latency_s=0.0"),
        ({"limits": {"latency_s": -1}}, "latency_s=-1"),
        ({"limits": {"latency_s": float("nan")}}, "latency_s=nan"),
        ({"limits": {"latency_s": float("inf")}}, "latency_s=inf"),
        ({"limits": {"latency_s": "fast"}}, "latency_s='fast'"),
        ({"limits": {"latency_s": True}}, "latency_s=True"),
        ({"batch": 0}, "batch 0 is not allowed: give a whole number from 1"),
        ({"batch": 2.5}, "batch 2.5 is not allowed"),
        ({"batch": "8"}, "batch '8' is not allowed"),
    ],
)
def test_bad_settings_are_named(options, message):
    with pytest.raises(InputError, match=message) as caught:
        toy_objective(SPACE, **options)
    assert "\n" not in str(caught.value)


def test_devices_are_checked():
    with pytest.raises(InputError, match="repeat a name"):
        Objective(SPACE, [ToyDevice(), ToyDevice()], table=toy_table)
    with pytest.raises(InputError, match="no device"):
        Objective(SPACE, [], table=toy_table)


def test_feedback_tells_valid_infeasible_late_failed_and_unevaluated_apart():
    goal = toy_objective(SPACE, limits={"params": 10.0, "error": 0.5})
    genes = GENES[jnp.asarray([0, 1, 2, 2, 2, 2])]
    error = [0.25, 0.1, 0.75, np.nan, np.inf, 0.1]
    evaluated = [True, False, True, True, True, False]
    feedback = goal.feedback(error, goal.price(genes), evaluated)
    assert feedback.valid.tolist() == [True, False, False, False, False, False]
    np.testing.assert_allclose(feedback.violation, [0.0, 0.9, 0.5, np.inf, np.inf, np.inf], rtol=1e-5)
    assert np.isinf(feedback.objectives[1:]).all() and np.isinf(feedback.scalar[1:]).all()
    np.testing.assert_allclose(feedback.objectives[0], [0.25, 1.0])
    assert float(feedback.scalar[0]) == 0.25 and feedback.done.all()
    assert [goal.late(value) for value in (0.25, 0.5, 0.75)] == [False, False, True]


def test_scalar_joins_objectives():
    goal = toy_objective(SPACE, scalar=lambda values: values["error"] * values["latency_s"] ** 2)
    feedback = goal.feedback([0.5, 0.5], goal.price(GENES[:2]), [True, True])
    latency = np.asarray(goal.price(GENES[:2]).costs["latency_s"])
    np.testing.assert_allclose(feedback.scalar, 0.5 * latency**2, rtol=1e-6)


def test_an_infinite_cost_is_infeasible_only_where_it_matters():
    class Table(ToyTable):
        def exact(self, genes):
            return super().exact(genes)._replace(energy_j=jnp.where(genes[0] > 0, jnp.inf, jnp.nan))

    def goal(**options):
        return Objective(SPACE, ToyDevice(), table=lambda s, d, p: Table(d), **options).price(GENES).violation

    assert np.asarray(goal()).tolist() == [0.0, 0.0, 0.0]
    assert np.isinf(goal(minimize=("error", "energy_j"))).all()
    assert np.isinf(goal(limits={"energy_j": 5.0})).all()
    assert np.isinf(goal(scalar="absolute", targets={"energy_j": 5.0})).all()


def test_gate_gradients_equal_finite_differences():
    goal = toy_objective(
        SPACE, limits={"params": 5.0}, scalar=lambda values: values["error"] + 0.1 * values["latency_s"]
    )
    rng = np.random.default_rng(0)
    gates = rng.dirichlet(np.ones(4), 6).astype(np.float32)
    direction = rng.normal(size=gates.shape).astype(np.float32)
    slope = rng.normal(size=gates.shape).astype(np.float32)

    def loss(t):
        moved = gates + t * direction
        costs = ToyTable(ToyDevice()).expected(jnp.asarray(moved))
        excess = max(float(costs.params) / 5.0 - 1.0, 0.0)
        return float((slope * moved).sum()) + 0.1 * float(costs.latency_s) + excess

    numeric = (loss(1e-2) - loss(-1e-2)) / 2e-2
    grads = goal.gate_grads([0.5], slope[None], gates[None])
    assert float((np.asarray(grads[0]) * direction).sum()) == pytest.approx(numeric, rel=1e-3)


def test_first_networks_meet_limits_that_random_ones_hardly_do():
    wide = ToySpace(decisions=20, options=4)  # 1 + sum of 20 genes: uniform draws are near 31, the smallest is 1
    goal = toy_objective(wide, limits={"params": 8.0})
    genes = first_networks(wide, goal, 8, jax.random.key(0))
    assert (np.asarray(goal.price(genes).violation) == 0).all() and len(np.unique(genes, axis=0)) == 8


def test_a_limit_that_nothing_meets_says_what_is_nearest():
    wide = ToySpace(decisions=10, options=4)
    goal = toy_objective(wide, limits={"params": 0.5, "latency_s": 1000.0})
    with pytest.raises(InputError) as caught:
        first_networks(wide, goal, 8, jax.random.key(0))
    text = str(caught.value)
    assert (
        "params=0.5 cannot be met" in text
        and "params=1 (toy:0.0.0.0.0.0.0.0.0.0)" in text
        and re.search(r"of \d+ different networks", text)
    )


def test_a_space_smaller_than_the_population_is_drawn_whole():
    small = ToySpace(decisions=3, options=3)
    genes = first_networks(small, toy_objective(small), 64, jax.random.key(0))
    # the first gene is 0 or 1 and the others dead, or it is 2 and the others free: 2 + 9
    assert genes.shape == (64, 3) and len(np.unique(genes, axis=0)) == 11
