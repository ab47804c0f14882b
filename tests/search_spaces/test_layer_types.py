"""Layers compute in the type of their input and keep weights and statistics in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models import discover
from search_spaces import layers, normalisation
from search_spaces.attention import ChannelAttention, HeadAttention
from search_spaces.channels import Channels
from search_spaces.network import Network, variable_shapes
from search_spaces.supernet import Supernet

MAP = np.random.default_rng(0).normal(3, 2, (4, 6, 6, 8)).astype(np.float32)
VECTOR = MAP[:, 0, 0]

CASES = {
    "conv": (layers.Conv(6, bias=True), (MAP,)),
    "grouped": (layers.Conv(8, groups=2, padding="valid"), (MAP,)),
    "pointwise": (layers.Pointwise(5), (MAP,)),
    "depthwise": (layers.Depthwise(3, heads=2), (MAP,)),
    "depthwise maximum": (layers.DepthwiseMaximum(3, 2, heads=2), (MAP,)),
    "linear": (layers.Linear(5), (VECTOR,)),
    "global pool": (layers.GlobalPool(), (MAP,)),
    "variance": (layers.Variance(), (MAP, VECTOR)),
    "channel conv": (layers.ChannelConv(), (VECTOR, VECTOR)),
    "softmax": (layers.Softmax(), ((VECTOR, VECTOR + 1), jnp.float32(2))),
    "scale": (layers.Scale(), (MAP, VECTOR)),
    "max pool": (layers.Pool(), (MAP,)),
    "mean pool": (layers.Pool("mean", padding="ceil"), (MAP,)),
    "noise": (layers.QuantizationNoise(8), (MAP,)),
    "attention": (ChannelAttention(("none", "se", "eca")), (MAP, Channels((8,)), jnp.int32(1))),
    "heads": (
        HeadAttention(("eca", "mean_variance_softmax"), (1, 2)),
        ((VECTOR, VECTOR), (VECTOR, VECTOR), jnp.int32(1), jnp.int32(1), jnp.float32(0.5)),
    ),
}


def narrowed(tree):
    """Activations in bfloat16, what is traced besides (temperature, indices) as it is."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16) if np.ndim(leaf) > 1 else leaf, tree)


@pytest.mark.parametrize("name", CASES)
def test_a_layer_returns_the_type_it_is_given(name):
    layer, inputs = CASES[name]
    variables = layer.init(jax.random.key(0), *inputs)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
    wide, narrow = (layer.apply(variables, *given) for given in (inputs, narrowed(inputs)))
    for exact, rough in zip(jax.tree.leaves(wide), jax.tree.leaves(narrow), strict=True):
        assert (exact.dtype, rough.dtype) == (jnp.float32, jnp.bfloat16)
        near = np.isclose(rough.astype(jnp.float32), exact, rtol=0.05, atol=0.1)
        assert near.mean() > (0.99 if name == "noise" else 0.9999), "what is rounded to levels may tip"


def test_statistics_of_a_normalisation_are_those_of_float32():
    x = jnp.asarray(MAP + 100, jnp.bfloat16)
    layer = normalisation.Norm()
    variables = layer.init(jax.random.key(0), x, "train")
    y, updated = layer.apply(variables, x, "calibrate", mutable=["batch_stats"])
    exact = np.asarray(x, np.float64)
    assert y.dtype == jnp.bfloat16 and updated["batch_stats"]["mean"].dtype == jnp.float32
    np.testing.assert_allclose(updated["batch_stats"]["mean"], exact.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(updated["batch_stats"]["var"], exact.var((0, 1, 2)), rtol=1e-3)


SPACES = [
    pytest.param(name, marks=() if name == "tiny" else pytest.mark.slow)
    for name in discover.names("search_spaces.spaces")
]


@pytest.mark.parametrize("name", SPACES)
def test_no_block_of_a_space_leaves_bfloat16(name):
    """Nothing is computed, only traced: a switch refuses branches of unequal types."""
    size = 8 if name == "tiny" else 32
    options = {"resolutions": 1} if name == "mobilenet_v3" else {}
    space = discover.load("search_spaces.spaces", name, "space", "space")(input_hw=size, classes=10, **options)
    image = jax.ShapeDtypeStruct((2, size, size, space.input_channels), jnp.bfloat16)
    net = Supernet(space, "xla")
    genes = jax.ShapeDtypeStruct((space.num_decisions,), jnp.int32)

    logits = jax.eval_shape(
        lambda params, x, genes: net.apply(params, x, genes, "train", jnp.float32(0.5)),
        net.shapes(),
        image,
        genes,
    )
    assert logits.dtype == jnp.bfloat16
    frozen = space.freeze([0] * space.num_decisions)
    logits, updated = jax.eval_shape(
        lambda v, x: Network(frozen, "xla").apply(v, x, "train", mutable=["batch_stats"]),
        variable_shapes(frozen),
        image,
    )
    assert logits.dtype == jnp.bfloat16 and {leaf.dtype for leaf in jax.tree.leaves(updated)} == {np.dtype("float32")}
