"""Improvement against exact hypervolumes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nas.improvement import Box, along, directions, improvement
from nas.pareto import hypervolume

BOX = Box(jnp.zeros(16), jnp.ones(16))


@pytest.mark.parametrize("objectives", [2, 3])
def test_improvements_are_those_of_exact_hypervolumes(objectives):
    rng = np.random.default_rng(0)
    front, rows = rng.uniform(0.3, 1, (6, objectives)), rng.uniform(0, 1, (20, objectives))
    known = np.asarray([True] * 5 + [False])
    corner = np.ones(objectives)
    before = hypervolume(front[known], corner)
    exact = np.asarray([hypervolume([*front[known], row], corner) - before for row in rows])
    ours = np.asarray(improvement(jnp.asarray(rows), jnp.asarray(front), jnp.asarray(known), BOX))
    np.testing.assert_allclose(np.maximum(ours, 0) ** objectives, exact, atol=0.015)
    beaten = (front[known][None] <= rows[:, None]).all(axis=-1).any(axis=1)
    assert beaten.any() and (ours[beaten] <= 0).all() and (ours[~beaten] >= 0).all()


def test_gains_along_random_directions_average_to_the_improvement():
    # the area below a curve is half the mean square of its distances over an angle of a quarter circle
    angle = (np.arange(2000) + 0.5) / 2000 * np.pi / 2
    unit = jnp.asarray(np.stack([np.cos(angle), np.sin(angle)], axis=1), jnp.float32)
    rows = jnp.broadcast_to(jnp.asarray([0.2, 0.6]), (2000, 2))
    reach = along(unit, rows, jnp.ones((1, 2)), jnp.zeros(1, bool), BOX)
    np.testing.assert_allclose(float((reach**2).mean()) * np.pi / 4, 0.8 * 0.4, rtol=0.01)


def test_directions_are_shares_and_spread():
    drawn = np.asarray(directions(jax.random.key(0), 256, 3))
    np.testing.assert_allclose(drawn.sum(axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(drawn.mean(axis=0), 1 / 3, atol=0.03)
