"""Random search: every step proposes fresh samples of the space and keeps the best ones seen.

References: Li and Talwalkar 2019, "Random search and reproducibility for neural architecture search",
https://arxiv.org/abs/1902.07638 (the baseline that every other strategy has to beat).
"""

from __future__ import annotations

from typing import Any

import jax
from jax import Array

from nas.population import Population, check_size, survive, unknown
from nas.types import Feedback, Key, Proposal, Strategy


def strategy(space: Any, *, population: int = 64) -> Strategy:
    """Samples `population` networks a step, and answers with the best as many it has seen. Any number of objectives.

    Args:
        space: the search space.
        population: candidates per step, P, 1 to 4096.

    Raises:
        InputError: `population` out of range.

    Example:
        >>> from nas.toy import ToySpace
        >>> plan = strategy(ToySpace(), population=8)
        >>> _, proposal = plan.ask(jax.random.key(1), plan.init(jax.random.key(0)))
        >>> proposal.genes.shape
        (8, 6)
    """
    size = check_size(population)

    def draw(key: Key) -> Array:
        return jax.vmap(space.sample)(jax.random.split(key, size))

    def init(key: Key) -> Population:
        return unknown(draw(key))

    def ask(key: Key, state: Population) -> tuple[Population, Proposal]:
        return state, Proposal(draw(key))

    def tell(state: Population, proposal: Proposal, feedback: Feedback) -> Population:
        return survive(state, proposal.genes, feedback)

    def final(state: Population) -> Array:
        return state.genes

    return Strategy(init, ask, tell, final, name="random_search", describe={"population": size})
