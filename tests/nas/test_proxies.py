"""Zero-cost proxies against their definitions, computed another way on the frozen network."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nas.evaluators.proxy import own_scales
from nas.proxies import DOUBLE, SCORES, jacob_cov, linear, synflow, weights_of
from nas.training.loss import cross_entropy
from search_spaces.initial import deviation
from search_spaces.network import Network, inherit, variable_shapes
from search_spaces.normalisation import Norm
from search_spaces.spaces import tiny
from search_spaces.supernet import Supernet, with_statistics

GENES = np.asarray([0, 0, 0, 1, 1, 1], np.int32)  # a smaller kernel, expansion and width than the largest


@pytest.fixture(scope="module")
def parts():
    """A space, its supernet, shared variables at the size of one network's own, and images."""
    space = tiny.space()
    net = Supernet(space)
    scaled = jax.tree.map(lambda leaf, by: leaf * by, net.init(jax.random.key(0)), own_scales(space, GENES))
    x = jax.random.normal(jax.random.key(1), (6, 8, 8, 1))
    return space, net, scaled, x, jnp.asarray([0, 1, 2, 3, 4, 5])


def frozen(space, depthwise="auto"):
    network = Network(space.freeze(GENES), depthwise)
    return lambda variables, x, mode: network.apply(variables, x, mode, mutable=["batch_stats"])[0]


def calibrated(space, variables, x):
    updated = Network(space.freeze(GENES)).apply(variables, x, "calibrate", mutable=["batch_stats"])[1]
    return {**variables, **updated}


# these two compile for long, and are compared with their definitions below
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in ("grasp", "fisher") else ()) for name in SCORES]
)
def test_the_part_of_a_supernet_scores_like_the_frozen_network(parts, name):
    space, net, shared, x, y = parts
    own = inherit(shared, space, GENES)
    forward = frozen(space)
    if name in DOUBLE:
        rewritten = linear(space) if name == "synflow" else space
        net, forward = Supernet(rewritten, "scan"), frozen(rewritten, "scan")
        shared, own, x = (jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree) for tree in (shared, own, x))
    if name == "fisher":
        shared = with_statistics(shared, net.calibrate(shared, x, jnp.asarray(GENES)))
        own = calibrated(space, own, x)
    with jax.enable_x64(name in DOUBLE):
        shared, own, x = jax.tree.map(jnp.asarray, (shared, own, x))
        here = jax.jit(
            lambda v, genes: SCORES[name](lambda v, x, mode: net.apply(v, x, genes, mode), v, x, y)
        )(shared, jnp.asarray(GENES))  # fmt: skip
        there = jax.jit(lambda v: SCORES[name](forward, v, x, y))(own)
    tolerance = {"grasp": 1e-4, "synflow": 1e-12}.get(name, 2e-4)
    np.testing.assert_allclose(here, there, rtol=tolerance, atol=1e-5)
    assert np.abs(np.asarray(here)).max() > 0


def test_scaled_weights_are_as_large_as_those_of_a_fresh_network(parts):
    space, net, shared, *_ = parts
    own, wanted = inherit(shared, space, GENES)["params"], variable_shapes(space.freeze(GENES))["params"]
    plain = inherit(net.init(jax.random.key(0)), space, GENES)["params"]
    grown = 0
    for (path, leaf), shape in zip(jax.tree_util.tree_leaves_with_path(own), jax.tree.leaves(wanted), strict=True):
        assert leaf.shape == shape.shape
        if path[-1].key in ("kernel", "filters"):
            expected = deviation(path[-1].key, shape.shape)
            assert np.std(leaf) == pytest.approx(expected, rel=4 / np.sqrt(leaf.size)), jax.tree_util.keystr(path)
            grown += not np.allclose(leaf, dict(jax.tree_util.tree_leaves_with_path(plain))[path])
    assert grown >= 3, "some weights of this network are parts of larger ones"


