"""Residual, sigmoidal and dense blocks, transitions and pooling, against plain formulas."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from hw_models.errors import InputError
from search_spaces.block import BlockIO, Selection
from search_spaces.blocks._trunk import group_count
from search_spaces.blocks.bottleneck_residual import BottleneckResidual
from search_spaces.blocks.classifier import Classifier
from search_spaces.blocks.conv_norm import ConvNorm
from search_spaces.blocks.dense import Dense
from search_spaces.blocks.dense_bottleneck import DenseBottleneck
from search_spaces.blocks.pool import Pool
from search_spaces.blocks.residual import Residual
from search_spaces.blocks.sigmoidal_residual import SigmoidalResidual
from search_spaces.blocks.transition import Transition
from search_spaces.channels import Channels
from search_spaces.choice import Choice
from search_spaces.space import SearchSpace, Stage
from search_spaces.testing import randomised


def variables_of(block, io, seed=0):
    widest = io.in_channels if isinstance(io.in_channels, int) else max(io.in_channels)
    x = jnp.zeros((1, io.in_h, io.in_w, widest))
    selection = Selection() if isinstance(io.in_channels, int) else Selection(jnp.int32(0))
    made = block.net(io).init(jax.random.key(seed), x, selection)
    return {"params": {}, "batch_stats": {}} | randomised(made, seed)


def image(io, channels=None, seed=1):
    return jax.random.normal(jax.random.key(seed), (2, io.in_h, io.in_w, channels or io.in_channels))


def plain_conv(x, kernel, stride=1):
    return lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def plain_norm(x, variables, name):
    weight, stored = variables["params"][name], variables["batch_stats"][name]
    return (x - stored["mean"]) / jnp.sqrt(stored["var"] + 1e-5) * weight["scale"] + weight["bias"]


def plain_pair(x, variables, activation, stride=1):
    y = plain_conv(x, variables["params"]["conv_1"]["kernel"], stride)
    y = activation(plain_norm(y, variables, "norm_1"))
    return plain_norm(plain_conv(y, variables["params"]["conv_2"]["kernel"]), variables, "norm_2")


def close(found, expected, tolerance=1e-5):
    assert found.shape == expected.shape
    assert float(jnp.abs(found - expected).max()) <= tolerance * max(1.0, float(jnp.abs(expected).max()))


def params(block, io):
    return sum(layer.params for layer in block.lower(io))


# Sigmoidal residuals: equations 7.4 to 7.6 of Schindler 2021.

SQUARE = BlockIO(5, 5, 8, 8)


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("group_width", [None, 4])
def test_a_zero_channel_passes_a_stage_of_sigmoidal_blocks(mode, group_width):
    block = SigmoidalResidual(group_width=group_width)
    x = image(SQUARE).at[..., jnp.asarray([1, 6])].set(0)
    for seed in range(3):
        x, _ = block.net(SQUARE).apply(variables_of(block, SQUARE, seed), x, mode=mode, mutable=["batch_stats"])
    assert (np.flatnonzero(jnp.abs(x).max((0, 1, 2)) == 0) == [1, 6]).all()


def test_a_sigmoidal_block_without_residual_function_halves_its_input():
    block = SigmoidalResidual()
    variables = variables_of(block, SQUARE)
    variables["params"]["norm_2"] = jax.tree.map(jnp.zeros_like, variables["params"]["norm_2"])
    x = image(SQUARE)
    for mode in ("eval", "train"):
        y, _ = block.net(SQUARE).apply(variables, x, mode=mode, mutable=["batch_stats"])
        assert (y == x / 2).all()


def test_the_gate_lies_between_0_and_1_and_changes_no_sign():
    block, x = SigmoidalResidual(), image(SQUARE)
    y, _ = block.net(SQUARE).apply(variables_of(block, SQUARE), x, mode="train", mutable=["batch_stats"])
    gate = y / x
    assert 0 < gate.min() < gate.max() < 1


def test_sigmoidal_block_where_the_shape_changes():
    io, block = BlockIO(5, 5, 8, 16, 2), SigmoidalResidual()
    variables, x = variables_of(block, io), image(io)
    projected = plain_conv(x, variables["params"]["shortcut"]["kernel"], 2)
    gate = jax.nn.sigmoid(plain_pair(x, variables, jax.nn.relu, 2))
    close(block.net(io).apply(variables, x), plain_norm(projected, variables, "shortcut_norm") * gate)


def test_the_gradient_through_two_sigmoidal_blocks_is_equation_7_6():
    block, net = SigmoidalResidual(activation="silu"), SigmoidalResidual(activation="silu").net(SQUARE)
    first, second = variables_of(block, SQUARE, 0), variables_of(block, SQUARE, 1)
    x, upstream, direction = (image(SQUARE, seed=seed) for seed in (1, 2, 3))

    def stacked(x):
        return net.apply(second, net.apply(first, x))

    def gates(x):
        gate = jax.nn.sigmoid(plain_pair(x, first, jax.nn.silu))
        return gate * jax.nn.sigmoid(plain_pair(x * gate, second, jax.nn.silu))

    product, pull = jax.vjp(gates, x)
    close(stacked(x), x * product)  # equation 7.5
    by_formula = upstream * product + pull(upstream * x)[0]
    gradient = jax.vjp(stacked, x)[1](upstream)[0]
    close(gradient, by_formula)
    step = 1e-2
    ahead, behind = stacked(x + step * direction), stacked(x - step * direction)
    numeric = float(((ahead - behind) * upstream).sum() / (2 * step))
    assert numeric == pytest.approx(float((gradient * direction).sum()), rel=2e-3)


# Residual blocks.


@pytest.mark.parametrize(("width", "stride"), [(8, 1), (16, 1), (4, 1), (8, 2), (16, 2), (4, 2)])
def test_pad_shortcut(width, stride):
    io, block = BlockIO(5, 5, 8, width, stride), Residual(shortcut="pad")
    variables, x = variables_of(block, io), image(io)
    seen = np.asarray(x)[:, ::stride, ::stride, :width]
    beside = np.pad(seen, ((0, 0), (0, 0), (0, 0), (0, max(0, width - 8))))
    close(block.net(io).apply(variables, x), jax.nn.relu(plain_pair(x, variables, jax.nn.relu, stride) + beside))
    assert not any("shortcut" in name for name in variables["params"])


def test_projection_shortcut_and_none():
    io = BlockIO(5, 5, 8, 16, 2)
    for kind in ("projection", "none"):
        block, x = Residual(shortcut=kind), image(io)
        variables = variables_of(block, io)
        y = plain_pair(x, variables, jax.nn.relu, 2)
        if kind == "projection":
            projected = plain_conv(x, variables["params"]["shortcut"]["kernel"], 2)
            y = y + plain_norm(projected, variables, "shortcut_norm")
        close(block.net(io).apply(variables, x), jax.nn.relu(y))


def test_preactivation_leaves_the_raw_input_alone_and_projects_the_activated_one():
    block, x = Residual(preactivation=True), image(SQUARE)
    variables = variables_of(block, SQUARE)
    variables["params"]["conv_2"]["kernel"] *= 0
    assert (block.net(SQUARE).apply(variables, x) == x).all() and (x < 0).any()

    io = BlockIO(5, 5, 8, 16)
    variables = variables_of(block, io)
    weights = variables["params"]
    activated = jax.nn.relu(plain_norm(x, variables, "input_norm"))
    y = jax.nn.relu(plain_norm(plain_conv(activated, weights["conv_1"]["kernel"]), variables, "norm_1"))
    y = plain_conv(y, weights["conv_2"]["kernel"])
    close(block.net(io).apply(variables, x), y + activated @ weights["shortcut"]["kernel"])


def test_groups_are_as_many_as_have_multiples_of_their_width():
    assert [group_count(64, 64, width) for width in (None, 1, 16, 64)] == [1, 64, 4, 1]
    for inp, out, width in ((8, 24, 4), (24, 8, 4), (16, 24, 2), (24, 16, 8)):
        groups = group_count(inp, out, width)
        assert inp % (groups * width) == out % (groups * width) == 0


# Dense blocks.


@pytest.mark.parametrize("block", [Dense(growth=4), DenseBottleneck(growth=4), Dense(growth=4, group_width=2)])
@pytest.mark.parametrize(("width", "kept"), [(12, 8), (8, 4), (6, 2), (24, 8)])
def test_dense_blocks_keep_the_leading_channels_of_their_input(block, width, kept):
    io, x = BlockIO(5, 5, 8, width), image(BlockIO(5, 5, 8, 8))
    y = block.net(io).apply(variables_of(block, io), x)
    assert y.shape[-1] == width and (y[..., :kept] == x[..., :kept]).all()


def test_dense_at_stride_2_averages_what_it_keeps():
    io, block = BlockIO(4, 4, 8, 12, 2), Dense(growth=4)
    x = image(io)
    y = block.net(io).apply(variables_of(block, io), x)
    close(y[..., :8], x.reshape(2, 2, 2, 2, 2, 8).mean((2, 4)))


def test_transition_averages_its_convolution():
    io, block = BlockIO(4, 4, 8, 6, 2), Transition()
    variables, x = variables_of(block, io), image(io)
    y = jax.nn.relu(plain_norm(x, variables, "norm")) @ variables["params"]["conv"]["kernel"]
    close(block.net(io).apply(variables, x), y.reshape(2, 2, 2, 2, 2, 6).mean((2, 4)))


# Counts by hand: 16 to 32 channels at stride 2, kernel 3.


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (Residual(), 9 * (16 * 32 + 32 * 32) + 2 * 64 + 16 * 32 + 2 * 32),
        (Residual(shortcut="pad", expand=0.5), 9 * (16 * 16 + 16 * 32) + 2 * 48),
        (Residual(shortcut="none", group_width=4), 9 * (4 * 32 + 4 * 32) + 2 * 64),
        (Residual(preactivation=True), 2 * 16 + 9 * (16 * 32 + 32 * 32) + 2 * 32 + 16 * 32),
        (BottleneckResidual(), 16 * 8 + 9 * 8 * 8 + 8 * 32 + 2 * (8 + 8 + 32) + 16 * 32 + 2 * 32),
        (BottleneckResidual(group_width=2, shortcut="pad"), 16 * 8 + 9 * 2 * 8 + 8 * 32 + 2 * (8 + 8 + 32)),
        (SigmoidalResidual(), 9 * (16 * 32 + 32 * 32) + 2 * 64 + 16 * 32 + 2 * 32),
        (Dense(growth=16), 2 * 16 + 9 * 16 * 16),
        (Dense(growth=20), 2 * 16 + 9 * 16 * 20),
        (DenseBottleneck(growth=16, bottleneck=2), 2 * 16 + 16 * 32 + 2 * 32 + 9 * 32 * 16),
        (DenseBottleneck(growth=4, bottleneck=2), 2 * 16 + 16 * 8 + 2 * 8 + 9 * 8 * 16),
        (Transition(), 2 * 16 + 16 * 32),
    ],
)
def test_parameters_by_hand(block, expected):
    assert params(block, BlockIO(8, 8, 16, 32, 2)) == expected


def test_depthwise_convolutions_are_priced_as_such():
    layers = Residual(group_width=1).lower(BlockIO(8, 8, 16, 16))
    assert [layer.op.name for layer in layers] == ["DEPTHWISE", "DEPTHWISE", "ADD"]


# Shared weights, for every pair of widths: the variants that the contract of blocks does not reach.

PAIRS = ((8, 8), (8, 24), (16, 8), (16, 24))


@pytest.mark.parametrize(
    ("block", "stride"),
    [
        pytest.param(Residual(preactivation=True, group_width=4), 1, marks=pytest.mark.slow),
        (Residual(shortcut="pad", activation="sigmoid", group_width=2), 2),
        (Residual(shortcut="none", preactivation=True), 1),
        (BottleneckResidual(shortcut="pad", group_width=1, expand=0.5), 1),
        (SigmoidalResidual(group_width=8), 1),
        (Dense(growth=6), 2),
        (DenseBottleneck(growth=6, group_width=2, bottleneck=3), 1),
        (Transition(activation="hard_sigmoid"), 2),
    ],
)
def test_widths_share_weights(block, stride):
    ins, outs = zip(*PAIRS, strict=True)
    elastic = BlockIO(5, 5, ins, outs, stride)
    shared, full = variables_of(block, elastic), image(elastic, 16)

    @jax.jit
    def run(shared, x, index):
        """The block under a traced index and under gates, in one program."""
        widths = (index, jnp.eye(len(PAIRS))[index])
        net = block.net(elastic)
        return [net.apply(shared, x, Selection(w), mode="train", mutable=["batch_stats"])[0] for w in widths]

    for index in (0, 3):
        inp, out = PAIRS[index]
        own = BlockIO(5, 5, inp, out, stride)
        x = Channels(ins, jnp.int32(index)).mask(full)
        alone = jax.jit(partial(block.net(own).apply, mode="train", mutable=["batch_stats"]))
        expected, _ = alone(block.cut(shared, own), x[..., :inp])
        for found in run(shared, x, jnp.int32(index)):
            close(found[..., :out], expected)
            assert (found[..., out:] == 0).all()


# Pooling.


def plain_pool(x, function, kernel, stride, padding):
    size = x.shape[1]
    if padding == "same":
        count = math.ceil(size / stride)
        before = max((count - 1) * stride + kernel - size, 0) // 2
    else:
        steps = (size - kernel) / stride
        count, before = (math.ceil(steps) if padding == "ceil" else math.floor(steps)) + 1, 0
    reduce = {"max": np.max, "mean": np.mean}[function]
    spans = [slice(max(0, i * stride - before), i * stride - before + kernel) for i in range(count)]
    return np.stack([np.stack([reduce(x[:, rows, columns], (1, 2)) for columns in spans], 1) for rows in spans], 1)


@pytest.mark.parametrize("function", ["max", "mean"])
@pytest.mark.parametrize("padding", ["same", "valid", "ceil"])
def test_pooling_against_numpy(function, padding):
    for size, kernel, stride in ((7, 2, 2), (8, 3, 2), (8, 2, 1), (7, 3, 2)):
        io, block = BlockIO(size, size, 3, 3, stride), Pool(function, kernel, padding)
        block.check(io)
        x = image(io)
        expected = plain_pool(np.asarray(x), function, kernel, stride, padding)
        close(block.net(io).apply({}, x), expected)
        (layer,) = block.lower(io)
        assert (layer.out_h, layer.out_w) == expected.shape[1:3] == block.output_size(io)


def test_squeezenet_pools_round_up():
    sizes = [109]
    for _ in range(3):
        sizes.append(Pool("max", 3, "ceil").output_size(BlockIO(sizes[-1], sizes[-1], 1, 1, 2))[0])
    assert sizes == [109, 54, 27, 13]


# Mistakes.


def place(block, width=16, hw=8, stride=1):
    return SearchSpace("s", hw, 3, 4, Stage(ConvNorm(), 16), (Stage(block, width, stride=stride),), Classifier())


@pytest.mark.parametrize(
    ("build", "where", "message"),
    [
        (lambda: Residual(kernel=2), {}, "kernel=2 is not allowed: give an odd whole number"),
        (
            lambda: Residual(kernel=Choice(3, 9)),
            {"stride": 2},
            r"kernel=9 is larger than the padded map \(4x4 .*at most 7",
        ),
        (lambda: Residual(expand=0.01), {}, "expand=0.01 is not allowed: give a number from 0.0625 to 64"),
        (lambda: BottleneckResidual(expand="wide"), {}, "expand='wide' is not allowed"),
        (lambda: SigmoidalResidual(expand=True), {}, "expand=True is not allowed"),
        (
            lambda: Residual(group_width=0),
            {},
            "group_width=0 is not allowed: give a whole number from 1, or None for no groups",
        ),
        (
            lambda: Residual(group_width=5),
            {"width": 20},
            "group_width=5 does not divide the input width 16: .*divisor of 4",
        ),
        (lambda: BottleneckResidual(group_width=3), {}, "group_width=3 does not divide the inner width 8"),
        (lambda: SigmoidalResidual(group_width=Choice(None, 16)), {"width": 24}, "does not divide the inner width 24"),
        (lambda: Residual(shortcut="identity"), {}, "unknown shortcut 'identity'.*known: none, pad, projection"),
        (lambda: BottleneckResidual(shortcut=None), {}, "shortcut=None is not allowed: give text"),
        (lambda: Residual(preactivation="yes"), {}, "preactivation='yes' is not allowed: give True or False"),
        (lambda: SigmoidalResidual(activation="rely"), {}, "unknown activation 'rely': did you mean 'relu'"),
        (
            lambda: Residual(shortcut=Choice("pad", "none")),
            {},
            "shortcut cannot be searched: block residual searches kernel",
        ),
        (lambda: Dense(growth=16), {}, "growth=16 leaves no channel of the input in an output of width 16"),
        (lambda: Dense(growth=2.5), {}, "growth=2.5 is not allowed: give a whole number"),
        (lambda: Dense(growth=5, group_width=2), {}, "group_width=2 does not divide the new width 5"),
        (
            lambda: DenseBottleneck(growth=4, bottleneck=0),
            {},
            "bottleneck=0 is not allowed: give a whole number from 1 to 64",
        ),
        (
            lambda: DenseBottleneck(growth=4, bottleneck=65),
            {},
            "bottleneck=65 is not allowed: give a whole number from 1 to 64",
        ),
        (lambda: DenseBottleneck(growth=Choice(4, 16)), {}, "growth=16 leaves no channel"),
        (lambda: Transition(activation="gelu"), {}, "unknown activation 'gelu'"),
        (lambda: Pool("min"), {}, "unknown pooling function 'min'.*known: max, mean"),
        (lambda: Pool(padding="full"), {}, "unknown padding 'full'.*known: ceil, same, valid"),
        (lambda: Pool(kernel=1), {}, "kernel=1 is not allowed: give a whole number from 2"),
        (
            lambda: Pool(kernel=9, padding="valid"),
            {},
            r"kernel=9 is too large for the map \(8x8, padding valid\): give at most 8",
        ),
        (lambda: Pool(kernel=17), {}, "kernel=17 is too large for the map .* give at most 15"),
        (lambda: Pool(), {"width": 8}, "width 8 after 16 channels is not allowed: pooling keeps its channels"),
        (lambda: Pool(kernel=Choice(2, 3), padding="valid"), {}, "its blocks make maps of different sizes"),
    ],
)
def test_mistakes_are_named(build, where, message):
    with pytest.raises(InputError, match=message) as caught:
        place(build(), **where)
    assert "\n" not in str(caught.value)
