"""The binary form of CIFAR-10 and CIFAR-100: records of label byte(s) and 3,072 pixel bytes.

Source of the layout: https://www.cs.toronto.edu/~kriz/cifar.html. The pixels are 1,024 red, then green, then blue
values, each row by row. The files are read from a folder or straight from the .tar.gz, which is not unpacked on disk.
"""

from __future__ import annotations

import os
import tarfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hw_models.errors import InputError
from nas.data import Data, Status
from nas.datasets import _idx, _places

PIXELS = 3 * 32 * 32
LICENSE = "no licence stated; its authors ask to cite Krizhevsky 2009"


class Files(NamedTuple):
    """What one of the two data sets consists of; `*_records` count the images in one file."""

    name: str
    archive: str
    md5: str
    folder: str
    train: tuple[str, ...]
    test: str
    train_records: int
    test_records: int
    label_bytes: int
    class_names: tuple[str, ...]

    @property
    def how_to_get(self) -> str:
        """The ways to get the files, as the end of a sentence."""
        return (
            f"fetch https://www.cs.toronto.edu/~kriz/{self.archive} (about 160 MB, MD5 {self.md5}), and name the "
            f"folder with it, or with its unpacked .bin files, {self.name}[folder=DIR], or use $FLYNAS_DATA/{self.name}"
        )

    def missing(self, folder: Path) -> str:
        """The first file that `folder` lacks; empty if it has the archive or all .bin files."""
        if _unpacked(folder, self) is not None or (folder / self.archive).is_file():
            return ""
        return f"{self.archive}, nor {', '.join((*self.train, self.test))}"


def _unpacked(folder: Path, files: Files) -> Path | None:
    for place in (folder, folder / files.folder):
        if all((place / name).is_file() for name in (*files.train, files.test)):
            return place
    return None


def dataset(files: Files, folder: str | os.PathLike[str] | None) -> Data:
    """The data set in `folder`, or in the first place that has it: uint8 `[N, 32, 32, 3]`, red first.

    Raises:
        InputError: not found (with the ways to get it), or a damaged file (named).
    """
    place = _places.find(files.name, folder, files.missing, files.how_to_get)
    names = (*files.train, files.test)
    unpacked = _unpacked(place, files)
    if unpacked is not None:
        source = unpacked
        raw = {name: _idx.content(unpacked / name) for name in names}
    else:
        source = place / files.archive
        raw = _members(source, files)
    records = [files.train_records] * len(files.train) + [files.test_records]
    parts = [_decode(raw[name], count, files, f"{source}/{name}") for name, count in zip(names, records, strict=True)]
    images = np.concatenate([part[0] for part in parts[:-1]])
    labels = np.concatenate([part[1] for part in parts[:-1]])
    return Data(files.name, images, labels, *parts[-1], files.class_names, str(source), LICENSE)


def _members(archive: Path, files: Files) -> dict[str, bytes]:
    raw = {}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                name = member.name.rpartition("/")[2]
                file = tar.extractfile(member) if name in (*files.train, files.test) else None
                if file is not None:
                    raw[name] = file.read()
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise InputError(f"'{archive}' is damaged ({error}): {files.how_to_get}") from error
    for name in (*files.train, files.test):
        if name not in raw:
            raise InputError(f"'{archive}' has no {name}: {files.how_to_get}")
    return raw


def _decode(raw: bytes, records: int, files: Files, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Images [N, 32, 32, 3] and labels [N]; where a record has several label bytes, the last is the fine label."""
    length = files.label_bytes + PIXELS
    if len(raw) != records * length:
        raise InputError(
            f"'{name}' has {len(raw):,} bytes where {records:,} images take {records * length:,}: get the file again"
        )
    table = np.frombuffer(raw, np.uint8).reshape(records, length)
    labels = table[:, files.label_bytes - 1].astype(np.int32)
    if labels.max() >= len(files.class_names):
        raise InputError(
            f"'{name}' has label {labels.max()}: labels go from 0 to {len(files.class_names) - 1}: get the file again"
        )
    planes = table[:, files.label_bytes :].reshape(records, 3, 32, 32)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels


def status(files: Files) -> Status:
    """Whether the archive or its unpacked files are here, and where."""
    place = _places.where(files.name, files.missing)
    count = f"{files.train_records * len(files.train):,} + {files.test_records:,} test"
    description = f"{files.name.upper().replace('R', 'R-')}: 32x32 colour photos, {len(files.class_names)} classes"
    return Status(bool(place), place, count, files.how_to_get, LICENSE, description)
