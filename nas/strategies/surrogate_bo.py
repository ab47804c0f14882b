"""Bayesian optimisation: evaluate what a Gaussian process expects to add most to the front.

Prices are known before anything is evaluated, so the process predicts the error only, and the expected hypervolume
improvement is one over errors. Candidates are children of the best networks and random ones. Of a batch, every pick is
taken as if it had come out as predicted before the next is made (kriging believer). With one objective, or a scalar
that joins several, the same is expected improvement.

References: Emmerich et al. 2006, https://doi.org/10.1109/TEVC.2005.859463 (expected hypervolume improvement).
Ginsbourger et al. 2010, https://doi.org/10.1007/978-3-642-10701-6_6 (believer). White et al. 2021, "BANANAS",
https://arxiv.org/abs/1910.11858 (candidates by mutating the best; there with an ensemble of networks).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from hw_models.errors import whole
from nas import offspring
from nas.acquisition import gain, likely_errors
from nas.gaussian_process import covariance
from nas.guide import MEMORY, Guide, check_guided, fresh, guide, guided, needs_prices
from nas.population import Population
from nas.types import Key, Strategy

FRONT = 64  # rows of the memory, best first, that improvements are measured against
ROUNDS = 32  # most picks that are made one after the other; larger batches take several at once


def strategy(
    space: Any,
    *,
    population: int = 16,
    initial: int | None = None,
    pool: int = 512,
    memory: int = MEMORY,
    mutation_rate: float | None = None,
) -> Strategy:
    """Expected hypervolume improvement under a Gaussian process, for any number of objectives and limits.

    Args:
        space: the search space.
        population: candidates per step, P, 1 to 4096 and at most the size of the space. Small batches learn more from
            every evaluation.
        initial: how many random networks come first, 2 to 100000; None means 16, or the population where that is more.
        pool: candidates that are weighed at every step, 64 to 16384.
        memory: networks that the process learns from, 16 to 2048: its cost grows with the cube.
        mutation_rate: share of its decisions that a child changes in expectation, at least one, above 0 to 1; None
            means one, 1 / D.

    Raises:
        InputError: an option out of range; when it is bound, an objective without the error.

    Example:
        >>> from nas.toy import ToySpace, toy_objective
        >>> from nas.types import bound
        >>> plan = bound(strategy(ToySpace(), population=4), toy_objective(ToySpace()))
        >>> _, proposal = plan.ask(jax.random.key(1), plan.init(jax.random.key(0)))
        >>> proposal.genes.shape
        (4, 6)
    """
    settings = check_guided(space, population, initial, memory, mutation_rate) | {
        "pool": whole("pool", pool, 64, 16384)
    }

    def bind(objective: Any) -> Strategy:
        by = guide("surrogate_bo", space, objective)
        return guided("surrogate_bo", space, objective, by, settings, _picker(space, by, settings))

    return needs_prices("surrogate_bo", settings, bind)


def _picker(space: Any, by: Guide, settings: dict[str, Any]) -> Callable[[Key, Population], Array]:
    """`(key, memory) -> genes [P, D]`, what to evaluate next."""
    size, rate = settings["population"], settings["mutation_rate"]
    weighed = max(settings["pool"], 2 * size)
    canonical = jax.vmap(space.canonical)

    def candidates(key: Key, memory: Population) -> Array:
        new, choose, cross, change = jax.random.split(key, 4)
        half = weighed // 2
        rows = memory.genes.shape[0]
        winners = offspring.tournament(choose, rows, 2 * half, memory.rank, memory.crowding, memory.known)
        # the best, mostly: places in the memory are from the best to the worst
        winners = jnp.where(jnp.arange(2 * half) % 2 == 0, winners % FRONT, winners)
        winners = jnp.where(memory.known[winners], winners, 0)
        mother, father = memory.genes[winners].reshape(2, half, -1)
        children = offspring.crossed(space, cross, mother, father, 0.5)
        children = offspring.mutated(space, change, children, memory.genes, rate, memory.known)
        drawn = jax.vmap(space.sample)(jax.random.split(new, weighed - half)).astype(jnp.int32)
        return canonical(jnp.concatenate([children, drawn]))

    def picked(key: Key, memory: Population) -> Array:
        genes = candidates(key, memory)
        priced = by.price(genes)
        open_ = fresh(memory, genes) & (priced.violation == 0)
        learned = by.learn(memory)
        seen = by.foresee(learned, genes)
        mean = seen.mean
        likely = jnp.where(learned.logarithmic, jnp.exp(mean), mean)  # what a pick is believed to come out as
        believed = by.join(likely, priced.costs)
        ours = (memory.known & (memory.violation == 0))[:FRONT]
        known = memory.objectives[:FRONT, : by.width]
        rounds = min(size, ROUNDS)
        each = -(-size // rounds)
        noise = learned.model.setting[2] * jnp.square(learned.model.scale)

        def pick(turn: Array, carry: tuple[Array, ...]) -> tuple[Array, ...]:
            front, counts, open_, variance, waves, chosen = carry
            errors = likely_errors(mean, jnp.sqrt(variance), learned.logarithmic)
            gains = jax.lax.map(lambda error: gain(by.join(error, priced.costs), front, counts), errors)
            # beyond the limit on errors nothing is gained, and nothing is known of gains where nothing is valid yet
            gains = jnp.where(by.late(errors) > 0, 0.0, jnp.nan_to_num(gains))
            # ties (nothing improves) go to the most uncertain
            worth = jnp.where(open_, gains.mean(0) + 1e-9 * jnp.sqrt(variance), -jnp.inf)
            best = jax.lax.top_k(worth, each)[1]
            first = best[0]
            wave = covariance(learned.model, seen, first) - (waves * waves[:, first][:, None]).sum(0)
            wave = wave / jnp.sqrt(jnp.maximum(variance[first], 1e-8) + noise)
            at = front.shape[0] - size + turn * each + jnp.arange(each)
            return (
                front.at[at].set(believed[best], mode="drop"),
                counts.at[at].set(open_[best], mode="drop"),
                open_.at[best].set(False),
                jnp.maximum(variance - jnp.square(wave), 1e-10),
                waves.at[turn].set(wave),
                chosen.at[turn * each + jnp.arange(each)].set(best.astype(jnp.int32), mode="drop"),
            )

        carry = (
            jnp.concatenate([known, jnp.zeros((size, by.width))]),
            jnp.concatenate([ours, jnp.zeros(size, bool)]),
            open_,
            jnp.square(seen.deviation),
            jnp.zeros((rounds, weighed)),
            jnp.zeros(size, jnp.int32),
        )
        return genes[jax.lax.fori_loop(0, rounds, pick, carry)[-1]]

    return picked
