"""Unsigned codes over the range of the values, with a whole zero point.

Sources: Jacob et al. 2018, https://arxiv.org/abs/1712.05877; Liang et al. 2021 (survey), equations 12 to 14.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from jax import Array

from search_spaces.quantizers._ranged import Ranged


@dataclass(frozen=True)
class Affine(Ranged):
    """Codes 0 to `2 ** bits - 1` from the smallest to the largest value, 0 included; for weights and activations.

    The zero point is whole, so that 0 stays exactly 0; the survey's equation 14 leaves it real. 2 bits on: a zero point
    leaves 1 bit one level besides 0.

    Example:
        >>> import jax.numpy as jnp
        >>> Affine()(jnp.asarray([-1.0, 0.0, 0.9, 2.0]), 2, {}, (0,)).tolist()
        [-1.0, 0.0, 1.0, 2.0]
    """

    kind: ClassVar[str] = "affine"

    def reach(self, observed: dict[str, Array], bits: Any) -> tuple[Array, Array]:
        return observed["low"], observed["high"]


quantizer = Affine
