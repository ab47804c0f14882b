"""Local search: climbers change one decision at a time, and move whenever that is better.

Every climber minimises its own mixture of the objectives, so that together they approach the front from all sides; with
one objective they all minimise that. A climber tries its neighbours (networks that differ in one live decision) in a
random order of its own and moves to the first that is better. Where none is, it starts again from a mutated copy of
the best network known for its mixture (iterated local search).

References: White et al. 2021, "Local search is state of the art for neural architecture search benchmarks",
https://arxiv.org/abs/2005.02960. Lourenco et al. 2003, https://doi.org/10.1007/0-306-48056-5_11 (iterated local
search). Zhang and Li 2007, https://doi.org/10.1109/TEVC.2007.892759 (mixtures by weighted Chebyshev distance).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nas import offspring
from nas.population import Population, as_one, check_size, survive, trusted_violation, unknown
from nas.types import Feedback, Key, Proposal, Strategy

KICKED = 3  # decisions that are drawn anew, in expectation, when a climber starts again
BLEND = 0.05  # share of the sum in a mixture: of two networks with one distance, the one better elsewhere


class State(NamedTuple):
    """Climbers, one per row, and the best networks seen.

    Attributes:
        at: where every climber stands; `known` is False where it has yet to be judged.
        tried: how many places of its order of neighbours every climber has been through, int32 `[P]`.
        order: what that order is drawn from, uint32 `[P]`.
        best: the best seen, P rows.
        favourite: the row of `best` that every climber starts again from, the best for its mixture, int32 `[P]`.
    """

    at: Population
    tried: Array
    order: Array
    best: Population
    favourite: Array


class _Tried(NamedTuple):
    """What a proposal remembers: genes `[P, D]`, places in the orders `[P]`, whether climbers start again `[P]`,
    and what the order of those that move is drawn from, uint32 `[P]`."""

    genes: Array
    place: Array
    again: Array
    order: Array


def strategy(space: Any, *, population: int = 64) -> Strategy:
    """Iterated local search by P climbers, for any number of objectives and limits.

    Args:
        space: the search space.
        population: climbers, each of which proposes one candidate per step, P, 1 to 4096 and at most the size of the
            space. Few climbers climb higher with the same number of evaluations, many cover more of a front.

    Raises:
        InputError: `population` out of range.

    Example:
        >>> from nas.toy import ToySpace
        >>> plan = strategy(ToySpace(), population=8)
        >>> _, proposal = plan.ask(jax.random.key(1), plan.init(jax.random.key(0)))
        >>> proposal.genes.shape
        (8, 6)
    """
    return _plan(space, check_size(population, space), None)


def mixtures(count: int, objectives: int) -> np.ndarray:
    """Weights of the objectives for each of `count` climbers, each row summing to 1. `[P, M]`

    Spread evenly for two objectives, drawn uniformly (the same in every search) for more.

    Example:
        >>> mixtures(3, 2).round(2).tolist()
        [[0.17, 0.83], [0.5, 0.5], [0.83, 0.17]]
    """
    if objectives == 1:
        return np.ones((count, 1))
    if objectives == 2:
        first = (np.arange(count) + 0.5) / count
        return np.stack([first, 1 - first], axis=1)
    return np.random.default_rng(0).dirichlet(np.ones(objectives), count)


def _scaled(objectives: Array, best: Population) -> Array:
    """Objectives `[N, M]` from the best value of each, in units of their extent over the best networks known."""
    fine = ((best.violation == 0) & best.known)[:, None]
    known = best.objectives[:, : objectives.shape[1]]
    low = jnp.where(fine, known, jnp.inf).min(axis=0)
    extent = jnp.where(fine, known, -jnp.inf).max(axis=0) - low
    usable = jnp.isfinite(extent) & (extent > 0)
    return (objectives - jnp.where(jnp.isfinite(low), low, 0.0)) / jnp.where(usable, extent, 1.0)


def _mixed(scaled: Array, weights: Array) -> Array:
    """Weighted Chebyshev distance from the best of every objective. `[..., M], [..., M] -> [...]`"""
    weighed = weights * scaled
    return weighed.max(axis=-1) + BLEND * weighed.sum(axis=-1)


def _plan(space: Any, size: int, objective: Any) -> Strategy:
    joined = objective is not None and objective.joined
    counts = np.asarray(space.cardinality)
    decision = np.repeat(np.arange(space.num_decisions), counts - 1)  # of every neighbour
    step = np.concatenate([np.arange(1, count) for count in counts]) if len(counts) else np.zeros(0, int)
    canonical = jax.vmap(space.canonical)

    def init(key: Key) -> State:
        genes_key, order_key = jax.random.split(key)
        at = unknown(offspring.first_genes(space, genes_key, size, objective))
        order = jax.random.bits(order_key, (size,), jnp.uint32)
        nobody = jnp.zeros(size, jnp.int32)
        return State(at, nobody, order, unknown(canonical(at.genes)), nobody)

    def start(state: State, genes: Array) -> State:
        genes = jnp.where(jax.vmap(space.active)(genes), genes, state.at.genes)
        return state._replace(at=unknown(genes), best=unknown(canonical(genes)))

    def neighbour(genes: Array, tried: Array, order: Array) -> tuple[Array, Array]:
        """The next neighbour of one climber, and its place in the order; beyond the last where there is none."""
        shuffled = jax.random.permutation(jax.random.key(order), len(decision))
        live = space.active(genes)[jnp.asarray(decision)[shuffled]]
        left = live & (jnp.arange(len(decision)) >= tried)
        place = jnp.where(left.any(), left.argmax(), len(decision))
        which = shuffled[jnp.minimum(place, len(decision) - 1)]
        at = jnp.asarray(decision)[which]
        moved = (genes[at] + jnp.asarray(step)[which]) % jnp.asarray(counts, jnp.int32)[at]
        return genes.at[at].set(moved.astype(jnp.int32)), place.astype(jnp.int32)

    def ask(key: Key, state: State) -> tuple[State, Proposal]:
        kick, fresh = jax.random.split(key)
        genes, place = jax.vmap(neighbour)(state.at.genes, state.tried, state.order)
        stuck = state.at.known & (place == len(decision))
        rate = min(KICKED / max(space.num_decisions, 1), 1.0)
        source = state.best.genes[state.favourite]
        kicked = offspring.mutated(space, kick, source, state.best.genes, rate, state.best.known)
        genes = jnp.where(stuck[:, None], kicked, jnp.where(state.at.known[:, None], genes, state.at.genes))
        order = jax.random.bits(fresh, (size,), jnp.uint32)
        return state, Proposal(canonical(genes), aux=_Tried(genes, place, stuck | ~state.at.known, order))

    def tell(state: State, proposal: Proposal, feedback: Feedback) -> State:
        seen = as_one(feedback) if joined else feedback
        count, tried = seen.objectives.shape[1], proposal.aux
        weights = jnp.asarray(mixtures(size, count), jnp.float32)
        best = survive(state.best, proposal.genes, seen)
        violation = trusted_violation(seen)

        def value(objectives: Array, violation: Array) -> Array:
            return _mixed(_scaled(jnp.where(violation[:, None] == 0, objectives, 0.0), best), weights)

        new, old = value(seen.objectives, violation), value(state.at.objectives[:, :count], state.at.violation)
        less = (violation < state.at.violation) | ((violation == state.at.violation) & (new < old))
        moves = seen.done & (tried.again | less)
        padded = jnp.pad(seen.objectives, ((0, 0), (0, state.at.objectives.shape[1] - count)))
        at = state.at._replace(
            genes=jnp.where(moves[:, None], tried.genes, state.at.genes),
            objectives=jnp.where(moves[:, None], padded, state.at.objectives),
            violation=jnp.where(moves, violation, state.at.violation),
            known=state.at.known | moves,
        )
        next_place = jnp.where(moves, 0, jnp.where(seen.done, tried.place + 1, state.tried))
        every = _mixed(_scaled(best.objectives[:, :count], best)[None], weights[:, None])  # [P, P]
        every = jnp.where(best.known & (best.violation == 0), every, jnp.inf)
        # where nothing is valid yet, row 0: the one that exceeds its limits least
        favourite = every.argmin(axis=1).astype(jnp.int32)
        return State(at, next_place, jnp.where(moves, tried.order, state.order), best, favourite)

    def final(state: State) -> Array:
        return state.best.genes

    def bind(objective: Any) -> Strategy:
        return _plan(space, size, objective)

    return Strategy(init, ask, tell, final, name="local_search", start=start, describe={"population": size}, bind=bind)
