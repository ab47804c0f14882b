"""The training that comes before an export, which a call that was stopped does not have to do again."""

from __future__ import annotations

import hashlib
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from nas.data import content_hash
from nas.exporters._source import Source
from nas.model import Meta, Model
from nas.plain import plain
from nas.training import standalone
from nas.training.checkpoints import hash_of
from nas.training.recipe import Recipe
from search_spaces.kernels.depthwise import select

KEPT_EVERY_S = 30.0


class Progress(Protocol):
    """Methods that `export` calls, in this order; messages come at any time."""

    def start(self, total_epochs: int) -> None:
        """So many epochs of training come; called only where there are any."""

    def epoch(self, i: int, loss: float) -> None:
        """Epoch `i` (from 0) is done, with this mean loss."""

    def message(self, text: str) -> None:
        """What happens, in one sentence."""

    def close(self) -> None:
        """The export ended, in whatever way."""


class Silent:
    """The default: tells nobody.

    Example:
        >>> Silent().message("nothing happens")
    """

    def start(self, total_epochs: int) -> None: ...
    def epoch(self, i: int, loss: float) -> None: ...
    def message(self, text: str) -> None: ...
    def close(self) -> None: ...


class Done(NamedTuple):
    """A model to write, what the report says of its training, what was said meanwhile, and where checkpoints lie."""

    model: Model
    about: dict[str, Any]
    notes: list[str]
    checkpoints: Path | None


def trained(origin: Source, place: Path, watcher: Progress, relay: bool) -> Done:
    """The network of `origin` after its training; weights that need none are taken as they are.

    Checkpoints lie in `place`, in a folder for each setting, so that another one neither continues nor loses them.
    With `relay` the watcher is told the warnings; otherwise they are Python's.

    Raises:
        InputError: see `nas.training.standalone.train`.
    """
    splits, recipe = origin.splits, origin.recipe
    meta = Meta(
        origin.name,
        tuple(splits.class_names),
        tuple(map(float, splits.mean)),
        tuple(map(float, splits.std)),
        note=f"trained on {splits.name}",
    )
    if recipe is None:
        return Done(Model(origin.space, origin.variables, meta), _about(origin, 0, 0.0), [], None)
    images = standalone.Images(
        np.concatenate([splits.train_images, splits.validation_images]),
        np.concatenate([splits.train_labels, splits.validation_labels]),
        splits.mean,
        splits.std,
    )
    notes: list[str] = []
    done = 0

    def note(message: Warning | str, *_: Any) -> None:
        notes.append(" ".join(str(message).split()))
        watcher.message(notes[-1])

    def resumed(epochs: int) -> None:
        nonlocal done
        done = epochs
        watcher.message(f"going on after epoch {epochs} of {recipe.epochs}, where this training was stopped")

    watcher.message(f"training {origin.name} on {len(images.labels):,} images of {splits.name}")
    if recipe.epochs:
        watcher.start(recipe.epochs)
    folder = place / _setting(origin) if recipe.epochs else None
    with warnings.catch_warnings():
        if relay:
            warnings.showwarning = note  # type: ignore[assignment]
        told = _teacher_error(origin, recipe, watcher)
        began = time.perf_counter()
        variables = standalone.train(
            origin.space,
            images,
            recipe,
            jax.random.key(origin.seed),
            origin.variables,
            watcher.epoch,
            teacher=origin.guide,
            distillation=origin.distillation,
            checkpoint=folder,
            checkpoint_every_s=KEPT_EVERY_S,
            resumed=resumed,
        )
    jax.block_until_ready(variables)
    about = _about(origin, done, time.perf_counter() - began, told)
    return Done(Model(origin.space, variables, meta), about, notes, folder)


def _teacher_error(origin: Source, recipe: Recipe, watcher: Progress) -> float | None:
    """How often the teacher is wrong on validation images, which is said as well; None without one."""
    from nas.training.teacher import teacher_error

    splits = origin.splits
    if origin.guide is None or not len(splits.validation_labels):
        return None
    key = jax.random.fold_in(jax.random.key(origin.seed), 2)  # the training's are 0 and 1
    images = standalone.Images(splits.validation_images, splits.validation_labels, splits.mean, splits.std)
    error, count = teacher_error(origin.guide, images, recipe, key)
    watcher.message(
        f"the teacher is wrong on {error:.1%} of {count:,} validation images, augmented as in this training: one that "
        "is worse than what it teaches may hold that back"
    )
    return error


def _about(origin: Source, resumed_after: int, seconds: float, wrong: float | None = None) -> dict[str, Any]:
    """For the report; where an earlier call did the first `resumed_after` epochs, its seconds are not among these."""
    count = len(origin.splits.train_labels) + len(origin.splits.validation_labels)
    return {
        "start": origin.start,
        "teacher": origin.teacher,
        "teacher_error": wrong,
        "distillation": origin.distillation,
        "recipe": plain(origin.recipe),
        "images": count if origin.recipe else 0,
        "resumed_after_epoch": resumed_after,
        "seconds": seconds,
    }


def _setting(origin: Source) -> str:
    """A name for all that the trained weights depend on, machine and versions apart."""
    weights = (origin.variables, getattr(origin.guide, "args", None))
    parts = (
        origin.space.fingerprint,
        origin.recipe,
        origin.seed,
        origin.distillation,
        content_hash(origin.splits),
        hash_of(weights),
        jax.device_count(),
        jax.default_backend(),
        select()[0],
    )
    return hashlib.sha256(f"{parts}".encode()).hexdigest()[:12]
