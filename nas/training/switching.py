"""The gradient of a few networks that share their weights, from labels or from the first of them.

Source: Guerra Fernandez, thesis (Monash 2024), Algorithm 3 for the sum over networks, and equations 5.11 to 5.14 for
what networks learn from the first one.

Shape letters: `R` networks, `S` sets of normalisation, `N` images, `C` channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from nas.training.loss import self_distilled, soft_cross_entropy
from nas.training.switches import Switches, check_teacher, joined


class Distillation(NamedTuple):
    """How much networks follow the logits of the first, and how much the maps between its slots (a1, a2 of 5.13)."""

    output: float = 1.0
    features: float = 1e-7


Gradients = Callable[..., tuple[Array, tuple[Any, Any]]]


def gradients(of: Switches, distillation: Distillation | None = None) -> Gradients:
    """`(shared, private, x, targets, progress) -> (losses [R], (shared, private))`: gradients summed over networks.

    `x` are normalised images `[N, H, W, C]`, `targets` probabilities `[N, classes]`; the other arguments are as in
    `State`. Each network normalises with the batch, and adds to the gradient of its own set `[S, ...]` only.

    With `distillation` the first network alone learns from the targets. The others learn its logits, which pass no
    gradient to it, and its maps, which do (the thesis, below 5.12: the gradient of those is not stopped). Maps are what
    slots hand on, before the next layer rounds them; of a wider teacher the channels that a pupil has.

    Raises:
        InputError: a first network that is less wide or exact than another one, with `distillation`.

    Example:
        >>> from nas.training.switches import started
        >>> from search_spaces.spaces import tiny
        >>> of = Switches.of(tiny.space(), [[1] * 6, [0] * 6])
        >>> state = started(of, of.supernet.init(jax.random.key(0)))
        >>> run = jax.jit(gradients(of))
        >>> losses, _ = run(state.shared, state.private, jnp.zeros((2, 8, 8, 1)), jnp.eye(2, 10), 0.0)
        >>> losses.shape
        (2,)
    """
    supernet, genes = of.supernet, jnp.asarray(of.genes)

    def by_labels(shared: Any, private: Any, x: Array, targets: Array, progress: Array) -> tuple[Array, Any]:
        def loss_of(shared: Any, own: Any, row: Array) -> Array:
            return soft_cross_entropy(supernet.apply(joined(shared, own), x, row, "train", progress), targets)

        def body(total: Any, each: Any) -> tuple[Any, Any]:
            loss, (by_shared, by_own) = jax.value_and_grad(loss_of, (0, 1))(shared, *each)
            return jax.tree.map(jnp.add, total, by_shared), (loss, by_own)

        start = jax.tree.map(jnp.zeros_like, shared)
        total, (losses, by_own) = lax.scan(body, start, (_per_network(of, private), genes))
        return losses, (total, _per_set(of, by_own))

    if distillation is None:
        return by_labels
    check_teacher(of)
    output, features = distillation
    in_use = _channels(of)

    def by_the_first(shared: Any, private: Any, x: Array, targets: Array, progress: Array) -> tuple[Array, Any]:
        def maps_of(shared: Any, own: Any, row: Any) -> tuple[Array, dict[str, Array]]:
            return supernet.features(joined(shared, own), x, row, "train", progress)

        def loss_of(shared: Any, own: Any, teacher_maps: dict[str, Array], row: Array, used: Any) -> Array:
            logits, maps = maps_of(shared, own, row)
            shown = {name: each * used[name] if name in used else each for name, each in teacher_maps.items()}
            return self_distilled(logits, teacher, maps, shown, output, features)

        def body(total: Any, each: Any) -> tuple[Any, Any]:
            own, row, used = each
            loss, (by_shared, by_own, back) = jax.value_and_grad(loss_of, (0, 1, 2))(shared, own, maps, row, used)
            return jax.tree.map(jnp.add, total, (by_shared, back)), (loss, by_own)

        sets = _per_network(of, private)
        first, others = (jax.tree.map(lambda leaf, rows=rows: leaf[rows], sets) for rows in (0, slice(1, None)))
        # genes known while tracing: that one network is compiled, not the space
        (teacher, maps), pull = jax.vjp(lambda shared, own: maps_of(shared, own, of.genes[0]), shared, first)
        loss, by_logits = jax.value_and_grad(soft_cross_entropy)(teacher, targets)
        start = jax.tree.map(jnp.zeros_like, (shared, maps))
        pupils = (others, genes[1:], {name: rows[1:] for name, rows in in_use.items()})
        (total, by_maps), (losses, by_others) = lax.scan(body, start, pupils)
        by_shared, by_first = pull((by_logits, by_maps))
        by_own = jax.tree.map(lambda one, more: jnp.concatenate([one[None], more]), by_first, by_others)
        losses = jnp.concatenate([loss[None], losses])
        return losses, (jax.tree.map(jnp.add, total, by_shared), _per_set(of, by_own))

    return by_the_first


def _channels(of: Switches) -> dict[str, Array]:
    """Which channels of what a slot hands on are in use, float32 `[R, C]`, for slots whose width is searched."""
    found = {}
    for slot in of.space.slots[:-1]:
        if len(set(slot.out.values)) > 1:
            active = np.asarray([slot.out.chosen(of.space.decisions, genes) for genes in of.genes])
            found[slot.name] = jnp.asarray(np.arange(max(slot.out.values)) < active[:, None], jnp.float32)
    return found


def _per_network(of: Switches, private: Any) -> Any:
    """From `[S, ...]` to `[R, ...]`."""
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(of.genes), *leaf.shape[1:])), private)


def _per_set(of: Switches, gradient: Any) -> Any:
    """From `[R, ...]` to `[S, ...]`, summed over the networks that share a set."""
    return gradient if of.private else jax.tree.map(lambda leaf: leaf.sum(0, keepdims=True), gradient)
