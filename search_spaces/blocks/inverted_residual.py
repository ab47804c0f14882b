"""Inverted residual (MobileNetV2, V3): expand, depthwise, attention, project, add.

Sources: Sandler et al. 2018, https://arxiv.org/abs/1801.04381; Howard et al. 2019, https://arxiv.org/abs/1905.02244.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import flax.linen as nn
from jax import Array

from hw_models.errors import InputError
from hw_models.workload import Layer, Op
from search_spaces import lowering
from search_spaces.attention import ChannelAttention, check_kinds
from search_spaces.block import FROZEN, Block, BlockIO, Selection, require_concrete
from search_spaces.channels import Channels, make_divisible
from search_spaces.choice import Choice, options
from search_spaces.layers import Activation, Depthwise, Norm, Pointwise, residual


@dataclass(frozen=True)
class InvertedResidual(Block):
    """Expansion, depthwise convolution, optional channel attention, linear projection, identity where shapes match.

    `expand` multiplies the input channels (rounded to a multiple of 8); `hidden` gives the expanded channels outright
    and then `expand` is not used. Without expansion (`hidden == in_channels`) the first convolution is left out.

    Example:
        >>> block = InvertedResidual(kernel=3, expand=6)
        >>> sum(layer.params for layer in block.lower(BlockIO(14, 14, 16, 16)))
        4352
    """

    kind: ClassVar[str] = "inverted_residual"
    BRANCHES: ClassVar[tuple[str, ...]] = ("kernel", "expand")
    ELASTIC: ClassVar[tuple[str, ...]] = ("attention",)

    kernel: int | Choice = 3
    expand: float | Choice = 6
    attention: str | Choice = "none"
    activation: str = "relu6"
    hidden: int | None = None

    def hidden_channels(self, in_channels: int) -> int:
        """Channels after the expansion."""
        assert not isinstance(self.expand, Choice)
        if self.hidden is not None:
            return self.hidden
        return in_channels if self.expand == 1 else make_divisible(in_channels * self.expand)

    def check(self, io: BlockIO) -> None:
        check_kinds(options(self.attention))
        if self.hidden is not None and isinstance(self.expand, Choice):
            raise InputError(f"hidden={self.hidden} fixes the expanded channels: drop it, or the choice of expand")

    def lower(self, io: BlockIO) -> list[Layer]:
        require_concrete(self, io)
        assert isinstance(io.in_channels, int) and isinstance(io.out_channels, int)
        assert isinstance(self.kernel, int) and isinstance(self.attention, str)
        hidden = self.hidden_channels(io.in_channels)
        h, w, group = io.out_h, io.out_w, io.group
        adds = io.stride == 1 and io.in_channels == io.out_channels
        held = io.in_h * io.in_w * io.in_channels if adds else 0
        layers = []
        if hidden != io.in_channels:
            layers.append(lowering.conv(io.in_h, io.in_w, io.in_channels, hidden, group=group))
        layers.append(
            lowering.conv(
                io.in_h,
                io.in_w,
                hidden,
                hidden,
                kernel=self.kernel,
                stride=io.stride,
                groups=hidden,
                held=held if layers else 0,
                group=group,
            )
        )
        layers += lowering.channel_attention(self.attention, h, w, hidden, held=held, group=group)
        layers.append(lowering.conv(h, w, hidden, io.out_channels, held=held, group=group))
        if adds:
            layers.append(lowering.elementwise(Op.ADD, h, w, io.out_channels, io.out_channels, group=group))
        return layers

    def net(self, io: BlockIO) -> nn.Module:
        return InvertedResidualNet(self, io)


class InvertedResidualNet(nn.Module):
    """The network of `InvertedResidual`."""

    block: InvertedResidual
    io: BlockIO

    @nn.compact
    def __call__(self, x: Array, selection: Selection = FROZEN, mode: str = "eval") -> Array:
        block, io = self.block, self.io
        inp = Channels(options(io.in_channels), selection.inp)
        out = Channels(options(io.out_channels), selection.out)
        hidden = inp.map(block.hidden_channels)
        y = x
        if hidden.values != inp.values:
            y = Pointwise(hidden.size, name="expand")(y)
            y = Norm(name="expand_norm")(y, mode)
            y = hidden.mask(Activation(block.activation)(y))
        spatial = Depthwise(block.kernel, io.stride, implementation=io.depthwise, name="depthwise")  # type: ignore[arg-type]
        (y,) = spatial(y, hidden)
        y = Norm(name="depthwise_norm")(y, mode)
        y = hidden.mask(Activation(block.activation)(y))
        attention = ChannelAttention(options(block.attention), name="attention")
        y = attention(y, hidden, selection.field("attention"))
        y = Pointwise(out.size, name="project")(y)
        y = out.mask(Norm(name="project_norm")(y, mode))
        return residual(x, y, inp, out, io.stride, io.tied)


block = InvertedResidual
