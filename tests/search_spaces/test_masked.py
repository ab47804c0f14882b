"""The masked execution makes the numbers of the switch, one network at a time and under `vmap`."""

import dataclasses
import itertools
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models import discover
from hw_models.errors import InputError
from search_spaces import masked
from search_spaces.blocks.conv_norm import ConvNorm, ConvNormNet
from search_spaces.blocks.depthwise_separable import DepthwiseSeparable
from search_spaces.blocks.flynet import FlyNet
from search_spaces.blocks.fused_inverted_residual import FusedInvertedResidual
from search_spaces.blocks.inverted_residual import InvertedResidual
from search_spaces.blocks.residual import Residual
from search_spaces.choice import Choice, options
from search_spaces.kernels.window import Window
from search_spaces.layers import Conv
from search_spaces.space import Stage
from search_spaces.spaces import tiny
from search_spaces.supernet import Supernet, with_statistics
from search_spaces.testing import check_executions, check_masks, randomised, samples, space_with

KINDS = [name for name in discover.names("search_spaces.blocks") if name != "classifier"]
SPACES = discover.names("search_spaces.spaces")
SMALL = {  # options by which a space is small; what is fixed in a space stays
    "flynet": {"width": 0.25},
    "mobilenet_v2": {"width": 0.25},
    "mobilenet_v3": {"width": 0.25, "resolutions": 2},
    "proxylessnas": {"width": 0.25},
    "resnet": {"width": 0.25},
}
STAGES = {"resnet": 1}


def everything(supernet, variables, x, genes):
    """Logits in training and recalibrated, statistics, and derivatives in variables and images."""

    def score(variables, x):
        logits = supernet.apply(variables, x, genes, "train")
        return jnp.sin(logits).sum(), logits

    slopes, logits = jax.grad(score, (0, 1), has_aux=True)(variables, x)
    statistics = supernet.calibrate(variables, x, genes)
    return logits, supernet.apply(with_statistics(variables, statistics), x, genes, "eval"), statistics, slopes


def assert_close(found, expected, tolerance=1e-4):
    for (path, leaf), wanted in zip(jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(expected), strict=True):
        difference = np.abs(np.asarray(leaf) - np.asarray(wanted)).max()
        assert difference <= tolerance * max(1.0, np.abs(wanted).max()), jax.tree_util.keystr(path)


def test_a_population_equals_the_compiled_switch():
    """The switch as a search compiles it: kinds, kernel, expansion (left out as well), depth and a width.

    Filters that differ between candidates are those of XLA's grouped convolution.
    """
    kinds = Choice(InvertedResidual(Choice(3, 5), Choice(1, 3), activation="relu"), ConvNorm(3))
    space = space_with(kinds, stem=Choice(8, 16))
    space = dataclasses.replace(space, stages=(Stage(kinds, 8), Stage(ConvNorm(3), 8, Choice(1, 2))))
    switch, masks = (Supernet(space, "xla", execution) for execution in ("switch", "masks"))
    assert [len(program.forms) for program in masks.programs] == [1, 2, 1, 1, 1]
    variables = randomised(switch.init(jax.random.key(0)), 0)
    x = jax.random.normal(jax.random.key(1), (4, 8, 8, 3))
    population = jnp.asarray(samples(space, 4))
    assert set(population[:, space.names.index("stages/1/depth")].tolist()) == {0, 1}
    together = jax.jit(jax.vmap(lambda genes: everything(masks, variables, x, genes)))(population)
    expected = jax.jit(lambda genes: everything(switch, variables, x, genes))
    for row, genes in enumerate(population):
        assert_close(jax.tree.map(lambda leaf, row=row: leaf[row], together), expected(genes))


