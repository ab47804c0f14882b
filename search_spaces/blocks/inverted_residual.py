"""Inverted residual (MobileNetV2, V3): expand, depthwise, attention, project, add.

Sources: Sandler et al. 2018, https://arxiv.org/abs/1801.04381; Howard et al. 2019, https://arxiv.org/abs/1905.02244;
for groups Wu et al. 2019 (FBNet), https://arxiv.org/abs/1812.03443.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import flax.linen as nn
from jax import Array

from hw_models.errors import InputError
from hw_models.workload import Layer
from search_spaces.attention import ChannelAttention, check_kinds, check_squeeze, squeezed
from search_spaces.block import FROZEN, Block, BlockIO, Selection, require_concrete
from search_spaces.blocks import _bottleneck
from search_spaces.choice import Choice, options
from search_spaces.layers import Depthwise
from search_spaces.lowering import Plan, Tensor
from search_spaces.normalisation import normalised


@dataclass(frozen=True)
class InvertedResidual(Block):
    """Expansion, depthwise convolution, optional channel attention, linear projection, identity where shapes match.

    `expand` multiplies the input channels (rounded to a multiple of 8); 1 leaves the first convolution out. `hidden`
    gives the expanded channels outright, where a published network has a ratio that is not round. The bottleneck of
    squeeze-and-excitation has a quarter of the `hidden` channels, a multiple of 8 (MobileNetV3), or a quarter of the
    `input` channels of the block (EfficientNet, MnasNet): `squeeze_from`; `squeeze_activation` and `gate` are its
    non-linearities.

    `groups` splits both 1x1 convolutions, with a channel shuffle between the first and the depthwise convolution;
    `keep_expansion` keeps the first at `expand=1`. FBNet has both.

    Example:
        >>> block = InvertedResidual(kernel=3, expand=6)
        >>> sum(layer.params for layer in block.lower(BlockIO(14, 14, 16, 16)))
        4352
    """

    kind: ClassVar[str] = "inverted_residual"
    BRANCHES: ClassVar[tuple[str, ...]] = ("kernel", "expand")
    ELASTIC: ClassVar[tuple[str, ...]] = ("attention",)
    MASKED: ClassVar[tuple[str, ...]] = ("kernel", "expand")
    TRACED: ClassVar[tuple[str, ...]] = ("kernel",)

    kernel: int | Choice = 3
    expand: float | Choice = 6
    attention: str | Choice = "none"
    activation: str = "relu6"
    hidden: int | None = None
    squeeze_from: str = "hidden"
    squeeze_activation: str = "relu"
    gate: str = "hard_sigmoid"
    groups: int = 1
    keep_expansion: bool = False

    def hidden_channels(self, in_channels: int, ratio: float | None = None, density: float | None = None) -> int:
        """Channels after the expansion, by `ratio` where `expand` is still searched, and the `density` of them."""
        expand = self.settled("expand", ratio)
        hidden = _bottleneck.expanded(in_channels, expand) if self.hidden is None or expand == 1 else self.hidden
        left_out = expand == 1 and not self.keep_expansion
        return hidden if left_out or self.groups > 1 else _bottleneck.thinned(hidden, density)

    def squeezed(self, in_channels: int, hidden: int) -> int:
        """Channels inside squeeze-and-excitation."""
        return squeezed(self.squeeze_from, in_channels, hidden)

    def check(self, io: BlockIO) -> None:
        super().check(io)
        check_squeeze(self.squeeze_from, squeeze_activation=self.squeeze_activation, gate=self.gate)
        check_kinds(options(self.attention))
        _bottleneck.check_hidden(self.hidden, self.expand)
        self._check_groups(io)

    def _check_groups(self, io: BlockIO) -> None:
        groups = self.groups
        if isinstance(groups, bool) or not isinstance(groups, int) or groups < 1:
            raise InputError(f"groups={groups!r} is not allowed: give a whole number from 1")
        assert isinstance(io.in_channels, int) and isinstance(io.out_channels, int)
        counts = {"input": io.in_channels, "expanded": self.hidden_channels(io.in_channels), "output": io.out_channels}
        for what, channels in counts.items():
            if channels % groups:
                raise InputError(
                    f"groups={groups} does not divide the {channels} {what} channels: change the width, or use groups=1"
                )

    def masked(self) -> tuple[str, ...]:
        # the groups of every expansion are other channels
        return tuple(name for name in super().masked() if self.groups == 1 or name != "expand")

    def check_elastic(self, io: BlockIO) -> None:
        if self.groups > 1:
            raise InputError(
                f"groups={self.groups} cannot be used where widths are searched, because the groups of every width "
                "are other channels: fix the widths, or use groups=1"
            )

    def lower(self, io: BlockIO) -> list[Layer]:
        require_concrete(self, io)
        assert isinstance(io.in_channels, int) and isinstance(self.expand, int | float)
        assert isinstance(self.kernel, int) and isinstance(self.attention, str)
        hidden, kernel = self.hidden_channels(io.in_channels, density=self.thinning(io)), self.kernel
        kind, squeezed = self.attention, self.squeezed(io.in_channels, hidden)

        def middle(plan: Plan, y: Tensor) -> Tensor:
            y = plan.depthwise(y, kernel=kernel, stride=io.stride)
            return plan.attention(y, kind, squeezed)

        return _bottleneck.lower(io, hidden, self.expand, middle, groups=self.groups, keep=self.keep_expansion)

    def net(self, io: BlockIO) -> nn.Module:
        return InvertedResidualNet(self, io)


class InvertedResidualNet(nn.Module):
    """The network of `InvertedResidual`."""

    block: InvertedResidual
    io: BlockIO

    @nn.compact
    def __call__(self, x: Array, selection: Selection = FROZEN, mode: str = "eval") -> Array:
        block, io = self.block, self.io
        inp, out, expand, density = selection.sizes(io, expand=block.expand, density=block.thinning(io))
        hidden = inp.combined(block.hidden_channels, expand, density)
        kernel, window = selection.largest("kernel", block.kernel)
        groups, keep = block.groups, block.keep_expansion
        y = _bottleneck.widen(x, hidden, expand, block.activation, mode, io, groups=groups, keep=keep)
        (y,) = Depthwise(kernel, io.stride, implementation=io.depthwise, name="depthwise")(y, hidden, window=window)
        y = normalised(y, "depthwise_norm", mode, block.activation, hidden, io.depthwise)
        attention = ChannelAttention(
            options(block.attention), block.squeeze_activation, block.gate, io.depthwise, name="attention"
        )
        y = attention(y, hidden, selection.field("attention"), inp.join(hidden, block.squeezed))
        return _bottleneck.narrow(x, y, inp, out, io, mode, groups=block.groups)


block = InvertedResidual
