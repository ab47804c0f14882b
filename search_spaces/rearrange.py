"""Leaf layers that move data and compute nothing: parts of maps, maps side by side, other shapes.

Where widths are searched they keep active channels together at the front. See `search_spaces/layers.py` for the others.
"""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

from search_spaces.channels import Channels, select


class Subsample(nn.Module):
    """Every `stride`-th pixel of a map, from the first."""

    stride: int = 2

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return x[:, :: self.stride, :: self.stride]


class Flatten(nn.Module):
    """`[N, H, W, C]` to `[N, H * W * C]`."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return x.reshape(x.shape[0], -1)


class FitChannels(nn.Module):
    """The leading channels of a map, with zeros after them where it has too few."""

    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        missing = max(0, self.features - x.shape[-1])
        return jnp.pad(x[..., : self.features], ((0, 0), (0, 0), (0, 0), (0, missing)))


class Tile(nn.Module):
    """Channels repeated: channel `j` of `out` is channel `j mod inp` of `x`."""

    @nn.compact
    def __call__(self, x: Array, inp: Channels, out: Channels) -> Array:
        def tiled(count: int) -> Array:
            repeats = -(-out.size // count)
            return jnp.concatenate([x[..., :count]] * repeats, axis=-1)[..., : out.size]

        return out.mask(_by_value(inp, tiled))


class Split(nn.Module):
    """A map cut into parts of `counts` channels, one after another; each part as wide as its largest count."""

    @nn.compact
    def __call__(self, x: Array, counts: tuple[Channels, ...]) -> tuple[Array, ...]:
        start, parts = counts[0].map(lambda _: 0), []
        for count in counts:
            if start.fixed and count.fixed:
                parts.append(x[..., start.size : start.size + count.size])
            else:
                parts.append(count.mask(_window(x, start, count.size)))
            start = start.join(count, lambda a, b: a + b)
        return tuple(parts)


class Concat(nn.Module):
    """Maps one after another: the active channels of each follow those of the one before without a gap.

    `counts` are the channels of every map; None where nothing is left to decide.
    """

    @nn.compact
    def __call__(self, maps: tuple[Array, ...], counts: tuple[Channels, ...] | None = None) -> Array:
        if counts is None or all(count.fixed for count in counts):
            return jnp.concatenate(maps, axis=-1)
        before = counts[0].map(lambda _: 0)
        size = max(sum(values) for values in zip(*(count.values for count in counts), strict=True))
        placed = []
        for part, count in zip(maps, counts, strict=True):
            placed.append(_placed(part, before, size))
            before = before.join(count, lambda a, b: a + b)
        # Past its active channels every part is zero, so that the parts do not disturb each other.
        return sum(placed[1:], placed[0])


class Interleave(nn.Module):
    """`h` tensors of `C` channels each to one of `C * h` in channel-major order `c * h + head`."""

    @nn.compact
    def __call__(self, parts: tuple[Array, ...]) -> Array:
        return jnp.stack(parts, axis=-1).reshape(*parts[0].shape[:-1], -1)


class Deinterleave(nn.Module):
    """The inverse of `Interleave` for vectors `[N, C * h]`."""

    heads: int

    @nn.compact
    def __call__(self, vector: Array) -> tuple[Array, ...]:
        split = vector.reshape(vector.shape[0], -1, self.heads)
        return tuple(split[..., head] for head in range(self.heads))


def _by_value(channels: Channels, function: Callable[[int], Array]) -> Array:
    """`function` of the count in use, computed for every value there is and then selected or mixed."""
    distinct = list(dict.fromkeys(channels.values))
    if len(distinct) == 1:
        return function(distinct[0])
    place = jnp.asarray([distinct.index(value) for value in channels.values])
    assert channels.index is not None
    index = jax.ops.segment_sum(channels.index, place, len(distinct)) if channels.soft else place[channels.index]
    return select(index, [function(value) for value in distinct])


def _window(x: Array, start: Channels, size: int) -> Array:
    """`size` channels of `x` from `start` on, zeros where there are none."""
    padded = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, size)))
    if start.active is None:
        return _by_value(start, lambda first: padded[..., first : first + size])
    return lax.dynamic_slice_in_dim(padded, start.active, size, axis=3)


def _placed(x: Array, start: Channels, size: int) -> Array:
    """`x` moved by `start` channels inside `size` channels, zeros around it."""

    def moved(first: int) -> Array:
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (first, size)))[..., :size]

    if start.active is None:
        return _by_value(start, moved)
    empty = jnp.zeros((*x.shape[:3], size + x.shape[3]), x.dtype)
    return lax.dynamic_update_slice_in_dim(empty, x, start.active, axis=3)[..., :size]
