"""Ranges of activations: every observer on batches, published values, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from hw_models.errors import InputError
from nas.quantized.ranges import BINS, LEAST_INSIDE, OBSERVERS, checked, divergence, moved, observer


def limits(name: str, *batches: np.ndarray, bits: int = 8) -> tuple[float, float]:
    start, seen, of = observer(name)
    state = start()
    for batch in batches:
        state = seen(state, batch)
    return of(state, bits)


def test_the_divergence_of_the_survey() -> None:
    # equation 11, worked: 0.25 bits
    p, q = np.asarray([0.5, 0.25, 0.25]), np.asarray([0.25, 0.25, 0.5])
    assert divergence(p, q) == pytest.approx(0.25 * np.log(2), abs=1e-9)
    assert divergence(p, p) == 0 and divergence(p, np.asarray([1.0, 0, 0])) == np.inf
    assert divergence(np.asarray([1.0, 0, 0]), p) == pytest.approx(np.log(2))


def test_the_moving_average_of_the_survey() -> None:
    # equation 40 with k = 0.9 from 0
    average, found = 0.0, []
    for value in (10, 10, 20):
        average = moved(average, value)
        found.append(round(average, 9))
    assert found == [1.0, 1.9, 3.71]
    # as a range it is not pulled to 0 by where it starts
    batches = [np.asarray([-1.0, value]) for value in (10.0, 10.0, 20.0)]
    assert limits("moving_average", *batches) == pytest.approx((-1.0, 3.71 / (1 - 0.9**3)))


@pytest.mark.parametrize("name", OBSERVERS)
def test_a_range_is_of_all_batches_and_holds_zero(name: str) -> None:
    rng = np.random.default_rng(0)
    first, second = rng.uniform(0, 1, (50, 40)), rng.uniform(-3, 2, (50, 40))
    low, high = limits(name, first, second)
    if name == "moving_average":
        assert -3 < low < -1 and 1 < high < 2
    else:
        assert low == pytest.approx(-3, abs=0.05) and high == pytest.approx(2, abs=0.05)
    assert limits(name, np.full(5, 3.0))[0] == 0 and limits(name, -np.ones((2, 2)))[1] == 0
    assert limits(name, np.zeros(9)) == (0, 0)


@pytest.mark.parametrize("name", ["percentile", "kl"])
def test_a_rare_outlier_is_left_outside(name: str) -> None:
    rng = np.random.default_rng(0)
    x = np.abs(rng.normal(0, 1, 200_000))
    x[0] = 40.0
    assert limits("min_max", x) == (0.0, 40.0)
    low, high = limits(name, x)
    assert low == 0 and 2.5 < high < 10


@pytest.mark.parametrize("name", ["percentile", "kl"])
def test_the_order_of_batches_matters_little_and_growth_loses_nothing(name: str) -> None:
    rng = np.random.default_rng(1)
    small, large = rng.normal(0, 0.01, 5000), rng.normal(0, 1, 5000)
    start, seen, _ = observer(name)
    grown = seen(seen(start(), small), large)
    assert grown.counts.shape == (2, BINS) and grown.counts.sum() == 10_000
    assert grown.limit >= np.abs(large).max() > grown.limit / 2
    assert limits(name, small, large) == pytest.approx(limits(name, large, small), rel=0.1)


def test_fewer_codes_saturate_sooner() -> None:
    x = np.random.default_rng(2).laplace(0, 1, 100_000)
    highs = [limits("kl", x, bits=bits)[1] for bits in (4, 6, 8)]
    assert highs == sorted(highs) and highs[0] < highs[2]
    assert limits("kl", x, bits=16) == (x.min(), x.max()), "more codes than bins: nothing to win"


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize(
    ("name", "low", "spike"), [("gates", 0.4, 0.0), ("a spike at the lowest", 0.3, 0.6), ("down to zero", 0.0, 0.0)]
)
def test_values_far_from_zero_do_not_all_saturate(bits: int, name: str, low: float, spike: float) -> None:
    # both distributions are one bin, and the same, where all but the smallest values saturate
    x = np.random.default_rng(3).uniform(low, 0.7, 50_000)
    x[: int(spike * len(x))] = low
    assert np.mean(x > limits("kl", x, bits=bits)[1]) <= 1 - LEAST_INSIDE
    assert np.mean(-x < limits("kl", -x, bits=bits)[0]) <= 1 - LEAST_INSIDE


def test_bad_input_is_named() -> None:
    with pytest.raises(InputError, match=r"unknown observer 'minmax': did you mean 'min_max'\?"):
        observer("minmax")
    with pytest.raises(InputError, match="stem: values from 0.0 to nan have no range"):
        checked("stem", (0.0, float("nan")))
