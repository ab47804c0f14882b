"""Evolution inside a predictor: NSGA-II runs on predicted errors and exact prices, and its best networks are evaluated.

After every step the predictor, a Gaussian process, is fitted anew to all that was evaluated, so that it becomes exact
where the search goes.

References: Cai et al. 2020, "Once-for-all", https://arxiv.org/abs/1908.09791 (evolution on a predictor). Cummings et
al. 2022, "LINAS", https://arxiv.org/abs/2205.10358 (the loop of evolving and evaluating). Deb et al. 2002,
https://doi.org/10.1109/4235.996017 (NSGA-II).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from hw_models.errors import whole
from nas import offspring
from nas.guide import MEMORY, Guide, Learned, check_guided, fresh, guide, guided, needs_prices
from nas.pareto import best_of
from nas.population import Population, survive, unknown
from nas.types import Feedback, Key, Strategy

LIVING = 128  # networks of the inner evolution


def strategy(
    space: Any,
    *,
    population: int = 16,
    initial: int | None = None,
    generations: int = 20,
    memory: int = MEMORY,
    mutation_rate: float | None = None,
) -> Strategy:
    """Evaluates what evolution on a predictor finds, for any number of objectives and limits.

    Args:
        space: the search space.
        population: candidates per step, P, 1 to 4096 and at most the size of the space.
        initial: how many random networks come first, 2 to 100000; None means 16, or the population where that is more.
        generations: of the inner evolution, at every step, 1 to 1000.
        memory: networks that the predictor learns from, 16 to 2048: its cost grows with the cube.
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
    whole("generations", generations, 1, 1000)
    settings = check_guided(space, population, initial, memory, mutation_rate) | {"generations": generations}

    def bind(objective: Any) -> Strategy:
        by = guide("predictor_evolution", space, objective)
        return guided("predictor_evolution", space, objective, by, settings, _picker(space, by, settings))

    return needs_prices("predictor_evolution", settings, bind)


def _picker(space: Any, by: Guide, settings: dict[str, Any]) -> Callable[[Key, Population], Array]:
    """`(key, memory) -> genes [P, D]`, what to evaluate next."""
    size, rate, turns = settings["population"], settings["mutation_rate"], settings["generations"]
    living = max(LIVING, 2 * size)
    canonical = jax.vmap(space.canonical)

    def foreseen(learned: Learned, genes: Array) -> Feedback:
        priced = by.price(genes)
        mean = by.foresee(learned, genes).mean
        error = jnp.where(learned.logarithmic, jnp.exp(mean), mean)
        objectives, violation = by.join(error, priced.costs), priced.violation + by.late(error)
        valid = violation == 0
        done = jnp.ones(genes.shape[0], bool)
        return Feedback(objectives, objectives[:, 0], violation, valid, done)

    def picked(key: Key, memory: Population) -> Array:
        learned = by.learn(memory)

        def generation(herd: Population, key: Key) -> tuple[Population, None]:
            choose, cross, change = jax.random.split(key, 3)
            winners = offspring.tournament(choose, living, 2 * living, herd.rank, herd.crowding, herd.known)
            mother, father = herd.genes[winners].reshape(2, living, -1)
            children = offspring.crossed(space, cross, mother, father, 0.5)
            children = canonical(offspring.mutated(space, change, children, herd.genes, rate))
            return survive(herd, children, foreseen(learned, children)), None

        first_key, evolve_key, spare_key = jax.random.split(key, 3)
        drawn = jax.vmap(space.sample)(jax.random.split(first_key, living)).astype(jnp.int32)
        # the best that are known, and as many random ones: the herd is judged by predictions alone
        known = min(living // 2, memory.genes.shape[0])
        seeds = jnp.where(memory.known[:known, None], memory.genes[:known], drawn[:known])
        seeds = canonical(drawn.at[:known].set(seeds))
        herd = survive(unknown(seeds), seeds, foreseen(learned, seeds))
        herd, _ = jax.lax.scan(generation, herd, jax.random.split(evolve_key, turns))
        new = fresh(memory, herd.genes) & herd.known
        rows, _, _ = best_of(herd.objectives[:, : by.width], herd.violation, new, size)
        # where the herd has too few new networks, mutated ones
        spare = offspring.mutated(space, spare_key, herd.genes[rows], memory.genes, rate, memory.known)
        return jnp.where(new[rows][:, None], herd.genes[rows], canonical(spare))

    return picked