@pytest.mark.slow
def test_one_network_is_the_same_in_both_executions_at_every_resolution():
    """Not under `vmap`, by the kernel of this machine; heads, attention and a choice of resolutions besides."""
    kinds = Choice(
        InvertedResidual(Choice(3, 5), Choice(1, 3), Choice("none", "se", "eca"), "relu"),
        FlyNet(Choice(3, 5), 2, Choice(1, 2), "eca"),
    )
    space = space_with(kinds, width=Choice(8, 16), stem=Choice(8, 16), depth=Choice(1, 2))
    space = dataclasses.replace(space, input_hw=Choice(6, 8))
    switch, masks = (Supernet(space, execution=execution) for execution in ("switch", "masks"))
    variables = randomised(switch.init(jax.random.key(0)), 0)
    x = jax.random.normal(jax.random.key(1), (4, 8, 8, 3))
    found, expected = (jax.jit(lambda genes, net=net: everything(net, variables, x, genes)) for net in (masks, switch))
    for genes in map(jnp.asarray, samples(space, 6)):
        assert_close(found(genes), expected(genes))


def primitives(jaxpr, found):
    for equation in jaxpr.eqns:
        found.append(equation)
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                primitives(inner, found)
    return found


def test_under_vmap_nothing_branches_and_weights_are_shared():
    """Structure of the program for `P` candidates: what a GPU gains by, and what no timing here can show."""
    block = InvertedResidual(Choice(3, 5), Choice(2, 4), activation="relu")
    space, count = space_with(block, width=8), 3
    shapes = Supernet(space, "xla").shapes()
    genes, x = jax.ShapeDtypeStruct((count, 2), jnp.int32), jax.ShapeDtypeStruct((4, 8, 8, 3), jnp.float32)

    def program(execution):
        supernet = Supernet(space, "xla", execution)
        run = jax.vmap(lambda v, x, genes: supernet.apply(v, x, genes), (None, None, 0))
        return primitives(jax.make_jaxpr(run)(shapes, x, genes).jaxpr, [])

    masks, switch = program("masks"), program("switch")
    assert not any(equation.primitive.name == "cond" for equation in masks)
    products = [each for each in masks if each.primitive.name == "dot_general"]
    # expansion, projection, logits, the first of images that are the same for all: weights never have a candidate axis
    assert [tuple(each.invars[1].aval.shape) for each in products] == [(8, 32), (32, 8), (8, 4)]
    assert all(not each.params["dimension_numbers"][1][0] for each in products)
    convolutions = [each for each in masks if each.primitive.name == "conv_general_dilated"]
    # the stem once for all candidates, then one convolution with a group for every candidate and channel
    assert [each.params["feature_group_count"] for each in convolutions] == [1, 32 * count]
    assert convolutions[0].outvars[0].aval.shape == (4, 8, 8, 8)
    assert len([each for each in switch if each.primitive.name == "conv_general_dilated"]) == 1 + 4


def test_filters_are_shared_where_no_kernel_is_searched():
    space = space_with(InvertedResidual(3, Choice(2, 4)), width=8)
    supernet = Supernet(space, "xla", "masks")
    run = jax.vmap(lambda v, x, genes: supernet.apply(v, x, genes), (None, None, 0))
    operands = jax.ShapeDtypeStruct((4, 8, 8, 3), jnp.float32), jax.ShapeDtypeStruct((3, 1), jnp.int32)
    found = primitives(jax.make_jaxpr(run)(supernet.shapes(), *operands).jaxpr, [])
    (_, depthwise) = [each for each in found if each.primitive.name == "conv_general_dilated"]
    assert depthwise.invars[0].aval.shape == (3 * 4, 8, 8, 32) and depthwise.params["feature_group_count"] == 32


def test_known_genes_compile_one_network_at_its_own_size():
    space = tiny.space()
    supernet = Supernet(space, "xla", "masks")
    variables, x, genes = supernet.shapes(), jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.float32), np.zeros(6, np.int32)
    known = [
        str(jax.make_jaxpr(lambda v, x, each=each: each.apply(v, x, genes))(variables, x))
        for each in (supernet, Supernet(space, "xla", "switch"))
    ]
    assert known[0] == known[1]


