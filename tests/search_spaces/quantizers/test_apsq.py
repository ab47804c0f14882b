"""Scaled quantization and its penalty (Guerra 2024, chapter 6)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models.errors import InputError
from search_spaces.quantizers.apsq import Apsq, angle_penalty, bits_per_weight, scaled_levels
from search_spaces.quantizers.dorefa import Dorefa

KERNELS = jax.random.normal(jax.random.key(0), (3, 3, 5, 8))
PIXELS = (0, 1)


@pytest.mark.parametrize(("scale_bits", "bits"), [(6, 1.67), (7, 1.78), (8, 1.89), (9, 2.0), (32, 4.56)])
def test_bits_per_weight(scale_bits, bits):
    """Section 6.6, which cuts the figures off (1.6, 1.7, 1.8, 2, 4.5)."""
    assert bits_per_weight(scale_bits, 3, 3) == pytest.approx(bits, abs=0.005)


@pytest.mark.parametrize("axes", [(0, 1), (0, 1, 2), (0, 1, 2, 3)])
def test_scales_are_of_absolute_values(axes):
    """Equation 6.13 with the bars that it lacks: the mean of a kernel may be negative, its best scale is not."""
    scale, levels = scaled_levels(KERNELS, 1, axes)
    best = (KERNELS * levels).sum(axes, keepdims=True) / (levels**2).sum(axes, keepdims=True)
    np.testing.assert_allclose(scale, best, rtol=1e-5)
    assert (KERNELS.mean(axes) < 0).any() or axes == (0, 1, 2, 3)
    scale, levels = scaled_levels(KERNELS, 2, axes)
    assert (scale == jnp.abs(KERNELS).max(axes, keepdims=True)).all()
    np.testing.assert_allclose(levels, Dorefa()(KERNELS / scale, 2, {}, axes))


@pytest.mark.parametrize("bits", [1, 2, 3, 8])
def test_the_penalty_and_its_gradient(bits):
    """Equation 6.17, at right angles to the weights; from 0 to below 1."""
    penalty = angle_penalty(KERNELS, bits, PIXELS)
    assert penalty.shape == (1, 1, 5, 8) and bool(((penalty >= 0) & (penalty < 1)).all())
    gradient = -jax.grad(lambda v: angle_penalty(v, bits, PIXELS).sum())(KERNELS)
    _, levels = scaled_levels(KERNELS, bits, PIXELS)
    norms = [jnp.sqrt((each**2).sum(PIXELS, keepdims=True)) for each in (KERNELS, levels)]
    cosine = (KERNELS * levels).sum(PIXELS, keepdims=True) / (norms[0] * norms[1])
    expected = levels / (norms[0] * norms[1]) - cosine * KERNELS / norms[0] ** 2
    np.testing.assert_allclose(gradient, expected, atol=1e-6)
    assert float(jnp.abs((gradient * KERNELS).sum(PIXELS)).max()) < 1e-6
    # proportional kernels have the same angle
    np.testing.assert_allclose(angle_penalty(KERNELS * 100, bits, PIXELS), penalty, atol=1e-6)


def test_the_penalty_of_binary_kernels_is_a_ratio_of_norms():
    """Equation 6.8; 0 where kernels are quantized up to their scale."""
    one, two = jnp.abs(KERNELS).sum(PIXELS), jnp.sqrt((KERNELS**2).sum(PIXELS))
    np.testing.assert_allclose(angle_penalty(KERNELS, 1, PIXELS)[0, 0], 1 - one / (two * 3), atol=1e-6)
    for bits in (1, 2, 3):
        scale, levels = scaled_levels(KERNELS, bits, PIXELS)
        if bits == 2:  # tanh keeps these levels where they are
            assert (scaled_levels(scale * levels, bits, PIXELS)[1] == levels).all()
        if bits < 3:
            np.testing.assert_allclose(angle_penalty(scale * levels, bits, PIXELS), 0, atol=1e-6)
    zeros = jnp.zeros_like(KERNELS)
    assert not angle_penalty(zeros, 2, PIXELS).any()
    assert not jax.grad(lambda v: angle_penalty(v, 2, PIXELS).sum())(zeros).any()


def test_masked_entries_have_no_part_in_the_penalty():
    where = jnp.asarray([True, True, False])[:, None, None, None]
    np.testing.assert_allclose(
        angle_penalty(KERNELS, 2, PIXELS, where), angle_penalty(KERNELS[:2], 2, PIXELS), atol=1e-6
    )


def test_descending_the_penalty_alone_quantizes_the_weights():
    """Not lazy: weights stay exact in training, and the penalty draws them to a scaled sign."""
    apsq = Apsq(lazy=False)
    assert (apsq(KERNELS, 1, {}, PIXELS) == KERNELS).all()

    @jax.jit
    def step(v):
        return v - 0.2 * jax.grad(lambda v: angle_penalty(apsq(v, 1, {}, PIXELS), 1, PIXELS).sum())(v)

    v = KERNELS
    for _ in range(300):
        v = step(v)
    assert float(angle_penalty(v, 1, PIXELS).max()) < 0.01 < float(angle_penalty(KERNELS, 1, PIXELS).mean())
    np.testing.assert_allclose(Apsq()(v, 1, {}, PIXELS), v, atol=0.2)


def test_lazy_gradient_and_rounded_scales():
    assert (jax.grad(lambda v: Apsq()(v, 2, {}, PIXELS).sum())(KERNELS) == 1).all()
    small = KERNELS * 0.3
    rounded = jnp.abs(Apsq(scale_bits=3)(small, 1, {}, PIXELS))
    np.testing.assert_allclose(rounded * 7, jnp.round(rounded * 7), atol=1e-5)
    np.testing.assert_allclose(jnp.abs(Apsq()(small, 1, {}, PIXELS)), rounded, atol=1 / 14 + 1e-5)
    with pytest.raises(InputError, match="apsq.scale_bits 33 is not allowed: give a whole number from 1 to 32"):
        Apsq(scale_bits=33)
