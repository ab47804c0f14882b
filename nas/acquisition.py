"""How much a network that is not evaluated yet would add to what is known.

Costs are known before anything is trained, so only the error is uncertain: the expected improvement is a mean over
equally likely errors.

Shape letters: `Q` networks asked about, `N` networks known, `M` objectives, `E` equally likely errors.

References: Emmerich et al. 2006, https://doi.org/10.1109/TEVC.2005.859463 (expected hypervolume improvement).
Jones et al. 1998, https://doi.org/10.1023/A:1008306431147 (expected improvement).
"""

from __future__ import annotations

import math
from statistics import NormalDist

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nas.improvement import POINTS, points

QUANTILES = np.asarray([NormalDist().inv_cdf((i + 0.5) / 8) for i in range(8)], np.float32)
MARGIN = 0.1  # the reference lies beyond the worst of the front by this share of its extent


def gain(objectives: Array, front: Array, usable: Array) -> Array:
    """Hypervolume that each of `objectives [Q, M]` adds to `front [N, M]` alone, in units of the front's box. `[Q]`

    Only `usable` rows of the front count; the reference lies a tenth beyond its worst values. One objective: by how
    much the best is improved. Two: exact. More: by a fixed set of points in the box. Jittable.

    Example:
        >>> front = jnp.asarray([[0.0, 1.0], [1.0, 0.0]])
        >>> gain(jnp.asarray([[0.5, 0.5], [2.0, 2.0]]), front, jnp.ones(2, bool)).round(2).tolist()
        [0.25, 0.0]
    """
    width = front.shape[1]
    low = jnp.where(usable[:, None], front, jnp.inf).min(0)
    high = jnp.where(usable[:, None], front, -jnp.inf).max(0)
    extent = jnp.where(high > low, high - low, jnp.maximum(jnp.abs(low), 1e-6))
    known = jnp.where(usable[:, None], (front - low) / extent, 1.0 + MARGIN)
    asked = (objectives - low) / extent
    if width == 1:
        return jnp.maximum(-asked[:, 0], 0.0)
    return _area(asked, known) if width == 2 else _share(asked, known)


def _area(asked: Array, known: Array) -> Array:
    corner = 1.0 + MARGIN
    order = jnp.argsort(known[:, 0])
    first = jnp.concatenate([jnp.full(1, -jnp.inf), known[order, 0], jnp.full(1, corner)])
    # the lowest second objective among the rows up to here: the height of the staircase
    height = jnp.concatenate([jnp.full(1, corner), jax.lax.cummin(jnp.minimum(known[order, 1], corner))])
    begin = jnp.clip(first[:-1][None], asked[:, :1], corner)
    end = jnp.clip(first[1:][None], asked[:, :1], corner)
    return ((end - begin) * jnp.maximum(height[None] - asked[:, 1:], 0.0)).sum(1)


def _share(asked: Array, known: Array) -> Array:
    width = known.shape[1]
    corner = 1.0 + MARGIN
    box = jnp.asarray(points(POINTS, width)) * (corner + MARGIN) - MARGIN  # [S, M], also below the best known
    free = ~(known[:, None] <= box[None]).all(-1).any(0)  # [S]

    def one(point: Array) -> Array:
        return ((point[None] <= box).all(-1) & free).mean()

    share = jax.lax.map(one, asked, batch_size=256)
    # between points of the box: how far a network lies below the nearest of the known ones in its worst objective
    below = -(jax.lax.map(lambda point: (point[None] - known).max(-1).min(), asked, batch_size=256))
    return share * (corner + MARGIN) ** width + 1e-3 * jnp.clip(below, -1.0, 1.0) / POINTS


def likely_errors(mean: Array, deviation: Array, logarithmic: Array) -> Array:
    """Equally likely errors given a prediction, in logarithms where `logarithmic []`. `[Q], [Q] -> [E, Q]`

    Example:
        >>> likely_errors(jnp.zeros(1), jnp.ones(1), jnp.asarray(False)).shape
        (8, 1)
    """
    values = mean[None] + jnp.asarray(QUANTILES)[:, None] * deviation[None]
    return jnp.where(logarithmic, jnp.exp(jnp.minimum(values, math.log(1e6))), values)
