"""Batch normalisation followed by a sign, folded into one comparison of an integer accumulator.

    sign(gamma * (step * sum - mean) / sqrt(variance + epsilon) + beta) = +1 where sum >= threshold, else -1

and the opposite where `flipped`, as gamma is negative. The sign of 0 is +1. Normalisation in floating point rounds, so
a threshold solved for on paper may be one off; since every rounding is monotone in the sum, the one place where the
sign changes is found by bisection of that very computation instead, and the outputs agree bit by bit. A gamma of 0 has
the sign of beta everywhere.

Shapes: parameters `[C]`, accumulators `[..., C]`, signs int8.

Sources: Schindler, dissertation (Heidelberg 2021), section 4.2 (folding makes hidden layers of a binary network twice
as fast); Umuroglu et al. 2017, "FINN", https://arxiv.org/abs/1612.07119.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from hw_models.errors import InputError
from search_spaces.arithmetic.accumulators import accumulator_range


class Thresholds(NamedTuple):
    """Per channel: the least accumulator past the change of sign, int32 `[C]`, and whether +1 lies before it, bool."""

    threshold: Array
    flipped: Array


class BatchNorm(NamedTuple):
    """Scale `gamma`, shift `beta`, and statistics of a batch normalisation at inference, `[C]` each; `epsilon`."""

    gamma: Any
    beta: Any
    mean: Any
    variance: Any
    epsilon: float = 1e-5


def batch_norm_sign(accumulators: Any, norm: BatchNorm, step: Any = 1.0) -> np.ndarray:
    """-1 or +1 for accumulators of `step` units each, normalised in float32, one rounding an operation; 0 gives +1.

    Example:
        >>> norm = BatchNorm(gamma=[2.0, -2.0], beta=[0.0, 0.0], mean=[3.0, 3.0], variance=[4.0, 4.0])
        >>> batch_norm_sign([[2, 2], [3, 3], [4, 4]], norm).tolist()
        [[-1, 1], [1, 1], [1, -1]]
    """
    return np.where(_normalised(accumulators, norm, step) >= 0, 1, -1).astype(np.int8)


def _normalised(accumulators: Any, norm: BatchNorm, step: Any) -> np.ndarray:
    gamma, beta, mean, variance = (np.asarray(value, np.float32) for value in norm[:4])
    centred = np.asarray(accumulators).astype(np.float32) * np.asarray(step, np.float32) - mean
    return gamma * (centred / np.sqrt(variance + np.float32(norm.epsilon))) + beta


def fold(signs: Callable[[np.ndarray], Any], channels: int, accumulator_bits: int = 32) -> Thresholds:
    """Thresholds that agree with `signs` on every accumulator of `accumulator_bits`, whatever it computes.

    `signs` maps accumulators int32 `[C]` to -1 and +1 `[C]` and changes at most once along each channel. It is called
    about `accumulator_bits` times; a compiled layer may be given, and its roundings are kept.

    Example:
        >>> fold(lambda sums: np.where(sums >= np.asarray([5, -7]), 1, -1), 2)
        Thresholds(threshold=Array([ 5, -7], dtype=int32), flipped=Array([False, False], dtype=bool))
    """
    least, largest = accumulator_range(accumulator_bits)
    low, high = np.full(channels, least, np.int64), np.full(channels, largest, np.int64)

    def positive(sums: np.ndarray) -> np.ndarray:
        return np.asarray(signs(sums.astype(np.int32))) > 0

    first, last = positive(low), positive(high)
    while (high - low > 1).any():
        middle = (low + high) // 2
        before = positive(middle) == first
        low, high = np.where(before, middle, low), np.where(before, high, middle)
    # Where the sign never changes, the least accumulator is the threshold: every sum reaches it.
    constant = first == last
    threshold = np.where(constant, least, high)
    return Thresholds(jnp.asarray(threshold, jnp.int32), jnp.asarray(np.where(constant, ~last, first)))


def fold_batch_norm(norm: BatchNorm, step: Any = 1.0, accumulator_bits: int = 32) -> Thresholds:
    """Thresholds that agree with `batch_norm_sign` on every accumulator of `accumulator_bits`.

    Raises:
        InputError: a parameter is not finite, the variance with epsilon not above 0, or float32 overflows.

    Example:
        >>> norm = BatchNorm(gamma=[2.0, -2.0, 0.0], beta=[0.0, 0.0, 1.0], mean=[2.5] * 3, variance=[4.0] * 3)
        >>> folded = fold_batch_norm(norm, accumulator_bits=16)
        >>> folded.threshold.tolist(), folded.flipped.tolist()
        ([3, 3, -32768], [False, True, False])
    """
    parameters = {**norm._asdict(), "step": step}
    for name, values in parameters.items():
        if not np.isfinite(np.asarray(values, np.float32)).all():
            raise InputError(f"{name} of a batch normalisation is not finite: give finite float32 numbers")
    if (np.asarray(norm.variance, np.float32) + np.float32(norm.epsilon) <= 0).any():
        raise InputError("variance + epsilon of a batch normalisation is not above 0: give an epsilon above 0")
    channels = np.broadcast_shapes((1,), *(np.shape(value) for value in parameters.values()))[0]
    with np.errstate(over="ignore", invalid="ignore"):
        ends = [_normalised(np.full(channels, end), norm, step) for end in accumulator_range(accumulator_bits)]
    if not np.isfinite(ends).all():
        raise InputError(f"a batch normalisation of {accumulator_bits}-bit sums overflows float32: give a smaller "
                         "gamma or step, or fewer accumulator bits")  # fmt: skip
    return fold(lambda sums: batch_norm_sign(sums, norm, step), channels, accumulator_bits)


def signs_of(accumulators: Any, thresholds: Thresholds) -> Array:
    """-1 or +1, int8, by one comparison of integers an accumulator `[..., C]`.

    Example:
        >>> signs_of([[2, 2], [3, 3]], Thresholds(jnp.asarray([3, 3]), jnp.asarray([False, True]))).tolist()
        [[-1, 1], [1, -1]]
    """
    reached = jnp.asarray(accumulators) >= thresholds.threshold
    return jnp.where(reached != thresholds.flipped, 1, -1).astype(jnp.int8)
