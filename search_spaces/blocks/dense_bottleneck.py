"""Dense block with a bottleneck (DenseNet-B): a 1x1 convolution narrows the input before the k x k convolution.

Sources: Huang et al. 2017, https://arxiv.org/abs/1608.06993, section 3; what is searchable: Schindler 2021
(dissertation, Heidelberg), section 7.1 ("standard dense block").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
from jax import Array

from hw_models.errors import InputError
from hw_models.workload import Layer
from search_spaces.block import FROZEN, Block, BlockIO, Selection, require_concrete
from search_spaces.blocks import _growth, _trunk
from search_spaces.choice import Choice
from search_spaces.layers import Pointwise
from search_spaces.lowering import Plan
from search_spaces.normalisation import normalised

LARGEST_BOTTLENECK = 64


@dataclass(frozen=True)
class DenseBottleneck(Block):
    """Pre-activated 1x1 convolution, pre-activated k x k convolution to new channels, put after those of the input.

    The 1x1 convolution has `bottleneck * growth` channels, whatever the widths. Kept and new channels, stride and
    `group_width` (of the k x k convolution) as in `dense`.

    Example:
        >>> layers = DenseBottleneck(growth=32).lower(BlockIO(56, 56, 64, 96))
        >>> [layer.op.name for layer in layers], sum(layer.params for layer in layers)
        (['ACTIVATION', 'CONV', 'CONV', 'CONCAT'], 45440)
    """

    kind: ClassVar[str] = "dense_bottleneck"
    BRANCHES: ClassVar[tuple[str, ...]] = ("kernel", "growth", "group_width", "bottleneck")
    MASKED: ClassVar[tuple[str, ...]] = ("kernel",)
    EXAMPLES: ClassVar[dict[str, tuple[Any, ...]]] = {
        "growth": (4, 6),
        "group_width": (None, 2),
        "bottleneck": (2, 4),
    }

    kernel: int | Choice = 3
    growth: int | Choice = 4
    group_width: int | None | Choice = None
    activation: str = "relu"
    bottleneck: int | Choice = 4

    def inner_channels(self, density: float | None = None) -> int:
        """Channels of the 1x1 convolution; the `density` of them, at least one group."""
        assert isinstance(self.bottleneck, int) and isinstance(self.growth, int)
        inner = self.bottleneck * self.growth
        group = self.settled("group_width") or 1
        return inner if density is None else max(1, round(inner * density / group)) * group

    def masked(self) -> tuple[str, ...]:
        return _trunk.masked(super().masked(), self.group_width)

    def check(self, io: BlockIO) -> None:
        super().check(io)
        _, new = _growth.checked(self.growth, io)
        _trunk.check_count("bottleneck", self.bottleneck, f" to {LARGEST_BOTTLENECK}")
        if self.bottleneck > LARGEST_BOTTLENECK:  # type: ignore[operator]
            raise InputError(f"bottleneck={self.bottleneck} is not allowed: give a whole number from 1 to 64")
        _trunk.check_group_width(self.group_width, inner=self.inner_channels(self.thinning(io)), new=new)

    def lower(self, io: BlockIO) -> list[Layer]:
        require_concrete(self, io)
        assert isinstance(self.growth, int)
        plan = Plan(io)
        kept, new = _growth.parts(self.growth, io)
        y = plan.conv(plan.activation(plan.input, norm=True), self.inner_channels(self.thinning(io)))
        y = _trunk.lower_conv(
            plan, y, new, kernel=self.kernel, stride=io.stride, group_width=self.group_width, norm=False
        )
        return plan.layers(_growth.lower(plan, kept, y, io.stride))

    def net(self, io: BlockIO) -> nn.Module:
        return DenseBottleneckNet(self, io)


class DenseBottleneckNet(nn.Module):
    """The network of `DenseBottleneck`."""

    block: DenseBottleneck
    io: BlockIO

    @nn.compact
    def __call__(self, x: Array, selection: Selection = FROZEN, mode: str = "eval") -> Array:
        block, stride = self.block, self.io.stride
        inp, out, density = selection.sizes(self.io, density=block.thinning(self.io))
        kernel, window = selection.largest("kernel", block.kernel)
        kept, new = _growth.counts(block.growth, inp, out)  # type: ignore[arg-type]
        inner = density.map(block.inner_channels)
        y = normalised(x, "reduce_norm", mode, block.activation, inp, self.io.depthwise)
        y = Pointwise(inner.size, name="reduce")(y)
        y = normalised(y, "norm", mode, block.activation, inner, self.io.depthwise)
        y = _trunk.conv(
            y,
            inner,
            new,
            kernel=kernel,
            stride=stride,
            window=window,
            group_width=block.group_width,
            name="conv",
        )
        return _growth.grown(x, new.mask(y), kept, new, stride)


block = DenseBottleneck
