"""Sizes that a search may still decide: a static list of values, and which of them is in use.

What is in use is a traced index (sampled execution, int32 `[]`) or a probability for every value (relaxed execution,
float32 `[V]`). Everything here is exact under one-hot probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array


def make_divisible(channels: float, divisor: int = 8) -> int:
    """Round to the nearest multiple of `divisor`, at least `divisor`, and never below 90 % of `channels`.

    Source: the rounding rule of the MobileNet family (Howard et al. 2019, https://arxiv.org/abs/1905.02244).

    Example:
        >>> make_divisible(72 / 4), make_divisible(16 * 0.4)
        (24, 8)
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * channels else rounded + divisor


def is_soft(index: Array | None) -> bool:
    """Whether `index` is a probability per value rather than one index."""
    return index is not None and index.ndim == 1


@dataclass(frozen=True)
class Channels:
    """The channel count of one tensor: `values` it may take, `index` (traced) of the one in use.

    Tensors are as wide as the largest value; channels past the active count are zero. All counts inside a block share
    the index of the block's widths, so that what is computed from two of them is computed value by value.

    Example:
        >>> Channels((16, 24), jnp.int32(0)).map(lambda c: 3 * c).values
        (48, 72)
    """

    values: tuple[int, ...]
    index: Array | None = None

    @property
    def size(self) -> int:
        """Channels of the tensor that holds them."""
        return max(self.values)

    @property
    def fixed(self) -> bool:
        """Whether nothing is left to decide."""
        return len(set(self.values)) == 1

    @property
    def soft(self) -> bool:
        """Whether different values are mixed."""
        return not self.fixed and is_soft(self.index)

    @property
    def active(self) -> Array | None:
        """Active channels as a traced int32 `[]`; None when nothing is left to decide, and when values are mixed."""
        if self.fixed or self.soft:
            return None
        return jnp.asarray(self.values, jnp.int32)[self.index]

    def map(self, function: Callable[[int], int]) -> Channels:
        """Channels that depend on these, value by value."""
        return Channels(tuple(function(value) for value in self.values), self.index)

    def join(self, other: Channels, function: Callable[[int, int], int]) -> Channels:
        """Channels that depend on these and on `other` of the same block, value by value.

        Example:
            >>> Channels((8, 16)).join(Channels((16, 16)), lambda a, b: b - a).values
            (8, 0)
        """
        return Channels(tuple(map(function, self.values, other.values)), self.index)

    def combined(self, function: Callable[..., int], *others: Channels) -> Channels:
        """Channels that depend on these and on several `others` of the same block, value by value.

        Example:
            >>> Channels((8, 16)).combined(lambda a, b, c: a + b + c, Channels((1, 2)), Channels((0, 1))).values
            (9, 19)
        """
        return Channels(tuple(map(function, self.values, *(other.values for other in others))), self.index)

    def mask(self, x: Array) -> Array:
        """`x [..., C]` with inactive channels set to zero; `x` itself when nothing is left to decide."""
        if self.fixed:
            return x
        shares = self.shares(x.shape[-1])
        if shares is not None:
            return x * shares.astype(x.dtype)
        active = self.active
        assert active is not None
        return jnp.where(jnp.arange(x.shape[-1]) < active, x, 0)

    def shares(self, size: int) -> Array | None:
        """The probability of each of `size` channels to be in use, `[size]`; None unless values are mixed.

        Example:
            >>> Channels((1, 3), jnp.asarray([0.25, 0.75])).shares(3).tolist()
            [1.0, 0.75, 0.75]
        """
        if not self.soft:
            return None
        assert self.index is not None
        return self.index @ (jnp.arange(size) < jnp.asarray(self.values)[:, None]).astype(self.index.dtype)

    def equal(self, other: Channels) -> bool | Array:
        """Whether both counts are the same: known at once, else traced, 1 or 0 (mixed values: the probability)."""
        same = tuple(a == b for a, b in zip(self.values, other.values, strict=True))
        if all(same) or not any(same):
            return same[0]
        flags = jnp.asarray(same, jnp.float32)
        assert self.index is not None
        return flags @ self.index if is_soft(self.index) else flags[self.index]


def select(index: Array | None, candidates: Sequence[Any]) -> Any:
    """The candidate of the traced `index`, or their mixture; the only one when there is just one.

    Example:
        >>> float(select(jnp.int32(1), [jnp.float32(2), jnp.float32(3)]))
        3.0
        >>> float(select(jnp.asarray([0.5, 0.5]), [jnp.float32(2), jnp.float32(3)]))
        2.5
    """
    if len(candidates) == 1:
        return candidates[0]
    assert index is not None
    if is_soft(index):
        return sum(index[position] * candidate for position, candidate in enumerate(candidates))
    chosen = candidates[0]
    for position, candidate in enumerate(candidates[1:], start=1):
        chosen = jnp.where(index == position, candidate, chosen)
    return chosen
