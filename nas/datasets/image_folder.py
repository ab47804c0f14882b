"""Your own images: a folder with one folder per class.

Either `root/train/CLASS/*.png` and `root/test/CLASS/*.png`, or only `root/CLASS/*.png`, of which a fifth is then set
aside as test images (stratified, always the same ones). Classes are numbered in alphabetical order. PNG, JPEG, BMP,
GIF, TIFF and WebP files are read; other files and hidden ones are passed over.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from hw_models.errors import InputError
from nas.data import Data, Status, hold_out

NAME = "image_folder"
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"})
HOW_TO_GET = (
    "give the path of a folder that holds train/CLASS/*.png and test/CLASS/*.png, or only CLASS/*.png "
    "(a path with a slash, as in ./photos or ./photos[size=32])"
)
LEAST = {"train": 2, "test": 1, "all": 3}
"""Fewest images of a class: one each for train and validation, and one for the test."""


def dataset(folder: str | os.PathLike[str], size: int | None = None, grey: bool = False) -> Data:
    """The images in `folder`, uint8 `[N, H, W, 3]`, or `[N, H, W, 1]` with `grey`.

    `size` cuts every image to a centred square and scales it to `size` x `size`; without it all images must have one
    size already. Transparent pixels become white; photos are turned upright as their EXIF data says.

    Raises:
        InputError: no such folder, no classes, too few images of a class, an unreadable image (named), unequal sizes.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"image folder '{root}' does not exist: {HOW_TO_GET}")
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
        raise InputError(f"image folder '{root}': size {size!r} is not allowed: give a whole number of pixels from 1")
    has = [part for part in ("train", "test") if (root / part).is_dir()]
    if len(has) == 1:
        raise InputError(f"image folder '{root}' has '{has[0]}' but not both: {HOW_TO_GET}")
    name = root.resolve().name
    if not has:
        files = _files(root, LEAST["all"])
        images, labels = _read(files, size, grey)
        return hold_out(name, images, labels, tuple(files), str(root), "yours")
    train, test = (_files(root / part, LEAST[part]) for part in ("train", "test"))
    odd = sorted(set(train) ^ set(test))
    if odd:
        raise InputError(f"image folder '{root}': class '{odd[0]}' is only in train or only in test: put it in both")
    images, labels = _read(train, size, grey)
    test_images, test_labels = _read(test, size, grey)
    return Data(name, images, labels, test_images, test_labels, tuple(train), str(root), "yours")


def status() -> Status:
    """An image folder is named by its path, so it is never found by itself."""
    return Status(False, "", "yours", HOW_TO_GET, "yours", "your own images, one folder per class")


def _files(root: Path, least: int) -> dict[str, list[Path]]:
    """The image files of each class folder in `root`, both in alphabetical order."""
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(folders) < 2:
        raise InputError(
            f"image folder '{root}' has {len(folders)} class folder(s), at least 2 are needed: {HOW_TO_GET}"
        )
    classes = {}
    for folder in folders:
        files = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
        if len(files) < least:
            raise InputError(
                f"'{folder}' has {len(files)} image(s), at least {least} are needed: add images or remove it"
            )
        classes[folder.name] = files
    return classes


def _read(classes: dict[str, list[Path]], size: int | None, grey: bool) -> tuple[np.ndarray, np.ndarray]:
    """All images [N, H, W, C] and labels [N], class by class."""
    images = []
    for file in (file for files in classes.values() for file in files):
        images.append(_image(file, size, grey))
        if images[-1].shape != images[0].shape:
            height, width = images[-1].shape[:2]
            raise InputError(
                f"'{file}' is {width}x{height} but the first image is {images[0].shape[1]}x{images[0].shape[0]}: "
                "give size=N (PATH[size=N] in text) to bring all to one size"
            )
    labels = np.repeat(np.arange(len(classes), dtype=np.int32), [len(files) for files in classes.values()])
    return np.stack(images), labels


def _image(file: Path, size: int | None, grey: bool) -> np.ndarray:
    """One image, uint8 [H, W, C]."""
    try:
        from PIL import Image, ImageOps
    except ModuleNotFoundError as error:
        raise InputError("image folders need Pillow, which is not installed: run `pip install pillow`") from error
    try:
        with Image.open(file) as opened:
            opened.load()
            picture: Any = ImageOps.exif_transpose(opened)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"'{file}' is not a readable image ({error}): repair or remove it") from error
    if picture.mode.startswith("I") or picture.mode == "F":
        raise InputError(f"'{file}' has more than 8 bits per value: save it with 8 bits (0 to 255)")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    picture = picture.convert("L" if grey else "RGB")
    if size is not None:
        picture = ImageOps.fit(picture, (size, size), method=Image.Resampling.BILINEAR)
    pixels = np.asarray(picture, np.uint8)
    return pixels[..., None] if grey else pixels
