"""A population of networks with what is known of them, and which of them survive.

Shape letters: `P` rows of the population, `D` decisions, `M` objectives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from hw_models.errors import InputError
from nas.pareto import best_of
from nas.types import Feedback

MAX_OBJECTIVES = 16  # a state's shape is fixed before the number of objectives is known
MAX_POPULATION = 4096


class Population(NamedTuple):
    """Rows of a population, best first once something is known.

    Attributes:
        genes: `int32 [P, D]`.
        objectives: `float32 [P, MAX_OBJECTIVES]`, the first M columns in use.
        violation: `float32 [P]`, `+inf` where nothing is known.
        known: `bool [P]`, rows that were told.
        rank: `int32 [P]` and crowding `float32 [P]` among the rows they last competed with.
    """

    genes: Array
    objectives: Array
    violation: Array
    known: Array
    rank: Array
    crowding: Array


def check_size(population: Any) -> int:
    """The population as an integer.

    Raises:
        InputError: not a whole number from 1 to 4096.

    Example:
        >>> check_size(64)
        64
    """
    if isinstance(population, bool) or not isinstance(population, int) or not 1 <= population <= MAX_POPULATION:
        raise InputError(f"population {population!r} is not allowed: give a whole number from 1 to {MAX_POPULATION}")
    return population


def unknown(genes: Array) -> Population:
    """A population of which nothing is known yet. `[P, D]`

    Example:
        >>> unknown(jnp.zeros((3, 5), jnp.int32)).violation.tolist()
        [inf, inf, inf]
    """
    rows = genes.shape[0]
    return Population(
        genes=genes.astype(jnp.int32),
        objectives=jnp.full((rows, MAX_OBJECTIVES), jnp.inf, jnp.float32),
        violation=jnp.full((rows,), jnp.inf, jnp.float32),
        known=jnp.zeros((rows,), bool),
        rank=jnp.zeros((rows,), jnp.int32),
        crowding=jnp.zeros((rows,), jnp.float32),
    )


def fingerprints(genes: Array) -> Array:
    """Two hashes per row. `[N, D] -> uint32 [N, 2]`; equal rows are always equal, unequal ones almost never.

    Example:
        >>> bool((fingerprints(jnp.asarray([[1, 2]])) == fingerprints(jnp.asarray([[2, 1]]))).all())
        False
    """
    weights = jax.random.bits(jax.random.key(0), (genes.shape[1], 2), jnp.uint32) | jnp.uint32(1)
    mixed = (genes.astype(jnp.uint32)[:, :, None] + 1) * weights[None]
    mixed = (mixed ^ (mixed >> 15)) * jnp.uint32(0x2C1B3C6D)
    return mixed.sum(axis=1, dtype=jnp.uint32)


def repeats(prints: Array, usable: Array | None = None) -> Array:
    """Rows equal to a row before themselves. `uint32 [N, 2] -> bool [N]`

    Only `usable` rows make another a repeat. Jittable.

    Example:
        >>> repeats(fingerprints(jnp.asarray([[1], [2], [1]]))).tolist()
        [False, False, True]
    """
    rows = prints.shape[0]
    same = (prints[:, None, 0] == prints[None, :, 0]) & (prints[:, None, 1] == prints[None, :, 1])
    place = jnp.arange(rows)
    before = place[None, :] < place[:, None]
    if usable is not None:
        before &= usable[None, :]
    return (same & before).any(axis=1)


def survive(
    population: Population, genes: Array, feedback: Feedback, canonical: Callable[[Array], Array] | None = None
) -> Population:
    """The best P of the population and the told rows of `genes [P, D]`: (mu + lambda) survival. Jittable.

    Repeated networks, rows that are not done and rows of which nothing is known come last; failed rows come after
    feasible and infeasible ones. `canonical` maps `[N, D]` to what tells networks apart (default: the genes).

    Raises:
        InputError: more than 16 objectives.
    """
    count = feedback.objectives.shape[1]
    if count > MAX_OBJECTIVES:
        raise InputError(f"{count} objectives are too many: minimise at most {MAX_OBJECTIVES}")
    trusted = feedback.valid & ~jnp.isnan(feedback.objectives).any(axis=1)
    told = jnp.where(trusted, 0.0, jnp.where(feedback.violation > 0, feedback.violation, jnp.inf))
    genes = jnp.concatenate([population.genes, genes.astype(jnp.int32)])
    objectives = jnp.concatenate([population.objectives[:, :count], feedback.objectives.astype(jnp.float32)])
    violation = jnp.concatenate([population.violation, told.astype(jnp.float32)])
    known = jnp.concatenate([population.known, feedback.done])
    prints = fingerprints(genes if canonical is None else canonical(genes))
    usable = known & ~repeats(prints, known)
    rows, rank, distance = best_of(objectives, violation, usable, population.genes.shape[0])
    padding = ((0, 0), (0, MAX_OBJECTIVES - count))
    kept = jnp.pad(objectives[rows], padding, constant_values=jnp.inf)
    return Population(genes[rows], kept, violation[rows], known[rows], rank[rows], distance[rows])
