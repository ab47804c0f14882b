"""Which channels go together."""

import numpy as np
import pytest

from nas.pruning.coupling import coupling_of
from search_spaces.attention import ECA_KERNEL
from search_spaces.blocks.classifier import Classifier
from search_spaces.blocks.conv_norm import ConvNorm
from search_spaces.blocks.dense import Dense
from search_spaces.blocks.flynet import FlyNet
from search_spaces.blocks.inverted_residual import InvertedResidual
from search_spaces.blocks.residual import Residual
from search_spaces.blocks.shufflenet_v2 import ShuffleNetV2


def _free(space):
    return {group.name: group for group in coupling_of(space).groups if not group.fixed}


def _weights(group, reads):
    return {(m.path, m.axis) for m in group.members if m.leaf in ("kernel", "filters") and m.reads is reads}


def test_a_residual_network_couples_what_is_added(network):
    """A stage of equal widths is one group; the projection where the width changes is of the wider one."""
    found = _free(network(Residual(), (8, 16, 16)))
    assert {name: group.size for name, group in found.items()} == {
        "stem_0/conv": 8, "stages_0_0/conv_1": 8, "stages_0_1/conv_1": 16, "stages_0_1/conv_2": 16,
        "stages_0_2/conv_1": 16, "head/conv": 16,
    }  # fmt: skip
    narrow, wide = found["stem_0/conv"], found["stages_0_1/conv_2"]
    assert _weights(narrow, False) == {("stem_0/conv", 3), ("stages_0_0/conv_2", 3)}
    assert _weights(narrow, True) == {("stages_0_0/conv_1", 2), ("stages_0_1/conv_1", 2), ("stages_0_1/shortcut", 0)}
    assert _weights(wide, False) == {("stages_0_1/conv_2", 3), ("stages_0_1/shortcut", 1), ("stages_0_2/conv_2", 3)}
    assert {a.path for a in wide.activations} == {"stages_0_1/Activation_1", "stages_0_2/Activation_1"}
    assert all((m.places[:, 0] == np.arange(group.size)).all() for group in found.values() for m in group.members)


def test_a_padded_shortcut_couples_the_leading_channels(network):
    found = _free(network(Residual(shortcut="pad"), (8, 16)))
    leading = next(m for m in found["stem_0/conv"].members if m.path == "stages_0_1/conv_2")
    rest = next(group for group in found.values() if group.name == "stages_0_1/conv_2")
    assert leading.offset == 0 and len(leading.places) == 8
    assert rest.size == 8 and rest.members[0].offset == 8


def test_concatenation_has_offsets(network):
    found = _free(network(Dense(growth=4), (12, 16)))
    new = {m.path: m.offset for m in found["stages_0_0/conv"].members if m.reads}
    assert new == {"stages_0_1/conv": 8, "head/conv": 8}


def test_heads_and_squeezed_channels_of_blocks_that_expand(network):
    fly = _free(network(FlyNet(heads=3, expand=2)))["stages_0_0/expand"]
    assert ("stages_0_0/depthwise", 2) in _weights(fly, False) and fly.size == 16
    block = InvertedResidual(expand=2, attention="se")
    squeezed = _free(network(block))["stages_0_0/attention/se/reduce"]
    assert _weights(squeezed, True) == {("stages_0_0/attention/se/expand", 0)} and squeezed.size == 8
    hidden = _free(network(block))["stages_0_0/expand"]
    assert ("stages_0_0/attention/se/expand", 1) in _weights(hidden, False)
    assert ("stages_0_0/attention/se/reduce", 0) in _weights(hidden, True)


@pytest.mark.parametrize("block", [InvertedResidual(expand=2, attention="eca"), FlyNet(residual="light")])
def test_channels_whose_neighbours_matter_are_ordered(network, block):
    assert ECA_KERNEL == 3 and any(group.ordered for group in _free(network(block)).values())


def test_groups_of_a_convolution_share_decisions(network):
    found = _free(network(Residual(group_width=4), (8, 8)))
    stream = found["stem_0/conv"]
    grouped = next(m for m in stream.members if m.path == "stages_0_0/conv_1" and m.reads)
    assert stream.size == 4 and grouped.places.shape == (4, 1)
    stem = next(m for m in stream.members if m.path == "stem_0/conv")
    assert stem.places.tolist() == [[0, 4], [1, 5], [2, 6], [3, 7]]


def test_a_flattened_channel_is_read_at_every_pixel(network):
    last = _free(network(ConvNorm(), (6,), Classifier(end="flatten")))["stages_0_0/conv"]
    (read,) = (m for m in last.members if m.reads)
    assert read.places.shape == (6, 64) and read.places[2, :3].tolist() == [2, 8, 14]


def test_a_shuffle_is_followed(network):
    """The second half is convolved, the first passes; the next unit takes one of either in turn."""
    groups = coupling_of(network(ShuffleNetV2(), (8, 8))).groups
    assert sum(group.size for group in groups if not group.fixed) > 0
    assert {group.name for group in groups if group.fixed} == {"images", "head/logits"}
