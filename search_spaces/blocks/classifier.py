"""The end of a network: last 1x1 convolution, global pooling or flattening, fully connected layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import flax.linen as nn
from jax import Array

from hw_models.discover import unknown
from hw_models.errors import InputError
from hw_models.workload import Layer
from search_spaces.block import FROZEN, Block, BlockIO, Selection, require_concrete
from search_spaces.layers import (
    Activation,
    Conv,
    GlobalPool,
    Linear,
    Pointwise,
    QuantizationNoise,
    check_levels,
)
from search_spaces.lowering import Plan
from search_spaces.normalisation import normalised
from search_spaces.rearrange import Flatten

ENDS = ("mean", "flatten", "conv")


@dataclass(frozen=True)
class Classifier(Block):
    """1x1 convolution to `features` (0 leaves it out), mean over pixels, `hidden` neurons (0 leaves them out), logits.

    `io.out_channels` is the number of classes. `hidden` may be several layers, with a bias
    or without (`hidden_bias`). `end` says how a map becomes logits:
    `mean` over its pixels, `flatten` (VGG), or `conv`, a 1x1 convolution to the classes before the mean (SqueezeNet).
    `preactivation` normalises and activates the input first (networks of pre-activated blocks).

    `quantization_levels` rounds what the logits are computed from to so many steps, in training only, as a regulariser
    in the place of Dropout (Guerra 2024, section 8.5; 8 levels were best); 0 leaves it out. `Network` turns it on from
    1.6 million parameters, below which it does harm; a supernet trains without it.

    Source: the efficient last stage of MobileNetV3 (Howard et al. 2019, section 5.1).

    Example:
        >>> sum(layer.params for layer in Classifier(64).lower(BlockIO(4, 4, 32, 10)))
        2826
    """

    kind: ClassVar[str] = "classifier"
    HEAD: ClassVar[bool] = True

    features: int = 0
    hidden: int | tuple[int, ...] = 0
    activation: str = "relu"
    end: str = "mean"
    preactivation: bool = False
    quantization_levels: int = 0
    hidden_bias: bool = True

    @property
    def hidden_layers(self) -> tuple[int, ...]:
        """Neurons of every hidden layer."""
        layers = self.hidden if isinstance(self.hidden, tuple) else (self.hidden,)
        return tuple(neurons for neurons in layers if neurons)

    def check(self, io: BlockIO) -> None:
        super().check(io)
        if self.features < 0 or any(neurons < 0 for neurons in self.hidden_layers):
            raise InputError(f"classifier features={self.features}, hidden={self.hidden}: give 0 or more")
        if self.end not in ENDS:
            raise unknown("end", str(self.end), ENDS)
        check_levels(self.quantization_levels)
        if self.end == "conv" and self.hidden_layers:
            raise InputError(f"hidden={self.hidden} with end='conv' is not allowed: drop one of them")

    def check_elastic(self, io: BlockIO) -> None:
        if self.end == "flatten":
            raise InputError("end='flatten' cannot follow a width that is searched: use end='mean'")

    def lower(self, io: BlockIO) -> list[Layer]:
        require_concrete(self, io)
        assert isinstance(io.in_channels, int) and isinstance(io.out_channels, int)
        plan = Plan(io)
        y = plan.input
        if self.preactivation:
            y = plan.activation(y, norm=True)
        if self.features:
            y = plan.conv(y, self.features)
        if self.end == "conv":
            return plan.layers(plan.global_pool(plan.conv(y, io.out_channels, norm=False, bias=True)))
        y = plan.view(y, 1, 1, y.elements) if self.end == "flatten" else plan.global_pool(y)
        for neurons in self.hidden_layers:
            y = plan.linear(y, neurons, bias=self.hidden_bias)
        return plan.layers(plan.linear(y, io.out_channels))

    def net(self, io: BlockIO) -> nn.Module:
        return ClassifierNet(self, io)


class ClassifierNet(nn.Module):
    """The network of `Classifier`; its result is `[N, classes]`."""

    block: Classifier
    io: BlockIO

    @nn.compact
    def __call__(self, x: Array, selection: Selection = FROZEN, mode: str = "eval") -> Array:
        block = self.block
        inp, _ = selection.channels(self.io)
        assert isinstance(block.end, str)
        classes = self.io.out_channels if isinstance(self.io.out_channels, int) else self.io.out_channels[0]
        if block.preactivation:
            x = normalised(x, "input_norm", mode, block.activation, inp, self.io.depthwise)
        if block.features:
            x = Pointwise(block.features, name="conv")(x)
            x = normalised(x, "norm", mode, block.activation, None, self.io.depthwise)
        if block.end == "conv":
            x = Conv(classes, 1, bias=True, name="logits")(self._regularised(x, selection, mode))
            return GlobalPool()(Activation(block.activation)(x))
        x = Flatten()(x) if block.end == "flatten" else GlobalPool()(x)
        for number, neurons in enumerate(block.hidden_layers):
            name = f"hidden_{number}" if number else "hidden"
            x = Activation(block.activation)(Linear(neurons, block.hidden_bias, name=name)(x))
        return Linear(classes, name="logits")(self._regularised(x, selection, mode))

    def _regularised(self, x: Array, selection: Selection, mode: str) -> Array:
        if not (self.block.quantization_levels and selection.regularise and mode == "train"):
            return x
        return QuantizationNoise(self.block.quantization_levels)(x)


block = Classifier
