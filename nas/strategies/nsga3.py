"""NSGA-III: like NSGA-II, but kept spread along reference directions, for three objectives and more.

With many objectives almost every network is non-dominated and crowding distance tells little. Here the last front that
fits is filled direction by direction, so that every direction keeps the network nearest to it.

Differences from the paper: the intercepts of the normalisation are the largest values on the first front, because the
hyperplane through extreme points is often degenerate for the few distinct values that networks have; a direction that
already holds networks takes its nearest next, where the paper draws one at random; mates are chosen by rank and by how
crowded their direction is, where the paper draws them.

References: Deb and Jain 2014, https://doi.org/10.1109/TEVC.2013.2281535. Das and Dennis 1998,
https://doi.org/10.1137/S1052623496307510 (the directions).
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nas.evolution import generations
from nas.pareto import ranks
from nas.types import Strategy

BLEND = 1e-6  # keeps directions along an axis from dividing by zero


def strategy(
    space: Any, *, population: int = 64, mutation_rate: float | None = None, crossover_rate: float = 0.5
) -> Strategy:
    """An elitist genetic algorithm for many objectives and limits.

    Args:
        space: the search space.
        population: candidates per step and survivors, P, 1 to 4096 and at most the size of the space; there are as
            many directions as a regular grid of at most P has.
        mutation_rate: share of its decisions that a child changes in expectation, at least one, above 0 to 1; None
            means one, 1 / D.
        crossover_rate: probability that a child mixes two parents and is not a mutated copy of one, 0 to 1.

    Raises:
        InputError: an option out of range; when it is bound to one objective, for which there is no front.

    Example:
        >>> import jax
        >>> from nas.toy import ToySpace
        >>> plan = strategy(ToySpace(), population=8)
        >>> _, proposal = plan.ask(jax.random.key(1), plan.init(jax.random.key(0)))
        >>> proposal.genes.shape
        (8, 6)
    """
    return generations("nsga3", space, nearest_to_directions, population, mutation_rate, crossover_rate)


def directions(objectives: int, most: int) -> np.ndarray:
    """A regular grid of at most `most` points whose `objectives` coordinates sum to 1, at least its corners. `[R, M]`

    Example:
        >>> directions(2, 4).round(2).tolist()
        [[0.0, 1.0], [0.33, 0.67], [0.67, 0.33], [1.0, 0.0]]
        >>> directions(3, 64).shape
        (55, 3)
    """
    divisions = 1
    while objectives > 1 and math.comb(divisions + objectives, objectives - 1) <= most:
        divisions += 1
    bars = itertools.combinations(range(divisions + objectives - 1), objectives - 1)
    places = np.asarray([(-1, *bar, divisions + objectives - 1) for bar in bars])
    return (np.diff(places, axis=1) - 1) / divisions


def nearest_to_directions(objectives: Array, violation: Array, usable: Array, count: int) -> tuple[Array, Array, Array]:
    """The `count` best rows by rank, then by turns of the directions. `[N, M], [N], bool [N] -> [count], [N], [N]`

    Returns the chosen rows in order, rank and minus the turn of all rows: a row's turn is how many networks its
    direction has before it. Rows that are not `usable` come last. Jittable.

    Example:
        >>> points = jnp.asarray([[0.0, 1.0], [0.1, 0.9], [1.0, 0.0]])
        >>> sorted(nearest_to_directions(points, jnp.zeros(3), jnp.ones(3, bool), 2)[0].tolist())
        [0, 2]
    """
    rows, width = objectives.shape
    violation = jnp.where(usable, violation, jnp.inf)
    rank = ranks(objectives, violation)
    feasible = (violation == 0) & usable
    order = jnp.lexsort((rank, ~usable))
    last = rank[order[count - 1]]  # the front that fits in part
    grid = directions(width, count)
    niche, far = _associated(objectives, feasible, rank == rank[order[0]], grid)
    held = jnp.zeros(len(grid), jnp.int32).at[niche].add((feasible & (rank < last)).astype(jnp.int32))
    tied = feasible & (rank == last)
    place = jnp.lexsort((far, niche, ~tied))  # those of one direction side by side, the nearest first
    number = jnp.arange(rows)
    begins = jnp.concatenate([jnp.ones(1, bool), niche[place][1:] != niche[place][:-1]])
    within = jnp.zeros(rows, jnp.int32).at[place].set(number - jax.lax.cummax(jnp.where(begins, number, 0)))
    turn = jnp.where(tied, held[niche] + within, 0).astype(jnp.float32)
    chosen = jnp.lexsort((far, turn, rank, ~usable))
    return chosen[:count], rank, -turn


def _associated(objectives: Array, feasible: Array, front: Array, grid: np.ndarray) -> tuple[Array, Array]:
    """The direction nearest to every row and the distance to its line, `int32 [N], float32 [N]`."""
    fine = feasible[:, None]
    best = jnp.where(fine, objectives, jnp.inf).min(axis=0)
    worst = jnp.where(fine & front[:, None], objectives, -jnp.inf).max(axis=0)
    extent = jnp.where(worst > best, worst - best, 1.0)
    scaled = jnp.where(fine, (objectives - best) / extent, 0.0)
    scaled = jnp.where(jnp.isfinite(scaled), scaled, 0.0)
    lines = (grid + BLEND) / np.linalg.norm(grid + BLEND, axis=1, keepdims=True)
    along = scaled @ jnp.asarray(lines.T, jnp.float32)  # [N, R]
    square = jnp.maximum((scaled**2).sum(axis=1)[:, None] - along**2, 0.0)
    niche = jnp.argmin(square, axis=1).astype(jnp.int32)
    return niche, jnp.sqrt(jnp.take_along_axis(square, niche[:, None], axis=1)[:, 0])
