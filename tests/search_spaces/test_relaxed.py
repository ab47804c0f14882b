"""Relaxed execution: the network of one-hot gates, and what other gates mix."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from search_spaces.block import BlockIO
from search_spaces.blocks import _bottleneck
from search_spaces.blocks.flynet import FlyNet
from search_spaces.blocks.inverted_residual import InvertedResidual
from search_spaces.channels import Channels
from search_spaces.choice import Choice
from search_spaces.encoding import one_hot, uniform_gates
from search_spaces.supernet import Supernet
from search_spaces.testing import randomised, samples, space_with


@pytest.mark.parametrize(
    ("block", "width", "forms"),
    [
        (InvertedResidual(Choice(3, 5), Choice(1, 3), activation="relu"), Choice(8, 16), 1),
        (InvertedResidual(Choice(3, 5), Choice(2, 4), groups=2), 8, 2),  # grouped convolutions have no masked form
        (FlyNet(Choice(3, 5), Choice(2, 3), 2, Choice("none", "eca", "mean_variance_softmax")), Choice(8, 16), 1),
    ],
    ids=["expansion left out", "groups", "heads that are not searched"],
)
def test_one_hot_gates_are_the_network(block, width, forms):
    space = space_with(block, stride=1, width=width, stem=width)
    supernet = Supernet(space)
    assert [len(program.mixed) for program in supernet.programs] == [1, forms, 1]
    variables = randomised(supernet.init(jax.random.key(0)), 0)
    x = jax.random.normal(jax.random.key(1), (4, 8, 8, 3))
    for mode in ("train", "eval"):
        relaxed = jax.jit(lambda gates, mode=mode: supernet.relaxed(variables, x, gates, mode))
        sampled = jax.jit(lambda genes, mode=mode: supernet.apply(variables, x, genes, mode))
        for genes in samples(space, 4):
            expected = sampled(jnp.asarray(genes))
            difference = jnp.abs(relaxed(one_hot(space, genes)) - expected).max()
            assert difference <= 1e-4 * max(1.0, float(jnp.abs(expected).max())), (mode, space.decode(genes))
        assert jnp.isfinite(jax.grad(lambda gates, run=relaxed: run(gates).sum())(uniform_gates(space))).all()


def test_mixed_expansions_are_the_mixture_of_each():
    """Of channels that are left out, kept and expanded: 8 inputs, expansions 1, 2 and 3, statistics as stored."""
    gates, io = jnp.asarray([0.5, 0.2, 0.3]), BlockIO(4, 4, 8, 8)
    values = (1, 2, 3)

    class Widened(nn.Module):
        @nn.compact
        def __call__(self, x, index):
            expand, hidden = Channels(values, index), Channels(tuple(8 * value for value in values), index)
            return _bottleneck.widen(x, hidden, expand, "relu", "eval", io)

    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 8))
    variables = randomised(Widened().init(jax.random.key(1), x, gates), 0)
    each = [Widened().apply(variables, x, jnp.int32(place)) for place in range(3)]
    expected = sum(gate * one for gate, one in zip(gates, each, strict=True))
    np.testing.assert_allclose(Widened().apply(variables, x, gates), expected, rtol=1e-5, atol=1e-5)
