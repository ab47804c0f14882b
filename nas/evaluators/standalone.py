"""Training from scratch: every candidate alone, with fresh weights; slow, and what the other evaluators stand in for.

The error is that of the validation images after a full or a short training; the test images are never read here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from hw_models.errors import InputError
from nas.data import resized
from nas.evaluators._images import described, splits_for
from nas.training import standalone as alone
from nas.training.epoch import Diverged
from nas.training.images import EVALUATION_BATCH, normalise
from nas.training.loss import wrong
from nas.training.memory import OutOfMemory, within_memory
from nas.training.parallel import spread
from nas.training.recipe import Recipe
from nas.types import CandidateFailure, Evaluator, Key, Quality
from search_spaces.network import Network
from search_spaces.space import SearchSpace

NO_LABEL = -1  # no answer equals it


def evaluator(
    space: SearchSpace,
    *,
    data: Any = "fashion_mnist_10k",
    seed: int = 0,
    validation: int = 1000,
    train: int | None = None,
    epochs: int = 30,
    batch: int = 64,
    learning_rate: float = 0.1,
    weight_decay: float = 5e-4,
    smoothing: float = 0.1,
    shift: int = 2,
    flip: bool = True,
    optimizer: str = "sgd",
    warmup: float = 0.05,
    ema: float = 0.0,
    cutout: int = 0,
    mixup: float = 0.0,
    accumulate: int = 1,
    precision: str = "float32",
) -> Evaluator:
    """Evaluator that trains each candidate of `space` for `epochs` epochs and counts its mistakes.

    The images are cut as by evaluator `supernet`, so with equal options both see the same ones, scaled where the space
    searches its resolution; the other options are those of `nas.training.recipe.Recipe`. Fewer epochs are a cheaper and
    rougher judgement. A network is compiled and trained anew for each candidate, with weights and order of images from
    `fold_in(key, index)`; one whose loss is no longer finite, or that runs out of memory, has failed and the search
    goes on.

    Raises:
        InputError: images or classes that do not match the space, fewer images than a batch, a value out of range.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> judge = evaluator(tiny.space(), data="digits", validation=200, epochs=1)
        >>> judge.name, judge.rounds, judge.chunk
        ('standalone', 0, 1)
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
    spread(recipe)  # a batch that the devices cannot share is refused here, not at the first candidate
    splits = splits_for(space, data, validation, seed, train)
    count = len(splits.train_images)
    if count < batch:
        raise InputError(f"{count} training images are fewer than a batch of {batch}: lower the batch")

    @lru_cache(maxsize=4)  # resolutions that a space chooses from
    def at(size: int) -> tuple[alone.Images, np.ndarray]:
        own = resized(splits, size)
        return alone.Images.of(own), own.validation_images

    def one_error(key: Key, genes: np.ndarray, recipe: Recipe) -> float:
        network = space.freeze(genes)
        images, judged = at(network.image_hw)
        try:
            with within_memory("the candidate", "take a space of smaller networks"):
                variables = alone.train(network, images, recipe, key)
                mistakes = count_mistakes(network, variables, judged, splits.validation_labels, images)
        except (Diverged, OutOfMemory) as error:
            raise CandidateFailure(str(error)) from error
        return mistakes / len(splits.validation_labels)

    def by(recipe: Recipe) -> Callable[[Key, Any, Any, Any], Quality]:
        def evaluate(key: Key, state: Any, genes: Any, index: Any) -> Quality:
            # One after the other: what takes time is the training of each, not this loop.
            rows = zip(np.asarray(genes, np.int32), np.asarray(index).tolist(), strict=True)
            errors = [one_error(jax.random.fold_in(key, i), row, recipe) for row, i in rows]
            return Quality(np.asarray(errors, np.float32))

        return evaluate

    def shortened(share: float) -> Evaluator:
        if share * epochs < 0.999:
            raise InputError(
                f"a share of {share:.3g} of {epochs} epochs is less than one: give epochs of at least "
                f"{round(1 / share)}, or fewer rungs"
            )
        # a whole schedule in fewer epochs, and not the beginning of the long one, whose rate has not fallen yet
        return made._replace(evaluate=by(replace(recipe, epochs=max(1, round(share * epochs)))))

    describe = {**described(splits, data, seed), **asdict(recipe), "execution": "alone"}
    version = hashlib.sha256(f"standalone {space.fingerprint} {describe}".encode()).hexdigest()[:16]
    made = Evaluator(
        init=lambda key: (),
        train=lambda key, state: (state, {}),
        rounds=0,
        evaluate=by(recipe),
        version=lambda state: version,
        chunk=1,
        name="standalone",
        describe=describe,
        shortened=shortened,
    )
    return made


def count_mistakes(
    network: SearchSpace, variables: Any, images: np.ndarray, labels: np.ndarray, by: alone.Images
) -> int:
    """Wrong answers of a frozen network on uint8 `images [N, H, W, C]`, normalised as those `by` which it was trained.

    Example:
        >>> from search_spaces.network import fresh
        >>> from search_spaces.spaces import tiny
        >>> network, grey = tiny.space().freeze([0] * 6), np.zeros((3, 8, 8, 1), np.uint8)
        >>> data = alone.Images(grey, np.zeros(3, np.int32), np.zeros(1, np.float32), np.ones(1, np.float32))
        >>> count_mistakes(network, fresh(network, jax.random.key(0)), grey, np.asarray([0, 0, 10]), data)
        1
    """
    size, found = min(EVALUATION_BATCH, len(images)), []
    program = _mistakes(network)
    for start in range(0, len(images), size):
        x, y = images[start : start + size], labels[start : start + size]
        padding = size - len(x)  # counted as mistakes, all of it; one program serves the last batch too
        x = np.concatenate([x, np.zeros((padding, *x.shape[1:]), x.dtype)])
        y = np.concatenate([y, np.full(padding, NO_LABEL, y.dtype)])
        found.append(int(program(variables, x, y, by.mean, by.std)) - padding)
    return sum(found)


@lru_cache(maxsize=8)
def _mistakes(space: SearchSpace) -> Callable[..., Array]:
    network = Network(space)

    @jax.jit
    def mistakes(variables: Any, images: Array, labels: Array, mean: Array, std: Array) -> Array:
        logits = network.apply(variables, normalise(images, jnp.asarray(mean), jnp.asarray(std)), "eval")
        return wrong(logits, labels)  # type: ignore[arg-type]

    return mistakes
