"""A Gaussian process over networks, small enough to be fitted anew at every step inside a compiled program.

The kernel adds what is linear in the features (every option has a price in error) and what is smooth in them (options
interact). Length, share and noise are those of a small grid with the highest marginal likelihood: no gradients, no
local optima, the same arithmetic at every step. Features are one-hot options and their places on a scale, nothing where
a decision is dead, and logarithms of costs known before training, the cheapest predictor of error there is.

Shape letters: `N` networks known, `Q` networks asked about, `D` decisions, `F` features, `H` settings tried.

References: Rasmussen and Williams 2006, "Gaussian processes for machine learning", http://gaussianprocess.org/gpml,
algorithm 2.1. White et al. 2021, "How powerful are performance predictors in neural architecture search?",
https://arxiv.org/abs/2104.01177 (Gaussian processes among the best with few networks).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

LENGTHS = (0.5, 1.0, 2.0)  # in units of the typical distance between two networks
SHARES = (0.3, 0.7)  # of the variance that is smooth and not linear
NOISES = (1e-3, 3e-2)  # variance of the noise, of 1 in all
SETTINGS = np.asarray(list(itertools.product(LENGTHS, SHARES, NOISES)), np.float32)  # [H, 3]


class Fitted(NamedTuple):
    """A fitted process.

    Attributes:
        features: `float32 [N, F]`, standardised; rows that do not count are 0.
        usable: `bool [N]`, rows that count.
        factor: `float32 [N, N]`, lower Cholesky factor of the covariance.
        weights: `float32 [N]`, covariance^-1 times what was observed.
        setting: `float32 [3]`, length, share and noise.
        centre, spread: what features were standardised by, `float32 [F]`.
        mean, scale: what observations were standardised by, `float32 []`.
    """

    features: Array
    usable: Array
    factor: Array
    weights: Array
    setting: Array
    centre: Array
    spread: Array
    mean: Array
    scale: Array


def features_of(space: Any, objective: Any = None) -> Callable[[Array], Array]:
    """The features of one network, `[D] -> [F]`; with an objective, logarithms of parameters and MACs among them.

    Example:
        >>> from nas.toy import ToySpace
        >>> features_of(ToySpace(decisions=3, options=2))(jnp.asarray([1, 0, 0])).tolist()
        [0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0]
    """
    counts = np.asarray(space.cardinality)
    owner = np.repeat(np.arange(len(counts)), counts)
    option = np.concatenate([np.arange(count) for count in counts])
    span = np.maximum(counts - 1, 1)

    def features(genes: Array) -> Array:
        live = space.active(genes)
        hot = (genes[owner] == option) & live[owner]
        parts = [hot.astype(jnp.float32), jnp.where(live, genes / span, 0.0).astype(jnp.float32)]
        if objective is not None:
            costs = objective.price_one(genes).costs
            known = jnp.stack([jnp.log(jnp.maximum(costs[name], 1e-30)) for name in ("params", "macs")])
            parts.append(jnp.where(jnp.isfinite(known), known, 0.0))
        return jnp.concatenate(parts)

    return features


def fit(features: Array, observed: Array, usable: Array) -> Fitted:
    """The process given `features [N, F]` and `observed [N]`, of which `usable [N]` rows count. Jittable.

    Example:
        >>> x = jnp.linspace(0, 1, 16)[:, None]
        >>> model = fit(x, 3.0 * x[:, 0], jnp.ones(16, bool))
        >>> mean, deviation = predict(model, jnp.asarray([[0.25], [5.0]]))[:2]
        >>> bool(abs(mean[0] - 0.75) < 0.02), bool(deviation[1] > 5 * deviation[0])
        (True, True)
    """
    counted = usable.astype(jnp.float32)
    total = jnp.maximum(counted.sum(), 1.0)
    centre = (features * counted[:, None]).sum(0) / total
    spread = jnp.sqrt((jnp.square(features - centre) * counted[:, None]).sum(0) / total)
    spread = jnp.where(spread > 1e-6, spread, 1.0)
    table = jnp.where(usable[:, None], (features - centre) / spread, 0.0)
    values = jnp.where(usable, observed, 0.0)
    mean = values.sum() / total
    scale = jnp.sqrt((jnp.square(values - mean) * counted).sum() / total)
    scale = jnp.where(scale > 1e-9, scale, 1.0)
    target = jnp.where(usable, (values - mean) / scale, 0.0)
    both = usable[:, None] & usable[None]
    inner, square = table @ table.T, _square_distance(table, table)

    def attempt(setting: Array) -> tuple[Array, Array, Array]:
        covariance = jnp.where(both, _kernel(inner, square, setting, table.shape[1]), 0.0)
        noise = jnp.where(usable, setting[2], 1.0)  # rows that do not count are independent of all others
        factor = jnp.linalg.cholesky(covariance + jnp.diag(noise + 1e-5))
        weights = jax.scipy.linalg.cho_solve((factor, True), target)
        evidence = -0.5 * target @ weights - jnp.where(usable, jnp.log(jnp.diagonal(factor)), 0.0).sum()
        return jnp.where(jnp.isfinite(evidence), evidence, -jnp.inf), factor, weights

    evidence = jax.lax.map(lambda setting: attempt(setting)[0], jnp.asarray(SETTINGS))
    setting = jnp.asarray(SETTINGS)[evidence.argmax()]
    _, factor, weights = attempt(setting)
    return Fitted(table, usable, factor, weights, setting, centre, spread, mean, scale)


class Predicted(NamedTuple):
    """Mean `[Q]` and deviation `[Q]`; standardised features `[Q, F]` and `half [N, Q]` are what `covariance` needs."""

    mean: Array
    deviation: Array
    table: Array
    half: Array


def predict(model: Fitted, features: Array) -> Predicted:
    """The prediction at `features [Q, F]`. Jittable."""
    table = (features - model.centre) / model.spread
    cross = _cross(model, table)
    half = jax.scipy.linalg.solve_triangular(model.factor, cross, lower=True)
    own = _kernel((table * table).sum(1), jnp.zeros(table.shape[0]), model.setting, table.shape[1])
    variance = jnp.maximum(own - (half * half).sum(0), 1e-8)
    mean = cross.T @ model.weights
    return Predicted(model.mean + model.scale * mean, model.scale * jnp.sqrt(variance), table, half)


def covariance(model: Fitted, predicted: Predicted, row: Array) -> Array:
    """Posterior covariance of all networks that were predicted with one of them, `[Q]`. Jittable."""
    table, half = predicted.table, predicted.half
    one = table[row]
    prior = _kernel(table @ one, jnp.square(table - one).sum(1), model.setting, table.shape[1])
    return jnp.square(model.scale) * (prior - half.T @ half[:, row])


def _cross(model: Fitted, table: Array) -> Array:
    kernel = _kernel(model.features @ table.T, _square_distance(model.features, table), model.setting, table.shape[1])
    return jnp.where(model.usable[:, None], kernel, 0.0)


def _square_distance(one: Array, other: Array) -> Array:
    sums = (one * one).sum(1)[:, None] + (other * other).sum(1)[None]
    return jnp.maximum(sums - 2.0 * one @ other.T, 0.0)


def _kernel(inner: Array, square: Array, setting: Array, count: int) -> Array:
    length, share = setting[0], setting[1]
    # two random networks are a square distance of 2 per feature apart
    smooth = jnp.exp(-square / (2.0 * count * jnp.square(length)))
    return share * smooth + (1.0 - share) * inner / count
