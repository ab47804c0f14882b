"""Sigmoidal residual block: the input times a gate computed from it, so that a channel pruned once stays pruned.

Source: Schindler 2021 (dissertation, Heidelberg), section 7.3, equations 7.4 to 7.6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
from jax import Array

from hw_models.workload import Layer
from search_spaces.block import FROZEN, Block, BlockIO, Selection, require_concrete
from search_spaces.blocks import _trunk
from search_spaces.blocks._bottleneck import expanded, thinned
from search_spaces.choice import Choice
from search_spaces.layers import Activation, Multiply
from search_spaces.lowering import Plan


@dataclass(frozen=True)
class SigmoidalResidual(Block):
    """`x * sigmoid(F(x))` with `F` the two convolutions of a residual block, normalised, nothing after the product.

    Where the shape changes, a normalised 1x1 convolution stands for `x`; where it stays, a zero channel of the input is
    a zero channel of the output, whatever the weights. The gate lies between 0 and 1: gradients cannot explode, but
    every block halves its input where `F` is 0. The thesis reports no loss below 20 blocks in a stage.

    Its equations 7.2 and 7.5 print `L` where the last block is `L - 1`, and its condition for vanishing gradients,
    `sigmoid(F) < 0`, means much smaller than 1. `expand` and `group_width` as in `residual`. The sigmoid is a layer of
    its own: most tools cannot fuse it into the convolution before it.

    Example:
        >>> [layer.op.name for layer in SigmoidalResidual().lower(BlockIO(32, 32, 16, 16))]
        ['CONV', 'CONV', 'ACTIVATION', 'MULTIPLY']
    """

    kind: ClassVar[str] = "sigmoidal_residual"
    BRANCHES: ClassVar[tuple[str, ...]] = ("kernel", "expand", "group_width")
    MASKED: ClassVar[tuple[str, ...]] = ("kernel", "expand")
    LEAST_EXPAND: ClassVar[float] = _trunk.LEAST_EXPAND
    EXAMPLES: ClassVar[dict[str, tuple[Any, ...]]] = {"expand": (0.5, 1.0), "group_width": (None, 4)}

    kernel: int | Choice = 3
    expand: float | Choice = 1.0
    group_width: int | None | Choice = None
    activation: str = "relu"

    def inner_channels(self, out_channels: int, ratio: float | None = None, density: float | None = None) -> int:
        """Channels between the two convolutions."""
        return thinned(expanded(out_channels, self.settled("expand", ratio)), density, self.settled("group_width"))

    def masked(self) -> tuple[str, ...]:
        return _trunk.masked(super().masked(), self.group_width)

    def check(self, io: BlockIO) -> None:
        super().check(io)
        assert isinstance(io.out_channels, int)
        _trunk.check_pair(
            self.kernel, self.group_width, self.inner_channels(io.out_channels, density=self.thinning(io)), io
        )

    def lower(self, io: BlockIO) -> list[Layer]:
        require_concrete(self, io)
        assert isinstance(io.out_channels, int)
        plan = Plan(io)
        inner = self.inner_channels(io.out_channels, density=self.thinning(io))
        y = _trunk.lower_pair(
            plan, plan.input, inner, io.out_channels, kernel=self.kernel, stride=io.stride, group_width=self.group_width
        )
        gate = plan.activation(y)
        beside = _trunk.lower_shortcut(plan, "projection", plan.input, io.out_channels, io.stride)
        assert beside is not None
        return plan.layers(plan.multiply(beside, gate))

    def net(self, io: BlockIO) -> nn.Module:
        return SigmoidalResidualNet(self, io)


class SigmoidalResidualNet(nn.Module):
    """The network of `SigmoidalResidual`."""

    block: SigmoidalResidual
    io: BlockIO

    @nn.compact
    def __call__(self, x: Array, selection: Selection = FROZEN, mode: str = "eval") -> Array:
        block, stride = self.block, self.io.stride
        inp, out, expand, density = selection.sizes(self.io, expand=block.expand, density=block.thinning(self.io))
        kernel, window = selection.largest("kernel", block.kernel)
        y = _trunk.pair(
            x,
            inp,
            out.combined(block.inner_channels, expand, density),
            out,
            kernel=kernel,
            window=window,
            stride=stride,
            group_width=block.group_width,
            activation=block.activation,
            mode=mode,
            depthwise=self.io.depthwise,
        )
        beside = _trunk.shortcut("projection", x, inp, out, stride, mode, self.io.depthwise)
        assert beside is not None
        # Inactive channels of the shortcut are zero, and with them the product.
        return Multiply()(beside, Activation("sigmoid")(y))


block = SigmoidalResidual
