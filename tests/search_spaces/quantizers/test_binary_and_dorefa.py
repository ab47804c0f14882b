"""One bit, and DoReFa-Net."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from search_spaces.quantizers.bnn import Bnn, probability_of_one, stochastic_sign
from search_spaces.quantizers.bwn import Bwn
from search_spaces.quantizers.dorefa import Dorefa, gradient_levels
from search_spaces.quantizers.xnor import Xnor

W = jnp.asarray([-1.0, -0.2, 0.0, 0.3, 1.0])


def slopes(quantizer, x, bits):
    return jax.grad(lambda x: quantizer(x, bits, {}, (0,)).sum())(x)


def test_sign_and_its_clipped_gradient():
    """The survey's equation 28: the gradient passes at 1 and not beyond."""
    x = jnp.asarray([-1.5, -1.0, 0.3, 1.0, 1.01])
    assert Bnn()(x, 1, {}, (0,)).tolist() == [-1, -1, 1, 1, 1]
    assert slopes(Bnn(), x, 1).tolist() == [0, 1, 1, 1, 0]


def test_stochastic_sign():
    """Equation 25, whose probabilities the draws have; a key gives the same draw again."""
    x = jnp.asarray([-2.0, -1.0, -0.5, 0.0, 0.5, 3.0])
    assert probability_of_one(x).tolist() == [0, 0, 0.25, 0.5, 0.75, 1]
    draws = jax.vmap(lambda key: stochastic_sign(key, x))(jax.random.split(jax.random.key(0), 4000))
    np.testing.assert_allclose((draws == 1).mean(0), probability_of_one(x), atol=0.03)
    assert set(np.unique(draws).tolist()) == {-1, 1}
    assert (stochastic_sign(jax.random.key(1), x) == stochastic_sign(jax.random.key(1), x)).all()


@pytest.mark.parametrize("quantizer", [Bwn(), Xnor()])
def test_scale_of_least_squares_and_the_gradient_of_the_source(quantizer):
    w = jax.random.normal(jax.random.key(0), (7, 50))
    y = quantizer(w, 1, {}, (1,))
    errors = [float(jnp.square(share * y - w).sum()) for share in (0.99, 1.0, 1.01)]
    assert errors[1] == min(errors)
    alpha = jnp.abs(w).mean(1, keepdims=True)
    np.testing.assert_allclose(jnp.abs(y), jnp.broadcast_to(alpha, w.shape), rtol=1e-6)
    slope = jax.grad(lambda w: quantizer(w, 1, {}, (1,)).sum())(w)
    np.testing.assert_allclose(slope, 1 / 50 + alpha * (jnp.abs(w) <= 1), rtol=1e-5)


def test_dorefa_weights():
    """Equation 29 at 2 bits; 0 is no level. 1 bit are signs, with the mean of DoReFa-Net on demand."""
    np.testing.assert_allclose(Dorefa()(W, 2, {}, (0,)), [-1, -1 / 3, 1 / 3, 1 / 3, 1], rtol=1e-6)
    np.testing.assert_allclose(slopes(Dorefa(), W, 2), (1 - jnp.tanh(W) ** 2) / jnp.tanh(1.0), rtol=1e-5)
    assert Dorefa()(W, 1, {}, (0,)).tolist() == [-1, -1, 1, 1, 1] and slopes(Dorefa(), W, 1).tolist() == [1] * 5
    np.testing.assert_allclose(Dorefa(scaled=True)(W, 1, {}, (0,)), [-0.5, -0.5, 0.5, 0.5, 0.5])
    np.testing.assert_allclose(Dorefa(scaled=True)(W, 2, {}, (0,)), Dorefa()(W, 2, {}, (0,)))


def test_dorefa_activations():
    """Schindler 2021, equations 5.3 and 5.4."""
    x = jnp.asarray([-0.5, 0.0, 0.4, 1.0, 2.0])
    np.testing.assert_allclose(Dorefa(signed=False)(x, 2, {}, (0,)), [0, 0, 1 / 3, 1, 1], rtol=1e-6)
    assert slopes(Dorefa(signed=False), x, 2).tolist() == [0, 1, 1, 1, 0]
    assert Dorefa(signed=False)(jnp.asarray([0.5]), 8, {}, (0,)).item() == pytest.approx(128 / 255)


def test_dorefa_gradients_are_right_on_average_with_noise():
    """Equation 30, and the random term that it lacks in the survey."""
    gradient = jnp.asarray([-0.4, -0.1, 0.05, 0.2])
    np.testing.assert_allclose(gradient_levels(gradient, 2, (0,)), [-0.4, -0.4 / 3, 0.4 / 3, 0.4 / 3], rtol=1e-5)
    keys = jax.random.split(jax.random.key(0), 20_000)
    draws = jax.vmap(lambda key: gradient_levels(gradient, 2, (0,), key))(keys)
    np.testing.assert_allclose(draws.mean(0), gradient, atol=5e-3)
    assert not gradient_levels(jnp.zeros(3), 2, (0,)).any()
