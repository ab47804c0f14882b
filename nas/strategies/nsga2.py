"""NSGA-II: an evolving population ranked by non-dominated fronts, kept spread by crowding distance.

Differences from the paper: limits are handled by constraint domination on the summed relative excess (the paper's own
section VI); networks that repeat the population or each other are mutated again; dead genes are inherited
(`nas/offspring.py`).

References: Deb et al. 2002, https://doi.org/10.1109/4235.996017. Lu et al. 2019, "NSGA-Net",
https://arxiv.org/abs/1810.03522 (the same search on network architectures).
"""

from __future__ import annotations

from typing import Any

from nas.evolution import generations
from nas.pareto import best_of
from nas.types import Strategy


def strategy(
    space: Any, *, population: int = 64, mutation_rate: float | None = None, crossover_rate: float = 0.5
) -> Strategy:
    """An elitist genetic algorithm for any number of objectives and limits.

    Args:
        space: the search space.
        population: candidates per step and survivors, P, 1 to 4096 and at most the size of the space.
        mutation_rate: share of its decisions that a child changes in expectation, at least one, above 0 to 1; None
            means one, 1 / D.
        crossover_rate: probability that a child mixes two parents and is not a mutated copy of one, 0 to 1.

    Raises:
        InputError: an option out of range; when it is bound to one objective, for which there is no front.

    Example:
        >>> import jax
        >>> from nas.toy import ToySpace
        >>> plan = strategy(ToySpace(), population=8)
        >>> _, proposal = plan.ask(jax.random.key(1), plan.init(jax.random.key(0)))
        >>> proposal.genes.shape
        (8, 6)
    """
    return generations("nsga2", space, best_of, population, mutation_rate, crossover_rate)
