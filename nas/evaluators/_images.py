"""What evaluators that look at images have in common: the split, and what a run keeps of it."""

from __future__ import annotations

from typing import Any

from nas.data import Data, Splits, check_fits, content_hash, split
from nas.data_source import load, reference
from search_spaces.space import SearchSpace


def splits_for(space: SearchSpace, data: Any, validation: int, seed: int, train: int | None) -> Splits:
    """The three parts of `data` (anything `nas.data_source.load` takes, or `Splits`), which must fit `space`.

    Raises:
        InputError: an unknown data set, more images than there are, images or classes that do not match the space.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> len(splits_for(tiny.space(), "digits", 200, 0, 500).train_images)
        500
    """
    splits = (
        data
        if isinstance(data, Splits)
        else split(data if isinstance(data, Data) else load(data), validation, seed, train)
    )
    fix = "set input_hw, input_channels and classes of the space"
    check_fits(splits, f"space {space.name}", space.image_hw, space.input_channels, space.classes, fix)
    return splits


def described(splits: Splits, data: Any, seed: int) -> dict[str, Any]:
    """How the images were got and cut, for `Evaluator.describe`."""
    return {
        "data": splits.name,
        "data_from": reference(data),
        "data_source": splits.source,
        "data_hash": content_hash(splits),
        "seed": seed,
        "train": len(splits.train_images),
        "validation": len(splits.validation_images),
        "test": len(splits.test_images),
    }
