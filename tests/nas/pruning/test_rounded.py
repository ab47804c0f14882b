"""Networks with bits: sizes of published ones, the same answers when they are smaller, quantizers that do not go."""

import jax
import numpy as np
import pytest

from hw_models.errors import InputError
from nas.pruning.counting import counted
from nas.pruning.masks import applied, masks_of
from nas.pruning.ratio_search import dropped
from nas.pruning.rounded import prunable, shrink_rounded, size_bytes
from nas.pruning.targets import targets
from nas.training.rounded import completed
from search_spaces.blocks.classifier import Classifier
from search_spaces.blocks.conv_norm import ConvNorm
from search_spaces.blocks.inverted_residual import InvertedResidual
from search_spaces.blocks.residual import Residual
from search_spaces.network import Network, variable_shapes
from search_spaces.precision import Scheme, with_bits, without_bits
from search_spaces.published import table
from search_spaces.spaces import tiny

MIB = 2**20
UNSIGNED = "dorefa[signed=False]"
DOREFA = Scheme("dorefa", UNSIGNED, "tensor")
BNN = Scheme("bnn", "bnn", "tensor")


@pytest.fixture(scope="module")
def resnet18():
    return table()["resnet18"].network()


@pytest.mark.parametrize(
    ("bits", "ends", "scheme", "mib"), [("w1a1", 32, BNN, 3.36), ("w1a1", 1, BNN, 1.43), ("w2a2", 32, DOREFA, 4.69)]
)
def test_sizes_of_resnet18_are_those_of_the_thesis(resnet18, bits, ends, scheme, mib):
    """Guerra Fernandez, thesis, table 4.5: unpruned sizes, 3.37, 1.44 and 4.66 MB from size and pruned share there."""
    assert round(size_bytes(with_bits(resnet18, bits, ends, scheme)) / MIB, 2) == mib


def test_layers_of_resnet18_have_the_sizes_of_table_4_1(resnet18):
    """conv16 0.281, fc 1.956, conv1 0.035 MB (XNOR-Net)."""
    weights = {row.path: row.weights for row in counted(resnet18, None).layers}
    assert weights["stages_4_1/conv_1"] / 8 / MIB == pytest.approx(0.281, abs=5e-4)
    assert (weights["head/logits"] + 1000) * 4 / MIB == pytest.approx(1.956, abs=2e-3)
    assert weights["stem_0/conv"] * 4 / MIB == pytest.approx(0.035, abs=1e-3)


def test_the_ratios_of_table_4_1_prune_what_the_thesis_says(resnet18):
    """25.5 % of the parameters, 10.63 % of the bits, 3.01 MB, when its layers inside blocks are pruned (7, 12, 14, 16).

    To 5 %: how the thesis prunes along residuals is not said.
    """
    space = with_bits(resnet18, "w1a1", 32, BNN)
    ratios = {"stages_2_1/conv_1": 0.0141, "stages_3_1/conv_1": 0.2553, "stages_4_0/conv_1": 0.2629,
              "stages_4_1/conv_1": 0.4}  # fmt: skip
    found = targets(resnet18, "output_channel", names=tuple(ratios))
    chosen = [np.arange(t.group.size)[None] >= dropped(ratios[t.name], t.group.size) for t in found]
    masks = masks_of(resnet18, found, chosen)
    assert 1 - counted(resnet18, masks).params_share == pytest.approx(0.255, rel=0.05)
    assert 1 - size_bytes(space, masks) / size_bytes(space) == pytest.approx(0.1063, rel=0.05)
    assert size_bytes(space, masks) / MIB == pytest.approx(3.01, rel=0.01)


def test_scales_that_are_learned_count(network):
    space = network(ConvNorm(), (8,))
    learned = with_bits(space, 8, 8, Scheme("lsq", "lsq", "tensor"))
    assert size_bytes(learned) == size_bytes(with_bits(space, 8, 8)) + 4 * 2 * 4  # of 4 layers, two steps each


