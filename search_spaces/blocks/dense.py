"""Dense block of DenseNets: a convolution whose result is concatenated to its input.

Sources: Huang et al. 2017, https://arxiv.org/abs/1608.06993; what is searchable: Schindler 2021 (dissertation,
Heidelberg), section 7.1 ("basic dense block").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
from jax import Array

from hw_models.workload import Layer
from search_spaces.block import FROZEN, Block, BlockIO, Selection, require_concrete
from search_spaces.blocks import _growth, _trunk
from search_spaces.choice import Choice
from search_spaces.lowering import Plan
from search_spaces.normalisation import normalised


@dataclass(frozen=True)
class Dense(Block):
    """Normalisation, activation, convolution to `growth` new channels, put after those of the input.

    With an output width of input + `growth` this is DenseNet. At any other width the output keeps the leading
    `min(input, output - growth)` channels of the input and the convolution makes the rest. At stride 2 the kept
    channels are averaged over 2x2 pixels. `group_width` is the channels per group of the convolution, None for no
    groups: there are as many groups as can have multiples of it on both sides.

    Example:
        >>> layers = Dense(growth=12).lower(BlockIO(32, 32, 16, 28))
        >>> [layer.op.name for layer in layers], sum(layer.params for layer in layers)
        (['ACTIVATION', 'CONV', 'CONCAT'], 1760)
    """

    kind: ClassVar[str] = "dense"
    BRANCHES: ClassVar[tuple[str, ...]] = ("kernel", "growth", "group_width")
    MASKED: ClassVar[tuple[str, ...]] = ("kernel",)
    EXAMPLES: ClassVar[dict[str, tuple[Any, ...]]] = {"growth": (4, 6), "group_width": (None, 2)}

    kernel: int | Choice = 3
    growth: int | Choice = 4
    group_width: int | None | Choice = None
    activation: str = "relu"

    def masked(self) -> tuple[str, ...]:
        return _trunk.masked(super().masked(), self.group_width)

    def check(self, io: BlockIO) -> None:
        super().check(io)
        _, new = _growth.checked(self.growth, io)
        assert isinstance(io.in_channels, int)
        _trunk.check_group_width(self.group_width, input=io.in_channels, new=new)

    def lower(self, io: BlockIO) -> list[Layer]:
        require_concrete(self, io)
        assert isinstance(self.growth, int)
        plan = Plan(io)
        kept, new = _growth.parts(self.growth, io)
        y = plan.activation(plan.input, norm=True)
        y = _trunk.lower_conv(
            plan, y, new, kernel=self.kernel, stride=io.stride, group_width=self.group_width, norm=False
        )
        return plan.layers(_growth.lower(plan, kept, y, io.stride))

    def net(self, io: BlockIO) -> nn.Module:
        return DenseNet(self, io)


class DenseNet(nn.Module):
    """The network of `Dense`."""

    block: Dense
    io: BlockIO

    @nn.compact
    def __call__(self, x: Array, selection: Selection = FROZEN, mode: str = "eval") -> Array:
        block, stride = self.block, self.io.stride
        inp, out = selection.channels(self.io)
        kernel, window = selection.largest("kernel", block.kernel)
        kept, new = _growth.counts(block.growth, inp, out)  # type: ignore[arg-type]
        y = normalised(x, "norm", mode, block.activation, inp, self.io.depthwise)
        y = _trunk.conv(
            y,
            inp,
            new,
            kernel=kernel,
            stride=stride,
            window=window,
            group_width=block.group_width,
            name="conv",
        )
        return _growth.grown(x, new.mask(y), kept, new, stride)


block = Dense
