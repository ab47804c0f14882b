"""Unit of ShuffleNetV2: half of the channels pass untouched, the others are filtered, then both are interleaved.

Source: Ma et al. 2018, "ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design",
https://arxiv.org/abs/1807.11164, figure 3 (c) and (d).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import flax.linen as nn
from jax import Array

from hw_models.errors import InputError
from hw_models.workload import Layer
from search_spaces.block import FROZEN, Block, BlockIO, Selection, require_concrete
from search_spaces.channels import Channels
from search_spaces.choice import Choice
from search_spaces.layers import Depthwise, Pointwise
from search_spaces.lowering import Plan
from search_spaces.normalisation import normalised
from search_spaces.rearrange import Interleave, Split


def filters_all(io: BlockIO) -> bool:
    """Whether the unit at `io` has the form of figure 3 (d), two branches that both see all channels.

    So it is where the map or the width changes, and where a stage begins. Elsewhere half of the channels pass.

    Raises:
        InputError: the width is kept in some networks and changed in others.

    Example:
        >>> filters_all(BlockIO(8, 8, 16, 16)), filters_all(BlockIO(8, 8, 16, 32)), filters_all(BlockIO(8, 8, 8, 8, 2))
        (False, True, True)
    """
    if io.stride != 1 or io.first:
        return True
    ins, outs = (width if isinstance(width, tuple) else (width,) for width in (io.in_channels, io.out_channels))
    differs = {a != b for a, b in zip(ins, outs, strict=True)}
    if len(differs) > 1:
        raise InputError(
            f"the searched widths {tuple(dict.fromkeys(ins))} to {tuple(dict.fromkeys(outs))} of a shufflenet_v2 block "
            "inside a stage are equal in some networks and differ in others, and each needs a form of its own: give "
            "the stage one width for all its blocks, or the block a stage of its own"
        )
    return differs.pop()


@dataclass(frozen=True)
class ShuffleNetV2(Block):
    """Split, 1x1, depthwise and 1x1 convolution of the second half, channel shuffle of both halves.

    At stride 2, where a stage begins and where the width changes, both branches see the whole input and make half of
    the output each. No activation follows the depthwise convolution. The output width must be even.

    Example:
        >>> unit = ShuffleNetV2(kernel=3)
        >>> [layer.op.name for layer in unit.lower(BlockIO(28, 28, 16, 16))]
        ['CONV', 'DEPTHWISE', 'CONV', 'CONCAT']
        >>> [layer.op.name for layer in unit.lower(BlockIO(28, 28, 16, 32, stride=2))]
        ['DEPTHWISE', 'CONV', 'CONV', 'DEPTHWISE', 'CONV', 'CONCAT']
    """

    kind: ClassVar[str] = "shufflenet_v2"
    BRANCHES: ClassVar[tuple[str, ...]] = ("kernel",)
    MASKED: ClassVar[tuple[str, ...]] = ("kernel",)

    kernel: int | Choice = 3
    activation: str = "relu"

    def check(self, io: BlockIO) -> None:
        super().check(io)
        assert isinstance(io.out_channels, int)
        if io.out_channels % 2:
            raise InputError(
                f"width {io.out_channels} is not allowed: shufflenet_v2 makes two halves of it, give an even number"
            )

    def check_elastic(self, io: BlockIO) -> None:
        filters_all(io)

    def lower(self, io: BlockIO) -> list[Layer]:
        require_concrete(self, io)
        assert isinstance(io.out_channels, int) and isinstance(self.kernel, int)
        plan, half = Plan(io), io.out_channels // 2
        if filters_all(io):
            passed = plan.conv(plan.depthwise(plan.input, kernel=self.kernel, stride=io.stride), half)
            y = plan.conv(plan.input, half)
        else:
            passed, second = plan.part(plan.input, half), plan.part(plan.input, half)
            y = plan.conv(second, half)
        y = plan.conv(plan.depthwise(y, kernel=self.kernel, stride=io.stride), half)
        return plan.layers(plan.concat(passed, y))

    def net(self, io: BlockIO) -> nn.Module:
        return ShuffleNetV2Net(self, io)


class ShuffleNetV2Net(nn.Module):
    """The network of `ShuffleNetV2`."""

    block: ShuffleNetV2
    io: BlockIO

    @nn.compact
    def __call__(self, x: Array, selection: Selection = FROZEN, mode: str = "eval") -> Array:
        inp, out = selection.channels(self.io)
        half = out.map(lambda channels: channels // 2)
        if filters_all(self.io):
            passed, y = self._filtered(x, inp, "passed_depthwise", selection, mode), x
            passed = self._mixed(passed, half, "passed", mode)
        else:
            passed, y = Split()(x, (half, half))
        y = self._mixed(y, half, "expand", mode)
        y = self._mixed(self._filtered(y, half, "depthwise", selection, mode), half, "project", mode)
        # The shuffle of two groups: channel j of either half becomes channel 2 j or 2 j + 1.
        return Interleave()((passed, y))

    def _mixed(self, x: Array, channels: Channels, name: str, mode: str) -> Array:
        y = Pointwise(channels.size, name=name)(x)
        return normalised(y, f"{name}_norm", mode, self.block.activation, channels, self.io.depthwise)

    def _filtered(self, x: Array, channels: Channels, name: str, selection: Selection, mode: str) -> Array:
        kernel, window = selection.largest("kernel", self.block.kernel)
        layer = Depthwise(kernel, self.io.stride, implementation=self.io.depthwise, name=name)
        (y,) = layer(x, channels, window=window)
        return normalised(y, f"{name}_norm", mode, None, channels, self.io.depthwise)


block = ShuffleNetV2
