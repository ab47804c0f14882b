"""The digits of scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest

from hw_models.errors import InputError
from nas.data import content_hash, split
from nas.data_source import load


def test_exact_shapes_and_scale() -> None:
    from sklearn.datasets import load_digits

    data = load("digits")
    assert data.images.shape == (1400, 8, 8, 1) and data.test_images.shape == (397, 8, 8, 1)
    assert data.images.min() == 0 and data.images.max() == 255 and data.images.dtype == np.uint8
    original = load_digits()
    ours = sorted(image.tobytes() for image in np.concatenate([data.images, data.test_images])[..., 0])
    scaled = np.floor(original.images * 15.9375 + 0.5).astype(np.uint8)
    assert ours == sorted(image.tobytes() for image in scaled)
    everyone = np.bincount(original.target)
    assert (np.bincount(data.labels) + np.bincount(data.test_labels)).tolist() == everyone.tolist()
    assert np.abs(np.bincount(data.test_labels) - 397 * everyone / 1797).max() < 1


def test_same_every_time_and_splittable() -> None:
    assert content_hash(load("digits")) == content_hash(load("digits"))
    splits = split(load("digits"), validation=400, seed=0)
    assert len(splits.train_labels) == 1000 and len(splits.test_labels) == 397


def test_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sklearn", None)
    with pytest.raises(InputError, match="pip install scikit-learn"):
        load("digits")
