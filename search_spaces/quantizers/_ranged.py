"""What `affine` and `gaussian` share: unsigned codes lie evenly over a range, and the zero point is whole.

Source: Jacob et al. 2018, https://arxiv.org/abs/1712.05877.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

from jax import Array

from search_spaces.quantizers._quantizer import Quantizer, straight_through
from search_spaces.quantizers._statistics import extremes
from search_spaces.quantizers._uniform import affine, code, largest_unsigned


@dataclass(frozen=True)
class Ranged(Quantizer):
    """Codes 0 to `2 ** bits - 1` over `reach`; the gradient passes everywhere."""

    def observed(self, x: Array, axes: tuple[int, ...]) -> dict[str, Array]:
        return self.completed(*extremes(x, axes), x, axes)

    def completed(
        self, low: Array, high: Array, x: Array, axes: tuple[int, ...], where: Array | None = None
    ) -> dict[str, Array]:
        """What `reach` takes: the extremes of `x`, which may come from a compiled kernel, and what else it needs."""
        return {"low": low, "high": high}

    @abstractmethod
    def reach(self, observed: dict[str, Array], bits: Any) -> tuple[Array, Array]:
        """The lowest and the highest value that have codes of `bits`, from what `observed` gives."""

    def rounded(
        self, x: Array, bits: Array, learned: dict[str, Array], axes: tuple[int, ...], where: Array | None = None
    ) -> Array:
        known = learned if "low" in learned else self.completed(*extremes(x, axes, where), x, axes, where)
        step, zero_point = affine(*self.reach(known, bits), bits)
        return straight_through(x, step * (code(x, step, zero_point, largest_unsigned(bits)) - zero_point))
