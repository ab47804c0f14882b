"""The compiled attention against the plain layers, which say what it computes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from search_spaces.attention import (
    HEAD_KINDS,
    KINDS,
    ChannelAttention,
    CompiledHeadAttention,
    HeadAttention,
)
from search_spaces.channels import Channels
from search_spaces.kernels.attention import available
from search_spaces.layers import ACTIVATIONS

needs_native = pytest.mark.skipif(not available(jnp.ones(1)), reason="the compiled kernel is not available")


def agree(found, expected, tolerance=2e-5):
    for ours, right in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        scale = max(1.0, np.abs(right).max(initial=0))
        np.testing.assert_allclose(ours, right, rtol=tolerance, atol=tolerance * scale)


def results_of(layer, variables, *operands, g):
    """Result and gradients in variables and operands, for every kind: one program, for the kind is an operand."""

    @jax.jit
    def run(kind):
        y, pull = jax.vjp(lambda variables, *operands: layer(variables, kind, *operands), variables, *operands)
        return y, pull(g)

    return run


def randomised(rng, variables):
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), variables)


@needs_native
@pytest.mark.parametrize(
    ("shape", "channels", "reduced"),
    [
        ((3, 5, 4, 24), (24,), (8,)),
        ((2, 15, 14, 13), (13, 9), (3, 2)),  # more pixels than one float32 sum takes, channels that fill no register
        ((1, 1, 1, 1), (1,), (1,)),
        ((5, 2, 3, 40), (40, 24), (40, 7)),
    ],
)
def test_channels_are_scaled_as_by_the_layers(shape, channels, reduced):
    rng = np.random.default_rng(0)
    index = jnp.int32(len(channels) - 1)
    wide = Channels(channels, index if len(channels) > 1 else None)
    narrow = Channels(reduced, wide.index)
    x, g = (wide.mask(jnp.asarray(rng.normal(size=shape), jnp.float32)) for _ in range(2))
    layers = {how: ChannelAttention(KINDS, implementation=how) for how in ("xla", "auto")}
    shapes = {how: layer.init(jax.random.key(0), x, wide, jnp.int32(0), narrow) for how, layer in layers.items()}
    variables = randomised(rng, shapes["xla"])
    assert jax.tree.map(jnp.shape, shapes["auto"]) == jax.tree.map(jnp.shape, variables)
    run = {
        how: results_of(lambda v, kind, x, layer=layer: layer.apply(v, x, wide, kind, narrow), variables, x, g=g)
        for how, layer in layers.items()
    }
    for kind in range(len(KINDS)):
        agree(run["auto"](kind), run["xla"](kind))


@needs_native
@pytest.mark.parametrize("function", sorted(ACTIVATIONS))
def test_every_function_of_squeeze_and_excitation(function):
    rng = np.random.default_rng(1)
    x, g = (jnp.asarray(3 * rng.normal(size=(4, 3, 3, 20)), jnp.float32) for _ in range(2))
    wide = Channels((20,))
    variables = randomised(rng, ChannelAttention(("se",)).init(jax.random.key(0), x, wide))
    for inner, gate in ((function, "sigmoid"), ("relu", function)):
        results = []
        for how in ("xla", "auto"):
            layer = ChannelAttention(("se",), inner, gate, how)
            run = results_of(lambda v, _, x, layer=layer: layer.apply(v, x, wide), variables, x, g=g)
            results.append(run(0))
        agree(results[1], results[0])


@needs_native
@pytest.mark.parametrize(("counts", "place"), [((1,), 0), ((1, 2, 3), 0), ((1, 2, 3), 2), ((2, 5), 0), ((2, 5), 1)])
def test_heads_are_weighed_as_by_the_layer(counts, place):
    rng = np.random.default_rng(2)
    heads, several = max(counts), len(counts) > 1
    used = np.arange(heads)[:, None] < counts[place]
    mean, variance, g = (jnp.asarray(rng.normal(size=(3, heads, 11)) * used, jnp.float32) for _ in range(3))
    plain, compiled = HeadAttention(HEAD_KINDS, counts), CompiledHeadAttention(HEAD_KINDS)
    in_use, where = (jnp.int32(value) if several else None for value in (counts[place], place))
    progress = jnp.float32(0.25)

    def by_layer(variables, kind, mean, variance):
        means, variances = (tuple(part[:, head] for head in range(heads)) for part in (mean * used, variance * used))
        (factors,) = plain.apply(variables, means, variances, kind, where, progress)
        return jnp.stack(factors, axis=1) * used

    def by_kernel(variables, kind, mean, variance):
        return compiled.apply(variables, mean * used, variance * used, kind, in_use, progress) * used

    variables = randomised(rng, compiled.init(jax.random.key(0), mean, variance, jnp.int32(0), in_use, progress))
    wanted, found = (results_of(run, variables, mean, variance**2, g=g) for run in (by_layer, by_kernel))
    for kind in range(len(HEAD_KINDS)):
        agree(found(kind), wanted(kind))


@needs_native
def test_what_is_not_a_number_stays_so():
    x = jnp.ones((2, 3, 3, 8)).at[1, 0, 0, 5].set(jnp.nan)
    layer = ChannelAttention(("none", "se", "eca"), implementation="auto")
    variables = layer.init(jax.random.key(0), x, Channels((8,)), jnp.int32(0))
    for kind in range(3):
        y = layer.apply(variables, x, Channels((8,)), jnp.int32(kind))
        assert np.isnan(y[1, 0, 0, 5]) and np.isfinite(y[0]).all()
    assert np.isnan(layer.apply(variables, x, Channels((8,)), jnp.int32(1))[1]).all()


@needs_native
def test_rows_under_vmap_are_computed_one_by_one():
    layer = ChannelAttention(KINDS, implementation="auto")
    x = jax.random.normal(jax.random.key(1), (3, 2, 4, 4, 8))
    variables = layer.init(jax.random.key(0), x[0], Channels((8,)), jnp.int32(0))
    index = jnp.asarray([0, 1, 2])
    run = jax.vmap(lambda x, index: layer.apply(variables, x, Channels((8,)), index))
    alone = [layer.apply(variables, each, Channels((8,)), kind) for each, kind in zip(x, index, strict=True)]
    np.testing.assert_array_equal(run(x, index), np.stack(alone))
