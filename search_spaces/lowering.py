"""Builders of plain layers, shared by the `lower` methods of the blocks."""

from __future__ import annotations

from hw_models.workload import Layer, Op
from search_spaces.attention import ECA_KERNEL, squeeze_channels
from search_spaces.block import BlockIO


def conv(
    h: int,
    w: int,
    in_channels: int,
    out_channels: int,
    *,
    kernel: int = 1,
    stride: int = 1,
    held: int = 0,
    group: int = 0,
) -> Layer:
    """A dense convolution with SAME padding followed by normalisation.

    Example:
        >>> conv(8, 8, 3, 16, kernel=3).macs
        27648
    """
    out_h, out_w = -(-h // stride), -(-w // stride)
    return Layer(
        Op.CONV,
        h,
        w,
        out_h,
        out_w,
        in_channels,
        out_channels,
        kernel,
        kernel,
        stride,
        norm=1,
        held_elements=held,
        group=group,
    )


def depthwise(io: BlockIO, channels: int, kernel: int, *, heads: int = 1, held: int = 0) -> Layer:
    """`heads` depthwise filters per channel at the stride of `io`; one head is normalised at once, several after they
    are reduced.

    Example:
        >>> from search_spaces.block import BlockIO
        >>> depthwise(BlockIO(8, 8, 16, 16), 16, 3).macs
        9216
    """
    return Layer(
        Op.DEPTHWISE,
        io.in_h,
        io.in_w,
        io.out_h,
        io.out_w,
        channels,
        channels * heads,
        kernel,
        kernel,
        io.stride,
        groups=channels,
        norm=int(heads == 1),
        held_elements=held,
        group=io.group,
    )


def linear(in_features: int, out_features: int, *, held: int = 0, group: int = 0) -> Layer:
    """A fully connected layer with bias."""
    return Layer(Op.LINEAR, 1, 1, 1, 1, in_features, out_features, bias=1, held_elements=held, group=group)


def elementwise(op: Op, h: int, w: int, in_channels: int, out_channels: int, *, norm: int = 0, held: int = 0,
                group: int = 0) -> Layer:  # fmt: skip
    """A layer without weights of its own (`norm` counts a normalisation that follows it)."""
    return Layer(op, h, w, h, w, in_channels, out_channels, norm=norm, held_elements=held, group=group)


def global_pool(h: int, w: int, channels: int, *, held: int = 0, group: int = 0) -> Layer:
    """Mean over all pixels."""
    return Layer(Op.GLOBAL_POOL, h, w, 1, 1, channels, channels, held_elements=held, group=group)


def channel_attention(kind: str, h: int, w: int, channels: int, *, held: int = 0, group: int = 0) -> list[Layer]:
    """The layers of `search_spaces.attention.ChannelAttention`; none for kind `none`.

    The map being scaled stays alive while its factors are computed.
    """
    if kind == "none":
        return []
    waiting = held + h * w * channels
    layers = [global_pool(h, w, channels, held=held, group=group)]
    if kind == "se":
        reduced = squeeze_channels(channels)
        layers += [linear(channels, reduced, held=waiting, group=group)]
        layers += [linear(reduced, channels, held=waiting, group=group)]
    else:
        layers += [channel_conv(channels, ECA_KERNEL, held=waiting, group=group)]
    return [*layers, elementwise(Op.SCALE, h, w, channels, channels, held=held + channels, group=group)]


def channel_conv(channels: int, kernel: int, *, held: int = 0, group: int = 0) -> Layer:
    """A one-filter convolution along the channel axis."""
    return Layer(Op.CHANNEL_CONV, channels, 1, channels, 1, 1, 1, kernel, 1, held_elements=held, group=group)
