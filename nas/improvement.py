"""How much a candidate adds to what is known, as one number, for any number of objectives.

The number is the *signed hypervolume improvement* of a candidate y over a front: the volume that y dominates and the
front does not, or, where the front dominates y, minus the volume of what would dominate y and is dominated itself. It
is above 0 ahead of the front, 0 on it, and the more below 0 the farther behind, where the plain improvement is 0
everywhere and teaches nothing. Volumes are shares of quasi-random points in the box of what was seen; of the share its
M-th root is taken, the edge of a cube of that volume, which is a distance for any number of objectives.

`along` is the same seen along one direction from the worst corner of the box: how much farther out a candidate lies
than the front. Over random directions its M-th power averages to the improvement (Zhang and Golovin).

Shape letters: `P` candidates, `A` rows of the archive, `M` objectives, `S` points.

References: Emmerich et al. 2006, https://doi.org/10.1109/TEVC.2005.859463 (hypervolume improvement). Roberts 2018, "The
unreasonable effectiveness of quasirandom sequences" (the points). Zhang and Golovin 2020, "Random hypervolume
scalarizations", https://arxiv.org/abs/2006.04655, lemma 5 (directions).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nas.population import MAX_OBJECTIVES
from nas.types import Key

POINTS = 1024


class Box(NamedTuple):
    """Lowest and highest value of every objective, `float32 [MAX_OBJECTIVES]` each; empty where low is above high."""

    low: Array
    high: Array


def empty_box() -> Box:
    """A box around nothing.

    Example:
        >>> float(empty_box().low[0])
        inf
    """
    edge = jnp.full(MAX_OBJECTIVES, jnp.inf, jnp.float32)
    return Box(edge, -edge)


def around(box: Box, objectives: Array, rows: Array) -> Box:
    """The least box that holds `box` and the `rows` of `objectives`. `[N, M], bool [N]`

    Example:
        >>> box = around(empty_box(), jnp.asarray([[1.0], [3.0], [9.0]]), jnp.asarray([True, True, False]))
        >>> float(box.low[0]), float(box.high[0])
        (1.0, 3.0)
    """
    count = objectives.shape[1]
    low = jnp.where(rows[:, None], objectives, jnp.inf).min(axis=0)
    high = jnp.where(rows[:, None], objectives, -jnp.inf).max(axis=0)
    return Box(box.low.at[:count].min(low), box.high.at[:count].max(high))


def points(count: int, objectives: int) -> np.ndarray:
    """Evenly spread points of the unit cube, `float32 [count, objectives]`: multiples of powers of one irrational.

    Example:
        >>> bool(abs(points(1024, 3).mean() - 0.5) < 0.01)
        True
    """
    root = 2.0
    for _ in range(64):  # the fixed point of root^(objectives + 1) = root + 1
        root = (1 + root) ** (1 / (objectives + 1))
    steps = root ** -np.arange(1.0, objectives + 1)
    return np.asarray((0.5 + np.arange(1, count + 1)[:, None] * steps) % 1.0, np.float32)


def improvement(objectives: Array, front: Array, known: Array, box: Box) -> Array:
    """Signed improvement of candidates over the `known` rows of `front`. `[P, M], [A, M], bool [A] -> [P]`

    From -1 to 1. Values beyond the box count as those on its edge. Jittable.

    Example:
        >>> box = Box(jnp.zeros(16), jnp.ones(16))
        >>> front, known = jnp.asarray([[0.5, 0.5]]), jnp.ones(1, bool)
        >>> rows = jnp.asarray([[0.5, 0.5], [0.0, 0.5], [0.75, 0.75]])
        >>> [round(float(value), 1) for value in improvement(rows, front, known, box)]
        [0.0, 0.5, -0.2]
    """
    count = objectives.shape[1]
    low, high = box.low[:count], box.high[:count]
    extent = jnp.where(high > low, high - low, 1.0)
    cloud = jnp.asarray(points(POINTS, count))  # [S, M]

    def scaled(values: Array) -> Array:
        # where nothing is known yet the box is empty, and infinity less infinity is no number
        return jnp.nan_to_num(jnp.clip((values - low) / extent, 0.0, 1.0), nan=1.0)

    mine, theirs = scaled(objectives), scaled(front)
    taken = ((theirs[None] <= cloud[:, None]).all(axis=-1) & known[None]).any(axis=1)  # [S]
    ahead = (mine[:, None] <= cloud[None]).all(axis=-1) & ~taken[None]  # [P, S]
    behind = (cloud[None] < mine[:, None]).all(axis=-1) & taken[None]
    return jnp.float_power(ahead.mean(axis=1), 1 / count) - jnp.float_power(behind.mean(axis=1), 1 / count)


def directions(key: Key, count: int, objectives: int) -> Array:
    """Evenly spread directions, `float32 [count, objectives]`: not negative, each summing to 1; the key is consumed.

    Example:
        >>> directions(jax.random.key(0), 5, 2).shape
        (5, 2)
    """
    shift = jax.random.uniform(key, (objectives,))
    lengths = -jnp.log(jnp.maximum((points(count, objectives) + shift) % 1.0, 1e-6))
    return lengths / jnp.maximum(lengths.sum(axis=1, keepdims=True), 1e-6)


def along(direction: Array, objectives: Array, front: Array, known: Array, box: Box) -> Array:
    """How much farther out than the `known` front rows each candidate lies along its own direction. `[P, M] ... -> [P]`

    Distances are those of a box of edges 1. Jittable.

    Example:
        >>> box = Box(jnp.zeros(16), jnp.ones(16))
        >>> front, rows = jnp.asarray([[0.5, 0.5]]), jnp.asarray([[0.25, 0.25], [1.0, 0.0]])
        >>> [round(float(far), 2) for far in along(jnp.full((2, 2), 0.5), rows, front, jnp.ones(1, bool), box)]
        [0.35, -0.71]
    """
    count = objectives.shape[1]
    low, high = box.low[:count], box.high[:count]
    extent = jnp.where(high > low, high - low, 1.0)

    def reach(unit: Array, values: Array) -> Array:
        gain = jnp.nan_to_num(jnp.clip((high - values) / extent, 0.0, 1.0), nan=0.0)
        return (gain / jnp.maximum(unit, 1e-3)).min(axis=-1)

    unit = direction / jnp.maximum(jnp.linalg.norm(direction, axis=1, keepdims=True), 1e-6)
    best = jnp.where(known[None], reach(unit[:, None], front[None]), 0.0).max(axis=1)
    return reach(unit, objectives) - best
