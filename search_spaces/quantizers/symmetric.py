"""Signed codes of equal steps, as many on either side of 0.

Sources: Liang et al. 2021 (survey), equations 15 and 32; Jacob et al. 2018, https://arxiv.org/abs/1712.05877.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jax import Array

from search_spaces.quantizers._quantizer import Quantizer, straight_through
from search_spaces.quantizers._statistics import largest
from search_spaces.quantizers._uniform import code, largest_signed, symmetric


@dataclass(frozen=True)
class Symmetric(Quantizer):
    """Codes `-(2 ** (bits - 1) - 1)` to `2 ** (bits - 1) - 1` over the largest absolute value; 2 bits are ternary.

    The survey's equation 15 with `n = 256` has codes to 255 on either side, of nine bits; its equation 32 has 127.

    Example:
        >>> import jax.numpy as jnp
        >>> Symmetric()(jnp.asarray([-3.0, 0.4, 1.2, 3.0]), 3, {}, (0,)).tolist()
        [-3.0, 0.0, 1.0, 3.0]
    """

    kind: ClassVar[str] = "symmetric"

    def observed(self, x: Array, axes: tuple[int, ...]) -> dict[str, Array]:
        return {"largest": largest(x, axes)}

    def rounded(
        self, x: Array, bits: Array, learned: dict[str, Array], axes: tuple[int, ...], where: Array | None = None
    ) -> Array:
        reach = learned["largest"] if "largest" in learned else largest(x, axes, where)
        step, last = symmetric(reach, bits), largest_signed(bits)
        return straight_through(x, step * code(x, step, 0, last, -last))


quantizer = Symmetric
