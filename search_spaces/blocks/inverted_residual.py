"""Inverted residual (MobileNetV2, V3): expand, depthwise, attention, project, add.

Sources: Sandler et al. 2018, https://arxiv.org/abs/1801.04381; Howard et al. 2019, https://arxiv.org/abs/1905.02244.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import flax.linen as nn
from jax import Array

from hw_models.errors import InputError
from hw_models.workload import Layer
from search_spaces import lowering
from search_spaces.attention import ChannelAttention, check_kinds
from search_spaces.block import FROZEN, Block, BlockIO, Selection, require_concrete
from search_spaces.blocks import _bottleneck
from search_spaces.channels import Channels
from search_spaces.choice import Choice, options
from search_spaces.layers import Activation, Depthwise, Norm


@dataclass(frozen=True)
class InvertedResidual(Block):
    """Expansion, depthwise convolution, optional channel attention, linear projection, identity where shapes match.

    `expand` multiplies the input channels (rounded to a multiple of 8); 1 leaves the first convolution out. `hidden`
    gives the expanded channels outright, where a published network has a ratio that is not round.

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
        if self.hidden is not None and self.expand != 1:
            return self.hidden
        return _bottleneck.expanded(in_channels, self.expand)

    def check(self, io: BlockIO) -> None:
        super().check(io)
        check_kinds(options(self.attention))
        if self.hidden is not None and (self.expand == 1 or self.hidden < 1):
            raise InputError(f"hidden={self.hidden} with expand={self.expand} is not allowed: drop one of them")

    def lower(self, io: BlockIO) -> list[Layer]:
        require_concrete(self, io)
        assert isinstance(io.in_channels, int) and isinstance(self.expand, int | float)
        assert isinstance(self.kernel, int) and isinstance(self.attention, str)
        hidden, kernel, kind = self.hidden_channels(io.in_channels), self.kernel, self.attention

        def middle(held: int) -> list[Layer]:
            filters = lowering.depthwise(io, hidden, kernel, held=held)
            return [filters, *lowering.channel_attention(kind, io.out_h, io.out_w, hidden, held=held, group=io.group)]

        return _bottleneck.lower(io, hidden, self.expand, middle)

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
        y = _bottleneck.widen(x, hidden, block.expand, block.activation, mode)  # type: ignore[arg-type]
        (y,) = Depthwise(block.kernel, io.stride, implementation=io.depthwise, name="depthwise")(y, hidden)  # type: ignore[arg-type]
        y = Norm(name="depthwise_norm")(y, mode)
        y = hidden.mask(Activation(block.activation)(y))
        attention = ChannelAttention(options(block.attention), name="attention")
        y = attention(y, hidden, selection.field("attention"))
        return _bottleneck.narrow(x, y, inp, out, io, mode)


block = InvertedResidual
