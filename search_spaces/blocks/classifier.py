"""The end of a network: last 1x1 convolution, global pooling, one or two fully connected layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import flax.linen as nn
from jax import Array

from hw_models.errors import InputError
from hw_models.workload import Layer
from search_spaces import lowering
from search_spaces.block import FROZEN, Block, BlockIO, Selection, require_concrete
from search_spaces.layers import Activation, GlobalPool, Linear, Norm, Pointwise


@dataclass(frozen=True)
class Classifier(Block):
    """1x1 convolution to `features` (0 leaves it out), mean over pixels, `hidden` neurons (0 leaves them out), logits.

    `io.out_channels` is the number of classes.

    Source: the efficient last stage of MobileNetV3 (Howard et al. 2019, section 5.1).

    Example:
        >>> sum(layer.params for layer in Classifier(64).lower(BlockIO(4, 4, 32, 10)))
        2826
    """

    kind: ClassVar[str] = "classifier"

    features: int = 0
    hidden: int = 0
    activation: str = "relu"

    def check(self, io: BlockIO) -> None:
        super().check(io)
        if self.features < 0 or self.hidden < 0:
            raise InputError(f"classifier features={self.features}, hidden={self.hidden}: give 0 or more")

    def lower(self, io: BlockIO) -> list[Layer]:
        require_concrete(self, io)
        assert isinstance(io.in_channels, int) and isinstance(io.out_channels, int)
        h, w, group, width = io.in_h, io.in_w, io.group, io.in_channels
        layers = []
        if self.features:
            layers.append(lowering.conv(h, w, width, self.features, group=group))
            width = self.features
        layers.append(lowering.global_pool(h, w, width, group=group))
        if self.hidden:
            layers.append(lowering.linear(width, self.hidden, group=group))
            width = self.hidden
        return [*layers, lowering.linear(width, io.out_channels, group=group)]

    def net(self, io: BlockIO) -> nn.Module:
        return ClassifierNet(self, io)


class ClassifierNet(nn.Module):
    """The network of `Classifier`; its result is `[N, classes]`."""

    block: Classifier
    io: BlockIO

    @nn.compact
    def __call__(self, x: Array, selection: Selection = FROZEN, mode: str = "eval") -> Array:
        block = self.block
        assert isinstance(self.io.out_channels, int)
        if block.features:
            x = Pointwise(block.features, name="conv")(x)
            x = Activation(block.activation)(Norm(name="norm")(x, mode))
        x = GlobalPool()(x)
        if block.hidden:
            x = Activation(block.activation)(Linear(block.hidden, name="hidden")(x))
        return Linear(self.io.out_channels, name="logits")(x)


block = Classifier
