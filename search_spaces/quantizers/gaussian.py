"""Unsigned codes over the range of least squared error for normally distributed values.

Sources: Max 1960, https://doi.org/10.1109/TIT.1960.1057548 (table II, equal spacing); Cai et al. 2017 (half-wave
Gaussian quantization), https://arxiv.org/abs/1702.00953; Banner et al. 2019 (the range from statistics, as tensors come
along), https://arxiv.org/abs/1810.05723.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jax import Array

from search_spaces.quantizers._ranged import Ranged
from search_spaces.quantizers._statistics import constant, number
from search_spaces.quantizers._uniform import largest_unsigned

MOST_BITS = 16


@dataclass(frozen=True)
class Gaussian(Ranged):
    """As `affine`, the range cut where that makes the squared error of a normal distribution least; whole zero point.

    What few bits need: an outlier in reach of 4 bits leaves all else a level or two. The distribution has mean 0 and
    the mean square of all entries that are not 0, as after a normalisation; where none is negative it is its upper
    half, as after a ReLU. At 8 bits the range ends 3.9 and 4.2 standard deviations out, at 4 bits 2.4 and 2.9. Values
    that are lopsided in another way, as after hard swish or SiLU, lose more with it than with `affine`: many small
    negative ones make the mean square small. The gradient passes everywhere.

    Example:
        >>> x = jnp.asarray([0.0, 0.4, 1.1] * 20 + [25.0])
        >>> [round(value, 2) for value in Gaussian()(x, 3, {}, (0,))[-4:].tolist()]
        [0.0, 0.0, 1.41, 9.87]
    """

    kind: ClassVar[str] = "gaussian"
    BITS: ClassVar[tuple[int, int]] = (2, MOST_BITS)

    def completed(
        self, low: Array, high: Array, x: Array, axes: tuple[int, ...], where: Array | None = None
    ) -> dict[str, Array]:
        return {"low": low, "high": high, "spread": spread(x, axes, where)}

    def reach(self, observed: dict[str, Array], bits: Any) -> tuple[Array, Array]:
        return cut(observed["low"], observed["high"], observed["spread"], bits)


def cut(low: Array, high: Array, deviation: Array, bits: Any) -> tuple[Array, Array]:
    """The range `low` to `high` of values, no wider than that of a mean square of `deviation ** 2` should be.

    Example:
        >>> [round(value.item(), 2) for value in cut(jnp.float32(-9), jnp.float32(9), jnp.float32(1), 4)]
        [-2.71, 2.37]
        >>> [round(value.item(), 2) for value in cut(jnp.float32(0), jnp.float32(2), jnp.float32(1), 4)]
        [0.0, 2.0]
    """
    place, last = jnp.asarray(bits, jnp.int32), largest_unsigned(bits)
    both, upper = (deviation * jnp.asarray(each)[place] for each in _steps())
    below = (last + 1) / 2
    most = jnp.where(low < 0, both * (below - 1), upper * last)
    return jnp.maximum(low, -both * below), jnp.minimum(high, most)


def spread(x: Array, axes: tuple[int, ...], where: Array | None = None) -> Array:
    """The root of the mean square of the entries that are not 0.

    Example:
        >>> spread(jnp.asarray([3.0, 0.0, 0.0, -3.0]), (0,)).tolist()
        [3.0]
    """
    x = constant(x)
    counted = x != 0 if where is None else (x != 0) & where
    return jnp.sqrt(jnp.sum(x * x, axes, keepdims=True, where=where) / number(x, axes, counted))


@lru_cache(maxsize=1)
def _steps() -> tuple[np.ndarray, np.ndarray]:
    """By bits, the steps for both sides of a normal distribution of variance 1 and for its upper half."""
    known = range(2, MOST_BITS + 1)
    both = [best_step(2 ** (bits - 1), 2 ** (bits - 1) - 1) for bits in known]
    upper = [best_step(2**bits - 1, 2**bits - 1) for bits in known]
    none = [0.0] * known.start
    return np.asarray(none + both, np.float32), np.asarray(none + upper, np.float32)


def best_step(below: int, above: int) -> float:
    """Between levels, so many of them below and above 0, that make the squared error of a normal distribution least.

    Example:
        >>> round(best_step(1, 1), 4), round(best_step(7, 7), 4)  # 3 and 15 levels, table II of Max: 1.224 and .3534
        (1.224, 0.3534)
    """
    # here, not above: it takes most of a second, and every command loads this file
    from scipy.optimize import minimize_scalar
    from scipy.stats import norm

    place = np.concatenate([np.arange(below), np.arange(above)])

    def error(step: float) -> float:
        # the level of x is a sum of steps, one for each edge below it: E[x q] and E[q^2] are sums over edges
        edges = (place + 0.5) * step
        return float(step**2 * ((2 * place + 1) * norm.sf(edges)).sum() - 2 * step * norm.pdf(edges).sum())

    widest = 8 / above  # nothing is further out than 8 standard deviations
    return float(minimize_scalar(error, bounds=(0, widest), method="bounded", options={"xatol": 1e-9 * widest}).x)


quantizer = Gaussian
