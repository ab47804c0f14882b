"""Weights on few learned values, in intervals that nested means divide (N-ary quantization).

Source: Schindler 2021, section 5.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jax import Array, lax
from jax.scipy.special import ndtri

from hw_models.discover import unknown
from hw_models.errors import InputError, check_range
from search_spaces.quantizers._quantizer import WEIGHTS, Quantizer, passed
from search_spaces.quantizers._statistics import constant, mean

TWO_BITS = {"ternary": (1, 1), "quaternary+": (1, 2), "quaternary-": (2, 1)}  # values below and above 0
THRESHOLDS = ("nested_means", "quantiles")
MOST_T = 100


class Intervals(NamedTuple):
    """Which weights lie in which interval, bool of the shape of `x`; the others are 0."""

    minus_2: Array
    minus_1: Array
    plus_1: Array
    plus_2: Array


@dataclass(frozen=True)
class Nary(Quantizer):
    """A learned value for every interval of the weights, and 0 for the one around 0.

    1 bit is binary (no 0), 2 bits what `two_bits` says (`ternary`, `quaternary+` with two values above 0, `quaternary-`
    with two below), 3 bits quinary. Thresholds are nested means, the innermost times `t` for more zeros, or `quantiles`
    of a normal distribution that hold the same share each, the source's baseline. Every value begins at the mean of its
    interval, its gradient is the sum over it (equation 5.21), and weights pass theirs on. (Equation 5.19 negates the
    outermost threshold below 0, which is negative already.)

    Raises:
        InputError: an unknown form or way to find thresholds; `t` that is not positive, or that goes with quantiles.

    Example:
        >>> w = jnp.asarray([-4.0, -2.0, -1.0, 1.0, 2.0, 3.0, 6.0])
        >>> ternary = Nary()
        >>> ternary(w, 2, ternary.init(w, 2, (0,)), (0,)).tolist()
        [-4.0, 0.0, 0.0, 0.0, 0.0, 4.5, 4.5]
    """

    kind: ClassVar[str] = "nary"
    SERVES: ClassVar[tuple[str, ...]] = (WEIGHTS,)
    BITS: ClassVar[tuple[int, int]] = (1, 3)

    two_bits: str = "ternary"
    thresholds: str = "nested_means"
    t: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.two_bits not in TWO_BITS:
            raise unknown("form of 2 bits", self.two_bits, TWO_BITS)
        if self.thresholds not in THRESHOLDS:
            raise unknown("way to find thresholds", self.thresholds, THRESHOLDS)
        check_range("nary.t", self.t, 0, MOST_T)
        if self.thresholds == "quantiles" and self.t != 1:
            raise InputError(f"nary.t={self.t} does not go with quantiles: leave it at 1, or use nested_means")

    def init(self, x: Array, bits: Any, axes: tuple[int, ...], where: Array | None = None) -> dict[str, Array]:
        parts = self.intervals(x, self.inside(bits), axes, where)._asdict()
        counted = jnp.ones((), bool) if where is None else where
        return {name: mean(x, axes, part & counted) for name, part in parts.items()}

    def intervals(self, x: Array, bits: Array, axes: tuple[int, ...], where: Array | None = None) -> Intervals:
        """Which weights lie in which interval."""
        below, above = self._values(bits)
        if self.thresholds == "quantiles":
            minus, plus = _quantiles(x, bits, below, above, axes, where)
        else:
            binary = bits == 1
            plus = [jnp.where(binary, 0, each) for each in nested_means(x, 2, axes, where, t=self.t)]
            minus = [jnp.where(binary, 0, each) for each in nested_means(x, 2, axes, where, t=self.t, side=-1)]
        far_plus, far_minus = (x >= plus[1]) & (above == 2), (x < minus[1]) & (below == 2)
        return Intervals(far_minus, (x < minus[0]) & ~far_minus, (x >= plus[0]) & ~far_plus, far_plus)

    def _values(self, bits: Array) -> tuple[Array, Array]:
        """How many values lie below and above 0."""
        below, above = (jnp.where(bits == 2, two, jnp.where(bits < 2, 1, 2)) for two in TWO_BITS[self.two_bits])
        return below, above

    def rounded(
        self, x: Array, bits: Array, learned: dict[str, Array], axes: tuple[int, ...], where: Array | None = None
    ) -> Array:
        levels = jnp.zeros_like(x)
        for name, part in self.intervals(lax.stop_gradient(x), bits, axes, where)._asdict().items():
            levels = jnp.where(part, learned[name], levels)
        return levels + passed(x)


def nested_means(
    x: Array, number: int, axes: tuple[int, ...], where: Array | None = None, *, t: float = 1.0, side: int = 1
) -> list[Array]:
    """`number` thresholds outwards from 0, above it or (`side` -1) below: each the mean of what lies beyond the last.

    The first is multiplied by `t`, and those after it follow.

    Example:
        >>> w = jnp.asarray([-4.0, -2.0, -1.0, 1.0, 2.0, 3.0, 6.0])
        >>> [each.item() for each in nested_means(w, 2, (0,))]
        [3.0, 4.5]
        >>> round(nested_means(w, 1, (0,), side=-1)[0].item(), 4)
        -2.3333
    """
    x = constant(x)
    counted = jnp.ones(x.shape, bool) if where is None else jnp.broadcast_to(where, x.shape)
    threshold, found = jnp.zeros(()), []
    for place in range(number):
        beyond = x >= threshold if side > 0 else x < threshold
        found.append(threshold := mean(x, axes, beyond & counted) * (t if place == 0 else 1))
    return found


def _quantiles(
    x: Array, bits: Array, below: Array, above: Array, axes: tuple[int, ...], where: Array | None
) -> tuple[list[Array], list[Array]]:
    """Two thresholds downwards and two upwards, between equal shares of a normal distribution."""
    x = constant(x)
    centre = mean(x, axes, where)
    spread = jnp.sqrt(mean(jnp.square(x - centre), axes, where))
    zero = bits > 1
    shares = below + above + zero

    def threshold(place: Array) -> Array:
        # one value alone on a side has no second threshold, and `intervals` leaves it out
        return centre + spread * ndtri(jnp.clip(place / shares, 1e-6, 1 - 1e-6))

    first = below + zero
    return [threshold(below), threshold(below - 1)], [threshold(first), threshold(first + 1)]


quantizer = Nary
