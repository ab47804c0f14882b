"""Taus, their intervals and the noise ceiling."""

import numpy as np
import pytest
from scipy.stats import kendalltau

from hw_models.errors import InputError
from nas.ranking import _taus, bootstrapped, ceiling, difference, kendall, within


def measured(count, noise, seed=0):
    """True qualities of networks, and three noisy measurements of them."""
    draw = np.random.default_rng(seed)
    truth = draw.normal(size=count)
    return truth, *(truth + noise * draw.normal(size=count) for _ in range(3))


def test_tau_is_that_of_scipy_with_ties():
    draw = np.random.default_rng(0)
    for count in (5, 30):
        a, b = draw.integers(0, 4, (2, count))
        assert kendall(a, b) == pytest.approx(kendalltau(a, b).statistic)


@pytest.mark.parametrize("noise", [0.3, 1.0])
def test_the_ceiling_is_what_a_perfect_judgement_reaches(noise):
    truth, first, second, _ = measured(2000, noise)
    found = ceiling(first, second)
    assert found.seeds == kendall(first, second)
    assert found.mean == pytest.approx(kendall(truth, (first + second) / 2), abs=0.03)


def test_trainings_that_disagree_leave_nothing_to_reach():
    assert ceiling([1, 2, 3, 4], [4, 3, 2, 1]) == (-1.0, 0.0)


def test_intervals_hold_the_tau_and_are_wider_for_fewer_networks():
    widths = []
    for count in (15, 200):
        _, first, second, _ = measured(count, 0.5)
        found = bootstrapped(first, second, resamples=300)
        assert found.low < found.value == kendall(first, second) < found.high
        widths.append(found.high - found.low)
    assert widths[0] > 2 * widths[1]


def test_a_draw_counts_a_network_as_often_as_it_is_in_it():
    _, first, second, _ = measured(8, 0.5)
    order = np.random.default_rng(3).integers(0, 8, (20, 8))
    often = np.stack([np.bincount(draw, minlength=8) for draw in order]).astype(float)
    direct = [kendalltau(first[draw], second[draw]).statistic for draw in order]
    np.testing.assert_allclose(_taus(first, second, often), direct)


def test_a_paired_difference_is_surer_than_two_intervals():
    truth, first, _, _ = measured(40, 0.5)
    close = first + 0.05 * np.random.default_rng(1).normal(size=40)
    paired = difference(first, close, truth, resamples=300)
    one = bootstrapped(first, truth, resamples=300)
    assert paired.high - paired.low < one.high - one.low
    swapped = difference(close, first, truth, resamples=300)
    assert swapped.value == -paired.value and swapped.low == pytest.approx(-paired.high)


def test_the_same_seed_gives_the_same_interval():
    _, first, second, _ = measured(20, 0.5)
    assert bootstrapped(first, second, 100) == bootstrapped(first, second, 100) != bootstrapped(first, second, 100, 1)


@pytest.mark.parametrize(
    ("score", "truth", "said"),
    [
        ([1, 2, 3], [1, 2], "one length"),
        ([1, 2], [1, 2], "at least 3"),
        ([1, 2, np.nan], [1, 2, 3], "not finite"),
    ],
)
def test_judgements_that_cannot_be_compared(score, truth, said):
    with pytest.raises(InputError, match=said):
        kendall(score, truth)


def test_within_groups_only_their_pairs_count():
    draw = np.random.default_rng(0)
    a, b, groups = draw.integers(0, 9, 20), draw.integers(0, 9, 20), draw.integers(0, 3, 20)
    pairs = [(i, j) for i in range(20) for j in range(i) if groups[i] == groups[j]]
    above, beside = (np.asarray([np.sign(x[i] - x[j]) for i, j in pairs]) for x in (a, b))
    expected = (above * beside).sum() / np.sqrt((above != 0).sum() * (beside != 0).sum())
    assert within(a, b, groups).value == pytest.approx(expected)
    assert within(a, b, np.zeros(20)) == bootstrapped(a, b)
    assert np.isnan(within(a, b, np.arange(20)).value)
