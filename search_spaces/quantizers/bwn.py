"""Signs times their mean absolute value (binary weight networks).

Sources: Rastegari et al. 2016, https://arxiv.org/abs/1603.05279, section 3.1; Liang et al. 2021 (survey), 4.2.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from jax import Array

from search_spaces.quantizers._quantizer import WEIGHTS, Quantizer, straight_through
from search_spaces.quantizers._statistics import mean_abs, number
from search_spaces.quantizers.bnn import sign


@dataclass(frozen=True)
class Bwn(Quantizer):
    """Weights as `alpha * sign(w)`, where `alpha` is the mean absolute weight, the scale of least squared error.

    Example:
        >>> [round(value, 2) for value in Bwn()(jnp.asarray([-1.5, 0.1, 0.5]), 1, {}, (0,)).tolist()]
        [-0.7, 0.7, 0.7]
    """

    kind: ClassVar[str] = "bwn"
    SERVES: ClassVar[tuple[str, ...]] = (WEIGHTS,)
    BITS: ClassVar[tuple[int, int]] = (1, 1)

    def rounded(
        self, x: Array, bits: Array, learned: dict[str, Array], axes: tuple[int, ...], where: Array | None = None
    ) -> Array:
        return scaled_sign(x, axes, where)


def scaled_sign(x: Array, axes: tuple[int, ...], where: Array | None = None) -> Array:
    """Signs of `x` times the mean absolute value over `axes`; the slope of the gradient is `1 / n + alpha [|x| <= 1]`.

    That slope is the source's: of the derivative through `alpha` it keeps the part of the same entry.

    Example:
        >>> scaled_sign(jnp.asarray([-3.0, 1.0]), (0,)).tolist()
        [-2.0, 2.0]
    """
    alpha = mean_abs(x, axes, where)
    return straight_through(x, alpha * sign(x), 1 / number(x, axes, where) + alpha * (jnp.abs(x) <= 1))


quantizer = Bwn
