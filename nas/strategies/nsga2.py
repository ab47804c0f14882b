"""NSGA-II: an evolving population ranked by non-dominated fronts, kept spread by crowding distance.

Differences from the paper: limits are handled by constraint domination on the summed relative excess (the paper's own
section VI); networks that repeat the population or each other are mutated again, because in a discrete space repeats
would fill the population; genes that are dead for now (of a block beyond the depth, say) are kept and inherited though
proposals show them as 0, because a block that comes back would otherwise always come back as the first option (measured
on a problem of 45 genes: hypervolume after 10,000 candidates 0.72 in place of 0.70).

References: Deb et al. 2002, https://doi.org/10.1109/4235.996017. Lu et al. 2019, "NSGA-Net",
https://arxiv.org/abs/1810.03522 (the same search on network architectures).
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from hw_models.errors import InputError
from nas.population import Population, check_size, fingerprints, repeats, survive, unknown
from nas.types import Feedback, Key, Proposal, Strategy

REDRAWS = 8  # how often a repeated child is mutated again before it is proposed as it is


def _rate(name: str, value: Any, lowest_allowed: bool) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not 0 <= value <= 1 or (value == 0 and not lowest_allowed):
        raise InputError(
            f"{name} {value!r} is not allowed: give a number {'from' if lowest_allowed else 'above'} 0 to 1"
        )
    return float(value)


def strategy(
    space: Any, *, population: int = 64, mutation_rate: float | None = None, crossover_rate: float = 0.9
) -> Strategy:
    """An elitist genetic algorithm for any number of objectives and limits.

    Args:
        space: the search space.
        population: candidates per step and survivors, P, 1 to 4096.
        mutation_rate: probability that a decision of a child is drawn anew, above 0 to 1; None means one decision in
            expectation, 1 / D.
        crossover_rate: probability that a child mixes two parents and is not a mutated copy of one, 0 to 1.

    Raises:
        InputError: an option out of range.

    Example:
        >>> from nas.toy import ToySpace
        >>> plan = strategy(ToySpace(), population=8)
        >>> _, proposal = plan.ask(jax.random.key(1), plan.init(jax.random.key(0)))
        >>> proposal.genes.shape
        (8, 6)
    """
    size = check_size(population)
    mutation = 1.0 / max(space.num_decisions, 1) if mutation_rate is None else mutation_rate
    mutation = _rate("mutation_rate", mutation, lowest_allowed=False)
    mixing = _rate("crossover_rate", crossover_rate, lowest_allowed=True)
    canonical, active = jax.vmap(space.canonical), jax.vmap(space.active)
    cardinality = jnp.asarray(space.cardinality, jnp.int32)

    def init(key: Key) -> Population:
        sample_key, dead_key = jax.random.split(key)
        genes = jax.vmap(space.sample)(jax.random.split(sample_key, size)).astype(jnp.int32)
        dead = jax.random.randint(dead_key, genes.shape, 0, cardinality)
        return unknown(jnp.where(active(genes), genes, dead))

    def start(state: Population, genes: Array) -> Population:
        return unknown(jnp.where(active(genes), genes, state.genes))

    def parents(key: Key, state: Population) -> Array:
        # one flat uniform draw: randint draws twice, and XLA takes 7 times as long to compile a draw of three axes
        drawn = (jax.random.uniform(key, (4 * size,)) * size).astype(jnp.int32)
        rivals = jnp.minimum(drawn, size - 1).reshape(2, 2, size)
        first, second = rivals[0], rivals[1]
        # rows of which nothing is known have lost to every other
        rank = jnp.where(state.known, state.rank, jnp.iinfo(jnp.int32).max)
        lonelier = state.crowding[second] > state.crowding[first]
        wins = (rank[second] < rank[first]) | ((rank[second] == rank[first]) & lonelier)
        return jnp.where(wins, second, first)

    def offspring(key: Key, state: Population) -> Array:
        choose, cross, mix, change = jax.random.split(key, 4)
        mother, father = state.genes[parents(choose, state)]
        mixed = jax.vmap(space.crossover)(jax.random.split(cross, size), mother, father)
        mixed = jnp.where(active(mixed), mixed, mother)
        crossed = jnp.where(jax.random.bernoulli(mix, mixing, (size,))[:, None], mixed, mother).astype(jnp.int32)
        taken = canonical(state.genes)

        def more(carry: tuple[Array, Array, Array]) -> Array:
            return carry[2].any() & (carry[0] <= REDRAWS)

        def draw(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            turn, genes, bad = carry
            # the rate grows, because where small steps keep landing on known networks the way out is a large one
            rate = jnp.minimum(mutation * jnp.maximum(turn, 1), 1.0).astype(jnp.float32)
            keys = jax.random.split(jax.random.fold_in(change, turn), size)
            fresh = jax.vmap(space.mutate, (0, 0, None))(keys, genes, rate).astype(jnp.int32)
            genes = jnp.where(bad[:, None] & active(fresh), fresh, genes)
            repeated = repeats(fingerprints(jnp.concatenate([taken, canonical(genes)])))[size:]
            return turn + 1, genes, repeated

        return jax.lax.while_loop(more, draw, (jnp.int32(0), crossed, jnp.ones(size, bool)))[1]

    def ask(key: Key, state: Population) -> tuple[Population, Proposal]:
        genes = jax.lax.cond(state.known.any(), offspring, lambda key, state: state.genes, key, state)
        return state, Proposal(canonical(genes), aux=genes)

    def tell(state: Population, proposal: Proposal, feedback: Feedback) -> Population:
        return survive(state, proposal.aux, feedback, canonical)

    def final(state: Population) -> Array:
        return canonical(state.genes)

    settings = {"population": size, "mutation_rate": mutation, "crossover_rate": mixing}
    return Strategy(init, ask, tell, final, name="nsga2", start=start, describe=settings)
