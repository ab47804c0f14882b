"""From what became of candidates to what a policy learns from each: advantages without a unit.

Rewards come in any unit, so they are divided by how far they scatter, and what is above a moving average counts as
good. Candidates that exceed a limit, or failed, are worse than every other of their batch, and the worse the more they
exceed: a policy that meets none but those still learns which way to go.

Shape letters: `P` candidates.

References: Williams 1992, https://doi.org/10.1007/BF00992696 (baselines). Zoph and Le 2017,
https://arxiv.org/abs/1611.01578, section 3.2 (the moving average of rewards as one).
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

FARTHEST = 3.0  # scatters: one candidate of an absurd cost must not outweigh all others


class Level(NamedTuple):
    """Moving averages, `float32 []` each, and the weights of what they were made of.

    Attributes:
        mean: of the rewards of feasible candidates.
        variance: of the same.
        weight: of both.
        standing: of where all candidates stood, infeasible ones included.
        standings: the weight of that.
    """

    mean: Array
    variance: Array
    weight: Array
    standing: Array
    standings: Array


def no_level() -> Level:
    """Nothing seen yet.

    Example:
        >>> float(no_level().weight)
        0.0
    """
    return Level(*(jnp.zeros((), jnp.float32) for _ in Level._fields))


def advantages(
    level: Level, rewards: Array, trusted: Array, violation: Array, done: Array, memory: float
) -> tuple[Level, Array]:
    """What every candidate is worth to a policy, `float32 [P]`, finite, 0 where not `done`; and the level after them.

    Args:
        level: the moving averages so far.
        rewards: `[P]`, maximised; read where `trusted [P]`.
        violation: `[P]`, read where not trusted; `+inf` or NaN for candidates that failed.
        done: `[P]`, the rows that count.
        memory: how much of the averages a step keeps, 0 to below 1.

    Example:
        >>> yes, no = jnp.ones(3, bool), jnp.asarray([True, True, False])
        >>> rewards, violation = jnp.asarray([1.0, 2.0, jnp.nan]), jnp.asarray([0.0, 0.0, 0.5])
        >>> _, worth = advantages(no_level(), rewards, no, violation, yes, 0.9)
        >>> bool(worth[1] > worth[0]), bool(worth[0] > worth[2])
        (True, True)
    """
    good = trusted & done
    clean = jnp.where(good, rewards, 0.0)
    share = (1 - memory) * good.sum() / jnp.maximum(done.sum(), 1)
    weight = level.weight * (1 - share) + share
    rate = share / jnp.maximum(weight, 1e-9)  # 1 at first: early averages do not lean towards 0
    number = jnp.maximum(good.sum(), 1)
    center = clean.sum() / number
    away = center - level.mean
    mean = level.mean + rate * away
    within = jnp.where(good, (rewards - center) ** 2, 0.0).sum() / number
    # squares are taken about means: where rewards differ little, those about 0 lose the difference in rounding
    variance = level.variance * (1 - rate) + rate * (within + (1 - rate) * away**2)
    # rewards that are all the same differ by rounding only, which must not look like better and worse
    scatter = jnp.sqrt(variance) + 1e-6 * jnp.abs(mean) + 1e-8
    stands = jnp.clip((clean - mean) / scatter, -FARTHEST, FARTHEST)

    excess = jnp.log1p(jnp.maximum(violation, 0.0))
    finite = jnp.isfinite(excess)
    excess = jnp.minimum(excess, FARTHEST)
    farthest = jnp.where(done & ~trusted & finite, excess, 0.0).max(initial=0.0)
    excess = jnp.where(finite, excess, farthest + 0.5)
    lowest = jnp.where(good, stands, 0.0).min(initial=0.0)
    stands = jnp.where(good, stands, lowest - 0.5 - excess)

    counted = jnp.where(done, stands, 0.0)
    step = jnp.where(done.any(), 1 - memory, 0.0)
    standings = level.standings * (1 - step) + step
    average = counted.sum() / jnp.maximum(done.sum(), 1)
    standing = level.standing + step / jnp.maximum(standings, 1e-9) * (average - level.standing)
    worth = jnp.where(done, stands - standing, 0.0)
    return Level(mean, variance, weight, standing, standings), worth
