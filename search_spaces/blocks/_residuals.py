"""Light residuals of FlyNet: what a block adds to its output, also where the shapes differ; on both sides.

Source: Guerra Fernandez 2024 (PhD thesis, Monash), section 8.4, equation 8.4 and table 8.2.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from search_spaces.block import BlockIO
from search_spaces.channels import Channels, select
from search_spaces.layers import Add, Conv, Depthwise, Pointwise
from search_spaces.lowering import Plan, Tensor
from search_spaces.normalisation import normalised
from search_spaces.rearrange import Concat, FitChannels, Tile

KINDS = ("none", "default", "conv3x3", "depthwise_pointwise", "light")
KERNEL = 3


def lower(plan: Plan, kind: str, x: Tensor, y: Tensor, stride: int) -> Tensor:
    """`y` plus the residual of `kind` from `x`."""
    same = stride == 1 and x.channels == y.channels
    if kind == "none" or (kind == "default" and not same):
        return y
    if same:
        return plan.add(y, x)
    if kind == "conv3x3":
        return plan.add(y, plan.conv(x, y.channels, kernel=KERNEL, stride=stride))
    if kind == "depthwise_pointwise":
        return plan.add(y, plan.conv(plan.depthwise(x, kernel=KERNEL, stride=stride), y.channels))
    if stride != 1:
        tiled = plan.view(x, x.h, x.w, y.channels)
        return plan.add(y, plan.depthwise(tiled, kernel=KERNEL, stride=stride))
    if x.channels > y.channels:
        return plan.add(y, plan.part(x, y.channels))
    filled = plan.depthwise(plan.view(x, x.h, x.w, y.channels - x.channels), kernel=KERNEL)
    return plan.add(y, plan.concat(x, filled))


def add(
    kinds: tuple[str, ...],
    index: Array | None,
    x: Array,
    y: Array,
    inp: Channels,
    out: Channels,
    io: BlockIO,
    mode: str,
) -> Array:
    """`y` plus the residual from `x` that `index` selects among `kinds`; call inside a module's compact method.

    Where widths are searched, whether both shapes match is traced. Where the kind is searched, all of them are computed
    and one is selected.
    """
    parts = [_beside(kind, x, inp, out, io, mode) for kind in kinds]
    if len(parts) == 1:
        return y if parts[0] is None else Add()(parts[0], y)
    return Add()(select(index, [jnp.zeros_like(y) if part is None else part for part in parts]), y)


def _beside(kind: str, x: Array, inp: Channels, out: Channels, io: BlockIO, mode: str) -> Array | None:
    """The residual of one kind; None where it adds nothing."""
    same = inp.equal(out) if io.stride == 1 else False
    if kind == "none" or (kind == "default" and same is False):
        return None
    if same is True:
        return x
    if same is False:
        return _changed(kind, x, inp, out, io, mode)
    same = same.astype(x.dtype)
    identity = FitChannels(out.size)(x) * same
    return identity if kind == "default" else identity + _changed(kind, x, inp, out, io, mode) * (1 - same)


def _changed(kind: str, x: Array, inp: Channels, out: Channels, io: BlockIO, mode: str) -> Array:
    """The residual where stride or width differ."""
    if kind == "conv3x3":
        r = Conv(out.size, KERNEL, io.stride, name="residual_conv")(x)
        return normalised(r, "residual_conv_norm", mode, None, out, io.depthwise)
    if kind == "depthwise_pointwise":
        (r,) = Depthwise(KERNEL, io.stride, implementation=io.depthwise, name="residual_depthwise")(x, inp)
        r = normalised(r, "residual_depthwise_norm", mode, None, inp, io.depthwise)
        r = Pointwise(out.size, name="residual_pointwise")(r)
        return normalised(r, "residual_pointwise_norm", mode, None, out, io.depthwise)
    return _light(x, inp, out, io, mode)


def _light(x: Array, inp: Channels, out: Channels, io: BlockIO, mode: str) -> Array:
    """The leading channels of `x`, and depthwise-filtered ones (one filter each) for those it lacks.

    At stride 2 all of them are filtered, which also samples down. Filters of channels that `x` lacks take its channels
    in turn.
    """
    if io.stride != 1:
        source, kept, count = Tile()(x, inp, out), None, out
    else:
        missing = inp.join(out, lambda i, o: max(o - i, 0))
        kept = inp.join(out, min)
        shown = kept.mask(FitChannels(kept.size)(x))
        if not missing.size:
            return shown
        source, count = Tile()(x, inp, missing), missing
    (filtered,) = Depthwise(KERNEL, io.stride, implementation=io.depthwise, name="residual_light")(source, count)
    filtered = normalised(filtered, "residual_light_norm", mode, None, count, io.depthwise)
    return filtered if kept is None else Concat()((shown, filtered), (kept, count))
