"""What candidates are worth to a policy: bounded, without a unit, infeasible ones last."""

import jax.numpy as jnp
import numpy as np
import pytest

from nas.advantages import advantages, no_level


def _worth(rewards, trusted, violation, done=None, level=None):
    rows = len(rewards)
    done = jnp.ones(rows, bool) if done is None else jnp.asarray(done)
    given = (jnp.asarray(rewards, jnp.float32), jnp.asarray(trusted), jnp.asarray(violation, jnp.float32))
    return advantages(no_level() if level is None else level, *given, done, 0.9)


def test_the_unit_of_rewards_does_not_matter():
    rewards = np.asarray([1.0, 2.0, 4.0, 3.0])
    _, worth = _worth(rewards, [True] * 4, [0.0] * 4)
    _, scaled = _worth(1e-3 * rewards - 7, [True] * 4, [0.0] * 4)
    np.testing.assert_allclose(worth, scaled, atol=0.02)
    assert np.argmax(worth) == 2 and abs(float(worth.mean())) < 1e-6


def test_what_breaks_limits_is_worse_than_what_does_not_and_the_worse_the_more():
    nan, inf = np.nan, np.inf
    _, worth = _worth([5.0, 1.0, nan, -inf, nan], [True, True, False, False, False], [0, 0, 0.1, 2.0, inf])
    assert np.isfinite(worth).all() and (np.diff(worth) < 0).all()


@pytest.mark.parametrize("violation", [[0.5, 3.0], [np.inf, np.inf], [np.nan, np.inf]])
def test_a_batch_of_nothing_but_failures_stays_finite(violation):
    level, worth = _worth([np.inf, np.nan], [False, False], violation)
    assert np.isfinite(worth).all() and all(np.isfinite(value) for value in level)
    assert violation[0] != 0.5 or float(worth[0]) > 0 > float(worth[1])


def test_rows_that_are_not_done_change_nothing():
    one = _worth([1.0, 2.0, 9.0], [True, True, True], [0.0, 0.0, 0.0], [True, True, False])
    other = _worth([1.0, 2.0, np.nan], [True, True, False], [0.0, 0.0, np.inf], [True, True, False])
    np.testing.assert_array_equal(one[1], other[1])
    np.testing.assert_array_equal(np.asarray(one[0]), np.asarray(other[0]))
    level, nothing = _worth([1.0], [True], [0.0], [False], one[0])
    np.testing.assert_array_equal(np.asarray(level), np.asarray(one[0]))
    assert (np.asarray(nothing) == 0).all()
