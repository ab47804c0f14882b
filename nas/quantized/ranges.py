"""Observers: the range of a value from batches of it, by which its codes are laid out.

`OBSERVERS[name]` has `start()`, a state; `seen(state, batch)`, the state after a float batch of any shape; and
`limits(state, bits)`, the range `(low, high)` to code with that many bits. States are plain values in numpy.

    min_max          the smallest and the largest value ever seen
    moving_average   of the smallest and the largest value of each batch
    percentile       all but one value in ten thousand, half of those at either end
    kl               the range whose codes keep most of the distribution (saturating calibration)

`kl` is for few bits. At 8 bits it may lose a point: what one constant region of all images makes of a channel is a
spike in one bin, codes of several bins spread it in the statistic, though not in the network, and the search clips
values to avoid that.

Zeros are left out of histograms: 0 has a code of its own in every range, and after a ReLU most values are 0.

Source: Liang et al. 2021 (survey of pruning and quantization), equations 11 and 40; Migacz 2017, "8-bit inference with
TensorRT", for the search of equation 11's smallest value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from hw_models.discover import unknown
from hw_models.errors import InputError

Range = tuple[float, float]
DECAY = 0.9
BINS = 2048  # on either side of 0
LEFT_OUT = 1e-4  # share of the values
LEAST_INSIDE = 0.99  # share of the values that saturating calibration keeps at least


class Observer(NamedTuple):
    """How a range is found; see the module."""

    start: Callable[[], Any]
    seen: Callable[[Any, np.ndarray], Any]
    limits: Callable[[Any, int], Range]


class Averages(NamedTuple):
    """Moving averages of the smallest and the largest value, and how many batches they have seen."""

    low: float = 0.0
    high: float = 0.0
    batches: int = 0


class Histogram(NamedTuple):
    """Counts `[2, BINS]` of values below and above 0 by their size, up to `limit`; and the range of all of them."""

    counts: np.ndarray
    limit: float
    low: float
    high: float


def observer(name: str) -> Observer:
    """The observer of that name.

    Raises:
        InputError: there is none.

    Example:
        >>> start, seen, limits = observer("min_max")
        >>> limits(seen(seen(start(), np.asarray([1.0, 2.0])), np.asarray([-1.0])), 8)
        (-1.0, 2.0)
    """
    if name not in OBSERVERS:
        raise unknown("observer", name, OBSERVERS)
    return OBSERVERS[name]


def moved(average: float, value: float, decay: float = DECAY) -> float:
    """The moving average after one more value: `(1 - decay) * value + decay * average`.

    Source: Liang et al. 2021, equation 40.

    Example:
        >>> round(moved(moved(moved(0.0, 10), 10), 20), 4)
        3.71
    """
    return (1 - decay) * value + decay * average


def divergence(p: np.ndarray, q: np.ndarray) -> float:
    """Kullback-Leibler divergence of `q` from `p` in nats, both `[n]` and normalised; infinite where `q` lacks values.

    Source: Liang et al. 2021, equation 11.

    Example:
        >>> round(divergence(np.asarray([0.5, 0.25, 0.25]), np.asarray([0.25, 0.25, 0.5])), 6)
        0.173287
    """
    some = p > 0
    if (q[some] <= 0).any():
        return float("inf")
    return float((p[some] * np.log(p[some] / q[some])).sum())


def _min_max_seen(state: Range, batch: np.ndarray) -> Range:
    return min(state[0], float(batch.min())), max(state[1], float(batch.max()))


def _average_seen(state: Averages, batch: np.ndarray) -> Averages:
    low, high = moved(state.low, float(batch.min())), moved(state.high, float(batch.max()))
    return Averages(low, high, state.batches + 1)


def _average_limits(state: Averages, bits: int) -> Range:
    # equation 40 starts at 0 and would clip a third of the range after ten batches
    share = max(1 - DECAY**state.batches, 1 - DECAY)
    return min(state.low / share, 0.0), max(state.high / share, 0.0)


def _empty() -> Histogram:
    return Histogram(np.zeros((2, BINS), np.int64), 0.0, 0.0, 0.0)


def _counted(state: Histogram, batch: np.ndarray) -> Histogram:
    """More values; the limit is doubled, and pairs of bins joined, until all of them fit."""
    x = batch.ravel()
    counts, limit, largest = state.counts, state.limit, float(np.abs(x).max())
    if not limit and largest:
        limit = 2.0 ** np.ceil(np.log2(largest))  # the same bins in whatever order values come
    while limit < largest:
        counts = np.concatenate([counts.reshape(2, -1, 2).sum(2), np.zeros((2, BINS // 2), np.int64)], axis=1)
        limit *= 2
    if limit:
        sides = [np.histogram(part, BINS, (0.0, limit))[0] for part in (-x[x < 0], x[x > 0])]
        counts = counts + np.stack(sides)
    return Histogram(counts, limit, min(state.low, float(x.min())), max(state.high, float(x.max())))


def _percentile(state: Histogram, bits: int) -> Range:
    """Outer edges of the bins that hold the outermost values to keep."""
    counts = np.concatenate([state.counts[0, ::-1], state.counts[1]])
    below, above = np.cumsum(counts), np.cumsum(counts[::-1])
    leave = counts.sum() * LEFT_OUT / 2
    edges = np.linspace(-state.limit, state.limit, 2 * BINS + 1)
    low = edges[np.searchsorted(below, leave, side="right")] if counts.any() else 0.0
    high = edges[2 * BINS - np.searchsorted(above, leave, side="right")] if counts.any() else 0.0
    return max(min(float(low), 0.0), state.low), min(max(float(high), 0.0), state.high)


def _least_divergence(state: Histogram, bits: int) -> Range:
    """The threshold on sizes whose codes are closest to the values, beyond which values saturate.

    As published, the search begins where there are as many bins as codes, and takes for granted that values reach down
    to 0. Where the smallest size is further out (gates of a hard sigmoid), a threshold in its bin makes both
    distributions that one bin: they are the same, and all values would saturate. Hence a least share inside.
    """
    sizes = state.counts.sum(0)
    levels = 2 ** (bits - 1 if state.low < 0 < state.high else bits)
    if not sizes.any() or levels >= BINS:
        return state.low, state.high
    first = max(levels, int(np.searchsorted(np.cumsum(sizes), LEAST_INSIDE * sizes.sum())) + 1)
    candidates = [*range(first, BINS, max(1, BINS // 512)), BINS]
    scores = [divergence(*_pair(sizes, bins, levels)) for bins in candidates]
    best = len(scores) - 1 - int(np.argmin(scores[::-1]))  # of equal ones the widest
    threshold = state.limit * candidates[best] / BINS
    return max(state.low, -threshold), min(state.high, threshold)


def _pair(sizes: np.ndarray, bins: int, levels: int) -> tuple[np.ndarray, np.ndarray]:
    """The distribution saturated after `bins` bins, and that of its codes spread over the bins that are not empty.

    What saturates where no code has a value counts as half a value there, so that thin tails have a divergence at all.
    """
    inside = sizes[:bins].astype(np.float64)
    p = inside.copy()
    p[-1] += sizes[bins:].sum()
    level = np.arange(bins) * levels // bins
    some = inside > 0
    total, used = np.bincount(level, inside, levels), np.bincount(level, some, levels)
    q = np.where(some, total[level] / np.maximum(used[level], 1), np.where(p > 0, 0.5, 0.0))
    return p / p.sum(), q / q.sum()


def checked(name: str, limits: Range) -> Range:
    """`limits` if they are numbers.

    Raises:
        InputError: they are not; `name` says of what.

    Example:
        >>> checked("stem", (0.0, 6.0))
        (0.0, 6.0)
    """
    if not np.isfinite(limits).all():
        raise InputError(f"{name}: values from {limits[0]} to {limits[1]} have no range: train the network again")
    return limits


OBSERVERS: dict[str, Observer] = {
    "min_max": Observer(lambda: (0.0, 0.0), _min_max_seen, lambda state, bits: state),
    "moving_average": Observer(Averages, _average_seen, _average_limits),
    "percentile": Observer(_empty, _counted, _percentile),
    "kl": Observer(_empty, _counted, _least_divergence),
}
