"""How well one judgement of networks ranks them as another does: Kendall's tau, its intervals, and the noise ceiling.

Shape letters: `N` networks.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from hw_models.errors import InputError

RESAMPLES = 2000  # the ends of a 95 % interval move by about 0.01 from one seed to another
LEAST = 3  # networks; with fewer there is no order to speak of


class Tau(NamedTuple):
    """Kendall's tau-b, or a difference of two, and the middle 95 % of its bootstrapped values."""

    value: float
    low: float
    high: float

    def text(self, signed: bool = False) -> str:
        """For a table.

        Example:
            >>> Tau(0.5, 0.25, 0.75).text(), Tau(0.5, -0.25, 0.75).text(signed=True)
            ('0.50 (0.25 to 0.75)', '+0.50 (-0.25 to +0.75)')
        """
        sign = "+" if signed else ""
        return f"{self.value:{sign}.2f} ({self.low:{sign}.2f} to {self.high:{sign}.2f})"


class Ceiling(NamedTuple):
    """What chance in the training of the networks leaves to be reached.

    Attributes:
        seeds: tau between two trainings of the same networks that differ in nothing but their seed.
        mean: estimated tau between the mean error of both trainings and a perfect judgement, which knows the error that
            a network has on average over seeds.
    """

    seeds: float
    mean: float


def kendall(score: Any, truth: Any) -> float:
    """Kendall's tau-b between two judgements `[N]`; networks that tie in either count neither for nor against.

    Raises:
        InputError: judgements of different or too few networks, or that are not finite.

    Example:
        >>> kendall([1, 2, 3, 4], [1, 2, 4, 3])
        0.6666666666666666
    """
    a, b = _judgements(score, truth)
    return _tau(a, b)


def bootstrapped(score: Any, truth: Any, resamples: int = RESAMPLES, seed: int = 0) -> Tau:
    """Tau of `score [N]` against `truth [N]`, with an interval over networks drawn with replacement.

    Source: Efron & Tibshirani 1993, An Introduction to the Bootstrap, section 13.3 (percentile interval).

    Example:
        >>> bootstrapped(range(9), range(9)).text()
        '1.00 (1.00 to 1.00)'
    """
    a, b = _judgements(score, truth)
    return _interval(_tau(a, b), _taus(a, b, _draws(len(a), resamples, seed)))


def difference(score: Any, other: Any, truth: Any, resamples: int = RESAMPLES, seed: int = 0) -> Tau:
    """How much higher the tau of `score [N]` is than that of `other [N]`, both against `truth [N]`.

    The intervals are paired: in every draw both are judged by the same networks.

    Example:
        >>> difference(range(9), range(9), [3, 1, 4, 1, 5, 9, 2, 6, 5]).text(signed=True)
        '+0.00 (+0.00 to +0.00)'
    """
    (a, truth_a), (b, _) = _judgements(score, truth), _judgements(other, truth)
    draws = _draws(len(a), resamples, seed)
    return _interval(_tau(a, truth_a) - _tau(b, truth_a), _taus(a, truth_a, draws) - _taus(b, truth_a, draws))


def within(score: Any, truth: Any, groups: Any, resamples: int = RESAMPLES, seed: int = 0) -> Tau:
    """Tau of `score [N]` against `truth [N]` over those pairs of networks only that are of one group, `groups [N]`.

    What all networks of a group have in common cannot help to rank them. NaN where no pair is left that does not tie.

    Example:
        >>> kendall([1, 2, 8, 9], [2, 1, 9, 8]), within([1, 2, 8, 9], [2, 1, 9, 8], [0, 0, 1, 1]).value
        (0.3333333333333333, -1.0)
    """
    a, b = _judgements(score, truth)
    together = np.equal.outer(np.asarray(groups), np.asarray(groups)).astype(np.float64)
    value = float(_taus(a, b, np.ones((1, len(a))), together)[0])
    if np.isnan(value):
        return Tau(value, value, value)
    return _interval(value, _taus(a, b, _draws(len(a), resamples, seed), together))


def ceiling(first: Any, second: Any) -> Ceiling:
    """The noise ceiling, from the errors `[N]` of two trainings of the same networks.

    Tau becomes a correlation and back by Greiner's relation for a bivariate normal distribution, tau = 2/pi arcsin(r)
    (Kruskal 1958, Ordinal Measures of Association). The mean of two trainings has the reliability 2r / (1 + r)
    (Spearman 1910, Brown 1910), and correlates with what it measures by the square root of that (Spearman 1904). Both
    trainings are judged by the same images, so that chance in the choice of those is not in it.

    Example:
        >>> found = ceiling([1, 2, 3, 4, 5], [2, 1, 3, 4, 5])
        >>> round(found.seeds, 2), round(found.mean, 2)
        (0.8, 0.9)
    """
    seeds = kendall(first, second)
    correlation = max(0.0, float(np.sin(np.pi / 2 * seeds)))  # chance may order a few networks backwards
    reliability = 2 * correlation / (1 + correlation)
    return Ceiling(seeds, float(2 / np.pi * np.arcsin(np.sqrt(reliability))))


def _judgements(score: Any, truth: Any) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(score, np.float64), np.asarray(truth, np.float64)
    if a.shape != b.shape or a.ndim != 1 or len(a) < LEAST:
        raise InputError(
            f"judgements of {a.shape} and {b.shape} networks: give two rows of one length, at least {LEAST}"
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise InputError("a judgement is not finite: leave out networks that failed")
    return a, b


def _tau(a: np.ndarray, b: np.ndarray) -> float:
    return float(_taus(a, b, np.ones((1, len(a))))[0])


def _taus(a: np.ndarray, b: np.ndarray, draws: np.ndarray, paired: np.ndarray | float = 1.0) -> np.ndarray:
    """Tau of `a [N]` and `b [N]` in each of `R` draws, `[R]`; NaN where all of one side tie.

    `draws [R, N]` is how often each network is in the draw: a pair counts so many times as the product, and not at all
    where `paired [N, N]` is 0.
    """
    above, beside = paired * np.sign(a[:, None] - a), paired * np.sign(b[:, None] - b)

    def pairs(table: np.ndarray) -> np.ndarray:
        return ((draws @ table) * draws).sum(1)

    untied = np.sqrt(pairs(np.square(above)) * pairs(np.square(beside)))
    return np.divide(pairs(above * beside), untied, out=np.full(len(draws), np.nan), where=untied > 0)


def _draws(count: int, resamples: int, seed: int) -> np.ndarray:
    """How often each of `count` networks is drawn, `[resamples, count]`, `count` draws with replacement."""
    return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), resamples).astype(np.float64)


def _interval(value: float, resampled: np.ndarray) -> Tau:
    # a draw of one network again and again has no order
    low, high = np.nanquantile(resampled, (0.025, 0.975))
    return Tau(value, float(low), float(high))
