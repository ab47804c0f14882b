"""From probabilities to a network that costs what was asked for: the most probable one that lands on the targets.

The most probable option of every decision, taken together, costs something else than the expectation that a relaxed
search has steered. Costs of networks are known exactly and at once, so the nearest network is searched: from the most
probable one by exchanges of one or two decisions, first until targets and limits are met, then for higher probability.

Shape letters: `D` decisions, `C` options, `N` exchanges.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from nas.objectives import Objective
from nas.population import legal_options

TOLERANCE = 0.01  # relative distance from a target that counts as landed
MOST_PAIRS = 1 << 16  # exchanges of two decisions are left out where there are more of them
MOST_TURNS = 64
STARTS = 8  # tries from other networks where the way from the most probable one ends beside the targets

Round = Callable[[Array], Array]


class _Best(NamedTuple):
    """The network found so far, `[D]`, not canonical; by how much it misses; its log-probability."""

    genes: Array
    miss: Array
    score: Array


def most_probable(space: Any) -> Round:
    """`scores [D, C] -> genes [D]`, canonical, whatever they cost. Options that do not exist are never taken.

    Example:
        >>> from nas.toy import ToySpace
        >>> most_probable(ToySpace())(jnp.zeros((6, 4)).at[0, 2].set(1.0)).tolist()
        [2, 0, 0, 0, 0, 0]
    """
    legal = legal_options(space)
    return lambda scores: space.canonical(jnp.argmax(jnp.where(legal, scores, -jnp.inf), -1).astype(jnp.int32))


def landing(space: Any, objective: Objective, tolerance: float = TOLERANCE) -> Round:
    """`scores [D, C] -> genes [D]`, canonical: the highest sum of scores found within the limits and near the targets.

    Targets count where the objective's scalar lands on them (`absolute`), to within `tolerance`, relative. Where no
    exchange comes nearer, other starts are tried, and the nearest network found is the answer. Pure and jittable; `N`
    networks are priced at every turn. Scores are log-probabilities, or those with noise for a sample.

    Example:
        >>> from nas.toy import ToySpace, toy_objective
        >>> goal = toy_objective(ToySpace(), limits={"params": 5.0})
        >>> take = landing(ToySpace(), goal)
        >>> genes = take(jnp.tile(jnp.arange(4.0), (6, 1)))
        >>> float(goal.price(genes[None]).costs["params"][0])
        5.0
    """
    targets = objective.landings
    moves = _moves(space.cardinality)
    decisions, options = jnp.asarray(moves[0]), jnp.asarray(moves[1])
    place, legal = jnp.arange(space.num_decisions), legal_options(space)

    def rated(genes: Array, scores: Array) -> _Best:
        priced = objective.price_one(space.canonical(genes))
        off = [jnp.maximum(jnp.abs(priced.costs[name] / aim - 1.0) - tolerance, 0.0) for name, aim in targets.items()]
        return _Best(genes, priced.violation + sum(off, jnp.float32(0.0)), scores[place, genes].sum())

    def changed(genes: Array, decision: Array, option: Array) -> Array:
        # the second exchange first: where both are one, that is a change of a single decision
        return genes.at[decision[1]].set(option[1]).at[decision[0]].set(option[0])

    def better(one: _Best, other: _Best) -> Array:
        return (one.miss < other.miss) | ((one.miss == other.miss) & (one.score > other.score + 1e-5))

    def turn(carry: tuple[_Best, Array, Array], scores: Array) -> tuple[_Best, Array, Array]:
        best, number, _ = carry
        tried = jax.vmap(changed, (None, 0, 0))(best.genes, decisions, options)
        found = jax.vmap(rated, (0, None))(tried, scores)
        nearest = found.miss == found.miss.min()
        chosen = jnp.argmax(jnp.where(nearest, found.score, -jnp.inf))
        new = jax.tree.map(lambda leaf: leaf[chosen], found)
        ahead = better(new, best)
        return jax.tree.map(lambda a, b: jnp.where(ahead, a, b), new, best), number + 1, ahead

    def descended(genes: Array, scores: Array) -> _Best:
        def goes_on(carry: tuple[_Best, Array, Array]) -> Array:
            return carry[2] & (carry[1] < MOST_TURNS)

        first = rated(genes, scores)
        # where the most probable network meets everything it cannot be improved on
        start = (first, jnp.int32(0), first.miss > 0)
        return lax.while_loop(goes_on, lambda carry: turn(carry, scores), start)[0]

    def start_of(number: Array, scores: Array) -> Array:
        """The most probable network, then draws ever farther from it; the same in every search."""
        noise = jax.random.gumbel(jax.random.fold_in(jax.random.key(0), number), scores.shape)
        return jnp.argmax(scores + noise * number, -1).astype(jnp.int32)

    def land(scores: Array) -> Array:
        scores = jnp.where(legal, scores, -jnp.inf)

        def again(carry: tuple[_Best, Array]) -> tuple[_Best, Array]:
            best, number = carry
            new = descended(start_of(number, scores), scores)
            ahead = better(new, best)
            return jax.tree.map(lambda a, b: jnp.where(ahead, a, b), new, best), number + 1

        nothing = _Best(jnp.zeros(len(place), jnp.int32), jnp.float32(jnp.inf), jnp.float32(-jnp.inf))
        best, _ = lax.while_loop(
            lambda carry: (carry[0].miss > 0) & (carry[1] < STARTS), again, (nothing, jnp.int32(0))
        )
        return space.canonical(best.genes)

    return land


def _moves(cardinality: Any) -> tuple[np.ndarray, np.ndarray]:
    """Exchanges of one or two decisions: decisions and the options they get, int32 `[N, 2]` each."""
    single = [(d, c) for d, count in enumerate(cardinality) for c in range(count)]
    pairs = [(move, move) for move in single]
    if len(single) ** 2 <= 2 * MOST_PAIRS:
        pairs += [pair for pair in itertools.combinations(single, 2) if pair[0][0] != pair[1][0]]
    table = np.asarray(pairs, np.int32).reshape(-1, 2, 2)
    return table[:, :, 0], table[:, :, 1]
