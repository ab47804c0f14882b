"""Codes of equal steps against values worked out by hand from the survey's equations (Liang et al. 2021)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models.errors import InputError
from search_spaces.layers import QuantizationNoise
from search_spaces.quantizers._uniform import affine as step_and_zero
from search_spaces.quantizers._uniform import code, largest_signed, unit_levels
from search_spaces.quantizers._uniform import symmetric as signed_step
from search_spaces.quantizers.affine import Affine
from search_spaces.quantizers.fixed_clip import FixedClip
from search_spaces.quantizers.gaussian import Gaussian, best_step
from search_spaces.quantizers.noise import Noise, with_noise
from search_spaces.quantizers.symmetric import Symmetric


@pytest.mark.parametrize(
    ("low", "high", "zero_point", "values", "codes"),
    [
        (-1.0, 3.0, 64, [-2, -1, 0, 1, 3, 4], [0, 0, 64, 128, 255, 255]),
        # the lower of two codes at 42.5, half to even
        (0.0, 6.0, 0, [0, 1, 6, 7], [0, 42, 255, 255]),
        (2.0, 6.0, 0, [0, 6], [0, 255]),
        (0.0, 0.0, 0, [0], [0]),
    ],
)
def test_affine_codes(low, high, zero_point, values, codes):
    """Equation 14 with a whole zero point: 0 is exact, which the real zero point 63.75 misses by 0.0039."""
    step, zero = step_and_zero(low, high, 8)
    assert zero.item() == zero_point and code(jnp.asarray(values, jnp.float32), step, zero, 255).tolist() == codes
    x = jnp.asarray([low, 0.0, high])
    y = Affine()(x, 8, {}, (0,))
    assert y[1] == 0 and float(jnp.abs(y - x).max()) <= step.item()


def test_symmetric_codes():
    """Equation 15: 63.5 codes per unit at a range of 2, -127 to 127, and not the 255 of `n = 256`."""
    step = signed_step(2.0, 8)
    assert (1 / step).item() == pytest.approx(63.5)
    codes = code(jnp.asarray([-3.0, -2.0, 0.0, 2.0]), step, 0, largest_signed(8), -largest_signed(8))
    assert codes.tolist() == [-127, -127, 0, 127]
    assert Symmetric()(jnp.asarray([-0.2, 0.6, 1.0]), 2, {}, (0,)).tolist() == [0, 1, 1]


def test_integer_product_of_unsigned_features_and_signed_weights():
    """Equations 16 to 18: 2112 in integers, 0.130431, where the product of real numbers is 0.125."""
    features, weights = jnp.asarray([0.5, 1.0, 2.0]), jnp.asarray([0.25, -1.0, 0.5])
    (step_f, zero), step_w = step_and_zero(0.0, 2.0, 8), signed_step(1.0, 8)
    codes_f, codes_w = code(features, step_f, zero, 255), code(weights, step_w, 0, 127, -127)
    assert codes_f[jnp.asarray([0, 2])].tolist() == [64, 255] and codes_w.tolist() == [32, -127, 64]
    # 1 lies half way between two codes, and which of them it gets is up to the rounding of 2 / 255
    assert codes_f[1] in (127, 128)
    product = jnp.asarray([64.0, 128.0, 255.0]) @ codes_w
    assert product == 2112 and (product * step_f * step_w).item() == pytest.approx(0.130431, abs=1e-6)
    rounded = Affine()(features, 8, {}, (0,)) @ Symmetric()(weights, 8, {}, (0,))
    assert rounded.item() == pytest.approx((codes_f @ codes_w * step_f * step_w).item(), rel=1e-5)


@pytest.mark.parametrize("quantizer", [Affine(), Symmetric(), Noise()])
def test_error_is_half_a_step_and_shrinks_with_every_bit(quantizer):
    x = jax.random.normal(jax.random.key(1), (4000,))
    errors = [float(jnp.abs(quantizer(x, bits, {}, (0,)) - x).max()) for bits in range(2, 13)]
    span = {"symmetric": 2 * float(jnp.abs(x).max())}.get(quantizer.kind, float(x.max() - x.min()))
    steps = np.asarray([span / (2.0**bits - (2 if quantizer.kind == "symmetric" else 1)) for bits in range(2, 13)])
    # the whole zero point of `affine` moves its range by up to half a step more
    assert (np.asarray(errors) <= steps * (1.01 if quantizer.kind == "affine" else 0.505)).all()
    assert (np.diff(errors) < 0).all()


def test_fixed_clip_levels_and_gradient():
    """Schindler 2021, equations 5.24 and 5.25, and equation 5.4 at a range of 1."""
    x = jnp.asarray([1.31, 5.0, -1.0])
    assert FixedClip()(x, 4, {}, (0,)).tolist() == pytest.approx([1.4, 3.0, 0.0])
    assert jax.grad(lambda x: FixedClip()(x, 4, {}, (0,)).sum())(x).tolist() == [1, 0, 0]
    assert FixedClip(gamma=1.0)(jnp.asarray([0.4]), 2, {}, (0,)).item() == pytest.approx(1 / 3)
    assert unit_levels(0.5, 8).item() == pytest.approx(128 / 255)
    with pytest.raises(InputError, match=r"fixed_clip.gamma 0 is not allowed: give a number above 0"):
        FixedClip(gamma=0)


def test_the_noise_layer_and_the_quantizer_round_alike():
    x = jax.random.normal(jax.random.key(2), (5, 6, 6, 3))
    layer = QuantizationNoise(8).apply({}, x)
    assert (layer == with_noise(x, 8)).all()
    np.testing.assert_allclose(layer, Noise()(x, 3, {}, (0, 1, 2, 3)), atol=1e-6)


@pytest.mark.parametrize(("levels", "step"), [(3, 1.2240), (5, 0.8430), (7, 0.6508), (9, 0.5338), (15, 0.3534)])
def test_steps_of_least_squared_error(levels: int, step: float):
    """Max 1960, table II: spacing of equally spaced levels for a normal distribution of variance 1."""
    assert best_step(levels // 2, levels // 2) == pytest.approx(step, abs=1e-4)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_cut_range_is_the_best_one(bits: int, half: bool):
    x = np.random.default_rng(0).normal(0, 3, 20_000).astype(np.float32)
    x = np.maximum(x, 0) if half else x
    observed = Gaussian().observed(jnp.asarray(x), (0,))

    def error(scale: float) -> float:
        other = {**observed, "spread": scale * observed["spread"]}
        return float(np.square(Gaussian()(x, bits, other, (0,)) - x).mean())

    least = error(1.0)
    assert least < error(0.85) and least <= error(1.15)  # of 8 bits all values are inside
    if bits < 8:
        assert least < 0.8 * float(np.square(Affine()(x, bits, {}, (0,)) - x).mean())


def test_zeros_have_no_part_in_the_cut():
    x = jnp.asarray([0.5, -1.0, 2.0, 9.0])
    y = Gaussian()(jnp.pad(x, (0, 12)), 3, {}, (0,))
    assert y[:4].tolist() == Gaussian()(x, 3, {}, (0,)).tolist() and not y[4:].any() and Gaussian().keeps_zeros
