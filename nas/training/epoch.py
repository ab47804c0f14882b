"""One pass over the images, for shared weights and for single networks; and what is said when the loss diverges."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from hw_models.errors import InputError
from hw_models.programs import for_few_runs
from nas.training.batches import Feed
from nas.training.memory import within_memory
from nas.training.recipe import Recipe
from nas.types import Key


class Clock(NamedTuple):
    """How far the training is: steps done, int32 `[]`, and their share of all steps, float32 `[]`."""

    step: Any
    progress: Any


class Diverged(InputError):
    """The loss or the weights are no longer finite.

    Attributes:
        epoch, step: where it was seen first, both from 0; the step is that of the epoch.
        state: what the training had at the start of that epoch, the last good one.

    Example:
        >>> str(Diverged("the loss", float("nan"), 2, 7, Recipe(), 0.05, None))
        'the loss of epoch 2 is nan at step 7, learning rate 0.05: lower the learning rate (now 0.1)'
    """

    def __init__(self, what: str, value: float, epoch: int, step: int, recipe: Recipe, rate: float, state: Any):
        super().__init__(
            f"{what} of epoch {epoch} is {value} at step {step}, learning rate {rate:.3g}: lower the learning rate "
            f"(now {recipe.learning_rate})"
        )
        self.epoch, self.step, self.state = epoch, step, state


def run_epoch(
    step: Callable[..., tuple[Any, Array]],
    state: Any,
    feed: Feed,
    recipe: Recipe,
    epoch: int,
    key: Key,
    what: str = "the loss",
    start: Any = None,
) -> tuple[Any, float]:
    """The state after epoch `epoch` of `recipe`, and the mean loss; the key is consumed.

    `step` is `(state, images, labels, key, clock) -> (state, loss)`, may overwrite the state it is given, and keeps the
    weights in its field `params`. The images are shuffled by `key`; less than one batch is left out. `start` is what
    `Diverged` gives back.

    Raises:
        Diverged: a loss or a weight that is not finite; the first such step is named.
        OutOfMemory: a step that does not fit into the memory of the device.
    """
    count, steps = feed.total, feed.total // recipe.batch
    order = np.asarray(_shuffle(count)(key))[: steps * recipe.batch].reshape(steps, recipe.batch)
    losses: list[Array] = []
    fix = f"lower the batch (now {recipe.batch}), or raise accumulate (now {recipe.accumulate})"
    with within_memory("a training step", fix):
        for position, batch in enumerate(feed.batches(order)):
            number = epoch * steps + position
            clock = Clock(np.int32(number), np.float32(number / (recipe.epochs * steps)))
            state, loss = step(state, *batch, jax.random.fold_in(key, position), clock)
            losses.append(loss)
            if feed.streams and position:
                # steps are only queued: without waiting, every batch of the epoch would be on the device at once
                losses[position - 1].block_until_ready()
        found = np.asarray(jax.device_get(losses))
    bad = ~np.isfinite(found)
    rate = recipe.schedule(recipe.epochs * steps)
    if bad.any():
        first = int(bad.argmax())
        raise Diverged(what, float(found[first]), epoch, first, recipe, float(rate(epoch * steps + first)), start)
    if not all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(state.params)):
        last = steps - 1  # earlier, and the loss of the step after it would have shown it
        raise Diverged("a weight", np.nan, epoch, last, recipe, float(rate(epoch * steps + last)), start)
    return state, float(found.mean())


def run_guarded_epoch(
    step: Callable[..., tuple[Any, Array]],
    state: Any,
    copied: Callable[[Any], Any],
    feed: Feed,
    recipe: Recipe,
    epoch: int,
    key: Key,
    save: Callable[[], None] | None,
) -> tuple[Any, float]:
    """`run_epoch` on a copy of `state`; where it diverges `state` is the last good one, and `save` keeps it.

    Raises:
        Diverged, OutOfMemory: as `run_epoch`.
    """
    try:
        # what a step is given it overwrites, and the last good state should outlive a loss that is not finite
        return run_epoch(step, copied(state), feed, recipe, epoch, key, start=state)
    except Diverged:
        if save is not None:
            with suppress(InputError):  # of a disk that is full; the loss is what matters
                save()
        raise


@functools.lru_cache(maxsize=16)
def _shuffle(count: int) -> Callable[..., Array]:
    """The numbers below `count` in an order drawn by a key; once an epoch, so it need not be fast."""
    return for_few_runs(lambda key: jax.random.permutation(key, count))
