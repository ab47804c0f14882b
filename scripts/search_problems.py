"""A search problem of 45 genes in plain NumPy, and what is asked of searches with two objectives.

Nothing here needs JAX or this project, so that other packages evaluate the problem in environments of their own.

`genes45`: five stages of two to four inverted residuals, each of kernel 3, 5 or 7 and expansion 3, 4 or 6. Latency adds
up a table of blocks, the error falls with the worth of the blocks and with how pairs of them go together. Genes are the
five depths, twenty kernels and twenty expansions; those of blocks beyond the depth of their stage change nothing.

Shape letters: `P` candidates, `D` decisions, `M` objectives, `N` points in the order in which they were evaluated.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

STAGES, LAYERS = 5, 4
BLOCKS = STAGES * LAYERS
DECISIONS = STAGES + 2 * BLOCKS
OPTIONS = 3
KERNELS, EXPANSIONS = (3, 5, 7), (3, 4, 6)
WIDTHS = (16, 24, 40, 80, 112, 160)  # into the first stage, then out of every stage
SIZES, STRIDES = (112, 56, 28, 14, 14), (2, 2, 2, 1, 2)
MACS_PER_MS, BYTES_PER_MS = 20e6, 8e6
OVERHEAD_MS, BASE_MS = 0.02, 1.5
STEEPNESS, TOGETHER, LEAST_WORTH = 0.22, 0.25, 0.01
REFERENCE = (40.0, 100.0)  # milliseconds, error in percent


def _latency_table() -> np.ndarray:
    """Milliseconds of every block, `[BLOCKS, kernel, expansion]`."""
    table = np.zeros((BLOCKS, OPTIONS, OPTIONS))
    for block in range(BLOCKS):
        stage, layer = divmod(block, LAYERS)
        width, out, after = WIDTHS[stage + (layer > 0)], WIDTHS[stage + 1], SIZES[stage] // STRIDES[stage]
        before = after if layer else SIZES[stage]
        for k, kernel in enumerate(KERNELS):
            for e, expansion in enumerate(EXPANSIONS):
                inner = width * expansion
                macs = width * inner * before**2 + inner * kernel**2 * after**2 + inner * out * after**2
                moved = 4 * ((width + inner) * before**2 + (2 * inner + out) * after**2)
                table[block, k, e] = max(macs / MACS_PER_MS, moved / BYTES_PER_MS) + OVERHEAD_MS
    return table


def _worth_tables() -> tuple[np.ndarray, np.ndarray]:
    """Worth of every block, growing with kernel and expansion, and of pairs of blocks `[BLOCKS, BLOCKS]`."""
    rng = np.random.RandomState(7)
    worth = rng.gamma(2.0, 1.0, (BLOCKS, OPTIONS, OPTIONS)).cumsum(1).cumsum(2)
    return worth / worth.max(), np.triu(rng.normal(0, 0.15, (BLOCKS, BLOCKS)), 1)


LATENCY_MS = _latency_table()
WORTH, PAIRS = _worth_tables()


def evaluate(genes: np.ndarray | Sequence[Sequence[int]]) -> np.ndarray:
    """Latency in milliseconds and error in percent. `[P, D] -> float64 [P, 2]`

    Example:
        >>> evaluate(np.zeros((1, 45))).round(2).tolist()
        [[6.73, 81.13]]
    """
    genes = np.asarray(genes, int)
    depths, kernels, expansions = np.split(genes, [STAGES, STAGES + BLOCKS], axis=1)
    used = (np.arange(LAYERS) < depths[:, :, None] + 2).reshape(len(genes), BLOCKS)
    block = np.arange(BLOCKS)
    latency = (LATENCY_MS[block, kernels, expansions] * used).sum(1) + BASE_MS
    worth = WORTH[block, kernels, expansions] * used
    total = worth.sum(1) + TOGETHER * ((worth @ PAIRS) * worth).sum(1)
    return np.stack([latency, 100 * np.exp(-STEEPNESS * np.maximum(total, LEAST_WORTH))], axis=1)


def hypervolume(points: np.ndarray, reference: Sequence[float]) -> float:
    """Area that points dominate below the reference, both objectives minimised. `[N, 2] -> float`

    Example:
        >>> hypervolume(np.array([[1.0, 2.0], [2.0, 1.0], [2.0, 2.0], [9.0, 0.0]]), (3.0, 3.0))
        3.0
    """
    points = np.asarray(points, float)
    points = points[(points < np.asarray(reference)).all(1)]
    points = points[np.lexsort((points[:, 1], points[:, 0]))]
    # every point adds what lies below the best second objective of those before it
    lowest = np.minimum.accumulate(np.concatenate([[reference[1]], points[:, 1]]))
    return float(((reference[0] - points[:, 0]) * (lowest[:-1] - lowest[1:])).sum())


def curve(points: np.ndarray, reference: Sequence[float], counts: Sequence[int]) -> list[float]:
    """Hypervolume of the first so many points, for every count. `[N, 2], [C] -> [C]`"""
    return [hypervolume(points[:count], reference) for count in counts]


def front(points: np.ndarray) -> np.ndarray:
    """The points that no other one dominates, once each, by the first objective. `[N, 2] -> [F, 2]`

    Example:
        >>> front(np.array([[2.0, 1.0], [1.0, 2.0], [2.0, 2.0], [1.0, 2.0]])).tolist()
        [[1.0, 2.0], [2.0, 1.0]]
    """
    points = np.unique(np.asarray(points, float), axis=0)  # sorted by the first objective, then by the second
    before = np.minimum.accumulate(np.concatenate([[np.inf], points[:, 1]]))[:-1]
    return points[points[:, 1] < before]
