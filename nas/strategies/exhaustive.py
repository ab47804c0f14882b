"""Exhaustive search: every network of a small space, each once.

The yardstick for every other strategy where it is possible at all: its front is the true one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from hw_models.errors import InputError
from nas.population import Population, as_one, check_size, survive, unknown
from nas.types import Feedback, Key, Proposal, Strategy

LARGEST = 2**20  # encodings; a table of them stays below some hundred megabytes
_AT_ONCE = 2**16


class State(NamedTuple):
    """The number of the next network, int32 `[]`, and the best seen."""

    next: Array
    best: Population


def strategy(space: Any, *, population: int = 64) -> Strategy:
    """Proposes `population` networks a step in the order of their genes, and starts again when all were proposed.

    Args:
        space: a search space of at most 2^20 encodings.
        population: candidates per step, P, 1 to 4096 and at most the size of the space.

    The description says how many distinct networks there are: a search needs `networks / population` steps, rounded up.

    Raises:
        InputError: an option out of range, a space that is too large.

    Example:
        >>> from nas.toy import ToySpace
        >>> plan = strategy(ToySpace(decisions=3, options=3), population=2)
        >>> plan.describe["networks"]
        11
        >>> plan.ask(jax.random.key(1), plan.init(jax.random.key(0)))[1].genes.tolist()
        [[0, 0, 0], [1, 0, 0]]
    """
    size = check_size(population, space)
    networks = every_network(space)
    return _plan(size, networks, False)


def every_network(space: Any) -> np.ndarray:
    """All distinct networks of a space in the order of their genes. `int32 [N, D]`

    Raises:
        InputError: more than 2^20 encodings.

    Example:
        >>> from nas.toy import ToySpace
        >>> every_network(ToySpace()).shape  # 4,096 encodings
        (2176, 6)
    """
    if not space.num_decisions:  # the loop says what is wrong with such a space
        return np.zeros((1, 0), np.int32)
    if space.size > LARGEST:
        raise InputError(
            f"space {space.name} has {space.size:,} encodings, too many for exhaustive search (at most {LARGEST:,}): "
            "narrow the space, or search with regularized_evolution or nsga2"
        )
    canonical = jax.jit(jax.vmap(space.canonical))
    counts = tuple(int(count) for count in space.cardinality)
    found = []
    for start in range(0, space.size, _AT_ONCE):
        number = np.minimum(np.arange(start, start + min(_AT_ONCE, space.size)), space.size - 1)
        genes = np.stack(np.unravel_index(number, counts), axis=1).astype(np.int32)
        own = (np.asarray(canonical(genes)) == genes).all(axis=1)
        found.append(genes[own & (np.arange(start, start + len(genes)) < space.size)])
    return np.concatenate(found)


def _plan(size: int, networks: np.ndarray, joined: bool) -> Strategy:
    rows = len(networks)

    def init(key: Key) -> State:
        return State(jnp.int32(0), unknown(jnp.asarray(networks[np.arange(size) % rows])))

    def ask(key: Key, state: State) -> tuple[State, Proposal]:
        genes = jnp.asarray(networks)[(state.next + jnp.arange(size)) % rows]
        return state._replace(next=(state.next + size) % rows), Proposal(genes)

    def tell(state: State, proposal: Proposal, feedback: Feedback) -> State:
        return state._replace(best=survive(state.best, proposal.genes, as_one(feedback) if joined else feedback))

    def final(state: State) -> Array:
        return state.best.genes

    def bind(objective: Any) -> Strategy:
        return _plan(size, networks, objective.joined)

    describe = {"population": size, "networks": rows}
    return Strategy(init, ask, tell, final, name="exhaustive", describe=describe, bind=bind)
