"""CIFAR-10 and CIFAR-100 from tiny files in the official layout."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from hw_models.errors import InputError
from nas.data_source import load
from nas.datasets import cifar10, cifar100

FOLDER = {"cifar10": "cifar-10-batches-bin", "cifar100": "cifar-100-binary"}
ARCHIVE = {"cifar10": "cifar-10-binary.tar.gz", "cifar100": "cifar-100-binary.tar.gz"}
NAMES = {
    "cifar10": [f"data_batch_{k}.bin" for k in (1, 2, 3, 4, 5)] + ["test_batch.bin"],
    "cifar100": ["train.bin", "test.bin"],
}


def record(name: str, label: int, image: np.ndarray) -> bytes:
    coarse = [19] if name == "cifar100" else []
    pixels = [int(image[row, column, channel]) for channel in range(3) for row in range(32) for column in range(32)]
    return bytes([*coarse, label, *pixels])


@pytest.fixture(params=["cifar10", "cifar100"])
def tiny(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, dict[str, bytes], np.ndarray]:
    """Name, the bytes of each file with two images in it, and all images."""
    name = request.param
    module = {"cifar10": cifar10, "cifar100": cifar100}[name]
    monkeypatch.setattr(module, "FILES", module.FILES._replace(train_records=2, test_records=2))
    images = np.random.default_rng(0).integers(0, 256, (2 * len(NAMES[name]), 32, 32, 3), np.uint8)
    files = {
        file: record(name, 2 * k % 10, images[2 * k]) + record(name, 9, images[2 * k + 1])
        for k, file in enumerate(NAMES[name])
    }
    return name, files, images


def write_archive(path: Path, folder: str, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for name, raw in {"readme.html": b"hello", **files}.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(raw)
            tar.addfile(member, io.BytesIO(raw))


@pytest.mark.parametrize("form", ["files", "files in their folder", "archive"])
def test_images_and_labels(tiny: tuple, tmp_path: Path, form: str) -> None:
    name, files, images = tiny
    if form == "archive":
        write_archive(tmp_path / ARCHIVE[name], FOLDER[name], files)
    else:
        place = tmp_path if form == "files" else tmp_path / FOLDER[name]
        place.mkdir(exist_ok=True)
        for file, raw in files.items():
            (place / file).write_bytes(raw)
    data = load(name, folder=tmp_path)
    np.testing.assert_array_equal(np.concatenate([data.images, data.test_images]), images)
    expected = [label for k in range(len(files)) for label in (2 * k % 10, 9)]
    assert [*data.labels, *data.test_labels] == expected
    assert data.source.startswith(str(tmp_path)) and len(data.class_names) == {"cifar10": 10, "cifar100": 100}[name]


def test_found_through_the_environment(tiny: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, files, _ = tiny
    module = {"cifar10": cifar10, "cifar100": cifar100}[name]
    monkeypatch.setenv("FLYNAS_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    assert not module.status().found
    with pytest.raises(InputError, match=f"kriz/{ARCHIVE[name]} .*MD5 .*FLYNAS_DATA/{name}"):
        load(name)
    (tmp_path / name).mkdir()
    write_archive(tmp_path / name / ARCHIVE[name], FOLDER[name], files)
    assert module.status().where == str(tmp_path / name)
    assert load(name).images.shape[1:] == (32, 32, 3)


@pytest.mark.parametrize("damage", ["short", "label", "missing", "archive", "member"])
def test_damage_is_one_line_and_names_the_file(tiny: tuple, tmp_path: Path, damage: str) -> None:
    name, files, _ = tiny
    last = NAMES[name][-1]
    if damage == "short":
        files[last] = files[last][:-1]
    if damage == "label":
        position = {"cifar10": 0, "cifar100": 1}[name]
        files[last] = files[last][:position] + bytes([100]) + files[last][position + 1 :]
    if damage in ("missing", "member"):
        del files[last]
    if damage in ("archive", "member"):
        archive = tmp_path / ARCHIVE[name]
        write_archive(archive, FOLDER[name], files)
        if damage == "archive":
            archive.write_bytes(archive.read_bytes()[:4000])
    else:
        for file, raw in files.items():
            (tmp_path / file).write_bytes(raw)
    expected = {
        "short": f"{last}' has {{}} bytes where 2 images take",
        "label": f"{last}' has label 100",
        "missing": f"has no {ARCHIVE[name]}, nor",
        "archive": f"{ARCHIVE[name]}' is damaged",
        "member": f"{ARCHIVE[name]}' has no {last}",
    }[damage]
    with pytest.raises(InputError) as caught:
        load(name, folder=tmp_path)
    message = str(caught.value)
    assert expected.format(f"{len(files.get(last, b'')):,}") in message and "\n" not in message


def test_the_real_layout() -> None:
    assert cifar10.FILES.train_records * 5 == cifar100.FILES.train_records == 50_000
    assert len(set(cifar100.CLASS_NAMES)) == 100 and list(cifar100.CLASS_NAMES) == sorted(cifar100.CLASS_NAMES)
    assert cifar10.status().images == cifar100.status().images == "50,000 + 10,000 test"
