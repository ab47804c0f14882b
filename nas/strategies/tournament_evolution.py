"""Evolution by pairwise tournaments: two networks meet, the better has a child, and the worse makes room for it.

With several objectives, the better of two is the one of the lower rank in the population (ties: the lonelier).

References: Real et al. 2017, "Large-scale evolution of image classifiers", https://arxiv.org/abs/1703.01041, the scheme
that the survey of lightweight networks describes (section on evolutionary search); crossover is the survey's addition.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from hw_models.errors import number
from nas import offspring
from nas.population import Population, as_one, check_size, standing, survive, told, unknown
from nas.types import Feedback, Key, Proposal, Strategy


class State(NamedTuple):
    """The living, and the best ever seen; `[N, D]` each."""

    living: Population
    best: Population


class _Child(NamedTuple):
    """What a proposal remembers: genes with dead ones `[P, D]`, and the rows that the children take over `[P]`."""

    genes: Array
    places: Array


def strategy(
    space: Any, *, population: int = 64, mutation_rate: float | None = None, crossover_rate: float = 0.0
) -> Strategy:
    """Evolution by tournaments of two, for any number of objectives and limits.

    Args:
        space: the search space.
        population: how many networks are alive, N, 1 to 4096 and at most the size of the space. A step pairs them all
            off and proposes P = N / 2 children, one per pair.
        mutation_rate: share of its decisions that a child changes in expectation, at least one, above 0 to 1; None
            means one, 1 / D.
        crossover_rate: probability that a child mixes the winners of two pairs, 0 to 1.

    Raises:
        InputError: an option out of range.

    Example:
        >>> from nas.toy import ToySpace
        >>> plan = strategy(ToySpace(), population=8)
        >>> _, proposal = plan.ask(jax.random.key(1), plan.init(jax.random.key(0)))
        >>> proposal.genes.shape
        (4, 6)
    """
    size = check_size(population, space)
    mutation = offspring.mutation_rate(space, mutation_rate)
    mixing = number("crossover_rate", crossover_rate, 0, 1, lowest=True)
    settings = {"population": size, "batch": max(1, size // 2), "mutation_rate": mutation, "crossover_rate": mixing}
    return _plan(space, size, mutation, mixing, settings, None)


def _plan(space: Any, size: int, mutation: float, mixing: float, settings: dict[str, Any], objective: Any) -> Strategy:
    rows = max(1, size // 2)
    joined = objective is not None and objective.joined
    canonical, active = jax.vmap(space.canonical), jax.vmap(space.active)

    def init(key: Key) -> State:
        living = unknown(offspring.first_genes(space, key, size, objective))
        return State(living, unknown(canonical(living.genes)))

    def start(state: State, genes: Array) -> State:
        first = state.living.genes[:rows]
        living = state.living.genes.at[:rows].set(jnp.where(active(genes), genes, first))
        return State(unknown(living), unknown(canonical(living)))

    def waiting(key: Key, state: State) -> _Child:
        places = jnp.argsort(state.living.known, stable=True)[:rows]  # those not judged yet
        return _Child(state.living.genes[places], places.astype(jnp.int32))

    def bred(key: Key, state: State) -> _Child:
        pair, cross, change = jax.random.split(key, 3)
        living = state.living
        place = standing(living)
        met = jax.random.permutation(pair, jnp.arange(size, dtype=jnp.int32))
        one, other = met[:rows], met[size - rows :]
        wins = place[one] <= place[other]
        winners, losers = jnp.where(wins, one, other), jnp.where(wins, other, one)
        mother, father = living.genes[winners], living.genes[jnp.roll(winners, 1)]
        children = offspring.crossed(space, cross, mother, father, mixing) if mixing else mother
        return _Child(offspring.mutated(space, change, children, living.genes, mutation), losers)

    def ask(key: Key, state: State) -> tuple[State, Proposal]:
        child = jax.lax.cond(state.living.known.all(), bred, waiting, key, state)
        return state, Proposal(canonical(child.genes), aux=child)

    def tell(state: State, proposal: Proposal, feedback: Feedback) -> State:
        seen = as_one(feedback) if joined else feedback
        living = told(state.living, proposal.aux.places, proposal.aux.genes, seen)
        return State(living, survive(state.best, proposal.genes, seen))

    def final(state: State) -> Array:
        return state.best.genes

    def bind(objective: Any) -> Strategy:
        return _plan(space, size, mutation, mixing, settings, objective)

    return Strategy(init, ask, tell, final, name="tournament_evolution", start=start, describe=settings, bind=bind)