def test_grasp_is_the_product_with_the_hessian(parts):
    """Exactly, by differentiating twice, which only XLA's own depthwise convolution allows."""
    space, _, shared, x, y = parts
    own, x = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), (inherit(shared, space, GENES), x))
    forward = frozen(space, "xla")

    def loss(variables):
        return cross_entropy(forward(variables, x, "train"), y)

    @jax.jit
    def exact(variables):
        slopes = jax.lax.stop_gradient(weights_of(jax.grad(loss)(variables)))

        def along(v):
            return sum((a * b).sum() for a, b in zip(slopes, weights_of(jax.grad(loss)(v)), strict=True))

        pairs = zip(weights_of(variables), weights_of(jax.grad(along)(variables)), strict=True)
        return -sum((weight * slope).sum() for weight, slope in pairs)

    with jax.enable_x64(True):
        near = jax.jit(lambda v: SCORES["grasp"](forward, v, x, y))(own)
        assert float(near) == pytest.approx(float(exact(own)), rel=1e-4)


def test_fisher_is_the_squared_product_of_activations_and_their_gradients(parts):
    """By adding zeros to every normalised map, whose gradient is that of the map."""
    space, _, shared, x, y = parts
    own = calibrated(space, inherit(shared, space, GENES), x)
    network = Network(space.freeze(GENES))
    shapes = {}

    def watched(zeros, seen, image):
        def add(call, args, kwargs, context):
            made = call(*args, **kwargs)
            if not isinstance(context.module, Norm) or context.method_name != "__call__":
                return made
            name = "/".join(context.module.path)
            shapes[name] = made.shape
            made = made + zeros[name] if zeros else made
            seen[name] = made
            return made

        with nn.intercept_methods(add):
            return network.apply(own, image, "eval")

    jax.eval_shape(lambda image: watched({}, {}, image), x[:1])
    zeros = {name: jnp.zeros(shape) for name, shape in shapes.items()}

    @jax.jit
    def products(image, label):
        def loss(zeros):
            seen = {}
            return cross_entropy(watched(zeros, seen, image[None]), label[None]), seen

        gradients, maps = jax.grad(loss, has_aux=True)(zeros)
        return {name: (maps[name] * gradients[name]).sum((0, 1, 2)) for name in maps}

    squares = [jax.tree.map(np.square, products(image, label)) for image, label in zip(x, y, strict=True)]
    total = 0.5 * sum(float(leaf.sum()) for each in squares for leaf in each.values()) / len(x)
    found = jax.jit(lambda v: SCORES["fisher"](frozen(space), v, x, y))(own)
    assert float(found) == pytest.approx(total, rel=1e-4)


def test_synflow_of_a_chain_is_its_length_times_its_flow():
    """Theorem 1 of Tanaka et al.: every layer of a chain has the same sum, that of the logits."""
    keys = jax.random.split(jax.random.key(0), 3)
    sizes = ((4, 8), (8, 5), (5, 3))
    layers = {
        str(i): {"kernel": jax.random.normal(key, size)} for i, (key, size) in enumerate(zip(keys, sizes, strict=True))
    }

    def forward(variables, x, mode):
        y = x.reshape(len(x), -1)
        for i in range(3):
            y = y @ variables[str(i)]["kernel"]
        return y

    flow = np.ones((1, 4))
    for i in range(3):
        flow = flow @ np.abs(np.asarray(layers[str(i)]["kernel"], np.float64))
    found = synflow(forward, layers, jnp.zeros((2, 2, 2, 1)), None)
    assert float(found) == pytest.approx(np.log(3 * flow.sum()), rel=1e-6)


def test_jacob_cov_prefers_images_whose_gradients_differ():
    rng = np.random.default_rng(0)
    different, alike = rng.normal(size=(8, 50)), np.ones((8, 1)) * rng.normal(size=50) + 0.1 * rng.normal(size=(8, 50))
    # of identical ones 7 eigenvalues are 0 and one is 8
    same = -(7 * (np.log(1e-5) + 1e5) + np.log(8 + 1e-5) + 1 / (8 + 1e-5))
    assert jacob_cov(different) > jacob_cov(alike) > same
    assert jacob_cov(np.ones((8, 1)) * rng.normal(size=50)) == pytest.approx(same, rel=1e-4)
    assert np.isnan(jacob_cov(np.ones((3, 4))))


def test_linear_leaves_no_activation_and_every_shape():
    for field in (field for stage in linear(tiny.space()).stages for field in (stage.block.activation,)):
        assert field == "identity"
    assert Supernet(linear(tiny.space())).shapes() == Supernet(tiny.space()).shapes()
