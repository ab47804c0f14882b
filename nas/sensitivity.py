"""How much the loss rises when one layer alone has fewer bits: the table for `nas.bit_allocation`.

Shape letters: `L` layers, `B` options of a layer, `P` rows that are judged together.

Source: Hubara et al. 2020 (AdaQuant), https://arxiv.org/abs/2006.10518: losses of single layers, taken to add up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jax.typing import ArrayLike

from hw_models.errors import InputError, whole
from search_spaces.quantizers._quantizer import EXACT_BITS


def sensitivities(
    judge: Callable[[np.ndarray], ArrayLike],
    slots: int,
    options: Sequence[tuple[int, int]],
    batch: int = 16,
) -> np.ndarray:
    """The rise of the loss over full precision, `float64 [L, B]`, for each layer and option alone; never below 0.

    The table of a judge that always gives the same loss for the same bits is always the same. A loss that is not finite
    makes an infinite rise, which an allocation never chooses.

    Args:
        judge: bits `int32 [P, L, 2]` of weights and activations to losses `[P]`, 32 for full precision. `P` is the same
            in every call, so that a compiled judge is compiled once.
        slots: layers, L.
        options: pairs of weight and activation bits, B of them.
        batch: the most rows of one call, P.

    Raises:
        InputError: bits that are not whole or beyond 1 to 32, no option, losses of another shape, a loss at full
            precision that is not finite.

    Example:
        >>> def judge(bits):
        ...     return 0.5 + (2.0 ** -bits.astype(float)).sum((1, 2)).round(6)
        >>> sensitivities(judge, 2, [(2, 32), (4, 4)]).round(3).tolist()
        [[0.25, 0.125], [0.25, 0.125]]
    """
    whole("slots", slots, 1, 1_000_000)
    whole("batch", batch, 1, 1_000_000)
    if not len(options):
        raise InputError("options are empty: give pairs of weight and activation bits")
    for pair in options:
        if len(pair) != 2:
            raise InputError(f"option {pair!r} is not allowed: give weight and activation bits")
        for bits in pair:
            whole("bits", bits, 1, EXACT_BITS)
    changed = np.full((slots, len(options), slots, 2), EXACT_BITS, np.int32)
    rows = np.arange(slots)
    changed[rows, :, rows] = np.asarray(options, np.int32)
    exact = np.full((1, slots, 2), EXACT_BITS, np.int32)
    losses = _judged(judge, np.concatenate([exact, changed.reshape(-1, slots, 2)]), batch)
    if not np.isfinite(losses[0]):
        raise InputError(f"the loss at full precision is {losses[0]}: give a network and data with a finite one")
    rise = np.maximum(losses[1:] - losses[0], 0.0)
    return np.where(np.isfinite(losses[1:]), rise, np.inf).reshape(slots, len(options))


def _judged(judge: Callable[[np.ndarray], ArrayLike], bits: np.ndarray, batch: int) -> np.ndarray:
    """Losses of all rows, float64; the last call is filled up with rows at full precision."""
    size = min(batch, len(bits))
    filled = np.concatenate([bits, bits[:1].repeat(-len(bits) % size, 0)])
    losses = []
    for start in range(0, len(filled), size):
        found = np.asarray(judge(filled[start : start + size]), np.float64)
        if found.shape != (size,):
            raise InputError(f"the judge gave losses of shape {found.shape} for {size} rows: give one for each")
        losses.append(found)
    return np.concatenate(losses)[: len(bits)]
