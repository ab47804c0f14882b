"""First networks that a cheap look at many finds promising: a zero-cost proxy, or accuracies that are known already.

Every strategy that begins with given networks can begin with these. They are only where the search starts: what the
proxy says is never told to the strategy, because a score is no error.

Shape letters: `P` candidates wanted, `D` decisions, `N` candidates judged.

References: Abdelfattah et al. 2021, "Zero-cost proxies for lightweight NAS", https://arxiv.org/abs/2101.08134, section
4.2 (warm-up of searches by a proxy).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from hw_models.errors import InputError
from hw_models.programs import for_few_runs
from nas import pareto
from nas.objectives import Objective
from nas.progress import InProcess
from nas.screen import first_networks
from nas.types import Evaluator, Key

LOOKED_AT = 16  # networks judged for every one that is wanted
TELL_S = 10.0


def promising(
    space: Any, objective: Objective, judge: Evaluator, count: int, key: Key, tell: Callable[[str], None]
) -> np.ndarray:
    """The best of many networks within the limits by the word of `judge`, which is told as it goes on. `int32 [P, D]`

    Best are those with the lowest rank of non-domination, then the loneliest, in what `judge` says in place of the
    error and in the costs that are minimised or aimed at.

    Raises:
        InputError: nothing drawn meets the limits; `judge` judges none of the networks.

    Example:
        >>> from nas.toy import ToySpace, toy_evaluator, toy_objective
        >>> space = ToySpace()
        >>> promising(space, toy_objective(space), toy_evaluator(space), 4, jax.random.key(0), print).shape
        first networks: the best 4 of 64 by toy
        (4, 6)
    """
    drawn = first_networks(space, objective, LOOKED_AT * count, key)
    _, first = np.unique(drawn, axis=0, return_index=True)
    genes = drawn[np.sort(first)]
    priced = objective.price(genes)
    within = np.asarray(priced.violation) == 0
    genes, costs = genes[within], {name: np.asarray(value)[within] for name, value in priced.costs.items()}
    state, score = judge.init(jax.random.fold_in(key, 1)), np.empty(len(genes), np.float32)
    tell(f"first networks: the best {min(count, len(genes))} of {len(genes)} by {_named(judge)}")
    said = time.monotonic()
    for outcome in InProcess().map_chunks(judge, jax.random.fold_in(key, 2), state, genes, np.arange(len(genes))):
        score[outcome.rows] = outcome.error
        if time.monotonic() - said > TELL_S:
            tell(f"first networks: {outcome.rows[-1] + 1} of {len(genes)} judged")
            said = time.monotonic()
    if not np.isfinite(score).any():
        raise InputError(f"warm_start: evaluator {judge.name} judged none of {len(genes)} networks: choose another")
    names = dict.fromkeys(name for name in (*objective.minimize, *objective.targets) if name != "error")
    columns = [np.abs(costs[name] - objective.targets.get(name, 0.0)) for name in names]
    most = min(count, int(np.isfinite(score).sum()))

    def best(table: Array, usable: Array) -> Array:
        return pareto.best_of(table, jnp.zeros(len(table)), usable, most)[0]

    chosen = genes[np.asarray(for_few_runs(best)(np.stack([score, *columns], axis=1), np.isfinite(score)))]
    return np.asarray(chosen[np.arange(count) % most])


def _named(judge: Evaluator) -> str:
    proxy = judge.describe.get("proxy")
    return judge.name if proxy is None else f"{judge.name} {proxy}"
