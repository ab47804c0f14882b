"""The training step of shared weights: several networks of the space on one batch, one update.

Shape letters: `R` networks of one step, `D` decisions, `N` images of a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from nas.training.epoch import Clock
from nas.training.images import augment, normalise
from nas.training.loss import smoothed, soft_cross_entropy, taught
from nas.training.parallel import Spread
from nas.training.paths import Paths
from nas.training.recipe import Recipe
from nas.types import Key
from search_spaces.supernet import Supernet


class Weights(NamedTuple):
    """Shared parameters `{slot: {kind: {"params": ...}}}`, the optimiser's state, and the moving average or None."""

    params: Any
    momentum: Any
    average: Any


Step = Callable[[Weights, Array, Array, Any, Any, Key, Clock], tuple[Weights, Array]]


def started(params: Any, recipe: Recipe, steps: int) -> Weights:
    """Weights before the first of `steps` steps.

    Example:
        >>> started({"w": jnp.ones(2)}, Recipe(), 10).average is None
        True
    """
    params = recipe.prepared(params)
    average = jax.device_put(params, may_alias=False) if recipe.ema else None  # a step overwrites both
    return Weights(params, recipe.started(steps, params), average)


def shared_step(supernet: Supernet, recipe: Recipe, rule: Paths, steps: int, over: Spread) -> Step:
    """`step(weights, images, labels, mean, std, key, clock) -> (weights, loss)`, compiled; it overwrites the weights.

    Images are uint8 `[N, H, W, C]`, labels int32 `[N]`; `mean` and `std`, float32 `[C]`, normalise; they are arguments
    so that one program serves other splits as well. The key is consumed. The gradient is the weighted mean over the
    networks that `rule` draws and over the parts that `recipe` cuts the batch into; all of them run in one loop, so
    that the program is as large as for one network. Of each part the first network's logits are computed once, and
    teach the others where `rule` says so.

    Source of learning from the largest network of the same step: Yu & Huang 2019, https://arxiv.org/abs/1903.05134,
    section 3.2.

    Example:
        >>> from nas.training.paths import paths
        >>> from search_spaces.spaces import tiny
        >>> step = shared_step(Supernet(tiny.space()), Recipe(), paths(tiny.space(), "uniform"), 10, Spread(None))
    """
    space = supernet.space
    networks, parts = len(rule.weights), recipe.accumulate
    weights_of = np.asarray(rule.weights, np.float32)

    def gradient_of(params: Any, x: Array, targets: Array, genes: Array, progress: Array) -> tuple[Any, Any]:
        def loss_of(params: Any) -> tuple[Array, Array]:
            logits = supernet.apply(params, x, genes, "train", progress)
            return soft_cross_entropy(logits, targets), logits

        return jax.value_and_grad(loss_of, has_aux=True)(params)

    def looped(params: Any, x: Array, targets: Array, genes: Array, progress: Array) -> tuple[Array, Any]:
        """Mean loss and gradient over parts and networks; the networks of one part follow each other."""
        x, targets = (
            over.rows(array.reshape(parts, len(array) // parts, *array.shape[1:]), 1) for array in (x, targets)
        )
        logits = jnp.zeros(targets.shape[1:], x.dtype) if rule.distillation else None

        def body(carry: Any, number: Array) -> tuple[Any, None]:
            total, sum_of_losses, teacher = carry
            part, row = number // networks, number % networks
            goal = targets[part]
            if rule.distillation:
                goal = taught(goal, teacher, jnp.where(row == 0, 0.0, rule.distillation))
            (loss, logits), gradient = gradient_of(params, x[part], goal, genes[row], progress)
            weight = jnp.asarray(weights_of)[row] / parts
            total = jax.tree.map(lambda sum_, new: sum_ + weight * new, total, gradient)
            if rule.distillation:
                teacher = jnp.where(row == 0, logits, teacher)
            return (total, sum_of_losses + weight * loss, teacher), None

        start = (jax.tree.map(jnp.zeros_like, params), jnp.float32(0), logits)
        (total, loss, _), _ = lax.scan(body, start, jnp.arange(networks * parts))
        return loss, total

    def step(
        weights: Weights, images: Array, labels: Array, mean: Any, std: Any, key: Key, clock: Clock
    ) -> tuple[Weights, Array]:
        genes_key, image_key = jax.random.split(key)
        x = normalise(over.rows(images), mean, std)
        x, targets = augment(image_key, x, smoothed(labels, space.classes, recipe.smoothing), recipe)
        x = over.rows(x.astype(recipe.precision))
        genes = rule.draw(genes_key, clock.progress)
        if networks * parts == 1:
            (loss, _), gradient = gradient_of(weights.params, x, targets, genes[0], clock.progress)
        else:
            loss, gradient = looped(weights.params, x, targets, genes, clock.progress)
        params, momentum = recipe.updated(steps, weights.params, weights.momentum, gradient)
        return Weights(params, momentum, recipe.averaged(weights.average, params, clock.step)), loss

    return jax.jit(step, donate_argnums=0)
