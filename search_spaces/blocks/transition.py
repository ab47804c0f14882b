"""Transition of DenseNets: narrows the map and halves its resolution between two dense stages.

Source: Huang et al. 2017, https://arxiv.org/abs/1608.06993, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import flax.linen as nn
from jax import Array

from hw_models.workload import Layer
from search_spaces.block import FROZEN, Block, BlockIO, Selection, require_concrete
from search_spaces.layers import Pointwise, Pool
from search_spaces.lowering import Plan
from search_spaces.normalisation import normalised


@dataclass(frozen=True)
class Transition(Block):
    """Normalisation, activation, 1x1 convolution; at stride 2 the mean of 2x2 pixels after it.

    On a map of odd size the last mean is over the pixels that are left.

    Example:
        >>> layers = Transition().lower(BlockIO(56, 56, 256, 128, stride=2))
        >>> [layer.op.name for layer in layers], sum(layer.params for layer in layers)
        (['ACTIVATION', 'CONV', 'POOL'], 33280)
    """

    kind: ClassVar[str] = "transition"

    activation: str = "relu"

    def lower(self, io: BlockIO) -> list[Layer]:
        require_concrete(self, io)
        assert isinstance(io.out_channels, int)
        plan = Plan(io)
        y = plan.conv(plan.activation(plan.input, norm=True), io.out_channels, norm=False)
        return plan.layers(y if io.stride == 1 else plan.pool(y, kernel=2, stride=2))

    def net(self, io: BlockIO) -> nn.Module:
        return TransitionNet(self, io)


class TransitionNet(nn.Module):
    """The network of `Transition`."""

    block: Transition
    io: BlockIO

    @nn.compact
    def __call__(self, x: Array, selection: Selection = FROZEN, mode: str = "eval") -> Array:
        inp, out = selection.channels(self.io)
        y = normalised(x, "norm", mode, self.block.activation, inp, self.io.depthwise)
        y = out.mask(Pointwise(out.size, name="conv")(y))
        return y if self.io.stride == 1 else Pool("mean", 2, 2)(y)


block = Transition
