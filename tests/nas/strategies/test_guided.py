"""The Gaussian process against scikit-learn's, improvements against moocore, and what guided strategies refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models.errors import InputError
from nas import gaussian_process as gp
from nas.acquisition import gain
from nas.pareto import hypervolume
from nas.strategies import predictor_evolution, surrogate_bo
from nas.toy import ToySpace, toy_objective
from nas.types import bound

SPACE = ToySpace()


def _data(count=24):
    rng = np.random.default_rng(0)
    x = rng.random((count, 5)).astype(np.float32)
    return x, np.sin(3 * x[:, 0]) + x[:, 1] * x[:, 2]


def test_the_process_is_that_of_scikit_learn():
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, DotProduct

    x, y = _data()
    # rows that do not count change nothing
    padded = np.concatenate([x, np.full((3, 5), 7.0, np.float32)])
    model = gp.fit(jnp.asarray(padded), jnp.concatenate([y, jnp.full(3, 99.0)]), jnp.arange(27) < 24)
    length, share, noise = (float(value) for value in model.setting)
    asked = np.random.default_rng(1).random((6, 5)).astype(np.float32)
    predicted = gp.predict(model, jnp.asarray(asked))
    kernel = share * RBF(length * np.sqrt(5)) + (1 - share) / 5 * DotProduct(0.0, "fixed")
    scaled, z = (x - x.mean(0)) / x.std(0), (y - y.mean()) / y.std()
    reference = GaussianProcessRegressor(kernel, alpha=noise + 1e-5, optimizer=None).fit(scaled, z)
    theirs, spread = reference.predict((asked - x.mean(0)) / x.std(0), return_cov=True)
    np.testing.assert_allclose(predicted.mean, theirs * y.std() + y.mean(), atol=2e-3)
    np.testing.assert_allclose(predicted.deviation, np.sqrt(np.diag(spread)) * y.std(), rtol=0.05, atol=2e-3)
    with_second = gp.covariance(model, predicted, jnp.int32(2))
    np.testing.assert_allclose(with_second, spread[:, 2] * y.var(), atol=3e-3)


@pytest.mark.parametrize(("objectives", "tolerance"), [(1, 1e-5), (2, 1e-5), (3, 0.02)])
def test_improvements_are_differences_of_hypervolume(objectives, tolerance):
    rng = np.random.default_rng(objectives)
    front, asked = rng.random((12, objectives)), rng.random((30, objectives)) * 1.2 - 0.1
    usable = np.arange(12) < 9
    low, high = front[usable].min(0), front[usable].max(0)
    known = (front[usable] - low) / np.where(high > low, high - low, 1)
    ours = gain(jnp.asarray(asked), jnp.asarray(front), jnp.asarray(usable))
    if objectives == 1:
        best = front[usable].min()
        np.testing.assert_allclose(ours, np.maximum(best - asked[:, 0], 0) / (front[usable].max() - best), atol=1e-5)
        return
    corner = np.full(objectives, 1.1)
    before = hypervolume(known, corner)
    for row, more in zip((asked - low) / (high - low), np.asarray(ours), strict=True):
        if objectives == 3 and (row < -0.1).any():
            continue  # beyond the box that the points fill
        assert abs(hypervolume(np.concatenate([known, row[None]]), corner) - before - more) < tolerance


@pytest.mark.parametrize("module", [surrogate_bo, predictor_evolution], ids=["surrogate_bo", "predictor_evolution"])
def test_guided_strategies_say_what_they_need(module):
    with pytest.raises(InputError, match="goes by prices: use it through search, or bound"):
        module.strategy(SPACE).init(jax.random.key(0))
    with pytest.raises(InputError, match="predicts the error and minimize names latency_s, params only"):
        bound(module.strategy(SPACE), toy_objective(SPACE, ("latency_s", "params")))
    for options, message in (
        ({"initial": 1}, "initial 1 is not allowed: give a whole number from 2"),
        ({"memory": 8}, "memory 8 is not allowed: give a whole number from 16 to 2048"),
    ):
        with pytest.raises(InputError, match=message):
            module.strategy(SPACE, **options)
    with pytest.raises(InputError, match="pool 3 is not allowed"):
        surrogate_bo.strategy(SPACE, pool=3)
    with pytest.raises(InputError, match="generations 0 is not allowed"):
        predictor_evolution.strategy(SPACE, generations=0)
