"""Fused inverted residual (EfficientNetV2's Fused-MBConv): one full convolution expands and filters.

Source: Tan & Le 2021, https://arxiv.org/abs/2104.00298, figure 2 and table 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
from jax import Array

from hw_models.workload import Layer
from search_spaces.attention import ChannelAttention, check_kinds, check_squeeze, squeezed
from search_spaces.block import FROZEN, Block, BlockIO, Selection, require_concrete
from search_spaces.blocks import _bottleneck
from search_spaces.channels import Channels
from search_spaces.choice import Choice, options
from search_spaces.layers import Conv, residual
from search_spaces.lowering import Plan
from search_spaces.normalisation import normalised


@dataclass(frozen=True)
class FusedInvertedResidual(Block):
    """Expanding k x k convolution, optional channel attention, linear 1x1 projection, identity where shapes match.

    `expand` multiplies the input channels (rounded to a multiple of 8). At 1 there is no projection: one k x k
    convolution to the output channels with normalisation and activation, and the identity. Attention then acts on its
    result; published networks have none here, so that no source says. The bottleneck of squeeze-and-excitation has a
    quarter of the block's `input` channels, as in EfficientNet, or a quarter of those it weighs (`hidden`, a multiple
    of 8): `squeeze_from`; `squeeze_activation` and `gate` are its non-linearities.

    Example:
        >>> block = FusedInvertedResidual(kernel=3, expand=4)
        >>> [(layer.op.name, layer.params) for layer in block.lower(BlockIO(14, 14, 24, 24))]
        [('CONV', 20928), ('CONV', 2352), ('ADD', 0)]
        >>> [(layer.op.name, layer.params) for layer in block.with_values(expand=1).lower(BlockIO(14, 14, 24, 24))]
        [('CONV', 5232), ('ADD', 0)]
    """

    kind: ClassVar[str] = "fused_inverted_residual"
    BRANCHES: ClassVar[tuple[str, ...]] = ("kernel", "expand")
    ELASTIC: ClassVar[tuple[str, ...]] = ("attention",)
    MASKED: ClassVar[tuple[str, ...]] = ("kernel", "expand")
    EXAMPLES: ClassVar[dict[str, tuple[Any, ...]]] = {"expand": (1, 3)}

    kernel: int | Choice = 3
    expand: float | Choice = 4
    attention: str | Choice = "none"
    activation: str = "silu"
    squeeze_from: str = "input"
    squeeze_activation: str = "silu"
    gate: str = "sigmoid"

    def filtered_channels(
        self, in_channels: int, out_channels: int, ratio: float | None = None, density: float | None = None
    ) -> int:
        """Channels after the k x k convolution, by `ratio` where `expand` is still searched, and the `density` of them.

        At `expand=1` they are those of the output, all of them.
        """
        expand = self.settled("expand", ratio)
        return out_channels if expand == 1 else _bottleneck.thinned(_bottleneck.expanded(in_channels, expand), density)

    def squeezed(self, in_channels: int, filtered: int) -> int:
        """Channels inside squeeze-and-excitation."""
        return squeezed(self.squeeze_from, in_channels, filtered)

    def masked(self) -> tuple[str, ...]:
        # expand=1 is another form, with weights of its own
        return tuple(name for name in super().masked() if name != "expand" or 1 not in options(self.expand))

    def check(self, io: BlockIO) -> None:
        super().check(io)
        check_squeeze(self.squeeze_from, squeeze_activation=self.squeeze_activation, gate=self.gate)
        check_kinds(options(self.attention))

    def lower(self, io: BlockIO) -> list[Layer]:
        require_concrete(self, io)
        assert isinstance(io.in_channels, int) and isinstance(io.out_channels, int)
        assert isinstance(self.kernel, int) and isinstance(self.attention, str)
        filtered = self.filtered_channels(io.in_channels, io.out_channels, density=self.thinning(io))
        plan = Plan(io)
        y = plan.conv(plan.input, filtered, kernel=self.kernel, stride=io.stride)
        y = plan.attention(y, self.attention, self.squeezed(io.in_channels, filtered))
        if self.expand != 1:
            y = _bottleneck.project(plan, io, y)
        elif io.stride == 1 and io.in_channels == io.out_channels:
            y = plan.add(y, plan.input)
        return plan.layers(y)

    def net(self, io: BlockIO) -> nn.Module:
        return FusedInvertedResidualNet(self, io)


class FusedInvertedResidualNet(nn.Module):
    """The network of `FusedInvertedResidual`."""

    block: FusedInvertedResidual
    io: BlockIO

    @nn.compact
    def __call__(self, x: Array, selection: Selection = FROZEN, mode: str = "eval") -> Array:
        block, io = self.block, self.io
        inp, out, expand, density = selection.sizes(io, expand=block.expand, density=block.thinning(io))
        filtered = inp.combined(block.filtered_channels, out, expand, density)
        kernel, window = selection.largest("kernel", block.kernel)
        # Names of their own: the weights of one form are of no use to the other.
        name = "fused" if block.expand == 1 else "expand"
        y = Conv(filtered.size, kernel, io.stride, name=name)(x, window)
        y = normalised(y, f"{name}_norm", mode, block.activation, filtered, io.depthwise)
        y = self._attended(y, inp, filtered, selection)
        if block.expand == 1:
            return residual(x, y, inp, out, io.stride)
        return _bottleneck.narrow(x, y, inp, out, io, mode)

    def _attended(self, y: Array, inp: Channels, filtered: Channels, selection: Selection) -> Array:
        block = self.block
        attention = ChannelAttention(
            options(block.attention), block.squeeze_activation, block.gate, self.io.depthwise, name="attention"
        )
        return attention(y, filtered, selection.field("attention"), inp.join(filtered, block.squeezed))


block = FusedInvertedResidual
