"""CIFAR-100: 50,000 + 10,000 colour photos (32x32) in 100 fine classes, from the official binary files.

Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009),
https://www.cs.toronto.edu/~kriz/cifar.html. Each record has a coarse and a fine label; the fine one is used.
"""

from __future__ import annotations

import os

from nas.data import Data, Status
from nas.datasets import _cifar

# In the order of fine_label_names.txt, which is alphabetical; as one text because a list would take 100 lines.
CLASS_NAMES = tuple(
    """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
    caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
    flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
    motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
    poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
    squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
    wardrobe whale willow_tree wolf woman worm
    """.split()  # noqa: SIM905
)

FILES = _cifar.Files(
    name="cifar100",
    archive="cifar-100-binary.tar.gz",
    md5="03b5dce01913d631647c71ecec9e9cb8",
    folder="cifar-100-binary",
    train=("train.bin",),
    test="test.bin",
    train_records=50_000,
    test_records=10_000,
    label_bytes=2,
    class_names=CLASS_NAMES,
)


def dataset(folder: str | os.PathLike[str] | None = None) -> Data:
    """CIFAR-100, uint8 `[N, 32, 32, 3]`, from a folder with `cifar-100-binary.tar.gz` or its unpacked files.

    Raises:
        InputError: not found (with the ways to get it), or a damaged file (named).
    """
    return _cifar.dataset(FILES, folder)


def status() -> Status:
    """Whether the files are here, and where."""
    return _cifar.status(FILES)
