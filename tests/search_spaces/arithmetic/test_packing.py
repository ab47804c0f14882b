"""Packing is exact for every width, word and axis, and names the first value that does not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models.errors import InputError
from search_spaces.arithmetic.packing import WIDTHS, WORDS, lanes, pack, signed_range, unpack, values_per_word


def random_values(seed, bits, shape):
    low, high = signed_range(bits)
    values = np.random.default_rng(seed).integers(low, high + 1, shape)
    return np.where(values > 0, 1, -1) if bits == 1 else values


PAIRS = [(bits, word) for bits in WIDTHS for word in WORDS if word >= bits]


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
@pytest.mark.parametrize(("bits", "word"), PAIRS)
def test_round_trip(bits, word, array):
    for axis, length in ((-1, 0), (-1, 7), (0, 64), (1, 33)) if array is np.asarray else ((1, 33),):
        shape = [3, 2, 5]
        shape[axis] = length
        values = random_values(length, bits, shape)
        words = pack(array(values), bits, word, axis)
        assert type(words) is type(array(values)) and words.dtype == WORDS[word]
        assert words.shape[axis] == -(-length * bits // word)
        np.testing.assert_array_equal(unpack(words, bits, length, axis), values)


@pytest.mark.parametrize("bits", WIDTHS)
def test_extremes_and_every_value_of_few_bits_survive(bits):
    low, high = signed_range(bits)
    values = np.asarray([low, high] if bits == 1 else range(low, high + 1))
    np.testing.assert_array_equal(unpack(pack(values, bits), bits, len(values)), values)


def test_the_layout_is_least_significant_first_and_padding_is_zero_bits():
    assert pack(np.asarray([1, -2, 3]), 4, 16).tolist() == [0x03E1]
    assert pack(np.asarray([-1, 1]), 1, 8).tolist() == [0b10]
    assert lanes(pack(np.asarray([-1, 1, 1]), 1, 8), 1).tolist() == [[-1, 1, 1, -1, -1, -1, -1, -1]]


def test_packing_runs_under_jit_and_vmap_with_the_same_words():
    values = random_values(0, 4, (5, 19))
    np.testing.assert_array_equal(jax.jit(lambda x: pack(x, 4))(jnp.asarray(values)), pack(values, 4))
    np.testing.assert_array_equal(jax.vmap(lambda x: pack(x, 4))(jnp.asarray(values)), pack(values, 4))


@pytest.mark.parametrize(
    ("values", "bits", "message"),
    [
        ([[1, 2], [3, 8], [-9, 0]], 4, r"values\[1, 1\] is 8: give integers from -8 to 7, or more bits"),
        ([1, 0, -1], 1, r"values\[1\] is 0: give -1 and 1 only"),
        ([0, 1, -3], 2, r"values\[2\] is -3: give integers from -2 to 1"),
        ([2**40], 16, r"values\[0\] is 1099511627776"),
        ([0.5], 8, "values are of type float64: give integers"),
        ([1], 3, "bits=3 are not packed: give one of 16, 8, 4, 2, 1"),
    ],
)
def test_what_does_not_fit_is_named(values, bits, message):
    with pytest.raises(InputError, match=message):
        pack(np.asarray(values), bits)


def test_words_and_lengths_that_do_not_fit_are_named():
    with pytest.raises(InputError, match="word_bits=8 is not allowed for 16 bits: give one of 16, 32"):
        values_per_word(16, 8)
    words = pack(np.ones(9, np.int8), 4)
    for length in (8, 17, -1):
        with pytest.raises(InputError, match="2 words of 8 values: give 9 to 16"):
            unpack(words, 4, length)
