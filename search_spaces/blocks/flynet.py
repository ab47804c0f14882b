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
from search_spaces.blocks import _bottleneck
from search_spaces.channels import Channels
from search_spaces.choice import Choice, options
from search_spaces.layers import Depthwise, Maximum, Norm

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
        return _bottleneck.expanded(in_channels, self.expand)

    def check(self, io: BlockIO) -> None:
        super().check(io)
        check_kinds(options(self.attention))
        for heads in options(self.heads):
            if not 1 <= heads <= MAX_HEADS:
                raise InputError(f"heads={heads} is out of range: give 1 to {MAX_HEADS}")

    def lower(self, io: BlockIO) -> list[Layer]:
        require_concrete(self, io)
        assert isinstance(io.in_channels, int) and isinstance(self.expand, int | float)
        assert isinstance(self.kernel, int) and isinstance(self.heads, int) and isinstance(self.attention, str)
        hidden, heads, kernel, kind = self.hidden_channels(io.in_channels), self.heads, self.kernel, self.attention
        h, w, group, maps = io.out_h, io.out_w, io.group, hidden * heads

        def middle(held: int) -> list[Layer]:
            layers = [lowering.depthwise(io, hidden, kernel, heads=heads, held=held)]
            if kind == "eca":
                layers.append(lowering.global_pool(h, w, maps, held=held, group=group))
                layers.append(lowering.channel_conv(maps, HEAD_ECA_KERNEL, held=held + h * w * maps, group=group))
                layers.append(lowering.elementwise(Op.SCALE, h, w, maps, maps, held=held + maps, group=group))
            if heads > 1:
                layers.append(lowering.elementwise(Op.REDUCE, h, w, maps, hidden, norm=1, held=held, group=group))
            if kind == "se":
                layers += lowering.channel_attention("se", h, w, hidden, held=held, group=group)
            return layers

        return _bottleneck.lower(io, hidden, self.expand, middle)

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
        y = _bottleneck.widen(x, hidden, block.expand, block.activation, mode)  # type: ignore[arg-type]
        spatial = Depthwise(block.kernel, io.stride, max(counts), io.depthwise, name="depthwise")  # type: ignore[arg-type]
        maps = spatial(y, hidden, in_use)
        maps = HeadAttention(kinds, counts, name="head_attention")(maps, kind_index, heads_index)
        y = Maximum(name="maximum")(maps, in_use)
        y = hidden.mask(Norm(name="depthwise_norm")(y, mode))
        reduced_kinds = tuple("se" if kind == "se" else "none" for kind in kinds)
        if "se" in reduced_kinds:
            y = ChannelAttention(reduced_kinds, name="attention")(y, hidden, kind_index)
        return _bottleneck.narrow(x, y, inp, out, io, mode)


block = FlyNet
