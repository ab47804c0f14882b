"""Guards of accumulators at their exact limits, and the worst case by adding it up."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_models.errors import InputError
from search_spaces.arithmetic.accumulators import (
    ONE,
    accumulator_range,
    binary_accumulator_bits,
    check_accumulator,
    check_matmul,
    largest_count,
    needed_bits,
)


@pytest.mark.parametrize(("depth", "bits"), [(0, 8), (31, 8), (32, 16), (4095, 16), (4096, 32), (2**27 - 1, 32)])
def test_width_of_binary_accumulators(depth, bits):
    """Dissertation, section 4.1.3: N < 2 ** width / width."""
    assert binary_accumulator_bits(depth) == bits


def test_depths_past_32_bits_are_refused():
    with pytest.raises(InputError, match="depth=134217728 is too much for 32 bits"):
        binary_accumulator_bits(2**27)


@pytest.mark.parametrize(("depth", "dtype"), [(31, np.uint8), (4095, np.uint16)])
def test_the_worst_case_fits_and_one_more_does_not(depth, dtype):
    """Every accumulation adds a full word of differing bits, 8 or 16, in an accumulator of that width."""
    width = np.dtype(dtype).itemsize * 8
    for count, overflows in ((depth, False), (depth + 1, True)):
        total = np.add.reduce(np.full(count, width, dtype), dtype=dtype)
        assert (int(total) != count * width) is overflows


@pytest.mark.parametrize(
    ("first", "second", "bits", "signed", "limit"),
    [
        ((0, 255), (-128, 127), 32, True, 65793),  # survey, 255 * 128 a product
        ((0, 255), (0, 255), 32, True, 33025),
        ((0, 255), ONE, 16, True, 128),  # reduce and scale, int16
        ((0, 255), ONE, 16, False, 257),  # uint16
        ((-128, 127), ONE, 16, True, 256),
        ((-32768, 32767), (-32768, 32767), 32, True, 1),
        ((-1, 1), (-1, 1), 16, False, 0),
        ((0, 0), (-5, 5), 8, True, None),
    ],
)
def test_largest_counts(first, second, bits, signed, limit):
    assert largest_count(first, second, bits, signed) == limit


@given(st.data(), st.integers(4, 20))
def test_a_count_holds_exactly_up_to_its_limit(data, bits):
    ends = st.integers(-(2**8), 2**8)
    first, second = (tuple(sorted(data.draw(st.tuples(ends, ends)))) for _ in range(2))
    products = np.multiply.outer(first, second)
    limit = largest_count(first, second, bits)
    if limit is None:
        assert not products.any()
        return
    low, high = accumulator_range(bits)
    assert limit * min(products.min(), 0) >= low and limit * products.max() <= high
    assert (limit + 1) * products.min() < low or (limit + 1) * products.max() > high
    assert needed_bits(limit, first, second) <= bits < needed_bits(limit + 1, first, second)


def test_the_guard_names_the_fix():
    check_accumulator(128, (0, 255), ONE, 16)
    check_accumulator(10**9, (0, 0), ONE, 8)
    for arguments, message in (
        ((129, (0, 255), ONE, 16), "sum at most 128 at a time, or give it 17 bits"),
        ((258, (0, 255), ONE, 16, False), "unsigned 16-bit accumulator: sum at most 257 at a time, or make it signed"),
        ((65794, (0, 255), (-128, 127), 32), "65794 products of 0 to 255 and -128 to 127 overflow a 32-bit"),
        ((1, (0, 255), (0, 255), 16), "overflow a 16-bit accumulator: give it 17 bits"),
    ):
        with pytest.raises(InputError, match=message):
            check_accumulator(*arguments)


def test_the_guard_of_known_values():
    check_matmul(np.zeros((0, 3)), np.zeros((3, 2)))
    check_matmul(np.full((2, 2), 2**14), np.full((2, 2), 2**15))
    with pytest.raises(InputError, match="sums of 3 products reach 1536, which 8 bits do not hold"):
        check_matmul(np.full((1, 3), -32), np.full((3, 1), 16), 8)
