"""Policies: distributions over the networks of a space that gradients can move.

Every option of every decision starts equally probable, so that the first samples of a policy are uniform samples of
the space. Decisions that do not matter under the others (of a block beyond the depth, say) are drawn and then neither
scored nor shown to what comes after: a policy learns nothing from what has no effect.

A policy may be given a *direction*, `W` numbers that say which objectives matter more this time; its logits then lean
linearly with them, so that one policy serves a whole front. `W` is 0 where there is nothing to say.

Shape letters: `D` decisions, `C` options of the widest decision, `H` hidden units, `W` numbers of a direction.

References: Bender et al. 2020, "TuNAS", https://arxiv.org/abs/2008.06120, section 3 (independent decisions). Zoph and
Le 2017, "Neural architecture search with reinforcement learning", https://arxiv.org/abs/1611.01578, section 3.1 (a
recurrent network reads each choice before it makes the next). Cho et al. 2014, https://arxiv.org/abs/1406.1078,
equations 5 to 8 (the gated recurrent unit).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from nas.population import legal_options
from nas.types import Key

NEVER = -1e9  # logit of an option that a decision does not have; finite, so that no gradient is NaN


class Policy(NamedTuple):
    """A distribution over networks; functions act on one network and are batched by the caller's `vmap`.

    Attributes:
        init: `key -> parameters`, any PyTree of arrays.
        sample: `(parameters, direction [W], key) -> int32 [D]`, in range and not canonical: dead decisions hold what
            was drawn.
        score: `(parameters, direction [W], genes [D]) -> float32 [D], float32 [D]`, natural logarithms of the
            probabilities of the decisions as they were taken, and entropies in nats; both 0 where a decision is dead.
            The first sums to the log-probability of the network.
        likeliest: `(parameters, direction [W]) -> int32 [D]`, the most probable option of each decision in
            turn; canonical.
    """

    init: Callable[[Key], Any]
    sample: Callable[[Any, Array, Key], Array]
    score: Callable[[Any, Array, Array], tuple[Array, Array]]
    likeliest: Callable[[Any, Array], Array]


def _judged(logits: Array, exists: Array, genes: Array, live: Array) -> tuple[Array, Array]:
    """Log-probability and entropy of every decision, `[D, C] ... [D] -> [D], [D]`."""
    logs = jax.nn.log_softmax(jnp.where(exists, logits, NEVER), axis=-1)
    taken = jnp.take_along_axis(logs, genes[:, None], axis=-1)[:, 0]
    entropy = -jnp.where(exists, jnp.exp(logs) * logs, 0.0).sum(axis=-1)
    return jnp.where(live, taken, 0.0), jnp.where(live, entropy, 0.0)


def factorised(space: Any, directed: int = 0) -> Policy:
    """Each decision for itself: the parameters are `[1 + W, D, C]`, logits and how they lean.

    Example:
        >>> from nas.toy import ToySpace
        >>> policy = factorised(ToySpace())
        >>> logs, entropy = policy.score(policy.init(jax.random.key(0)), jnp.zeros(0), jnp.asarray([0, 1, 2, 3, 0, 0]))
        >>> [round(float(log), 2) for log in logs]  # the last two are dead unless the first gene is above 1
        [-1.39, -1.39, -1.39, -1.39, 0.0, 0.0]
    """
    exists = jnp.asarray(legal_options(space))

    def init(key: Key) -> Array:
        return jnp.zeros((1 + directed, *exists.shape), jnp.float32)

    def logits(weights: Array, direction: Array) -> Array:
        return jnp.where(exists, weights[0] + jnp.tensordot(direction, weights[1:], axes=1), NEVER)

    def sample(weights: Array, direction: Array, key: Key) -> Array:
        return jax.random.categorical(key, logits(weights, direction)).astype(jnp.int32)

    def score(weights: Array, direction: Array, genes: Array) -> tuple[Array, Array]:
        return _judged(logits(weights, direction), exists, genes, space.active(genes))

    def likeliest(weights: Array, direction: Array) -> Array:
        return space.canonical(jnp.argmax(logits(weights, direction), axis=-1).astype(jnp.int32))

    return Policy(init, sample, score, likeliest)


class Recurrent(NamedTuple):
    """Parameters of a recurrent policy.

    Attributes:
        ear: `[W, H]`, what the direction looks like to the first decision.
        read: `[D, C + 1, H]`, what an option of a decision looks like to the decisions after it; the last row is that
            of a dead decision.
        write: `[D, H, C]` and offset `[1 + W, D, C]`, from the hidden state to logits.
        gates: `[2 H, 2 H]`, gate_offset `[2 H]`, candidate `[2 H, H]`, candidate_offset `[H]`: the recurrent unit.
    """

    ear: Array
    read: Array
    write: Array
    offset: Array
    gates: Array
    gate_offset: Array
    candidate: Array
    candidate_offset: Array


def recurrent(space: Any, directed: int = 0, *, hidden: int = 32) -> Policy:
    """Each decision given those before it, read by a gated recurrent unit of `hidden` units.

    Every decision has its own input and output layer. Whether an earlier decision is dead is judged by those before it,
    as far as they are taken.

    Example:
        >>> from nas.toy import ToySpace
        >>> policy = recurrent(ToySpace(), hidden=8)
        >>> parameters = policy.init(jax.random.key(0))
        >>> genes = policy.sample(parameters, jnp.zeros(0), jax.random.key(1))
        >>> round(float(policy.score(parameters, jnp.zeros(0), genes)[1][0]), 2)
        1.39
    """
    exists = jnp.asarray(legal_options(space))
    decisions, width = exists.shape
    place = jnp.arange(decisions)

    def init(key: Key) -> Recurrent:
        ear, read, gates, candidate = jax.random.split(key, 4)
        scale = 1 / math.sqrt(2 * hidden)
        return Recurrent(
            ear=jax.random.normal(ear, (directed, hidden), jnp.float32),
            read=jax.random.normal(read, (decisions, width + 1, hidden), jnp.float32),
            write=jnp.zeros((decisions, hidden, width), jnp.float32),
            offset=jnp.zeros((1 + directed, decisions, width), jnp.float32),
            gates=jax.random.normal(gates, (2 * hidden, 2 * hidden), jnp.float32) * scale,
            gate_offset=jnp.zeros(2 * hidden, jnp.float32),
            candidate=jax.random.normal(candidate, (2 * hidden, hidden), jnp.float32) * scale,
            candidate_offset=jnp.zeros(hidden, jnp.float32),
        )

    def leaning(parameters: Recurrent, direction: Array) -> Array:
        return parameters.offset[0] + jnp.tensordot(direction, parameters.offset[1:], axes=1)

    def shown(parameters: Recurrent, d: Array, genes: Array) -> Array:
        """What decision `d` looks like to those after it, by `genes` of which those after `d` are 0. `[H]`"""
        return parameters.read[d, jnp.where(space.active(genes)[d], genes[d], width)]

    def step(parameters: Recurrent, state: Array, seen: Array) -> Array:
        gates = jax.nn.sigmoid(jnp.concatenate([state, seen]) @ parameters.gates + parameters.gate_offset)
        reset, update = gates[:hidden], gates[hidden:]
        fresh = jnp.concatenate([reset * state, seen]) @ parameters.candidate + parameters.candidate_offset
        return update * state + (1 - update) * jnp.tanh(fresh)

    def unrolled(parameters: Recurrent, direction: Array, pick: Callable[[Array, Array], Array]) -> Array:
        """Genes by `pick(decision, logits [C])`, one decision after the other."""

        def one(carry: tuple[Array, Array, Array], d: Array) -> tuple[tuple[Array, Array, Array], None]:
            genes, state, seen = carry
            state = step(parameters, state, seen)
            logits = jnp.where(exists[d], state @ parameters.write[d] + offset[d], NEVER)
            genes = genes.at[d].set(pick(d, logits).astype(jnp.int32))
            return (genes, state, shown(parameters, d, genes)), None

        offset = leaning(parameters, direction)
        before = (jnp.zeros(decisions, jnp.int32), jnp.zeros(hidden, jnp.float32), direction @ parameters.ear)
        return jax.lax.scan(one, before, place)[0][0]

    def sample(parameters: Recurrent, direction: Array, key: Key) -> Array:
        keys = jax.random.split(key, decisions)
        return unrolled(parameters, direction, lambda d, logits: jax.random.categorical(keys[d], logits))

    def score(parameters: Recurrent, direction: Array, genes: Array) -> tuple[Array, Array]:
        before = jnp.where(place[None] <= place[:, None], genes[None], 0)
        seen = jax.vmap(shown, (None, 0, 0))(parameters, place, before)
        seen = jnp.concatenate([(direction @ parameters.ear)[None], seen[:-1]])

        def one(state: Array, seen: Array) -> tuple[Array, Array]:
            state = step(parameters, state, seen)
            return state, state

        states = jax.lax.scan(one, jnp.zeros(hidden, jnp.float32), seen)[1]
        logits = jnp.einsum("dh,dhc->dc", states, parameters.write) + leaning(parameters, direction)
        return _judged(logits, exists, genes, space.active(genes))

    def likeliest(parameters: Recurrent, direction: Array) -> Array:
        return space.canonical(unrolled(parameters, direction, lambda d, logits: jnp.argmax(logits)))

    return Policy(init, sample, score, likeliest)
