"""The part of Fashion-MNIST that is shipped with FlyNAS: 8,000 + 2,000 images, so that nothing needs a network.

800 training and 200 test images of each class, drawn by `scripts/make_fashion_mnist_10k.py` from the official training
and test files; licence and recipe lie beside the files, in `nas/datasets/_files/`.
"""

from __future__ import annotations

import importlib.resources

import numpy as np

from nas.data import Data, Status
from nas.datasets import _idx
from nas.datasets.fashion_mnist import CLASS_NAMES, LICENSE

NAME = "fashion_mnist_10k"
PACKAGE = "nas.datasets._files"
SOURCE = f"the FlyNAS package ({PACKAGE})"
PREFIX = "fashion-mnist-10k-"

# Of the unpacked content; printed by the script that made the files.
SHA256: dict[str, str] = {
    "fashion-mnist-10k-train-images-idx3-ubyte": "47b955d2b6c035e32773a3f940e1635d4390e5b0568c44690311dd009ec0f8ac",
    "fashion-mnist-10k-train-labels-idx1-ubyte": "3676ae3ad9c9741c895487e16c199a147bc730d263223ab5751364bcb3a515eb",
    "fashion-mnist-10k-t10k-images-idx3-ubyte": "43b3190cb5647613afe8b4d6a67594a84c848c63deb3c2bc6e31c1b7b4f16e6f",
    "fashion-mnist-10k-t10k-labels-idx1-ubyte": "ceb1f8e320c7f619d4c2a532acbade7ed75afd4955a33feede980014c00e88dc",
}


def dataset() -> Data:
    """The shipped 8,000 training and 2,000 test images of Fashion-MNIST, uint8 `[N, 28, 28, 1]`.

    Raises:
        InputError: a shipped file is missing or damaged (named).

    Example:
        >>> dataset().test_images.shape
        (2000, 28, 28, 1)
    """
    images, labels = _part("train")
    test_images, test_labels = _part("t10k")
    return Data(NAME, images, labels, test_images, test_labels, CLASS_NAMES, SOURCE, LICENSE)


def _part(part: str) -> tuple[np.ndarray, np.ndarray]:
    folder = importlib.resources.files(PACKAGE)
    images = folder / f"{PREFIX}{part}-images-idx3-ubyte.gz"
    labels = folder / f"{PREFIX}{part}-labels-idx1-ubyte.gz"
    return _idx.pair(images, labels, len(CLASS_NAMES), SHA256)


def status() -> Status:
    """Always found, unless the installation is damaged."""
    folder = importlib.resources.files(PACKAGE)
    found = all((folder / f"{name}.gz").is_file() for name in SHA256)
    description = "Fashion-MNIST, a stratified part: 28x28 grey images of clothes, 10 classes"
    return Status(found, SOURCE if found else "", "8,000 + 2,000 test", "comes with FlyNAS", LICENSE, description)
