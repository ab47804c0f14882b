"""Convolution, batch normalisation, activation: the usual stem."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import flax.linen as nn
from jax import Array

from hw_models.errors import InputError
from hw_models.workload import Layer
from search_spaces.block import FROZEN, Block, BlockIO, Selection, check_padding, require_concrete
from search_spaces.choice import Choice
from search_spaces.layers import Activation, Conv
from search_spaces.lowering import Plan, output_size
from search_spaces.normalisation import normalised


@dataclass(frozen=True)
class ConvNorm(Block):
    """One full convolution with normalisation and activation.

    `norm=False` leaves the normalisation out; `bias` then says whether the convolution has a bias. `padding` is `same`
    or `valid`.

    Example:
        >>> ConvNorm(kernel=3).lower(BlockIO(32, 32, 3, 16, stride=2))[0].macs
        110592
    """

    kind: ClassVar[str] = "conv_norm"
    BRANCHES: ClassVar[tuple[str, ...]] = ("kernel",)
    MASKED: ClassVar[tuple[str, ...]] = ("kernel",)

    kernel: int | Choice = 3
    activation: str = "relu"
    norm: bool = True
    bias: bool = False
    padding: str = "same"

    def output_size(self, io: BlockIO) -> tuple[int, int]:
        assert isinstance(self.kernel, int)
        return tuple(output_size(size, self.kernel, io.stride, self.padding) for size in (io.in_h, io.in_w))  # type: ignore[return-value]

    def masked(self) -> tuple[str, ...]:
        # without padding every kernel makes a map of another size
        return super().masked() if self.padding == "same" else ()

    def check(self, io: BlockIO) -> None:
        super().check(io)
        check_padding(self.padding, self.kernel, io)  # type: ignore[arg-type]
        if self.norm and self.bias:
            raise InputError("bias=True with norm=True is not allowed: the normalisation has a bias of its own")

    def lower(self, io: BlockIO) -> list[Layer]:
        require_concrete(self, io)
        assert isinstance(io.out_channels, int) and isinstance(self.kernel, int)
        plan = Plan(io)
        return plan.layers(
            plan.conv(
                plan.input,
                io.out_channels,
                kernel=self.kernel,
                stride=io.stride,
                norm=self.norm,
                bias=self.bias,
                padding=self.padding,
            )
        )

    def net(self, io: BlockIO) -> nn.Module:
        return ConvNormNet(self, io)


class ConvNormNet(nn.Module):
    """The network of `ConvNorm`."""

    block: ConvNorm
    io: BlockIO

    @nn.compact
    def __call__(self, x: Array, selection: Selection = FROZEN, mode: str = "eval") -> Array:
        block = self.block
        _, out = selection.channels(self.io)
        kernel, window = selection.largest("kernel", block.kernel)
        x = Conv(out.size, kernel, self.io.stride, 1, block.padding, block.bias, name="conv")(x, window)
        if block.norm:
            return normalised(x, "norm", mode, block.activation, out, self.io.depthwise)
        return out.mask(Activation(block.activation)(x))


block = ConvNorm
