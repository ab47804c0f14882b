"""IDX files, the format of MNIST and its relatives, plain or gzip-compressed.

Layout (http://yann.lecun.com/exdb/mnist/): two zero bytes, a type byte (0x08 = unsigned byte), the number of
dimensions, each dimension as a big-endian 32-bit integer, then the values, last dimension fastest.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from collections.abc import Mapping
from importlib.resources.abc import Traversable
from pathlib import Path

import numpy as np

from hw_models.errors import InputError

AGAIN = "get the file again"


def content(file: Path | Traversable) -> bytes:
    """The bytes of `file`, unpacked if its name ends in .gz.

    Raises:
        InputError: a file that cannot be read or unpacked.
    """
    try:
        raw = file.read_bytes()
        return gzip.decompress(raw) if file.name.endswith(".gz") else raw
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"'{file}' cannot be read ({error}): {AGAIN}") from error


def decode(raw: bytes, dimensions: int, name: str) -> np.ndarray:
    """The array in the IDX bytes `raw`; `name` is the file to blame.

    Shapes:
        returns uint8 with `dimensions` axes (3 for images `[N, H, W]`, 1 for labels `[N]`).

    Raises:
        InputError: another format, number of dimensions or length.

    Example:
        >>> decode(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 9]), 1, "labels")
        array([7, 9], dtype=uint8)
    """
    start = 4 + 4 * dimensions
    if raw[:4] != bytes([0, 0, 8, dimensions]) or len(raw) < start:
        raise InputError(
            f"'{name}' is not an IDX file of unsigned bytes with {dimensions} dimension(s) "
            f"(it starts with {raw[:4].hex() or 'nothing'}): {AGAIN}"
        )
    shape = tuple(int(length) for length in np.frombuffer(raw, ">u4", dimensions, 4))
    if len(raw) - start != math.prod(shape):
        raise InputError(
            f"'{name}' holds {len(raw) - start:,} values where its header promises {math.prod(shape):,}: {AGAIN}"
        )
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def verify(raw: bytes, sha256: str, name: str) -> None:
    """Nothing if the unpacked bytes `raw` have this checksum.

    Raises:
        InputError: other content.
    """
    found = hashlib.sha256(raw).hexdigest()
    if found != sha256:
        raise InputError(
            f"'{name}' is damaged or another file: the SHA-256 of its unpacked content is {found[:12]}..., "
            f"not {sha256[:12]}...: {AGAIN}"
        )


def pair(
    images: Path | Traversable, labels: Path | Traversable, classes: int, sha256: Mapping[str, str]
) -> tuple[np.ndarray, np.ndarray]:
    """Images and their labels from two IDX files; `sha256` maps file names without .gz to checksums of the content.

    Shapes:
        returns uint8 `[N, H, W, 1]` and int32 `[N]`.

    Raises:
        InputError: a damaged file (named), unequal counts, a label that is not below `classes`.
    """
    arrays = []
    for file, dimensions in ((images, 3), (labels, 1)):
        raw = content(file)
        # The format first: "not an IDX file" tells a person more than a checksum.
        arrays.append(decode(raw, dimensions, str(file)))
        if sha256:
            verify(raw, sha256[file.name.removesuffix(".gz")], str(file))
    pixels, numbers = arrays
    if len(pixels) != len(numbers):
        raise InputError(
            f"'{images}' has {len(pixels):,} images but '{labels}' has {len(numbers):,} labels: get both files again"
        )
    if numbers.max(initial=0) >= classes:
        raise InputError(f"'{labels}' has label {numbers.max()}: labels go from 0 to {classes - 1}: {AGAIN}")
    return pixels[..., None], numbers.astype(np.int32)
