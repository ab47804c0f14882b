"""Labelled images: one type for every data set, and explicit train / validation / test splits.

`nas.data_source.load` finds a data set; `split` cuts its training images into a part to train on and a part the search
may look at. The test images are the data set's own: they are the same for every seed, and are meant to be touched once,
for the report.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hw_models import discover
from hw_models.errors import InputError
from nas.stratify import stratified

PACKAGE = "nas.datasets"

TEST_SHARE = 0.2
"""Part of the images set aside for the test where a data set names no test images of its own."""


@dataclasses.dataclass(frozen=True, eq=False)
class Data:
    """A labelled image data set with its own test part.

    Shapes:
        images: uint8 `[N, H, W, C]`, labels: int32 `[N]`; test_images, test_labels: the same with another N.

    `class_names[k]` names label k, `source` says where the data was found, `license` under which terms.

    Raises:
        InputError: an array of another type or shape, unequal counts, a label without a class name.

    Example:
        >>> grey = np.zeros((4, 8, 8, 1), np.uint8)
        >>> labels = np.array([0, 1, 0, 1], np.int32)
        >>> Data("mine", grey, labels, grey, labels, ("no", "yes"), "memory").images.shape
        (4, 8, 8, 1)
    """

    name: str
    images: np.ndarray
    labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    class_names: tuple[str, ...]
    source: str
    license: str = "not stated"

    def __post_init__(self) -> None:
        check_part(self.name, "training", self.images, self.labels, self.class_names)
        check_part(self.name, "test", self.test_images, self.test_labels, self.class_names)
        if self.images.shape[1:] != self.test_images.shape[1:]:
            raise InputError(
                f"data set '{self.name}': training images are {_size(self.images)} but test images are "
                f"{_size(self.test_images)}: give both the same height, width and channels"
            )


@dataclasses.dataclass(frozen=True, eq=False)
class Splits:
    """The three parts of a data set: train on one, let the search see one, report on one.

    Shapes:
        *_images: uint8 `[N, H, W, C]`, *_labels: int32 `[N]`, mean and std: float32 `[C]`.

    `mean` and `std` are those of the training images after division by 255, so `(images / 255 - mean) / std` is
    normalised; a channel that never varies has std 1.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    validation_images: np.ndarray
    validation_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    class_names: tuple[str, ...]
    name: str
    source: str
    mean: np.ndarray
    std: np.ndarray

    def text(self) -> str:
        """One line for a person: which data, how it is cut, and where it was found."""
        parts = (self.train_images, self.validation_images, self.test_images)
        counts = " / ".join(f"{len(part):,}" for part in parts)
        return (
            f"{self.name}: {counts} images (train / validation / test), {_size(self.train_images)}, "
            f"{len(self.class_names)} classes, from {self.source}"
        )


class Status(NamedTuple):
    """What `flynas data` says about one data set; `where` is empty while it is not found."""

    found: bool
    where: str
    images: str
    how_to_get: str
    license: str
    description: str


def _size(images: np.ndarray) -> str:
    return "x".join(str(length) for length in images.shape[1:])


