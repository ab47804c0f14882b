"""Blocks that run several branches side by side: what their sources say about them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models.errors import InputError
from search_spaces.block import BlockIO
from search_spaces.blocks.conv_norm import ConvNorm
from search_spaces.blocks.fire import Fire
from search_spaces.blocks.ghost import Ghost
from search_spaces.blocks.inception import Inception
from search_spaces.blocks.inverted_residual import InvertedResidual
from search_spaces.blocks.mixed_depthwise import MixedDepthwise
from search_spaces.blocks.shufflenet_v2 import ShuffleNetV2
from search_spaces.choice import Choice
from search_spaces.supernet import Supernet
from search_spaces.testing import randomised, space_with


def variables_and_images(block, io, batch=2):
    x = jax.random.normal(jax.random.key(0), (batch, io.in_h, io.in_w, io.in_channels))
    return randomised(block.net(io).init(jax.random.key(1), x), 0), x


def totals(block, *places):
    layers = [layer for io in places for layer in block.lower(io)]
    return np.asarray([sum(layer.params for layer in layers), sum(layer.macs for layer in layers)])


@pytest.mark.parametrize(("stride", "attention", "expand"), [(1, "se", 3), (2, "none", 3), (1, "eca", 1)])
def test_mixed_depthwise_with_one_kernel_is_an_inverted_residual(stride, attention, expand):
    io = BlockIO(9, 9, 8, 8, stride)
    mixed = MixedDepthwise((5,), expand, attention)
    usual = InvertedResidual(5, expand, attention)
    variables, x = variables_and_images(usual, io)
    own = jax.eval_shape(mixed.net(io).init, jax.random.key(1), x)
    assert jax.tree.map(jnp.shape, own) == jax.tree.map(jnp.shape, variables)
    for mode in ("eval", "calibrate"):
        found, _ = mixed.net(io).apply(variables, x, mode=mode, mutable=["batch_stats"])
        expected, _ = usual.net(io).apply(variables, x, mode=mode, mutable=["batch_stats"])
        assert (found == expected).all()
    assert mixed.lower(io) == usual.lower(io)


def test_mixed_depthwise_filters_each_part_with_its_own_kernel():
    io = BlockIO(9, 9, 16, 16)
    block = MixedDepthwise((1, 3, 5), expand=1, activation="identity")
    variables, x = variables_and_images(block, io)
    params = variables["params"]
    assert [params[name]["filters"].shape for name in ("depthwise", "depthwise_1", "depthwise_2")] == [
        (1, 1, 6, 1), (3, 3, 5, 1), (5, 5, 5, 1)]  # fmt: skip
    params["project"]["kernel"] = jnp.eye(16)
    pixel = jnp.zeros_like(x).at[:, 4, 4].set(1.0)
    net = block.net(io)
    response = np.abs(net.apply(variables, pixel) - net.apply(variables, jnp.zeros_like(x)) - pixel)[0]
    reached = [np.flatnonzero((response[..., channel] > 1e-6).any(axis=0)) for channel in range(16)]
    assert [len(columns) for columns in reached] == [1] * 6 + [3] * 5 + [5] * 5


def test_shufflenet_unit_is_split_branch_concatenation_and_shuffle_of_two_groups():
    io = BlockIO(6, 6, 12, 12)
    block = ShuffleNetV2()
    variables, x = variables_and_images(block, io)
    y = np.asarray(block.net(io).apply(variables, x))
    params, stats = variables["params"], variables["batch_stats"]

    def normalised(z, name):
        scale, bias = params[name]["scale"], params[name]["bias"]
        return (z - stats[name]["mean"]) / jnp.sqrt(stats[name]["var"] + 1e-5) * scale + bias

    kept, z = x[..., :6], x[..., 6:]
    z = jax.nn.relu(normalised(z @ params["expand"]["kernel"], "expand_norm"))
    filters = params["depthwise"]["filters"][..., 0]
    padded = jnp.pad(z, ((0, 0), (1, 1), (1, 1), (0, 0)))
    z = sum(padded[:, i : i + 6, j : j + 6] * filters[i, j] for i in range(3) for j in range(3))
    z = normalised(z, "depthwise_norm")
    z = jax.nn.relu(normalised(z @ params["project"]["kernel"], "project_norm"))
    joined = np.concatenate([kept, z], axis=-1)
    shuffled = joined.reshape(2, 6, 6, 2, 6).transpose(0, 1, 2, 4, 3).reshape(2, 6, 6, 12)
    np.testing.assert_allclose(y, shuffled, rtol=1e-4, atol=1e-5)


def test_shufflenet_v2_has_the_published_counts():
    block, size, width = ShuffleNetV2(), 56, 24
    found = totals(ConvNorm(3), BlockIO(224, 224, 3, 24, 2))
    for repeats, out in ((4, 176), (8, 352), (4, 704)):
        found += totals(block, BlockIO(size, size, width, out, 2, first=True))
        size, width = size // 2, out
        found += (repeats - 1) * totals(block, BlockIO(size, size, width, out))
    found += totals(ConvNorm(1), BlockIO(7, 7, 704, 1024))
    found += (1025 * 1000, 1024 * 1000)
    assert found.tolist() == [3_503_624, 295_759_392]


def test_shufflenet_unit_takes_the_whole_input_where_stage_stride_or_width_change():
    def operations(io):
        return [layer.op.name for layer in ShuffleNetV2().lower(io)]

    whole = operations(BlockIO(8, 8, 8, 8, 2))
    assert len(whole) == 6
    assert operations(BlockIO(8, 8, 8, 8, first=True)) == operations(BlockIO(8, 8, 7, 16)) == whole
    assert len(operations(BlockIO(8, 8, 8, 8))) == 4


def test_shufflenet_widths_that_are_equal_only_in_some_networks_are_refused():
    with pytest.raises(
        InputError, match="stages/0/1/shufflenet_v2: the searched widths .8,. to .8, 16. .* give the stage"
    ):
        space_with(ShuffleNetV2(), width=(8, Choice(8, 16)), depth=2)
    changed = space_with(ShuffleNetV2(), width=(8, Choice(16, 24)), depth=2)
    Supernet(changed).init(jax.random.key(0))
    assert ShuffleNetV2().net(BlockIO(8, 8, (8, 16), (8, 16))) is not None


def test_ghost_counts_by_hand():
    # 3x3 to 48 / 4 channels at half the size, then three sets of 12 filters of 5x5 on the result
    params, macs = totals(Ghost(kernel=3, ratio=4, cheap_kernel=5), BlockIO(14, 14, 20, 48, 2))
    assert params == 9 * 20 * 12 + 3 * 25 * 12 + 2 * 48
    assert macs == 49 * (9 * 20 * 12 + 3 * 25 * 12)


def test_ghost_makes_cheap_maps_of_primary_ones():
    io = BlockIO(8, 8, 4, 9)
    block = Ghost(ratio=3, activation="identity")
    variables, x = variables_and_images(block, io)
    for name in ("cheap_0", "cheap_1"):
        variables["params"][name]["filters"] = jnp.zeros((3, 3, 3, 1)).at[1, 1].set(1.0 if name == "cheap_0" else 2.0)
        variables["params"][f"{name}_norm"]["bias"] = jnp.zeros(3)
        variables["params"][f"{name}_norm"]["scale"] = jnp.ones(3)
        variables["batch_stats"][f"{name}_norm"] = {"mean": jnp.zeros(3), "var": jnp.ones(3)}
    primary, once, twice = jnp.split(block.net(io).apply(variables, x), 3, axis=-1)
    np.testing.assert_allclose(once, primary, rtol=1e-4)
    np.testing.assert_allclose(twice, 2 * primary, rtol=1e-4)


def test_fire_counts_by_hand_and_as_published():
    params, macs = totals(Fire(squeeze=0.25), BlockIO(14, 14, 24, 40, 2))
    assert params == 24 * 10 + 10 * 20 + 9 * 10 * 20 + 2 * (10 + 20 + 20)
    assert macs == 196 * 24 * 10 + 49 * (10 * 20 + 9 * 10 * 20)
    block = Fire(norm=False)
    widths = (96, 128, 128, 256, 256, 384, 384, 512, 512)
    places = [BlockIO(27, 27, a, b) for a, b in zip(widths[:-1], widths[1:], strict=True)]
    stem_and_head = 7 * 7 * 3 * 96 + 96 + 512 * 1000 + 1000
    assert totals(block, *places)[0] + stem_and_head == 1_248_424, "SqueezeNet 1.0"


def test_fire_squeezes_to_a_whole_number_of_channels():
    assert [Fire(squeeze=0.125).squeezed(width) for width in (2, 8, 12, 28)] == [1, 1, 2, 4]


def test_inception_counts_by_hand():
    block = Inception((1, 3, 5), group_width=4, widths=(10, 12, 6), reduce=(0, 8, 0), pool=4)
    params, macs = totals(block, BlockIO(14, 14, 24, 32, 2))
    # reduced to 8 the 3x3 kernel has two groups, the 5x5 one has six
    assert params == 24 * 10 + 24 * 8 + 9 * 4 * 12 + 25 * 4 * 6 + 24 * 4 + 2 * (32 + 8)
    assert macs == 196 * 24 * 8 + 49 * (24 * 10 + 9 * 4 * 12 + 25 * 4 * 6 + 24 * 4)


def test_inception_shares_widths_evenly():
    layers = Inception(pool=2).lower(BlockIO(8, 8, 8, 13))
    assert [(layer.op.name, layer.kernel_h, layer.out_channels) for layer in layers] == [
        ("CONV", 1, 5), ("CONV", 3, 3), ("CONV", 5, 3), ("POOL", 3, 8), ("CONV", 1, 2), ("CONCAT", 1, 13)]  # fmt: skip


GOOGLENET = (
    (28, 192, (64, 128, 32), (0, 96, 16), 32),
    (28, 256, (128, 192, 96), (0, 128, 32), 64),
    (14, 480, (192, 208, 48), (0, 96, 16), 64),
    (14, 512, (160, 224, 64), (0, 112, 24), 64),
    (14, 512, (128, 256, 64), (0, 128, 24), 64),
    (14, 512, (112, 288, 64), (0, 144, 32), 64),
    (14, 528, (256, 320, 128), (0, 160, 32), 128),
    (7, 832, (256, 320, 128), (0, 160, 32), 128),
    (7, 832, (384, 384, 128), (0, 192, 48), 128),
)


@pytest.mark.parametrize(
    ("kernels", "norm", "published"),
    [
        ((1, 3, 5), False, (6_998_552, 1_582_671_872)),
        ((1, 3, 5), True, (7_005_832, 1_582_671_872)),
        ((1, 3, 3), True, (6_624_904, 1_498_376_192)),
    ],
)
def test_inception_is_every_module_of_googlenet(kernels, norm, published):
    found = np.asarray([1025 * 1000, 1024 * 1000])
    for kernel, io in ((7, BlockIO(224, 224, 3, 64, 2)), (1, BlockIO(56, 56, 64, 64)), (3, BlockIO(56, 56, 64, 192))):
        found += totals(ConvNorm(kernel, norm=norm, bias=not norm), io)
    for size, width, widths, reduce, pool in GOOGLENET:
        block, io = Inception(kernels, None, widths, reduce, pool, norm), BlockIO(size, size, width, sum(widths) + pool)
        block.check(io)
        found += totals(block, io)
    assert tuple(found) == published


def test_inception_computes_what_it_counts():
    io = BlockIO(8, 8, 12, 20, 2)
    block = Inception((1, 3, 5), 4, (8, 2, 6), (0, 4, 0), 4, norm=False)
    block.check(io)
    variables, x = variables_and_images(block, io)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == totals(block, io)[0]
    assert block.net(io).apply(variables, x).shape == (2, 4, 4, 20)


PLACE = BlockIO(8, 8, 8, 16)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MixedDepthwise(kernels=5), "kernels=5 is not allowed: give a tuple"),
        (lambda: MixedDepthwise(kernels=()), r"kernels=\(\) is not allowed"),
        (lambda: MixedDepthwise(kernels=(3, 4)), r"kernels\[1\]=4 .* odd whole number"),
        (lambda: MixedDepthwise(kernels=(17,)), r"kernels\[0\]=17 is larger than the padded map"),
        (lambda: MixedDepthwise(kernels=(3,) * 9, expand=1), "needs 9 channels to share, there are 8: give fewer"),
        (lambda: MixedDepthwise(expand=0), "expand=0 is not allowed"),
        (lambda: MixedDepthwise(attention="sa"), "unknown attention 'sa': did you mean"),
        (lambda: MixedDepthwise(activation="rely"), "unknown activation 'rely': did you mean 'relu'"),
        (lambda: ShuffleNetV2(kernel=2), "kernel=2 .* odd whole number"),
        (lambda: ShuffleNetV2(activation="rely"), "unknown activation 'rely'"),
        (lambda: Ghost(kernel=0), "kernel=0 is not allowed"),
        (lambda: Ghost(cheap_kernel=4), "cheap_kernel=4 .* odd whole number"),
        (lambda: Ghost(cheap_kernel=17), "cheap_kernel=17 is larger than the padded map"),
        (lambda: Ghost(ratio=1), "ratio=1 .* whole number from 2"),
        (lambda: Ghost(ratio=3), "ratio=3 does not divide the width 16"),
        (lambda: Ghost(activation="rely"), "unknown activation 'rely'"),
        (lambda: Fire(kernel=2), "kernel=2 .* odd whole number"),
        (lambda: Fire(squeeze=0), "squeeze=0 .* above 0 and at most 1"),
        (lambda: Fire(squeeze="half"), "squeeze='half' is not allowed: give a number"),
        (lambda: Fire(norm=1), "norm=1 is not allowed: give True or False"),
        (lambda: Fire(activation="rely"), "unknown activation 'rely'"),
        (lambda: Inception(kernels=[1, 3]), r"kernels=\[1, 3\] is not allowed: give a tuple"),
        (lambda: Inception(kernels=(1, 2)), r"kernels\[1\]=2 .* odd whole number"),
        (lambda: Inception(kernels=(1,) * 17), "do not fit a width of 16: give at least 17"),
        (lambda: Inception(pool=14), "with pool=14 do not fit a width of 16: give at least 17"),
        (lambda: Inception(pool=-1), "pool=-1 .* or 0 for none"),
        (lambda: Inception(widths=(8, 8)), r"widths=\(8, 8\) has 2 entries for 3 kernels"),
        (lambda: Inception(widths=(8, 8, 0)), "widths=.* whole numbers from 1, or None"),
        (lambda: Inception(widths=(8, 4, 2)), "make 14 channels, the width is 16: make them equal"),
        (lambda: Inception(widths=(8, 4, 4), pool=2), "with pool=2 make 18 channels"),
        (lambda: Inception(reduce=(0, 4)), r"reduce=\(0, 4\) has 2 entries for 3 kernels"),
        (lambda: Inception(reduce=(0, 4, 1.5)), "reduce=.* is not allowed"),
        (lambda: Inception(group_width=0), "group_width=0 .* or None for one group"),
        (lambda: Inception((1, 3), group_width=3), "group_width=3 does not divide the 8 input channels of kernel 3"),
        (lambda: Inception((1, 3), 4, reduce=(0, 6)), "group_width=4 does not divide the 6 input channels of kernel 3"),
        (lambda: Inception(group_width=4), "makes 2 groups of 8 input channels, which do not divide the 5 output"),
        (lambda: Inception(norm=None), "norm=None is not allowed: give True or False"),
        (lambda: Inception(activation="rely"), "unknown activation 'rely'"),
    ],
)
def test_mistakes_are_named(build, message):
    with pytest.raises(InputError, match=message):
        build().check(PLACE)


@pytest.mark.parametrize("block", [ShuffleNetV2(), Fire()])
def test_odd_widths_are_refused(block):
    with pytest.raises(InputError, match=f"width 9 is not allowed: {block.kind} makes two halves of it"):
        block.check(BlockIO(8, 8, 8, 9))


@pytest.mark.parametrize("fields", [{"widths": (2, 3, 3)}, {"reduce": (0, 2, 2)}, {"pool": 2}])
def test_inception_with_numbers_for_one_width_refuses_searched_widths(fields):
    (name,) = fields
    space_with(Inception(**fields))
    with pytest.raises(InputError, match=f"{name}=.* fits one width only, and widths are searched"):
        space_with(Inception(**fields), stem=Choice(8, 16))
