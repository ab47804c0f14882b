"""Fashion-MNIST in full: 60,000 + 10,000 grey images (28x28) of clothes in 10 classes.

Source: Xiao, Rasul, Vollgraf, "Fashion-MNIST" (arXiv:1708.07747), https://github.com/zalandoresearch/fashion-mnist,
MIT licence. Read from the four IDX files, plain or .gz, and checked against the content published there.
"""

from __future__ import annotations

import gzip
import http.client
import os
import urllib.request
import zlib
from pathlib import Path

from hw_models.errors import InputError
from nas.data import Data, Status
from nas.datasets import _idx, _places

NAME = "fashion_mnist"
CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
LICENSE = "MIT, Copyright 2017 Zalando SE"
DEBIAN = ("/usr/share/datasets/fashion-mnist",)
ADDRESSES = (
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
)
TIMEOUT_S = 60.0
HOW_TO_GET = (
    "run `flynas data --download fashion_mnist` (31 MB), or `apt install dataset-fashion-mnist`, or put the four "
    ".gz files of github.com/zalandoresearch/fashion-mnist into a folder and name it, fashion_mnist[folder=DIR], or "
    "use $FLYNAS_DATA/fashion_mnist; the data set 'fashion_mnist_10k' needs none of this"
)

# Of the unpacked content, so that they hold for plain files and for any way of packing them. That the content is the
# official one follows from the MD5 sums in Zalando's README, which are of the packed files: tests/nas/datasets/
# test_fashion_mnist.py rebuilds those from the same content.
SHA256: dict[str, str] = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
FILES = tuple(SHA256)


def _file(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / f"{name}.gz", folder / name) if path.is_file()), None)


def _missing(folder: Path) -> str:
    return next((f"{name}[.gz]" for name in FILES if _file(folder, name) is None), "")


def dataset(folder: str | os.PathLike[str] | None = None, download: bool = False) -> Data:
    """Fashion-MNIST from `folder`, or from the first place that has it (see `nas.datasets`).

    `download=True` fetches it from the official address if it is not there yet; nothing is fetched otherwise.

    Raises:
        InputError: not found (with the ways to get it), a damaged file, a download that failed.
    """
    target = None if folder is None else Path(folder)
    missing = bool(_missing(target)) if target else not _places.where(NAME, _missing, DEBIAN)
    if download and missing:
        target = _fetch(target)
    place = _places.find(NAME, target, _missing, HOW_TO_GET, DEBIAN)
    files = {name: _file(place, name) or place / name for name in FILES}
    images, labels = _idx.pair(
        files["train-images-idx3-ubyte"], files["train-labels-idx1-ubyte"], len(CLASS_NAMES), SHA256
    )
    test_images, test_labels = _idx.pair(
        files["t10k-images-idx3-ubyte"], files["t10k-labels-idx1-ubyte"], len(CLASS_NAMES), SHA256
    )
    return Data(NAME, images, labels, test_images, test_labels, CLASS_NAMES, str(place), LICENSE)


def status() -> Status:
    """Whether the four files are here, and where."""
    place = _places.where(NAME, _missing, DEBIAN)
    description = "Fashion-MNIST in full: 28x28 grey images of clothes, 10 classes"
    return Status(bool(place), place, "60,000 + 10,000 test", HOW_TO_GET, LICENSE, description)


def download(folder: str | os.PathLike[str] | None = None) -> Path:
    """Fetch the four files into `folder` (None = the user's cache), check them, and return the folder.

    Files that are there already and intact are kept. A file appears under its name only once it is checked.

    Raises:
        InputError: no address answers, or a file differs from the published one.
    """
    return _fetch(None if folder is None else Path(folder))


def _fetch(folder: Path | None) -> Path:
    target = folder or _places.cache(NAME)
    try:
        target.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            present = _file(target, name)
            if present is not None:
                try:
                    _idx.verify(_idx.content(present), SHA256[name], str(present))
                except InputError as error:
                    raise InputError(f"{error}: delete it, then download once more") from error
                continue
            partial = target / f"{name}.gz.part"
            partial.write_bytes(_official(name))
            os.replace(partial, target / f"{name}.gz")
    except OSError as error:
        raise InputError(f"'{target}' cannot be written ({error}): name another folder") from error
    return target


def _official(name: str) -> bytes:
    """The packed file `name` from the first address that has the right content."""
    problems = []
    for address in ADDRESSES:
        try:
            with urllib.request.urlopen(f"{address}{name}.gz", timeout=TIMEOUT_S) as answer:
                packed = answer.read()
            _idx.verify(gzip.decompress(packed), SHA256[name], f"{address}{name}.gz")
            return packed
        except InputError as error:
            problems.append(str(error))
        except (OSError, EOFError, zlib.error, http.client.HTTPException) as error:
            problems.append(f"{address}: {error}")
    raise InputError(f"download of {name}.gz failed ({'; '.join(problems)}): {HOW_TO_GET}")
