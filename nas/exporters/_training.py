"""The training that comes before an export, which a call that was stopped does not have to do again."""

from __future__ import annotations

import hashlib
import time
import warnings
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

from nas.data import content_hash
from nas.exporters._source import Source
from nas.model import Meta, Model
from nas.plain import plain
from nas.training import standalone
from nas.training.checkpoints import epochs_kept

KEPT_EVERY_S = 30.0


class Listener(Protocol):
    """What is told how the training goes; see `nas.export.Progress`."""

    def start(self, total_epochs: int) -> None: ...
    def epoch(self, i: int, loss: float) -> None: ...
    def message(self, text: str) -> None: ...


def trained(origin: Source, unfinished: Path, watcher: Listener) -> tuple[Model, float]:
    """The model to write, and the seconds its training took; weights that need none are taken as they are.

    Checkpoints lie in `unfinished`, in a folder for each setting, so that another one neither continues nor loses them.

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
        return Model(origin.space, origin.variables, meta), 0.0
    images = standalone.Images(
        np.concatenate([splits.train_images, splits.validation_images]),
        np.concatenate([splits.train_labels, splits.validation_labels]),
        splits.mean,
        splits.std,
    )
    watcher.message(f"training {origin.name} on {len(images.labels):,} images of {splits.name}")
    folder = unfinished / _setting(origin)
    if recipe.epochs:
        watcher.start(recipe.epochs)
    if kept := epochs_kept(folder):
        watcher.message(f"going on after epoch {kept} of {recipe.epochs}, where this training was stopped")
    began = time.perf_counter()
    with warnings.catch_warnings():  # such as that it goes on with other threads than it began with
        warnings.showwarning = lambda message, *_: watcher.message(" ".join(str(message).split()))
        variables = standalone.train(
            origin.space,
            images,
            recipe,
            jax.random.key(origin.seed),
            origin.variables,
            watcher.epoch,
            teacher=origin.guide,
            distillation=origin.distillation,
            checkpoint=folder if recipe.epochs else None,
            checkpoint_every_s=KEPT_EVERY_S,
        )
    return Model(origin.space, jax.block_until_ready(variables), meta), time.perf_counter() - began


def about(origin: Source, seconds: float) -> dict[str, Any]:
    """How the network was trained, for the report; the seconds are those of the last call alone."""
    count = len(origin.splits.train_labels) + len(origin.splits.validation_labels)
    return {
        "start": origin.start,
        "teacher": origin.teacher,
        "distillation": origin.distillation,
        "recipe": plain(origin.recipe),
        "images": count if origin.recipe else 0,
        "seconds": seconds,
    }


def _setting(origin: Source) -> str:
    parts = (origin.space.fingerprint, origin.recipe, origin.seed, origin.start, origin.teacher, origin.distillation)
    return hashlib.sha256(f"{parts} {content_hash(origin.splits)}".encode()).hexdigest()[:12]
