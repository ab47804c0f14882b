"""Gumbel-softmax gates: noisy samples of a policy that are nearly networks, ever nearer as the temperature falls.

The loss under a sample is differentiated through the sample to the logits, and the mean over the rows of a step moves
them. The first row's network is the most probable one, those of other rows are samples.

References: Jang et al. 2017, https://arxiv.org/abs/1611.01144, equation 2. Wu et al. 2019, "FBNet",
https://arxiv.org/abs/1812.03443, equations 4 to 6. Xie et al. 2019, "SNAS", https://arxiv.org/abs/1812.09926.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from nas.population import legal_options
from nas.relaxation import Draw, descent, pulled, settings, softmax
from nas.types import Key, Strategy


def strategy(
    space: Any,
    *,
    population: int = 1,
    learning_rate: float = 0.1,
    warmup: int = 0,
    temperature: float = 5.0,
    last_temperature: float = 0.2,
    anneal_steps: int = 100,
    judge_every: int = 5,
) -> Strategy:
    """Gradient descent through Gumbel-softmax samples. One number is minimised: bind it to an objective with a scalar.

    Args:
        space: the search space.
        population: samples of a step, P, 1 to 4096; more of them make the gradient less noisy.
        learning_rate: Adam's, on the logits.
        warmup: steps during which logits do not move, for weights that follow the gates.
        temperature: of the samples at first; FBNet's 5.
        last_temperature: of the samples after `anneal_steps` steps.
        anneal_steps: steps after the warm-up over which the temperature falls.
        judge_every: networks are judged at every so manyth step, and at the last.

    Raises:
        InputError: an option out of range; when bound, several objectives without a scalar.

    Example:
        >>> from nas.toy import ToySpace
        >>> plan = strategy(ToySpace(), population=3)
        >>> _, proposal = plan.ask(jax.random.key(1), plan.init(jax.random.key(0)))
        >>> proposal.gates.shape, proposal.genes.shape
        ((3, 6, 4), (3, 6))
    """
    heats = (temperature, last_temperature)
    chosen = settings(space, population, learning_rate, warmup, *heats, anneal_steps, judge_every)
    legal = legal_options(space)

    def draw(key: Key, logits: Array, heat: Array) -> Draw:
        noise = jax.random.gumbel(key, (population, *legal.shape))
        return Draw(softmax(logits + noise, legal, heat), logits + noise.at[0].set(0.0), noise)

    def pull(logits: Array, heat: Array, noise: Array, grads: Array) -> Array:
        each = jnp.broadcast_to(logits, noise.shape)
        return pulled(lambda rows: softmax(rows + noise, legal, heat), each, grads)

    return descent(space, "gumbel_gates", chosen, draw, pull, describe={})
