"""1-bit training on spheres: where weights are, how far they move, and that it trains."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hw_models.errors import InputError
from nas.training import sphere
from nas.training.loss import cross_entropy
from search_spaces.quantizers._quantizer import straight_through

AXES = {"conv": (0, 1, 2), "depthwise": (0, 1), "dense": (0,)}  # that a filter of each leaf below spreads over
EVERY = pytest.mark.parametrize("per", sphere.PER)
BOTH = pytest.mark.parametrize("retraction", sphere.RETRACTIONS)


def tree(seed, size=1.0):
    rng = np.random.default_rng(seed)
    shapes = {"conv": ("kernel", (3, 3, 4, 5)), "depthwise": ("filters", (3, 3, 5, 2)), "dense": ("kernel", (5, 7))}
    return {
        layer: {name: jnp.asarray(size * rng.normal(size=shape), jnp.float32)}
        for layer, (name, shape) in shapes.items()
    }


def products(a, b, per):
    """Inner products over every sphere, in float64, one row."""
    found = {}
    for layer, axes in AXES.items():
        (x,), (y,) = a[layer].values(), b[layer].values()
        product = np.asarray(x, np.float64) * np.asarray(y, np.float64)
        found[layer] = product.sum(axes).ravel() if per == "filter" else product.sum(keepdims=True).ravel()
    values = np.concatenate(list(found.values()))
    return values.sum(keepdims=True) if per == "network" else values


@EVERY
@BOTH
def test_weights_stay_on_their_spheres_and_nothing_compiles_twice(per, retraction):
    rule = optax.chain(optax.scale_by_adam(), optax.scale(-0.3), sphere.sphere(per, retraction))
    params, traces = sphere.on_sphere(tree(0), per), []
    state = rule.init(params)

    @jax.jit
    def step(params, state, gradient):
        traces.append(1)
        change, state = rule.update(gradient, state, params)
        return optax.apply_updates(params, change), state

    for seed in range(20):
        before = params
        params, state = step(params, state, tree(seed + 1))
        np.testing.assert_allclose(np.sqrt(products(params, params, per)), 1, atol=1e-6)
        assert (products(before, params, per) < 1 - 1e-5).all(), "all of them move"
    assert len(traces) == 1


@EVERY
def test_the_projected_gradient_is_tangent_and_keeps_what_is(per):
    weights, gradient = sphere.on_sphere(tree(0), per), tree(1)
    tangent = sphere.projected(weights, gradient, per)
    np.testing.assert_allclose(products(weights, tangent, per), 0, atol=2e-6)
    again = sphere.projected(weights, tangent, per)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), tangent, again)


@EVERY
@BOTH
def test_weights_move_against_the_gradient_by_the_rate_and_only_once(per, retraction):
    rate, params, gradient = 0.01, sphere.on_sphere(tree(0), per), tree(1, 0.5)
    rule = sphere.sphere_rule(rate, optax.set_to_zero(), per=per, retraction=retraction)
    change, _ = rule.update(gradient, rule.init(params), params)
    new = optax.apply_updates(params, change)
    tangent = sphere.projected(params, gradient, per)
    norms = np.sqrt(products(tangent, tangent, per))
    # by the sine, which small angles keep in float32
    turned = np.sqrt(products(change, change, per))
    expected = rate * norms if retraction == "exponential" else np.arctan(rate * norms)
    np.testing.assert_allclose(2 * np.arcsin(turned / 2), expected, rtol=1e-4)
    assert (products(change, tangent, per) < 0).all()
    assert new["conv"]["kernel"].shape == params["conv"]["kernel"].shape


@EVERY
def test_retractions_agree_to_the_second_order(per):
    with jax.enable_x64(True):
        weights, tangent = (jax.tree.map(lambda x: x.astype(float), tree(seed)) for seed in (0, 1))
        weights = sphere.on_sphere(weights, per)
        tangent = sphere.on_sphere(sphere.projected(weights, tangent, per), per)
        apart = []
        for size in (0.1, 0.05):
            steps = optax.tree.scale(size, tangent)
            one, two = (sphere.retracted(weights, steps, per, name) for name in sphere.RETRACTIONS)
            gap = optax.tree.sub(one, two)
            apart.append(np.sqrt(products(gap, gap, per)))
    np.testing.assert_allclose(apart[0], 0.1**3 / 3, rtol=0.02)  # arctan(t) = t - t^3 / 3
    np.testing.assert_allclose(apart[0] / apart[1], 8, rtol=0.02)


def test_a_step_of_zero_and_weights_of_zero_are_no_nan():
    zeros = {"kernel": jnp.zeros((3, 2))}
    for retraction in sphere.RETRACTIONS:
        rule = sphere.sphere(retraction=retraction)
        for params in (zeros, sphere.on_sphere({"kernel": jnp.eye(3)[:, :2]})):
            change, _ = rule.update(zeros, rule.init(params), params)
            np.testing.assert_array_equal(change["kernel"], 0)


def test_biases_norms_and_excluded_layers_follow_the_other_rule():
    params = {
        "stem": {"kernel": jnp.ones((3, 3, 1, 2))},
        "conv": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)},
        "norm": {"scale": jnp.ones(2), "bias": jnp.ones(2)},
        "attention": {"channel_filter": jnp.ones((7, 2))},
        "depthwise": {"filters": jnp.ones((3, 3, 2, 1))},
    }
    mask = sphere.is_weight(params, exclude=("stem",))
    found = {jax.tree_util.keystr(path) for path, on in jax.tree_util.tree_leaves_with_path(mask) if on}
    assert found == {"['conv']['kernel']", "['depthwise']['filters']"}
    rule = sphere.sphere_rule(
        optax.constant_schedule(0.1),
        optax.sgd(0.5),
        optax.trace(0.9),
        on=lambda params: sphere.is_weight(params, ("stem",)),
    )
    new = optax.apply_updates(params, rule.update(jax.tree.map(jnp.ones_like, params), rule.init(params), params)[0])
    for leaf in (new["stem"]["kernel"], new["conv"]["bias"], new["norm"]["scale"], new["attention"]["channel_filter"]):
        np.testing.assert_array_equal(leaf, 0.5)
    np.testing.assert_allclose(jnp.linalg.norm(new["conv"]["kernel"], axis=0), 1, atol=1e-6)


def test_a_mask_over_any_rule_does_the_same_as_two_rules():
    params = sphere.on_sphere(tree(0)) | {"norm": {"scale": jnp.ones(5)}}
    gradient = tree(1) | {"norm": {"scale": jnp.full(5, 2.0)}}
    masked = optax.chain(optax.sgd(0.1), optax.masked(sphere.sphere(), sphere.is_weight))
    one, two = (
        rule.update(gradient, rule.init(params), params)[0]
        for rule in (masked, sphere.sphere_rule(0.1, optax.sgd(0.1)))
    )
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-7), one, two)


def test_unknown_names_are_named_and_parameters_are_needed():
    with pytest.raises(InputError, match="unknown sphere per 'kernel'"):
        sphere.sphere("kernel")
    with pytest.raises(InputError, match="did you mean 'exponential'"):
        sphere.sphere(retraction="exponent")
    with pytest.raises(InputError, match="unknown sphere per"):
        sphere.on_sphere(tree(0), "channel")
    rule = sphere.sphere()
    with pytest.raises(InputError, match="params=None"):
        rule.update(tree(0), rule.init(tree(0)))


@pytest.mark.parametrize("per", ["filter", "layer"])
@pytest.mark.parametrize(("rate", "moments"), [(1.0, None), (0.3, optax.trace(0.9)), (0.03, optax.scale_by_adam())])
def test_a_network_of_one_bit_trains(per, rate, moments):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(256, 16)), jnp.float32)
    labels = jnp.asarray((x[:, 0] * x[:, 1] > 0) + 2 * (x[:, 2] > 0))
    shapes = {"one": (16, 64), "two": (64, 4)}
    params = {layer: {"kernel": jnp.asarray(rng.normal(size=shape), jnp.float32)} for layer, shape in shapes.items()}
    params = sphere.on_sphere(params, per)

    def loss(params):
        one, two = (straight_through(w, jnp.sign(w)) for w in (params["one"]["kernel"], params["two"]["kernel"]))
        return cross_entropy(jax.nn.relu(x @ one / 4) @ two / 8, labels)

    rule = sphere.sphere_rule(rate / (1 if per == "filter" else 8), optax.set_to_zero(), moments, per)

    @jax.jit
    def step(carry, _):
        params, state = carry
        value, gradient = jax.value_and_grad(loss)(params)
        change, state = rule.update(gradient, state, params)
        return (optax.apply_updates(params, change), state), value

    _, losses = jax.lax.scan(step, (params, rule.init(params)), length=200)
    assert losses[-10:].mean() < 0.7 * losses[0]


def test_energy_is_finite_and_falls_when_filters_spread():
    angle = 2 * np.pi / 3
    spread = jnp.asarray([[np.cos(k * angle) for k in range(3)], [np.sin(k * angle) for k in range(3)]])
    assert float(sphere.energy({"kernel": spread * jnp.asarray([1.0, 2, 3])}, 2.0)) == pytest.approx(
        2 / angle, rel=1e-5
    )
    same = {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}
    value, slope = jax.value_and_grad(sphere.energy)(same)
    assert np.isfinite(value) and np.isfinite(slope["kernel"]).all()
    assert float(sphere.energy({"kernel": jnp.ones((2, 1))})) == 0
    start = weights = sphere.on_sphere(
        {"kernel": jnp.asarray(np.random.default_rng(0).normal(size=(4, 8)), jnp.float32)}
    )
    rule = optax.chain(optax.sgd(0.2), sphere.sphere())
    turn = jax.jit(lambda w: optax.apply_updates(w, rule.update(jax.grad(sphere.energy)(w), rule.init(w), w)[0]))
    for _ in range(30):
        weights = turn(weights)
    assert sphere.energy(weights) < sphere.energy(start) - 0.01


def test_energy_counts_filters_by_the_name_of_the_leaf():
    filters = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3, 4, 2)), jnp.float32)
    kernel = filters.reshape(9, 8)
    assert float(sphere.energy({"filters": filters})) == pytest.approx(
        float(sphere.energy({"kernel": kernel})), rel=1e-6
    )


@pytest.mark.parametrize("shape", [(50, 6), (4, 6), (20, 3, 6)])
def test_conditioning_is_the_second_moment_of_the_spectrum_over_the_first(shape):
    jacobian = np.random.default_rng(0).normal(size=shape)
    rows = jacobian.reshape(-1, shape[-1])
    spectrum = np.linalg.eigvalsh(rows.T @ rows / shape[0])
    expected = np.mean(spectrum**2) / np.mean(spectrum)
    assert float(sphere.conditioning(jnp.asarray(jacobian))) == pytest.approx(expected, rel=1e-5)


def test_a_quadratic_of_equal_curvatures_is_conditioned_by_that_curvature():
    examples = jnp.sqrt(8 * 0.5) * jnp.eye(8)
    assert float(sphere.conditioning(examples)) == pytest.approx(0.5)
