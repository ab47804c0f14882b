"""FlyNet block: several depthwise filters per channel, reduced by their maximum.

Source: Guerra Fernandez 2024, "Efficient Deep Neural Networks Aimed for Resource Constrained Embedded Devices"
(PhD thesis, Monash University), chapter 8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from hw_models.errors import InputError
from hw_models.workload import Layer, Op
from search_spaces import lowering
from search_spaces.attention import HEAD_ECA_KERNEL, ChannelAttention, HeadAttention, check_kinds
from search_spaces.block import FROZEN, Block, BlockIO, Selection, require_concrete
from search_spaces.channels import Channels, make_divisible
from search_spaces.choice import Choice, options
from search_spaces.layers import Activation, Depthwise, Maximum, Norm, Pointwise, residual

MAX_HEADS = 5


@dataclass(frozen=True)
class FlyNet(Block):
    """Expansion, multi-head depthwise convolution with max-out, linear projection, identity where shapes match.

    Every expanded channel is filtered by `heads` kernels and the largest response survives: the maximum is the
    activation, so none follows it. Batch normalisation acts after the reduction, on one map per channel. Attention
    `eca` weighs the `channels * heads` maps before the reduction (as in the thesis, mean feature, kernel 7, sigmoid);
    `se` weighs the reduced maps, where its cost does not grow with the heads.

    The thesis counts more multiply-adds than plain MACs, for a reason it does not state; ours are plain MACs.

    Example:
        >>> block = FlyNet(kernel=3, expand=3, heads=3)
        >>> [layer.op.name for layer in block.lower(BlockIO(14, 14, 16, 16))]
        ['CONV', 'DEPTHWISE', 'REDUCE', 'CONV', 'ADD']
    """

    kind: ClassVar[str] = "flynet"
    BRANCHES: ClassVar[tuple[str, ...]] = ("kernel", "expand")
    ELASTIC: ClassVar[tuple[str, ...]] = ("heads", "attention")

    kernel: int | Choice = 3
    expand: float | Choice = 3
    heads: int | Choice = 3
    attention: str | Choice = "none"
    activation: str = "relu"

    def hidden_channels(self, in_channels: int) -> int:
        """Channels after the expansion."""
        assert not isinstance(self.expand, Choice)
        return in_channels if self.expand == 1 else make_divisible(in_channels * self.expand)

    def check(self, io: BlockIO) -> None:
        check_kinds(options(self.attention))
        for heads in options(self.heads):
            if not 1 <= heads <= MAX_HEADS:
                raise InputError(f"heads={heads} is out of range: give 1 to {MAX_HEADS}")

    def lower(self, io: BlockIO) -> list[Layer]:
        require_concrete(self, io)
        assert isinstance(io.in_channels, int) and isinstance(io.out_channels, int)
        assert isinstance(self.kernel, int) and isinstance(self.heads, int) and isinstance(self.attention, str)
        hidden, heads = self.hidden_channels(io.in_channels), self.heads
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
                heads=heads,
                held=held if layers else 0,
                group=group,
            )
        )
        maps = h * w * hidden * heads
        if self.attention == "eca":
            layers.append(lowering.global_pool(h, w, hidden * heads, held=held, group=group))
            layers.append(lowering.channel_conv(hidden * heads, HEAD_ECA_KERNEL, held=held + maps, group=group))
            scaled = hidden * heads
            layers.append(lowering.elementwise(Op.SCALE, h, w, scaled, scaled, held=held + scaled, group=group))
        if heads > 1:
            layers.append(lowering.elementwise(Op.REDUCE, h, w, hidden * heads, hidden, norm=1, held=held, group=group))
        if self.attention == "se":
            layers += lowering.channel_attention("se", h, w, hidden, held=held, group=group)
        layers.append(lowering.conv(h, w, hidden, io.out_channels, held=held, group=group))
        if adds:
            layers.append(lowering.elementwise(Op.ADD, h, w, io.out_channels, io.out_channels, group=group))
        return layers

    def net(self, io: BlockIO) -> nn.Module:
        return FlyNetNet(self, io)


class FlyNetNet(nn.Module):
    """The network of `FlyNet`."""

    block: FlyNet
    io: BlockIO

    @nn.compact
    def __call__(self, x: Array, selection: Selection = FROZEN, mode: str = "eval") -> Array:
        block, io = self.block, self.io
        inp = Channels(options(io.in_channels), selection.inp)
        out = Channels(options(io.out_channels), selection.out)
        hidden = inp.map(block.hidden_channels)
        counts, kinds = options(block.heads), options(block.attention)
        heads_index, kind_index = selection.field("heads"), selection.field("attention")
        in_use = None if len(counts) == 1 else jnp.asarray(counts, jnp.int32)[heads_index]
        y = x
        if hidden.values != inp.values:
            y = Pointwise(hidden.size, name="expand")(y)
            y = Norm(name="expand_norm")(y, mode)
            y = hidden.mask(Activation(block.activation)(y))
        spatial = Depthwise(block.kernel, io.stride, max(counts), io.depthwise, name="depthwise")  # type: ignore[arg-type]
        maps = spatial(y, hidden, in_use)
        maps = HeadAttention(kinds, counts, name="head_attention")(maps, kind_index, heads_index)
        y = Maximum(name="maximum")(maps, in_use)
        y = hidden.mask(Norm(name="depthwise_norm")(y, mode))
        reduced_kinds = tuple("se" if kind == "se" else "none" for kind in kinds)
        if "se" in reduced_kinds:
            y = ChannelAttention(reduced_kinds, name="attention")(y, hidden, kind_index)
        y = Pointwise(out.size, name="project")(y)
        y = out.mask(Norm(name="project_norm")(y, mode))
        return residual(x, y, inp, out, io.stride, io.tied)


block = FlyNet
