"""The IDX reader: plain and packed files, and every way in which they can be damaged."""

from __future__ import annotations

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest

from hw_models.errors import InputError
from nas.datasets import _idx


def idx_bytes(array: np.ndarray, kind: int = 8) -> bytes:
    return bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


IMAGES = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
LABELS = np.array([1, 0, 2], np.uint8)


def write_pair(folder: Path, images: bytes, labels: bytes, packed: bool) -> tuple[Path, Path]:
    ending = ".gz" if packed else ""
    files = folder / f"images{ending}", folder / f"labels{ending}"
    for file, raw in zip(files, (images, labels), strict=True):
        file.write_bytes(gzip.compress(raw) if packed else raw)
    return files


@pytest.mark.parametrize("packed", [False, True])
def test_a_pair_is_read_with_its_checksums(tmp_path: Path, packed: bool) -> None:
    raw = idx_bytes(IMAGES), idx_bytes(LABELS)
    sums = {name: hashlib.sha256(each).hexdigest() for name, each in zip(("images", "labels"), raw, strict=True)}
    images, labels = _idx.pair(*write_pair(tmp_path, *raw, packed), 3, sums)
    assert images.shape == (3, 4, 5, 1) and images.dtype == np.uint8 and labels.dtype == np.int32
    np.testing.assert_array_equal(images[..., 0], IMAGES)
    np.testing.assert_array_equal(labels, LABELS)


@pytest.mark.parametrize(
    ("images", "labels", "culprit", "part"),
    [
        (b"", idx_bytes(LABELS), "images", "starts with nothing"),
        (b"\x89PNG" + idx_bytes(IMAGES), idx_bytes(LABELS), "images", "starts with 89504e47"),
        (idx_bytes(IMAGES)[:9], idx_bytes(LABELS), "images", "not an IDX file"),
        (idx_bytes(IMAGES)[:-1], idx_bytes(LABELS), "images", "59 values where its header promises 60"),
        (idx_bytes(IMAGES) + b"\0", idx_bytes(LABELS), "images", "61 values"),
        (idx_bytes(IMAGES, kind=13), idx_bytes(LABELS), "images", "unsigned bytes"),
        (idx_bytes(LABELS), idx_bytes(LABELS), "images", "3 dimension"),
        (idx_bytes(IMAGES), idx_bytes(IMAGES), "labels", "1 dimension"),
        (idx_bytes(IMAGES), idx_bytes(LABELS[:2]), "labels", "3 images but"),
        (idx_bytes(IMAGES), idx_bytes(LABELS + 1), "labels", "has label 3: labels go from 0 to 2"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, images: bytes, labels: bytes, culprit: str, part: str) -> None:
    with pytest.raises(InputError) as caught:
        _idx.pair(*write_pair(tmp_path, images, labels, packed=True), 3, {})
    message = str(caught.value)
    assert str(tmp_path / culprit) in message and part in message and "\n" not in message


@pytest.mark.parametrize("damage", ["truncated", "flipped", "not gzip", "gone"])
def test_a_damaged_archive_is_named(tmp_path: Path, damage: str) -> None:
    files = write_pair(tmp_path, idx_bytes(IMAGES), idx_bytes(LABELS), packed=True)
    packed = bytearray(files[0].read_bytes())
    packed[-6] ^= 0xFF  # in the checksum at the end
    contents = {"truncated": bytes(packed[:-20]), "flipped": bytes(packed), "not gzip": b"plain text"}
    files[0].write_bytes(contents.get(damage, b""))
    if damage == "gone":
        files[0].unlink()
    with pytest.raises(InputError, match="images.gz' cannot be read"):
        _idx.pair(*files, 3, {})


def test_other_content_under_the_right_name(tmp_path: Path) -> None:
    files = write_pair(tmp_path, idx_bytes(IMAGES ^ 1), idx_bytes(LABELS), packed=False)
    sums = {"images": hashlib.sha256(idx_bytes(IMAGES)).hexdigest(), "labels": ""}
    with pytest.raises(InputError, match="images' is damaged or another file"):
        _idx.pair(*files, 3, sums)
