"""REINFORCE: a policy that decides each option for itself moves towards what was better than usual."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from nas.policy import factorised, recurrent
from nas.policy_search import Drawn, number, policy_search, regularised
from nas.population import check_size
from nas.types import Strategy


def strategy(
    space: Any,
    *,
    population: int = 64,
    policy: str = "factorised",
    clip: float = 0.2,
    epochs: int = 4,
    learning_rate: float = 0.05,
    entropy: float = 0.02,
    memory: float = 0.9, directions=True,
    halving=None,
) -> Strategy:
    size = check_size(population)
    rate = number("learning_rate", learning_rate, 0)
    chosen, optimiser = {"factorised": factorised, "recurrent": recurrent}[policy], optax.adam(rate)
    
    def gain(logs, drawn, worth):
        ratio = jnp.exp(logs - drawn)
        return jnp.minimum(ratio * worth[:, None], jnp.clip(ratio, 1 - clip, 1 + clip) * worth[:, None]).sum(axis=1)

    loss = regularised(entropy, halving, gain)

    def learn(
        policy, parameters: Any, moments: Any, drawn: Drawn, worth: Array, rows: Array, told: Array
    ) -> tuple[Any, Any]:
        def epoch(known, _):
            parameters, moments = known
            slopes = jax.grad(loss, 1)(policy, parameters, drawn, worth, rows, told)
            updates, moments = optimiser.update(slopes, moments)
            return (optax.apply_updates(parameters, updates), moments), None

        return jax.lax.scan(epoch, (parameters, moments), length=epochs)[0]

    describe = {"population": size}
    return policy_search(
        space, chosen, optimiser, learn, size=size, memory=memory, name="ppo", describe=describe, directions=directions
    )
