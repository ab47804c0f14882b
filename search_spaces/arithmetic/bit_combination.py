"""Matrix products of packed low-bit integers in two SIMD stages: the bit-combination scheme.

A register of `register_bits` holds `A` accumulators, one column of the result each, and an accumulator as many bits as
`W` operands (equation 4.3):

    A = register_bits / accumulator_bits,   W = accumulator_bits / bits
    c[i, j] = sum over N / W words of (sum over the W operands of a word of a[i, n] * b[n, j])

The inner sum is the second SIMD stage, `multiply_add` of two words; the outer one, which broadcasts `a` along the
columns, the first. Only the second stage depends on the width: products of lanes for 16, 8 and 4 bits, AND, XOR and
counts of bits for 2 bits, XOR and a count for 1 bit.

Shapes: `rows [M, ceil(N / W)]` and `columns [ceil(N / W), K]` in words of `packing.pack`, result `[M, K]`, int32.

Source: Schindler, dissertation (Heidelberg 2021), sections 4.1.1 and 4.1.2. Erratum: equation 4.4 prints XNOR with the
formula for XOR; its listing uses XOR. Right are both of

    a . b = N - 2 * count(a XOR b) = 2 * count(a XNOR b) - N
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from hw_models.errors import InputError
from search_spaces.arithmetic.accumulators import check_matmul
from search_spaces.arithmetic.packing import check_length, lanes, unpack, values_per_word

_ODD = 0x55555555  # the low bit of every two


class Lanes(NamedTuple):
    """What a SIMD register holds: `accumulators` (A), and `operands` for each of them (W)."""

    accumulators: int
    operands: int


def simd_lanes(bits: int, register_bits: int = 128, accumulator_bits: int = 32) -> Lanes:
    """Accumulators in a register and operands for each of them; 128 bits are those of ARM NEON.

    Raises:
        InputError: widths that do not divide each other.

    Example:
        >>> simd_lanes(8), simd_lanes(1)
        (Lanes(accumulators=4, operands=4), Lanes(accumulators=4, operands=32))
    """
    if register_bits % accumulator_bits:
        raise InputError(f"register_bits={register_bits} are no multiple of accumulator_bits={accumulator_bits}: "
                         "give a multiple")  # fmt: skip
    return Lanes(register_bits // accumulator_bits, values_per_word(bits, accumulator_bits))


def _count(words: Array) -> Array:
    return lax.population_count(words).astype(jnp.int32)


def _two_bits(a: Array, b: Array) -> Array:
    """Counts the magnitudes of positive and of negative products, each weighted by 1, 2 or 4."""
    low = jnp.asarray(_ODD).astype(a.dtype)
    one_a, one_b = a & low, b & low  # 1 and -1
    sign_a, sign_b = (a >> 1) & low, (b >> 1) & low
    two_a, two_b = sign_a & ~one_a, sign_b & ~one_b  # -2
    negative = sign_a ^ sign_b
    ones, twos = one_a & one_b, (one_a & two_b) | (two_a & one_b)
    signed = [_count(x & ~negative) - _count(x & negative) for x in (ones, twos)]
    return signed[0] + 2 * signed[1] + 4 * _count(two_a & two_b)


def multiply_add(a: Array, b: Array, bits: int) -> Array:
    """The sum of the products of all operands in each pair of words, the second SIMD stage: int32, as `a` and `b`.

    Of 1 bit, operands that only fill a word up count as -1 times -1.

    Example:
        >>> from search_spaces.arithmetic.packing import pack
        >>> a, b = pack(jnp.asarray([[3, -2, 5], [4, 7, -8]]), 8)
        >>> multiply_add(a, b, 8).tolist()
        [-42]
    """
    if bits == 1:
        return a.dtype.itemsize * 8 - 2 * _count(a ^ b)
    if bits == 2:
        return _two_bits(a, b)
    return (lanes(a, bits) * lanes(b, bits)).sum(-1)


def packed_matmul(rows: Any, columns: Any, bits: int, length: int) -> Array:
    """The product of packed matrices, int32 `[M, K]`; `length` is N, which padding hides.

    Under `jit`, `bits` and `length` are static. There int32 wraps around, so that the result is exact wherever it fits:
    `accumulators.check_accumulator` says for what N it always does.

    Raises:
        InputError: unequal words, a `length` that does not go with them, sums that int32 might not hold.

    Example:
        >>> from search_spaces.arithmetic.packing import pack
        >>> rows, columns = jnp.asarray([[1, -8, 7]]), jnp.asarray([[2], [3], [-1]])
        >>> packed_matmul(pack(rows, 4), pack(columns, 4, axis=0), 4, length=3).tolist()
        [[-29]]
    """
    rows, columns = jnp.asarray(rows), jnp.asarray(columns)
    operands = values_per_word(bits, rows.dtype.itemsize * 8)
    if rows.dtype != columns.dtype or rows.shape[1] != columns.shape[0]:
        raise InputError(f"rows of {rows.shape[1]} {rows.dtype} words do not go with columns of {columns.shape[0]} "
                         f"{columns.dtype} ones: pack both along N, in words of one width")  # fmt: skip
    check_length(length, rows.shape[1], operands)
    if bits > 2 and not any(isinstance(words, jax.core.Tracer) for words in (rows, columns)):
        # Of 2 bits and less no memory holds enough of them.
        check_matmul(unpack(np.asarray(rows), bits, length), unpack(np.asarray(columns), bits, length, axis=0))
    padding = rows.shape[1] * operands - length if bits == 1 else 0
    return _accumulate(rows, columns, bits) - padding


@functools.partial(jax.jit, static_argnames="bits")
def _accumulate(rows: Array, columns: Array, bits: int) -> Array:
    def step(total: Array, words: tuple[Array, Array]) -> tuple[Array, None]:
        row, column = words
        return total + multiply_add(row[:, None], column[None, :], bits), None

    start = jnp.zeros((rows.shape[0], columns.shape[1]), jnp.int32)
    return lax.scan(step, start, (rows.T, columns))[0]


def dot_from_xor(a: Array, b: Array, length: Any) -> Array:
    """Dot product of -1 and +1, from the bits that differ: int32 `[...]` of words `[..., ceil(N / W)]`.

    Example:
        >>> from search_spaces.arithmetic.packing import pack
        >>> a, b = pack(jnp.asarray([[1, 1, 1, -1], [1, 1, -1, -1]]), 1, 8)
        >>> dot_from_xor(a, b, 4).item(), dot_from_xnor(a, b, 4).item()
        (2, 2)
    """
    return length - 2 * _count(a ^ b).sum(-1)


def dot_from_xnor(a: Array, b: Array, length: Any) -> Array:
    """The same from the bits that agree, less those that fill the last word up.

    Example:
        >>> from search_spaces.arithmetic.packing import pack
        >>> a = pack(jnp.asarray([1, -1, 1]), 1)
        >>> dot_from_xnor(a, a, 3).item()
        3
    """
    padding = a.shape[-1] * a.dtype.itemsize * 8 - length
    return 2 * (_count(~(a ^ b)).sum(-1) - padding) - length
