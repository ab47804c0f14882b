"""Regularised (ageing) evolution: the best of a random sample has a child, and the oldest network dies, however good.

Dying of age keeps networks that were lucky once from staying for ever, which matters where evaluation is noisy. With
several objectives, the best of a sample is the one of the lowest rank (ties: the loneliest).

References: Real et al. 2019, "Regularized evolution for image classifier architecture search",
https://arxiv.org/abs/1802.01548, algorithm 1.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from hw_models.errors import InputError, whole
from nas import offspring
from nas.population import MAX_POPULATION, Population, as_one, check_size, standing, survive, told, unknown
from nas.types import Feedback, Key, Proposal, Strategy


class State(NamedTuple):
    """The living in a ring of N places, `oldest` (int32 `[]`) the next to be replaced, and the best ever seen."""

    living: Population
    oldest: Array
    best: Population


def strategy(
    space: Any,
    *,
    population: int = 64,
    batch: int | None = None,
    sample: int | None = None,
    mutation_rate: float | None = None,
) -> Strategy:
    """Evolution by age for any number of objectives and limits.

    Args:
        space: the search space.
        population: how many networks are alive, N, 1 to 4096 and at most the size of the space.
        batch: candidates per step, P, 1 to the population; None means a quarter of it. The paper replaces one at a
            time; with P = N whole generations die at once.
        sample: how many of the living are drawn for every child, 1 to 4096; None means a quarter of the population, as
            in the paper.
        mutation_rate: share of its decisions that a child changes in expectation, at least one, above 0 to 1; None
            means one, 1 / D.

    Raises:
        InputError: an option out of range.

    Example:
        >>> from nas.toy import ToySpace
        >>> plan = strategy(ToySpace(), population=8)
        >>> _, proposal = plan.ask(jax.random.key(1), plan.init(jax.random.key(0)))
        >>> proposal.genes.shape
        (2, 6)
    """
    size = check_size(population, space)
    rows = max(1, size // 4) if batch is None else check_size(batch, space, "batch")
    if rows > size:
        raise InputError(f"batch {rows} is more than the population of {size}: give at most {size}")
    drawn = max(1, size // 4) if sample is None else whole("sample", sample, 1, MAX_POPULATION)
    mutation = offspring.mutation_rate(space, mutation_rate)
    settings = {"population": size, "batch": rows, "sample": drawn, "mutation_rate": mutation}
    return _plan(space, size, rows, drawn, mutation, settings, None)


def _plan(
    space: Any, size: int, rows: int, drawn: int, mutation: float, settings: dict[str, Any], objective: Any
) -> Strategy:
    joined = objective is not None and objective.joined
    canonical, active = jax.vmap(space.canonical), jax.vmap(space.active)

    def init(key: Key) -> State:
        living = unknown(offspring.first_genes(space, key, size, objective))
        return State(living, jnp.int32(0), unknown(canonical(living.genes)))

    def start(state: State, genes: Array) -> State:
        first = state.living.genes[:rows]
        living = state.living.genes.at[:rows].set(jnp.where(active(genes), genes, first))
        return State(unknown(living), jnp.int32(0), unknown(canonical(living)))

    def places(state: State) -> Array:
        return (state.oldest + jnp.arange(rows)) % size

    def bred(key: Key, state: State) -> Array:
        choose, change = jax.random.split(key)
        living = state.living
        place = standing(living)
        entrants = jnp.minimum((jax.random.uniform(choose, (rows, drawn)) * size).astype(jnp.int32), size - 1)
        winners = jnp.take_along_axis(entrants, place[entrants].argmin(axis=1)[:, None], axis=1)[:, 0]
        return offspring.mutated(space, change, living.genes[winners], living.genes, mutation)

    def ask(key: Key, state: State) -> tuple[State, Proposal]:
        def waiting(key: Key, state: State) -> Array:
            return state.living.genes[places(state)]

        # while the first networks are not all judged, the next of them; afterwards children
        genes = jax.lax.cond(state.living.known[places(state)].all(), bred, waiting, key, state)
        return state, Proposal(canonical(genes), aux=genes)

    def tell(state: State, proposal: Proposal, feedback: Feedback) -> State:
        seen = as_one(feedback) if joined else feedback
        living = told(state.living, places(state), proposal.aux, seen)
        return State(living, (state.oldest + rows) % size, survive(state.best, proposal.genes, seen))

    def final(state: State) -> Array:
        return state.best.genes

    def bind(objective: Any) -> Strategy:
        return _plan(space, size, rows, drawn, mutation, settings, objective)

    return Strategy(init, ask, tell, final, name="regularized_evolution", start=start, describe=settings, bind=bind)
