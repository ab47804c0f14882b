"""Signed powers of two, so that a product is a shift.

Sources: Elhoushi et al. 2019 (DeepShift-Q), https://arxiv.org/abs/1905.13298; Miyashita et al. 2016 (LogNN),
https://arxiv.org/abs/1603.01025; Liang et al. 2021 (survey), equations 22 and 38.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jax import Array

from hw_models.discover import unknown
from search_spaces.quantizers._quantizer import Quantizer, straight_through
from search_spaces.quantizers._statistics import largest, positive
from search_spaces.quantizers._uniform import largest_signed, largest_unsigned, power_of_two

PER_OCTAVE = {"2": 1, "sqrt2": 2}
LEAST_EXPONENT = -126  # of normal float32


@dataclass(frozen=True)
class PowerOfTwo(Quantizer):
    """`sign(x) * base ** round(log_base |x|)`, down from the power nearest to the largest value; for either.

    One code is 0. The others are `2 ** (bits - 1) - 1` powers for each sign, or `2 ** bits - 1` where `signed` is False
    (activations; what is negative becomes 0 without a gradient). What is nearer to 0 than to the least power becomes 0.
    `base` is `2`, or `sqrt2` for half the steps (LogNN), every second of which is no shift. The survey's equation 38
    leaves the sign out.

    Raises:
        InputError: another `base`.

    Example:
        >>> PowerOfTwo()(jnp.asarray([0.25, -0.3, 0.7, 1.5, 3.0]), 4, {}, (0,)).tolist()
        [0.25, -0.25, 0.5, 2.0, 4.0]
    """

    kind: ClassVar[str] = "power_of_two"
    BITS: ClassVar[tuple[int, int]] = (2, 8)

    base: str = "2"
    signed: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.base not in PER_OCTAVE:
            raise unknown("base", self.base, PER_OCTAVE)

    def rounded(
        self, x: Array, bits: Array, learned: dict[str, Array], axes: tuple[int, ...], where: Array | None = None
    ) -> Array:
        per_octave = PER_OCTAVE[self.base]
        most = _nearest_exponent(positive(largest(x, axes, where)), per_octave)
        powers = largest_signed(bits) if self.signed else largest_unsigned(bits)
        least = jnp.maximum(most - powers + 1, LEAST_EXPONENT * per_octave)
        size = jnp.abs(x)
        exponent = jnp.clip(_nearest_exponent(positive(size), per_octave), least, most)
        magnitude = jnp.where(size < _power(least, per_octave) / 2, 0, _power(exponent, per_octave))
        if self.signed:
            return straight_through(x, jnp.sign(x) * magnitude)
        return straight_through(x, jnp.where(x > 0, magnitude, 0), x >= 0)


def _nearest_exponent(size: Array, per_octave: int) -> Array:
    return jnp.round(per_octave * jnp.log2(size))


def _power(exponent: Array, per_octave: int) -> Array:
    octaves = jnp.floor(exponent / per_octave)
    rest = exponent - per_octave * octaves
    return power_of_two(octaves) * jnp.where(rest > 0, np.float32(np.sqrt(2)), np.float32(1))


quantizer = PowerOfTwo
