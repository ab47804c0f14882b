"""Quantizers whose levels are powers of two or equally spaced in their logarithm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models.errors import InputError
from search_spaces.quantizers.logarithmic import Logarithmic
from search_spaces.quantizers.power_of_two import PowerOfTwo
from search_spaces.quantizers.shift import Shift, nearest_entry


def test_exponents_are_rounded_logarithms():
    """The survey's equation 38: 0.25, 0.3, 0.7, 1.5, 3 have the exponents -2, -2, -1, 1, 2."""
    w = jnp.asarray([0.25, 0.3, -0.7, 1.5, -3.0])
    y = PowerOfTwo()(w, 6, {}, (0,))
    assert (y == jnp.sign(w) * 2.0 ** jnp.asarray([-2, -2, -1, 1, 2])).all()


@pytest.mark.parametrize(("bits", "exponents"), [(2, [0]), (3, [0, -1, -2]), (4, [0, -1, -2, -3, -4, -5, -6])])
def test_every_code_is_a_power_but_one(bits, exponents):
    w = jnp.linspace(-1.0, 1.0, 4097)
    levels = {-(2.0**e) for e in exponents} | {0.0} | {2.0**e for e in exponents}
    assert set(PowerOfTwo()(w, bits, {}, (0,)).tolist()) == levels
    least = 2.0 ** exponents[-1]
    y = PowerOfTwo()(jnp.asarray([1.0, least * 0.51, least * 0.49]), bits, {}, (0,))
    assert y.tolist() == [1, least, 0]


def test_unsigned_powers_and_half_steps():
    a = jnp.asarray([-1.0, 0.0, 0.36, 0.5, 1.0])
    quantizer = PowerOfTwo(signed=False)
    assert quantizer(a, 3, {}, (0,)).tolist() == [0, 0, 0.25 if 0.36 < 2**-1.5 else 0.5, 0.5, 1]
    assert jax.grad(lambda a: quantizer(a, 3, {}, (0,)).sum())(a).tolist() == [0, 1, 1, 1, 1]
    y = PowerOfTwo(base="sqrt2")(jnp.asarray([1.0, 0.72, 0.49]), 4, {}, (0,))
    np.testing.assert_allclose(y, [1, 0.5**0.5, 0.5], rtol=1e-6)
    with pytest.raises(InputError, match="unknown base 'sqrt'.*sqrt2"):
        PowerOfTwo(base="sqrt")


def test_codebooks_of_shift():
    """Equation 21: 4 bits are the exponents 0 to -6 in the first codebook, -1 to -7 in the second; 2 are ternary."""
    w = jnp.linspace(-1.0, 1.0, 8193)
    for bits, place, exponents in ((4, 0, range(0, -7, -1)), (4, 1, range(-1, -8, -1)), (2, 0, range(1)), (2, 1, [-1])):
        levels = {sign * 2.0**e for e in exponents for sign in (-1, 1)} | {0.0}
        assert set(nearest_entry(w, bits, place).tolist()) == levels
    entries = np.asarray(sorted(set(nearest_entry(w, 4, 0).tolist())))
    nearest = np.abs(np.asarray(w)[:, None] - entries).min(1)
    np.testing.assert_allclose(np.abs(nearest_entry(w, 4, 0) - w), nearest, atol=1e-7)


def test_bits_of_shift_are_those_of_all_codebooks():
    w = jax.random.normal(jax.random.key(0), (2000,))
    errors = [float(jnp.square(Shift(books)(w, 4 * books, {}, (0,)) - w).mean()) for books in (1, 2, 3)]
    assert errors[0] > 10 * errors[1] > 10 * errors[2]
    assert (Shift(1)(w, 2, {}, (0,)) == jnp.abs(w).max() * nearest_entry(w / jnp.abs(w).max(), 2, 0)).all()
    for bits, nearest in ((5, 4), (2, 4)):
        with pytest.raises(InputError, match=rf"bits={bits} .*multiple of 2 from 4 to 16 \(nearest: {nearest}\)"):
            Shift().check_bits(bits)


def test_logarithmic_corrected():
    """Guerra 2024, equations 5.6 and 5.7, with the sign for x and log2 |x| for |log x|."""
    x = jnp.asarray([0.5, 0.25, 0.1, -0.3, 0.05])
    y = Logarithmic(magnitude=True)(x, 4, {}, (0,))
    np.testing.assert_allclose(y, [0.5, 0.232, 0.108, -0.315, 0.05], atol=5e-4)
    assert Logarithmic()(jnp.asarray([0.0, 3.0, 0.0]), 2, {}, (0,)).tolist() == pytest.approx([0, 3, 0])
    wide = jnp.asarray(np.geomspace(1e-4, 10, 1000), jnp.float32)
    ratio = jnp.abs(jnp.log2(Logarithmic()(wide, 6, {}, (0,)) / wide))
    assert float(ratio.max()) <= np.log2(1e5) / 30 / 2 + 1e-3
    assert jax.grad(lambda x: Logarithmic()(x, 4, {}, (0,)).sum())(x).tolist() == [1] * 5
