"""CIFAR-10: 50,000 + 10,000 colour photos (32x32) in 10 classes, from the official binary files.

Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009),
https://www.cs.toronto.edu/~kriz/cifar.html.
"""

from __future__ import annotations

import os

from nas.data import Data, Status
from nas.datasets import _cifar

FILES = _cifar.Files(
    name="cifar10",
    archive="cifar-10-binary.tar.gz",
    md5="c32a1d4ab5d03f1284b67883e8d87530",
    folder="cifar-10-batches-bin",
    train=tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
    test="test_batch.bin",
    train_records=10_000,
    test_records=10_000,
    label_bytes=1,
    class_names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
)


def dataset(folder: str | os.PathLike[str] | None = None) -> Data:
    """CIFAR-10, uint8 `[N, 32, 32, 3]`, from a folder with `cifar-10-binary.tar.gz` or its unpacked files.

    Raises:
        InputError: not found (with the ways to get it), or a damaged file (named).
    """
    return _cifar.dataset(FILES, folder)


def status() -> Status:
    """Whether the files are here, and where."""
    return _cifar.status(FILES)
