"""Convolution, batch normalisation, activation: the usual stem."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import flax.linen as nn
from jax import Array

from hw_models.workload import Layer
from search_spaces import lowering
from search_spaces.block import FROZEN, Block, BlockIO, Selection, require_concrete
from search_spaces.channels import Channels
from search_spaces.choice import Choice, options
from search_spaces.layers import Activation, Conv, Norm


@dataclass(frozen=True)
class ConvNorm(Block):
    """One full convolution with normalisation and activation.

    Example:
        >>> ConvNorm(kernel=3).lower(BlockIO(32, 32, 3, 16, stride=2))[0].macs
        110592
    """

    kind: ClassVar[str] = "conv_norm"
    BRANCHES: ClassVar[tuple[str, ...]] = ("kernel",)

    kernel: int | Choice = 3
    activation: str = "relu"

    def lower(self, io: BlockIO) -> list[Layer]:
        require_concrete(self, io)
        assert isinstance(io.in_channels, int) and isinstance(io.out_channels, int) and isinstance(self.kernel, int)
        return [
            lowering.conv(
                io.in_h,
                io.in_w,
                io.in_channels,
                io.out_channels,
                kernel=self.kernel,
                stride=io.stride,
                group=io.group,
            )
        ]

    def net(self, io: BlockIO) -> nn.Module:
        return ConvNormNet(self, io)


class ConvNormNet(nn.Module):
    """The network of `ConvNorm`."""

    block: ConvNorm
    io: BlockIO

    @nn.compact
    def __call__(self, x: Array, selection: Selection = FROZEN, mode: str = "eval") -> Array:
        out = Channels(options(self.io.out_channels), selection.out)
        x = Conv(out.size, self.block.kernel, self.io.stride, name="conv")(x)  # type: ignore[arg-type]
        x = Norm(name="norm")(x, mode)
        return out.mask(Activation(self.block.activation)(x))


block = ConvNorm
