"""Ghost module: a few maps are made by a convolution, the others from them by cheap depthwise filters.

Source: Han et al. 2020, "GhostNet: More Features from Cheap Operations", https://arxiv.org/abs/1911.11907, section 3.1.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
from jax import Array

from hw_models.errors import InputError
from hw_models.workload import Layer
from search_spaces.block import FROZEN, Block, BlockIO, Selection, check_kernel, require_concrete
from search_spaces.choice import Choice
from search_spaces.layers import Conv, Depthwise
from search_spaces.lowering import Plan
from search_spaces.normalisation import normalised
from search_spaces.rearrange import Concat


@dataclass(frozen=True)
class Ghost(Block):
    """Primary convolution to `out / ratio` channels, `ratio - 1` cheap maps of each, all one after another.

    The primary convolution (`kernel`) has the stride; the cheap ones are depthwise with `cheap_kernel`. Normalisation
    and activation follow each. The cheap maps are in sets of one per primary channel. The output width must be
    divisible by `ratio`.

    Example:
        >>> layers = Ghost(kernel=1, ratio=2).lower(BlockIO(14, 14, 16, 32))
        >>> [(layer.op.name, layer.out_channels) for layer in layers]
        [('CONV', 16), ('DEPTHWISE', 16), ('CONCAT', 32)]
    """

    kind: ClassVar[str] = "ghost"
    BRANCHES: ClassVar[tuple[str, ...]] = ("kernel", "ratio")
    MASKED: ClassVar[tuple[str, ...]] = ("kernel",)
    EXAMPLES: ClassVar[dict[str, tuple[Any, ...]]] = {"kernel": (1, 3), "ratio": (2, 4)}

    kernel: int | Choice = 1
    ratio: int | Choice = 2
    cheap_kernel: int = 3
    activation: str = "relu"

    def check(self, io: BlockIO) -> None:
        super().check(io)
        check_kernel(self.cheap_kernel, dataclasses.replace(io, in_h=io.out_h, in_w=io.out_w), "cheap_kernel")
        if isinstance(self.ratio, bool) or not isinstance(self.ratio, int) or self.ratio < 2:
            raise InputError(f"ratio={self.ratio!r} is not allowed: give a whole number from 2")
        assert isinstance(io.out_channels, int)
        if io.out_channels % self.ratio:
            raise InputError(
                f"ratio={self.ratio} does not divide the width {io.out_channels}: give a multiple of it as width"
            )

    def lower(self, io: BlockIO) -> list[Layer]:
        require_concrete(self, io)
        assert isinstance(io.out_channels, int) and isinstance(self.kernel, int) and isinstance(self.ratio, int)
        plan = Plan(io)
        primary = plan.conv(plan.input, io.out_channels // self.ratio, kernel=self.kernel, stride=io.stride)
        cheap = [plan.depthwise(primary, kernel=self.cheap_kernel) for _ in range(self.ratio - 1)]
        return plan.layers(plan.concat(primary, *cheap))

    def net(self, io: BlockIO) -> nn.Module:
        return GhostNet(self, io)


class GhostNet(nn.Module):
    """The network of `Ghost`."""

    block: Ghost
    io: BlockIO

    @nn.compact
    def __call__(self, x: Array, selection: Selection = FROZEN, mode: str = "eval") -> Array:
        block, io = self.block, self.io
        assert isinstance(block.ratio, int)
        ratio = block.ratio
        kernel, window = selection.largest("kernel", block.kernel)
        _, out = selection.channels(io)
        count = out.map(lambda channels: channels // ratio)
        primary = Conv(count.size, kernel, io.stride, name="primary")(x, window)
        primary = normalised(primary, "primary_norm", mode, block.activation, count, io.depthwise)
        maps = [primary]
        for position in range(ratio - 1):
            # A layer of its own for each set: it takes up its normalisation when deployed, as heads would not.
            name = f"cheap_{position}"
            (y,) = Depthwise(block.cheap_kernel, implementation=io.depthwise, name=name)(primary, count)
            maps.append(normalised(y, f"{name}_norm", mode, block.activation, count, io.depthwise))
        return Concat()(tuple(maps), (count,) * ratio)


block = Ghost
