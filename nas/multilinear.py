"""The multilinear extension of a function of genes: its expected value under gates, and the gradient of that.

    F(gates) = E f(g), every g_d drawn from gates[d];    dF / dgates[d, c] = E f(g with g_d := c)

F equals f at one-hot gates and is linear in the gates of each decision, so a search that descends F ends in networks.
The gradient is the expectation of f with one decision held, which a sample estimates without bias and, because all
other decisions are shared by the options that are compared, with little variance.

Shape letters: `D` decisions, `C` options, `C_d` those of decision `d`, `N` networks asked, `K` samples.

Source: Owen 1972, "Multilinear extensions of games", https://doi.org/10.1287/mnsc.18.5.64. The gradient is the
estimate "local expectation gradients" of Titsias & Lazaro-Gredilla 2015, https://arxiv.org/abs/1503.01494, section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np


def of_table(table: np.ndarray, gates: np.ndarray) -> tuple[float, np.ndarray]:
    """Exact value and gradient `[D, C]` of a table `[C_1, ..., C_D]` that holds every network.

    Two passes over the table; rows of `gates [D, C]` need not sum to 1.

    Example:
        >>> value, gradient = of_table(np.asarray([[1.0, 2.0], [3.0, 4.0]]), np.asarray([[0.5, 0.5], [1.0, 0.0]]))
        >>> value, gradient.tolist()
        (2.0, [[1.0, 3.0], [2.0, 3.0]])
    """
    given = np.asarray(gates, np.float64)
    shape = table.shape
    left = [np.asarray(table, np.float64).ravel()]  # what is left of the table once the first decisions are summed over
    for d, count in enumerate(shape):
        left.append(given[d, :count] @ left[d].reshape(count, -1))
    gradient = np.zeros(given.shape)
    weight = np.ones(1)  # of the entries of `left[d + 1]` in the value
    for d in reversed(range(len(shape))):
        count = shape[d]
        gradient[d, :count] = left[d].reshape(count, -1) @ weight
        weight = np.outer(given[d, :count], weight).ravel()
    return float(left[-1][0]), gradient


def sampled(
    judge: Callable[[np.ndarray], np.ndarray],
    gates: np.ndarray,
    cardinality: Sequence[int] | np.ndarray,
    draw: np.random.Generator,
    samples: int,
) -> tuple[float, np.ndarray]:
    """Unbiased estimates of value and gradient `[D, C]` from `samples` networks drawn from `gates [D, C]`.

    `judge` maps genes `[N, D]`, in range and not always canonical, to values `[N]`; it is asked once, for
    `samples * (1 + sum of C_d)` networks at most. At one-hot gates both are exact.

    Example:
        >>> hot = np.asarray([[0.0, 1.0], [1.0, 0.0]])
        >>> value, gradient = sampled(lambda g: 2.0 * g[:, 0] + g[:, 1], hot, [2, 2], np.random.default_rng(0), 1)
        >>> value, gradient.tolist()
        (2.0, [[0.0, 2.0], [2.0, 3.0]])
    """
    given, counts = np.asarray(gates, np.float64), np.asarray(cardinality)
    places = [(d, c) for d, count in enumerate(counts) for c in range(count)]
    decisions, options = (np.asarray(side) for side in zip(*places, strict=True))
    # by the inverse of the distribution; options without probability are never drawn, whatever rounding does
    edges = np.cumsum(given, axis=1)
    edges /= edges[:, -1:]
    chance = draw.random((samples, len(counts), 1))
    genes = (chance >= edges[None]).sum(-1).astype(np.int32)
    asked = np.repeat(genes, len(places), axis=0).reshape(samples, len(places), len(counts))
    asked[:, np.arange(len(places)), decisions] = options
    # many rows repeat: what a decision has drawn is among its options
    rows, back = np.unique(np.concatenate([genes, asked.reshape(-1, len(counts))]), axis=0, return_inverse=True)
    values = np.asarray(judge(rows), np.float64)[back.ravel()]
    gradient = np.zeros(given.shape)
    gradient[decisions, options] = values[samples:].reshape(samples, -1).mean(0)
    return float(values[:samples].mean()), gradient
