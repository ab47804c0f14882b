"""The largest and the smallest network of every shipped space."""

import itertools

import jax
import numpy as np
import pytest

from hw_models import discover
from nas.training.extremes import extremes
from nas.variants import Variants
from search_spaces.spaces import macro, tiny

# several resolutions, heads, widths of stages and of blocks; the other spaces are slow together
VARIED = ("flynet", "mobilenet_v3", "quickstart", "resnet", "tiny")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name not in VARIED))
        for name in discover.names("search_spaces.spaces")
    ],
)
def test_no_random_network_lies_outside(name):
    space = discover.load("search_spaces.spaces", name, "space", "space")()
    found = extremes(space)
    largest, smallest = space.freeze(found.largest), space.freeze(found.smallest)
    draws = np.asarray(jax.vmap(space.sample)(jax.random.split(jax.random.key(0), 1000)))
    if space.resolutions:  # lowering a thousand networks takes long; those of the largest images bound the others
        assert largest.image_hw == space.image_hw and smallest.image_hw == min(s.image_hw for s in space.resolutions)
        space, draws = space.resolutions[int(found.largest[-1])], draws[:, :-1]
        smallest = None
    variants = Variants(space)
    macs = np.asarray([sum(layer.macs for layer in v.layers) for v in variants.rows])
    drawn = macs[np.asarray(jax.jit(jax.vmap(variants.index))(draws))].sum(1)
    assert largest.macs >= drawn.max()
    assert smallest is None or smallest.macs <= drawn.min()


@pytest.mark.parametrize("space", [tiny.space(), macro.space()], ids=lambda space: space.name)
def test_they_are_exact_where_all_networks_can_be_counted(space):
    found = extremes(space)
    macs = _all_macs(space)
    assert space.freeze(found.largest).macs == macs.max() and space.freeze(found.smallest).macs == macs.min()


def _all_macs(space):
    variants = Variants(space)
    table = np.asarray([sum(layer.macs for layer in v.layers) for v in variants.rows])
    genes = np.asarray(list(itertools.product(*map(range, space.cardinality))), np.int32)
    return table[np.asarray(jax.jit(jax.vmap(variants.index))(genes))].sum(1)


def test_values_are_ordered_from_large_to_small():
    space = tiny.space()
    order = extremes(space).order
    for decision, row in zip(space.decisions, order, strict=True):
        values = [decision.values[i] for i in row if i >= 0]
        assert values == sorted(decision.values, reverse=True)
