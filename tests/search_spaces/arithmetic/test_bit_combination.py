"""Products of packed operands equal those of numpy in 64 bits, for signed integers of every width."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models.errors import InputError
from search_spaces.arithmetic.bit_combination import (
    dot_from_xnor,
    dot_from_xor,
    multiply_add,
    packed_matmul,
    simd_lanes,
)
from search_spaces.arithmetic.packing import WIDTHS, pack, signed_range


def operand(seed, bits, shape, largest=2**31):
    low, high = signed_range(bits)
    values = np.random.default_rng(seed).integers(max(low, -largest), min(high, largest) + 1, shape)
    return np.where(values > 0, 1, -1) if bits == 1 else values


@pytest.mark.parametrize("word", [16, 32])
@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 33, 7), (3, 130, 2)])
def test_products_are_those_of_numpy(bits, word, shape):
    m, n, k = shape
    rows, columns = operand(1, bits, (m, n), 4000), operand(2, bits, (n, k), 4000)
    result = packed_matmul(pack(rows, bits, word), pack(columns, bits, word, axis=0), bits, n)
    assert result.dtype == jnp.int32
    np.testing.assert_array_equal(result, rows.astype(np.int64) @ columns)


@pytest.mark.parametrize("bits", WIDTHS)
def test_extreme_operands_are_exact(bits):
    ends = np.asarray(signed_range(bits))
    n = {16: 1, 8: 300}.get(bits, 4096)
    rows, columns = np.repeat(ends[:, None], n, 1), np.repeat(ends[None, :], n, 0)
    result = packed_matmul(pack(rows, bits), pack(columns, bits, axis=0), bits, n)
    np.testing.assert_array_equal(result, rows.astype(np.int64) @ columns)


def test_every_pair_of_two_bit_values_multiplies():
    a, b = (grid.ravel() for grid in np.meshgrid(range(-2, 2), range(-2, 2)))
    words = jnp.asarray(a[:, None]), jnp.asarray(b[:, None])
    np.testing.assert_array_equal(multiply_add(*(pack(x, 2)[:, 0] for x in words), 2), a * b)


@pytest.mark.parametrize("length", [1, 4, 31, 32, 33, 100])
def test_the_identities_of_xor_and_xnor(length):
    a, b = operand(length, 1, length), operand(length + 1, 1, length)
    words = jnp.asarray(pack(a, 1)), jnp.asarray(pack(b, 1))
    assert dot_from_xor(*words, length) == dot_from_xnor(*words, length) == a @ b


def test_the_worked_product_and_what_the_printed_formula_would_give():
    """Dissertation, equation 4.4: XOR counts 1 of these; the formula printed with XNOR, 4 - 2 * 3, would be -2."""
    a, b = (pack(np.asarray(x), 1, 8) for x in ([1, 1, 1, -1], [1, 1, -1, -1]))
    differ = int(np.bitwise_count(a ^ b)[0])
    assert differ == 1 and dot_from_xor(jnp.asarray(a), jnp.asarray(b), 4) == 4 - 2 * differ == 2


def test_it_compiles_and_maps():
    rows, columns = operand(1, 8, (4, 3, 20)), operand(2, 8, (20, 6))
    words = jnp.asarray(pack(rows, 8)), jnp.asarray(pack(columns, 8, axis=0))
    mapped = jax.jit(jax.vmap(lambda a: packed_matmul(a, words[1], 8, 20)))(words[0])
    np.testing.assert_array_equal(mapped, rows.astype(np.int64) @ columns)


def test_lanes_of_a_register():
    """Dissertation, section 4.1.1: A accumulators in a register and W operands for each."""
    assert [tuple(simd_lanes(bits)) for bits in WIDTHS] == [(4, 2), (4, 4), (4, 8), (4, 16), (4, 32)]
    assert tuple(simd_lanes(1, 128, 8)) == (16, 8)
    with pytest.raises(InputError, match="register_bits=100 are no multiple"):
        simd_lanes(8, 100)


def test_what_does_not_fit_together_is_named():
    words = pack(np.full((1, 4), 32767), 16)
    with pytest.raises(InputError, match="rows of 2 uint32 words do not go with columns of 1 uint32"):
        packed_matmul(words, words, 16, 4)
    with pytest.raises(InputError, match="length=5 does not go with 2 words of 2 values: give 3 to 4"):
        packed_matmul(words, words.T, 16, 5)
    with pytest.raises(InputError, match="sums of 4 products reach 4294705156"):
        packed_matmul(words, words.T, 16, 4)
