"""An ensemble that predicts the error of networks from those of others, and knows how far it is off.

Every member is a ridge regression and gradient-boosted trees on what that leaves over, fitted to the logarithm of the
errors of a bootstrap sample. The regression carries the ensemble where few networks are known, the trees where many
are; docs/results/surrogate.md compares it with other models. A network is also predicted by the members whose sample
does not hold it (out of bag), which says how good the ensemble is without setting anything aside.

Source: Breiman 1996, "Bagging predictors" and "Out-of-bag estimation"; Friedman 2002, "Stochastic gradient boosting".

Shape letters: `N` known networks, `P` asked ones, `D` decisions, `F` features, `B` members.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import numpy as np

from hw_models.errors import InputError
from search_spaces.space import SearchSpace

MEMBERS = 20
LEAST = 10  # networks: with fewer every sample lacks most of the options
TREES = {"n_estimators": 150, "max_depth": 3, "learning_rate": 0.1, "subsample": 0.8, "max_features": 0.3}
ALPHAS = tuple(np.logspace(-3, 3, 13).tolist())  # strengths of the ridge, chosen by leaving one out
WITHIN = 0.683  # of a normal distribution lies within one standard deviation
_BLOCK = 1024  # rows whose features are computed by one compiled program


class Prediction(NamedTuple):
    """Predicted errors `float64 [P]` and their standard deviations `float64 [P]`."""

    error: np.ndarray
    deviation: np.ndarray


class Quality(NamedTuple):
    """Out-of-bag error of an ensemble: root mean square, Kendall's tau between predicted and measured, networks."""

    rmse: float
    kendall_tau: float
    networks: int


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Fitted members, and `quality` of what they say out of bag.

    `logarithmic` says whether members predict logarithms. `inflation` is what the spread of members is multiplied by to
    be a standard deviation: as much as lets two thirds of the networks be that close, out of bag.
    """

    space: SearchSpace
    members: tuple[Any, ...]
    logarithmic: bool
    inflation: float
    quality: Quality

    def predict(self, genes: Any) -> Prediction:
        """Predictions for `genes [P, D]`, row by row the same in any company.

        Example:
            >>> from search_spaces.spaces import tiny
            >>> genes = np.asarray([tiny.space().check([a, b, c, 0, d, 0]) for a in (0, 1) for b in (0, 1)
            ...                     for c in (0, 1) for d in (0, 1)])
            >>> ensemble = fit(tiny.space(), genes, 0.1 + 0.1 * genes[:, 0])
            >>> bool(abs(ensemble.predict(genes).error - (0.1 + 0.1 * genes[:, 0])).max() < 0.02)
            True
        """
        each = _values(self.members, features(self.space, genes), self.logarithmic)
        return Prediction(each.mean(1), self.inflation * each.std(1, ddof=1))


def features(space: SearchSpace, genes: Any) -> np.ndarray:
    """One-hot options and their places on a scale from 0 to 1, nothing at decisions that are dead, `float64 [P, F]`.

    Example:
        >>> from search_spaces.spaces import macro
        >>> features(macro.space(), [[0, 1, 2, 0, 0, 0, 0, 0]])[0, [0, 1, 2, 4, 8, 24, 25, 26]].tolist()
        [1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.5, 1.0]
    """
    array = np.asarray(genes, np.int32)
    live = _active(space, array)
    options = [np.arange(count) == array[:, [d]] for d, count in enumerate(space.cardinality)]
    hot = np.concatenate([option & live[:, [d]] for d, option in enumerate(options)], axis=1)
    places = np.where(live, array / np.maximum(space.cardinality - 1, 1), 0.0)
    return np.concatenate([hot.astype(np.float64), places], axis=1)


def _active(space: SearchSpace, genes: np.ndarray) -> np.ndarray:
    program = _program(space)
    filled = np.zeros((-(-len(genes) // _BLOCK) * _BLOCK, genes.shape[1]), np.int32)
    filled[: len(genes)] = genes
    parts = [np.asarray(program(filled[start : start + _BLOCK])) for start in range(0, len(filled), _BLOCK)]
    return np.concatenate(parts)[: len(genes)]


@lru_cache(maxsize=4)
def _program(space: SearchSpace) -> Callable[[Any], Any]:
    return jax.jit(jax.vmap(space.active))


def fit(space: SearchSpace, genes: Any, errors: Any) -> Ensemble:
    """The ensemble of networks `genes [N, D]` with `errors [N]`; the same for the same arguments.

    Logarithms are taken where all errors are above 0, which those of classifiers are; scores of proxies are not.

    Raises:
        InputError: fewer than `LEAST` networks, an error that is not finite.

    Example:
        >>> from search_spaces.spaces import macro
        >>> fit(macro.space(), np.zeros((3, 8), int), np.ones(3))
        Traceback (most recent call last):
        ...
        hw_models.errors.InputError: 3 networks are too few to fit a surrogate to: give at least 10
    """
    known = np.asarray(errors, np.float64)
    if len(known) < LEAST:
        raise InputError(f"{len(known)} networks are too few to fit a surrogate to: give at least {LEAST}")
    if not np.isfinite(known).all():
        raise InputError(f"error {known[~np.isfinite(known)][0]} is not finite: leave networks out that failed")
    logarithmic = bool((known > 0).all())
    table, target = features(space, genes), np.log(known) if logarithmic else known
    samples = [np.random.default_rng([0, b]).integers(0, len(known), len(known)) for b in range(MEMBERS)]
    members = tuple(_member(table[rows], target[rows], b) for b, rows in enumerate(samples))
    each = _values(members, table, logarithmic)
    for b, rows in enumerate(samples):
        each[rows, b] = np.nan  # what a member has seen it may not judge
    return Ensemble(space, members, logarithmic, *_judged(each, known))


class _Member(NamedTuple):
    line: Any
    trees: Any


def _member(table: np.ndarray, target: np.ndarray, seed: int) -> _Member:
    from sklearn.ensemble import GradientBoostingRegressor
    from sklearn.linear_model import RidgeCV

    line = RidgeCV(ALPHAS).fit(table, target)
    trees = GradientBoostingRegressor(**TREES, random_state=seed).fit(table, target - line.predict(table))
    return _Member(line, trees)


def _values(members: tuple[Any, ...], table: np.ndarray, logarithmic: bool) -> np.ndarray:
    """What every member says, in terms of errors, `float64 [P, B]`."""
    # Sums within rows, and no matrix product: both add up in an order that does not depend on the number of rows.
    each = np.stack(
        [(table * line.coef_).sum(1) + line.intercept_ + trees.predict(table) for line, trees in members], axis=1
    )
    return np.exp(each) if logarithmic else each


def _judged(each: np.ndarray, known: np.ndarray) -> tuple[float, Quality]:
    """Inflation and quality from out-of-bag predictions `each [N, B]`, NaN where a member has seen the network."""
    from scipy.stats import kendalltau

    judged = np.isfinite(each).sum(1) >= 2
    mean, spread = np.nanmean(each[judged], 1), np.nanstd(each[judged], 1, ddof=1)
    off = mean - known[judged]
    floor = 1e-12 + 1e-3 * np.abs(off).mean()
    # a quantile, because a few members often agree by accident, and one such network would decide over a mean
    inflation = float(np.quantile(np.abs(off) / np.maximum(spread, floor), WITHIN))
    tau = float(kendalltau(mean, known[judged]).statistic) if np.ptp(known[judged]) > 0 else float("nan")
    return inflation, Quality(float(np.sqrt(np.mean(np.square(off)))), tau, int(judged.sum()))
