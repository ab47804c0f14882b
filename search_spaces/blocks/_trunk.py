"""What residual and dense blocks share: grouped convolutions, the pair of convolutions, shortcuts; on both sides.

`kernel` and `group_width` are fields of blocks, concrete by the time they come here.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from jax import Array

from hw_models.discover import unknown
from hw_models.errors import InputError
from search_spaces.block import BlockIO, check_kernel
from search_spaces.blocks._grouped import ElasticGroups
from search_spaces.channels import Channels
from search_spaces.kernels.window import Window
from search_spaces.layers import Add, Conv, Pointwise
from search_spaces.lowering import Plan, Tensor
from search_spaces.normalisation import normalised
from search_spaces.rearrange import FitChannels, Subsample

LEAST_EXPAND = 1 / 16
SHORTCUTS = ("projection", "pad", "none")


def group_count(inp: int, out: int, group_width: int | None) -> int:
    """Groups of a convolution from `inp` to `out` channels.

    As many as there can be when every group has a multiple of `group_width` input and output channels; `w` to `w`
    channels are `w / group_width` groups.

    Example:
        >>> group_count(64, 64, 8), group_count(64, 96, 8), group_count(64, 64, None)
        (8, 4, 1)
    """
    return 1 if group_width is None else math.gcd(inp, out) // group_width


def check_group_width(group_width: Any, **widths: int) -> None:
    """Raise InputError unless `group_width` divides all `widths` (by name) that it cuts into groups.

    Example:
        >>> check_group_width(3, input=6, inner=8)
        Traceback (most recent call last):
        ...
        hw_models.errors.InputError: group_width=3 does not divide the inner width 8: give a divisor of 2, or None for \
no groups
    """
    if group_width is None:
        return
    check_count("group_width", group_width, ", or None for no groups")
    for name, width in widths.items():
        if width % group_width:
            raise InputError(
                f"group_width={group_width} does not divide the {name} width {width}: give a divisor of "
                f"{math.gcd(*widths.values())}, or None for no groups"
            )


def check_count(name: str, value: Any, besides: str = "") -> None:
    """Raise InputError unless `value` is a whole number from 1.

    Example:
        >>> check_count("growth", 0)
        Traceback (most recent call last):
        ...
        hw_models.errors.InputError: growth=0 is not allowed: give a whole number from 1
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{name}={value!r} is not allowed: give a whole number from 1{besides}")


def check_shortcut(kind: Any, preactivation: Any) -> None:
    """Raise InputError unless `kind` is a shortcut and `preactivation` is True or False.

    Example:
        >>> check_shortcut("padding", False)
        Traceback (most recent call last):
        ...
        hw_models.errors.InputError: unknown shortcut 'padding': did you mean 'pad'? (known: none, pad, projection)
    """
    if kind not in SHORTCUTS:
        raise unknown("shortcut", str(kind), SHORTCUTS)
    if not isinstance(preactivation, bool):
        raise InputError(f"preactivation={preactivation!r} is not allowed: give True or False")


def lower_conv(plan: Plan, x: Tensor, channels: int, *, kernel: Any, stride: int = 1, group_width: Any = None,
               norm: bool = True) -> Tensor:  # fmt: skip
    """A convolution whose groups are `group_width` channels wide."""
    groups = group_count(x.channels, channels, group_width)
    if groups > 1 and groups == x.channels == channels:
        return plan.depthwise(x, kernel=kernel, stride=stride, norm=norm)
    return plan.conv(x, channels, kernel=kernel, stride=stride, groups=groups, norm=norm)


def masked(names: tuple[str, ...], group_width: Any) -> tuple[str, ...]:
    """Those of `names` that a block can mask: none with groups, which are other channels for every inner width.

    Example:
        >>> masked(("kernel", "expand"), None), masked(("kernel", "expand"), 8)
        (('kernel', 'expand'), ())
    """
    return names if group_width is None else ()


