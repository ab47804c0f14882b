"""REINFORCE: a policy that decides each option for itself moves towards what was better than usual."""

from __future__ import annotations

from typing import Any

import jax
import optax
from jax import Array

from nas.policy import recurrent
from nas.policy_search import Drawn, number, policy_search, regularised
from nas.population import check_size
from nas.types import Strategy


def strategy(
    space: Any,
    *,
    population: int = 64,
    learning_rate: float = 0.02,
    entropy: float = 0.02,
    memory: float = 0.9, directions=True,
    halving=None,
) -> Strategy:
    size = check_size(population)
    rate = number("learning_rate", learning_rate, 0)
    policy, optimiser = recurrent, optax.adam(rate)
    loss = regularised(entropy, halving, lambda logs, drawn, worth: logs.sum(axis=1) * worth)

    def learn(
        policy, parameters: Any, moments: Any, drawn: Drawn, worth: Array, rows: Array, told: Array
    ) -> tuple[Any, Any]:
        slopes = jax.grad(loss, 1)(policy, parameters, drawn, worth, rows, told)
        updates, moments = optimiser.update(slopes, moments)
        return optax.apply_updates(parameters, updates), moments

    describe = {"population": size}
    return policy_search(
        space, policy, optimiser, learn, size=size, memory=memory, name="recurrent_controller", describe=describe, directions=directions
    )
