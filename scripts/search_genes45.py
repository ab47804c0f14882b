"""The problem `genes45` of `search_problems.py` in JAX, and its genes with the interface of a search space.

Needs NumPy and JAX only: QDax evaluates the same program as our own strategies.

Shape letters: `P` candidates, `D` decisions.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import search_problems as problem
from jax import Array

_STAGE, _LAYER = np.divmod(np.arange(problem.BLOCKS), problem.LAYERS)
_KINDS = problem.OPTIONS**2


def _flat(table: np.ndarray) -> Array:
    return jnp.asarray(table.reshape(problem.BLOCKS, _KINDS), jnp.float32)


def used(genes: Array) -> Array:
    """Which blocks a network has. `[D] -> bool [BLOCKS]`"""
    return (genes[: problem.STAGES] + 2)[_STAGE] > _LAYER


def _picked(table: np.ndarray, genes: Array) -> Array:
    """What the table says of every block, 0 for those that are not used. `[P, D] -> [P, BLOCKS]`"""
    kernels, expansions = jnp.split(genes[:, problem.STAGES :], 2, axis=1)
    # a product with one-hot rows: XLA's gathers take several times as long on a CPU
    hot = jnp.arange(_KINDS) == (kernels * problem.OPTIONS + expansions)[..., None]
    return jnp.where(jax.vmap(used)(genes), (hot * _flat(table)).sum(-1), 0.0)


def latency_ms(genes: Array) -> Array:
    """`[P, D] -> float32 [P]`"""
    return _picked(problem.LATENCY_MS, genes).sum(1) + problem.BASE_MS


def error_percent(genes: Array) -> Array:
    """`[P, D] -> float32 [P]`"""
    worth = _picked(problem.WORTH, genes)
    total = worth.sum(1) + problem.TOGETHER * ((worth @ jnp.asarray(problem.PAIRS, jnp.float32)) * worth).sum(1)
    return 100 * jnp.exp(-problem.STEEPNESS * jnp.maximum(total, problem.LEAST_WORTH))


def evaluate(genes: Array) -> Array:
    """Latency in milliseconds and error in percent. `[P, D] -> float32 [P, 2]`

    Example:
        >>> evaluate(jnp.zeros((1, 45), int)).round(1).tolist()[0][0] > 6
        True
    """
    return jnp.stack([latency_ms(genes), error_percent(genes)], axis=1)


class Genes45:
    """What strategies and the loop ask of a search space; mutation and crossover are those of our spaces."""

    name, fingerprint = "genes45", "00000045"
    num_decisions, size = problem.DECISIONS, problem.OPTIONS**problem.DECISIONS
    cardinality = np.full(num_decisions, problem.OPTIONS, np.int32)
    names = tuple(
        f"{kind}{place}"
        for kind, many in (("depth", problem.STAGES), ("kernel", problem.BLOCKS), ("expansion", problem.BLOCKS))
        for place in range(many)
    )

    def active(self, genes: Array) -> Array:
        blocks = used(jnp.asarray(genes))
        return jnp.concatenate([jnp.ones(problem.STAGES, bool), blocks, blocks])

    def canonical(self, genes: Array) -> Array:
        return jnp.where(self.active(genes), genes, 0).astype(jnp.int32)

    def sample(self, key: Array) -> Array:
        chance = jax.random.uniform(key, (self.num_decisions,))  # compiles in half the time of randint
        return self.canonical((chance * problem.OPTIONS).astype(jnp.int32))

    def mutate(self, key: Array, genes: Array, rate: Any) -> Array:
        """Every live gene gets another value with probability `rate`, one of them in any case."""
        live = self.active(genes)
        # one flat draw: XLA takes several times as long to compile one of three axes, as it is under vmap
        where, which, what = jax.random.uniform(key, (3 * self.num_decisions,)).reshape(3, -1)
        forced = jnp.arange(self.num_decisions) == jnp.argmax(jnp.where(live, which, -1.0))
        change = live & (forced | (where < rate))
        shift = 1 + (what * (problem.OPTIONS - 1)).astype(jnp.int32)
        return self.canonical(jnp.where(change, (genes + shift) % problem.OPTIONS, genes))

    def crossover(self, key: Array, a: Array, b: Array) -> Array:
        return self.canonical(jnp.where(jax.random.bernoulli(key, 0.5, (self.num_decisions,)), a, b))

    def decode(self, genes: Any) -> dict[str, int]:
        return dict(zip(self.names, np.asarray(genes).tolist(), strict=True))

    def text(self, genes: Any) -> str:
        # in NumPy: the loop writes the text of every record, and an operation of JAX takes a hundred times as long
        genes = np.asarray(genes)
        blocks = (genes[: problem.STAGES] + 2)[_STAGE] > _LAYER
        live = np.concatenate([np.ones(problem.STAGES, bool), blocks, blocks])
        return f"{self.name}:" + ".".join(map(str, np.where(live, genes, 0).tolist()))

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name}
