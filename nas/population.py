"""A population of networks with what is known of them, and which of them survive.

Shape letters: `P` rows of the population, `D` decisions, `M` objectives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from hw_models.errors import InputError, whole
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


# objectives [N, M], violation [N], usable bool [N], count -> rows int32 [count] in order, rank [N], crowding [N]
Select = Callable[[Array, Array, Array, int], tuple[Array, Array, Array]]


def check_size(population: Any, space: Any, name: str = "population") -> int:
    """The population as an integer.

    Raises:
        InputError: not a whole number from 1 to 4096, or more than the space has networks.

    Example:
        >>> from nas.toy import ToySpace
        >>> check_size(64, ToySpace())
        64
        >>> check_size(64, ToySpace(decisions=3, options=2))
        Traceback (most recent call last):
        ...
        hw_models.errors.InputError: population 64 is more than the 8 networks of space toy: give at most 8, or search with exhaustive
    """  # noqa: E501
    whole(name, population, 1, MAX_POPULATION)
    if space.num_decisions and population > space.size:  # without decisions the loop says what is wrong
        raise InputError(
            f"{name} {population} is more than the {space.size} networks of space {space.name}: give at most "
            f"{space.size}, or search with exhaustive"
        )
    return int(population)


def legal_options(space: Any) -> np.ndarray:
    """Which options decisions have, bool `[D, C]`.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> legal_options(tiny.space()).sum(1).tolist()
        [2, 2, 2, 2, 3, 3]
    """
    return np.arange(int(np.max(space.cardinality, initial=1))) < np.asarray(space.cardinality)[:, None]


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
    # constants of the program: drawn inside, they would be a good part of what there is to compile
    weights = np.random.default_rng(0).integers(2**32, size=(genes.shape[1], 2), dtype=np.uint32) | np.uint32(1)
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


def as_one(feedback: Feedback) -> Feedback:
    """The feedback with the scalar as its only objective, for strategies that rank by one number.

    Example:
        >>> from nas.toy import ToySpace, toy_objective
        >>> goal, genes = toy_objective(ToySpace()), jnp.zeros((2, 6), jnp.int32)
        >>> as_one(goal.feedback([0.5, 0.25], goal.price(genes), [True, True])).objectives.tolist()
        [[0.5], [0.25]]
    """
    return feedback._replace(objectives=feedback.scalar[:, None])


def trusted_violation(feedback: Feedback) -> Array:
    """How bad every row is before its objectives count: 0 where it is valid, `+inf` where it failed. `float32 [P]`

    Example:
        >>> from nas.toy import ToySpace, toy_objective
        >>> goal, genes = toy_objective(ToySpace()), jnp.zeros((2, 6), jnp.int32)
        >>> trusted_violation(goal.feedback([0.5, jnp.nan], goal.price(genes), [True, True])).tolist()
        [0.0, inf]
    """
    trusted = feedback.valid & ~jnp.isnan(feedback.objectives).any(axis=1)
    broken = jnp.where(feedback.violation > 0, feedback.violation, jnp.inf)
    return jnp.where(trusted, 0.0, broken).astype(jnp.float32)


def told(population: Population, places: Array, genes: Array, feedback: Feedback) -> Population:
    """The population `[N, D]` with the done rows of `genes [P, D]` at `places [P]`, in place of what was there.

    Rows stay where they are; ranks and crowding are those among all that is known.

    Example:
        >>> from nas.toy import ToySpace, toy_objective
        >>> goal, genes = toy_objective(ToySpace()), jnp.ones((1, 6), jnp.int32)
        >>> feedback = goal.feedback([0.5], goal.price(genes), [True])
        >>> told(unknown(jnp.zeros((3, 6), jnp.int32)), jnp.asarray([1]), genes, feedback).known.tolist()
        [False, True, False]
    """
    count = feedback.objectives.shape[1]
    _check_count(count)
    at = jnp.where(feedback.done, places, population.genes.shape[0])  # beyond the end: dropped
    padded = jnp.pad(feedback.objectives, ((0, 0), (0, MAX_OBJECTIVES - count)), constant_values=jnp.inf)
    objectives = population.objectives.at[at].set(padded.astype(jnp.float32), mode="drop")
    violation = population.violation.at[at].set(trusted_violation(feedback), mode="drop")
    known = population.known.at[at].set(True, mode="drop")
    _, rank, distance = best_of(objectives[:, :count], violation, known, 1)
    genes = population.genes.at[at].set(genes.astype(jnp.int32), mode="drop")
    return Population(genes, objectives, violation, known, rank, distance)


def standing(population: Population) -> Array:
    """The place of every row from the best, 0, to the worst: by rank, then by crowding. `int32 [N]`

    Example:
        >>> standing(unknown(jnp.zeros((2, 6), jnp.int32))).tolist()
        [0, 1]
    """
    order = jnp.lexsort((-population.crowding, population.rank, ~population.known))
    count = order.shape[0]
    return jnp.zeros(count, jnp.int32).at[order].set(jnp.arange(count, dtype=jnp.int32))


def _check_count(count: int) -> None:
    if count > MAX_OBJECTIVES:
        raise InputError(f"{count} objectives are too many: minimise at most {MAX_OBJECTIVES}")


def survive(
    population: Population,
    genes: Array,
    feedback: Feedback,
    canonical: Callable[[Array], Array] | None = None,
    select: Select = best_of,
) -> Population:
    """The best of the population `[P, D]` and the told rows of `genes [N, D]`: (mu + lambda) survival. Jittable.

    Repeated networks, rows that are not done and rows of which nothing is known come last; failed rows come after
    feasible and infeasible ones. `canonical` maps genes to what tells networks apart (default: the genes); `select`
    says which rows are the best.

    Raises:
        InputError: more than 16 objectives.
    """
    count = feedback.objectives.shape[1]
    _check_count(count)
    genes = jnp.concatenate([population.genes, genes.astype(jnp.int32)])
    objectives = jnp.concatenate([population.objectives[:, :count], feedback.objectives.astype(jnp.float32)])
    violation = jnp.concatenate([population.violation, trusted_violation(feedback)])
    known = jnp.concatenate([population.known, feedback.done])
    prints = fingerprints(genes if canonical is None else canonical(genes))
    usable = known & ~repeats(prints, known)
    rows, rank, distance = select(objectives, violation, usable, population.genes.shape[0])
    padding = ((0, 0), (0, MAX_OBJECTIVES - count))
    kept = jnp.pad(objectives[rows], padding, constant_values=jnp.inf)
    return Population(genes[rows], kept, violation[rows], known[rows], rank[rows], distance[rows])
