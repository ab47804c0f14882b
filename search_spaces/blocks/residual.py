"""Basic residual block of ResNets, CIFAR ResNets and wide ResNets: two convolutions and a shortcut.

Sources: He et al. 2016, https://arxiv.org/abs/1512.03385; pre-activation: He et al. 2016,
https://arxiv.org/abs/1603.05027, and Zagoruyko & Komodakis 2016, https://arxiv.org/abs/1605.07146; what is searchable:
Schindler 2021 (dissertation, Heidelberg), sections 7.1 and 7.6.3.
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
from search_spaces.layers import Activation
from search_spaces.lowering import Plan
from search_spaces.normalisation import normalised


@dataclass(frozen=True)
class Residual(Block):
    """Convolution, normalisation, activation, convolution, normalisation, sum with a shortcut, activation.

    `expand` is the width between the convolutions over the output width (rounded to a multiple of 8). `group_width` is
    the channels per group of both convolutions, None for no groups; where a convolution changes the width there are as
    many groups as can have multiples of it on both sides.

    `shortcut` is the identity where the shape stays, and elsewhere a normalised 1x1 convolution (`projection`) or every
    second pixel with zeros for missing channels (`pad`, option A of the paper); `none` leaves the sum out everywhere.
    With `preactivation` normalisation and activation precede each convolution, nothing follows the sum, and the
    projection is a 1x1 convolution of the activated input without normalisation.

    Example:
        >>> sum(layer.params for layer in Residual().lower(BlockIO(32, 32, 16, 16)))
        4672
        >>> [layer.op.name for layer in Residual(shortcut="pad").lower(BlockIO(32, 32, 16, 32, stride=2))]
        ['CONV', 'CONV', 'ADD']
    """

    kind: ClassVar[str] = "residual"
    BRANCHES: ClassVar[tuple[str, ...]] = ("kernel", "expand", "group_width")
    MASKED: ClassVar[tuple[str, ...]] = ("kernel", "expand")
    LEAST_EXPAND: ClassVar[float] = _trunk.LEAST_EXPAND
    EXAMPLES: ClassVar[dict[str, tuple[Any, ...]]] = {"expand": (0.5, 1.0), "group_width": (None, 4)}

    kernel: int | Choice = 3
    expand: float | Choice = 1.0
    group_width: int | None | Choice = None
    shortcut: str = "projection"
    activation: str = "relu"
    preactivation: bool = False

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
        _trunk.check_shortcut(self.shortcut, self.preactivation)

    def lower(self, io: BlockIO) -> list[Layer]:
        require_concrete(self, io)
        assert isinstance(io.out_channels, int)
        plan = Plan(io)
        activated = plan.activation(plan.input, norm=True) if self.preactivation else None
        y = _trunk.lower_pair(
            plan,
            plan.input if activated is None else activated,
            self.inner_channels(io.out_channels, density=self.thinning(io)),
            io.out_channels,
            kernel=self.kernel,
            stride=io.stride,
            group_width=self.group_width,
            norm=not self.preactivation,
        )
        beside = _trunk.lower_shortcut(plan, self.shortcut, plan.input, io.out_channels, io.stride, activated)
        return plan.layers(y if beside is None else plan.add(beside, y))

    def net(self, io: BlockIO) -> nn.Module:
        return ResidualNet(self, io)


class ResidualNet(nn.Module):
    """The network of `Residual`."""

    block: Residual
    io: BlockIO

    @nn.compact
    def __call__(self, x: Array, selection: Selection = FROZEN, mode: str = "eval") -> Array:
        block, stride = self.block, self.io.stride
        inp, out, expand, density = selection.sizes(self.io, expand=block.expand, density=block.thinning(self.io))
        kernel, window = selection.largest("kernel", block.kernel)
        activated = None
        if block.preactivation:
            activated = normalised(x, "input_norm", mode, block.activation, inp, self.io.depthwise)
        y = _trunk.pair(
            x if activated is None else activated,
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
            norm=not block.preactivation,
        )
        y = _trunk.joined(_trunk.shortcut(block.shortcut, x, inp, out, stride, mode, self.io.depthwise, activated), y)
        return y if block.preactivation else out.mask(Activation(block.activation)(y))


block = Residual
