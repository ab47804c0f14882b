"""Magnitudes on levels that are equally spaced in their logarithm.

Source: Guerra 2024 (SP-Net), section 5.2.1.3, after Miyashita et al. 2016, https://arxiv.org/abs/1603.01025.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from jax import Array

from search_spaces.quantizers._quantizer import Quantizer, straight_through
from search_spaces.quantizers._statistics import extremes, positive
from search_spaces.quantizers._uniform import largest_unsigned


@dataclass(frozen=True)
class Logarithmic(Quantizer):
    """Magnitudes from the smallest to the largest that is not 0, as many of either sign, and 0; for either.

    `2 ** (bits - 1) - 1` magnitudes, so that all codes fit into `bits`; at 2 bits the one in the middle. With
    `magnitude` there are `2 ** bits`, as in the source, and the sign and 0 need codes that prices do not count.
    Equations 5.6 and 5.7 are wrong as printed, for they do not come near x: the power has to be multiplied by the sign
    of x (which equation 5.10 defines and nothing uses) rather than by x, and the logarithm taken of |x|. Nor does base
    sqrt(2) change anything, which the source suggests: scaling between the extremes cancels the base.

    Example:
        >>> x = jnp.asarray([0.5, 0.25, 0.1, -0.3, 0.05])
        >>> [round(value, 3) for value in Logarithmic(magnitude=True)(x, 4, {}, (0,)).tolist()]
        [0.5, 0.232, 0.108, -0.315, 0.05]
        >>> [round(value, 3) for value in Logarithmic()(x, 3, {}, (0,)).tolist()]
        [0.5, 0.158, 0.158, -0.5, 0.05]
    """

    kind: ClassVar[str] = "logarithmic"

    magnitude: bool = False

    def rounded(
        self, x: Array, bits: Array, learned: dict[str, Array], axes: tuple[int, ...], where: Array | None = None
    ) -> Array:
        some = x != 0
        logarithm = jnp.log2(jnp.where(some, jnp.abs(x), 1))
        low, high = extremes(logarithm, axes, some if where is None else some & where)
        span = high - low
        steps = largest_unsigned(bits) if self.magnitude else largest_unsigned(bits - 1) - 1
        share = (logarithm - low) / positive(span)
        level = jnp.where(steps > 0, jnp.round(share * steps) / jnp.maximum(steps, 1), 0.5)
        return straight_through(x, jnp.where(some, jnp.sign(x) * jnp.exp2(level * span + low), 0))


quantizer = Logarithmic
