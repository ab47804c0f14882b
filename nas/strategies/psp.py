"""Parameterized structured pruning (PSP) of the options of decisions: gates that are shares, zero while they are small.

Every option has a dense structure parameter `nu`. Where it is below a threshold the option is dead, and a decision's
gates are the shares of those that live:

    alpha_i = 0 if nu_i < eps else nu_i        g_i = alpha_i / sum of alpha_j

Gradients reach `nu` of dead options all the same, so that they can come back, and `nu` decays by the elastic net at
every step, so that options which the loss does not hold die. The expected latency is in the loss by the scalar of the
objective. Of a space with `sparsity=channel` this searches channels, of any space its kernels, depths and kinds.

Differences from the source, where structures of weights have gates (`nas/pruning/psp.py`): gates of a decision sum to 1
and `nu` is not negative, because they mix options; the largest `nu` of a decision is held at `eps` at least, because
one option has to run; the loss moves `nu` by Adam, not by gradient descent, and the decay of equation 7.8 is a step
of its own with the same learning rate, so that `l1` of 1 is the pace at which Adam moves.

References: Schindler, dissertation (Heidelberg 2021), equations 6.2, 6.3, 6.8, 6.9 and 7.8; its settings are l2 of
1e-4 with eps of 0.01, and l1 as the knob. It does not say where `nu` starts.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from hw_models.discover import unknown
from hw_models.errors import number
from nas.population import legal_options
from nas.relaxation import Draw, descent, pulled, settings, without_temperature
from nas.types import Key, Strategy
from search_spaces.sparsity._patterns import Structure
from search_spaces.sparsity.structure_parameters import EXACT, PRINTED, gated

FIRST = 1.0  # of `nu`, as in the pruning of weights
LARGEST_EPS = 0.9  # below `FIRST`: nothing is dead from the start
LEAST = 1e-6  # of the largest `nu` without a threshold; stands for 0 in logarithms


def shares(nu: Array, legal: Any, eps: Any, gradient: str = EXACT) -> Array:
    """Gates `[..., D, C]` of structure parameters, of the same shape: shares of the options that live.

    Parameters are not negative, and one of a decision is above 0.

    The gradient of `nu` passes through the threshold, of a gate's gradient `G` and with `S` the sum of what lives:

        exact    `(G_i - sum of g_j G_j) / S`, the chain rule (equation 6.2)
        printed  without the factor that gates are multiplied by, `1 / S` (equation 6.3, which is not the chain rule of
                 6.2, as the text says: erratum); Adam takes most of the difference away

    Raises:
        InputError: another name of a gradient.

    Example:
        >>> legal = jnp.asarray([[True, True, True, False]])
        >>> shares(jnp.asarray([[0.75, 0.25, 0.05, 1.0]]), legal, 0.1).tolist()
        [[0.75, 0.25, 0.0, 0.0]]
        >>> shares(jnp.asarray([[0.0, 0.01, 0.0, 1.0]]), legal, 0.1).tolist()
        [[0.0, 1.0, 0.0, 0.0]]
    """
    nu = jnp.where(legal, nu, 0.0)
    # the largest always lives
    edge = jnp.minimum(eps, lax.stop_gradient(nu).max(-1, keepdims=True))
    alive = jnp.where(nu >= edge, lax.stop_gradient(nu), 0.0)
    scale = 1.0 / jnp.maximum(alive.sum(-1, keepdims=True), LEAST)
    rows = (-1, nu.shape[-1])
    flat, edges = nu.reshape(rows), edge.reshape(-1, 1)
    structure = Structure("weight", flat.shape)
    gates = gated(structure, jnp.broadcast_to(scale, nu.shape).reshape(rows), flat, edges, gradient).reshape(nu.shape)
    # already 1, but what one option gains the others lose
    return gates / jnp.maximum(gates.sum(-1, keepdims=True), LEAST)


def decayed(old: Array, new: Array, legal: Any, eps: Any, l1: Any, l2: Any) -> Array:
    """Structure parameters `[..., D, C]` after a step of the loss from `old` to `new` and that of the elastic net.

    `new - l1 - l2 * old` with strengths times the learning rate (equation 7.8), at least 0, and the largest of a
    decision at least `eps`.

    Example:
        >>> nu = jnp.asarray([[0.5, 0.005, 0.0]])
        >>> [round(value, 6) for value in decayed(nu, nu, jnp.ones((1, 3), bool), 0.1, 0.01, 0.1)[0].tolist()]
        [0.44, 0.0, 0.0]
    """
    left = jnp.where(legal, jnp.maximum(new - l1 - l2 * old, 0.0), 0.0)
    largest = left == left.max(-1, keepdims=True)
    return jnp.where(legal, jnp.where(largest, jnp.maximum(left, jnp.maximum(eps, LEAST)), left), 0.0)


def strategy(
    space: Any,
    *,
    population: int = 1,
    learning_rate: float = 0.05,
    warmup: int = 0,
    eps: float = 0.1,
    l1: float = 0.1,
    l2: float = 1e-4,
    gradient: str = EXACT,
    judge_every: int = 5,
) -> Strategy:
    """Gradient descent on structure parameters. One number is minimised: bind it to an objective with a scalar.

    Args:
        space: the search space.
        population: independent descents from different starts, P, 1 to 4096.
        learning_rate: Adam's, on `nu`, and that of the decay.
        warmup: steps during which `nu` does not move, for weights that follow the gates.
        eps: threshold below which an option is dead, 0 to 0.9; all start at 1.
        l1: strength of the decay by the same amount for all options, which takes the smallest first.
        l2: strength of the decay in proportion, which leaves shares as they are.
        gradient: `exact` or `printed` (`shares`).
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
    chosen = settings(space, population, learning_rate, warmup, 1.0, 1.0, 1, judge_every)
    eps = number("eps", eps, 0, LARGEST_EPS, lowest=True)
    l1, l2 = (number(name, value, 0, 1, lowest=True) for name, value in (("l1", l1), ("l2", l2)))
    if gradient not in (EXACT, PRINTED):
        raise unknown("gradient", str(gradient), (EXACT, PRINTED))
    legal = legal_options(space)

    def scored(nu: Array) -> Array:
        return jnp.log(jnp.maximum(nu, LEAST))

    def draw(key: Key, nu: Array, heat: Array) -> Draw:
        return Draw(shares(nu, legal, eps, gradient), scored(nu))

    def pull(nu: Array, heat: Array, aux: Any, grads: Array) -> Array:
        return pulled(lambda each: shares(each, legal, eps, gradient), nu, grads)

    def after(old: Array, new: Array, aux: Any) -> Array:
        return decayed(old, new, legal, eps, learning_rate * l1, learning_rate * l2)

    told = {"eps": eps, "l1": l1, "l2": l2, "gradient": gradient}
    made = descent(
        space, "psp", chosen, draw, pull, policies=population, first=FIRST, after=after, scored=scored, describe=told
    )
    return without_temperature(made)
