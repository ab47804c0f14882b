"""Training of one stand-alone network: from scratch or from inherited weights, with or without a teacher."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from hw_models.errors import InputError, check_range
from nas.data import Splits
from nas.stratify import drawn
from nas.training.batches import feed
from nas.training.checkpoints import Checkpoints, identity
from nas.training.constraints import Guides, said_of
from nas.training.epoch import Clock, run_guarded_epoch
from nas.training.images import EVALUATION_BATCH, augment, normalise
from nas.training.loss import smoothed, soft_cross_entropy, taught
from nas.training.parallel import Spread, spread
from nas.training.recipe import Recipe
from nas.training.rounded import completed
from search_spaces.kernels.depthwise import checked_implementation, select
from search_spaces.network import Network, fresh
from search_spaces.space import SearchSpace

SETTLING_IMAGES = 2000
SETTLING_PIXELS = 2_000_000  # of one batch that stands for all, about what memory of large images allows
COARSE_BITS = 8  # activations of fewer bits
TEACHER_SAMPLE = 8  # images by whose logits a checkpoint knows its teacher again


class Images(NamedTuple):
    """uint8 images `[N, H, W, C]`, labels `[N]`, and the mean and deviation per channel that normalise them."""

    images: np.ndarray
    labels: np.ndarray
    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def of(cls, splits: Splits) -> Images:
        """The training images of `splits`.

        Example:
            >>> from nas.data import split
            >>> from nas.data_source import load
            >>> Images.of(split(load("digits"), validation=200, seed=0, train=256)).images.shape
            (256, 8, 8, 1)
        """
        return cls(splits.train_images, splits.train_labels, splits.mean, splits.std)


class Trained(NamedTuple):
    """Parameters and running statistics of `Network(space)`, the optimiser's state, the moving average or None."""

    params: Any
    statistics: Any
    momentum: Any
    average: Any


