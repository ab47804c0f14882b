"""Depthwise separable, fused inverted residual, skip, and what FBNet asks of the inverted residual."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models.device_file import load_device
from hw_models.errors import InputError
from nas.cost_table import cost_table
from search_spaces import testing
from search_spaces.block import BlockIO
from search_spaces.blocks.depthwise_separable import DepthwiseSeparable
from search_spaces.blocks.fused_inverted_residual import FusedInvertedResidual
from search_spaces.blocks.inverted_residual import InvertedResidual
from search_spaces.blocks.skip import Skip
from search_spaces.channels import Channels
from search_spaces.choice import Choice
from search_spaces.counting import count
from search_spaces.network import Network, fresh
from search_spaces.rearrange import Interleave, Split

# Rows of the block table of HW-NAS-Bench's FBNet space (CIFAR-100) in HayeonLee/HELP, MIT licence:
# rows of the map, channels in and out, stride, block, MACs, parameters.
FBNET_ROWS = (
    (32, 16, 16, 1, "k3_e1", 671744, 752),
    (32, 16, 16, 1, "k5_e1_g2", 671744, 752),
    (32, 16, 16, 1, "skip", 0, 0),
    (32, 16, 24, 1, "k3_e1_g2", 475136, 576),
    (32, 16, 24, 1, "skip", 393216, 432),
    (32, 24, 32, 2, "k3_e3", 2525184, 5032),
    (32, 24, 32, 2, "skip", 196608, 832),
    (16, 32, 64, 2, "k5_e6", 2666496, 24128),
    (8, 112, 184, 2, "k5_e1_g2", 611072, 20192),
    (4, 184, 184, 1, "k3_e6", 6659328, 420992),
    (4, 184, 352, 1, "k3_e1_g2", 815488, 52408),
)


def fbnet_block(name):
    if name == "skip":
        return Skip(project=True)
    kernel, expand, *grouped = name.split("_")
    groups = 2 if grouped else 1
    return InvertedResidual(int(kernel[1]), int(expand[1]), activation="relu", groups=groups, keep_expansion=True)


@pytest.mark.parametrize("row", FBNET_ROWS, ids=lambda row: f"{row[4]}-{row[1]}-{row[2]}")
def test_blocks_of_fbnet_have_the_published_counts(row):
    size, inp, out, stride, name, macs, params = row
    block, io = fbnet_block(name), BlockIO(size, size, inp, out, stride)
    block.check(io)
    layers = block.lower(io)
    assert (sum(layer.macs for layer in layers), sum(layer.params for layer in layers)) == (macs, params)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("expand", [1, 2])
def test_groups_and_kept_expansions_count_as_in_the_network(groups, expand):
    for keep, width in ((True, 8), (False, 24)):
        block = InvertedResidual(3, expand, groups=groups, keep_expansion=keep)
        space = testing.space_with(block, 1, width, depth=2)
        assert count(space) == (space.params, space.macs)


def test_expansion_is_kept_only_where_asked_for():
    def first(**fields):
        return InvertedResidual(3, 1, **fields).lower(BlockIO(8, 8, 16, 16))[0].op.name

    assert (first(), first(keep_expansion=True)) == ("DEPTHWISE", "CONV")


def test_two_groups_are_shuffled_as_in_shufflenet():
    """Reshape to groups, transpose, flatten: channel j of group g comes to place 2 j + g."""
    parts = Split().apply({}, jnp.arange(8.0).reshape(1, 1, 1, 8), (Channels((4,)), Channels((4,))))
    assert Interleave().apply({}, parts).ravel().tolist() == [0, 4, 1, 5, 2, 6, 3, 7]


def test_every_output_of_a_grouped_block_sees_both_groups():
    """Without the shuffle between its grouped convolutions an output channel would see half of the input."""
    block, io = InvertedResidual(1, 1, groups=2, keep_expansion=True, activation="identity"), BlockIO(4, 4, 8, 16)
    net, x = block.net(io), jnp.ones((1, 4, 4, 8))
    variables = testing.randomised(net.init(jax.random.key(0), x), 0)
    seen = jax.jit(jax.jacobian(lambda x: net.apply(variables, x)[0, 0, 0]))(x)[:, 0, 0, 0]
    assert (jnp.abs(seen) > 0).all()


@pytest.mark.parametrize("stride", [1, 2])
def test_grouped_blocks_and_skips_in_a_supernet_equal_the_networks(stride):
    grouped = InvertedResidual(3, Choice(1, 2), groups=2, keep_expansion=True, activation="relu")
    space = testing.space_with(Choice(Skip(project=True), grouped), stride, 16)
    for genes in testing.samples(space, 2):
        testing.check_genes(space, genes)


@pytest.mark.parametrize(
    ("fields", "channels", "message"),
    [
        ({"groups": 3}, (16, 16), r"groups=3 does not divide the 16 input channels"),
        ({"groups": 4}, (16, 18), r"groups=4 does not divide the 18 output channels"),
        ({"groups": 0}, (16, 16), r"groups=0 is not allowed: give a whole number from 1"),
        ({"groups": True}, (16, 16), r"groups=True is not allowed"),
    ],
)
def test_groups_that_cannot_be_built(fields, channels, message):
    with pytest.raises(InputError, match=message):
        InvertedResidual(3, 3, **fields).check(BlockIO(8, 8, *channels))


def test_groups_are_refused_where_widths_are_searched():
    with pytest.raises(InputError, match=r"stages/0/0/groups: groups=2 cannot be used where widths"):
        testing.space_with(InvertedResidual(3, 3, groups=2), width=Choice(8, 16))


def test_skip_is_nothing_where_the_shape_stays():
    for block in (Skip(), Skip(project=True)):
        space = testing.space_with(block, depth=2)
        assert block.lower(BlockIO(8, 8, 8, 8)) == []
        assert not [layer for layer in space.lower() if layer.group in (1, 2)]
        variables, x = fresh(space, jax.random.key(0)), jnp.ones((1, 8, 8, 3))
        assert sorted(variables["params"]) == ["head", "stem_0"]
        assert Network(space).apply(variables, x).shape == (1, 4)


@pytest.mark.parametrize(("stride", "width"), [(2, 8), (1, 16), (1, Choice(8, 16))])
def test_skip_needs_a_projection_where_the_shape_changes(stride, width):
    with pytest.raises(InputError, match=r"stages/0/0/skip: a skip from 8 to .* cannot be the identity: set project="):
        testing.space_with(Skip(), stride, width)
    testing.space_with(Skip(project=True), stride, width)


@pytest.mark.parametrize("device", ["raspberry_pi_4", "zcu102", "edge_tpu"])
def test_cost_tables_take_a_slot_that_may_have_no_layers(device):
    device = load_device(device)
    block = Choice(Skip(project=True), InvertedResidual(3, 2))
    for space in (testing.space_with(block, 1, Choice(8, 16), depth=Choice(1, 3)), testing.space_with(Skip())):
        table = cost_table(space, device)
        for genes in testing.samples(space, 3):
            costs, frozen = table.exact(jnp.asarray(genes)), space.freeze(genes)
            assert (int(costs.macs), int(costs.params)) == (frozen.macs, frozen.params)
            assert np.isfinite(jax.tree.leaves(costs)).all()


def test_fused_block_with_expansion_1_is_one_convolution_and_the_identity():
    io = BlockIO(8, 8, 8, 8)
    fused, general = FusedInvertedResidual(3, 1), FusedInvertedResidual(3, 4)
    assert [layer.op.name for layer in fused.lower(io)] == ["CONV", "ADD"]
    assert [layer.op.name for layer in general.lower(io)] == ["CONV", "CONV", "ADD"]
    assert [layer.op.name for layer in fused.lower(BlockIO(8, 8, 8, 16))] == ["CONV"]
    x = jnp.ones((1, 8, 8, 8))
    made = {block.expand: block.net(io).init(jax.random.key(0), x)["params"] for block in (fused, general)}
    assert sorted(made[1]) == ["fused", "fused_norm"]
    assert sorted(made[4]) == ["expand", "expand_norm", "project", "project_norm"]


def test_fused_block_activates_before_it_adds():
    io, x = BlockIO(8, 8, 8, 8), jax.random.normal(jax.random.key(1), (1, 8, 8, 8))
    net = FusedInvertedResidual(3, 1, activation="relu").net(io)
    difference = net.apply(net.init(jax.random.key(0), x), x) - x
    assert (difference >= -1e-6).all() and (difference > 0.1).any()


def test_linear_form_of_the_depthwise_separable_block():
    io, x = BlockIO(8, 8, 8, 16), jax.random.normal(jax.random.key(1), (1, 8, 8, 8))

    def lowest(**fields):
        net = DepthwiseSeparable(3, **fields).net(io)
        return float(net.apply(net.init(jax.random.key(0), x), x).min())

    assert lowest() == 0 and lowest(project_activation="identity") < 0


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (DepthwiseSeparable(3, project_activation="rely"), "unknown project_activation 'rely': did you mean 'relu'"),
        (DepthwiseSeparable(4), "kernel=4 is not allowed"),
        (FusedInvertedResidual(3, 0.5), "expand=0.5 is not allowed"),
        (FusedInvertedResidual(3, 4, "es"), "unknown attention 'es'"),
        (FusedInvertedResidual(3, 4, squeeze_from="output"), "unknown squeeze_from 'output'"),
        (FusedInvertedResidual(3, 4, gate="sigmoi"), "unknown gate 'sigmoi': did you mean 'sigmoid'"),
        (Skip(activation="swish"), "unknown activation 'swish'"),
    ],
)
def test_bad_fields_are_named(block, message):
    with pytest.raises(InputError, match=message):
        block.check(BlockIO(8, 8, 8, 8))
