"""Equal steps whose size is learned (LSQ).

Source: Esser et al. 2020, https://arxiv.org/abs/1902.08153.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
from jax import Array, lax

from search_spaces.quantizers._quantizer import Quantizer, passed
from search_spaces.quantizers._statistics import gradient_scale, mean_abs, positive
from search_spaces.quantizers._uniform import LEAST_STEP, largest_signed, largest_unsigned


@dataclass(frozen=True)
class Lsq(Quantizer):
    """Codes `-2 ** (bits - 1)` to `2 ** (bits - 1) - 1`, or 0 to `2 ** bits - 1` where `signed` is False.

    The gradient of the step is scaled by `1 / sqrt(n q)`, where `q` is the largest code and `n` how many entries share
    the step; of activations (`signed` False) the leading axis, the batch, does not count.

    Example:
        >>> Lsq()(jnp.asarray([-9.0, 0.6, 1.4, 9.0]), 3, {"step": jnp.ones(1)}, (0,)).tolist()
        [-4.0, 1.0, 1.0, 3.0]
    """

    kind: ClassVar[str] = "lsq"

    signed: bool = True

    def init(self, x: Array, bits: Any, axes: tuple[int, ...], where: Array | None = None) -> dict[str, Array]:
        most = self.codes(self.inside(bits))[1]
        return {"step": positive(2 * mean_abs(x, axes, where) / jnp.sqrt(most))}

    def codes(self, bits: Array) -> tuple[Array, Array]:
        """The least and the largest code."""
        if self.signed:
            most = largest_signed(bits)
            return -most - 1, most
        return jnp.zeros_like(bits), largest_unsigned(bits)

    def rounded(
        self, x: Array, bits: Array, learned: dict[str, Array], axes: tuple[int, ...], where: Array | None = None
    ) -> Array:
        least, most = self.codes(bits)
        step = jnp.maximum(lax.stop_gradient(learned["step"]), LEAST_STEP)
        ratio = x / step
        inside = (ratio > least) & (ratio < most)
        code = jnp.clip(jnp.round(ratio), least, most)
        slope = (code - jnp.where(inside, ratio, 0)) * gradient_scale(x, axes, where, most, not self.signed)
        return lax.stop_gradient(code * step) + passed(x, inside) + passed(learned["step"], slope)


quantizer = Lsq
