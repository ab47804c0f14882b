"""Maximum or mean pooling, as a block of its own between stages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
from jax import Array

from hw_models.discover import unknown
from hw_models.errors import InputError
from hw_models.workload import Layer
from search_spaces.block import FROZEN, Block, BlockIO, Selection, require_concrete
from search_spaces.choice import Choice
from search_spaces.layers import Pool as PoolLayer
from search_spaces.lowering import Plan, output_size

FUNCTIONS = ("max", "mean")
PADDINGS = ("same", "valid", "ceil")


@dataclass(frozen=True)
class Pool(Block):
    """The maximum or mean (`function`) of windows of `kernel` x `kernel` pixels, one per channel.

    `padding`: `same` covers the map with padding around it, `valid` takes only windows inside it, `ceil` also the one
    that sticks out at the end where the map is not used up (`ceil_mode` of PyTorch). Padding does not count: a mean is
    over the pixels inside. Kernels may be even.

    Example:
        >>> Pool("max", 3, padding="ceil").output_size(BlockIO(112, 112, 64, 64, stride=2))
        (56, 56)
    """

    kind: ClassVar[str] = "pool"
    BRANCHES: ClassVar[tuple[str, ...]] = ("kernel",)
    EXAMPLES: ClassVar[dict[str, tuple[Any, ...]]] = {"kernel": (2, 3)}
    KEEPS_WIDTH: ClassVar[bool] = True

    function: str = "max"
    kernel: int | Choice = 3
    padding: str = "same"

    def output_size(self, io: BlockIO) -> tuple[int, int]:
        assert isinstance(self.kernel, int)
        return tuple(output_size(size, self.kernel, io.stride, self.padding) for size in (io.in_h, io.in_w))  # type: ignore[return-value]

    def check(self, io: BlockIO) -> None:
        # Not the check of all blocks, which is for convolutions: their kernels are odd.
        if self.function not in FUNCTIONS:
            raise unknown("pooling function", str(self.function), FUNCTIONS)
        if self.padding not in PADDINGS:
            raise unknown("padding", str(self.padding), PADDINGS)
        kernel = self.kernel
        if isinstance(kernel, bool) or not isinstance(kernel, int) or kernel < 2:
            raise InputError(f"kernel={kernel!r} is not allowed: give a whole number from 2")
        size = min(io.in_h, io.in_w)
        largest = 2 * size - 1 if self.padding == "same" else size
        if kernel > largest:
            raise InputError(
                f"kernel={kernel} is too large for the map ({io.in_h}x{io.in_w}, padding {self.padding}): "
                f"give at most {largest}"
            )
        if io.in_channels != io.out_channels:
            raise InputError(
                f"width {io.out_channels} after {io.in_channels} channels is not allowed: pooling keeps its channels, "
                "give the stage the width before it"
            )

    def lower(self, io: BlockIO) -> list[Layer]:
        require_concrete(self, io)
        assert isinstance(self.kernel, int)
        plan = Plan(io)
        return plan.layers(plan.pool(plan.input, kernel=self.kernel, stride=io.stride, padding=self.padding))

    def net(self, io: BlockIO) -> nn.Module:
        return PoolNet(self, io)


class PoolNet(nn.Module):
    """The network of `Pool`."""

    block: Pool
    io: BlockIO

    @nn.compact
    def __call__(self, x: Array, selection: Selection = FROZEN, mode: str = "eval") -> Array:
        block = self.block
        return PoolLayer(block.function, block.kernel, self.io.stride, block.padding)(x)  # type: ignore[arg-type]


block = Pool
