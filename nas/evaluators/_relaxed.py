"""Shared weights under gates: the loss that gates are judged by, and weights that follow them.

Gates are judged on validation images and weights trained on training images, so that the two levels of the search see
no image in common (DARTS, section 2.3). Relaxed execution normalises with the batch.

Shape letters: `P` candidates, `D` decisions, `C` options, `N` images.

Source: Liu et al. 2019 (DARTS), https://arxiv.org/abs/1806.09055, algorithm 1 (first order).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from hw_models.discover import unknown
from hw_models.errors import InputError, number, whole
from nas.training.batches import Feed
from nas.training.images import augment, normalise
from nas.training.loss import cross_entropy, smoothed, soft_cross_entropy
from nas.training.parallel import Spread
from nas.training.recipe import Recipe
from nas.training.shared import Weights
from nas.types import Key
from search_spaces.supernet import Supernet

FOREVER = 1 << 30  # steps of a schedule so long that its rate does not fall


def _doubt(logits: Array, labels: Array) -> Array:
    """Mean probability of the wrong classes: the expected error of an answer drawn from the softmax."""
    chance = jnp.take_along_axis(jax.nn.softmax(logits.astype(jnp.float32)), labels[:, None], 1)
    return 1.0 - chance.mean()


LOSSES: dict[str, Callable[[Array, Array], Array]] = {"cross_entropy": cross_entropy, "doubt": _doubt}


class Relaxed(NamedTuple):
    """Settings of relaxed execution.

    Attributes:
        images: validation images of one evaluation of gates, N.
        loss: `cross_entropy`, or `doubt`, the mean probability of the wrong classes, from 0 to 1 as an error is.
        follow: training steps of the weights at every search step; 0 freezes them.
        follow_rate: their learning rate.
    """

    images: int
    loss: str
    follow: int
    follow_rate: float

    def checked(self, validation: int) -> Relaxed:
        """These settings where there are so many validation images, which are all taken if more are asked for.

        Raises:
            InputError: a value out of range, an unknown loss.

        Example:
            >>> Relaxed(2000, "doubt", 0, 0.025).checked(1000).images
            1000
        """
        whole("relaxed_images", self.images, 1, 1_000_000)
        if self.loss not in LOSSES:
            raise unknown("relaxed_loss", str(self.loss), LOSSES)
        whole("follow", self.follow, 0, 10_000)
        number("follow_rate", self.follow_rate, 0.0, 100.0, lowest=True)
        return self._replace(images=min(self.images, validation))


def judging_gates(supernet: Supernet, relaxed: Relaxed, chunk: int, validation: int) -> Callable[..., Any]:
    """`(params, gates [P, D, C], key, judging) -> (losses [P], gradients [P, D, C])`, for P up to `chunk`.

    `judging` has `images` and `labels` in batches of which the first `validation` are real, and `mean` and `std`. The
    key chooses the images, the same for all rows; the weights are not changed.
    """
    loss_of = LOSSES[relaxed.loss]

    @jax.jit
    def losses(params: Any, gates: Array, number: Array, key: Key, by: Any) -> tuple[Array, Array]:
        rows = jax.random.permutation(key, validation)[: relaxed.images]
        images, labels = (array.reshape(-1, *array.shape[2:])[rows] for array in (by.images, by.labels))
        x = normalise(images, by.mean, by.std)

        def one(row: Array) -> tuple[Array, Array]:
            return jax.value_and_grad(lambda each: loss_of(supernet.relaxed(params, x, each, "train"), labels))(row)

        def body(place: Array, found: tuple[Array, Array]) -> tuple[Array, Array]:
            loss, gradient = one(gates[place])
            return found[0].at[place].set(loss), found[1].at[place].set(gradient)

        # one after the other: what relaxed execution keeps of one row may fill the memory
        start = (jnp.full(len(gates), jnp.nan, jnp.float32), jnp.zeros_like(gates))
        return lax.fori_loop(0, number, body, start)

    def judge(params: Any, gates: Any, key: Key, by: Any) -> tuple[Array, Array]:
        given = np.asarray(gates, np.float32)
        padded = np.zeros((chunk, *given.shape[1:]), np.float32)
        padded[: len(given)] = given
        found = losses(params, jnp.asarray(padded), jnp.int32(len(given)), key, by)
        return found[0][: len(given)], found[1][: len(given)]

    return judge


def following(supernet: Supernet, relaxed: Relaxed, recipe: Recipe, source: Feed, over: Spread) -> Callable[..., Any]:
    """`(key, weights, gates [P, D, C], judging) -> (weights, mean loss)` after `relaxed.follow` training steps.

    A step draws a batch of training images and one row of the gates. The learning rate is constant, the optimiser goes
    on with the momentum it has, and images are changed as in training; a batch is not cut into parts.

    Raises:
        InputError: a loss that is not finite.
    """
    rule = dataclasses.replace(recipe, learning_rate=relaxed.follow_rate, warmup=0.0)

    def step(weights: Weights, images: Array, labels: Array, gates: Array, key: Key, by: Any) -> tuple[Weights, Array]:
        row_key, image_key = jax.random.split(key)
        row = gates[jax.random.randint(row_key, (), 0, len(gates))]
        x = normalise(over.rows(images), by.mean, by.std)
        x, targets = augment(image_key, x, smoothed(labels, supernet.space.classes, recipe.smoothing), recipe)
        x = over.rows(x.astype(recipe.precision))

        def loss_of(params: Any) -> Array:
            return soft_cross_entropy(supernet.relaxed(params, x, row, "train"), targets)

        loss, gradient = jax.value_and_grad(loss_of)(weights.params)
        params, momentum = rule.updated(FOREVER, weights.params, weights.momentum, gradient)
        return Weights(params, momentum, recipe.averaged(weights.average, params, jnp.int32(FOREVER))), loss

    compiled = jax.jit(step, donate_argnums=0)

    def follow(key: Key, weights: Weights, gates: Any, by: Any) -> tuple[Weights, float]:
        weights = over.copied(weights)  # a step overwrites what it is given, and the state may be needed again
        draw = np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())
        wanted = relaxed.follow * recipe.batch
        order = np.concatenate([draw.permutation(source.total) for _ in range(-(-wanted // source.total))])
        losses: list[Array] = []
        for step, batch in enumerate(source.batches(order[:wanted].reshape(relaxed.follow, recipe.batch))):
            weights, loss = compiled(weights, *batch, jnp.asarray(gates), jax.random.fold_in(key, step), by)
            losses.append(loss)
        mean = float(np.mean(jax.device_get(losses)))
        if not np.isfinite(mean):
            raise InputError(
                f"the loss of weights that follow the gates is {mean}: lower follow_rate (now {relaxed.follow_rate})"
            )
        return weights, mean

    return follow
