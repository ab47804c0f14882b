"""Bit-serial products are exact for all widths and signs, and take one binary pass for each pair of planes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw_models.errors import InputError
from search_spaces.arithmetic.accumulators import accumulator_range
from search_spaces.arithmetic.bit_serial import bit_serial_matmul


def operand(rng, bits, signed, shape):
    low, high = accumulator_range(bits, signed)
    return rng.integers(low, high + 1, shape)


@given(
    bits=st.tuples(st.integers(1, 16), st.integers(1, 16)),
    signed=st.tuples(st.booleans(), st.booleans()),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_any_widths_and_signs(bits, signed, seed):
    rng = np.random.default_rng(seed)
    depth = min(40, max(1, 2 ** (31 - sum(bits)) - 1))  # whatever fits int32
    rows, columns = operand(rng, bits[0], signed[0], (3, depth)), operand(rng, bits[1], signed[1], (depth, 4))
    expected = rows.astype(np.int64) @ columns
    if np.abs(rows).sum(1).max() * np.abs(columns).max() >= 2**31:
        return
    result, passes = bit_serial_matmul(rows, columns, *bits, *signed)
    np.testing.assert_array_equal(result, expected)
    assert passes == bits[0] * bits[1]


@pytest.mark.parametrize("bits", [(1, 1), (1, 8), (2, 3), (8, 8), (15, 16), (16, 16)])
@pytest.mark.parametrize("signed", [(True, True), (False, True), (True, False)])
def test_extreme_codes(bits, signed):
    a, w = (np.asarray(accumulator_range(*each)) for each in zip(bits, signed, strict=True))
    result, passes = bit_serial_matmul(a[:, None], w[None, :], *bits, *signed)
    np.testing.assert_array_equal(result, np.multiply.outer(a, w))
    assert passes == bits[0] * bits[1]


def test_worked_values():
    """Survey, equation 24; and 3 * 2, which the dissertation's equation 4.5 makes 24 with planes counted from 1."""
    dot = bit_serial_matmul(np.asarray([[3, 1, 2, 0]]), np.asarray([[1], [2], [3], [3]]), 2, 2, False, False)
    assert (dot.result.item(), dot.passes.item()) == (11, 4)
    assert bit_serial_matmul(np.asarray([[3]]), np.asarray([[2]]), 2, 2, False, False).result.item() == 6
    assert bit_serial_matmul(np.asarray([[3, -4]]), np.asarray([[-2], [1]]), 3, 2).result.item() == -10
    binary = bit_serial_matmul(np.asarray([[1, 0, 1, 1]]), np.asarray([[1], [1], [0], [1]]), 1, 1, False, False)
    assert (binary.result.item(), binary.passes.item()) == (2, 1)


def test_bits_and_signs_are_traced_and_mapped():
    traces = []

    @jax.jit
    def product(rows, columns, a_bits, w_bits, signed):
        traces.append(1)
        return bit_serial_matmul(rows, columns, a_bits, w_bits, signed, signed)

    rng = np.random.default_rng(0)
    for bits in ((4, 2), (3, 7), (8, 8)):
        for signed in (False, True):
            rows, columns = operand(rng, bits[0], signed, (2, 50)), operand(rng, bits[1], signed, (50, 3))
            result, passes = product(rows.astype(np.int32), columns.astype(np.int32), *bits, signed)
            np.testing.assert_array_equal(result, rows @ columns)
            assert passes == bits[0] * bits[1]
    assert len(traces) == 1
    rows, columns = jnp.asarray([[1, 0, 1]]), jnp.asarray([[1], [1], [1]])
    mapped = jax.vmap(lambda bits: bit_serial_matmul(rows, columns, bits, 2))(jnp.asarray([2, 5]))
    assert mapped.result.ravel().tolist() == [2, 2] and mapped.passes.tolist() == [4, 10]


@pytest.mark.parametrize(
    ("rows", "bits", "signed", "message"),
    [
        ([[4]], (3, 2), True, r"activations\[0, 0\] is 4: give integers from -4 to 3"),
        ([[-1]], (3, 2), False, r"activations\[0, 0\] is -1: give integers from 0 to 7"),
        ([[1]], (17, 2), True, "bits of activations 17 is not allowed: give a whole number from 1 to 16"),
        ([[1]], (2, 0), True, "bits of weights 0 is not allowed"),
        ([[1]], (2, np.float32(2.5)), True, "bits of weights 2.5 is not allowed"),
        ([[4]], (np.int64(3), jnp.asarray(2)), np.True_, r"activations\[0, 0\] is 4"),
    ],
)
def test_what_does_not_fit_is_named(rows, bits, signed, message):
    with pytest.raises(InputError, match=message):
        bit_serial_matmul(np.asarray(rows), np.asarray([[1]]), *bits, signed)


def test_sums_that_int32_does_not_hold_are_refused():
    ones = np.full((1, 2), 65535)
    with pytest.raises(InputError, match="sums of 2 products reach 8589672450"):
        bit_serial_matmul(ones, ones.T, 16, 16, False, False)
