"""Handwritten digits from scikit-learn: 1,797 tiny grey images (8x8), for fast tests.

Source: the test part of "Optical Recognition of Handwritten Digits" (Alpaydin, Kaynak, UCI repository, 1998), as
scikit-learn ships it. It names no test images, so 397 of them are set aside here, stratified and always the same.
"""

from __future__ import annotations

import importlib.util

import numpy as np

from hw_models.errors import InputError
from nas.data import Data, Status
from nas.stratify import stratified

NAME = "digits"
TEST = 397
LICENSE = "shipped in scikit-learn (BSD-3-Clause); from the UCI repository, which asks to cite it"
HOW_TO_GET = "run `pip install scikit-learn`"


def dataset() -> Data:
    """1,400 training and 397 test images, uint8 `[N, 8, 8, 1]`; the original 0 to 16 are scaled to 0 to 255.

    Raises:
        InputError: scikit-learn is not installed.
    """
    try:
        import sklearn
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise InputError(f"data set '{NAME}' comes with scikit-learn, which is not installed: {HOW_TO_GET}") from error
    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = bunch.target.astype(np.int32)
    parts = stratified(labels, {"test": TEST, "train": len(labels) - TEST}, seed=0)
    train, test = np.sort(parts["train"]), np.sort(parts["test"])
    class_names = tuple(str(digit) for digit in range(10))
    source = f"scikit-learn {sklearn.__version__}"
    return Data(NAME, images[train], labels[train], images[test], labels[test], class_names, source, LICENSE)


def status() -> Status:
    """Found if scikit-learn is installed."""
    found = importlib.util.find_spec("sklearn") is not None
    description = "handwritten digits: 8x8 grey images, 10 classes, for fast tests"
    return Status(found, "scikit-learn" if found else "", "1,400 + 397 test", HOW_TO_GET, LICENSE, description)
