"""Bottleneck residual block of deep ResNets, ResNeXt and RegNet: 1x1, k x k and 1x1 convolution, and a shortcut.

Sources: He et al. 2016, https://arxiv.org/abs/1512.03385; grouped: Xie et al. 2017, https://arxiv.org/abs/1611.05431;
what is searchable: Schindler 2021 (dissertation, Heidelberg), section 7.1 ("standard residual block").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
from jax import Array

from hw_models.workload import Layer
from search_spaces.block import FROZEN, Block, BlockIO, Selection, require_concrete
from search_spaces.blocks import _trunk
from search_spaces.blocks._bottleneck import expanded, thinned
from search_spaces.choice import Choice
from search_spaces.layers import Activation, Pointwise
from search_spaces.lowering import Plan
from search_spaces.normalisation import normalised


@dataclass(frozen=True)
class BottleneckResidual(Block):
    """Reduce, filter, widen (each normalised, the first two activated), sum with a shortcut, activation.

    `expand` is the inner width over the output width (rounded to a multiple of 8). `group_width` is the channels per
    group of the k x k convolution, None for no groups. The k x k convolution has the stride (as torchvision has it; the
    paper puts it into the first 1x1, which costs less and loses pixels). `shortcut` as in `residual`.

    Example:
        >>> block = BottleneckResidual()
        >>> sum(layer.params for layer in block.lower(BlockIO(56, 56, 256, 256)))
        70400
    """

    kind: ClassVar[str] = "bottleneck_residual"
    BRANCHES: ClassVar[tuple[str, ...]] = ("kernel", "expand", "group_width")
    MASKED: ClassVar[tuple[str, ...]] = ("kernel", "expand")
    LEAST_EXPAND: ClassVar[float] = _trunk.LEAST_EXPAND
    EXAMPLES: ClassVar[dict[str, tuple[Any, ...]]] = {"expand": (0.25, 1.0), "group_width": (None, 4)}

    kernel: int | Choice = 3
    expand: float | Choice = 0.25
    group_width: int | None | Choice = None
    shortcut: str = "projection"
    activation: str = "relu"

    def inner_channels(self, out_channels: int, ratio: float | None = None, density: float | None = None) -> int:
        """Channels of the k x k convolution."""
        return thinned(expanded(out_channels, self.settled("expand", ratio)), density, self.settled("group_width"))

    def masked(self) -> tuple[str, ...]:
        return _trunk.masked(super().masked(), self.group_width)

    def check(self, io: BlockIO) -> None:
        super().check(io)
        assert isinstance(io.out_channels, int)
        _trunk.check_group_width(
            self.group_width, inner=self.inner_channels(io.out_channels, density=self.thinning(io))
        )
        _trunk.check_shortcut(self.shortcut, False)

    def lower(self, io: BlockIO) -> list[Layer]:
        require_concrete(self, io)
        assert isinstance(io.out_channels, int)
        plan = Plan(io)
        inner = self.inner_channels(io.out_channels, density=self.thinning(io))
        y = plan.conv(plan.input, inner)
        y = _trunk.lower_conv(plan, y, inner, kernel=self.kernel, stride=io.stride, group_width=self.group_width)
        y = plan.conv(y, io.out_channels)
        beside = _trunk.lower_shortcut(plan, self.shortcut, plan.input, io.out_channels, io.stride)
        return plan.layers(y if beside is None else plan.add(beside, y))

    def net(self, io: BlockIO) -> nn.Module:
        return BottleneckResidualNet(self, io)


class BottleneckResidualNet(nn.Module):
    """The network of `BottleneckResidual`."""

    block: BottleneckResidual
    io: BlockIO

    @nn.compact
    def __call__(self, x: Array, selection: Selection = FROZEN, mode: str = "eval") -> Array:
        block, stride = self.block, self.io.stride
        inp, out, expand, density = selection.sizes(self.io, expand=block.expand, density=block.thinning(self.io))
        kernel, window = selection.largest("kernel", block.kernel)
        inner = out.combined(block.inner_channels, expand, density)

        def activated(y: Array, name: str) -> Array:
            return normalised(y, name, mode, block.activation, inner, self.io.depthwise)

        y = activated(Pointwise(inner.size, name="reduce")(x), "reduce_norm")
        y = _trunk.conv(
            y,
            inner,
            inner,
            kernel=kernel,
            stride=stride,
            window=window,
            group_width=block.group_width,
            name="conv",
        )
        y = activated(y, "norm")
        y = normalised(Pointwise(out.size, name="widen")(y), "widen_norm", mode, None, out, self.io.depthwise)
        y = _trunk.joined(_trunk.shortcut(block.shortcut, x, inp, out, stride, mode, self.io.depthwise), y)
        return out.mask(Activation(block.activation)(y))


block = BottleneckResidual
