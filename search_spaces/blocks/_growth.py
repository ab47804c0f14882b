"""What dense blocks share: which channels of the input the output keeps, and the concatenation; on both sides."""

from __future__ import annotations

from typing import Any

from jax import Array

from hw_models.errors import InputError
from search_spaces.block import BlockIO
from search_spaces.blocks._trunk import check_count
from search_spaces.channels import Channels
from search_spaces.layers import Pool
from search_spaces.lowering import Plan, Tensor
from search_spaces.rearrange import Concat, FitChannels


def kept_channels(inp: int, out: int, growth: int) -> int:
    """Channels of the input that the output begins with: all, or as many as leave room for `growth` new ones.

    Example:
        >>> kept_channels(16, 28, 12), kept_channels(16, 16, 12)
        (16, 4)
    """
    return min(inp, out - growth)


def parts(growth: int, io: BlockIO) -> tuple[int, int]:
    """Kept and new channels of a block at `io`."""
    assert isinstance(io.in_channels, int) and isinstance(io.out_channels, int)
    kept = kept_channels(io.in_channels, io.out_channels, growth)
    return kept, io.out_channels - kept


def checked(growth: Any, io: BlockIO) -> tuple[int, int]:
    """Kept and new channels of a block at `io`.

    Raises:
        InputError: `growth` is no whole number, or leaves no channel of the input.
    """
    check_count("growth", growth)
    assert isinstance(io.out_channels, int)
    if growth >= io.out_channels:
        raise InputError(
            f"growth={growth} leaves no channel of the input in an output of width {io.out_channels}: give less than "
            f"the width, which is that of the input and growth={growth} more in a DenseNet"
        )
    return parts(growth, io)


def lower(plan: Plan, kept: int, y: Tensor, stride: int) -> Tensor:
    """The leading `kept` channels of the input, averaged at stride 2, and `y`."""
    x = plan.input if kept == plan.input.channels else plan.part(plan.input, kept)
    return plan.concat(x if stride == 1 else plan.pool(x, kernel=2, stride=2), y)


def counts(growth: int, inp: Channels, out: Channels) -> tuple[Channels, Channels]:
    """Kept and new channels of a network."""
    kept = inp.join(out, lambda i, o: kept_channels(i, o, growth))
    return kept, out.join(kept, lambda o, k: o - k)


def grown(x: Array, y: Array, kept: Channels, new: Channels, stride: int) -> Array:
    """The `kept` channels of `x`, averaged at stride 2, and `y`; call inside a module's compact method."""
    if kept.size < x.shape[-1]:
        x = FitChannels(kept.size)(x)
    x = kept.mask(x)
    return Concat()((x if stride == 1 else Pool("mean", 2, 2)(x), y), (kept, new))
