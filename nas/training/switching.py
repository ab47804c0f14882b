"""The gradient of a few networks that share their weights, from labels or from the first of them.

Source: Guerra Fernandez, thesis (Monash 2024), Algorithm 3 for the sum over networks, and equations 5.11 to 5.14 for
what networks learn from the first one.

Shape letters: `R` networks, `S` sets of normalisation, `N` images, `C` channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

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

    def maps_of(shared: Any, own: Any, x: Array, number: int, progress: Array) -> tuple[Array, dict[str, Array]]:
        # genes known while tracing: only what this network computes is compiled
        return of.supernet.features(joined(shared, own), x, of.genes[number], "train", progress)

    def by_labels(shared: Any, private: Any, x: Array, targets: Array, progress: Array) -> tuple[Array, Any]:
        def loss_of(shared: Any, own: Any, number: int) -> Array:
            return soft_cross_entropy(maps_of(shared, own, x, number, progress)[0], targets)

        derivative = jax.value_and_grad(loss_of, (0, 1))
        # no loop of the program: a convolution inside one takes XLA seventeen times as long on CPUs
        found = [derivative(shared, _own(of, private, number), number) for number in range(len(of.genes))]
        losses, by_each = zip(*found, strict=True)
        return jnp.stack(losses), (_sum([total for total, _ in by_each]), _per_set(of, [own for _, own in by_each]))

    if distillation is None:
        return by_labels
    check_teacher(of)
    output, features = distillation
    in_use = _channels(of)

    def by_the_first(shared: Any, private: Any, x: Array, targets: Array, progress: Array) -> tuple[Array, Any]:
        def loss_of(shared: Any, own: Any, teacher_maps: dict[str, Array], number: int) -> Array:
            logits, maps = maps_of(shared, own, x, number, progress)
            shown = {
                name: each * in_use[name][number] if name in in_use else each for name, each in teacher_maps.items()
            }
            return self_distilled(logits, teacher, maps, shown, output, features)

        (teacher, maps), pull = jax.vjp(
            lambda shared, own: maps_of(shared, own, x, 0, progress), shared, _own(of, private, 0)
        )
        loss, by_logits = jax.value_and_grad(soft_cross_entropy)(teacher, targets)
        losses, by_maps = [loss], [jax.tree.map(jnp.zeros_like, maps)]
        totals: list[Any] = []
        owns: list[Any] = []
        derivative = jax.value_and_grad(loss_of, (0, 1, 2))
        for number in range(1, len(of.genes)):
            loss, (total, own, back) = derivative(shared, _own(of, private, number), maps, number)
            losses, totals, owns, by_maps = [*losses, loss], [*totals, total], [*owns, own], [*by_maps, back]
        first, own = pull((by_logits, _sum(by_maps)))
        return jnp.stack(losses), (_sum([first, *totals]), _per_set(of, [own, *owns]))

    return by_the_first


def _channels(of: Switches) -> dict[str, Array]:
    """Which channels of what a slot hands on are in use, float32 `[R, C]`, for slots whose width is searched."""
    found = {}
    for slot in of.space.slots[:-1]:
        if len(set(slot.out.values)) > 1:
            active = np.asarray([slot.out.chosen(of.space.decisions, genes) for genes in of.genes])
            found[slot.name] = jnp.asarray(np.arange(max(slot.out.values)) < active[:, None], jnp.float32)
    return found


def _own(of: Switches, private: Any, number: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[of.place(number)], private)


def _per_set(of: Switches, by_network: Sequence[Any]) -> Any:
    """Gradients `[S, ...]`, summed over the networks that share a set."""
    rows = by_network if of.private else [_sum(by_network)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)


def _sum(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: sum(leaves), *trees)
