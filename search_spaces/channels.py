"""Channel counts that a search may still decide: a static list of values and the traced index of the active one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Channels:
    """The channel count of one tensor: `values` it may take, `index` (traced) of the one in use.

    Tensors are as wide as the largest value; channels past the active count are zero.

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
    def active(self) -> Array | None:
        """Active channels as a traced int32 `[]`, or None when nothing is left to decide."""
        if len(set(self.values)) == 1:
            return None
        return jnp.asarray(self.values, jnp.int32)[self.index]

    def map(self, function: Callable[[int], int]) -> Channels:
        """Channels that depend on these, value by value."""
        return Channels(tuple(function(value) for value in self.values), self.index)

    def mask(self, x: Array) -> Array:
        """`x [..., C]` with inactive channels set to zero; `x` itself when nothing is left to decide."""
        active = self.active
        return x if active is None else jnp.where(jnp.arange(x.shape[-1]) < active, x, 0)


def select(index: Array | None, candidates: Sequence[Array]) -> Array:
    """The candidate of the traced `index`; the only one when there is just one.

    Example:
        >>> float(select(jnp.int32(1), [jnp.float32(2), jnp.float32(3)]))
        3.0
    """
    if len(candidates) == 1:
        return candidates[0]
    chosen = candidates[0]
    for position, candidate in enumerate(candidates[1:], start=1):
        chosen = jnp.where(index == position, candidate, chosen)
    return chosen
