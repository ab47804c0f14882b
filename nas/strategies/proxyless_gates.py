"""ProxylessNAS: every candidate is one network, and the gradient of its binary gates moves the probabilities.

    dL/dalpha_i = sum_j dL/dg_j p_j (delta_ij - p_i)

with binary gates `g` drawn from `p = softmax(alpha)`. With two paths a step concerns two options of every decision,
drawn by probability: one of them runs, and the other options keep their share of the probability.

The paper holds two paths in memory in place of all; here the evaluator differentiates all gates anyway, so `paths=2`
is its rule and saves nothing, and `paths=0`, the sum over all options, is less noisy. Expected costs are those of the
network that was drawn, where the paper takes the mean under `p`: their gradients agree in expectation where costs enter
linearly, and a target is missed by the spread of `p` as well, which makes the policy decide.

References: Cai et al. 2019, "ProxylessNAS", https://arxiv.org/abs/1812.00332, section 3.2, equations 3 and 4.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from hw_models.errors import InputError
from nas.population import legal_options
from nas.relaxation import Draw, descent, pulled, settings, softmax, without_temperature
from nas.types import Key, Strategy


def strategy(
    space: Any,
    *,
    population: int = 1,
    learning_rate: float = 0.1,
    warmup: int = 0,
    paths: int = 0,
    judge_every: int = 5,
) -> Strategy:
    """Gradient descent by binary gates. One number is minimised: bind it to an objective with a scalar.

    The first row's network is the most probable one, those of other rows are the ones whose gates were evaluated.

    Args:
        space: the search space.
        population: networks drawn at a step, P, 1 to 4096; more of them make the gradient less noisy.
        learning_rate: Adam's, on the logits.
        warmup: steps during which logits do not move, for weights that follow the gates.
        paths: options of a decision that a step compares: 2, or 0 for all of them.
        judge_every: networks are judged at every so manyth step, and at the last.

    Raises:
        InputError: an option out of range; when bound, several objectives without a scalar.

    Example:
        >>> from nas.toy import ToySpace
        >>> plan = strategy(ToySpace(), population=3)
        >>> _, proposal = plan.ask(jax.random.key(1), plan.init(jax.random.key(0)))
        >>> sorted(set(proposal.gates.ravel().tolist()))
        [0.0, 1.0]
    """
    if paths not in (0, 2) or isinstance(paths, bool):
        raise InputError(f"paths={paths!r} is not allowed: give 2, or 0 for all options")
    chosen = settings(space, population, learning_rate, warmup, 1.0, 1.0, 1, judge_every)
    legal = legal_options(space)
    widest = legal.shape[1]

    def draw(key: Key, logits: Array, heat: Array) -> Draw:
        # the highest of logits with Gumbel noise is a draw from their softmax, the highest two are without repetition
        first, second = jax.random.split(key)
        noisy = logits + jax.random.gumbel(first, (population, *legal.shape))
        noisy = jnp.where(legal, noisy, -jnp.inf)
        order = jnp.argsort(-noisy, axis=-1)
        compared = jnp.broadcast_to(jnp.asarray(legal), noisy.shape)
        taken = order[..., 0]
        if paths == 2 and widest > 1:
            pair = jax.nn.one_hot(order[..., :2], widest).sum(-2) > 0
            compared = pair & compared
            # which of the two runs is drawn again, by their own share
            again = logits + jax.random.gumbel(second, noisy.shape)
            taken = jnp.argmax(jnp.where(compared, again, -jnp.inf), -1)
        gates = jax.nn.one_hot(taken, widest, dtype=jnp.float32)
        scores = jnp.where(gates > 0, jnp.max(noisy, -1, keepdims=True) + 1.0, noisy)
        return Draw(gates, scores.at[0].set(logits[0]), compared)

    def pull(logits: Array, heat: Array, compared: Array, grads: Array) -> Array:
        each = jnp.broadcast_to(logits, compared.shape)
        return pulled(lambda rows: softmax(rows, compared), each, grads)

    def after(old: Array, new: Array, compared: Array) -> Array:
        if paths != 2 or population > 1:
            return new
        # what was not compared keeps its share of the probability
        held = jax.nn.logsumexp(jnp.where(compared, old, -jnp.inf), -1, keepdims=True)
        now = jax.nn.logsumexp(jnp.where(compared, new, -jnp.inf), -1, keepdims=True)
        return jnp.where(compared, new + held - now, old)

    made = descent(space, "proxyless_gates", chosen, draw, pull, after=after, describe={"paths": paths})
    return without_temperature(made)
