"""Which candidates are better when there are several objectives. Dominance is defined here and nowhere else.

Two halves. *Jitted*, for strategies: `ranks`, `crowding`, `best_of`, for up to a few thousand rows. *On the host*, for
reports: `non_dominated`, `hypervolume`, `epsilon_indicator`, `knee`, and of several searches `merged_front` and
`attainment` (exact algorithms of moocore).

Everything is minimised. **Not-a-number policy**: a row with NaN in any objective, or NaN in its violation, is as bad
as a row can be. The jitted half gives it an infinite violation, so it ranks last and never displaces a finite row; the
host half leaves it out (never non-dominated, no hypervolume, never the knee), and infinite rows likewise.

Shape letters: `N` rows (candidates of any origin), `M` objectives.

References: Deb et al. 2002, "A fast and elitist multiobjective genetic algorithm: NSGA-II",
https://doi.org/10.1109/4235.996017 (non-dominated ranks, crowding distance, constraint domination). Zitzler et al.
2003, "Performance assessment of multiobjective optimizers", https://doi.org/10.1109/TEVC.2003.810758 (epsilon
indicator). Grunert da Fonseca et al. 2001, https://doi.org/10.1007/3-540-44719-9_15 (attainment over several searches).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from hw_models.errors import InputError

_WORD = 32  # dominance is kept as one bit per pair: 8,192 rows need 8 MB


def _as_violation(objectives: Array, violation: Array) -> Array:
    broken = jnp.isnan(violation) | jnp.isnan(objectives).any(axis=1)
    return jnp.where(broken, jnp.inf, jnp.maximum(violation, 0.0)).astype(jnp.float32)


def _dominance_bits(objectives: Array, feasible: Array) -> Array:
    """Bit `j` of row `i` says that feasible row `j` dominates row `i`. `uint32 [N, ceil(N / 32)]`"""
    rows, count = objectives.shape
    words = -(-rows // _WORD)
    padding = words * _WORD - rows
    other = jnp.pad(objectives, ((0, padding), (0, 0))).reshape(words, _WORD, count)
    alive = jnp.pad(feasible, (0, padding)).reshape(words, _WORD)
    no_worse = jnp.broadcast_to(alive[None], (rows, words, _WORD))
    better = jnp.zeros((rows, words, _WORD), bool)
    for m in range(count):
        mine, theirs = objectives[:, m][:, None, None], other[:, :, m][None]
        no_worse &= theirs <= mine
        better |= theirs < mine
    bits = jnp.uint32(1) << jnp.arange(_WORD, dtype=jnp.uint32)
    return jnp.where(no_worse & better, bits, jnp.uint32(0)).sum(axis=-1, dtype=jnp.uint32)


def _pack(flags: Array) -> Array:
    words = -(-flags.shape[0] // _WORD)
    padded = jnp.pad(flags, (0, words * _WORD - flags.shape[0])).reshape(words, _WORD)
    return jnp.where(padded, jnp.uint32(1) << jnp.arange(_WORD, dtype=jnp.uint32), 0).sum(axis=-1, dtype=jnp.uint32)


def ranks(objectives: Array, violation: Array) -> Array:
    """Rank of every row under constraint domination: 0 is the front. `[N, M], [N] -> int32 [N]`

    A feasible row (violation 0) comes before an infeasible one, less violation before more; feasible rows are peeled
    front by front. Equal violations share a rank. Jittable.

    Example:
        >>> ranks(jnp.asarray([[1.0, 2.0], [2.0, 1.0], [2.0, 2.0], [0.0, 0.0]]), jnp.asarray([0.0, 0, 0, 0.5])).tolist()
        [0, 0, 1, 2]
    """
    objectives = jnp.asarray(objectives, jnp.float32)
    violation = _as_violation(objectives, jnp.asarray(violation, jnp.float32))
    feasible = violation == 0
    if objectives.shape[1] == 1:  # one objective needs no peeling, which would take as many rounds as values
        rank = _places(jnp.where(feasible, objectives[:, 0], -jnp.inf), feasible)
        fronts = jnp.where(feasible, rank + 1, 0).max()
    else:
        rank, fronts = _peeled(objectives, feasible)
    return jnp.where(feasible, rank, fronts + _places(violation, ~feasible))


def _peeled(objectives: Array, feasible: Array) -> tuple[Array, Array]:
    """Ranks of the feasible rows, front by front, int32 `[N]`, and how many fronts there are."""
    dominators = _dominance_bits(objectives, feasible)

    def peel(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        rank, left, front = carry
        beaten = ((dominators & _pack(left)[None]) != 0).any(axis=1)
        taken = left & ~beaten
        return jnp.where(taken, front, rank), left & ~taken, front + 1

    start = (jnp.zeros(feasible.shape, jnp.int32), feasible, jnp.int32(0))
    rank, _, fronts = jax.lax.while_loop(lambda carry: carry[1].any(), peel, start)
    return rank, fronts


def _places(values: Array, among: Array) -> Array:
    """How many smaller values there are `among` the rows, equal ones counted once. `[N], bool [N] -> int32 [N]`"""
    order = jnp.lexsort((values, ~among))
    sorted_values = values[order]
    # compared and not subtracted: inf - inf is NaN
    steps = jnp.concatenate([jnp.zeros(1, bool), sorted_values[1:] > sorted_values[:-1]])
    return jnp.zeros(values.shape, jnp.int32).at[order].set(jnp.cumsum(steps.astype(jnp.int32)))


def crowding(objectives: Array, rank: Array) -> Array:
    """Crowding distance of every row within its rank: larger is lonelier. `[N, M], [N] -> float32 [N]`

    The two ends of a front in any objective get `+inf`; gaps are divided by the extent of the front in that objective.
    Rows with a non-finite objective get 0. Jittable.

    Example:
        >>> crowding(jnp.asarray([[0.0, 4.0], [1.0, 1.0], [4.0, 0.0]]), jnp.zeros(3, jnp.int32)).tolist()
        [inf, 2.0, inf]
    """
    objectives = jnp.asarray(objectives, jnp.float32)
    rows = objectives.shape[0]
    finite = jnp.isfinite(objectives).all(axis=1)
    values = jnp.where(finite[:, None], objectives, 0.0)
    group = jnp.where(finite, rank, jnp.iinfo(jnp.int32).max)

    def one(column: Array) -> Array:
        order = jnp.lexsort((column, group))
        value, front = column[order], group[order]
        edge = jnp.ones((1,), bool)
        first = jnp.concatenate([edge, front[1:] != front[:-1]])
        last = jnp.concatenate([front[1:] != front[:-1], edge])
        place = jnp.arange(rows)
        start = jax.lax.cummax(jnp.where(first, place, 0))
        end = jax.lax.cummin(jnp.where(last, place, rows - 1), reverse=True)
        extent = value[end] - value[start]
        gap = jnp.roll(value, -1) - jnp.roll(value, 1)
        inner = jnp.where(extent > 0, gap / jnp.where(extent > 0, extent, 1.0), 0.0)
        return jnp.zeros(rows, jnp.float32).at[order].set(jnp.where(first | last, jnp.inf, inner))

    total = sum((one(values[:, m]) for m in range(objectives.shape[1])), jnp.zeros(rows, jnp.float32))
    return jnp.where(finite, total, 0.0)


def best_of(objectives: Array, violation: Array, usable: Array, count: int) -> tuple[Array, Array, Array]:
    """The `count` best rows by rank, then by crowding. `[N, M], [N], bool [N] -> int32 [count], int32 [N], float32 [N]`

    Returns the chosen rows in order, and rank and crowding of all rows. Rows that are not `usable` come last. Jittable.

    Example:
        >>> rows, rank, _ = best_of(jnp.asarray([[3.0], [1.0], [2.0]]), jnp.zeros(3), jnp.ones(3, bool), 2)
        >>> rows.tolist(), rank.tolist()
        ([1, 2], [2, 0, 1])
    """
    violation = jnp.where(usable, violation, jnp.inf)
    rank = ranks(objectives, violation)
    feasible = (violation == 0)[:, None]
    distance = crowding(jnp.where(feasible, objectives, jnp.inf), rank)
    order = jnp.lexsort((-distance, rank, ~usable))
    return order[:count], rank, distance


def _finite(points: Any) -> tuple[np.ndarray, np.ndarray]:
    table = np.asarray(points, np.float64)
    if table.ndim != 2:
        raise InputError(f"points of shape {table.shape} are not a table: give one row per candidate")
    return table, np.asarray(np.isfinite(table).all(axis=1))


def non_dominated(points: Any) -> np.ndarray:
    """Which rows no other row dominates. `[N, M] -> bool [N]`; equal rows all count, non-finite rows never do.

    Example:
        >>> non_dominated([[1.0, 2.0], [2.0, 1.0], [2.0, 2.0], [float("nan"), 0.0]]).tolist()
        [True, True, False, False]
    """
    table, finite = _finite(points)
    mask = np.zeros(len(table), bool)
    if not finite.any():
        return mask
    if table.shape[1] == 1:
        mask[finite] = table[finite, 0] == table[finite, 0].min()
        return mask
    import moocore

    mask[finite] = moocore.is_nondominated(table[finite], keep_weakly=True)
    return mask


def hypervolume(points: Any, reference: Any) -> float:
    """Volume that the rows dominate below `reference`, in the product of the objectives' units. `[N, M], [M] -> float`

    Rows that are not finite or not below the reference add nothing.

    Raises:
        InputError: the reference has another length than the rows, or is not finite.

    Example:
        >>> hypervolume([[1.0, 2.0], [2.0, 1.0]], [3.0, 3.0])
        3.0
    """
    table, finite = _finite(points)
    corner = np.asarray(reference, np.float64)
    if corner.shape != table.shape[1:] or not np.isfinite(corner).all():
        raise InputError(f"reference {corner.tolist()} does not fit: give {table.shape[1]} finite numbers")
    inside = table[finite & (table < corner).all(axis=1)]
    if not len(inside):
        return 0.0
    if table.shape[1] == 1:
        return float(corner[0] - inside.min())
    import moocore

    return float(moocore.hypervolume(inside, ref=corner))


def epsilon_indicator(points: Any, front: Any) -> float:
    """How far `points` are behind `front` where they are farthest behind. `[N, M], [F, M] -> float`

    The least amount by which every objective of `points` has to fall so that some row is at least as good as each row
    of `front` (the additive indicator), in shares of the front's extent in that objective, so that units do not count;
    where the front has no extent, in units of the objective. 0 for the front itself, below 0 for what lies ahead of it
    everywhere, `+inf` without a finite point.

    Raises:
        InputError: no finite row in `front`, or another number of objectives.

    Example:
        >>> epsilon_indicator([[0.0, 10.0], [5.0, 0.0]], [[0.0, 10.0], [2.5, 5.0], [10.0, 0.0]])
        0.25
    """
    table, finite = _finite(points)
    wanted, known = _finite(front)
    wanted = wanted[known]
    if not len(wanted):
        raise InputError("there is nothing to compare with: the front has no row with finite objectives")
    if table.shape[1] != wanted.shape[1]:
        raise InputError(f"points of {table.shape[1]} objectives do not go with a front of {wanted.shape[1]}")
    if not finite.any():
        return float("inf")
    import moocore

    extent = np.ptp(wanted[non_dominated(wanted)], axis=0)
    scale = np.where(extent > 0, extent, 1.0)
    return float(moocore.epsilon_additive(table[finite] / scale, ref=wanted / scale))


def merged_front(tables: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """The front of several searches together, and which search each row comes from. `[N, M] each -> [F, M], int [F]`

    Rows are sorted by the first objective; of equal ones the first search's is kept.

    Raises:
        InputError: no search, or searches with different numbers of objectives.

    Example:
        >>> points, search = merged_front([[[1.0, 3.0], [2.0, 2.0]], [[1.0, 3.0], [3.0, 0.5], [2.0, 4.0]]])
        >>> points.tolist(), search.tolist()
        ([[1.0, 3.0], [2.0, 2.0], [3.0, 0.5]], [0, 0, 1])
    """
    parts = _several(tables)
    points, origin = np.concatenate(parts), np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    keep = non_dominated(points)
    points, first = np.unique(points[keep], axis=0, return_index=True)
    return points, origin[keep][first]


def attainment(tables: Sequence[Any], share: float = 0.5) -> np.ndarray:
    """The surface that at least `share` of several searches reach or better. `[N, M] each -> [F, M]`, 2 or 3 objectives

    The median (0.5) is what a search can be expected to reach; 1 is what all of them did. Rows are sorted by the first
    objective; there are none where fewer searches than that found anything.

    Raises:
        InputError: a share outside 0 to 1, no search, or other than 2 or 3 objectives.

    Example:
        >>> attainment([[[1.0, 2.0]], [[2.0, 1.0]], [[2.0, 2.0]]], share=1).tolist()
        [[2.0, 2.0]]
    """
    parts = _several(tables)
    if not 0 < share <= 1:
        raise InputError(f"share={share!r} is not allowed: give a number above 0, at most 1")
    if parts[0].shape[1] not in (2, 3):
        raise InputError(f"attainment is for 2 or 3 objectives, not {parts[0].shape[1]}: choose among them")
    parts = [part[np.isfinite(part).all(axis=1)] for part in parts]
    found = [part for part in parts if len(part)]
    needed = math.ceil(share * len(parts) - 1e-9)
    if needed > len(found):
        return np.empty((0, parts[0].shape[1]))
    import moocore

    sets = np.repeat(np.arange(len(found)), [len(part) for part in found])
    surface = moocore.eaf(np.concatenate(found), sets, percentiles=[100 * needed / len(found)])
    return np.unique(surface[:, :-1], axis=0)


def _several(tables: Sequence[Any]) -> list[np.ndarray]:
    parts = [_finite(table)[0] for table in tables]
    if not parts:
        raise InputError("there is no search: give at least one table of points")
    if len({part.shape[1] for part in parts}) > 1:
        counts = ", ".join(str(part.shape[1]) for part in parts)
        raise InputError(f"searches of {counts} objectives do not go together: give the same objectives of each")
    return parts


def knee(points: Any) -> int:
    """Row of the best compromise: where giving up a little of one objective buys most of another. `[N, M] -> int`

    The front is scaled to 0..1 per objective. The knee is the row farthest below the plane through the front's ends
    (for two objectives, the line between them). Where no row lies below it (a concave front), the row nearest to the
    utopia point, best in every objective at once, is taken. The first of equals wins.

    Raises:
        InputError: no finite row.

    Example:
        >>> knee([[0.0, 10.0], [1.0, 1.0], [10.0, 0.0], [9.0, 9.0]])
        1
    """
    table, _ = _finite(points)
    rows = np.flatnonzero(non_dominated(table))
    if not len(rows):
        raise InputError("there is no knee: no candidate has finite objectives")
    front = table[rows]
    extent = np.ptp(front, axis=0)
    scaled = (front - front.min(axis=0)) / np.where(extent > 0, extent, 1.0)
    depth = 1.0 - scaled.sum(axis=1)
    if (extent > 0).sum() > 1 and depth.max() > 1e-9:
        return int(rows[np.argmax(depth)])
    return int(rows[np.argmin(np.linalg.norm(scaled, axis=1))])
