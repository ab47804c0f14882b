"""How evolution makes new networks: first ones, parents, crossover, mutation until a child is new.

Genes that are dead for now (of a block beyond the depth, say) are kept and inherited though proposals show them as 0,
because a block that comes back would otherwise always come back as the first option (measured with NSGA-II on a problem
of 45 genes: hypervolume after 10,000 candidates 0.72 in place of 0.70).

Shape letters: `P` children, `N` networks that exist, `D` decisions.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from hw_models.errors import number
from nas.population import fingerprints, repeats
from nas.types import Key

REDRAWS = 8  # how often a repeated child is mutated again before it is proposed as it is
REJECTIONS = 64  # how often what exceeds a limit is drawn again


def mutation_rate(space: Any, value: Any) -> float:
    """The share of decisions that a child changes in expectation, at least one of them; None is one, 1 / D.

    Raises:
        InputError: not a number above 0 to 1.

    Example:
        >>> from nas.toy import ToySpace
        >>> mutation_rate(ToySpace(decisions=8), None)
        0.125
    """
    return number("mutation_rate", 1.0 / max(space.num_decisions, 1) if value is None else value, 0, 1)


def first_genes(space: Any, key: Key, count: int, objective: Any = None) -> Array:
    """Random networks whose dead decisions are random too. `-> int32 [count, D]`

    With an objective, those that exceed a limit on costs are drawn again, a bounded number of times, and the nearest
    draw is kept: it costs nothing, because prices are known before anything is evaluated.

    Example:
        >>> from nas.toy import ToySpace, toy_objective
        >>> space = ToySpace()
        >>> goal = toy_objective(space, limits={"params": 8.0})
        >>> genes = first_genes(space, jax.random.key(0), 64, goal)
        >>> float(goal.price(jax.vmap(space.canonical)(genes)).violation.max())
        0.0
    """
    active, cardinality = jax.vmap(space.active), jnp.asarray(space.cardinality, jnp.int32)

    def draw(key: Key) -> Array:
        sample_key, dead_key = jax.random.split(key)
        genes = jax.vmap(space.sample)(jax.random.split(sample_key, count)).astype(jnp.int32)
        # a uniform draw and not randint, which draws twice and takes as much longer to compile
        place = jax.random.uniform(dead_key, genes.shape)
        dead = jnp.minimum((place * cardinality).astype(jnp.int32), cardinality - 1)
        return jnp.where(active(genes), genes, dead)

    if objective is None:
        return draw(key)
    canonical = jax.vmap(space.canonical)

    def more(carry: tuple[Array, Array, Array]) -> Array:
        return (carry[2] > 0).any() & (carry[0] < REJECTIONS)

    def again(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        turn, genes, over = carry
        fresh = draw(jax.random.fold_in(key, turn))
        excess = jax.vmap(objective.price_one)(canonical(fresh)).violation
        better = excess < over
        return turn + 1, jnp.where(better[:, None], fresh, genes), jnp.where(better, excess, over)

    nothing = jnp.zeros((count, space.num_decisions), jnp.int32)
    return jax.lax.while_loop(more, again, (jnp.int32(0), nothing, jnp.full((count,), jnp.inf, jnp.float32)))[1]


def tournament(key: Key, size: int, count: int, rank: Array, crowding: Array, known: Array) -> Array:
    """Winners of `count` tournaments between two random rows of `size`: lower rank, then lonelier. `-> int32 [count]`

    Rows that are not `known [size]` have lost to every other.

    Example:
        >>> rank, alone = jnp.asarray([1, 0]), jnp.zeros(2)
        >>> int(tournament(jax.random.key(0), 2, 64, rank, alone, jnp.asarray([True, False])).sum()) < 64
        True
    """
    # one flat uniform draw: randint draws twice, and XLA takes 7 times as long to compile a draw of three axes
    drawn = (jax.random.uniform(key, (2 * count,)) * size).astype(jnp.int32)
    first, second = jnp.minimum(drawn, size - 1).reshape(2, count)
    rank = jnp.where(known, rank, jnp.iinfo(jnp.int32).max)
    lonelier = crowding[second] > crowding[first]
    wins = (rank[second] < rank[first]) | ((rank[second] == rank[first]) & lonelier)
    return jnp.where(wins, second, first)


def crossed(space: Any, key: Key, mother: Array, father: Array, probability: float) -> Array:
    """Children that mix two parents with the given probability, and are their mother otherwise. `[P, D] -> [P, D]`

    Example:
        >>> from nas.toy import ToySpace
        >>> zeros = jnp.zeros((2, 6), jnp.int32)
        >>> int(crossed(ToySpace(), jax.random.key(0), zeros, zeros + 1, 0.0).sum())
        0
    """
    cross, mix = jax.random.split(key)
    rows = mother.shape[0]
    mixed = jax.vmap(space.crossover)(jax.random.split(cross, rows), mother, father)
    mixed = jnp.where(jax.vmap(space.active)(mixed), mixed, mother)
    return jnp.where(jax.random.bernoulli(mix, probability, (rows,))[:, None], mixed, mother).astype(jnp.int32)


def mutated(space: Any, key: Key, genes: Array, taken: Array, rate: float, usable: Array | None = None) -> Array:
    """Mutated networks that repeat neither each other nor `taken [N, D]`, where possible. `[P, D] -> [P, D]`

    `rate * D` decisions are changed in expectation, at least one: `mutate` of a space always changes one, so that the
    others are changed with what is left of the rate. Repeats are mutated again a bounded number of times, because in a
    discrete space they would fill a population. Only `usable [N]` rows count as taken.

    Example:
        >>> from nas.toy import ToySpace
        >>> genes = jnp.zeros((5, 6), jnp.int32)
        >>> len({tuple(row) for row in mutated(ToySpace(), jax.random.key(0), genes, genes, 0.2).tolist()})
        5
    """
    rows, decisions = genes.shape
    canonical, active = jax.vmap(space.canonical), jax.vmap(space.active)
    known = canonical(taken)
    if usable is not None:
        usable = jnp.concatenate([usable, jnp.ones(rows, bool)])

    def more(carry: tuple[Array, Array, Array]) -> Array:
        return carry[2].any() & (carry[0] <= REDRAWS)

    def draw(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        turn, genes, bad = carry
        # the rate grows, because where small steps keep landing on known networks the way out is a large one
        more = jnp.minimum(rate * jnp.maximum(turn, 1), 1.0)
        now = (jnp.maximum(more * decisions - 1.0, 0.0) / max(decisions - 1, 1)).astype(jnp.float32)
        keys = jax.random.split(jax.random.fold_in(key, turn), rows)
        fresh = jax.vmap(space.mutate, (0, 0, None))(keys, genes, now).astype(jnp.int32)
        genes = jnp.where(bad[:, None] & active(fresh), fresh, genes)
        repeated = repeats(fingerprints(jnp.concatenate([known, canonical(genes)])), usable)[known.shape[0] :]
        return turn + 1, genes, repeated

    return jax.lax.while_loop(more, draw, (jnp.int32(0), genes.astype(jnp.int32), jnp.ones(rows, bool)))[1]
