"""Learned values in intervals: TTQ and N-ary quantization (Schindler 2021, chapter 5)."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models.errors import InputError
from search_spaces.quantizers.nary import Nary, nested_means
from search_spaces.quantizers.ttq import Ttq

W = jnp.asarray([-4.0, -2.0, -1.0, 1.0, 2.0, 3.0, 6.0])
GAUSSIAN = jax.random.normal(jax.random.key(0), (400_000,))


def test_ttq_values_and_gradients():
    """Equations 5.1 and 5.2; Zhu et al. 2017, equations 7 and 8."""
    w = jnp.asarray([0.9, -0.2, 0.04, -1.0])
    values = {"positive": jnp.asarray([2.0]), "negative": jnp.asarray([3.0])}
    ttq = Ttq(t=0.3)
    assert ttq(w, 2, values, (0,)).tolist() == [2, 0, 0, -3]
    slopes = jnp.asarray([1.0, 10.0, 100.0, 1000.0])
    of_w, of_values = jax.grad(lambda w, v: (slopes * ttq(w, 2, v, (0,))).sum(), (0, 1))(w, values)
    assert of_values["positive"].tolist() == [1] and of_values["negative"].tolist() == [-1000]
    assert of_w.tolist() == [2, 10, 100, 3000]
    start = ttq.init(w, 2, (0,))
    assert [start[name].item() for name in ("positive", "negative")] == pytest.approx([0.9, 1.0])
    with pytest.raises(InputError, match=r"ttq.t=1.5 is out of range: give 0 to 1"):
        Ttq(t=1.5)


def test_ttq_has_more_zeros_as_t_grows():
    zeros = [
        float((Ttq(t=t)(GAUSSIAN, 2, Ttq(t=t).init(GAUSSIAN, 2, (0,)), (0,)) == 0).mean()) for t in (0.1, 0.2, 0.4)
    ]
    assert zeros == sorted(zeros) and zeros[0] < zeros[2]


def test_nested_means():
    """Equations 5.22 and 5.23, by hand and for a normal distribution: 0.798, 1.365 and 1.826 standard deviations."""
    assert [each.item() for each in nested_means(W, 2, (0,))] == [3, 4.5]
    assert [each.item() for each in nested_means(W, 2, (0,), side=-1)] == pytest.approx([-7 / 3, -4])
    for side in (1, -1):
        found = [side * each.item() for each in nested_means(GAUSSIAN, 3, (0,), side=side)]
        assert found == pytest.approx([0.798, 1.365, 1.826], abs=0.01)
    # the others follow the innermost: 6 alone lies beyond 1.2 * 3
    assert [each.item() for each in nested_means(W, 2, (0,), t=1.2)] == pytest.approx([3.6, 6])


@pytest.mark.parametrize(("t", "zeros"), [(1.0, 0.575), (1.4, 0.736), (1.6, 0.798), (1.8, 0.849), (2.0, 0.889)])
def test_zeros_of_ternary_gaussian_weights(t, zeros):
    """erf(t / sqrt(pi)), for the first threshold is sqrt(2 / pi) standard deviations."""
    nary = Nary(t=t)
    share = float((nary(GAUSSIAN, 2, nary.init(GAUSSIAN, 2, (0,)), (0,)) == 0).mean())
    assert share == pytest.approx(math.erf(t / math.sqrt(math.pi)), abs=0.004) == pytest.approx(zeros, abs=0.005)


@pytest.mark.parametrize(
    ("two_bits", "bits", "values"),
    [
        ("ternary", 1, [-7 / 3] * 3 + [3] * 4),
        ("ternary", 2, [-4, 0, 0, 0, 0, 4.5, 4.5]),
        ("quaternary+", 2, [-4, 0, 0, 0, 0, 3, 6]),
        ("quaternary-", 2, [-4, 0, 0, 0, 0, 4.5, 4.5]),
        ("ternary", 3, [-4, 0, 0, 0, 0, 3, 6]),
    ],
)
def test_forms_and_the_values_they_begin_with(two_bits, bits, values):
    nary = Nary(two_bits)
    np.testing.assert_allclose(nary(W, bits, nary.init(W, bits, (0,)), (0,)), values, rtol=1e-6)


@pytest.mark.parametrize(("two_bits", "bits", "levels"), [
    ("ternary", 1, (1, 0, 1)), ("ternary", 2, (1, 1, 1)), ("quaternary+", 2, (1, 1, 2)),
    ("quaternary-", 2, (2, 1, 1)), ("ternary", 3, (2, 1, 2)),
])  # fmt: skip
@pytest.mark.parametrize("thresholds", ["nested_means", "quantiles"])
def test_levels_and_gradients_of_values(two_bits, bits, levels, thresholds):
    """Equation 5.21 against differences; 0 is no parameter."""
    nary, w = Nary(two_bits, thresholds), GAUSSIAN[:2000]
    learned = nary.init(w, bits, (0,))
    y = nary(w, bits, learned, (0,))
    found = np.unique(y)
    assert ((found < 0).sum(), (found == 0).sum(), (found > 0).sum()) == levels
    if thresholds == "quantiles":
        shares = np.asarray([float((y == value).mean()) for value in found])
        np.testing.assert_allclose(shares, 1 / sum(levels), atol=0.04)

    def loss(learned):
        return (jnp.sin(jnp.arange(2000)) * nary(w, bits, learned, (0,))).sum()

    gradient = jax.grad(loss)(learned)
    for name, value in learned.items():
        more, less = (loss({**learned, name: value + change}) for change in (0.25, -0.25))
        assert gradient[name].item() == pytest.approx(float((more - less) / 0.5), abs=2e-3)
    assert (jax.grad(lambda w: nary(w, bits, learned, (0,)).sum())(w) == 1).all()


def test_options_that_cannot_be_used():
    for options, message in (
        ({"two_bits": "quaternary"}, "unknown form of 2 bits 'quaternary': did you mean 'quaternary"),
        ({"thresholds": "nested"}, "unknown way to find thresholds 'nested': did you mean 'nested_means'"),
        ({"thresholds": "quantiles", "t": 1.5}, "nary.t=1.5 does not go with quantiles"),
        ({"t": -1.0}, "nary.t=-1.0 is out of range"),
    ):
        with pytest.raises(InputError, match=message):
            Nary(**options)
