"""Mixed depthwise convolution (MixConv): an inverted residual whose channels are filtered by kernels of several sizes.

Source: Tan & Le 2019, "MixConv: Mixed Depthwise Convolutional Kernels", https://arxiv.org/abs/1907.09595.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
from jax import Array

from hw_models.errors import InputError
from hw_models.workload import Layer
from search_spaces.attention import ChannelAttention, check_kinds
from search_spaces.block import FROZEN, Block, BlockIO, Selection, check_kernel, require_concrete
from search_spaces.blocks import _bottleneck
from search_spaces.channels import Channels
from search_spaces.choice import Choice, options
from search_spaces.layers import Depthwise
from search_spaces.lowering import Plan, Tensor
from search_spaces.normalisation import normalised
from search_spaces.rearrange import Concat, Split


def even_parts(channels: int, parts: int) -> tuple[int, ...]:
    """`channels` cut into `parts` equal counts, the remainder added to the first.

    Example:
        >>> even_parts(16, 3)
        (6, 5, 5)
    """
    each = channels // parts
    return (channels - each * (parts - 1), *[each] * (parts - 1))


def divided(channels: Channels, parts: int) -> tuple[Channels, ...]:
    """`even_parts` of every count that `channels` may have, as one `Channels` per part.

    Example:
        >>> [part.values for part in divided(Channels((16, 24)), 3)]
        [(6, 8), (5, 8), (5, 8)]
    """
    return tuple(channels.map(lambda count, part=part: even_parts(count, parts)[part]) for part in range(parts))  # type: ignore[misc]


def check_kernels(kernels: Any, io: BlockIO) -> None:
    """Raise InputError unless `kernels` is a tuple of kernel sizes that the map of `io` allows.

    Example:
        >>> check_kernels((3, 4), BlockIO(8, 8, 8, 8))
        Traceback (most recent call last):
        ...
        hw_models.errors.InputError: kernels[1]=4 is not allowed: give an odd whole number from 1
    """
    if not isinstance(kernels, tuple) or not kernels:
        raise InputError(f"kernels={kernels!r} is not allowed: give a tuple of kernel sizes, such as (3, 5)")
    for position, kernel in enumerate(kernels):
        check_kernel(kernel, io, f"kernels[{position}]")


@dataclass(frozen=True)
class MixedDepthwise(Block):
    """Expansion, depthwise convolution with one kernel size per part of the channels, attention, projection, residual.

    The expanded channels are cut into as many contiguous parts as there are `kernels`, of equal size; what is left
    over goes to the first. Every part has its own normalisation, which makes the same numbers as one over all of them
    and folds into its convolution. This is not the multi-head depthwise convolution of `flynet`, where every channel
    is filtered by several kernels of one size. With a single kernel it is `inverted_residual`.

    Example:
        >>> block = MixedDepthwise(kernels=(3, 5), expand=2)
        >>> [(layer.op.name, layer.kernel_h) for layer in block.lower(BlockIO(14, 14, 16, 16))]
        [('CONV', 1), ('DEPTHWISE', 3), ('DEPTHWISE', 5), ('CONCAT', 1), ('CONV', 1), ('ADD', 1)]
    """

    kind: ClassVar[str] = "mixed_depthwise"
    BRANCHES: ClassVar[tuple[str, ...]] = ("kernels", "expand")
    ELASTIC: ClassVar[tuple[str, ...]] = ("attention",)
    MASKED: ClassVar[tuple[str, ...]] = ("expand",)
    EXAMPLES: ClassVar[dict[str, tuple[Any, ...]]] = {"kernels": ((3, 5), (3, 5, 7))}

    kernels: tuple[int, ...] | Choice = (3, 5)
    expand: float | Choice = 3
    attention: str | Choice = "none"
    activation: str = "relu6"

    def hidden_channels(self, in_channels: int, ratio: float | None = None, density: float | None = None) -> int:
        """Channels after the expansion, by `ratio` where `expand` is still searched, and the `density` of them."""
        expand = self.settled("expand", ratio)
        return in_channels if expand == 1 else _bottleneck.thinned(_bottleneck.expanded(in_channels, expand), density)

    def check(self, io: BlockIO) -> None:
        super().check(io)
        check_kernels(self.kernels, io)
        check_kinds(options(self.attention))
        assert isinstance(io.in_channels, int) and isinstance(self.kernels, tuple)
        hidden = self.hidden_channels(io.in_channels, density=self.thinning(io))
        if hidden < len(self.kernels):
            raise InputError(
                f"kernels={self.kernels!r} needs {len(self.kernels)} channels to share, there are {hidden}: "
                "give fewer kernels or a larger expand"
            )

    def lower(self, io: BlockIO) -> list[Layer]:
        require_concrete(self, io)
        assert isinstance(io.in_channels, int) and isinstance(self.expand, int | float)
        assert isinstance(self.kernels, tuple) and isinstance(self.attention, str)
        hidden, kernels = self.hidden_channels(io.in_channels, density=self.thinning(io)), self.kernels
        kind = self.attention

        def middle(plan: Plan, y: Tensor) -> Tensor:
            maps = [y] if len(kernels) == 1 else [plan.part(y, count) for count in even_parts(hidden, len(kernels))]
            maps = [plan.depthwise(x, kernel=kernel, stride=io.stride) for x, kernel in zip(maps, kernels, strict=True)]
            return plan.attention(plan.concat(*maps), kind)

        return _bottleneck.lower(io, hidden, self.expand, middle)

    def net(self, io: BlockIO) -> nn.Module:
        return MixedDepthwiseNet(self, io)


class MixedDepthwiseNet(nn.Module):
    """The network of `MixedDepthwise`; with one kernel its variables are those of `InvertedResidualNet`."""

    block: MixedDepthwise
    io: BlockIO

    @nn.compact
    def __call__(self, x: Array, selection: Selection = FROZEN, mode: str = "eval") -> Array:
        block, io = self.block, self.io
        inp, out, expand, density = selection.sizes(io, expand=block.expand, density=block.thinning(io))
        hidden = inp.combined(block.hidden_channels, expand, density)
        y = _bottleneck.widen(x, hidden, expand, block.activation, mode, io)
        y = self._filtered(y, hidden, mode)
        attention = ChannelAttention(options(block.attention), implementation=io.depthwise, name="attention")
        y = attention(y, hidden, selection.field("attention"))
        return _bottleneck.narrow(x, y, inp, out, io, mode)

    def _filtered(self, y: Array, hidden: Channels, mode: str) -> Array:
        block, io = self.block, self.io
        assert isinstance(block.kernels, tuple)
        counts = divided(hidden, len(block.kernels))
        maps = (y,) if len(counts) == 1 else Split()(y, counts)
        filtered = []
        for position, (part, count, kernel) in enumerate(zip(maps, counts, block.kernels, strict=True)):
            name = f"depthwise_{position}" if position else "depthwise"
            (part,) = Depthwise(kernel, io.stride, implementation=io.depthwise, name=name)(part, count)
            filtered.append(normalised(part, f"{name}_norm", mode, block.activation, count, io.depthwise))
        return filtered[0] if len(counts) == 1 else Concat()(tuple(filtered), counts)


block = MixedDepthwise
