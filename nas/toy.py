"""A toy problem with the interfaces of the real one, for tests and examples that should take no time.

6 decisions of 4 options; the last two are dead unless the first is above 1. `params` grows with the genes, `latency_s`
as well, and the error falls with them and depends on pairs, so that there is a front to find.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from hw_models.costs import Costs
from nas.objectives import Objective
from nas.run import Run
from nas.types import Evaluator, Key, Quality


@dataclass(frozen=True)
class ToySpace:
    """The interface of a search space over `decisions` genes of `options` values, the last two of them conditional.

    Example:
        >>> ToySpace().size, ToySpace().text([1, 2, 3, 0, 3, 3])
        (4096, 'toy:1.2.3.0.0.0')
    """

    decisions: int = 6
    options: int = 4
    name: str = "toy"

    @property
    def num_decisions(self) -> int:
        return self.decisions

    @property
    def cardinality(self) -> np.ndarray:
        return np.full(self.decisions, self.options, np.int32)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"gene{i}" for i in range(self.decisions))

    @property
    def size(self) -> int:
        return int(self.options**self.decisions)

    @property
    def fingerprint(self) -> str:
        return f"{self.decisions:04x}{self.options:04x}"

    def active(self, genes: Array) -> Array:
        place = jnp.arange(self.decisions)
        return (place < self.decisions - 2) | (jnp.asarray(genes)[0] > 1)

    def canonical(self, genes: Array) -> Array:
        return jnp.where(self.active(genes), genes, 0).astype(jnp.int32)

    def sample(self, key: Key) -> Array:
        return self.canonical(jax.random.randint(key, (self.decisions,), 0, self.options))

    def mutate(self, key: Key, genes: Array, rate: Any) -> Array:
        """Other values with probability `rate`, at least one, as in `SearchSpace`."""
        where, one, what = jax.random.split(key, 3)
        live = self.active(genes)
        chance = jax.random.uniform(one, (self.decisions,))
        forced = jnp.arange(self.decisions) == jnp.argmax(jnp.where(live, chance, -1.0))
        change = live & (forced | jax.random.bernoulli(where, rate, (self.decisions,)))
        shift = jax.random.randint(what, (self.decisions,), 1, self.options)
        return self.canonical(jnp.where(change, (genes + shift) % self.options, genes))

    def crossover(self, key: Key, a: Array, b: Array) -> Array:
        return self.canonical(jnp.where(jax.random.bernoulli(key, 0.5, (self.decisions,)), a, b))

    def decode(self, genes: Any) -> dict[str, int]:
        return dict(zip(self.names, (int(gene) for gene in genes), strict=True))

    def text(self, genes: Any) -> str:
        return f"{self.name}:" + ".".join(str(int(gene)) for gene in self.canonical(jnp.asarray(genes)))

    def to_json(self) -> dict[str, Any]:
        return {"decisions": self.decisions, "options": self.options}


@dataclass(frozen=True)
class ToyDevice:
    """A device in name only; `room` is how many parameters fit.

    Example:
        >>> ToyDevice().name
        'toy_device'
    """

    name: str = "toy_device"
    slowness: float = 1.0
    room: float = 1000.0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class ToyTable(NamedTuple):
    """Costs of toy networks on a toy device."""

    device: ToyDevice

    def exact(self, genes: Array) -> Costs:
        values = genes.astype(jnp.float32)
        params = 1.0 + values.sum()
        latency = (1.0 + (values * (1.0 + jnp.arange(values.shape[0]) / 10)).sum()) * self.device.slowness
        return Costs(
            latency_s=latency,
            interval_s=latency,
            energy_j=latency * 2,
            peak_memory_bytes=params * 4,
            weight_bytes=params * 4,
            params=params,
            macs=params,
            activations=params,
            compute_s=latency / 2,
            resource_fraction=params / self.device.room,
        )

    def expected(self, gates: Array) -> Costs:
        return self.exact((gates * jnp.arange(gates.shape[1], dtype=jnp.float32)).sum(axis=1))


def toy_table(space: Any, device: ToyDevice, precision: str | None = None, batch: int | None = None) -> ToyTable:
    """Stands in for `nas.cost_table.cost_table`.

    Example:
        >>> float(toy_table(ToySpace(), ToyDevice()).exact(jnp.zeros(6)).params)
        1.0
    """
    return ToyTable(device)


def toy_objective(space: Any, minimize: Sequence[str] = ("error", "latency_s"), **options: Any) -> Objective:
    """An `Objective` on the toy device.

    Example:
        >>> toy_objective(ToySpace()).minimize
        ('error', 'latency_s')
    """
    return Objective(space, ToyDevice(), minimize, table=toy_table, **options)


def _toy_error(values: Any, xp: Any) -> Any:
    gain = (values / (1.0 + 0.5 * xp.arange(values.shape[0]) % 3)).sum() + 0.3 * (values[1:] * values[:-1]).sum()
    return xp.exp(-0.08 * gain)


def toy_error(genes: Array) -> Array:
    """Error of one toy network, in 0..1. `[D] -> []`

    Example:
        >>> float(toy_error(jnp.zeros(6)))
        1.0
    """
    return jnp.asarray(_toy_error(genes.astype(jnp.float32), jnp))


def toy_gate_error(gates: Array) -> Array:
    """Expected toy error of canonical networks drawn from gates, its multilinear extension. `[D, C] -> []`

    Exact in any space, because the error couples neighbours only: a chain, summed from one end to the other.

    Example:
        >>> float(toy_gate_error(jax.nn.one_hot(jnp.zeros(6, jnp.int32), 4)))
        1.0
    """
    decisions, options = gates.shape
    value = jnp.arange(options, dtype=jnp.float32)
    alone = jnp.exp(-0.08 * value / (1.0 + 0.5 * jnp.arange(decisions)[:, None] % 3))
    pair = jnp.exp(-0.08 * 0.3 * value[:, None] * value)

    def along(gates: Array) -> Array:
        weight = gates[0] * alone[0]
        for d in range(1, decisions):
            weight = (weight @ pair) * gates[d] * alone[d]
        return weight.sum()

    # where the first gene is 0 or 1 the last two are dead, and stand at 0
    dead = gates.at[-2:].set(jax.nn.one_hot(jnp.zeros(2, jnp.int32), options))
    lives = value > 1
    return along(gates.at[0].multiply(lives)) + along(dead.at[0].multiply(~lives))


_soft = jax.jit(jax.value_and_grad(toy_gate_error))


def toy_evaluator(space: Any, rounds: int = 0, chunk: int = 8, gradients: bool = False) -> Evaluator:
    """The toy error plus a little noise from each candidate's own key; training counts its rounds.

    With `gradients` it judges gates as well, without noise.

    Example:
        >>> judge = toy_evaluator(ToySpace())
        >>> judge.version(judge.init(jax.random.key(0)))
        'toy-0'
    """

    def init(key: Key) -> Array:
        return jnp.zeros(2, jnp.float32)

    def train(key: Key, state: Array) -> tuple[Array, dict[str, float]]:
        state = state + jnp.stack([jnp.float32(1.0), jax.random.uniform(key)])
        return state, {"loss": float(state[1])}

    def evaluate(key: Key, state: Array, genes: Any, index: Any) -> Quality:
        if gradients and np.ndim(genes) == 3:
            soft, grads = zip(*[_soft(jnp.asarray(row)) for row in genes], strict=True)
            return Quality(np.asarray(soft) + np.float32(0.001) * np.float32(state[1]), np.asarray(grads))
        # NumPy in float64, row by row: no compilation, and no bit depends on the length of a chunk
        words = np.asarray(jax.random.key_data(key)).tolist()
        noise = [np.random.default_rng([*words, int(i)]).random() for i in index]
        errors = [_toy_error(np.asarray(row, np.float64), np) + 0.01 * n for row, n in zip(genes, noise, strict=True)]
        return Quality(np.asarray(errors, np.float32) + np.float32(0.001) * np.float32(state[1]))

    def version(state: Array) -> str:
        return f"toy-{float(state[1]):g}"

    return Evaluator(init, train, rounds, evaluate, version, chunk, "toy", gradients)


def toy_run(seed: int = 0, steps: int = 2) -> Run:
    """A finished random search of 8 candidates per step.

    Example:
        >>> len(toy_run().records)
        16
    """
    from nas.loop import search
    from nas.strategies import random_search

    space = ToySpace()
    plan = random_search.strategy(space, population=8)
    key = jax.random.key(seed)
    return search(space, plan, toy_evaluator(space), toy_objective(space), steps=steps, key=key)
