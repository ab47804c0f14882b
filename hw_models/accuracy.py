"""How well predicted times agree with measured ones: ranks, shares within a margin, errors; each with an interval."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from hw_models.errors import InputError

RESAMPLES = 400
LEAST = 3  # ranks of fewer say nothing


class Share(NamedTuple):
    """A figure and the 95 % interval that resampling the networks gives it."""

    value: float
    low: float
    high: float


class Accuracy(NamedTuple):
    """Agreement over `networks` networks.

    `spearman` and `kendall` compare ranks; `within_5` and `within_10` are shares of networks whose prediction is at
    most 5 or 10 % off; `mape` is the mean absolute relative error, `typical_error` the one that 68 % of networks stay
    below (of a normal distribution: one standard deviation).
    """

    networks: int
    spearman: Share
    kendall: Share
    within_5: Share
    within_10: Share
    mape: Share
    typical_error: Share


def accuracy(predicted: Any, measured: Any, seed: int = 0) -> Accuracy:
    """Agreement of predicted and measured seconds, both `[N]`.

    Raises:
        InputError: lengths differ, fewer than three networks, a value that is not positive, or all of them equal.

    Example:
        >>> figures = accuracy([1.0, 2.0, 3.3], [1.0, 2.1, 3.0])
        >>> figures.spearman.value, round(figures.within_5.value, 2)
        (1.0, 0.67)
    """
    predicted, measured = np.asarray(predicted, float), np.asarray(measured, float)
    if predicted.shape != measured.shape or predicted.ndim != 1 or len(predicted) < LEAST:
        raise InputError(
            f"predictions {predicted.shape} and measurements {measured.shape} cannot be compared: give one of each for "
            f"at least {LEAST} networks"
        )
    both = np.concatenate([predicted, measured])
    if not np.all(np.isfinite(both) & (both > 0)):
        raise InputError("predicted and measured times must be positive and finite: correct those that are not")
    for what, times in (("predicted", predicted), ("measured", measured)):
        if not np.ptp(times):
            raise InputError(f"all {what} times are {times[0]:.3g} s and have no ranks: give networks that differ")
    picks = np.random.default_rng(seed).integers(len(measured), size=(RESAMPLES, len(measured)))
    drawn = [figures(predicted[i], measured[i]) for i in picks]
    shares = {}
    for name, value in figures(predicted, measured).items():
        low, high = np.nanquantile([each[name] for each in drawn], [0.025, 0.975])
        shares[name] = Share(value, float(low), float(high))
    return Accuracy(len(measured), **shares)


def figures(predicted: np.ndarray, measured: np.ndarray) -> dict[str, float]:
    """The figures of `accuracy` by name, without intervals.

    Example:
        >>> figures(np.asarray([1.0, 2.0]), np.asarray([1.0, 2.0]))["mape"]
        0.0
    """
    spearman = kendall = np.nan
    if np.ptp(predicted) and np.ptp(measured):  # a resample may hold one network only
        spearman = stats.spearmanr(predicted, measured).statistic
        kendall = stats.kendalltau(predicted, measured).statistic
    error = np.abs(predicted / measured - 1)
    found = {
        "spearman": spearman,
        "kendall": kendall,
        "within_5": np.mean(error <= 0.05),
        "within_10": np.mean(error <= 0.10),
        "mape": np.mean(error),
        "typical_error": np.quantile(error, 0.68),
    }
    return {name: float(value) for name, value in found.items()}
