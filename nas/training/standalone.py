"""Training of one stand-alone network, from scratch or from inherited weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from hw_models.errors import InputError
from nas.stratify import drawn
from nas.training.images import EVALUATION_BATCH, normalise, shift_and_flip
from nas.training.loss import cross_entropy
from nas.training.recipe import Recipe
from search_spaces.network import Network, fresh
from search_spaces.space import SearchSpace

SETTLING_IMAGES = 2000


class Diverged(InputError):
    """Raised where the loss of a training is not finite: a lower learning rate helps, or another network.

    Example:
        >>> issubclass(Diverged, InputError)
        True
    """


class Images(NamedTuple):
    """uint8 images `[N, H, W, C]`, labels `[N]`, and the mean and deviation per channel that normalise them."""

    images: np.ndarray
    labels: np.ndarray
    mean: np.ndarray
    std: np.ndarray


def train(
    space: SearchSpace,
    data: Images,
    recipe: Recipe,
    key: Array,
    variables: Any = None,
    report: Callable[[int, float], None] | None = None,
) -> Any:
    """Variables of `Network(space)` after training; the key is consumed.

    `variables` are where to start (inherited weights), fresh ones when None. `report(epoch, loss)` is called after
    every epoch. At the end the normalisation statistics are set from training images without augmentation,
    a fixed random sample of them.

    Raises:
        InputError: fewer images than a batch.
        Diverged: a loss that is not finite.
    """
    count = len(data.images)
    if count < recipe.batch:
        raise InputError(f"{count} training images are fewer than a batch of {recipe.batch}: lower the batch")
    start_key, run_key = jax.random.split(key)
    state = fresh(space, start_key) if variables is None else variables
    steps_per_epoch = count // recipe.batch
    optimizer = recipe.optimizer(recipe.epochs * steps_per_epoch)
    momentum = optimizer.init(state["params"])
    step = _step(space, recipe, recipe.epochs * steps_per_epoch)
    images, labels = jnp.asarray(data.images), jnp.asarray(data.labels)
    mean, std = jnp.asarray(data.mean), jnp.asarray(data.std)
    for epoch in range(recipe.epochs):
        epoch_key = jax.random.fold_in(run_key, epoch)
        order = jax.random.permutation(epoch_key, count)[: steps_per_epoch * recipe.batch]
        losses = []
        for position, index in enumerate(order.reshape(steps_per_epoch, recipe.batch)):
            step_key = jax.random.fold_in(epoch_key, position)
            progress = jnp.float32((epoch * steps_per_epoch + position) / (recipe.epochs * steps_per_epoch))
            state, momentum, loss = step(state, momentum, images, labels, index, mean, std, step_key, progress)
            losses.append(loss)
        average = float(jnp.stack(losses).mean())
        if not np.isfinite(average):
            raise Diverged(
                f"the loss of epoch {epoch} is {average}: lower the learning rate (now {recipe.learning_rate})"
            )
        if report is not None:
            report(epoch, average)
    rows = drawn(count, min(count, SETTLING_IMAGES))
    return settle(space, state, data._replace(images=data.images[rows], labels=data.labels[rows]))


@lru_cache(maxsize=8)
def _step(space: SearchSpace, recipe: Recipe, steps: int) -> Callable[..., Any]:
    network, optimizer = Network(space), recipe.optimizer(steps)

    @jax.jit
    def step(
        state: Any, momentum: Any, images: Array, labels: Array, index: Array, mean: Array, std: Array, key: Array,
        progress: Array,
    ) -> Any:  # fmt: skip
        x = shift_and_flip(key, normalise(images[index], mean, std), recipe.shift, recipe.flip)

        def loss_of(params: Any) -> tuple[Array, Any]:
            variables = {**state, "params": params}
            logits, updated = network.apply(variables, x, "train", progress, mutable=["batch_stats"])
            return cross_entropy(logits, labels[index], recipe.smoothing), updated["batch_stats"]

        (loss, statistics), gradient = jax.value_and_grad(loss_of, has_aux=True)(state["params"])
        change, momentum = optimizer.update(gradient, momentum, state["params"])
        params = optax.apply_updates(state["params"], change)
        return {"params": params, "batch_stats": statistics}, momentum, loss

    return step


def settle(space: SearchSpace, variables: Any, data: Images) -> Any:
    """`variables` with normalisation statistics averaged over `data`, as an exported network needs them."""
    program, mean, std = _statistics(space), jnp.asarray(data.mean), jnp.asarray(data.std)
    usable = len(data.images) // EVALUATION_BATCH * EVALUATION_BATCH or len(data.images)
    size = min(EVALUATION_BATCH, usable)
    parts = [
        program(variables, jnp.asarray(data.images[start : start + size]), mean, std)
        for start in range(0, usable, size)
    ]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)
    return {**variables, "batch_stats": pooled_statistics(stacked)}


@lru_cache(maxsize=8)
def _statistics(space: SearchSpace) -> Callable[..., Any]:
    network = Network(space)

    @jax.jit
    def statistics(variables: Any, images: Array, mean: Array, std: Array) -> Any:
        _, updated = network.apply(variables, normalise(images, mean, std), "calibrate", mutable=["batch_stats"])
        return updated["batch_stats"]

    return statistics


def pooled_statistics(stacked: Any) -> Any:
    """Mean and variance of several equally large batches taken together (law of total variance).

    Leaves `[B, C]` become `[C]`.
    """

    def pool(batches: Any) -> Any:
        mean = batches["mean"].mean(0)
        second = (batches["var"] + jnp.square(batches["mean"])).mean(0)
        return {"mean": mean, "var": jnp.maximum(second - jnp.square(mean), 0)}

    return jax.tree.map(pool, stacked, is_leaf=lambda node: isinstance(node, dict) and "mean" in node)
