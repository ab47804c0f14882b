"""Training of a few networks that share their weights and can be switched between (`nas/training/switches.py`).

In every step each network goes forwards and backwards on the same batch, and the sum of their gradients moves the
shared weights once. A step is one program, which grows with the number of networks; judging them is one for all.

Source: Guerra Fernandez, thesis (Monash 2024), Algorithm 3.

Shape letters: `R` networks, `S` sets of normalisation, `N` images.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from hw_models.errors import InputError
from nas.stratify import drawn
from nas.training.batches import feed
from nas.training.checkpoints import Checkpoints, identity
from nas.training.epoch import Clock, run_guarded_epoch
from nas.training.images import EVALUATION_BATCH, augment, normalise
from nas.training.loss import smoothed, wrong
from nas.training.parallel import Spread, spread
from nas.training.recipe import Recipe
from nas.training.shared import Step, Weights
from nas.training.shared import started as first_weights
from nas.training.standalone import SETTLING_IMAGES, Images, check_data, pooled_statistics
from nas.training.switches import State, Switches, started, taken
from nas.training.switching import Distillation, gradients
from nas.types import Key
from search_spaces.supernet import Supernet

NO_LABEL = -1  # no answer equals it


def switchable_step(of: Switches, recipe: Recipe, steps: int, over: Spread, distillation: Distillation | None) -> Step:
    """`step(weights, images, labels, mean, std, key, clock) -> (weights, loss)`, as `nas.training.shared.shared_step`.

    The parameters are `as_parameters(state)`. One step of the optimiser follows the sum of the gradients, over networks
    (Algorithm 3), and their mean over the parts that `recipe` cuts the batch into. The loss is the mean over networks.

    Raises:
        InputError: as `gradients`.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> step = switchable_step(Switches.of(tiny.space(), [[0] * 6]), Recipe(), 10, Spread(None), None)
    """
    gradient_of, parts = gradients(of, distillation), recipe.accumulate

    def step(
        weights: Weights, images: Array, labels: Array, mean: Any, std: Any, key: Key, clock: Clock
    ) -> tuple[Weights, Array]:
        x = normalise(over.rows(images), mean, std)
        x, targets = augment(key, x, smoothed(labels, of.space.classes, recipe.smoothing), recipe)
        x = x.astype(recipe.precision)
        shared, private = weights.params["shared"], _as_sets(weights.params["private"], of.sets)
        cut = tuple(over.rows(a.reshape(parts, len(a) // parts, *a.shape[1:]), 1) for a in (x, targets))

        def body(carry: Any, part: Any) -> tuple[Any, None]:
            losses, gradient = gradient_of(shared, private, *part, clock.progress)
            return jax.tree.map(lambda a, b: a + b / parts, carry, (losses.mean(), gradient)), None

        if parts == 1:
            losses, (by_shared, by_sets) = gradient_of(shared, private, cut[0][0], cut[1][0], clock.progress)
            loss = losses.mean()
        else:
            start = (jnp.float32(0), jax.tree.map(jnp.zeros_like, (shared, private)))
            (loss, (by_shared, by_sets)), _ = lax.scan(body, start, cut)
        gradient = {"shared": by_shared, "private": _as_vectors(by_sets)}
        params, momentum = recipe.updated(steps, weights.params, weights.momentum, gradient)
        return Weights(params, momentum, recipe.averaged(weights.average, params, clock.step)), loss

    return jax.jit(step, donate_argnums=0)


def as_parameters(state: State) -> dict[str, Any]:
    """What is trained of a state, as an optimiser wants it: sets of normalisation as vectors, whose decay it spares.

    Example:
        >>> as_parameters(State({}, {"norm": {"scale": jnp.ones((2, 8))}}, {}))["private"]["norm"]["scale"].shape
        (16,)
    """
    return {"shared": state.shared, "private": _as_vectors(state.private)}


def _as_vectors(private: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.reshape(-1), private)


def _as_sets(private: Any, sets: int) -> Any:
    return jax.tree.map(lambda leaf: leaf.reshape(sets, -1), private)


def train(
    of: Switches,
    data: Images,
    recipe: Recipe,
    key: Array,
    variables: Any = None,
    report: Callable[[int, float], None] | None = None,
    *,
    distillation: Distillation | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every_s: float = 0.0,
    placement: str = "auto",
) -> State:
    """The networks `of` after training, their statistics measured; the key is consumed.

    Args:
        of: the networks, the first of which teaches the others with `distillation`.
        data: what to train on.
        recipe: how.
        key: typed random key.
        variables: where to start, of the supernet or of the same without bits (`nas.training.switches.started`); fresh
            ones when None.
        report: `report(epoch, loss)` is called after every epoch, with the mean loss over networks.
        distillation: learn from the first network in place of the labels.
        checkpoint: a folder that keeps the training, as in `nas.training.standalone.train`.
        checkpoint_every_s: least seconds from one checkpoint to the next.
        placement: where the images wait, see `nas.training.batches.feed`.

    Raises:
        InputError: images that do not fit the networks; labels that do not fit the images or the classes; fewer images
            than a batch; a first network that cannot teach; variables or a checkpoint of something else.
        Diverged: a loss that is not finite (an InputError as well).
    """
    check_data(of.space, data)
    count = len(data.images)
    if count < recipe.batch:
        raise InputError(f"{count} training images are fewer than a batch of {recipe.batch}: lower the batch")
    over, steps = spread(recipe), recipe.epochs * (count // recipe.batch)
    start_key, run_key = jax.random.split(key)
    first = started(of, of.supernet.init(start_key) if variables is None else variables)
    state = over.copied(first_weights(as_parameters(first), recipe, steps))
    jitted = switchable_step(of, recipe, steps, over, distillation)
    mean, std = over.placed((jnp.asarray(data.mean), jnp.asarray(data.std)))

    def step(state: Weights, images: Array, labels: Array, key: Key, clock: Clock) -> tuple[Weights, Array]:
        return jitted(state, images, labels, mean, std, key, clock)

    source = feed(data.images, data.labels, over, placement)
    done, kept = 0, None
    if checkpoint is not None:
        whose = identity(of.space, data, recipe, key, variables, 0.0)
        whose |= {"networks": of.genes.tolist(), "private": of.private, "distillation": distillation}
        kept = Checkpoints(checkpoint, whose)
        done, state = kept.restored(state)
    saved, last = done, time.monotonic()
    for epoch in range(done, recipe.epochs):
        save = partial(kept.save, epoch, state) if kept is not None and epoch > saved else None
        state, loss = run_guarded_epoch(
            step, state, over.copied, source, recipe, epoch, jax.random.fold_in(run_key, epoch), save
        )
        if kept is not None and time.monotonic() - last >= checkpoint_every_s:
            kept.save(epoch + 1, state)
            last, saved = time.monotonic(), epoch + 1
        if report is not None:
            report(epoch, loss)
    params = state.average if recipe.ema else state.params
    trained = State(params["shared"], _as_sets(params["private"], of.sets), first.statistics)
    return calibrated(of, trained, data)


def calibrated(of: Switches, state: State, data: Images) -> State:
    """`state` with statistics and ranges of every network measured anew, on a fixed random sample of images.

    Networks with one normalisation in common have one set of statistics as well, the mean over all of them, as a
    running average over all of them would have it (the thesis, section 5.3.1).

    Example:
        >>> from search_spaces.spaces import tiny
        >>> of = Switches.of(tiny.space(), [[0] * 6, [1] * 6])
        >>> data = Images(np.zeros((4, 8, 8, 1), np.uint8), np.zeros(4, np.int32), np.zeros(1), np.ones(1))
        >>> first = started(of, of.supernet.init(jax.random.key(0)))
        >>> float(calibrated(of, first, data).statistics["stem/0"]["conv_norm"]["norm"]["mean"].max())
        0.0
    """
    images = data.images[drawn(len(data.images), min(len(data.images), SETTLING_IMAGES))]
    size = min(EVALUATION_BATCH, len(images))
    measure, _ = _programs(of.supernet)
    scale = jnp.asarray(data.mean), jnp.asarray(data.std)
    per_network = [
        [
            measure(
                state, jnp.int32(of.place(number)), jnp.asarray(genes), jnp.asarray(images[row : row + size]), *scale
            )
            for row in range(0, len(images) // size * size, size)
        ]
        for number, genes in enumerate(of.genes)
    ]
    groups = per_network if of.private else [sum(per_network, [])]
    pooled = [pooled_statistics(jax.tree.map(lambda *leaves: jnp.stack(leaves), *group)) for group in groups]
    return state._replace(statistics=jax.tree.map(lambda *leaves: jnp.stack(leaves), *pooled))


def evaluate(of: Switches, state: State, data: Images) -> np.ndarray:
    """Share of the images of `data` that each network gets wrong, float64 `[R]`.

    Raises:
        InputError: images or labels that do not fit the networks.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> of = Switches.of(tiny.space(), [[0] * 6, [1] * 6])
        >>> data = Images(np.zeros((4, 8, 8, 1), np.uint8), np.zeros(4, np.int32), np.zeros(1), np.ones(1))
        >>> evaluate(of, started(of, of.supernet.init(jax.random.key(0))), data).shape
        (2,)
    """
    check_data(of.space, data)
    count = len(data.images)
    size = -(-count // -(-count // EVALUATION_BATCH))
    missing = -count % size  # counted as mistakes, all of them
    images = np.concatenate([data.images, np.zeros((missing, *data.images.shape[1:]), np.uint8)])
    labels = np.concatenate([np.asarray(data.labels, np.int32), np.full(missing, NO_LABEL, np.int32)])
    _, mistakes = _programs(of.supernet)
    scale = jnp.asarray(data.mean), jnp.asarray(data.std)
    errors = []
    for number, genes in enumerate(of.genes):
        which = jnp.int32(of.place(number)), jnp.asarray(genes)
        found = [
            mistakes(
                state, *which, jnp.asarray(images[row : row + size]), jnp.asarray(labels[row : row + size]), *scale
            )
            for row in range(0, len(images), size)
        ]
        errors.append((int(sum(found)) - missing) / count)
    return np.asarray(errors)


@lru_cache(maxsize=8)
def _programs(supernet: Supernet) -> tuple[Callable[..., Any], Callable[..., Array]]:
    """Statistics and mistakes of any network; genes and set are operands, so that switching compiles nothing."""

    @jax.jit
    def measure(state: State, place: Array, genes: Array, images: Array, mean: Array, std: Array) -> Any:
        return supernet.calibrate(taken(state, place), normalise(images, mean, std), genes)

    @jax.jit
    def mistakes(
        state: State, place: Array, genes: Array, images: Array, labels: Array, mean: Array, std: Array
    ) -> Array:
        return wrong(supernet.apply(taken(state, place), normalise(images, mean, std), genes, "eval"), labels)

    return measure, mistakes
