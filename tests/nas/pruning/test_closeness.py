"""Angle and distance of the weights that read and write a channel, and what is judged where there are none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nas.pruning.closeness import judged_by, scores_in
from nas.pruning.masks import masks_of
from nas.pruning.rounded import images_of
from nas.pruning.targets import targets
from search_spaces.blocks.classifier import Classifier
from search_spaces.blocks.conv_norm import ConvNorm
from search_spaces.blocks.inverted_residual import InvertedResidual
from search_spaces.blocks.residual import Residual
from search_spaces.precision import Scheme, with_bits
from search_spaces.sparsity.angle import Angle
from search_spaces.sparsity.batch_norm_scale import BatchNormScale
from search_spaces.sparsity.distance import Distance
from search_spaces.sparsity.random import Random

DOREFA = Scheme("dorefa", "dorefa[signed=False]", "tensor")


def _cosine(v, image):
    return (v * image).sum((0, 1)) / np.sqrt(np.square(v).sum((0, 1)) * np.square(image).sum((0, 1)))


def _far(v, image):
    return -np.sqrt(np.square(v - image).sum((0, 1)))


@pytest.fixture(scope="module")
def made(network, lively):
    """Two convolutions of 2 bits between a first and a last layer of 32, and what they are rounded to."""
    plain = network(ConvNorm(), (8, 8), Classifier())
    space, variables = with_bits(plain, "w2a2", 32, DOREFA), lively(plain)
    found = targets(plain, "output_channel")
    images = images_of(space, variables["params"])
    kernels = [
        tuple(np.asarray(t[f"stages_0_{n}"]["conv"]["kernel"]) for t in (variables["params"], images)) for n in (0, 1)
    ]
    return space, variables, found, kernels


@pytest.mark.parametrize(("criterion", "of_kernels"), [(Angle, _cosine), (Distance, _far)])
def test_interactions_are_the_mean_over_the_kernels_that_read_the_channel(made, images, criterion, of_kernels):
    space, variables, found, kernels = made
    stem, first, second = (row.ravel() for row in scores_in(space, found, criterion(), variables, images))
    np.testing.assert_allclose(stem, of_kernels(*kernels[0]).mean(1), rtol=1e-5)  # kernels [I, O]
    np.testing.assert_allclose(first, of_kernels(*kernels[1]).mean(1), rtol=1e-5)
    # the logits that read it are in full precision: its own filters count
    whole = [kernel.reshape(1, -1, 8) for kernel in kernels[1]]
    np.testing.assert_allclose(second, of_kernels(*whole), rtol=1e-5)


@pytest.mark.parametrize(("criterion", "of_filters"), [(Angle, _cosine), (Distance, _far)])
def test_filters_are_judged_by_themselves_but_for_a_first_layer_in_full_precision(made, images, criterion, of_filters):
    space, variables, found, kernels = made
    stem, first, _ = (row.ravel() for row in scores_in(space, found, criterion(of="filter"), variables, images))
    np.testing.assert_allclose(first, of_filters(*(kernel.reshape(1, -1, 8) for kernel in kernels[0])), rtol=1e-5)
    np.testing.assert_allclose(stem, of_filters(*kernels[0]).mean(1), rtol=1e-5)


def test_kernels_of_one_weight_have_a_distance_and_no_angle(network, lively, images):
    plain = network(ConvNorm(), (8,), Classifier())
    space, variables = with_bits(plain, "w2a2", None, DOREFA), lively(plain)
    last = targets(plain, "output_channel", names=("stages_0_0/conv",))
    (angle,), (own,) = (scores_in(space, last, Angle(of=of), variables, images) for of in ("interactions", "filter"))
    np.testing.assert_array_equal(angle, own)
    rounded = images_of(space, variables["params"])["head"]["logits"]["kernel"]
    gap = jnp.abs(variables["params"]["head"]["logits"]["kernel"] - rounded).mean(1)
    np.testing.assert_allclose(scores_in(space, last, Distance(), variables, images)[0].ravel(), -gap, rtol=1e-5)


READ, WRITTEN = "no layer that reads it is rounded", "no layer that writes it is rounded"
FLAT = "the kernels that read it have one weight, and no angle"


@pytest.mark.parametrize(
    ("block", "criterion", "bits", "ends", "expected"),
    [
        (ConvNorm(), Angle(), "w2a2", 32, [("interactions", ""), ("filter", READ)]),
        (ConvNorm(), Angle(), "w2a2", None, [("interactions", ""), ("filter", FLAT)]),
        (ConvNorm(), Distance(), "w2a2", None, [("interactions", ""), ("interactions", "")]),
        (ConvNorm(), Angle(of="filter"), "w2a2", 32, [("interactions", WRITTEN), ("filter", "")]),
        (InvertedResidual(expand=2), Angle(), "w2a2", None, [("filter", FLAT)] * 3),
        (InvertedResidual(expand=2), Distance(), "w2a2", None, [("interactions", "")] * 3),
        (ConvNorm(), Angle(), "w32a2", None, [(None, f"{READ}; {WRITTEN}")] * 2),
        (ConvNorm(), Random(), "w32a2", None, [("random", "")] * 2),
    ],
)
def test_what_channels_are_judged_by_is_said_and_why(network, block, criterion, bits, ends, expected):
    plain = network(block, (16,), Classifier())
    found = targets(plain, "output_channel")
    seen = judged_by(with_bits(plain, bits, ends, DOREFA), found, criterion)
    assert [each[:2] for each in seen] == expected


def test_all_layers_that_read_a_residual_branch_count(network, lively, images):
    plain = network(Residual(), (8, 8), Classifier())
    space, variables = with_bits(plain, "w2a2", 32, DOREFA), lively(plain)
    trunk = targets(plain, "output_channel", names=("stem_0/conv",))
    rounded = images_of(space, variables["params"])
    both = [
        _far(*(np.asarray(tree[name]["conv_1"]["kernel"]) for tree in (variables["params"], rounded))).mean(1)
        for name in ("stages_0_0", "stages_0_1")
    ]
    (score,) = scores_in(space, trunk, Distance(), variables, images)
    np.testing.assert_allclose(score.ravel(), np.mean(both, 0), rtol=1e-5)


def test_what_is_pruned_already_counts_as_zero_on_either_side(made, images):
    """DoReFa has no zero: without the mask the image of a pruned filter would be its smallest level."""
    space, variables, found, kernels = made
    masks = masks_of(space, found[1:2], [np.arange(8)[None] != 3])
    variables = {**variables, "params": {**variables["params"]}}
    block = variables["params"]["stages_0_0"]
    variables["params"]["stages_0_0"] = {**block, "conv": {"kernel": block["conv"]["kernel"].at[..., 3].set(0)}}
    (score,) = scores_in(space, found[:1], Distance(), variables, images, masks)
    seen = np.where(np.arange(8) == 3, 0, _far(*kernels[0]))
    np.testing.assert_allclose(score.ravel(), seen.mean(1), rtol=1e-5)


def test_layers_that_are_not_rounded_have_no_score_but_by_other_criteria(network, lively, images):
    plain = network(ConvNorm(), (8,))
    space, variables = with_bits(plain, "w32a8", 32, Scheme()), lively(plain)
    found = targets(plain, "output_channel")
    assert scores_in(space, found, Angle(), variables, images) == [None] * 3
    scales = scores_in(space, found, BatchNormScale(), variables, images)
    np.testing.assert_array_equal(scales[0].ravel(), jnp.abs(variables["params"]["stem_0"]["norm"]["scale"]))
    assert scores_in(space, found, Random(), variables, images, key=jax.random.key(0))[0].shape == (1, 8)
