"""Equal steps between the smallest and the largest value, as noise in training (FlyNet).

Source: Guerra 2024 (FlyNet), equation 8.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
from jax import Array, lax

from search_spaces.quantizers._quantizer import Quantizer, straight_through
from search_spaces.quantizers._statistics import extremes
from search_spaces.quantizers._uniform import LEAST_STEP, largest_unsigned


@dataclass(frozen=True)
class Noise(Quantizer):
    """`2 ** bits` levels from the smallest to the largest value, 0 not among them; for either.

    Example:
        >>> Noise()(jnp.asarray([1.0, 1.9, 2.6, 4.0]), 2, {}, (0,)).tolist()
        [1.0, 2.0, 3.0, 4.0]
    """

    kind: ClassVar[str] = "noise"
    BITS: ClassVar[tuple[int, int]] = (1, 16)

    def rounded(
        self, x: Array, bits: Array, learned: dict[str, Array], axes: tuple[int, ...], where: Array | None = None
    ) -> Array:
        return straight_through(x, equal_steps(x, *extremes(x, axes, where), largest_unsigned(bits)))


def equal_steps(x: Array, low: Array, high: Array, steps: Any) -> Array:
    """`x` rounded to the ends of `steps` equal steps from `low` to `high`.

    Example:
        >>> equal_steps(jnp.asarray([0.2, 0.8]), jnp.asarray(0.0), jnp.asarray(1.0), 2).tolist()
        [0.0, 1.0]
    """
    step = jnp.maximum(high - low, LEAST_STEP) / steps
    return low + step * jnp.round((x - low) / step)


def with_noise(x: Array, levels: int) -> Array:
    """`x` with the error of rounding it to `levels` levels between its extremes; the gradient passes.

    Example:
        >>> with_noise(jnp.asarray([0.0, 0.2, 0.8, 1.0]), 3).tolist()
        [0.0, 0.0, 1.0, 1.0]
    """
    return x + lax.stop_gradient(equal_steps(x, x.min(), x.max(), levels - 1) - x)


quantizer = Noise