def train(
    space: SearchSpace,
    data: Images,
    recipe: Recipe,
    key: Array,
    variables: Any = None,
    report: Callable[[int, float], None] | None = None,
    *,
    teacher: Callable[[Array], Array] | None = None,
    distillation: float = 0.5,
    checkpoint: str | Path | None = None,
    checkpoint_every_s: float = 0.0,
    resumed: Callable[[int], None] | None = None,
    placement: str = "auto",
    depthwise: str = "auto",
    constrain: Callable[[Any], Any] | None = None,
    penalty: Callable[[Any, Array], Array] | None = None,
    renew: Callable[[float, Any], Callable[[Any], Any]] | None = None,
) -> Any:
    """Variables of `Network(space)` after training; the key is consumed.

    At the end the normalisation statistics are set from training images without augmentation, a fixed random sample of
    them. Batches are spread over all devices.

    Args:
        space: a frozen space.
        data: what to train on.
        recipe: how.
        key: typed random key.
        variables: where to start (inherited weights), fresh ones when None. A space with bits may start from the
            weights of the same network without.
        report: `report(epoch, loss)` is called after every epoch.
        teacher: normalised float32 images `[N, H, W, C]` to logits `[N, classes]`, such as
            `nas.training.teacher.supernet_teacher(...)`; None for none.
        distillation: share of the loss that follows the teacher in place of the labels (Kullback-Leibler divergence).
        checkpoint: a folder that keeps the training after every epoch; a training that was killed goes on from there
            and ends with the very weights it would have had. With other threads or versions, or on another machine, the
            last bits may differ, and a RuntimeWarning says so.
        checkpoint_every_s: least seconds from one checkpoint to the next, the last one excepted; a training that takes
            less keeps none, unless its loss is no longer finite: then the last good epoch is kept.
        resumed: is told once how many epochs are done, where the training goes on from a checkpoint.
        placement: where the images wait, see `nas.training.batches.feed`.
        depthwise: implementation of depthwise convolution, see `search_spaces.kernels.depthwise`.
        constrain, penalty, renew: what is trained besides or within limits, see `nas.training.constraints`.

    Raises:
        InputError: images that do not fit the network; labels that do not fit the images or the classes; fewer images
            than a batch; a batch that the devices cannot share; an unknown name; a checkpoint of something else.
        Diverged: a loss that is not finite (an InputError as well).
    """
    check_data(space, data)
    count = len(data.images)
    if count < recipe.batch:
        raise InputError(f"{count} training images are fewer than a batch of {recipe.batch}: lower the batch")
    check_range("distillation", distillation, 0, 1)
    checked_implementation(depthwise)
    over = spread(recipe)
    start_key, run_key = jax.random.split(key)
    first = fresh(space, start_key) if variables is None else variables
    first = completed(
        space, first, data.images[:EVALUATION_BATCH], data.mean, data.std, depthwise, anew=variables is None
    )
    first = {**first, "params": recipe.prepared(first["params"])}
    steps = recipe.epochs * (count // recipe.batch)
    average = first["params"] if recipe.ema else None
    momentum = recipe.started(steps, first["params"])
    state = over.copied(Trained(first["params"], first["batch_stats"], momentum, average))
    jitted = _step(space, recipe, steps, distillation, depthwise, over)
    guides = Guides.of(teacher, constrain, penalty)
    mean, std = over.placed((jnp.asarray(data.mean), jnp.asarray(data.std)))

    def step(state: Trained, images: Array, labels: Array, key: Array, clock: Clock) -> tuple[Trained, Array]:
        return jitted(state, images, labels, mean, std, key, clock, guides)

    source = feed(data.images, data.labels, over, placement)
    done, kept = 0, None
    if checkpoint is not None:
        shares = distillation if teacher is not None else 0.0
        shown = normalise(jnp.asarray(data.images[:TEACHER_SAMPLE]), mean, std)
        guide = guides.teacher
        said = None if guide is None else np.asarray(jax.jit(lambda guide, x: guide(x))(guide, shown))
        devices = 1 if over.mesh is None else over.mesh.size
        runs = f"{devices} x {jax.default_backend()}, depthwise {select()[0] if depthwise == 'auto' else depthwise}"
        runs += said_of(constrain, penalty, renew)
        kept = Checkpoints(checkpoint, identity(space, data, recipe, key, variables, shares, said, runs))
        done, state = kept.restored(state)
        if done and resumed is not None:
            resumed(done)
    saved = done
    began = last = time.monotonic()
    for epoch in range(done, recipe.epochs):
        if renew is not None:
            guides = Guides.of(teacher, renew(epoch / recipe.epochs, state.params), penalty)
        save = partial(kept.save, epoch, state) if kept is not None and epoch > saved else None
        state, average_loss = run_guarded_epoch(
            step, state, over.copied, source, recipe, epoch, jax.random.fold_in(run_key, epoch), save
        )
        now, ends = time.monotonic(), epoch + 1 == recipe.epochs
        # the last one as well, in a training worth it: what comes after it may fail
        waited = now - (began if ends else last)
        if kept is not None and (waited >= checkpoint_every_s or (ends and done)):
            kept.save(epoch + 1, state)
            last, saved = now, epoch + 1
        if report is not None:
            report(epoch, average_loss)
    if renew is not None and recipe.epochs:
        guides = Guides.of(teacher, renew(1.0, state.params), penalty)
    trained = {"params": state.average if recipe.ema else state.params, "batch_stats": state.statistics}
    rows = drawn(count, min(count, SETTLING_IMAGES))
    settling = data._replace(images=data.images[rows], labels=data.labels[rows])
    return {**trained, **settle(space, guides.used(trained), settling, depthwise), "params": trained["params"]}


def check_data(space: SearchSpace, data: Images) -> None:
    """Raise InputError for what indexing and one-hot labels inside jit would take in silence.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> grey, labels = np.zeros((1, 8, 8, 1), np.uint8), np.zeros(1, np.int32)
        >>> check_data(tiny.space(), Images(grey, labels, np.zeros(1), np.ones(1)))
    """
    wanted, labels = (space.image_hw, space.image_hw, space.input_channels), np.asarray(data.labels)
    if data.images.dtype != np.uint8 or data.images.ndim != 4:
        raise InputError(
            f"images of type {data.images.dtype} and shape {data.images.shape} are not allowed: give uint8 [N, H, W, C]"
        )
    if data.images.shape[1:] != wanted:
        size, fit = ("x".join(map(str, shape)) for shape in (data.images.shape[1:], wanted))
        raise InputError(
            f"images of {size} do not fit the network, which takes {fit}: scale them with nas.data.resized, or set "
            "input_channels of the space"
        )
    if labels.shape != (len(data.images),) or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"labels of type {labels.dtype} and shape {labels.shape} do not fit {len(data.images)} images: give one "
            "whole number for each"
        )
    if labels.size and not 0 <= labels.min() <= labels.max() < space.classes:
        raise InputError(
            f"labels from {labels.min()} to {labels.max()} are out of range: give 0 to {space.classes - 1}, the "
            "classes of the network"
        )


