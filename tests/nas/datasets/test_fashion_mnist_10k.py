"""The shipped part of Fashion-MNIST: complete, intact, quick to load, and made as its README says."""

from __future__ import annotations

import gzip
import importlib.resources
import importlib.util
import shutil
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from hw_models.errors import InputError
from nas.datasets import fashion_mnist, fashion_mnist_10k

SHIPPED = importlib.resources.files("nas.datasets._files")
SCRIPT = Path(__file__).parents[3] / "scripts" / "make_fashion_mnist_10k.py"


def maker() -> ModuleType:
    if not SCRIPT.is_file():
        pytest.skip("the scripts are not part of an installed package")
    spec = importlib.util.spec_from_file_location("make_fashion_mnist_10k", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_shapes_classes_and_source() -> None:
    data = fashion_mnist_10k.dataset()
    assert data.images.shape == (8000, 28, 28, 1) and data.test_images.shape == (2000, 28, 28, 1)
    assert data.images.dtype == np.uint8 and data.labels.dtype == np.int32
    assert np.bincount(data.labels).tolist() == [800] * 10 and np.bincount(data.test_labels).tolist() == [200] * 10
    assert len(data.class_names) == 10 and "FlyNAS package" in data.source and "Zalando" in data.license


def test_no_image_occurs_twice() -> None:
    data = fashion_mnist_10k.dataset()
    everything = [image.tobytes() for image in np.concatenate([data.images, data.test_images])]
    assert len(set(everything)) == 10_000


def test_pictures_and_labels_belong_together() -> None:
    # Nearest class mean is right for about two thirds of Fashion-MNIST; shuffled labels would give a tenth.
    data = fashion_mnist_10k.dataset()
    flat, test = (images.reshape(len(images), -1).astype(np.float32) for images in (data.images, data.test_images))
    means = np.stack([flat[data.labels == label].mean(axis=0) for label in range(10)])
    nearest = np.argmin((means**2).sum(axis=1) - 2 * test @ means.T, axis=1)
    assert 0.6 < np.mean(nearest == data.test_labels) < 0.75


def test_it_is_small_quick_and_comes_with_its_licence() -> None:
    sizes = [len(file.read_bytes()) for file in SHIPPED.iterdir() if file.name.endswith(".gz")]
    assert len(sizes) == 4 and sum(sizes) < 5_000_000
    notice = (SHIPPED / "LICENSE-fashion-mnist.txt").read_text()
    assert "Copyright (c) 2017 Zalando SE" in notice and "shall be included in all" in notice
    start = time.perf_counter()
    fashion_mnist_10k.dataset()
    assert time.perf_counter() - start < 2.0  # 0.07 s on an idle core


def test_a_damaged_shipped_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "flynas_damaged_files"
    shutil.copytree(str(SHIPPED), package)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(fashion_mnist_10k, "PACKAGE", package.name)
    assert fashion_mnist_10k.status().found
    file = package / "fashion-mnist-10k-t10k-images-idx3-ubyte.gz"
    raw = bytearray(gzip.decompress(file.read_bytes()))
    raw[1000] ^= 1
    file.write_bytes(gzip.compress(raw, 1))
    with pytest.raises(InputError, match="t10k-images-idx3-ubyte.gz' is damaged"):
        fashion_mnist_10k.dataset()
    file.unlink()
    assert not fashion_mnist_10k.status().found
    with pytest.raises(InputError, match="t10k-images-idx3-ubyte.gz' cannot be read"):
        fashion_mnist_10k.dataset()


@pytest.mark.skipif(not fashion_mnist.status().found, reason="needs the full Fashion-MNIST")
def test_the_script_makes_exactly_the_shipped_content() -> None:
    script = maker()
    drawn = script.draw(fashion_mnist.dataset())
    assert sorted(drawn) == sorted(fashion_mnist_10k.SHA256)
    for name, array in drawn.items():
        assert script.encode(array) == gzip.decompress((SHIPPED / f"{name}.gz").read_bytes())


@pytest.mark.skipif(not fashion_mnist.status().found, reason="needs the full Fashion-MNIST")
def test_training_images_come_from_the_training_file_only() -> None:
    full, part = fashion_mnist.dataset(), fashion_mnist_10k.dataset()
    label_of = {image.tobytes(): label for image, label in zip(full.images, full.labels, strict=True)}
    assert [label_of.get(image.tobytes()) for image in part.images] == part.labels.tolist()
    assert not any(image.tobytes() in label_of for image in part.test_images)


def test_packing_depends_on_the_content_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    pack = maker().pack
    first = pack(b"content" * 100)
    monkeypatch.setattr(time, "time", lambda: 4e9)
    assert pack(b"content" * 100) == first and first[4:8] == bytes(4) and gzip.decompress(first) == b"content" * 100
    shipped = (SHIPPED / "fashion-mnist-10k-train-labels-idx1-ubyte.gz").read_bytes()
    assert shipped[:10] == first[:10]
