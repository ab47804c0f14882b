"""The compiled attention against the plain layers, which say what it computes."""

import os
import subprocess
import sys

import flax.linen as nn
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


def both(layer_of, variables, operands, g):
    """Result and gradients of the plain layer and of the compiled one, on the same variables."""
    for implementation in ("xla", "auto"):
        y, pull = jax.vjp(layer_of(implementation).apply, variables, *operands)
        yield y, *pull(g)


@needs_native
@pytest.mark.parametrize("kind", range(3), ids=KINDS)
@pytest.mark.parametrize(
    ("shape", "channels", "reduced"),
    [
        ((3, 5, 4, 24), (24,), (8,)),
        ((2, 15, 14, 13), (13, 9), (3, 2)),  # more pixels than one float32 sum takes, channels that fill no register
        ((1, 1, 1, 1), (1,), (1,)),
        ((5, 2, 3, 40), (40, 24), (40, 7)),
    ],
)
def test_channels_are_scaled_as_by_the_layers(kind, shape, channels, reduced):
    rng = np.random.default_rng(0)
    index = jnp.int32(len(channels) - 1)
    wide = Channels(channels, index if len(channels) > 1 else None)
    narrow = Channels(reduced, wide.index)
    x, g = (wide.mask(jnp.asarray(rng.normal(size=shape), jnp.float32)) for _ in range(2))

    class Layer(nn.Module):
        implementation: str

        @nn.compact
        def __call__(self, x):
            layer = ChannelAttention(KINDS, implementation=self.implementation, name="attention")
            return layer(x, wide, jnp.int32(kind), narrow)

    variables = Layer("xla").init(jax.random.key(0), x)
    variables = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), variables)
    assert jax.tree.map(jnp.shape, Layer("auto").init(jax.random.key(0), x)) == jax.tree.map(jnp.shape, variables)
    plain, compiled = both(Layer, variables, (x,), g)
    agree(compiled, plain)


@needs_native
@pytest.mark.parametrize("function", sorted(ACTIVATIONS))
def test_every_function_of_squeeze_and_excitation(function):
    rng = np.random.default_rng(1)
    x, g = (jnp.asarray(3 * rng.normal(size=(4, 3, 3, 20)), jnp.float32) for _ in range(2))
    for inner, gate in ((function, "sigmoid"), ("relu", function)):
        layers = {how: ChannelAttention(("se",), inner, gate, how) for how in ("xla", "auto")}
        variables = layers["xla"].init(jax.random.key(0), x, Channels((20,)))
        variables = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), variables)
        run = {
            how: jax.vjp(lambda v, x, layer=layer: layer.apply(v, x, Channels((20,))), variables, x)
            for how, layer in layers.items()
        }
        agree([(y, pull(g)) for y, pull in (run["auto"],)], [(y, pull(g)) for y, pull in (run["xla"],)])


@needs_native
@pytest.mark.parametrize("kind", range(len(HEAD_KINDS)), ids=HEAD_KINDS)
@pytest.mark.parametrize(("counts", "place"), [((1,), 0), ((1, 2, 3), 0), ((1, 2, 3), 2), ((2, 5), 0), ((2, 5), 1)])
def test_heads_are_weighed_as_by_the_layer(kind, counts, place):
    rng = np.random.default_rng(2)
    heads, several = max(counts), len(counts) > 1
    used = np.arange(heads)[:, None] < counts[place]
    mean, variance, g = (jnp.asarray(rng.normal(size=(3, heads, 11)) * used, jnp.float32) for _ in range(3))
    variance = variance**2
    plain, compiled = HeadAttention(HEAD_KINDS, counts), CompiledHeadAttention(HEAD_KINDS)
    in_use, where = (jnp.int32(value) if several else None for value in (counts[place], place))
    chosen, progress = jnp.int32(kind), jnp.float32(0.25)

    def by_layer(variables, mean, variance):
        means, variances = (tuple(part[:, head] for head in range(heads)) for part in (mean, variance))
        (factors,) = plain.apply(variables, means, variances, chosen, where, progress)
        return jnp.stack(factors, axis=1) * used

    def by_kernel(variables, mean, variance):
        return compiled.apply(variables, mean, variance, chosen, in_use, progress) * used

    variables = compiled.init(jax.random.key(0), mean, variance, chosen, in_use, progress)
    variables = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), variables)
    results = []
    for run in (by_layer, by_kernel):
        y, pull = jax.vjp(run, variables, mean, variance)
        by_variables, by_mean, by_variance = pull(g)
        results.append((y, by_variables, by_mean * used, by_variance * used))
    agree(results[1], results[0])


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


@needs_native
def test_every_instruction_set_computes_the_same():
    program = """
import jax, jax.numpy as jnp, numpy as np
from search_spaces.kernels.attention import Weights, attended, head_factors
rng = np.random.default_rng(0)
random = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
weights = Weights(random(45, 12), random(12), random(12, 45), random(45), random(3))
found = []
for kind in range(3):
    run = lambda x, weights: attended(x, ("none", "se", "eca"), jnp.int32(kind), weights, None)
    y, pull = jax.vjp(run, random(3, 12, 13, 45), weights)
    found += [y, *jax.tree.leaves(pull(y))]
for kind in ("eca", "mean_variance_softmax"):
    run = lambda *parts: head_factors(*parts[:2], (kind,), None, None, 2.0, *parts[2:])
    y, pull = jax.vjp(run, random(3, 3, 19), random(3, 3, 19), random(7), random(7, 2))
    found += [y, *pull(random(*y.shape))]
print(*(float(np.abs(np.asarray(part, np.float64)).sum()) for part in found))
"""
    answers = []
    for wish in ("baseline", "avx2", "avx512"):
        environment = os.environ | {"FLYNAS_KERNEL_ISA": wish, "JAX_PLATFORMS": "cpu"}
        said = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True).stdout
        answers.append([float(number) for number in said.split()])
    assert len(answers[0]) > 20
    np.testing.assert_allclose(answers[1], answers[0], rtol=1e-5)
    np.testing.assert_allclose(answers[2], answers[0], rtol=1e-5)