@lru_cache(maxsize=8)
def _step(
    space: SearchSpace, recipe: Recipe, steps: int, distillation: float, depthwise: str, over: Spread
) -> Callable[..., tuple[Trained, Array]]:
    network, parts = Network(space, depthwise), recipe.accumulate

    def gradient_of(
        params: Any, statistics: Any, x: Array, targets: Array, progress: Array, guides: Guides
    ) -> tuple[Any, Any]:
        goal = targets if guides.teacher is None else taught(targets, guides.teacher(x), distillation)

        def loss_of(params: Any) -> tuple[Array, Any]:
            variables = guides.used({"params": params, "batch_stats": statistics})
            narrow = x.astype(recipe.precision)
            logits, updated = network.apply(variables, narrow, "train", progress, mutable=["batch_stats"])
            return guides.penalised(soft_cross_entropy(logits, goal), params, progress), updated["batch_stats"]

        return jax.value_and_grad(loss_of, has_aux=True)(params)

    def looped(
        params: Any, statistics: Any, x: Array, targets: Array, progress: Array, guides: Guides
    ) -> tuple[Any, Any]:
        """As `gradient_of`, over the parts of a batch; statistics move with each of them."""
        cut = tuple(over.rows(a.reshape(parts, len(a) // parts, *a.shape[1:]), 1) for a in (x, targets))

        def body(carry: Any, part: Any) -> tuple[Any, None]:
            total, losses, statistics = carry
            (loss, statistics), gradient = gradient_of(params, statistics, part[0], part[1], progress, guides)
            return (jax.tree.map(lambda a, b: a + b / parts, total, gradient), losses + loss / parts, statistics), None

        start = (jax.tree.map(jnp.zeros_like, params), jnp.float32(0), statistics)
        (total, loss, statistics), _ = lax.scan(body, start, cut)
        return (loss, statistics), total

    def step(
        state: Trained, images: Array, labels: Array, mean: Array, std: Array, key: Array, clock: Clock, guides: Guides
    ) -> tuple[Trained, Array]:
        x = normalise(over.rows(images), mean, std)
        x, targets = augment(key, x, smoothed(labels, space.classes, recipe.smoothing), recipe)
        x = over.rows(x)
        compute = gradient_of if parts == 1 else looped
        (loss, statistics), gradient = compute(state.params, state.statistics, x, targets, clock.progress, guides)
        params, momentum = recipe.updated(steps, state.params, state.momentum, gradient)
        return Trained(params, statistics, momentum, recipe.averaged(state.average, params, clock.step)), loss

    return jax.jit(step, donate_argnums=0)


def settle(space: SearchSpace, variables: Any, data: Images, depthwise: str = "auto") -> Any:
    """`variables` with normalisation statistics averaged over `data`, as an exported network needs them.

    Every batch is computed with statistics of its own. Where activations have few bits a level that flips in one batch
    and not in another (an even background has one level all over) moves its statistics far from those of the others,
    and their mean fits none: there as many images as memory allows go through at once, the others are left out.
    """
    program, mean, std = _statistics(space, depthwise), jnp.asarray(data.mean), jnp.asarray(data.std)
    count = len(data.images)
    size = min(EVALUATION_BATCH, count)
    batches = count // size
    if coarse(space):
        size, batches = min(max(size, SETTLING_PIXELS // math.prod(data.images.shape[1:3])), count), 1
    parts = [
        program(variables, jnp.asarray(data.images[start : start + size]), mean, std)
        for start in range(0, batches * size, size)
    ]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)
    return {**variables, "batch_stats": pooled_statistics(stacked)}


def coarse(space: SearchSpace) -> bool:
    """Whether a network rounds activations to fewer than 8 bits.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> [coarse(tiny.space(bits=bits).freeze([0] * 6)) for bits in ("none", "w2a8", "w8a4")]
        [False, False, True]
    """
    bits = (case.block.settled("act_bits") for slot in space.slots for case in slot.cases)
    return any(width is not None and width < COARSE_BITS for width in bits)


@lru_cache(maxsize=8)
def _statistics(space: SearchSpace, depthwise: str) -> Callable[..., Any]:
    network = Network(space, depthwise)

    @jax.jit
    def statistics(variables: Any, images: Array, mean: Array, std: Array) -> Any:
        _, updated = network.apply(variables, normalise(images, mean, std), "calibrate", mutable=["batch_stats"])
        return updated["batch_stats"]

    return statistics


def pooled_statistics(stacked: Any) -> Any:
    """Statistics of several equally large batches taken together; leaves `[B, C]` become `[C]`.

    Mean and variance by the law of total variance; of the ranges of activations that are rounded the mean, which a few
    large values move less than they move the extremes.
    """

    def pool(batches: Any) -> Any:
        if not isinstance(batches, dict):
            return batches.mean(0)
        mean = batches["mean"].mean(0)
        second = (batches["var"] + jnp.square(batches["mean"])).mean(0)
        return {"mean": mean, "var": jnp.maximum(second - jnp.square(mean), 0)}

    return jax.tree.map(pool, stacked, is_leaf=lambda node: isinstance(node, dict) and "mean" in node)
