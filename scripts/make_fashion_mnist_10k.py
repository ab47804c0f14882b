"""Make the shipped part of Fashion-MNIST from the full data set: 800 + 200 images of each class.

    python scripts/make_fashion_mnist_10k.py [--full FOLDER] [--out FOLDER]

Training images are drawn from the official training file and test images from the official test file, stratified,
with seed 0, and kept in their original order. The same input gives the same bytes (no time stamp in the .gz files; the
packing itself may differ between versions of zlib, the unpacked content does not). Prints the SHA-256 of the unpacked
content, which `nas/datasets/fashion_mnist_10k.py` checks.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import struct
from pathlib import Path

import numpy as np

from nas.data import Data
from nas.datasets import fashion_mnist, fashion_mnist_10k
from nas.stratify import stratified

TRAIN = 8000
TEST = 2000
SEED = 0


def draw(full: Data) -> dict[str, np.ndarray]:
    """The shipped arrays, uint8 `[N, H, W]` and `[N]`, by file name without .gz."""
    train = np.sort(stratified(full.labels, {"train": TRAIN}, SEED)["train"])
    test = np.sort(stratified(full.test_labels, {"test": TEST}, SEED)["test"])
    return {
        f"{fashion_mnist_10k.PREFIX}train-images-idx3-ubyte": full.images[train, ..., 0],
        f"{fashion_mnist_10k.PREFIX}train-labels-idx1-ubyte": full.labels[train].astype(np.uint8),
        f"{fashion_mnist_10k.PREFIX}t10k-images-idx3-ubyte": full.test_images[test, ..., 0],
        f"{fashion_mnist_10k.PREFIX}t10k-labels-idx1-ubyte": full.test_labels[test].astype(np.uint8),
    }


def encode(array: np.ndarray) -> bytes:
    """The IDX bytes of a uint8 `array`."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def pack(content: bytes) -> bytes:
    """`content` as gzip, without file name or time stamp, so that the bytes depend on nothing else."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=buffer, mtime=0) as file:
        file.write(content)
    return buffer.getvalue()


def main() -> None:
    """Read the full data set, draw, write, print the checksums."""
    root = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--full", help="folder of the full data set (default: where `flynas data` finds it)")
    parser.add_argument("--out", type=Path, default=root / "nas" / "datasets" / "_files")
    arguments = parser.parse_args()
    for name, array in draw(fashion_mnist.dataset(arguments.full)).items():
        content = encode(array)
        packed = pack(content)
        (arguments.out / f"{name}.gz").write_bytes(packed)
        print(f'    "{name}": "{hashlib.sha256(content).hexdigest()}",  # {len(packed):,} bytes packed')


if __name__ == "__main__":
    main()
