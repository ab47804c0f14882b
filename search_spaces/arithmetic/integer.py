"""Integer-only matrix products: zero points, int32 accumulators and bias, and the way back to few bits.

The convention is `x = step * (code - zero_point)`. (The survey has codes per unit instead of a step in its equations 12
to 20 and 31 to 34, `s = 1 / step`, and the zero point with the opposite sign in 35 and 36.) In it, a product is

    sum over n of (a - za) * (w - zw) = a . w - za * sum(w) - zw * sum(a) + N * za * zw

so that zero points cost sums of rows and columns only. The bias has the step of the products, `a_step * w_step`, and
codes of the next layer are sums times the multiplier `a_step * w_step / next_step`.

Shapes: codes `activations [M, N]` and `weights [N, K]`, accumulators `[M, K]`, int32.

Sources: Liang et al. 2021 (survey of pruning and quantization), equations 16 to 20, 35 and 36; Jacob et al. 2018,
https://arxiv.org/abs/1712.05877, sections 2.2 to 2.4; gemmlowp, `fixedpoint/fixedpoint.h`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from hw_models.errors import InputError
from search_spaces.arithmetic.accumulators import accumulator_range, check_matmul

LEAST, LARGEST = accumulator_range(32)


def integer_matmul(
    activations: Any, weights: Any, activation_zero: Any = 0, weight_zero: Any = 0, bias: Any = None
) -> Array:
    """Accumulators int32 of codes with their zero points, and `bias` added, int32 `[K]`.

    `weight_zero` is a scalar or `[K]`. Under `jit`, and only there, int32 wraps around.

    Raises:
        InputError: sums that int32 might not hold.

    Example:
        >>> codes, weights = jnp.asarray([[64, 128, 255]], jnp.uint8), jnp.asarray([[32], [-127], [64]], jnp.int8)
        >>> integer_matmul(codes, weights).tolist(), integer_matmul(codes, weights, bias=jnp.asarray([1619])).tolist()
        ([[2112]], [[3731]])
    """
    a, w = (jnp.asarray(codes).astype(jnp.int32) for codes in (activations, weights))
    za, zw = (jnp.asarray(zero).astype(jnp.int32) for zero in (activation_zero, weight_zero))
    added = jnp.zeros((), jnp.int32) if bias is None else jnp.asarray(bias, jnp.int32)
    # A bias is one more product, by 1.
    check_matmul(*_with_bias(a - za, w - zw, added))
    products = jnp.matmul(a, w, preferred_element_type=jnp.int32)
    corrections = za * w.sum(0) + zw * a.sum(1, keepdims=True) - a.shape[1] * za * zw
    return products - corrections + added


def _with_bias(a: Array, w: Array, bias: Array) -> tuple[Array, Array]:
    row = jnp.broadcast_to(bias, w.shape[1:])[None]
    return jnp.concatenate([a, jnp.ones_like(a, shape=(a.shape[0], 1))], 1), jnp.concatenate([w, row])


def quantize_bias(bias: Any, activation_step: Any, weight_step: Any) -> Array:
    """Bias as int32 codes `[K]` of step `activation_step * weight_step`, rounded half to even.

    Raises:
        InputError: a code does not fit into int32.

    Example:
        >>> quantize_bias([0.1], 1 / 127.5, 1 / 127).tolist()
        [1619]
    """
    # In double precision: float32 would lose the low bits of large codes.
    step = np.asarray(activation_step, np.float64) * np.asarray(weight_step, np.float64)
    codes = np.round(np.asarray(bias, np.float64) / step)
    wrong = ~((codes >= LEAST) & (codes <= LARGEST))
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise InputError(f"code {codes.flat[first]:g} of bias {first} does not fit into int32: give a larger step")
    return jnp.asarray(codes, jnp.int32)


def requantize(accumulators: Any, multiplier: Any, zero_point: Any, low: Any, high: Any) -> Array:
    """Codes `low` to `high` of the next layer, int32, by a float32 multiplier and rounding half to even.

    `multiplier` is a scalar or `[K]`. Sums from `2 ** 24` on are rounded to float32 first.

    Example:
        >>> requantize(jnp.asarray([1, 3, -1000, 1000]), 0.5, 10, 0, 255).tolist()
        [10, 12, 0, 255]
    """
    scaled = jnp.round(jnp.asarray(accumulators).astype(jnp.float32) * jnp.asarray(multiplier, jnp.float32))
    return jnp.clip(scaled, low - zero_point, high - zero_point).astype(jnp.int32) + zero_point


class FixedPoint(NamedTuple):
    """A positive factor `mantissa * 2 ** -(31 + shift)`; int32 scalars or `[K]`, mantissa from `2 ** 30` on."""

    mantissa: Array
    shift: Array


def fixed_point(multiplier: Any) -> FixedPoint:
    """The nearest `FixedPoint` of each multiplier, correct to about 31 bits.

    Raises:
        InputError: a multiplier is not from 2 ** -32 to below 2 ** 31.

    Example:
        >>> fixed_point(0.75)
        FixedPoint(mantissa=Array(1610612736, dtype=int32), shift=Array(0, dtype=int32))
    """
    values = np.asarray(multiplier, np.float64)
    fraction, exponent = np.frexp(values)
    mantissa = np.round(fraction * 2.0**31)
    full = mantissa == 2.0**31
    mantissa, exponent = np.where(full, mantissa / 2, mantissa), np.where(full, exponent + 1, exponent)
    wrong = ~((values > 0) & (exponent >= -31) & (exponent <= 31))
    if wrong.any():
        raise InputError(f"multiplier {values.flat[int(np.flatnonzero(wrong)[0])]} is not allowed: give 2 ** -32 to "
                         "below 2 ** 31, by other steps of the layer")  # fmt: skip
    return FixedPoint(jnp.asarray(mantissa, jnp.int32), jnp.asarray(-exponent, jnp.int32))


def requantize_fixed(accumulators: Any, factor: FixedPoint, zero_point: Any, low: Any, high: Any) -> Array:
    """Codes `low` to `high` of the next layer, int32, in integers alone, as gemmlowp computes them.

    Two roundings: the doubled high half of the product to the nearest, ties up; then the shift to the nearest, ties
    away from zero. Factors of 1 and more shift left first and saturate.

    Example:
        >>> requantize_fixed(jnp.asarray([1, 3, -1000, 1000]), fixed_point(0.5), 10, 0, 255).tolist()
        [11, 12, 0, 255]
    """
    sums = jnp.asarray(accumulators).astype(jnp.int32)
    left, right = jnp.maximum(-factor.shift, 0), jnp.maximum(factor.shift, 0)
    shifted = jnp.where(sums > LARGEST >> left, LARGEST, jnp.where(sums < LEAST >> left, LEAST, sums << left))
    scaled = _rounding_shift(_doubled_high_half(shifted, factor.mantissa), right)
    return jnp.clip(scaled, low - zero_point, high - zero_point) + zero_point


def _doubled_high_half(a: Array, b: Array) -> Array:
    """`floor((a * b + 2 ** 30) / 2 ** 31)` without 64-bit integers, for positive `b`."""
    a, b = jnp.broadcast_arrays(a, b)
    low = a.astype(jnp.uint32) * b.astype(jnp.uint32)
    rounded = low + jnp.uint32(1 << 30)
    high = lax.mulhi(a, b) + (rounded < low)
    return (high << 1) | lax.shift_right_logical(rounded, jnp.uint32(31)).astype(jnp.int32)


def _rounding_shift(x: Array, bits: Array) -> Array:
    mask = (jnp.int32(1) << bits) - 1
    threshold = (mask >> 1) + (x < 0)
    return (x >> bits) + ((x & mask) > threshold)
