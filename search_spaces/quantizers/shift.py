"""Sums of few signed powers of two, one from each codebook (ShiftCNN).

Sources: Gudovskiy and Rigazio 2017, https://arxiv.org/abs/1706.02393; Liang et al. 2021 (survey), equation 21.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
from jax import Array

from hw_models.errors import InputError, whole
from search_spaces.quantizers._quantizer import EXACT_BITS, WEIGHTS, Quantizer, straight_through
from search_spaces.quantizers._statistics import largest, positive
from search_spaces.quantizers._uniform import largest_signed, power_of_two

LEAST_BITS = 2  # of one codebook: 0 and a power of either sign


@dataclass(frozen=True)
class Shift(Quantizer):
    """Weights as the sum of `codebooks` signed powers of two, times the largest absolute weight.

    `bits` are those of a weight, so that each codebook has `bits / codebooks` of them, and they have to divide evenly;
    traced ones are rounded down. (The survey names its results by codebooks and bits of each, and takes two of 4 bits
    for 7/32 of the size; 8/32 it is.) Every codebook takes the entry nearest to what is left by those before it.

    Example:
        >>> Shift()(jnp.asarray([1.0, 0.7, -0.4]), 8, {}, (0,)).tolist()
        [1.0, 0.75, -0.375]
    """

    kind: ClassVar[str] = "shift"
    SERVES: ClassVar[tuple[str, ...]] = (WEIGHTS,)

    codebooks: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("shift.codebooks", self.codebooks, 1, 4)

    def check_bits(self, bits: int) -> None:
        super().check_bits(bits)
        least = LEAST_BITS * self.codebooks
        if bits != EXACT_BITS and (bits < least or bits % self.codebooks):
            nearest = max(least, bits - bits % self.codebooks)
            raise InputError(
                f"bits={bits} are not known to quantizer shift with {self.codebooks} codebooks: give a multiple of "
                f"{self.codebooks} from {least} to {self.BITS[1]} (nearest: {nearest})"
            )

    def rounded(
        self, x: Array, bits: Array, learned: dict[str, Array], axes: tuple[int, ...], where: Array | None = None
    ) -> Array:
        scale = positive(largest(x, axes, where))
        each = jnp.maximum(jnp.floor(bits / self.codebooks), LEAST_BITS)
        total = jnp.zeros_like(x)
        for place in range(self.codebooks):
            total = total + nearest_entry(x / scale - total, each, place)
        return straight_through(x, scale * total)


def nearest_entry(x: Array, bits: Any, place: int) -> Array:
    """The entry of codebook `place` (from 0) that is nearest to `x`: 0, or `2 ** -place` and lower powers, signed.

    There are `floor((2 ** bits - 1) / 2)` powers; the bracket in the survey's equation 21 is a floor.

    Example:
        >>> nearest_entry(jnp.asarray([0.8, -0.7, 0.01, 0.007]), 4, 0).tolist()
        [1.0, -0.5, 0.015625, 0.0]
    """
    size = jnp.abs(x)
    least = -place - largest_signed(bits) + 1
    mantissa, exponent = jnp.frexp(positive(size))
    power = power_of_two(jnp.clip(exponent - 1 + (mantissa >= 0.75), least, -place))
    return jnp.sign(x) * jnp.where(size < power_of_two(least) / 2, 0, power)


quantizer = Shift
