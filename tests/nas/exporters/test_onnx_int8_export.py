"""The int8 ONNX graph answers what the network of integers answers, for every layer and kind of block."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from nas import data_source
from nas.exporters import onnx_int8 as exporter
from nas.exporters._emit import EMIT
from nas.exporters._graph import record
from nas.exporters._int8 import onnxruntime_logits
from nas.model import Model
from nas.quantized.integer import IntegerNetwork
from nas.quantized.post_training import quantize
from search_spaces.attention import HEAD_KINDS
from search_spaces.block import Block
from search_spaces.blocks.classifier import Classifier
from search_spaces.blocks.conv_norm import ConvNorm
from search_spaces.blocks.dense import Dense
from search_spaces.blocks.flynet import REDUCTIONS, FlyNet
from search_spaces.blocks.inception import Inception
from search_spaces.blocks.inverted_residual import InvertedResidual
from search_spaces.blocks.residual import Residual
from search_spaces.blocks.shufflenet_v2 import ShuffleNetV2
from search_spaces.channels import Channels
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
from search_spaces.normalisation import Norm
from search_spaces.rearrange import Concat, Deinterleave, FitChannels, Interleave, Split, Subsample, Tile
from search_spaces.space import SearchSpace, Stage
from search_spaces.spaces import quickstart, tiny

HW, CHANNELS, CLASSES = 8, 3, 4


def around(block: Block, width: int = 8, stride: int = 1, head: Block | None = None) -> SearchSpace:
    stages = (Stage(block, width, 1, stride),)
    return SearchSpace("around", HW, CHANNELS, CLASSES, Stage(ConvNorm(3), 8), stages, head or Classifier())


def drawn_images(space: SearchSpace, count: int = 12) -> np.ndarray:
    shape = (count, space.image_hw, space.image_hw, space.input_channels)
    return np.random.default_rng(1).integers(0, 256, shape, np.uint8)


def logits(network: IntegerNetwork, images: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")  # weights here have 8 bits
    proto = exporter.build(network).SerializeToString()
    session = onnxruntime.InferenceSession(proto, options, providers=["CPUExecutionProvider"])
    pixels = (images.astype(np.float32) / 255).transpose(0, 3, 1, 2)
    return np.asarray(session.run(None, {"images": pixels})[0])


def check(model: Model, lost: float = 0.5, **options: Any) -> set[str]:
    """Equal logits but for the few codes where real numbers tie; returns the layers of the network."""
    images = drawn_images(model.space)
    network = quantize(model, images, **options)
    expected, found = network.logits(images), logits(network, images)
    spread = expected.std()
    assert np.isfinite(expected).all() and spread > 1e-2, "the network must answer something"
    assert np.abs(found - expected).max() < 0.1 * spread and np.median(np.abs(found - expected)) < 0.02 * spread
    assert np.abs(expected - model.logits(images)).max() < lost * spread, "and nearly what it answered before"
    return {node.op for node in record(model.space, model.variables).nodes}


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


def described(x: Any, mode: str) -> Any:
    """Attention from two descriptors, and from one, shared out by a softmax."""
    mean = GlobalPool()(x)
    heads = Deinterleave(2)(mean)
    y = Scale()(x, ChannelConv(5)(mean, Variance()(x, mean)))
    return Multiply()(Scale()(y, Interleave()(Softmax()(heads, 0.5))), Activation("sigmoid")(x))


def moved(x: Any, mode: str) -> Any:
    first, second = Split()(Concat()((x, Pool("max", 3, 1)(x), Pool("mean", 2, 1)(x))), counts(8, 8))
    shuffled = Interleave()((Maximum()((first, second)), HeadSum()((first, second))))
    return Tile()(FitChannels(20)(FitChannels(11)(Subsample(2)(shuffled))), *counts(20, 24))


def left_over(x: Any, mode: str) -> Any:
    """Normalisations that no convolution takes, ReLUs of what others take too, and values that are used twice."""
    y = Norm()(Pool("max", 2, 2, "ceil")(x), mode)
    y = Add()(Activation("relu6")(y), y)
    return Concat()((Activation("relu")(Norm()(y, mode)), Conv(8, 3, groups=4, bias=True)(y), Pointwise(8)(y)))


MADE = {"described": (8, described), "moved": (24, moved), "left over": (24, left_over)}


def test_layers(untrained: Any) -> None:
    seen = {"Depthwise"}  # see the blocks
    for width, make in MADE.values():
        seen |= check(untrained(around(Made(make=make), width)))
    seen |= check(untrained(around(ConvNorm(), head=Classifier(0, (12, 8), end="flatten"))))
    assert seen == set(EMIT), "every leaf layer must have an integer form"


@pytest.mark.parametrize("function", ACTIVATIONS)
def test_activations(function: str, untrained: Any) -> None:
    check(untrained(around(ConvNorm(3, function))))


@pytest.mark.parametrize("attention", HEAD_KINDS)
def test_flynet(attention: str, untrained: Any) -> None:
    place = HEAD_KINDS.index(attention)
    check(untrained(around(FlyNet(3, 2, 1 + place % 3, attention, reduction=REDUCTIONS[place % len(REDUCTIONS)]))))


@pytest.mark.parametrize(
    ("block", "width", "stride"),
    [
        (Residual(), 8, 1),
        (Residual(), 16, 2),
        (Dense(), 8, 1),
        (Inception(), 16, 1),
        (ShuffleNetV2(), 16, 2),
        (InvertedResidual(5, 2, "se", activation="hard_swish"), 8, 1),
    ],
)
def test_blocks(block: Block, width: int, stride: int, untrained: Any) -> None:
    check(untrained(around(block, width, stride)))


@pytest.mark.parametrize("head", [Classifier(12, end="conv"), Classifier(0, preactivation=True)])
def test_heads(head: Classifier, untrained: Any) -> None:
    check(untrained(around(ConvNorm(3, "relu6"), head=head)))


@pytest.mark.parametrize(
    "options",
    [
        {"per_channel": False},
        {"symmetric_acts": True},
        {"act_bits": 16},
        {"act_bits": 7, "weight_bits": 6, "lost": 1.0},
    ],
)
def test_options(options: dict[str, Any], untrained: Any) -> None:
    space = quickstart.space(input_hw=14)
    check(untrained(space.freeze(space.sample(jax.random.key(3)))), **options)


def test_real_images_are_answered_alike(untrained: Any) -> None:
    space = tiny.space()
    model = untrained(space.freeze(space.sample(jax.random.key(1))), 1)
    digits = data_source.load("digits")
    network = quantize(model, digits.images[:200])
    found, expected = logits(network, digits.test_images), network.logits(digits.test_images)
    assert (found.argmax(1) == expected.argmax(1)).mean() >= 0.995
    assert (np.abs(found - expected).max(1) < 1e-4).mean() > 0.9, "most are the same to the last digit"


def test_what_is_stored_are_the_codes(untrained: Any) -> None:
    model = untrained(around(FlyNet(3, 2, 2)))
    network = quantize(model, drawn_images(model.space))
    proto = exporter.build(network)
    stored = {constant.name: numpy_helper.to_array(constant) for constant in proto.graph.initializer}
    for name, weights in network.weights.items():
        np.testing.assert_array_equal(stored[f"{name}/weight/codes"], weights.codes[0])
        np.testing.assert_array_equal(stored[f"{name}/weight/step"], weights.step[0])
        assert stored[f"{name}/weight/codes"].dtype == np.int8 and stored[f"{name}/bias/codes"].dtype == np.int32
    kinds = Counter(node.op_type for node in proto.graph.node)
    assert kinds["Relu"] == 0 and kinds["Clip"] == 0, "clamps are in the codes"
    assert kinds["DequantizeLinear"] == kinds["QuantizeLinear"] + 2 * kinds["Conv"]
    assert [value.name for value in (*proto.graph.input, *proto.graph.output)] == ["images", "logits"]


def test_onnxruntime_computes_in_integers(untrained: Any, tmp_path: Any) -> None:
    model = untrained(around(Residual(), 16, 2))
    network = quantize(model, drawn_images(model.space), weight_bits=7, first_last_bits=None)
    assert max(np.abs(weights.codes.astype(int)).max() for weights in network.weights.values()) == 63
    assert exporter.export(network, tmp_path) == ("model_int8.onnx",)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3  # that the file is for this machine only
    onnxruntime.InferenceSession(str(tmp_path / exporter.FILE), options, providers=["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    convolutions = sum(name in network.weights for node in network.graph.nodes for name in node.outputs)
    assert kinds["QLinearConv"] == convolutions - 1 and kinds["Conv"] == 1, "all but the logits"
    assert kinds["QLinearAdd"] == 1
    images = drawn_images(model.space, 250)
    np.testing.assert_allclose(
        onnxruntime_logits(tmp_path / exporter.FILE, images), logits(network, images), rtol=1e-4, atol=1e-4
    )
