"""Channel attention: squeeze-and-excitation and efficient channel attention, chosen by a traced index.

Attention vectors are small, so every kind that may be chosen is computed and one is selected.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from hw_models.errors import InputError
from search_spaces.channels import Channels, make_divisible, select
from search_spaces.layers import Activation, ChannelConv, Deinterleave, GlobalPool, Interleave, Linear, Scale

KINDS = ("none", "se", "eca")
SE_REDUCTION = 4
ECA_KERNEL = 3
HEAD_ECA_KERNEL = 7


def squeeze_channels(channels: int) -> int:
    """Width of the bottleneck of squeeze-and-excitation, as in MobileNetV3.

    Example:
        >>> squeeze_channels(96)
        24
    """
    return make_divisible(channels / SE_REDUCTION)


def check_kinds(kinds: tuple[str, ...]) -> None:
    """Raise InputError for an unknown kind of attention."""
    for kind in kinds:
        if kind not in KINDS:
            raise InputError(f"unknown attention '{kind}': use one of {', '.join(KINDS)}")


class SqueezeExcite(nn.Module):
    """Per-channel factors `[N, C]` from a two-layer bottleneck (Hu et al. 2018, https://arxiv.org/abs/1709.01507)."""

    channels: Channels
    reduced: Channels

    @nn.compact
    def __call__(self, mean: Array) -> Array:
        y = Linear(self.reduced.size, name="reduce")(mean)
        y = self.reduced.mask(Activation("relu")(y))
        y = Linear(self.channels.size, name="expand")(y)
        return Activation("hard_sigmoid")(y)


class ChannelAttention(nn.Module):
    """Scale the channels of `x` by the attention kind that `index` selects among `kinds`."""

    kinds: tuple[str, ...]

    @nn.compact
    def __call__(self, x: Array, channels: Channels, index: Array | None = None) -> Array:
        if self.kinds == ("none",):
            return x
        mean = GlobalPool()(x)
        factors = []
        for kind in self.kinds:
            if kind == "none":
                factors.append(jnp.ones_like(mean))
            elif kind == "se":
                factors.append(SqueezeExcite(channels, channels.map(squeeze_channels), name="se")(mean))
            else:
                factors.append(Activation("sigmoid")(ChannelConv(ECA_KERNEL, name="eca")(mean)))
        return Scale()(x, select(index, factors))


class HeadAttention(nn.Module):
    """ECA over the `C * h` maps of a multi-head depthwise convolution, before the heads are reduced.

    The one-dimensional convolution runs over the maps in channel-major order `c * h + head`, so its result depends on
    the head count and is computed once for each count that may be chosen.

    Source: Guerra 2024, FlyNet, equations 8.2-8.3 (mean feature and sigmoid only).
    """

    kinds: tuple[str, ...]
    head_counts: tuple[int, ...]

    @nn.compact
    def __call__(
        self, maps: tuple[Array, ...], index: Array | None = None, heads_index: Array | None = None
    ) -> tuple[Array, ...]:
        if "eca" not in self.kinds:
            return maps
        means = tuple(GlobalPool()(values) for values in maps)
        convolution = ChannelConv(HEAD_ECA_KERNEL, name="eca")
        per_count = []
        for count in self.head_counts:
            response = Activation("sigmoid")(convolution(Interleave()(means[:count])))
            factors = Deinterleave(count)(response)
            per_count.append(factors + tuple(jnp.ones_like(means[0]) for _ in range(len(maps) - count)))
        scaled = []
        for head, values in enumerate(maps):
            excited = select(heads_index, [factors[head] for factors in per_count])
            by_kind = [excited if kind == "eca" else jnp.ones_like(excited) for kind in self.kinds]
            scaled.append(Scale()(values, select(index, by_kind)))
        return tuple(scaled)
