"""Inception block: parallel convolutions of several kernel sizes on the same input, one after another in the output.

Sources: Szegedy et al. 2015, "Going Deeper with Convolutions", https://arxiv.org/abs/1409.4842; Schindler 2021,
"Compressing and Mapping Deep Neural Networks on Edge Computing Systems" (dissertation, Heidelberg), section 7.1.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import flax.linen as nn
from jax import Array

from hw_models.errors import InputError
from hw_models.workload import Layer
from search_spaces.block import FROZEN, Block, BlockIO, Selection, require_concrete
from search_spaces.blocks._grouped import ElasticGroups
from search_spaces.blocks.mixed_depthwise import check_kernels, divided, even_parts
from search_spaces.channels import Channels
from search_spaces.choice import Choice
from search_spaces.kernels.window import Window
from search_spaces.layers import Activation, Conv, Pool
from search_spaces.lowering import Plan
from search_spaces.normalisation import normalised
from search_spaces.rearrange import Concat

POOL_KERNEL = 3


@dataclass(frozen=True)
class Inception(Block):
    """Convolutions of `kernels` side by side, each normalised and activated; their widths add up to the output.

    `widths` gives the output width of every convolution; None shares the output evenly, with what is left over in the
    first. `reduce` puts a 1x1 convolution to so many channels in front of each (0: none). `pool` is the width of one
    more branch, 3x3 max-pooling and a 1x1 convolution (0: no such branch). The stride is that of the convolutions of
    `kernels` and of the pooling. `norm=False` is the published form: bias, no normalisation.

    `group_width` is the number of input channels per group of the kernels above 1 (None: one group). It must divide
    their input, and the number of groups their output. Where widths are searched such that the outputs per group
    differ, the supernet runs them as dense convolutions with zeros between the groups; single networks do not.

    Widths cannot be searched with `widths`, `reduce` or `pool`, which are numbers for one width.

    Example:
        >>> module_3a = Inception((1, 3, 5), widths=(64, 128, 32), reduce=(0, 96, 16), pool=32, norm=False)
        >>> sum(layer.params for layer in module_3a.lower(BlockIO(28, 28, 192, 256)))
        163696
    """

    kind: ClassVar[str] = "inception"
    BRANCHES: ClassVar[tuple[str, ...]] = ("kernels", "group_width")
    EXAMPLES: ClassVar[dict[str, tuple[Any, ...]]] = {"kernels": ((1, 3), (5,)), "group_width": (None, 4)}

    kernels: tuple[int, ...] | Choice = (1, 3, 5)
    group_width: int | None | Choice = None
    widths: tuple[int, ...] | None = None
    reduce: tuple[int, ...] | None = None
    pool: int = 0
    norm: bool = True
    activation: str = "relu"

    def parts(self, out_channels: int) -> tuple[int, ...]:
        """Output width of every convolution of `kernels`."""
        assert isinstance(self.kernels, tuple)
        return self.widths or even_parts(out_channels - self.pool, len(self.kernels))

    def reduced(self, position: int) -> int:
        """Width of the 1x1 convolution in front of a branch, 0 for none."""
        return self.reduce[position] if self.reduce else 0

    def groups(self, kernel: int, channels: int) -> int:
        """Groups of a convolution on `channels`."""
        assert not isinstance(self.group_width, Choice)
        return 1 if self.group_width is None or kernel == 1 else channels // self.group_width

    def check(self, io: BlockIO) -> None:
        super().check(io)
        check_kernels(self.kernels, io)
        self._check_widths(io)
        self._check_groups(io)

    def _check_widths(self, io: BlockIO) -> None:
        assert isinstance(self.kernels, tuple) and isinstance(io.out_channels, int)
        number = len(self.kernels)
        if not _is_count(self.pool, 0):
            raise InputError(f"pool={self.pool!r} is not allowed: give the width of its branch, or 0 for none")
        for name, least in (("widths", 1), ("reduce", 0)):
            value = getattr(self, name)
            if value is None:
                continue
            if not isinstance(value, tuple) or not all(_is_count(entry, least) for entry in value):
                raise InputError(
                    f"{name}={value!r} is not allowed: give a tuple of whole numbers from {least}, or None"
                )
            if len(value) != number:
                raise InputError(f"{name}={value!r} has {len(value)} entries for {number} kernels: give one per kernel")
        if self.widths is not None and sum(self.widths) + self.pool != io.out_channels:
            raise InputError(
                f"widths={self.widths!r} with pool={self.pool} make {sum(self.widths) + self.pool} channels, the width "
                f"is {io.out_channels}: make them equal"
            )
        if self.widths is None and io.out_channels - self.pool < number:
            raise InputError(
                f"kernels={self.kernels!r} with pool={self.pool} do not fit a width of {io.out_channels}: "
                f"give at least {number + self.pool}"
            )

    def _check_groups(self, io: BlockIO) -> None:
        assert isinstance(self.kernels, tuple) and isinstance(io.in_channels, int) and isinstance(io.out_channels, int)
        width = self.group_width
        if width is None:
            return
        if not _is_count(width, 1):
            raise InputError(f"group_width={width!r} is not allowed: give a whole number from 1, or None for one group")
        assert isinstance(width, int)
        for position, (kernel, part) in enumerate(zip(self.kernels, self.parts(io.out_channels), strict=True)):
            source = self.reduced(position) or io.in_channels
            if kernel == 1:
                continue
            if source % width:
                raise InputError(f"group_width={width} does not divide the {source} input channels of kernel {kernel}: "
                                 "give a divisor of them, or None")  # fmt: skip
            if part % (source // width):
                raise InputError(
                    f"group_width={width} makes {source // width} groups of {source} input channels, which do not "
                    f"divide the {part} output channels of kernel {kernel}: give a larger group_width, or widths that "
                    "they divide"
                )

    def check_elastic(self, io: BlockIO) -> None:
        for name, absent in (("widths", None), ("reduce", None), ("pool", 0)):
            if getattr(self, name) != absent:
                raise InputError(
                    f"{name}={getattr(self, name)!r} fits one width only, and widths are searched here: leave it "
                    "out, or fix the widths of this stage and of the one before"
                )

    def lower(self, io: BlockIO) -> list[Layer]:
        require_concrete(self, io)
        assert isinstance(io.out_channels, int) and isinstance(self.kernels, tuple)
        plan, norm, bias, maps = Plan(io), self.norm, not self.norm, []
        for position, (kernel, part) in enumerate(zip(self.kernels, self.parts(io.out_channels), strict=True)):
            x, reduced = plan.input, self.reduced(position)
            if reduced:
                x = plan.conv(x, reduced, norm=norm, bias=bias)
            groups = self.groups(kernel, x.channels)
            maps.append(plan.conv(x, part, kernel=kernel, stride=io.stride, groups=groups, norm=norm, bias=bias))
        if self.pool:
            pooled = plan.pool(plan.input, kernel=POOL_KERNEL, stride=io.stride)
            maps.append(plan.conv(pooled, self.pool, norm=norm, bias=bias))
        return plan.layers(plan.concat(*maps))

    def net(self, io: BlockIO) -> nn.Module:
        return InceptionNet(self, io)


class InceptionNet(nn.Module):
    """The network of `Inception`. Branches are numbered, so that those of other kernels share their weights."""

    block: Inception
    io: BlockIO

    @nn.compact
    def __call__(self, x: Array, selection: Selection = FROZEN, mode: str = "eval") -> Array:
        block, io = self.block, self.io
        assert isinstance(block.kernels, tuple) and not isinstance(block.group_width, Choice)
        inp, out = selection.channels(io)
        # Given widths come with an output that is fixed.
        counts = divided(out, len(block.kernels))
        if block.widths or block.pool:
            counts = tuple(out.map(lambda _, part=part: part) for part in block.parts(out.size))  # type: ignore[misc]
        made = partial(unit, norm=block.norm, activation=block.activation, mode=mode, depthwise=io.depthwise)
        maps = []
        for position, (kernel, count) in enumerate(zip(block.kernels, counts, strict=True)):
            y, source, reduced, name = x, inp, block.reduced(position), f"branch_{position}"
            if reduced:
                source = inp.map(lambda _, reduced=reduced: reduced)  # type: ignore[misc]
                y = made(y, source, name=f"{name}_reduce")
            width = None if kernel == 1 else block.group_width
            maps.append(made(y, count, name=name, kernel=kernel, stride=io.stride, source=source, group_width=width))
        if block.pool:
            counts = (*counts, out.map(lambda _: block.pool))
            maps.append(made(Pool("max", POOL_KERNEL, io.stride)(x), counts[-1], name="pool"))
        return maps[0] if len(maps) == 1 else Concat()(tuple(maps), counts)


def unit(x: Array, out: Channels, *, name: str, norm: bool, activation: str, mode: str, depthwise: str, kernel: int = 1,
         stride: int = 1, source: Channels | None = None, group_width: int | None = None,
         window: Window | None = None) -> Array:  # fmt: skip
    """Convolution, normalisation (or bias) and activation to `out` channels; call inside a module's compact method.

    `group_width` channels of `source`, the channels of `x`, make a group; None makes one group of all, of whose taps
    the centre of `window` is in use (traced; None: all). `depthwise` is that of `BlockIO`.
    """
    bias = not norm
    if group_width is None:
        y = Conv(out.size, kernel, stride, bias=bias, name=name)(x, window)
    else:
        assert source is not None
        per_group = source.join(out, lambda a, b: b * group_width // a)
        if per_group.fixed:
            y = Conv(out.size, kernel, stride, source.size // group_width, bias=bias, name=name)(x)
        else:
            inputs = per_group.map(lambda _: group_width)
            y = ElasticGroups(out.size, kernel, stride, bias, name=name)(x, inputs, per_group)
    if norm:
        return normalised(y, f"{name}_norm", mode, activation, out, depthwise)
    return out.mask(Activation(activation)(y))


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


block = Inception
