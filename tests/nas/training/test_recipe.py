"""Settings of training: limits, schedule, optimisers, the moving average."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hw_models.errors import InputError
from nas.training.recipe import Recipe


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"epochs": -1}, "epochs=-1"),
        ({"optimizer": "adam"}, "did you mean 'adamw'"),
        ({"precision": "float16"}, "unknown precision 'float16'"),
        ({"warmup": 1.0}, "warmup=1.0 is out of range: give 0.0 to 0.9"),
        ({"ema": 1.0}, "ema=1.0"),
        ({"cutout": -1}, "cutout=-1"),
        ({"cutout": 1.5}, "cutout=1.5 is not allowed: give a whole number"),
        ({"mixup": -0.1}, "mixup=-0.1"),
        ({"accumulate": 0}, "accumulate=0"),
        ({"batch": 64, "accumulate": 3}, "accumulate=3 does not divide a batch of 64"),
        ({"learning_rate": float("nan")}, "learning_rate=nan"),
    ],
)
def test_values_out_of_range_are_named(settings, said):
    with pytest.raises(InputError, match=said):
        Recipe(**settings)


def test_schedule_warms_up_and_decays():
    rate = Recipe(learning_rate=1.0, warmup=0.25).schedule(100)
    values = np.asarray([float(rate(step)) for step in range(101)])
    assert values[0] == 0 and values.argmax() == 25 and values[25] == 1 and values[100] == pytest.approx(0, abs=1e-6)
    assert values[62] == pytest.approx(0.5, abs=0.02)
    assert float(Recipe(learning_rate=1.0, warmup=0.0).schedule(10)(0)) == 1
    assert float(Recipe(learning_rate=1.0, warmup=0.25).schedule(1)(0)) == 1, "the only step trains"


def test_adamw_is_optax_with_decay_of_matrices_only():
    recipe = Recipe(optimizer="adamw", learning_rate=0.01, weight_decay=0.1, warmup=0.0, momentum=0.9)
    params = {"matrix": jnp.ones((2, 2)), "vector": jnp.ones(2)}
    rule = recipe.update_rule(10)
    still = jax.tree.map(jnp.zeros_like, params)
    change, _ = rule.update(still, rule.init(params), params)
    np.testing.assert_allclose(change["matrix"], -0.01 * 0.1, rtol=1e-5)
    np.testing.assert_array_equal(change["vector"], 0)
    gradient = {"matrix": jnp.full((2, 2), 0.5), "vector": jnp.full(2, -0.5)}
    change, _ = rule.update(gradient, rule.init(params), params)
    reference = optax.adam(0.01, b1=0.9)
    expected, _ = reference.update(gradient, reference.init(params))
    np.testing.assert_allclose(change["vector"], expected["vector"], rtol=1e-6)


def test_the_moving_average_forgets_its_start_and_ends_at_its_decay():
    recipe = Recipe(ema=0.9)
    average, history = {"w": jnp.zeros(())}, []
    for step in range(200):
        value = float(step >= 0) * (1.0 + step)
        history.append(value)
        average = recipe.averaged(average, {"w": jnp.float32(value)}, jnp.int32(step))
    expected = 0.0
    for step, value in enumerate(history):
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    assert float(average["w"]) == pytest.approx(expected, rel=1e-5)
    assert Recipe().averaged(None, {"w": jnp.ones(())}, jnp.int32(0)) is None


@pytest.mark.parametrize("settings", [{}, {"momentum": 0.0}, {"weight_decay": 0.0}, {"optimizer": "adamw"}])
@pytest.mark.parametrize("size", [0.01, 100.0])
def test_an_update_is_what_optax_computes(settings, size):
    """Gradients within the largest norm and far above it; arrays of more than one piece, of one number, of none."""
    recipe = Recipe(learning_rate=0.3, **settings)
    shapes = {"filters": (3, 3, 40, 50), "vector": (7,), "one": (), "none": (0, 3)}
    rule = recipe.update_rule(10)

    def drawn(number, scale=1.0):
        key = jax.random.fold_in(jax.random.key(0), number)
        return {name: scale * jax.random.normal(key, shape) for name, shape in shapes.items()}

    found = expected = drawn(0)
    state = wanted = rule.init(found)
    update = jax.jit(lambda *given: recipe.updated(10, *given))
    for step in range(3):
        gradient = drawn(1 + step, size)
        found, state = update(found, state, gradient)
        change, wanted = rule.update(gradient, wanted, expected)
        expected = optax.apply_updates(expected, change)
    for a, b in ((found, expected), (state, wanted)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-6), a, b)


def test_a_gradient_that_is_not_a_number_shows_in_every_weight():
    recipe = Recipe(warmup=0.0)
    params = {"a": jnp.ones(3), "b": jnp.ones((2, 2))}
    gradient = {"a": jnp.array([0.0, jnp.nan, 0.0]), "b": jnp.zeros((2, 2))}
    new, _ = recipe.updated(10, params, recipe.update_rule(10).init(params), gradient)
    assert all(np.isnan(leaf).all() for leaf in jax.tree.leaves(new))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_state_starts_as_that_of_optax(optimizer):
    recipe, params = Recipe(optimizer=optimizer), {"a": jnp.ones((2, 3)), "b": jnp.ones(4, jnp.bfloat16)}
    found, expected = recipe.started(10, params), recipe.update_rule(10).init(params)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
