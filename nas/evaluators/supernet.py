"""Shared weights: train one supernet, then rank any network of the space by its validation error.

Training draws one network uniformly at every step (single path, Guo et al. 2020, https://arxiv.org/abs/1904.00420), or
several by another rule of `nas.training.paths`. Batches are spread over all devices. Evaluation recalibrates the
normalisation statistics of each candidate on fixed training images, then counts its mistakes on the validation images;
the test images are never read here.

Gates are judged by the loss of relaxed execution on a few validation images, and weights may follow them
(`nas/evaluators/_relaxed.py`).
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import asdict
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from hw_models.errors import InputError
from nas.evaluators._images import described, splits_for
from nas.evaluators._relaxed import Relaxed, following, judging_gates
from nas.stratify import drawn
from nas.training.batches import feed
from nas.training.epoch import Clock, run_epoch
from nas.training.images import EVALUATION_BATCH, normalise
from nas.training.loss import wrong
from nas.training.memory import within_memory
from nas.training.parallel import spread
from nas.training.paths import paths as paths_named
from nas.training.recipe import Recipe
from nas.training.shared import Weights, shared_step, started
from nas.training.standalone import pooled_statistics
from nas.types import Evaluator, Key, Quality
from search_spaces.space import SearchSpace
from search_spaces.supernet import Supernet, with_statistics

NO_LABEL = -1  # no answer equals it


class State(NamedTuple):
    """Shared parameters `{slot: {kind: {"params": ...}}}`, the optimiser's state, and the rounds done, int32 `[]`.

    `average` is the moving average of the parameters, which networks are evaluated with; None where there is none.
    """

    params: Any
    momentum: Any
    round: Array
    average: Any = None


class _Judging(NamedTuple):
    """What networks are judged on: normalisation `[C]`, calibration images, validation images and labels in batches."""

    mean: Any
    std: Any
    calibration: Array
    images: Array
    labels: Array


def evaluator(
    space: SearchSpace,
    *,
    data: Any = "fashion_mnist_10k",
    seed: int = 0,
    validation: int = 1000,
    train: int | None = None,
    epochs: int = 12,
    batch: int = 64,
    learning_rate: float = 0.4,
    weight_decay: float = 1e-4,
    smoothing: float = 0.0,
    shift: int = 0,
    flip: bool = True,
    optimizer: str = "sgd",
    warmup: float = 0.05,
    ema: float = 0.0,
    cutout: int = 0,
    mixup: float = 0.0,
    accumulate: int = 1,
    precision: str = "float32",
    paths: str = "auto",
    placement: str = "auto",
    calibration: int = 500,
    chunk: int = 4,
    depthwise: str = "auto",
    execution: str = "auto",
    relaxed_images: int = 128,
    relaxed_loss: str = "cross_entropy",
    follow: int = 0,
    follow_rate: float = 0.025,
) -> Evaluator:
    """Evaluator that trains the supernet of `space` for `epochs` rounds of one epoch each.

    `data` is anything `nas.data_source.load` takes, or `Splits`. `seed` chooses the split; `validation` and `train` are
    numbers of images (`train=None`: the rest). `calibration` training images, a fixed random sample, set the
    normalisation statistics of each candidate. The defaults suit short training: shared weights underfit, so they are
    not smoothed or shifted. `paths` says which networks a step trains (`nas.training.paths`: `auto`, `uniform`, `fair`,
    `sandwich[random=2]`, `progressive`, `compress_last`), `placement` where the training images wait
    (`nas.training.batches`), and the other options of training are those of `nas.training.recipe.Recipe`. Networks are
    evaluated in float32.

    `execution` is that of the supernet: `switch` trains and evaluates networks at their own size, one after the other;
    `masks` runs all of them at the largest size and evaluates `chunk` of them side by side, whose maps must fit into
    memory together; `auto` takes `switch` on CPUs and `masks` elsewhere. Errors are the same up to rounding, by which
    an image may tip. So the run is described, and its errors are kept, with the execution that made them.

    Gates are judged by `relaxed_loss` on `relaxed_images` validation images, chosen anew at every step, in float32:
    `cross_entropy`, or `doubt`, the mean probability of the wrong classes, which lies between 0 and 1 as errors do and
    so goes with rewards made of accuracy. With `follow` above 0, that many steps train the weights under the gates at
    every step of a relaxed search, on training images, with the learning rate `follow_rate` (the default is that of
    DARTS); the training rounds before the search are its warm-up.

    Raises:
        InputError: images or classes that do not match the space, fewer images than a batch, a batch that the devices
            cannot share, a value out of range, an unknown name.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> judge = evaluator(tiny.space(), data="digits", validation=200, epochs=1, calibration=100)
        >>> judge.name, judge.rounds
        ('supernet', 1)
    """
    if epochs < 1:
        raise InputError(f"epochs={epochs} is out of range: give at least 1")
    recipe = Recipe(
        epochs,
        batch,
        learning_rate,
        weight_decay=weight_decay,
        smoothing=smoothing,
        shift=shift,
        flip=flip,
        optimizer=optimizer,
        warmup=warmup,
        ema=ema,
        cutout=cutout,
        mixup=mixup,
        accumulate=accumulate,
        precision=precision,
    )
    over = spread(recipe)
    splits = splits_for(space, data, validation, seed, train)
    count = len(splits.train_images)
    if count < batch:
        raise InputError(f"{count} training images are fewer than a batch of {batch}: lower the batch")
    if not 1 <= calibration <= count:
        raise InputError(f"calibration={calibration} is out of range: give 1 to {count}, the training images")
    if chunk < 1:
        raise InputError(f"chunk={chunk} is out of range: give at least 1")
    supernet = Supernet(space, depthwise, execution)
    side_by_side = supernet.execution == "masks"
    fix = "take a space of smaller networks"
    if side_by_side and chunk > 1:
        fix = f"lower chunk (now {chunk}), the candidates side by side"
    rule = paths_named(space, paths)
    relaxed = Relaxed(relaxed_images, relaxed_loss, follow, follow_rate).checked(len(splits.validation_labels))
    source = feed(splits.train_images, splits.train_labels, over, placement)
    steps = count // batch * epochs
    shared = shared_step(supernet, recipe, rule, steps, over)
    # arguments of the programs and not constants in them, so that they are kept for another split and stay small
    judging = over.placed(
        _Judging(
            splits.mean,
            splits.std,
            _whole_batches(splits.train_images[drawn(count, calibration)]),
            _padded_batches(splits.validation_images, 0),
            _padded_batches(splits.validation_labels, NO_LABEL),
        )
    )

    def step(weights: Weights, images: Array, labels: Array, key: Key, clock: Clock) -> tuple[Weights, Array]:
        return shared(weights, images, labels, judging.mean, judging.std, key, clock)

    def init(key: Key) -> State:
        first = started(_only("params", supernet.init(key)), recipe, steps)
        return State(first.params, first.momentum, jnp.int32(0), first.average)

    def train_round(key: Key, state: State) -> tuple[State, dict[str, float]]:
        began = time.perf_counter()
        # copies: a step overwrites what it is given, and the state has to survive a round that is broken off
        weights = over.copied(Weights(state.params, state.momentum, state.average))
        done = int(state.round)
        weights, average = run_epoch(step, weights, source, recipe, done, key, "the supernet's loss", state)
        seconds = time.perf_counter() - began
        metrics = {"loss": average, "images_per_s": count // batch * batch / seconds}
        return State(weights.params, weights.momentum, state.round + 1, weights.average), metrics

    blank = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), _only("batch_stats", supernet.shapes()))

    def one_error(params: Any, genes: Array, by: _Judging) -> Array:
        weights = _join(params, blank)

        def measure(batch_images: Array) -> Any:
            return supernet.calibrate(weights, normalise(batch_images, by.mean, by.std), genes)

        ready = with_statistics(weights, pooled_statistics(lax.map(measure, by.calibration)))

        def mistakes(pair: tuple[Array, Array]) -> Array:
            return wrong(supernet.apply(ready, normalise(pair[0], by.mean, by.std), genes, "eval"), pair[1])

        total = len(splits.validation_labels)
        padding = by.labels.size - total  # counted as mistakes, all of it
        return (lax.map(mistakes, (by.images, by.labels)).sum() - padding) / total

    @jax.jit
    def errors(params: Any, genes: Array, number: Array, by: _Judging) -> Array:
        if side_by_side:
            each = jax.vmap(one_error, (None, 0, None))
            return lax.map(lambda rows: each(params, rows, by), genes.reshape(-1, chunk, genes.shape[1])).ravel()

        def body(row: Array, found: Array) -> Array:
            return found.at[row].set(one_error(params, genes[row], by))

        return lax.fori_loop(0, number, body, jnp.full((genes.shape[0],), jnp.nan, jnp.float32))

    def judged(state: State) -> Any:
        return state.average if ema else state.params

    soft = judging_gates(supernet, relaxed, chunk, len(splits.validation_labels))
    train_under = following(supernet, relaxed, recipe, source, over)

    def follow_gates(key: Key, state: State, gates: Any) -> tuple[State, dict[str, float]]:
        weights = Weights(state.params, state.momentum, state.average)
        with within_memory("training under gates", f"lower the batch (now {batch})"):
            weights, loss = train_under(key, weights, gates, judging)
        return State(weights.params, weights.momentum, state.round, weights.average), {"loss": loss}

    def evaluate(key: Key, state: State, genes: Any, index: Any) -> Quality:
        if np.ndim(genes) == 3:
            with within_memory("evaluating gates", f"lower relaxed_images (now {relaxed_images})"):
                return Quality(*jax.block_until_ready(soft(judged(state), genes, key, judging)))
        # One program for up to `chunk` rows: the padding is never run, or runs along side by side.
        rows = np.asarray(genes, np.int32)
        padded = np.zeros((-(-max(1, len(rows)) // chunk) * chunk, rows.shape[1]), np.int32)
        padded[: len(rows)] = rows
        with within_memory("evaluating candidates", fix):
            found = errors(judged(state), jnp.asarray(padded), jnp.int32(len(rows)), judging).block_until_ready()
        return Quality(found[: len(rows)])

    def version(state: State) -> str:
        digest = hashlib.sha256(fixed.encode())
        for leaf in jax.tree.leaves(judged(state)):
            digest.update(np.asarray(leaf).tobytes())
        return digest.hexdigest()[:16]

    describe = {
        **described(splits, data, seed),
        **asdict(recipe),
        "paths": dict(rule.describe),
        "calibration": calibration,
        "execution": supernet.execution,
        "depthwise": depthwise,
    }
    fixed = f"{space.fingerprint} {describe}"
    return Evaluator(
        init,
        train_round,
        epochs,
        evaluate,
        version,
        chunk,
        "supernet",
        gives_gradients=True,
        describe={**describe, "relaxed": relaxed._asdict()},
        follow=follow_gates if follow else None,
    )


def _whole_batches(array: np.ndarray) -> Array:
    """`[N, ...]` as `[batches, size, ...]`, size at most `EVALUATION_BATCH`; leaves out less than one per batch."""
    batches = -(-len(array) // EVALUATION_BATCH)
    size = len(array) // batches
    return jnp.asarray(array[: batches * size].reshape(batches, size, *array.shape[1:]))


def _padded_batches(array: np.ndarray, fill: int) -> Array:
    """`[N, ...]` and entries of `fill` after them, as `[batches, size, ...]`, size at most `EVALUATION_BATCH`."""
    batches = -(-len(array) // EVALUATION_BATCH)
    size = -(-len(array) // batches)
    padding = np.full((batches * size - len(array), *array.shape[1:]), fill, array.dtype)
    return jnp.asarray(np.concatenate([array, padding]).reshape(batches, size, *array.shape[1:]))


def _only(collection: str, variables: Any) -> Any:
    return {
        slot: {kind: {collection: part[collection]} for kind, part in kinds.items()}
        for slot, kinds in variables.items()
    }


def _join(params: Any, statistics: Any) -> Any:
    return {
        slot: {kind: {**part, **statistics[slot][kind]} for kind, part in kinds.items()}
        for slot, kinds in params.items()
    }