@pytest.mark.parametrize("size", [7, 8])
def test_a_window_of_a_convolution_is_the_cut_out_kernel(size):
    x = jax.random.normal(jax.random.key(0), (2, size, size, 4))
    weight = jax.random.normal(jax.random.key(1), (5, 5, 4, 6))
    for stride, kernel in itertools.product((1, 2), (1, 3, 5)):
        cut = weight[(edge := (5 - kernel) // 2) : 5 - edge, edge : 5 - edge]
        expected = Conv(6, kernel, stride).apply({"params": {"kernel": cut}}, x)
        window = Window((1, 3, 5), jnp.int32(kernel // 2))
        found = Conv(6, 5, stride).apply({"params": {"kernel": weight}}, x, window)
        assert jnp.abs(found - expected).max() < 1e-4


def test_an_unknown_execution_is_named():
    with pytest.raises(InputError, match=r"unknown execution 'mask': did you mean 'masks'\? \(known: auto, masks, sw"):
        Supernet(tiny.space(), execution="mask")
    assert Supernet(tiny.space()).execution == masked.chosen_execution() == "switch"


@dataclass(frozen=True)
class Unmasked(ConvNorm):
    """A block of a user who knows nothing of masks."""

    MASKED: ClassVar[tuple[str, ...]] = ()


@dataclass(frozen=True)
class Careless(ConvNorm):
    """Says that its kernel can be masked, and always takes the largest."""

    def net(self, io):
        return ConvNormNet(dataclasses.replace(self, kernel=max(options(self.kernel))), io)


@dataclass(frozen=True)
class Other(ConvNorm):
    """Its masked form has a weight less than its branches."""

    def net(self, io):
        return ConvNormNet(dataclasses.replace(self, norm=not self.masked()), io)


def test_what_has_no_masked_form_runs_its_branches_and_is_right():
    space = space_with(Unmasked(Choice(3, 5)), width=Choice(8, 16))
    assert len(Supernet(space, execution="masks").programs[1].forms) == 2
    check_executions(space, np.asarray(list(itertools.product((0, 1), (0, 1))))[:3])


def test_the_contract_finds_a_block_that_does_not_mask():
    with pytest.raises(AssertionError):
        check_masks(Careless)


def test_a_masked_form_with_other_variables_is_refused():
    with pytest.raises(InputError, match="masked over kernel its variables are not those of its branches"):
        check_executions(space_with(Other(Choice(3, 5))), np.zeros((1, 1), np.int32))


@pytest.mark.parametrize(
    ("block", "kept"),
    [
        (InvertedResidual(Choice(3, 5), Choice(2, 4)), {"kernel", "expand"}),
        (InvertedResidual(Choice(3, 5), Choice(2, 4), groups=2), {"kernel"}),
        (FusedInvertedResidual(Choice(3, 5), Choice(1, 4)), {"kernel"}),
        (Residual(Choice(3, 5), Choice(0.5, 1.0)), {"kernel", "expand"}),
        (Residual(Choice(3, 5), Choice(0.5, 1.0), group_width=4), set()),
        (ConvNorm(Choice(3, 5), padding="valid"), set()),
        (DepthwiseSeparable(3), set()),
    ],
)
def test_blocks_mask_what_their_settings_allow(block, kept):
    assert set(block.masked()) == kept
    assert len(block.forms()) * np.prod([2 for _ in kept]) == len(block.branches())


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_every_block_is_the_same_in_both_executions(name):
    check_masks(discover.load("search_spaces.blocks", name, "block"))


@pytest.mark.slow
@pytest.mark.parametrize("name", SPACES)
def test_every_space_is_the_same_in_both_executions(name):
    space = discover.load("search_spaces.spaces", name, "space")(input_hw=8, classes=4, **SMALL.get(name, {}))
    # every kind of block and of decision occurs in the first stages, and compiling takes minutes and gigabytes
    space = dataclasses.replace(space, stages=space.stages[: STAGES.get(name, 2)])
    population = np.stack([np.asarray(space.sample(jax.random.key(seed))) for seed in range(3)])
    # shared weights of some spaces reach sums of many thousand terms
    check_executions(space, population, 1e-3)
