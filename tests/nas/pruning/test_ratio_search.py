"""The search for a ratio: the corrected bound, known minima, counts of filters, bad settings."""

import jax.numpy as jnp
import numpy as np
import pytest

from hw_models.errors import InputError
from nas.pruning.ratio_search import LARGEST, RatioSearch, lower_bound, searched

RATIOS = np.linspace(0, 0.4, 41)


def test_settings_are_those_of_the_thesis():
    """Section 4.4: 0 to 40 %, kappa 2.5, 5 observations and 5 steps of exploration; 4.3.4: alpha_2 = alpha_1 / 4."""
    usual = RatioSearch()
    assert (usual.low, usual.high, usual.kappa, usual.initial, usual.guided) == (0, 0.4, 2.5, 5, 5)
    assert RatioSearch(params_weight=8).objective(30, 75, 90) == 30 + 8 * 75 + 2 * 90
    assert RatioSearch(size_weight=0.0).objective(30, 75, 90) == 105


@pytest.mark.parametrize(
    ("loss", "best"),
    [
        (lambda x: 100 * (x - 0.23) ** 2, 0.23),
        (lambda x: 20 * abs(x - 0.31) - 5 * x, 0.31),
        (lambda x: 3 * x, 0.0),
        (lambda x: -50 * x, 0.4),
    ],
)
def test_the_minimum_of_a_known_loss_is_found_in_ten_evaluations(loss, best):
    found = searched(loss, RATIOS)
    assert found.best == pytest.approx(best, abs=1e-6)
    assert len(found.values) == len(set(found.values)) == 10
    assert found.values[:5] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_the_bound_is_minimised_not_maximised():
    """Equations 4.10 and 4.11 corrected: of a rising loss the low end is explored, of equal means the less certain."""
    assert max(searched(lambda x: 3 * x, RATIOS).values[5:]) < 0.1
    bound = lower_bound(jnp.asarray([1.0, 1.0, 9.0]), jnp.asarray([0.1, 0.2, 0.2]), 2.5)
    assert int(bound.argmin()) == 1


def test_few_candidates_are_judged_once_each():
    seen = []
    found = searched(lambda x: seen.append(x) or abs(x - 2), range(4))
    assert sorted(seen) == [0, 1, 2, 3] and found.best == 2
    assert searched(lambda x: 1.0, [7]).values == (7.0,)


def test_counts_are_whole_filters_within_the_bounds():
    assert RatioSearch().counts(16).tolist() == list(range(7))
    assert RatioSearch(low=0.25, high=0.3).counts(10).tolist() == [3]
    wide = RatioSearch().counts(2048)
    assert len(wide) == LARGEST and wide[0] == 0 and wide[-1] == 819


@pytest.mark.parametrize(
    ("channels", "low", "high", "most"),
    [(10, 0.25, 0.29, "0.2"), (3, 0.4, 0.6, "0.333"), (1, 0.1, 0.4, "0"), (7, 0.5, 0.5, "0.428")],
)
def test_bounds_without_a_whole_number_of_channels_between_them_are_refused(channels, low, high, most):
    with pytest.raises(InputError, match=f"no whole number of the {channels} channels of conv: .* at most {most}$"):
        RatioSearch(low=low, high=high).counts(channels, "conv")
    assert RatioSearch(low=float(most), high=high).counts(channels).tolist() == [int(high * channels)]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"high": 1.2}, "high=1.2 is out of range: give 0.0 to 1"),
        ({"low": -0.1}, "low=-0.1 is out of range"),
        ({"low": 0.5}, "high=0.4 is out of range: give 0.5 to 1"),
        ({"initial": 0}, "initial 0 is not allowed"),
        ({"kappa": -1.0}, "kappa -1.0 is not allowed"),
        ({"size_weight": -1.0}, "size_weight -1.0 is not allowed"),
    ],
)
def test_bad_settings_are_named(given, said):
    with pytest.raises(InputError, match=said):
        RatioSearch(**given)


def test_an_empty_layer_and_a_loss_that_is_no_number_are_refused():
    with pytest.raises(InputError, match=r"high=1.0 leaves conv of 8 channels empty: give at most 0.875"):
        RatioSearch(high=1.0).counts(8, "conv")
    with pytest.raises(InputError, match="the loss at 0 is nan"):
        searched(lambda x: float("nan"), RATIOS)
    with pytest.raises(InputError, match="0 candidates are not allowed"):
        searched(lambda x: x, [])
