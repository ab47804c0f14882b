"""Networks without the masked channels give the same logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models.errors import InputError
from nas.pruning.counting import counted
from nas.pruning.masks import applied, decided, masks_of, scores_of
from nas.pruning.shrink import shrink, shrinkable
from nas.pruning.targets import targets
from search_spaces.blocks.bottleneck_residual import BottleneckResidual
from search_spaces.blocks.classifier import Classifier
from search_spaces.blocks.conv_norm import ConvNorm
from search_spaces.blocks.dense import Dense
from search_spaces.blocks.depthwise_separable import DepthwiseSeparable
from search_spaces.blocks.flynet import FlyNet
from search_spaces.blocks.ghost import Ghost
from search_spaces.blocks.inception import Inception
from search_spaces.blocks.inverted_residual import InvertedResidual
from search_spaces.blocks.residual import Residual
from search_spaces.network import Network
from search_spaces.precision import with_bits
from search_spaces.sparsity.random import Random

X = np.random.default_rng(3).normal(size=(2, 8, 8, 1)).astype(np.float32)


def _logits(space, variables):
    return Network(space, "xla").apply(variables, X)


def _random_masks(space, density, overall=False, names=None):
    found = targets(space, "output_channel", names=names)
    scores = scores_of(found, Random(), None, key=jax.random.key(1))
    return masks_of(space, found, decided(found, scores, density, overall))


def _same(space, variables, masks):
    small = shrink(space, variables, masks)
    masked = _logits(space, {**variables, "params": applied(masks, variables["params"])})
    np.testing.assert_allclose(_logits(*small), masked, rtol=1e-5, atol=1e-5)
    assert float(jnp.abs(masked).max()) > 0.01
    return small


@pytest.mark.parametrize(
    ("block", "widths", "head", "overall"),
    [
        (ConvNorm(), (8, 16), None, True),
        (ConvNorm(norm=False, bias=True), (8,), Classifier(hidden=(12, 8), end="flatten"), False),
        (DepthwiseSeparable(), (16,), Classifier(end="conv"), True),
        (InvertedResidual(expand=3), (8, 16, 16), None, True),
        (FlyNet(), (8, 16), None, True),
        (FlyNet(reduction="funnel", residual="conv3x3"), (8, 16), None, True),
        (FlyNet(attention="mean_variance_softmax"), (8, 16), None, True),
        (Residual(), (8, 16, 16), None, False),
        (Residual(preactivation=True), (8, 16), Classifier(preactivation=True), False),
        (Dense(growth=8), (16, 24), None, True),
    ],
)
def test_logits_stay_and_parameters_are_those_that_were_kept(network, lively, block, widths, head, overall):
    space = network(block, widths, head)
    names = tuple(group.name for group in shrinkable(space))
    masks = _random_masks(space, 0.5, overall, names)
    small = _same(space, lively(space), masks)
    assert small.space.params < 0.8 * space.params
    assert small.space.params == counted(space, masks).kept_params


@pytest.mark.parametrize(
    ("block", "widths"), [(BottleneckResidual(expand=0.5), (16, 32)), (Residual(shortcut="pad"), (8, 16))]
)
def test_channels_that_a_ratio_cannot_leave_out_stay_as_zeros(network, lively, block, widths):
    space = network(block, widths)
    masks = _random_masks(space, 0.6)
    small = _same(space, lively(space), masks)
    assert counted(space, masks).kept_params <= small.space.params < space.params


def test_no_sum_appears_where_widths_become_equal(network, lively):
    """From 8 to 16 channels there is no residual; with 8 of 16 kept there would be one."""
    space = network(InvertedResidual(expand=2), (16,))
    only = targets(space, "output_channel", names=("stages_0_0/project",))
    small = _same(space, lively(space), masks_of(space, only, [np.arange(16) >= 8]))
    assert small.space.slots[1].out.values == (9,)


@pytest.mark.parametrize(("block", "width"), [(InvertedResidual(expand=2), 8), (Residual(), 8), (FlyNet(), 8)])
def test_a_block_that_is_masked_whole_is_skipped(network, lively, block, width):
    space = network(block, (width, width))
    found = targets(space, "layer")
    assert [target.name for target in found] == ["stages_0_0", "stages_0_1"]
    small = _same(space, lively(space), masks_of(space, found, [np.zeros(1, bool), None]))
    assert [slot.cases[0].block.kind for slot in small.space.slots[1:3]] == ["skip", block.kind]
    assert "stages_0_0" not in small.variables["params"]


@pytest.mark.parametrize("block", [Inception((1, 3)), Ghost(), Residual(group_width=4)])
def test_what_cannot_be_removed_is_asked_beforehand_or_refused(network, lively, block):
    space = network(block, (8, 8))
    assert {group.name for group in shrinkable(space)} == {"head/conv"}
    with pytest.raises(InputError, match=r"no smaller block of its kind has .* shrinkable\(space\) only"):
        shrink(space, lively(space), _random_masks(space, 0.5))


def test_empty_layers_and_bits_are_refused(network, lively):
    space = network(ConvNorm(), (8,))
    only = targets(space, "output_channel", names=("stages_0_0/conv",))
    with pytest.raises(InputError, match="no channel of stages_0_0/conv is kept"):
        shrink(space, lively(space), masks_of(space, only, [np.zeros(8, bool)]))
    with pytest.raises(InputError, match="has bits: shrink the network before it is rounded"):
        shrink(with_bits(space, 8), lively(space), masks_of(space, only, [np.ones(8, bool)]))


def test_masks_that_drop_nothing_whole_leave_the_space(network, lively):
    space = network(ConvNorm(), (8,))
    found = targets(space, "weight")
    masks = masks_of(
        space, found, [np.arange(t.structure.count).reshape(t.structure.decisions) % 2 == 0 for t in found]
    )
    assert shrink(space, lively(space), masks).space is space
