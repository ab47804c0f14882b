"""Integer products with zero points, bias and both ways of requantizing, exactly."""

from fractions import Fraction
from math import floor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw_models.errors import InputError
from search_spaces.arithmetic.integer import (
    fixed_point,
    integer_matmul,
    quantize_bias,
    requantize,
    requantize_fixed,
)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 1), (4, 37, 5), (2, 600, 3)])
def test_zero_points_expand_exactly(shape, per_channel):
    """Survey, equations 35 and 36; its zero points have the opposite sign."""
    m, n, k = shape
    rng = np.random.default_rng(n)
    codes, weights = rng.integers(0, 256, (m, n), np.uint8), rng.integers(-128, 128, (n, k), np.int8)
    zero, weight_zero = 137, rng.integers(-9, 10, k) if per_channel else 3
    bias = rng.integers(-(2**20), 2**20, k)
    direct = (codes.astype(np.int64) - zero) @ (weights.astype(np.int64) - weight_zero) + bias
    for product in (integer_matmul, jax.jit(integer_matmul)):
        result = product(codes, weights, zero, weight_zero, bias.astype(np.int32))
        assert result.dtype == jnp.int32
        np.testing.assert_array_equal(result, direct)


def test_worked_product():
    """Survey, equations 16 to 20: s_f = 127.5 and s_w = 127 codes per unit are steps of 1 / 127.5 and 1 / 127."""
    step, weight_step = 1 / 127.5, 1 / 127
    codes = np.round(np.asarray([[0.5, 1, 2]]) / step).astype(np.uint8)
    weights = np.round(np.asarray([[0.25], [-1], [0.5]]) / weight_step).astype(np.int8)
    assert codes.tolist() == [[64, 128, 255]] and weights.ravel().tolist() == [32, -127, 64]
    sums = integer_matmul(codes, weights)
    assert sums.item() == 2112 and sums.item() * step * weight_step == pytest.approx(0.130431, abs=5e-7)
    bias = quantize_bias([0.1], step, weight_step)
    assert bias.tolist() == [1619] and step * weight_step == pytest.approx(6.17570e-5, abs=5e-11)
    assert (2112 + 1619) * step * weight_step == pytest.approx(0.230415, abs=5e-7)
    assert integer_matmul(codes, weights, bias=bias).item() == 3731


def test_sums_past_int32_are_refused_with_the_bias_counted():
    codes, weights = np.full((1, 65793), 255, np.uint8), np.full((65793, 1), -128, np.int8)
    with pytest.raises(InputError, match="sums of 65794 products reach"):
        integer_matmul(codes, weights, bias=np.asarray([-129]))
    assert integer_matmul(codes[:, 1:], weights[1:]).item() == -255 * 128 * 65792


def test_bias_codes_round_half_to_even_and_must_fit():
    assert quantize_bias([0.5, 1.5, -2.5, 2**31 - 1], 1.0, 1.0).tolist() == [0, 2, -2, 2**31 - 1]
    assert quantize_bias([1.0, 1.0], 0.5, [0.25, 0.5]).tolist() == [8, 4]
    for bad in (2.0**31, np.nan):
        with pytest.raises(InputError, match="of bias 1 does not fit into int32: give a larger step"):
            quantize_bias([0.0, bad], 1.0, 1.0)


def test_float_requantization_rounds_half_to_even_and_clips():
    assert requantize(np.asarray([-3, -1, 1, 3, 5]), 0.5, 0, -128, 127).tolist() == [-2, 0, 0, 2, 2]
    assert requantize(np.asarray([-(2**31), 2**31 - 1]), 1.0, 100, 0, 255).tolist() == [0, 255]
    assert requantize(np.asarray([[10, 10]]), np.asarray([0.1, 0.3]), 5, 0, 255).tolist() == [[6, 8]]


def reference(value, multiplier, shift):
    """gemmlowp's two roundings, in exact fractions."""
    doubled = floor(Fraction(value * multiplier, 2**31) + Fraction(1, 2))
    scaled = Fraction(doubled, 2**shift)
    magnitude = floor(abs(scaled) + Fraction(1, 2))
    return magnitude if scaled >= 0 else -magnitude


@given(
    st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=8),
    st.integers(2**30, 2**31 - 1),
    st.integers(0, 31),
)
@settings(deadline=None)
def test_fixed_point_requantization_is_that_of_gemmlowp(values, mantissa, shift):
    factor = fixed_point(mantissa * 2.0 ** -(31 + shift))
    assert (factor.mantissa.item(), factor.shift.item()) == (mantissa, shift)
    result = _fixed(np.asarray(values + [0] * (8 - len(values)), np.int32), factor)
    assert result[: len(values)].tolist() == [reference(value, mantissa, shift) for value in values]


_fixed = jax.jit(lambda sums, factor: requantize_fixed(sums, factor, 0, -(2**31), 2**31 - 1))


def test_ties_of_both_roundings():
    values = np.asarray([-3, -1, 1, 3], np.int32)
    half = fixed_point(0.5)  # mantissa 2 ** 30, no shift: the first rounding alone, ties up
    assert _fixed(values, half).tolist() == [-1, 0, 1, 2]
    eighth = fixed_point(0.125)  # shift 2: -6 / 4 and 6 / 4 away from zero
    assert _fixed(np.asarray([-12, 12, -4, 4], np.int32), eighth).tolist() == [-2, 2, -1, 1]


def test_factors_of_one_and_more_shift_left_and_saturate():
    values = np.asarray([-(2**31), -5, 5, 2**30], np.int32)
    assert _fixed(values, fixed_point(3.0)).tolist() == [round(-(2**31) * 0.75), -15, 15, round((2**31 - 1) * 0.75)]
    assert requantize_fixed(values, fixed_point(3.0), 7, 0, 255).tolist() == [0, 0, 22, 255]


def test_both_ways_agree_within_one_code():
    rng = np.random.default_rng(0)
    sums = rng.integers(-(2**22), 2**22, (200, 16)).astype(np.int32)
    multiplier = rng.uniform(1e-5, 1e-4, 16)
    exact = sums * multiplier
    for result in (
        requantize(sums, multiplier, 3, -128, 127),
        requantize_fixed(sums, fixed_point(multiplier), 3, -128, 127),
    ):
        inside = np.clip(exact, -131, 124)
        assert np.abs(np.asarray(result) - 3 - inside).max() <= 0.51


@pytest.mark.parametrize("bad", [0.0, -0.5, 2.0**31, 2.0**-33, np.nan])
def test_multipliers_that_have_no_fixed_point_are_named(bad):
    with pytest.raises(InputError, match=f"multiplier {bad} is not allowed"):
        fixed_point([0.5, bad])


def test_fixed_points_are_normalised():
    multipliers = np.asarray([2.0**-32, 1 - 2.0**-40, 1.0, 0.3, 2.0**30])
    mantissa, shift = (np.asarray(part, np.float64) for part in fixed_point(multipliers))
    assert ((mantissa >= 2**30) & (mantissa < 2**31)).all()
    np.testing.assert_allclose(mantissa * 2.0 ** -(31 + shift), multipliers, rtol=2.0**-31)
