"""Learned clipping points, steps and bases: values and gradients of their papers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from search_spaces.quantizers.lq import Lq
from search_spaces.quantizers.lsq import Lsq
from search_spaces.quantizers.pact import Pact


def gradients(quantizer, x, bits, learned, weights=1.0):
    return jax.grad(lambda x, learned: (weights * quantizer(x, bits, learned, (0,))).sum(), (0, 1))(x, learned)


def test_pact_gradients():
    """Choi et al. 2018, equations 2 and 3."""
    x, clip = jnp.asarray([-1.0, 0.0, 0.4, 1.5, 2.0]), {"clip": jnp.asarray([1.5])}
    np.testing.assert_allclose(Pact()(x, 2, clip, (0,)), [0, 0, 0.5, 1.5, 1.5])
    of_x, of_clip = gradients(Pact(scaled=False), x, 2, clip)
    assert of_x.tolist() == [0, 1, 1, 0, 0] and of_clip["clip"].tolist() == [2]
    assert Pact().init(x, 2, (0,))["clip"].tolist() == [2]


@pytest.mark.parametrize(("shape", "shared"), [((4, 1), 1), ((1, 4), 4), ((2, 2), 2)])
def test_the_gradient_of_the_clip_does_not_grow_with_the_map(shape, shared):
    """As of steps of activations: 1 / sqrt(n q), n entries of one image, q = 3."""
    x, clip = jnp.full(shape, 2.0), {"clip": jnp.asarray([[1.5]])}
    _, slope = jax.grad(lambda x, clip: Pact()(x, 2, clip, (0, 1)).sum(), (0, 1))(x, clip)
    assert slope["clip"].item() == pytest.approx(4 / np.sqrt(3 * shared), rel=1e-6)


def test_a_clip_that_went_below_zero_goes_on_as_its_absolute_value():
    x, clip = jnp.asarray([-1.0, 0.4, 2.0]), {"clip": jnp.asarray([-1.5])}
    np.testing.assert_allclose(Pact()(x, 2, clip, (0,)), [0, 0.5, 1.5])
    of_x, of_clip = gradients(Pact(scaled=False), x, 2, clip)
    assert of_x.tolist() == [0, 1, 0] and of_clip["clip"].tolist() == [-1]


@pytest.mark.parametrize("signed", [True, False])
def test_lsq_gradients(signed):
    """Esser et al. 2020, equations 1, 2, 3 and 5, and the scale of section 2.2."""
    quantizer, step = Lsq(signed), 0.5
    x = jnp.asarray([-9.0, -0.9, 0.1, 0.7, 9.0])
    least, most = (-4, 3) if signed else (0, 7)
    learned = {"step": jnp.asarray([step])}
    ratio = np.asarray(x) / step
    inside = (ratio > least) & (ratio < most)
    codes = np.clip(np.round(ratio), least, most)
    np.testing.assert_allclose(quantizer(x, 3, learned, (0,)), codes * step)
    of_x, of_step = gradients(quantizer, x, 3, learned)
    assert of_x.tolist() == inside.tolist()
    # five weights share the step, or one activation of each of five images
    scale = 1 / np.sqrt((5 if signed else 1) * most)
    assert of_step["step"].item() == pytest.approx(scale * np.where(inside, codes - ratio, codes).sum(), rel=1e-5)
    start = quantizer.init(x, 3, (0,))["step"].item()
    assert start == pytest.approx(2 * float(jnp.abs(x).mean()) / np.sqrt(most), rel=1e-6)


@pytest.mark.parametrize(("bits", "error"), [(1, 0.3634), (2, 0.1175), (3, 0.0374), (4, 0.0115)])
def test_lq_fits_a_normal_distribution(bits, error):
    """Max 1960: 0.3634 and 0.1175 are the least possible; above, equal steps have 0.0374 and 0.0115."""
    x = jax.random.normal(jax.random.key(0), (200_000,))
    learned = Lq().init(x, bits, (0,))
    assert float(jnp.square(Lq()(x, bits, learned, (0,)) - x).mean()) <= error * 1.01
    assert learned["basis"].shape == (1, 4) and not jnp.abs(learned["basis"][:, bits:]).max(initial=0) > 1e-6


def test_lq_levels_are_sums_of_the_basis_and_so_is_its_gradient():
    basis = jnp.asarray([[0.3, 1.0, 9.0, 9.0]])
    x = jnp.asarray([-2.0, -0.6, 0.6, 2.0])
    for signed, levels, codes in (
        (True, [-1.3, -0.7, 0.7, 1.3], [[-1, -1], [1, -1], [-1, 1], [1, 1]]),
        (False, [0.0, 0.0, 0.3, 1.3], [[0, 0], [0, 0], [1, 0], [1, 1]]),
    ):
        np.testing.assert_allclose(Lq(signed)(x, 2, {"basis": basis}, (0,)), levels, rtol=1e-6)
        weights = jnp.asarray([1.0, 2.0, 4.0, 8.0])
        of_x, of_basis = gradients(Lq(signed), x, 2, {"basis": basis}, weights)
        assert of_x.tolist() == weights.tolist()
        np.testing.assert_allclose(of_basis["basis"], [[*(weights @ jnp.asarray(codes)), 0, 0]])


def test_a_round_of_refinement_lowers_the_error_and_solves_for_known_bits():
    lq, known = Lq(), jnp.asarray([[0.4, 1.1, 0.0, 0.0]])
    x = jnp.asarray([-1.5, -0.7, 0.7, 1.5, 1.5])
    np.testing.assert_allclose(lq.refined(x, jnp.float32(2), known * 1.1, (0,)), known, atol=1e-4)
