"""Random search: every step proposes fresh samples of the space and keeps the best ones seen.

Samples that exceed a limit on costs are drawn again, which costs nothing because prices are known beforehand: without
that, a budget that few networks meet would make a straw man of the baseline.

References: Li and Talwalkar 2019, "Random search and reproducibility for neural architecture search",
https://arxiv.org/abs/1902.07638 (the baseline that every other strategy has to beat). Bender et al. 2020, "TuNAS",
https://arxiv.org/abs/2008.06120 (rejection of samples that miss the latency).
"""

from __future__ import annotations

from typing import Any

import jax
from jax import Array

from nas.offspring import first_genes
from nas.population import Population, as_one, check_size, survive, unknown
from nas.types import Feedback, Key, Proposal, Strategy


def strategy(space: Any, *, population: int = 64) -> Strategy:
    """Samples `population` networks a step, and answers with the best as many it has seen. Any number of objectives.

    Args:
        space: the search space.
        population: candidates per step, P, 1 to 4096 and at most the size of the space.

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


def _plan(space: Any, size: int, objective: Any) -> Strategy:
    joined = objective is not None and objective.joined
    canonical = jax.vmap(space.canonical)

    def draw(key: Key) -> Array:
        return canonical(first_genes(space, key, size, objective))

    def init(key: Key) -> Population:
        return unknown(draw(key))

    def ask(key: Key, state: Population) -> tuple[Population, Proposal]:
        return state, Proposal(draw(key))

    def tell(state: Population, proposal: Proposal, feedback: Feedback) -> Population:
        return survive(state, proposal.genes, as_one(feedback) if joined else feedback)

    def final(state: Population) -> Array:
        return state.genes

    def bind(objective: Any) -> Strategy:
        return _plan(space, size, objective)

    return Strategy(init, ask, tell, final, name="random_search", describe={"population": size}, bind=bind)
