"""DARTS: gates are the softmax of logits, and the logits follow the gradient of the loss under the gates.

Differences from the paper: every decision of a space has gates (kernels, widths, depths, kinds of block), not the
operations of a cell; the gradient is that of the first-order approximation (the paper's xi = 0), by Adam; expected
costs and limits are part of the loss; the temperature of the softmax falls, so that little is left to lose when the
network is discretised. Whether weights follow the gates is the evaluator's affair (`follow` of `supernet`).

References: Liu et al. 2019, "DARTS", https://arxiv.org/abs/1806.09055, equations 2 to 6. Wan et al. 2020, "FBNetV2",
https://arxiv.org/abs/2004.05565, section 3 (gates on channels, which a supernet mixes by masks).
"""

from __future__ import annotations

from typing import Any

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
    temperature: float = 1.0,
    last_temperature: float = 0.1,
    anneal_steps: int = 100,
    judge_every: int = 5,
) -> Strategy:
    """Gradient descent on the softmax of logits. One number is minimised: bind it to an objective with a scalar.

    Args:
        space: the search space.
        population: independent descents from different starts, P, 1 to 4096.
        learning_rate: Adam's, on the logits.
        warmup: steps during which logits do not move, for weights that follow the gates.
        temperature: of the softmax at first.
        last_temperature: of the softmax after `anneal_steps` steps.
        anneal_steps: steps after the warm-up over which the temperature falls.
        judge_every: the network is judged at every so manyth step, and at the last.

    Raises:
        InputError: an option out of range; when bound, several objectives without a scalar.

    Example:
        >>> import jax
        >>> from nas.toy import ToySpace
        >>> plan = strategy(ToySpace())
        >>> _, proposal = plan.ask(jax.random.key(1), plan.init(jax.random.key(0)))
        >>> proposal.gates.shape, proposal.genes.shape
        ((1, 6, 4), (1, 6))
    """
    heats = (temperature, last_temperature)
    chosen = settings(space, population, learning_rate, warmup, *heats, anneal_steps, judge_every)
    legal = legal_options(space)

    def draw(key: Key, logits: Array, heat: Array) -> Draw:
        return Draw(softmax(logits, legal, heat), logits)

    def pull(logits: Array, heat: Array, aux: Any, grads: Array) -> Array:
        return pulled(lambda each: softmax(each, legal, heat), logits, grads)

    return descent(space, "darts", chosen, draw, pull, policies=population, describe={})
