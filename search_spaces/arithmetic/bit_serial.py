"""Matrix products of integers of any 1 to 16 bits, one pair of bit planes after the other: the bit-serial scheme.

    a . b = sum over n < a_bits, m < w_bits of weight(n) * weight(m) * count(a_n AND b_m)

`weight(n)` is `2 ** n`, and `-2 ** n` for the highest plane of integers in two's complement. A pass is one pair of
planes, so that the time grows with `a_bits * w_bits`. Bits and signs are traced: one compiled program serves all.

Shapes: `activations [M, N]`, `weights [N, K]`, result `[M, K]`, int32.

Sources: Schindler, dissertation (Heidelberg 2021), equation 4.5. Errata: its planes count from 1, which gives four
times the product, and cover unsigned integers only, in a chapter on signed ones. Liang et al. 2021 (survey of pruning
and quantization), equation 24, counts from 0.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from hw_models.errors import whole
from search_spaces.arithmetic.accumulators import accumulator_range, check_matmul
from search_spaces.arithmetic.packing import check_values

WIDEST = 16
_WORD = 32


class BitSerial(NamedTuple):
    """A product `result`, int32 `[M, K]`, and the binary `passes` that it took, int32 scalar."""

    result: Array
    passes: Array


def bit_serial_matmul(
    activations: Any, weights: Any, a_bits: Any, w_bits: Any, a_signed: Any = True, w_signed: Any = True
) -> BitSerial:
    """The product of integer matrices by `a_bits * w_bits` binary passes.

    Signed integers are in two's complement, also those of 1 bit: 0 and -1. Under `jit`, and only there, int32 wraps
    around, so that the result is exact wherever it fits.

    Raises:
        InputError: unknown bits, a value that does not fit them, sums that int32 might not hold.

    Example:
        >>> bit_serial_matmul(jnp.asarray([[3, 1, 2, 0]]), jnp.asarray([[1], [2], [3], [3]]), 2, 2, False, False)
        BitSerial(result=Array([[11]], dtype=int32), passes=Array(4, dtype=int32))
    """
    activations, weights = jnp.asarray(activations), jnp.asarray(weights)
    for name, values, bits, signed in (
        ("activations", activations, a_bits, a_signed),
        ("weights", weights, w_bits, w_signed),
    ):
        if not any(isinstance(option, jax.core.Tracer) for option in (bits, signed)):
            width = whole(f"bits of {name}", bits if isinstance(bits, int) else np.asarray(bits).item(), 1, WIDEST)
            check_values(values, *accumulator_range(width, bool(signed)), name)
    check_matmul(activations, weights)
    return _passes(activations, weights, *(jnp.asarray(x, jnp.int32) for x in (a_bits, w_bits, a_signed, w_signed)))


def _planes(values: Array, axis: int) -> Array:
    """All bit planes of `values`, packed along `axis`, which becomes the last: `[WIDEST, ..., ceil(N / 32)]`."""
    along = jnp.moveaxis(values.astype(jnp.int32), axis, -1)
    along = jnp.pad(along, ((0, 0), (0, -along.shape[-1] % _WORD)))
    words = along.reshape(along.shape[0], -1, _WORD).astype(jnp.uint32)
    planes = (words >> jnp.arange(WIDEST, dtype=jnp.uint32)[:, None, None, None]) & 1
    return (planes << jnp.arange(_WORD, dtype=jnp.uint32)).sum(-1, dtype=jnp.uint32)


def _weight(plane: Array, bits: Array, signed: Array) -> Array:
    sign = jnp.where((plane == bits - 1) & (signed != 0), -1, 1)
    return sign << plane


@jax.jit
def _passes(
    activations: Array, weights: Array, a_bits: Array, w_bits: Array, a_signed: Array, w_signed: Array
) -> BitSerial:
    a_planes, w_planes = _planes(activations, 1), _planes(weights, 0)

    def one(_: Array, so_far: BitSerial) -> BitSerial:
        n, m = so_far.passes // w_bits, so_far.passes % w_bits
        both = a_planes[n][:, None, :] & w_planes[m][None, :, :]
        count = lax.population_count(both).astype(jnp.int32).sum(-1)
        scale = _weight(n, a_bits, a_signed) * _weight(m, w_bits, w_signed)
        return BitSerial(so_far.result + scale * count, so_far.passes + 1)

    start = BitSerial(jnp.zeros((activations.shape[0], weights.shape[1]), jnp.int32), jnp.zeros((), jnp.int32))
    return lax.fori_loop(0, a_bits * w_bits, one, start)
