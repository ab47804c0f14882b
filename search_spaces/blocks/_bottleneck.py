"""What blocks that expand, filter and project share: the ends of the bottleneck, on both sides.

The middle (how the expanded channels are filtered) is each block's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array

from hw_models.errors import InputError
from hw_models.workload import Layer
from search_spaces.block import BlockIO
from search_spaces.channels import Channels, is_soft, make_divisible
from search_spaces.layers import Conv, Pointwise, residual
from search_spaces.lowering import Plan, Tensor
from search_spaces.normalisation import normalised
from search_spaces.rearrange import FitChannels, Interleave, Split


def expanded(in_channels: int, expand: float) -> int:
    """Channels after the expansion, a multiple of 8; `expand=1` leaves them as they are.

    Example:
        >>> expanded(16, 6), expanded(12, 1)
        (96, 12)
    """
    return in_channels if expand == 1 else make_divisible(in_channels * expand)


def thinned(hidden: int, density: float | None, group_width: int | None = None) -> int:
    """The `density` of `hidden` channels, a multiple of 8 and of `group_width`, no more than they are; or all of them.

    Example:
        >>> thinned(96, 0.5), thinned(96, 0.01), thinned(4, 0.5), thinned(96, 0.25, 16), thinned(96, None)
        (48, 8, 4, 32, 96)
    """
    if density is None or density >= 1:
        return hidden
    return min(hidden, make_divisible(hidden * density, math.lcm(8, group_width or 1)))


def check_hidden(hidden: int | None, expand: Any) -> None:
    """Raise InputError unless `hidden`, a width given in place of the expanded one, can be used.

    Example:
        >>> check_hidden(16, 1)
        Traceback (most recent call last):
        ...
        hw_models.errors.InputError: hidden=16 with expand=1 is not allowed: drop one of them
    """
    if hidden is not None and (expand == 1 or hidden < 1):
        raise InputError(f"hidden={hidden} with expand={expand} is not allowed: drop one of them")


def lower(
    io: BlockIO,
    hidden: int,
    expand: float,
    middle: Callable[[Plan, Tensor], Tensor],
    *,
    groups: int = 1,
    keep: bool = False,
) -> list[Layer]:
    """Layers of expansion (left out for `expand=1` unless `keep`), `middle`, projection and the residual addition.

    `groups` are those of both 1x1 convolutions. A channel shuffle moves every number once, as a concatenation does.
    """
    plan = Plan(io)
    y = plan.input
    if expand != 1 or keep:
        y = plan.conv(y, hidden, groups=groups)
        y = plan.concat(*(plan.part(y, hidden // groups) for _ in range(groups))) if groups > 1 else y
    return plan.layers(project(plan, io, middle(plan, y), groups=groups))


def project(plan: Plan, io: BlockIO, y: Tensor, *, groups: int = 1) -> Tensor:
    """The projection and, where the shapes match, the residual addition."""
    assert isinstance(io.out_channels, int)
    y = plan.conv(y, io.out_channels, groups=groups)
    adds = io.stride == 1 and io.in_channels == io.out_channels
    return plan.add(y, plan.input) if adds else y


def widen(
    x: Array,
    hidden: Channels,
    expand: Channels,
    activation: str,
    mode: str,
    io: BlockIO,
    *,
    groups: int = 1,
    keep: bool = False,
) -> Array:
    """The expansion of a network by the ratio `expand`; call inside a module's compact method.

    Several `groups` need widths and ratios that are not searched; their channels are shuffled (ShuffleNet's channel
    shuffle).
    """
    left_out = False if keep else expand.equal(expand.map(lambda _: 1))
    if left_out is True:
        return x
    y = _pointwise(hidden.size, groups, "expand")(x)
    # where the expansion is left out none of its channels is in use
    used = hidden if left_out is False else hidden.join(expand, lambda width, ratio: 0 if ratio == 1 else width)
    y = normalised(y, "expand_norm", mode, activation, used, io.depthwise)
    if left_out is not False:
        unchanged = FitChannels(hidden.size)(x)
        if is_soft(expand.index):
            return left_out.astype(x.dtype) * unchanged + y
        return jnp.where(left_out == 1, unchanged, y)
    if groups == 1:
        return y
    share = hidden.map(lambda channels: channels // groups)
    return Interleave()(Split()(y, (share,) * groups))


def narrow(x: Array, y: Array, inp: Channels, out: Channels, io: BlockIO, mode: str, *, groups: int = 1) -> Array:
    """The projection of `y` and the residual from `x`; call inside a module's compact method."""
    y = normalised(_pointwise(out.size, groups, "project")(y), "project_norm", mode, None, out, io.depthwise)
    return residual(x, y, inp, out, io.stride)


def _pointwise(features: int, groups: int, name: str) -> Conv | Pointwise:
    return Pointwise(features, name=name) if groups == 1 else Conv(features, 1, groups=groups, name=name)
