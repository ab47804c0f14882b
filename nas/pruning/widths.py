"""Which smaller blocks there are: how the fields of a block set the channels inside it."""

from __future__ import annotations

from collections.abc import Callable

from hw_models.errors import InputError
from search_spaces.block import Block, BlockIO
from search_spaces.blocks._bottleneck import expanded
from search_spaces.blocks._trunk import LEAST_EXPAND

WIDEST_EXPAND = 64
HIDDEN = ("inverted_residual", "flynet")
# the layers that write the channels inside a block, where those follow from a ratio of the output width
RATIO = {"residual": ("conv_1",), "sigmoidal_residual": ("conv_1",), "bottleneck_residual": ("reduce", "conv")}
PLAIN = ("conv_norm", "depthwise_separable", "skip", "pool", "transition")
KINDS = (*HIDDEN, *RATIO, *PLAIN, "dense", "classifier")


def ratio_of(channels: int, base: int) -> float | None:
    """The `expand` by which a block has that many inner channels, None where there is none.

    Example:
        >>> ratio_of(24, 48), ratio_of(20, 20), ratio_of(20, 48)
        (0.5, 1.0, None)
    """
    ratio = 1.0 if channels == base else channels / base
    fits = LEAST_EXPAND <= ratio <= WIDEST_EXPAND and expanded(base, ratio) == channels
    return ratio if fits else None


def next_inner(channels: int, base: int) -> int | None:
    """The least number of inner channels, from `channels` on, that a ratio of the width `base` makes.

    Example:
        >>> next_inner(19, 48), next_inner(19, 20)
        (24, 20)
    """
    return next((count for count in range(channels, channels + 8) if ratio_of(count, base) is not None), None)


def expresses(block: Block) -> bool:
    """Whether channels of a block, and those that it reads, can be removed.

    Not in blocks of other kinds, whose branches are equal parts of a width, nor where groups or the bottleneck of
    squeeze-and-excitation follow from a width.

    Example:
        >>> from search_spaces.blocks.flynet import FlyNet
        >>> expresses(FlyNet()), expresses(FlyNet(attention="se"))
        (True, False)
    """
    grouped = getattr(block, "group_width", None) is not None or getattr(block, "groups", 1) != 1
    return block.kind in KINDS and not grouped and getattr(block, "attention", "none") != "se"


def resized(block: Block, io: BlockIO, width: Callable[[str], int]) -> Block:
    """The block whose layers write `width(layer)` channels, at a place `io` of other widths.

    Raises:
        InputError: no field says so.

    Example:
        >>> from search_spaces.blocks.flynet import FlyNet
        >>> resized(FlyNet(expand=3), BlockIO(8, 8, 8, 8), {"depthwise": 17}.get).hidden
        17
    """
    assert isinstance(io.in_channels, int) and isinstance(io.out_channels, int)
    if block.kind in HIDDEN:
        keeps = getattr(block, "keep_expansion", False)
        if block.settled("expand") == 1 and not keeps:
            return block
        # of a block that keeps its expansion at 1 the width could not be given there
        expand = 2 if block.settled("expand") == 1 else block.settled("expand")
        return block.with_values(expand=expand, hidden=width("depthwise"))
    if block.kind in RATIO:
        channels = width(RATIO[block.kind][0])
        ratio = ratio_of(channels, io.out_channels)
        if ratio is None:
            raise InputError(f"{block.kind} of width {io.out_channels} cannot have {channels} inner channels: give the "
                             "output width or a multiple of 8")  # fmt: skip
        return block.with_values(expand=ratio)
    if block.kind == "dense":
        return block.with_values(growth=width("conv"))
    if block.kind == "classifier":
        features = getattr(block, "features", 0) and width("conv")
        hidden = tuple(width(f"hidden_{n}" if n else "hidden") for n in range(len(getattr(block, "hidden_layers", ()))))
        return block.with_values(features=features, hidden=hidden)
    return block
