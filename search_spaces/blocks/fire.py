"""Fire module of SqueezeNet: few channels in, expanded by 1x1 and larger filters side by side.

Source: Iandola et al. 2016, "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size",
https://arxiv.org/abs/1602.07360, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import flax.linen as nn
from jax import Array

from hw_models.errors import InputError
from hw_models.workload import Layer
from search_spaces.block import FROZEN, Block, BlockIO, Selection, require_concrete
from search_spaces.blocks.inception import unit
from search_spaces.choice import Choice
from search_spaces.lowering import Plan
from search_spaces.rearrange import Concat


@dataclass(frozen=True)
class Fire(Block):
    """1x1 convolution to `squeeze * out` channels, then a 1x1 and a `kernel` x `kernel` one to half of the output each.

    The squeezed width is rounded to a whole number, at least 1. The stride is that of the expanding convolutions. With
    `norm=False` convolutions have a bias and nothing is normalised, as published. The output width must be even.

    Example:
        >>> layers = Fire(squeeze=0.125, norm=False).lower(BlockIO(54, 54, 96, 128))
        >>> [(layer.kernel_h, layer.out_channels) for layer in layers], sum(layer.params for layer in layers)
        ([(1, 16), (1, 64), (3, 64), (1, 128)], 11920)
    """

    kind: ClassVar[str] = "fire"
    BRANCHES: ClassVar[tuple[str, ...]] = ("kernel", "squeeze")
    MASKED: ClassVar[tuple[str, ...]] = ("kernel", "squeeze")
    EXAMPLES: ClassVar[dict[str, tuple[Any, ...]]] = {"squeeze": (0.125, 0.25)}

    kernel: int | Choice = 3
    squeeze: float | Choice = 0.125
    norm: bool = True
    activation: str = "relu"

    def squeezed(self, out_channels: int, ratio: float | None = None, density: float | None = None) -> int:
        """Channels between both stages, by `ratio` where `squeeze` is still searched, and the `density` of them."""
        squeeze = self.settled("squeeze", ratio)
        channels = max(1, round(squeeze * out_channels))
        return channels if density is None else max(1, round(channels * density))

    def check(self, io: BlockIO) -> None:
        super().check(io)
        if not isinstance(self.squeeze, int | float) or isinstance(self.squeeze, bool) or not 0 < self.squeeze <= 1:
            raise InputError(f"squeeze={self.squeeze!r} is not allowed: give a number above 0 and at most 1")
        assert isinstance(io.out_channels, int)
        if io.out_channels % 2:
            raise InputError(
                f"width {io.out_channels} is not allowed: fire makes two halves of it, give an even number"
            )

    def lower(self, io: BlockIO) -> list[Layer]:
        require_concrete(self, io)
        assert isinstance(io.out_channels, int) and isinstance(self.kernel, int)
        plan, bias = Plan(io), not self.norm
        squeezed = plan.conv(
            plan.input, self.squeezed(io.out_channels, density=self.thinning(io)), norm=self.norm, bias=bias
        )
        maps = [
            plan.conv(squeezed, io.out_channels // 2, kernel=kernel, stride=io.stride, norm=self.norm, bias=bias)
            for kernel in (1, self.kernel)
        ]
        return plan.layers(plan.concat(*maps))

    def net(self, io: BlockIO) -> nn.Module:
        return FireNet(self, io)


class FireNet(nn.Module):
    """The network of `Fire`."""

    block: Fire
    io: BlockIO

    @nn.compact
    def __call__(self, x: Array, selection: Selection = FROZEN, mode: str = "eval") -> Array:
        block, stride = self.block, self.io.stride
        _, out, ratio, density = selection.sizes(self.io, squeeze=block.squeeze, density=block.thinning(self.io))
        kernel, window = selection.largest("kernel", block.kernel)
        squeezed, half = out.combined(block.squeezed, ratio, density), out.map(lambda channels: channels // 2)
        made = partial(unit, norm=block.norm, activation=block.activation, mode=mode, depthwise=self.io.depthwise)
        x = made(x, squeezed, name="squeeze")
        small = made(x, half, name="expand_small", stride=stride)
        large = made(x, half, name="expand_large", kernel=kernel, stride=stride, window=window)
        return Concat()((small, large), (half, half))


block = Fire