def check_part(name: str, part: str, images: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]) -> None:
    """Raise InputError unless `images` and `labels` are what a `part` ("training") of data set `name` must be.

    Example:
        >>> check_part("mine", "test", np.zeros((1, 8, 8, 1), np.uint8), np.zeros(1, np.int32), ("cat",))
    """
    if images.dtype != np.uint8 or images.ndim != 4 or 0 in images.shape:
        raise InputError(
            f"data set '{name}': {part} images are {images.dtype} {list(images.shape)}: give uint8 (0 to 255) "
            "[count, height, width, channels] with at least one image"
        )
    if labels.dtype != np.int32 or labels.shape != images.shape[:1]:
        raise InputError(
            f"data set '{name}': {part} labels are {labels.dtype} {list(labels.shape)} for {len(images)} images: "
            f"give int32 [{len(images)}]"
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= len(class_names):
        raise InputError(
            f"data set '{name}': {part} label {low if low < 0 else high} is out of range: "
            f"labels go from 0 to {len(class_names) - 1}, one for each class name"
        )


def split(data: Data, validation: int, seed: int, train: int | None = None) -> Splits:
    """Cut the training images into a train and a validation part, stratified by class and chosen by `seed`.

    The same seed gives the same validation images whatever `train` is, so that a short run and a long one are judged
    alike. The test images are those of `data`, in their own order, for every seed. `train=None` takes all that is
    left.

    Raises:
        InputError: a part that is too small for the number of classes, or more images than there are.

    Example:
        >>> from nas.data_source import load
        >>> splits = split(load("fashion_mnist_10k"), validation=1000, seed=0)
        >>> len(splits.train_labels), len(splits.validation_labels), len(splits.test_labels)
        (7000, 1000, 2000)
    """
    sizes = {"validation": validation, "train": len(data.labels) - validation if train is None else train}
    parts = _cut(data.name, data.labels, sizes, seed)
    train_images = data.images[parts["train"]]
    mean, std = _moments(train_images)
    return Splits(
        train_images=train_images,
        train_labels=data.labels[parts["train"]],
        validation_images=data.images[parts["validation"]],
        validation_labels=data.labels[parts["validation"]],
        test_images=data.test_images,
        test_labels=data.test_labels,
        class_names=data.class_names,
        name=data.name,
        source=data.source,
        mean=mean,
        std=std,
    )


def _cut(name: str, labels: np.ndarray, sizes: Mapping[str, int], seed: int) -> dict[str, np.ndarray]:
    try:
        return stratified(labels, sizes, seed)
    except InputError as error:
        raise InputError(f"data set '{name}': {error}") from error


def _moments(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation [C] of uint8 `images` [N, H, W, C] divided by 255."""
    channels = images.shape[-1]
    histogram = np.zeros((channels, 256), np.int64)
    # Counting grey values some images at a time is exact and never holds the data as float64.
    for start in range(0, len(images), 4096):
        for channel in range(channels):
            histogram[channel] += np.bincount(images[start : start + 4096, ..., channel].ravel(), minlength=256)
    value = np.arange(256) / 255
    share = histogram / histogram.sum(axis=1, keepdims=True)
    mean = share @ value
    std = np.sqrt((share * (value - mean[:, None]) ** 2).sum(axis=1))
    return mean.astype(np.float32), np.where(std > 0, std, 1.0).astype(np.float32)


def resized(splits: Splits, size: int) -> Splits:
    """The same images scaled to `size` x `size` pixels; as they are where they have that size.

    Example:
        >>> from nas.data_source import load
        >>> splits = split(load("digits"), validation=200, seed=0)
        >>> resized(splits, 6).train_images.shape[1:]
        (6, 6, 1)
    """
    if splits.train_images.shape[1:3] == (size, size):
        return splits
    import jax

    def scaled(images: np.ndarray) -> np.ndarray:
        # In parts, because the whole set as float32 may not fit.
        parts = [
            np.asarray(jax.image.resize(part.astype(np.float32), (len(part), size, size, part.shape[3]), "linear"))
            for part in np.split(images, range(1000, len(images), 1000))
        ]
        return np.clip(np.rint(np.concatenate(parts)), 0, 255).astype(np.uint8)

    return dataclasses.replace(
        splits,
        train_images=scaled(splits.train_images),
        validation_images=scaled(splits.validation_images),
        test_images=scaled(splits.test_images),
    )


def check_fits(splits: Splits, taker: str, input_hw: int, input_channels: int, classes: int, fix: str) -> None:
    """Raise InputError unless `splits` has the images and classes that `taker` is made for; ends with `fix`.

    Example:
        >>> from nas.data_source import load
        >>> splits = split(load("fashion_mnist_10k"), validation=1000, seed=0)
        >>> check_fits(splits, "the network", 28, 1, 10, "give other data")
    """
    want = f"{input_hw}x{input_hw}x{input_channels}"
    for images in (splits.train_images, splits.validation_images, splits.test_images):
        if _size(images) != want:
            raise InputError(f"data set {splits.name} has images of {_size(images)}, {taker} takes {want}: {fix}")
    if len(splits.class_names) != classes:
        raise InputError(
            f"data set {splits.name} has {len(splits.class_names)} classes, {taker} is made for {classes}: {fix}"
        )


def content_hash(data: Data | Splits) -> str:
    """SHA-256 (64 hex digits) of every array, class names included; not of the name or of where it was found.

    Example:
        >>> from nas.data_source import load
        >>> data = load("fashion_mnist_10k")
        >>> content_hash(data) == content_hash(dataclasses.replace(data, source="elsewhere"))
        True
    """
    digest = hashlib.sha256(repr(data.class_names).encode())
    for field in dataclasses.fields(data):
        array = getattr(data, field.name)
        if isinstance(array, np.ndarray):
            digest.update(f"{field.name} {array.dtype.str} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def hold_out(
    name: str, images: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...], source: str, license: str
) -> Data:
    """A data set whose test images are a fixed fifth of `images` [N, H, W, C], stratified, the same every time."""
    test = max(round(TEST_SHARE * len(labels)), len(np.unique(labels)))
    parts = _cut(name, labels, {"test": test, "train": len(labels) - test}, seed=0)
    kept, held = np.sort(parts["train"]), np.sort(parts["test"])
    return Data(name, images[kept], labels[kept], images[held], labels[held], class_names, source, license)


def listing() -> list[dict[str, Any]]:
    """Every data set of `nas/datasets/`: its name, whether and where it was found, and how to get it.

    Reads no images. The keys are `name` and the fields of `Status`.

    Example:
        >>> [entry["found"] for entry in listing() if entry["name"] == "fashion_mnist_10k"]
        [True]
    """
    return [
        {"name": name, **discover.load(PACKAGE, name, "status", "data set")()._asdict()}
        for name in discover.names(PACKAGE)
    ]


def download(name: str, folder: str | os.PathLike[str] | None = None) -> Path:
    """Fetch data set `name` from its official address into `folder` (None = the user's cache) and check it.

    Raises:
        InputError: a data set that has no download (the message says how to get it), or a download that failed.
    """
    module = importlib.import_module(discover.load(PACKAGE, name, "dataset", "data set").__module__)
    if not hasattr(module, "download"):
        raise InputError(f"data set '{name}' has no download here: {module.status().how_to_get}")
    return module.download(folder)
