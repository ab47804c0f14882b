"""Integers of equal steps: `x = step * (code - zero_point)`, the one convention for scales here.

A step is in units per code, as in gemmlowp and ONNX. (The survey's equations 12 to 20 and 31 to 34 have its inverse,
codes per unit, and equations 35 and 36 the zero point with the opposite sign.) Rounding is half to even, as `jnp.round`
and ONNX have it. The number of codes is `2 ** bits` for unsigned ones and `2 ** (bits - 1)` on either side for signed
ones: the survey's `n = 256` in its equation 15 would need nine bits.

Sources: Liang et al. 2021 (survey of pruning and quantization), equations 12 to 20; Jacob et al. 2018,
https://arxiv.org/abs/1712.05877.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array

LEAST_STEP = 1e-12


def affine(low: Any, high: Any, bits: Any) -> tuple[Array, Array]:
    """Step and integer zero point of unsigned codes 0 to `2 ** bits - 1` over `low` to `high`, 0 always included.

    The zero point is a whole number in the type of floats, so that 0 has a code of its own and padding costs nothing
    (the survey's equation 14 leaves it real).

    Example:
        >>> step, zero = affine(-1.0, 3.0, 8)
        >>> round(1 / step.item(), 2), zero.item()
        (63.75, 64.0)
    """
    low, high = jnp.minimum(jnp.asarray(low, jnp.float32), 0), jnp.maximum(jnp.asarray(high, jnp.float32), 0)
    last = largest_unsigned(bits)
    step = jnp.maximum((high - low) / last, LEAST_STEP)
    return step, jnp.clip(jnp.round(-low / step), 0, last)


def symmetric(largest: Any, bits: Any) -> Array:
    """Step of signed codes `-(2 ** (bits - 1) - 1)` to `2 ** (bits - 1) - 1` over plus and minus `largest`; 2 bits on.

    Example:
        >>> symmetric(2.0, 8).item() == 2 / 127
        False
        >>> round(1 / symmetric(2.0, 8).item(), 3)
        63.5
    """
    return jnp.maximum(jnp.asarray(largest, jnp.float32) / largest_signed(bits), LEAST_STEP)


def largest_unsigned(bits: Any) -> Array:
    """The largest unsigned code, `2 ** bits - 1`.

    Example:
        >>> largest_unsigned(8).item()
        255.0
    """
    return power_of_two(bits) - 1


def largest_signed(bits: Any) -> Array:
    """The largest signed code, `2 ** (bits - 1) - 1`.

    Example:
        >>> largest_signed(8).item()
        127.0
    """
    return power_of_two(jnp.asarray(bits, jnp.float32) - 1) - 1


def power_of_two(exponent: Any) -> Array:
    """2 to a whole `exponent`, exactly, in float32; XLA's own `exp2` is off by a rounding on CPUs, at 13 for example.

    Example:
        >>> power_of_two(13).item(), power_of_two(-3.0).item()
        (8192.0, 0.125)
    """
    return jnp.ldexp(jnp.float32(1), jnp.asarray(exponent).astype(jnp.int32))


def unit_levels(x: Any, bits: Any) -> Array:
    """`x`, of 0 to 1, on `2 ** bits` equally spaced levels from 0 to 1.

    Sources: Zhou et al. 2016 (DoReFa-Net), https://arxiv.org/abs/1606.06160, equation 5; equation 5.2 of Guerra 2024.

    Example:
        >>> round(unit_levels(0.4, 2).item(), 4)
        0.3333
    """
    last = largest_unsigned(bits)
    return jnp.round(x * last) / last


def code(x: Any, step: Any, zero_point: Any, last: Any, first: Any = 0) -> Array:
    """The codes of `x`, whole numbers in the type of floats, clipped to `first` to `last`.

    Example:
        >>> code(jnp.asarray([-2.0, 0.0, 3.0]), *affine(-1.0, 3.0, 8), 255).tolist()
        [0.0, 64.0, 255.0]
    """
    return jnp.clip(jnp.round(x / step) + zero_point, first, last)
