"""Density as a gene: masks that keep the largest weights, priced as they are, and hidden channels in true shapes."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models.errors import InputError
from hw_models.workload import Op, Pattern
from search_spaces import testing
from search_spaces.blocks.bottleneck_residual import BottleneckResidual
from search_spaces.blocks.conv_norm import ConvNorm
from search_spaces.blocks.dense_bottleneck import DenseBottleneck
from search_spaces.blocks.fire import Fire
from search_spaces.blocks.flynet import FlyNet
from search_spaces.blocks.fused_inverted_residual import FusedInvertedResidual
from search_spaces.blocks.inverted_residual import InvertedResidual
from search_spaces.blocks.mixed_depthwise import MixedDepthwise
from search_spaces.blocks.residual import Residual
from search_spaces.blocks.sigmoidal_residual import SigmoidalResidual
from search_spaces.choice import Choice
from search_spaces.counting import count
from search_spaces.density import Sparsity
from search_spaces.encoding import space_from_json, uniform_gates
from search_spaces.masking import keeps
from search_spaces.network import Network, fresh, module_name, pruned_variables
from search_spaces.precision import Scheme, with_bits
from search_spaces.rounded_block import applied
from search_spaces.space import SearchSpace, Stage
from search_spaces.spaces import proxylessnas, quickstart, tiny
from search_spaces.sparse_space import parse_sparsity, with_sparsity, without_sparsity
from search_spaces.supernet import Supernet
from search_spaces.surroundings import FROZEN, BlockIO
from search_spaces.texts import resolve

PATTERNS = ("2:4", "4:8", "unstructured", "column", "kernel", "block")


def scores(pattern, sizes):
    """Sums of magnitudes of structures, at the places of their weights."""
    if pattern == "column":
        return np.broadcast_to(sizes.sum(-1, keepdims=True), sizes.shape)
    if pattern == "kernel":
        return np.broadcast_to(sizes.sum((0, 1), keepdims=True), sizes.shape)
    if pattern == "block":
        blocks = sizes.reshape(*sizes.shape[:2], sizes.shape[2] // 4, 4, sizes.shape[3] // 4, 4).sum((3, 5))
        return blocks.repeat(4, 2).repeat(4, 3)
    return sizes


@pytest.mark.parametrize(("pattern", "limit", "share"), [
    ("2:4", 1, 0.25), ("4:8", 3, 0.375), ("unstructured", 100, 100 / 1152), ("column", 20, 20 / 72),
    ("kernel", 33, 33 / 128), ("block", 10, 10 / 72),
])  # fmt: skip
def test_the_largest_structures_are_kept(pattern, limit, share):
    weight = jax.random.normal(jax.random.key(0), (3, 3, 8, 16))
    mask = np.asarray(keeps(Sparsity(pattern), weight, jnp.int32(limit)))
    assert mask.mean() == pytest.approx(share)
    worth = scores(pattern, np.abs(np.asarray(weight)))
    if ":" in pattern:
        worth, mask = (x.reshape(9, -1, int(pattern[-1]), 16) for x in (worth, mask))
        assert (mask.sum(2) == limit).all()
        assert (np.where(mask, worth, np.inf).min(2) > np.where(mask, -np.inf, worth).max(2)).all()
    else:
        assert worth[mask].min() > worth[~mask].max()


@pytest.mark.parametrize("pattern", PATTERNS)
def test_only_the_part_in_use_competes(pattern):
    weight = jax.random.normal(jax.random.key(0), (5, 5, 16, 24)).at[..., 8:, :].mul(100)
    where = jnp.zeros(weight.shape, bool).at[1:4, 1:4, :8, :16].set(True)
    limit = jnp.int32(3)
    found = keeps(Sparsity(pattern), weight, limit, where)
    alone = keeps(Sparsity(pattern), weight[1:4, 1:4, :8, :16], limit)
    assert not (found & ~where).any() and (found[1:4, 1:4, :8, :16] == alone).all()


def test_of_equal_weights_the_first_are_kept():
    weight = jnp.asarray([1.0, 0.0, 1.0, -1.0, 0.0, 1.0, 2.0, 0.0]).reshape(8, 1)
    for number, kept in ((2, [0, 6]), (5, [0, 2, 3, 5, 6]), (7, [0, 1, 2, 3, 4, 5, 6]), (8, list(range(8)))):
        assert np.flatnonzero(keeps(Sparsity("unstructured"), weight, jnp.int32(number))).tolist() == kept
    assert np.flatnonzero(keeps(Sparsity("2:4"), weight, jnp.int32(2))).tolist() == [0, 2, 5, 6]


def several(**fields):
    """Blocks of most kinds of layer, in widths that fit no pattern everywhere."""
    stages = (
        Stage(InvertedResidual(3, 3, attention="se"), 12),
        Stage(Residual(5, group_width=4), 16, stride=2),
        Stage(FusedInvertedResidual(3, 2), 24),
        Stage(Residual(3, group_width=1, expand=1.5), 16),
        Stage(Fire(squeeze=0.5, norm=False), 20),
        Stage(FlyNet(3, 2, residual="conv3x3"), 16),
        Stage(ConvNorm(1), 18),
    )
    return SearchSpace("several", 8, 3, 4, Stage(ConvNorm(3), 8), stages, testing.Classifier(32, 16), **fields)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_layers_are_priced_as_their_weights_are(pattern):
    space = with_sparsity(several(), pattern, "0.3" if ":" not in pattern else f"{1 / int(pattern[-1])}", ends=True)
    variables = pruned_variables(space, fresh(space, jax.random.key(0)))
    for slot in space.slots:
        layers = [layer for layer in slot.cases[0].block.layers(slot.only_io()) if layer.weights]
        priced = [(layer.kernel_h, layer.in_channels // layer.groups, layer.out_channels, round(layer.density, 6))
                  for layer in layers if layer.op != Op.DEPTHWISE]  # fmt: skip
        assert all(layer.density == 1 for layer in layers if layer.op == Op.DEPTHWISE)
        assert all((layer.density < 1) == (layer.pattern != Pattern.NONE) for layer in layers)
        found = []
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables["params"][module_name(slot)]):
            if path[-1].key == "kernel":
                share = round(float((leaf != 0).mean()), 6)
                found.append((leaf.shape[0] if leaf.ndim == 4 else 1, leaf.shape[-2], leaf.shape[-1], share))
            else:
                assert (leaf != 0).all() or path[-1].key == "bias"
        # a convolution of one channel per group is a depthwise layer to cost models
        found = [row for row in found if row[1] > 1]
        assert sorted(found) == sorted(priced), slot.name
    assert any(layer.density < 1 for layer in space.lower())


@pytest.mark.parametrize("bits", ["none", "4"])
@pytest.mark.parametrize("pattern", ["2:4", "column"])
def test_zeros_in_the_weights_compute_what_masks_compute(pattern, bits):
    space = tiny.space(sparsity=pattern, densities="0.5", bits=bits).freeze([1] * tiny.space().num_decisions)
    variables = testing.randomised(fresh(space, jax.random.key(0)), 0)
    baked = pruned_variables(space, variables)
    x = jax.random.normal(jax.random.key(1), (4, 8, 8, 1))
    masked, again, dense, unpruned = (
        jax.jit(Network(each).apply, static_argnums=2)(weights, x, "eval")
        for each, weights in (
            (space, variables), (space, baked), (without_sparsity(space), baked), (without_sparsity(space), variables)
        )
    )  # fmt: skip
    np.testing.assert_array_equal(masked, again)
    np.testing.assert_allclose(masked, dense, rtol=1e-5, atol=1e-5)
    assert np.abs(masked - unpruned).max() > 1e-3


def test_quantizers_without_a_zero_leave_zeros_and_scale_by_what_is_kept():
    block = ConvNorm(1, density=0.5, weight_bits=1, norm=False, activation="identity")
    io = BlockIO(1, 1, 4, 1, scheme=Scheme("bwn"), sparsity=Sparsity("2:4"))
    weights = jnp.asarray([3.0, -0.5, 0.25, 1.0]).reshape(1, 1, 4, 1)
    outputs = [
        applied(block, io, {"params": {"conv": {"kernel": weights}}}, x.reshape(1, 1, 1, 4), FROZEN, "eval")[0].item()
        for x in jnp.eye(4)
    ]
    assert outputs == [2.0, 0.0, 0.0, 2.0]  # the mean of 3 and 1, not of four weights


@pytest.mark.parametrize(("block", "pattern"), [
    (Residual(Choice(3, 5), group_width=4), "2:4"),
    (FusedInvertedResidual(3, Choice(1, 3)), "kernel"),
    (InvertedResidual(3, 2), "unstructured"),
])  # fmt: skip
def test_executions_of_shared_weights_agree(block, pattern):
    space = with_sparsity(testing.space_with(block, 2, Choice(8, 12)), pattern)
    for number, genes in enumerate(testing.samples(space, 2)[:3]):
        testing.check_genes(space, genes, gradients=number == 0, masks=number == 1)


@pytest.mark.slow
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("bits", ["none", "4/8"])
def test_executions_agree_whatever_the_pattern(pattern, bits):
    block = Residual(Choice(3, 5), group_width=Choice(None, 4))
    space = with_bits(with_sparsity(testing.space_with(block, 2, Choice(8, 16), Choice(8, 16)), pattern), bits)
    few = np.stack(testing.samples(space, 2)[:4])
    for genes in few:
        testing.check_genes(space, genes, masks=True)
    testing.check_executions(space, few, 1e-3)


THIN = {
    "residual": Residual(3, Choice(1.0, 2.0)),
    "grouped": BottleneckResidual(3, 2.0, group_width=4),
    "dense_bottleneck": DenseBottleneck(growth=4),
    "fire": Fire(squeeze=0.5),
    "mixed_depthwise": MixedDepthwise((3, 5), Choice(1, 4), attention="se"),
    "fused": FusedInvertedResidual(3, Choice(1, 3)),
    "sigmoidal": SigmoidalResidual(expand=2.0),
    "inverted": InvertedResidual(3, Choice(1, 4), attention="se"),
    "flynet": FlyNet(3, 4, heads=Choice(1, 3), expanded_residual=True, attention="eca"),
}


@pytest.mark.parametrize("name", THIN)
def test_hidden_channels_are_lowered_to_true_shapes(name):
    space = with_sparsity(testing.space_with(THIN[name], 2, Choice(8, 16)), "channel", "0.25/1")
    assert "stages/0/0/density" in space.names
    seen = set()
    for genes in testing.samples(space, 2):
        frozen = space.freeze(genes)
        assert (frozen.params, frozen.macs) == tuple(count(frozen)), frozen
        assert all(layer.density == 1 and layer.pattern == Pattern.NONE for layer in frozen.lower())
        seen.add(frozen.params)
    assert len(seen) > 1
    thin, wide = (dict.fromkeys(space.names, 1) | {"stages/0/0/density": gene} for gene in (0, 1))
    assert space.freeze(list(thin.values())).params < space.freeze(list(wide.values())).params


@pytest.mark.parametrize("name", ["grouped", "inverted", "flynet"])
def test_thin_blocks_are_cut_out_of_the_shared_weights(name):
    space = with_sparsity(testing.space_with(THIN[name], 2, Choice(8, 16)), "channel", "0.25/1")
    for number, genes in enumerate(testing.samples(space, 2)[:3]):
        testing.check_genes(space, genes, gradients=number == 0, masks=number == 1)


def test_weights_that_are_left_out_learn_and_densities_never_compile_anew():
    space = with_sparsity(testing.space_with(ConvNorm(3), stem=8), "unstructured", "0.1/0.5/1")
    supernet, traces = Supernet(space, "xla"), []
    variables, x = supernet.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (4, 8, 8, 3))

    @jax.jit
    def slope(variables, genes):
        traces.append(1)
        return jax.grad(lambda v: jnp.sin(supernet.apply(v, x, genes)).sum())(variables)

    found = [slope(variables, jnp.asarray([gene])) for gene in range(3)]
    assert len(traces) == 1
    weights = [each["stages/0/0"]["conv_norm"]["params"]["conv"]["kernel"] for each in found]
    assert all((jnp.abs(weight) > 0).mean() > 0.99 for weight in weights)

    def mixed(gates):
        return jnp.sin(supernet.relaxed(variables, x, gates)).sum()

    gradient = jax.grad(mixed)(uniform_gates(space))
    assert jnp.isfinite(gradient).all() and (jnp.abs(gradient) > 0).all()


def test_a_space_without_sparsity_is_what_it_was():
    assert tiny.space().fingerprint == "e1a3d701" and quickstart.space().fingerprint == "7efe09d1"
    assert tiny.space(sparsity="none") == tiny.space()
    sparse = tiny.space(sparsity="2:4", densities="0.5")
    assert sparse.fingerprint != tiny.space().fingerprint and sparse.num_decisions == tiny.space().num_decisions


def test_texts_and_files_name_the_space_again():
    space = proxylessnas.space(sparsity="2:4", densities="0.25/0.5/1", bits="4/8")
    genes = space.check([1] * space.num_decisions)
    text = space.text(genes)
    assert "[bits=4/8,densities=0.25/0.5/1,sparsity=2:4]:" in text
    again = resolve(text)
    assert again.space == space and (again.genes == genes).all()
    assert resolve(text.partition("]:")[0] + "]").genes is None
    for each in (space, space.freeze(genes)):
        assert space_from_json(json.loads(json.dumps(each.to_json()))) == each


def test_every_position_that_can_be_pruned_has_a_gene():
    space = quickstart.space(sparsity="column")
    names = [name for name in space.names if name.endswith("density")]
    assert len(names) == 14 and not any(name.startswith(("stem", "head")) for name in names)
    assert len([n for n in quickstart.space(sparsity="kernel", prune_ends=True, input_channels=3).names
                if n.endswith("density")]) == 1  # fmt: skip
    ends = tiny.space(sparsity="unstructured", prune_ends=True, bits="4/8", first_last_bits=None)
    assert {"head/density", "head/weight_bits"} < set(ends.names) and "stem/0/density" not in ends.names  # one channel
    frozen = ends.freeze([1] * ends.num_decisions)
    assert frozen.head.density == 0.2 and frozen.head.act_bits == 8
    assert parse_sparsity("4:8")[1] == Choice(0.5, 1.0) and parse_sparsity("none") is None


@pytest.mark.parametrize(("options", "message"), [
    ({"sparsity": "2:5"}, r"changes no layer of space tiny: its convolutions have .* none a multiple of 5: .*nearest"),
    ({"sparsity": "kernel"}, "sparsity=kernel changes no layer of space tiny: give another pattern, such as"),
    ({"sparsity": "kernel", "input_channels": 3}, "sparsity=kernel changes no layer"),  # but of the stem
    ({"sparsity": "colum"}, "did you mean 'column'"),
    ({"sparsity": "4:4"}, "sparsity=4:4 is not allowed: give n:m with 1 <= n < m"),
    ({"sparsity": "2:4", "densities": "0.4/1"}, r"=0.4 is not allowed with 2:4: give 0.25, 0.5 or 1 \(nearest: 0.5\)"),
    ({"sparsity": "column", "densities": "50"}, r"densities=50.0 is out of range: .* \(nearest: 1\)"),
    ({"sparsity": "column", "densities": "0"}, "densities=0.0 is out of range"),
    ({"sparsity": "column", "densities": "half"}, "densities=half is not allowed: give shares such as"),
    ({"sparsity": "column", "densities": "0.01/1"}, "density=0.01 leaves less than one of the 8 .* at least 0.125"),
    ({"densities": "0.5"}, "densities=0.5 prunes nothing without sparsity: give sparsity as well"),
])  # fmt: skip
def test_what_cannot_be_pruned_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        tiny.space(**options)


def test_channels_need_a_block_that_has_hidden_ones():
    with pytest.raises(InputError, match="sparsity=channel changes no layer .* no hidden channels"):
        with_sparsity(testing.space_with(ConvNorm(3)), "channel")
    grouped = BottleneckResidual(3, 2.0, group_width=16)
    assert [grouped.inner_channels(48, density=density) for density in (0.1, 0.25, 0.5, 1)] == [16, 32, 48, 96]
    with pytest.raises(InputError, match="no hidden channels"):
        with_sparsity(testing.space_with(Residual()), "channel", "0.5/1")  # 8 channels are one tile
    mixed = with_sparsity(testing.space_with(Choice(ConvNorm(3), Residual()), width=16), "channel", "0.5/1")
    assert [name for name in mixed.names if "density" in name] == ["stages/0/0/residual/density"]
    with pytest.raises(InputError, match="density=0.5 says nothing without a pattern"):
        testing.space_with(ConvNorm(3, density=0.5))
    with pytest.raises(InputError, match="the dense network has other weights"):
        without_sparsity(mixed)