def conv(x: Array, inp: Channels, out: Channels, *, kernel: Any, stride: int = 1, group_width: Any = None,
         name: str, window: Window | None = None) -> Array:  # fmt: skip
    """The convolution of a network; call inside a module's compact method. Inactive channels are left unmasked.

    `window` (traced) is the size of the taps in use, where there are no groups.
    """
    groups = inp.join(out, lambda i, o: group_count(i, o, group_width))
    if group_width is None:
        return Conv(out.size, kernel, stride, name=name)(x, window)
    if groups.fixed and groups.size == 1:
        return Conv(out.size, kernel, stride, name=name)(x)
    inputs = inp.join(groups, lambda width, count: width // count)
    outputs = out.join(groups, lambda width, count: width // count)
    if inputs.fixed and outputs.fixed:
        return Conv(out.size, kernel, stride, out.size // outputs.size, name=name)(x)
    return ElasticGroups(out.size, kernel, stride, name=name)(x, inputs, outputs)


def check_pair(kernel: Any, group_width: Any, inner: int, io: BlockIO) -> None:
    """Raise InputError unless two convolutions with `inner` channels between them can be built at `io`.

    Example:
        >>> check_pair(3, 4, 8, BlockIO(8, 8, 8, 16))
    """
    assert isinstance(io.in_channels, int) and isinstance(io.out_channels, int)
    # the second one sees the smaller map
    check_kernel(kernel, dataclasses.replace(io, in_h=io.out_h, in_w=io.out_w))
    check_group_width(group_width, input=io.in_channels, inner=inner, output=io.out_channels)


def lower_pair(plan: Plan, x: Tensor, inner: int, out: int, *, kernel: Any, stride: int, group_width: Any,
               norm: bool = True) -> Tensor:  # fmt: skip
    """Two convolutions; `norm` says whether the second is normalised."""
    y = lower_conv(plan, x, inner, kernel=kernel, stride=stride, group_width=group_width)
    return lower_conv(plan, y, out, kernel=kernel, group_width=group_width, norm=norm)


def pair(x: Array, inp: Channels, inner: Channels, out: Channels, *, kernel: Any, stride: int,
         group_width: Any, activation: str, mode: str, depthwise: str, norm: bool = True,
         window: Window | None = None) -> Array:  # fmt: skip
    """The two convolutions of a network, normalised and activated in between; call inside a compact method."""
    y = conv(x, inp, inner, kernel=kernel, stride=stride, group_width=group_width, name="conv_1", window=window)
    y = normalised(y, "norm_1", mode, activation, inner, depthwise)
    y = conv(y, inner, out, kernel=kernel, group_width=group_width, name="conv_2", window=window)
    return normalised(y, "norm_2", mode, None, out, depthwise) if norm else out.mask(y)


def lower_shortcut(
    plan: Plan, kind: str, x: Tensor, channels: int, stride: int, activated: Tensor | None = None
) -> Tensor | None:
    """What a block puts beside its convolutions; None where that is nothing.

    `x` itself where the shape stays. Elsewhere a 1x1 convolution (`projection`; of `activated` and not normalised in
    pre-activated blocks), or `x` with every second pixel and zero channels (`pad`).
    """
    if kind == "none":
        return None
    if stride == 1 and x.channels == channels:
        return x
    if kind == "pad":
        return plan.view(x, -(-x.h // stride), -(-x.w // stride), channels)
    if activated is not None:
        return plan.conv(activated, channels, stride=stride, norm=False)
    return plan.conv(x, channels, stride=stride)


def shortcut(kind: str, x: Array, inp: Channels, out: Channels, stride: int, mode: str, depthwise: str,
             activated: Array | None = None) -> Array | None:  # fmt: skip
    """The shortcut of a network; call inside a module's compact method.

    Where widths are searched, whether the shape stays is traced.
    """
    if kind == "none":
        return None
    same = inp.equal(out) if stride == 1 else False
    if same is True:
        return x
    if kind == "pad":
        y = x if stride == 1 else Subsample(stride)(x)
        return out.mask(_fitted(y, out))
    y = x if activated is None else activated
    # At stride 1 a matrix product is the quicker form of the same convolution.
    y = (Pointwise(out.size, name="shortcut") if stride == 1 else Conv(out.size, 1, stride, name="shortcut"))(y)
    plain = activated is not None
    y = out.mask(y) if plain else normalised(y, "shortcut_norm", mode, None, out, depthwise)
    return y if same is False else _fitted(x, out) * same.astype(y.dtype) + y * (1 - same).astype(y.dtype)


def joined(x: Array | None, y: Array) -> Array:
    """The sum with a shortcut, if there is one; call inside a module's compact method."""
    return y if x is None else Add()(x, y)


def _fitted(x: Array, out: Channels) -> Array:
    return x if x.shape[-1] == out.size else FitChannels(out.size)(x)
