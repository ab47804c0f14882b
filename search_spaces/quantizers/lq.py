"""Levels that are sums of a learned basis, one entry for each bit (LQ-Nets).

Source: Zhang et al. 2018, https://arxiv.org/abs/1807.10029.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from search_spaces.quantizers._quantizer import Quantizer, passed
from search_spaces.quantizers._statistics import constant, mean, mean_abs

MOST_BITS = 4
ROUNDS = 16  # of refinement at the beginning; errors settle before
RIDGE = 1e-6  # keeps entries that are not in use at 0


@dataclass(frozen=True)
class Lq(Quantizer):
    """The nearest of the levels `basis . b`, where the bits `b` are -1 and 1, or 0 and 1 where `signed` is False.

    `basis` has one more axis than scales have, of 4 entries, of which the first `bits` are in use. It begins where
    `refined` brings equal steps. In training its gradient moves it or, as in the source, a moving average of `refined`;
    the gradient of `x` passes.

    Example:
        >>> x = jnp.asarray([-3.0, -1.0, 1.0, 3.0, 3.0])
        >>> lq = Lq()
        >>> [round(value, 3) for value in lq(x, 2, lq.init(x, 2, (0,)), (0,)).tolist()]
        [-3.0, -1.0, 1.0, 3.0, 3.0]
    """

    kind: ClassVar[str] = "lq"
    BITS: ClassVar[tuple[int, int]] = (1, MOST_BITS)

    signed: bool = True

    def init(self, x: Array, bits: Any, axes: tuple[int, ...], where: Array | None = None) -> dict[str, Array]:
        width = self.inside(bits)
        place = jnp.arange(MOST_BITS)
        shares = jnp.where(place < width, 2.0**place, 0)
        # about where equal steps over a normal distribution have their last level
        reach = mean_abs(x, axes, where)[..., None] * (1 + 0.75 * (width - 1))
        start = reach * shares / shares.sum()
        return {"basis": lax.fori_loop(0, ROUNDS, lambda _, basis: self.refined(x, width, basis, axes, where), start)}

    def refined(self, x: Array, bits: Array, basis: Array, axes: tuple[int, ...], where: Array | None = None) -> Array:
        """The basis of least squared error for the bits that `basis` gives every entry (algorithm 1, one round)."""
        x = constant(x)
        used = jnp.arange(MOST_BITS) < bits
        levels, codes = self._sorted(basis, bits)
        b = [jnp.where(used[k], _nearest(x, levels, codes[..., k]), 0) for k in range(MOST_BITS)]
        gram = jnp.stack([jnp.stack([mean(p * q, axes, where) for q in b], -1) for p in b], -2)
        right = jnp.stack([mean(p * x, axes, where) for p in b], -1)
        return jnp.linalg.solve(gram + RIDGE * jnp.eye(MOST_BITS), right[..., None])[..., 0]

    def _sorted(self, basis: Array, bits: Array) -> tuple[Array, Array]:
        """Levels in rising order `[..., 16]` and their bits `[..., 16, 4]`."""
        values = (-1.0, 1.0) if self.signed else (0.0, 1.0)
        codes = jnp.asarray(np.array(list(itertools.product(values, repeat=MOST_BITS)), np.float32))
        levels = jnp.sum(codes * jnp.where(jnp.arange(MOST_BITS) < bits, basis, 0)[..., None, :], -1)
        order = jnp.argsort(lax.stop_gradient(levels), -1)
        return jnp.take_along_axis(levels, order, -1), codes[order]

    def rounded(
        self, x: Array, bits: Array, learned: dict[str, Array], axes: tuple[int, ...], where: Array | None = None
    ) -> Array:
        levels, _ = self._sorted(learned["basis"], bits)
        return _nearest(lax.stop_gradient(x), levels, levels) + passed(x)


def _nearest(x: Array, levels: Array, values: Array) -> Array:
    """For every entry of `x` the one of `values [..., 16]` that belongs to the nearest of the rising `levels`."""
    middles = lax.stop_gradient(levels[..., 1:] + levels[..., :-1]) / 2
    chosen = values[..., 0]
    for place in range(middles.shape[-1]):
        chosen = jnp.where(x >= middles[..., place], values[..., place + 1], chosen)
    return chosen


quantizer = Lq
