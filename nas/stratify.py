"""Random parts of a set of images: with every class in its share, or a plain sample that is always the same."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hw_models.errors import InputError


def drawn(count: int, size: int) -> np.ndarray:
    """`size` of the numbers below `count` in random order, always the same ones: `int [size]`.

    The first images of a set stand for all of them only where somebody has shuffled it; these do in any order.

    Example:
        >>> sorted(drawn(5, 5).tolist())
        [0, 1, 2, 3, 4]
    """
    # sorting random numbers, for the reason given in `stratified`
    return np.argsort(np.random.default_rng(0).random(count), kind="stable")[:size]


def stratified(labels: np.ndarray, sizes: Mapping[str, int], seed: int) -> dict[str, np.ndarray]:
    """Disjoint random parts in which every class keeps its share.

    Classes of equal size get exactly equal counts where the size allows it; otherwise counts follow the largest
    remainder, and every class has at least one image in every part.

    Shapes:
        labels: `[N]`; returns one index array `[size]` per part, in random order.

    Raises:
        InputError: the parts need more images than there are, or a class has too few for every part.

    Example:
        >>> parts = stratified(np.array([0, 1] * 5), {"validation": 2, "train": 6}, seed=0)
        >>> {name: len(index) for name, index in parts.items()}
        {'validation': 2, 'train': 6}
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise InputError(f"seed {seed!r} is not allowed: give a whole number from 0")
    classes, counts = np.unique(labels, return_counts=True)
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < len(classes):
            raise InputError(
                f"{name} part of {size!r} images is not allowed: give a whole number, at least {len(classes)} "
                "(one image for each class)"
            )
    if sum(sizes.values()) > len(labels):
        wanted = " + ".join(f"{size:,} {name}" for name, size in sizes.items())
        raise InputError(f"{wanted} images are more than the {len(labels):,} there are: ask for fewer")
    if counts.min() < len(sizes):
        raise InputError(
            f"class {classes[counts.argmin()]} has too few images ({counts.min()}): "
            f"every class needs at least {len(sizes)}, one for each part ({', '.join(sizes)})"
        )
    # Sorting random numbers, rather than Generator.permutation: NumPy promises no stable stream for the latter.
    order = np.argsort(np.random.default_rng(seed).random(len(labels)), kind="stable")
    ordered = np.asarray(labels)[order]
    left = counts.copy()
    parts = {}
    for position, (name, size) in enumerate(sizes.items()):
        share = _allocate(left, size, keep=len(sizes) - 1 - position)
        start = counts - left
        chosen = np.zeros(len(labels), bool)
        for label, first, count in zip(classes, start, share, strict=True):
            chosen[np.flatnonzero(ordered == label)[first : first + count]] = True
        parts[name] = order[chosen]
        left = left - share
    return parts


def _allocate(available: np.ndarray, total: int, keep: int) -> np.ndarray:
    """How many of `available` [K] images each class gives to a part of `total`, leaving `keep` of each."""
    most = available - keep
    if total > most.sum():
        raise InputError(f"a part of {total:,} images leaves a later part without some class: ask for fewer")
    quota = total * available / available.sum()
    share = np.clip(np.floor(quota).astype(np.int64), 1, most)
    while share.sum() != total:
        step = int(np.sign(total - share.sum()))
        room = share < most if step > 0 else share > 1
        share[np.argmax(np.where(room, step * (quota - share), -np.inf))] += step
    return share
