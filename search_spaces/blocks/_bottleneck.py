"""What blocks that expand, filter and project share: the ends of the bottleneck, on both sides.

The middle (how the expanded channels are filtered) is each block's own.
"""

from __future__ import annotations

from collections.abc import Callable

from jax import Array

from hw_models.workload import Layer, Op
from search_spaces import lowering
from search_spaces.block import BlockIO
from search_spaces.channels import Channels, make_divisible
from search_spaces.layers import Activation, Norm, Pointwise, residual


def expanded(in_channels: int, expand: float) -> int:
    """Channels after the expansion, a multiple of 8; `expand=1` leaves them as they are.

    Example:
        >>> expanded(16, 6), expanded(12, 1)
        (96, 12)
    """
    return in_channels if expand == 1 else make_divisible(in_channels * expand)


def lower(io: BlockIO, hidden: int, expand: float, middle: Callable[[int], list[Layer]]) -> list[Layer]:
    """Layers of expansion (left out for `expand=1`), `middle`, projection and the residual addition.

    `middle(held)` gets the elements that the residual keeps alive besides the tensors of each layer. Widths in `io` are
    concrete.
    """
    assert isinstance(io.in_channels, int) and isinstance(io.out_channels, int)
    adds = io.stride == 1 and io.in_channels == io.out_channels
    held = io.in_h * io.in_w * io.in_channels if adds else 0
    layers = []
    if expand != 1:
        layers.append(lowering.conv(io.in_h, io.in_w, io.in_channels, hidden, group=io.group))
    inner = middle(held)
    if not layers:
        # the first layer reads the residual itself
        inner = [inner[0]._replace(held_elements=0), *inner[1:]]
    layers += inner
    layers.append(lowering.conv(io.out_h, io.out_w, hidden, io.out_channels, held=held, group=io.group))
    if adds:
        layers.append(
            lowering.elementwise(Op.ADD, io.out_h, io.out_w, io.out_channels, io.out_channels, group=io.group)
        )
    return layers


def widen(x: Array, hidden: Channels, expand: float, activation: str, mode: str) -> Array:
    """The expansion of a network; call inside a module's compact method."""
    if expand == 1:
        return x
    y = Norm(name="expand_norm")(Pointwise(hidden.size, name="expand")(x), mode)
    return hidden.mask(Activation(activation)(y))


def narrow(x: Array, y: Array, inp: Channels, out: Channels, io: BlockIO, mode: str) -> Array:
    """The projection of `y` and the residual from `x`; call inside a module's compact method."""
    y = Norm(name="project_norm")(Pointwise(out.size, name="project")(y), mode)
    return residual(x, out.mask(y), inp, out, io.stride, io.tied)
