"""Depthwise separable convolution (MobileNetV1): a depthwise and a 1x1 convolution.

Source: Howard et al. 2017, https://arxiv.org/abs/1704.04861, figure 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import flax.linen as nn
from jax import Array

from hw_models.discover import unknown
from hw_models.workload import Layer
from search_spaces.block import FROZEN, Block, BlockIO, Selection, require_concrete
from search_spaces.choice import Choice
from search_spaces.layers import ACTIVATIONS, Depthwise, Pointwise
from search_spaces.lowering import Plan
from search_spaces.normalisation import normalised


@dataclass(frozen=True)
class DepthwiseSeparable(Block):
    """Depthwise convolution, then 1x1 convolution, each with normalisation and activation; nothing is added.

    `project_activation` follows the 1x1 convolution: `relu` as in MobileNetV1, or `identity` for the linear form that
    opens MnasNet and EfficientNet.

    Example:
        >>> block = DepthwiseSeparable(kernel=3)
        >>> [(layer.op.name, layer.params) for layer in block.lower(BlockIO(14, 14, 16, 32, stride=2))]
        [('DEPTHWISE', 176), ('CONV', 576)]
    """

    kind: ClassVar[str] = "depthwise_separable"
    BRANCHES: ClassVar[tuple[str, ...]] = ("kernel",)
    MASKED: ClassVar[tuple[str, ...]] = ("kernel",)

    kernel: int | Choice = 3
    activation: str = "relu"
    project_activation: str = "relu"

    def check(self, io: BlockIO) -> None:
        super().check(io)
        if self.project_activation not in ACTIVATIONS:
            raise unknown("project_activation", str(self.project_activation), ACTIVATIONS)

    def lower(self, io: BlockIO) -> list[Layer]:
        require_concrete(self, io)
        assert isinstance(io.out_channels, int) and isinstance(self.kernel, int)
        plan = Plan(io)
        y = plan.depthwise(plan.input, kernel=self.kernel, stride=io.stride)
        return plan.layers(plan.conv(y, io.out_channels))

    def net(self, io: BlockIO) -> nn.Module:
        return DepthwiseSeparableNet(self, io)


class DepthwiseSeparableNet(nn.Module):
    """The network of `DepthwiseSeparable`."""

    block: DepthwiseSeparable
    io: BlockIO

    @nn.compact
    def __call__(self, x: Array, selection: Selection = FROZEN, mode: str = "eval") -> Array:
        block, io = self.block, self.io
        inp, out = selection.channels(io)
        kernel, window = selection.largest("kernel", block.kernel)
        (y,) = Depthwise(kernel, io.stride, implementation=io.depthwise, name="depthwise")(x, inp, window=window)
        y = normalised(y, "depthwise_norm", mode, block.activation, inp, io.depthwise)
        y = Pointwise(out.size, name="project")(y)
        return normalised(y, "project_norm", mode, block.project_activation, out, io.depthwise)


block = DepthwiseSeparable