@pytest.mark.parametrize(
    ("block", "widths", "head", "bits", "scheme"),
    [
        (ConvNorm(), (8, 16), None, "w4a8", Scheme()),
        (Residual(), (16, 16), None, "w2a2", DOREFA),
        (InvertedResidual(expand=3), (8, 16), None, "w4a8", Scheme()),
        (ConvNorm(), (8, 8), Classifier(hidden=12), "w1a32", Scheme("bnn", "affine", "tensor")),
        (ConvNorm(), (8, 16), None, "w4a4", Scheme("lsq", "lsq", "tensor")),
    ],
)
def test_the_smaller_network_gives_the_same_answers(network, lively, images, block, widths, head, bits, scheme):
    plain = network(block, widths, head)
    space = with_bits(plain, bits, None, scheme)
    variables = completed(space, lively(plain), images.images[:64], images.mean, images.std)
    found = targets(plain, "output_channel", names=prunable(space))
    rng = np.random.default_rng(1)
    masks = masks_of(plain, found, [rng.permutation(t.group.size)[None] >= t.group.size // 2 for t in found])
    masked = {**variables, "params": applied(masks, variables["params"])}
    small = shrink_rounded(space, variables, masks)
    x = ((images.images[:8] / 255 - images.mean) / images.std).astype(np.float32)
    before, after = (jax.jit(Network(of, "xla").apply)(v, x) for of, v in ((space, masked), small))
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4)
    assert np.abs(before).max() > 0.01
    assert jax.tree.map(lambda leaf: leaf.shape, small.variables) == jax.tree.map(
        lambda leaf: leaf.shape, variable_shapes(small.space)
    )
    assert small.space.scheme == scheme and size_bytes(small.space) < 0.8 * size_bytes(space)


def test_what_is_not_normalised_stays_where_weights_have_no_zero(network):
    space = network(ConvNorm(), (8,), Classifier(hidden=12))
    assert "head/hidden" in prunable(with_bits(space, 4))
    assert "head/hidden" not in prunable(with_bits(space, "w2a2", 2, DOREFA))


def test_masks_that_drop_nothing_leave_the_network(network, lively, images):
    space = with_bits(network(ConvNorm(), (8,)), "w4a8")
    variables = completed(space, lively(without_bits(space)), images.images[:64], images.mean, images.std)
    found = targets(without_bits(space), "output_channel", names=("stages_0_0/conv",))
    small = shrink_rounded(space, variables, masks_of(without_bits(space), found, [np.ones((1, 8), bool)]))
    assert small.space is space
    assert jax.tree.structure(small.variables) == jax.tree.structure(variables)


@pytest.mark.parametrize(
    ("scheme", "bits", "said"),
    [
        (None, None, "space net has no bits: give some"),
        (Scheme("bwn", "affine"), "w1a8", "zeros move the levels of quantizer bwn"),
        (Scheme("nary", "affine", "tensor"), "w3a8", "zeros move the levels of quantizer nary"),
        (Scheme("noise", "affine"), "w4a8", "zeros move the levels of quantizer noise"),
        (Scheme("xnor", "xnor"), "w1a1", "zeros move the levels of quantizer xnor"),
        (Scheme("bnn", "bnn", "tensor"), "w1a1", "quantizer bnn rounds activations of 0 to something else"),
        (Scheme("symmetric", "bnn"), "w8a1", "quantizer bnn rounds activations of 0 to something else"),
        (Scheme("lsq", "affine"), "w4a8", "quantizer lsq learns scales by channel"),
    ],
)
def test_networks_that_do_not_go_are_refused(network, scheme, bits, said):
    space = network(ConvNorm(), (8,))
    with pytest.raises(InputError, match=said):
        prunable(space if bits is None else with_bits(space, bits, None, scheme))


def test_decisions_are_refused(network):
    with pytest.raises(InputError, match="still has decisions"):
        prunable(tiny.space(bits="4"))
