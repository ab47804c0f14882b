"""Ternary weights with a learned value on either side of 0 (TTQ).

Sources: Zhu et al. 2017, https://arxiv.org/abs/1612.01064; Schindler 2021, equations 5.1 and 5.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
from jax import Array, lax

from hw_models.errors import check_range
from search_spaces.quantizers._quantizer import WEIGHTS, Quantizer, passed
from search_spaces.quantizers._statistics import largest, mean


@dataclass(frozen=True)
class Ttq(Quantizer):
    """`positive` above a threshold, `-negative` below its negative, and 0 between; 2 bits.

    The threshold is `t` times the largest absolute weight, so that more of them are 0 as `t` grows (Schindler: 0.05 to
    0.35). Both values begin at the mean of the weights they stand for. Their gradients are sums over those weights, and
    that of a weight is scaled by its value, by 1 where that is 0 (Zhu et al., equation 8).

    Raises:
        InputError: `t` outside 0 to 1.

    Example:
        >>> values = {"positive": jnp.asarray([2.0]), "negative": jnp.asarray([3.0])}
        >>> Ttq(t=0.3)(jnp.asarray([0.9, -0.2, 0.04, -1.0]), 2, values, (0,)).tolist()
        [2.0, 0.0, 0.0, -3.0]
    """

    kind: ClassVar[str] = "ttq"
    SERVES: ClassVar[tuple[str, ...]] = (WEIGHTS,)
    BITS: ClassVar[tuple[int, int]] = (2, 2)

    t: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("ttq.t", self.t, 0, 1)

    def init(self, x: Array, bits: Any, axes: tuple[int, ...], where: Array | None = None) -> dict[str, Array]:
        above, below = self.sides(x, axes, where)
        counted = jnp.ones((), bool) if where is None else where
        return {"positive": mean(x, axes, above & counted), "negative": mean(-x, axes, below & counted)}

    def sides(self, x: Array, axes: tuple[int, ...], where: Array | None = None) -> tuple[Array, Array]:
        """The weights above the threshold and those below its negative, bool of the shape of `x`."""
        threshold = self.t * largest(x, axes, where)
        return x > threshold, x < -threshold

    def rounded(
        self, x: Array, bits: Array, learned: dict[str, Array], axes: tuple[int, ...], where: Array | None = None
    ) -> Array:
        above, below = self.sides(x, axes, where)
        size = jnp.where(above, learned["positive"], jnp.where(below, learned["negative"], 0))
        slope = jnp.where(above | below, lax.stop_gradient(size), 1)
        return jnp.where(below, -size, size) + passed(x, slope)


quantizer = Ttq
