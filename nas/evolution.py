"""What strategies that evolve a whole population share: NSGA-II and NSGA-III differ in who survives only.

Shape letters: `P` rows of the population and children per step, `D` decisions, `M` objectives.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from hw_models.errors import InputError, number
from nas import offspring
from nas.population import Population, Select, check_size, survive, unknown
from nas.types import Feedback, Key, Proposal, Strategy


def needs_front(name: str, objective: Any) -> None:
    """Refuse an objective that has no front: one thing to minimise, or a scalar that joins several.

    Raises:
        InputError: there is no front.

    Example:
        >>> from nas.toy import ToySpace, toy_objective
        >>> needs_front("nsga2", toy_objective(ToySpace(), ("error",)))
        Traceback (most recent call last):
        ...
        hw_models.errors.InputError: nsga2 searches a front and minimize names error only: name a cost as well, such as latency_s, or search with regularized_evolution or local_search
    """  # noqa: E501
    if len(objective.minimize) > 1 and objective.joined:
        raise InputError(
            f"{name} searches a front and scalar={objective.scalar_name} asks for one number: drop the scalar, or "
            "search with regularized_evolution, local_search, surrogate_bo or reinforce"
        )
    if len(objective.minimize) == 1:
        other = next(name for name in (*objective.cost_names, "error") if name != objective.minimize[0])
        raise InputError(
            f"{name} searches a front and minimize names {objective.minimize[0]} only: name a cost as well, such as "
            f"{'error' if objective.minimize[0] != 'error' else other}, or search with regularized_evolution or "
            "local_search"
        )


def generations(
    name: str,
    space: Any,
    select: Select,
    population: int,
    mutation_rate: float | None,
    crossover_rate: float,
    describe: dict[str, Any] | None = None,
) -> Strategy:
    """A strategy that breeds P children a step from tournaments, of which and of their parents `select` keeps P.

    Raises:
        InputError: an option out of range.

    Example:
        >>> from nas.pareto import best_of
        >>> from nas.toy import ToySpace
        >>> generations("mine", ToySpace(), best_of, 8, None, 0.5).name
        'mine'
    """
    size = check_size(population, space)
    mutation = offspring.mutation_rate(space, mutation_rate)
    mixing = number("crossover_rate", crossover_rate, 0, 1, lowest=True)
    canonical, active = jax.vmap(space.canonical), jax.vmap(space.active)

    def init(key: Key) -> Population:
        return unknown(offspring.first_genes(space, key, size))

    def start(state: Population, genes: Array) -> Population:
        return unknown(jnp.where(active(genes), genes, state.genes))

    def bred(key: Key, state: Population) -> Array:
        choose, cross, change = jax.random.split(key, 3)
        winners = offspring.tournament(choose, size, 2 * size, state.rank, state.crowding, state.known)
        mother, father = state.genes[winners].reshape(2, size, -1)
        children = offspring.crossed(space, cross, mother, father, mixing)
        return offspring.mutated(space, change, children, state.genes, mutation)

    def ask(key: Key, state: Population) -> tuple[Population, Proposal]:
        genes = jax.lax.cond(state.known.any(), bred, lambda key, state: state.genes, key, state)
        return state, Proposal(canonical(genes), aux=genes)

    def tell(state: Population, proposal: Proposal, feedback: Feedback) -> Population:
        return survive(state, proposal.aux, feedback, canonical, select)

    def final(state: Population) -> Array:
        return canonical(state.genes)

    settings = {"population": size, "mutation_rate": mutation, "crossover_rate": mixing, **(describe or {})}
    plan = Strategy(init, ask, tell, final, name=name, start=start, describe=settings)

    def bind(objective: Any) -> Strategy:
        needs_front(name, objective)
        return plan

    return plan._replace(bind=bind)
