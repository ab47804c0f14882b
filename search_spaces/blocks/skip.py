"""Skip: the input itself, and where the shape changes a 1x1 convolution.

Sources: Wu et al. 2019 (FBNet), https://arxiv.org/abs/1812.03443; Su et al. 2021 (NAS-Bench-Macro, CVPR).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
from jax import Array

from hw_models.errors import InputError
from hw_models.workload import Layer
from search_spaces.block import FROZEN, Block, BlockIO, Selection, require_concrete
from search_spaces.layers import Conv
from search_spaces.lowering import Plan
from search_spaces.normalisation import normalised
from search_spaces.rearrange import FitChannels


@dataclass(frozen=True)
class Skip(Block):
    """Identity: no layers, no parameters.

    Where stride or width change the block is refused, unless `project` is set: then it is a 1x1 convolution at that
    stride with normalisation and `activation`: `relu` in the published code of FBNet, `identity` in NAS-Bench-Macro.

    Example:
        >>> Skip().lower(BlockIO(8, 8, 24, 24))
        []
        >>> sum(layer.params for layer in Skip(project=True).lower(BlockIO(32, 32, 16, 24)))
        432
    """

    kind: ClassVar[str] = "skip"
    CONTRACT: ClassVar[dict[str, Any]] = {"project": True}

    project: bool = False
    activation: str = "relu"

    def check(self, io: BlockIO) -> None:
        super().check(io)
        if not self.project and _changes(io):
            raise InputError(
                f"a skip from {io.in_channels} to {io.out_channels} channels at stride {io.stride} cannot be the "
                "identity: set project=True (a 1x1 convolution), or keep stride 1 and the width"
            )

    def lower(self, io: BlockIO) -> list[Layer]:
        require_concrete(self, io)
        assert isinstance(io.out_channels, int)
        plan = Plan(io)
        return plan.layers(plan.conv(plan.input, io.out_channels, stride=io.stride) if _changes(io) else plan.input)

    def net(self, io: BlockIO) -> nn.Module:
        return SkipNet(self, io)


def _changes(io: BlockIO) -> bool:
    return io.stride != 1 or io.in_channels != io.out_channels


class SkipNet(nn.Module):
    """The network of `Skip`."""

    block: Skip
    io: BlockIO

    @nn.compact
    def __call__(self, x: Array, selection: Selection = FROZEN, mode: str = "eval") -> Array:
        stride = self.io.stride
        inp, out = selection.channels(self.io)
        same = inp.equal(out) if stride == 1 else False
        if same is True:
            return x
        y = Conv(out.size, 1, stride, name="project")(x)
        y = normalised(y, "project_norm", mode, self.block.activation, out, self.io.depthwise)
        # Where widths are searched, whether they agree is traced.
        return y if same is False else FitChannels(out.size)(x) * same + y * (1 - same)


block = Skip
