"""Times of layers and blocks between measured ones: rows that differ in sizes only, scaled.

The rule. Rows of one structure (operations, kernels, strides, formats) differ in three sizes: multiply-accumulates,
numbers moved (inputs and outputs of all layers), weights. The logarithm of the time is taken as linear in theirs; its
slopes are not negative and the same for all structures of a table, found by least squares around the mean of each
structure. The estimate is the mean of the `NEIGHBOURS` nearest rows of the structure, each scaled along the slopes,
weighted by the inverse square of the distance. A block none of whose sizes lies within `REACH` times those of a row is
not estimated.

Few rows say little of the slopes, so these lean a little to a third each (`PRIOR`). `left_out` estimates every row from
the others, which tells what to expect of a table; `python scripts/benchmark.py tables` prints it for those shipped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hw_models.workload import Layer, Op

NEIGHBOURS = 3
REACH = 8.0  # beyond, single estimates of shipped rows were wrong by a factor of four
PRIOR = 0.02  # what the leaning counts for, as a share of the rows
SOFTENING = 0.05  # log distance below which neighbours count alike


class Fit(NamedTuple):
    """What a table knows between its rows: log sizes `[N, 3]` and log times `[N]` per structure, and slopes `[3]`."""

    rows: Mapping[Any, tuple[np.ndarray, np.ndarray]]
    slopes: np.ndarray


def structure(layers: Sequence[Layer]) -> tuple[Any, ...]:
    """What blocks must have in common to be compared: all but sizes.

    Example:
        >>> small, large = Layer(Op.CONV, 8, 8, 8, 8, 4, 4), Layer(Op.CONV, 16, 16, 16, 16, 8, 8)
        >>> structure([small]) == structure([large]), structure([small]) == structure([small._replace(stride=2)])
        (True, False)
    """
    return tuple(
        (
            layer.op,
            layer.kernel_h,
            layer.kernel_w,
            layer.stride,
            layer.groups if layer.op != Op.DEPTHWISE else layer.out_channels // layer.in_channels,
            layer.weight_dtype,
            layer.weight_bits,
            layer.act_dtype,
            layer.act_bits,
            layer.pattern,
            layer.density,
        )
        for layer in layers
    )


def log_sizes(layers: Sequence[Layer]) -> np.ndarray:
    """Logarithms of multiply-accumulates, numbers moved and weights, at least 1 each. `[3]`

    Example:
        >>> np.exp(log_sizes([Layer(Op.CONV, 8, 8, 8, 8, 4, 4)])).round().astype(int).tolist()
        [1024, 512, 16]
    """
    moved = sum(layer.input_elements + layer.output_elements for layer in layers)
    sizes = (sum(layer.macs for layer in layers), moved, sum(layer.weights for layer in layers))
    return np.log(np.maximum(sizes, 1.0))


def fit(measured: Sequence[tuple[Sequence[Layer], float]]) -> Fit:
    """Learn from blocks and their times (above 0).

    Example:
        >>> block = lambda hw: [Layer(Op.CONV, hw, hw, hw, hw, 4, 4)]
        >>> model = fit([(block(hw), 1e-6 * hw**2) for hw in (8, 16, 32)])
        >>> round(estimate(model, block(20)) * 1e6)
        400
    """
    rows: dict[Any, tuple[list[np.ndarray], list[float]]] = {}
    for layers, seconds in measured:
        sizes, times = rows.setdefault(structure(layers), ([], []))
        sizes.append(log_sizes(layers))
        times.append(float(np.log(seconds)))
    stacked = {key: (np.stack(sizes), np.asarray(times)) for key, (sizes, times) in rows.items()}
    return Fit(stacked, _slopes(list(stacked.values())))


def left_out(measured: Sequence[tuple[Sequence[Layer], float]]) -> list[float | None]:
    """Every block's time as estimated from the others; None where they are not near enough.

    Example:
        >>> rows = [([Layer(Op.CONV, hw, hw, hw, hw, 4, 4)], 1e-6 * hw**2) for hw in (8, 16, 32)]
        >>> [round(seconds * 1e5) for seconds in left_out(rows)]
        [6, 26, 101]
    """
    return [estimate(fit([*measured[:i], *measured[i + 1 :]]), layers) for i, (layers, _) in enumerate(measured)]


def _slopes(groups: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    from scipy.optimize import nnls  # comes with jax

    third = np.full(3, 1 / 3)
    if not groups:
        return third
    sizes = np.concatenate([sizes - sizes.mean(axis=0) for sizes, _ in groups])
    times = np.concatenate([times - times.mean() for _, times in groups])
    lean = np.sqrt(PRIOR * len(times)) * np.eye(3)
    return nnls(np.concatenate([sizes, lean]), np.concatenate([times, lean @ third]))[0]


def estimate(model: Fit, layers: Sequence[Layer]) -> float | None:
    """The time of a block in the unit of the rows, None where no row is near enough. See the rule above.

    Example:
        >>> model = fit([([Layer(Op.CONV, 8, 8, 8, 8, 4, 4)], 1.0)])
        >>> estimate(model, [Layer(Op.CONV, 99, 99, 99, 99, 4, 4)]) is None
        True
    """
    found = model.rows.get(structure(layers))
    if found is None:
        return None
    sizes, times = found
    away = log_sizes(layers) - sizes  # [N, 3]
    near = np.abs(away).max(axis=1) <= np.log(REACH)
    if not near.any():
        return None
    away, times = away[near], times[near]
    distance = np.linalg.norm(away, axis=1)
    nearest = np.argsort(distance, kind="stable")[:NEIGHBOURS]
    weight = 1 / (distance[nearest] + SOFTENING) ** 2
    return float(np.exp(weight @ (times[nearest] + away[nearest] @ model.slopes) / weight.sum()))
