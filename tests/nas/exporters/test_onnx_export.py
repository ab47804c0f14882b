"""The ONNX graph computes what the network computes, for every layer, block kind and setting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from hw_models import discover
from hw_models.errors import InputError
from nas import data_source
from nas.exporters import onnx as exporter
from nas.exporters._emit import EMIT, padding
from nas.exporters._graph import LEAVES, record
from nas.measure import onnxruntime_session
from nas.model import Meta, Model
from search_spaces.attention import HEAD_KINDS
from search_spaces.block import Block
from search_spaces.blocks._residuals import KINDS as RESIDUALS
from search_spaces.blocks.classifier import Classifier
from search_spaces.blocks.conv_norm import ConvNorm, ConvNormNet
from search_spaces.blocks.flynet import REDUCTIONS, FlyNet
from search_spaces.blocks.fused_inverted_residual import FusedInvertedResidual
from search_spaces.blocks.inverted_residual import InvertedResidual
from search_spaces.blocks.skip import Skip
from search_spaces.channels import Channels
from search_spaces.choice import Choice
from search_spaces.layers import (
    ACTIVATIONS,
    Activation,
    Add,
    ChannelConv,
    Conv,
    GlobalPool,
    HeadSum,
    Maximum,
    Multiply,
    Pointwise,
    Pool,
    Scale,
    Softmax,
    Variance,
)
from search_spaces.network import Network, fresh
from search_spaces.normalisation import Norm
from search_spaces.rearrange import Concat, Deinterleave, FitChannels, Interleave, Split, Subsample, Tile
from search_spaces.space import SearchSpace, Stage
from search_spaces.spaces import quickstart, tiny
from search_spaces.testing import concrete_blocks

HW, CHANNELS, CLASSES = 9, 3, 4


def random_model(space: SearchSpace, seed: int = 0, class_names: tuple[str, ...] | None = None) -> Model:
    """Random weights, and statistics and scales (negative ones too) far from those of a fresh network."""
    rng = np.random.default_rng(seed)

    def leaf(path: Any, value: Any) -> Any:
        name, shape = path[-1].key, value.shape
        if name == "var":
            return jnp.asarray(rng.uniform(0.3, 2.0, shape), jnp.float32)
        if name == "scale":
            return jnp.asarray(rng.uniform(0.5, 1.5, shape) * rng.choice((-1, 1, 1), shape), jnp.float32)
        if name in ("bias", "mean"):
            return jnp.asarray(rng.normal(0, 0.4, shape), jnp.float32)
        return jnp.asarray(rng.normal(0, 0.5, shape), jnp.float32) if name == "channel_filter" else value

    variables = jax.tree_util.tree_map_with_path(leaf, fresh(space, jax.random.key(seed)))
    names = class_names or tuple(str(label) for label in range(space.classes))
    mean, std = rng.uniform(0.2, 0.5, space.input_channels), rng.uniform(0.2, 0.5, space.input_channels)
    return Model(space, variables, Meta(space.name, names, tuple(mean.tolist()), tuple(std.tolist())))


def around(block: Block, stride: int = 1, width: int = 8, head: Block | None = None, hw: int = HW) -> SearchSpace:
    stages = (Stage(block, width, 1, stride),)
    return SearchSpace("around", hw, CHANNELS, CLASSES, Stage(ConvNorm(3), 8), stages, head or Classifier())


def onnx_logits(model: Model, images: np.ndarray) -> np.ndarray:
    session = onnxruntime_session(exporter.build(model).SerializeToString())
    pixels = (images.astype(np.float32) / 255).transpose(0, 3, 1, 2)
    return np.asarray(session.run(None, {"images": pixels})[0])


def assert_agree(found: np.ndarray, expected: np.ndarray) -> None:
    assert np.isfinite(expected).all() and expected.std() > 1e-2, "the network must answer something"
    assert (np.abs(found - expected) / np.maximum(1, np.abs(expected))).max() <= 1e-4


def check_eagerly(space: SearchSpace) -> None:
    """Without compiling a program per network: kernels of equal shapes are shared by all of them."""
    model = random_model(space)
    images = np.random.default_rng(1).integers(0, 256, (3, space.input_hw, space.input_hw, CHANNELS), np.uint8)
    x = (images.astype(np.float32) / 255 - np.asarray(model.meta.mean, np.float32)) / np.asarray(
        model.meta.std, np.float32
    )
    expected = np.asarray(Network(space, "xla").apply(model.variables, x, "eval"))
    assert_agree(onnx_logits(model, images), expected)


@pytest.mark.parametrize("attention", ["none", "se", "eca"])
@pytest.mark.parametrize("heads", [1, 2, 3])
def test_flynet(heads: int, attention: str) -> None:
    # stride and residual alternate, so that both meet every attention and every number of heads
    stride = 1 + (heads + len(attention)) % 2
    # with stride 2, padding is uneven for the even size
    check_eagerly(around(FlyNet(3, 2, heads, attention), stride, hw=8 + heads % 2))


@pytest.mark.parametrize("attention", HEAD_KINDS)
def test_flynet_reductions_and_residuals(attention: str) -> None:
    """Every attention once with every reduction; residuals take turns, each at both strides and to more and fewer
    channels."""
    first = HEAD_KINDS.index(attention)
    for position, reduction in enumerate(REDUCTIONS):
        turn = first * len(REDUCTIONS) + position
        block = FlyNet(
            3, 2, 1 + turn % 3, attention, "relu", reduction, RESIDUALS[turn % 5], expanded_residual=turn % 2 == 0
        )
        check_eagerly(around(block, 1 + turn // 5 % 2, (12, 8, 4)[turn % 3], hw=8 + turn % 2))


@pytest.mark.parametrize(
    ("block", "stride", "width"),
    [
        (InvertedResidual(3, 2), 2, 16),
        (InvertedResidual(5, 2, "se"), 1, 8),
        (InvertedResidual(7, 2, "eca", activation="hard_swish"), 2, 8),
        (InvertedResidual(3, attention="se", activation="hard_swish", hidden=40), 1, 16),
        (InvertedResidual(3, 1, activation="relu"), 1, 8),
        (ConvNorm(5, "hard_swish"), 2, 16),
        (ConvNorm(1, "identity"), 1, 16),
        (ConvNorm(3, "sigmoid"), 2, 8),
        (ConvNorm(3, padding="valid", norm=False, bias=True), 2, 16),
        (InvertedResidual(3, 1, groups=2, keep_expansion=True), 1, 8),
        (InvertedResidual(3, 2, "se", groups=4, squeeze_from="input", gate="sigmoid"), 2, 16),
        (FusedInvertedResidual(3, 1, "se"), 1, 8),
        (FusedInvertedResidual(5, 3, "eca"), 2, 16),
        (Skip(), 1, 8),
        (Skip(project=True, activation="identity"), 2, 16),
        (FlyNet(5, 1, 2, "eca", activation="hard_swish"), 2, 16),
    ],
)
def test_other_blocks(block: Block, stride: int, width: int) -> None:
    check_eagerly(around(block, stride, width, hw=9 if stride == 1 else 8))


@pytest.mark.parametrize(
    "head",
    [
        Classifier(16),
        Classifier(16, 12, "hard_swish"),
        Classifier(0, 12),
        Classifier(0, (12, 8), end="flatten"),
        Classifier(12, end="conv"),
        Classifier(0, preactivation=True),
    ],
)
def test_heads(head: Classifier) -> None:
    check_eagerly(around(ConvNorm(3, "relu6"), head=head))


@pytest.mark.parametrize("kind", sorted(set(discover.names("search_spaces.blocks")) - {"classifier"}))
def test_every_block_in_the_folder_can_be_exported(kind: str) -> None:
    """A few settings of each, at both strides, to the same and to another width, on maps of even and odd size."""
    block = discover.load("search_spaces.blocks", kind, "block")
    blocks = concrete_blocks(block)
    for turn in range(4):
        width = 8 if block.KEEPS_WIDTH or turn == 1 else 16
        check_eagerly(around(blocks[turn * len(blocks) // 4], (1, 1, 2, 2)[turn], width, hw=8 + turn % 2))


@dataclass(frozen=True)
class Made(ConvNorm):
    """A block whose network is one function of leaf layers."""

    make: Callable[[Any, str], Any] = lambda x, mode: x

    def net(self, io: Any) -> nn.Module:
        return MadeNet(self.make)


class MadeNet(nn.Module):
    make: Callable[[Any, str], Any]

    @nn.compact
    def __call__(self, x: Any, selection: Any = None, mode: str = "eval") -> Any:
        return self.make(x, mode)


def counts(*numbers: int) -> tuple[Channels, ...]:
    return tuple(Channels((number,)) for number in numbers)


def two_descriptors(x: Any, mode: str) -> Any:
    mean = GlobalPool()(x)
    return Scale()(x, ChannelConv(5)(mean, Variance()(x, mean)))


def cooled_vectors(x: Any, mode: str) -> Any:
    heads = Deinterleave(2)(GlobalPool()(x))
    first, second = Softmax()(heads, 0.5)
    return Concat()((Scale()(x, Interleave()((first, second))), Scale()(x, Interleave()((second, second)))))


def pre_activated(x: Any, mode: str) -> Any:
    """Normalisations after a concatenation, a sum and a pool; before a convolution that takes it alone, or not."""
    y = Concat()((x, Pool("mean", 3, 1)(x)))
    y = Pointwise(8)(Activation("relu")(Norm()(y, mode)))
    y = Add()(x, y)
    y = Add()(Conv(8, 3)(Norm()(y, mode)), y)
    shared = Norm()(Pool("max", 2, 1)(y), mode)
    return Concat()((Norm()(Pointwise(8)(shared), mode), Pointwise(8)(Norm()(shared, mode))))


def shared_convolution(x: Any, mode: str) -> Any:
    """A normalisation of what another layer takes too must leave the convolution alone."""
    y = Conv(8, 3, bias=True)(x)
    return Concat()((Norm()(Conv(8, 3, bias=True)(x), mode), Add()(Norm()(y, mode), y)))


MADE: dict[str, tuple[int, Callable[[Any, str], Any]]] = {
    "valid": (16, lambda x, mode: Conv(16, 5, 2, padding="valid", bias=True)(x)),
    "groups": (16, lambda x, mode: Norm()(Conv(16, 3, 2, groups=4)(x), mode)),
    "two descriptors": (8, two_descriptors),
    "softmax of vectors": (16, cooled_vectors),
    "softmax of maps": (8, lambda x, mode: Concat()(Softmax()(Split()(x, counts(2, 2, 2, 2)), 2.0))),
    "heads": (4, lambda x, mode: Multiply()(HeadSum()(Split()(x, counts(4, 4))), Maximum()(Split()(x, counts(4, 4))))),
    "one head": (8, lambda x, mode: Interleave()((Maximum()((HeadSum()((Concat()((x,)),)),)),))),
    "subsample": (8, lambda x, mode: Subsample(2)(Subsample(1)(x))),
    "fewer channels": (5, lambda x, mode: FitChannels(5)(x)),
    "more channels": (11, lambda x, mode: FitChannels(11)(FitChannels(8)(x))),
    "tiles": (41, lambda x, mode: Concat()(tuple(Tile()(x, *counts(8, size)) for size in (6, 8, 11, 16)))),
    "parts": (
        10,
        lambda x, mode: Concat()(Split()(Concat()(Split()(x, counts(8))), counts(1, 4)) + Split()(x, counts(5))),
    ),
    "shuffle": (16, lambda x, mode: Interleave()((x, Interleave()(Split()(x, counts(4, 4)))))),
    "shuffle of three": (24, lambda x, mode: Interleave()((x, Activation("silu")(x), x))),
    "pre-activation": (16, pre_activated),
    "shared convolution": (16, shared_convolution),
}


@pytest.mark.parametrize("name", MADE)
def test_layers(name: str) -> None:
    width, make = MADE[name]
    check_eagerly(around(Made(make=make), 1, width))


@pytest.mark.parametrize("function", ACTIVATIONS)
def test_activations(function: str) -> None:
    check_eagerly(around(ConvNorm(3, function)))


@pytest.mark.parametrize("function", ["max", "mean"])
@pytest.mark.parametrize("kind", ["same", "valid", "ceil"])
def test_pools(function: str, kind: str) -> None:
    for number, (kernel, stride) in enumerate(((2, 2), (3, 2), (3, 1), (4, 3), (5, 2))):
        settings = (function, kernel, stride, kind)
        pool = Made(make=lambda x, mode, settings=settings: Pool(*settings)(x))
        check_eagerly(around(pool, hw=9 + number % 2))


def test_every_leaf_layer_has_an_onnx_form() -> None:
    # noise is for training only, and the fused maximum runs as the layers that it stands for when it is recorded
    unseen = {"QuantizationNoise", "DepthwiseMaximum"}
    assert {layer.__name__ for layer in LEAVES} == {*EMIT, *unseen}, "see nas/exporters/_emit.py"


@pytest.mark.parametrize(("module", "seed"), [(quickstart, 5), (tiny, 1)])
def test_networks_of_a_space_on_real_images(module: Any, seed: int) -> None:
    images = data_source.load("fashion_mnist_10k" if module is quickstart else "digits").test_images[:40]
    space = module.space()
    model = random_model(space.freeze(space.sample(jax.random.key(seed))), seed)
    assert_agree(onnx_logits(model, images), model.logits(images))


def operations(space: SearchSpace) -> list[str]:
    return [node.op_type for node in exporter.build(random_model(space)).graph.node]


def test_normalisation_costs_nothing_where_it_can_be_folded() -> None:
    names = operations(around(FlyNet(3, 2, 3), stride=2))
    # Sub and Div prepare the input; the rest is convolutions, their maximum and the head
    assert names.count("Conv") == 1 + 1 + 3 + 1 + 1
    assert set(names) == {"Sub", "Div", "Conv", "Relu", "Max", "GlobalAveragePool", "Flatten"}
    kept = operations(around(FlyNet(3, 2, 3, "se"), stride=2))
    assert (kept.count("Mul"), kept.count("Add")) == (2, 1), "the reduced maps feed the pool too: scale, shift, weigh"


@pytest.mark.parametrize("size", [1, 2, 7, 8, 9])
@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
def test_padding_is_that_of_xla(size: int, kernel: int, stride: int) -> None:
    (expected,) = lax.padtype_to_pads((size,), (kernel,), (stride,), "SAME")
    assert padding("same", size, -(-size // stride), kernel, stride) == tuple(expected)


def test_any_batch_and_a_description_inside() -> None:
    import json

    model = random_model(around(ConvNorm()), class_names=("ä", "b", "c", "d"))
    session = onnxruntime_session(exporter.build(model).SerializeToString())
    pixels = np.random.default_rng(0).random((5, CHANNELS, HW, HW), np.float32)
    (together,) = session.run(["logits"], {"images": pixels})
    (alone,) = session.run(["logits"], {"images": pixels[:1]})
    assert together.shape == (5, CLASSES) and np.abs(together[:1] - alone).max() < 1e-5
    inside = session.get_modelmeta()
    assert inside.producer_name == "flynas"
    assert json.loads(inside.custom_metadata_map["class_names"]) == ["ä", "b", "c", "d"]
    assert json.loads(inside.custom_metadata_map["mean"]) == list(model.meta.mean)


class Careless(ConvNorm):
    """A block that doubles its result outside the layers."""

    def net(self, io: Any) -> nn.Module:
        return CarelessNet(self, io)


class CarelessNet(nn.Module):
    block: ConvNorm
    io: Any

    @nn.compact
    def __call__(self, x: Any, *rest: Any) -> Any:
        return 2.0 * ConvNormNet(self.block, self.io, name="inner")(x, *rest)


def test_arithmetic_outside_the_layers_is_an_error_that_says_where() -> None:
    space = around(Careless())
    with pytest.raises(InputError, match="stages_0_0 outside the layers"):
        record(space, fresh(space, jax.random.key(0)))


def test_weights_of_another_network_are_an_error() -> None:
    model = random_model(around(ConvNorm(3), width=8))
    with pytest.raises(InputError, match="do not fit"):
        record(around(ConvNorm(3), width=16), model.variables)


def test_a_space_with_decisions_is_an_error() -> None:
    with pytest.raises(InputError, match="freeze"):
        record(around(ConvNorm(Choice(3, 5))), {"params": {}})


def test_the_graph_has_one_node_per_layer() -> None:
    space = around(FlyNet(3, 2, 2, "eca"))
    graph = record(space, fresh(space, jax.random.key(0)))
    names = [node.op for node in graph.nodes]
    block = [node.op for node in graph.nodes if node.path.startswith("stages_0_0")]
    assert block[:4] == ["Pointwise", "Norm", "Activation", "Depthwise"] and block[-1] == "Add"
    assert names.count("Scale") == 2 and graph.shapes[graph.output] == (1, CLASSES)
    (add,) = (node for node in graph.nodes if node.op == "Add")
    assert add.inputs[0] == "stem_0/Activation_0", "the residual comes from before the block"
