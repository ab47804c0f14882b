"""When to prune how much: a density that falls fast at first, while much can be spared, and slowly at the end."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array

from search_spaces.sparsity._masks import check_share

LEAST_SPAN = 1e-6


def gradual_density(progress: Any, last: Any, first: Any = 1.0, start: Any = 0.0, end: Any = 1.0) -> Array:
    """`last + (first - last) * (1 - t) ** 3`, where `t` goes from 0 at `start` to 1 at `end`; all may be traced.

    `progress`, `start` and `end` are shares of the training; before `start` it is `first`, after `end` it is `last`.

    Raises:
        InputError: a share that is not 0 to 1.

    Source: Zhu and Gupta 2017, "To prune, or not to prune", https://arxiv.org/abs/1710.01878, equation 1, for sparsity
    (`1 - density`), which has the same form.

    Example:
        >>> [round(gradual_density(progress, 0.2).item(), 6) for progress in (0, 0.5, 1)]
        [1.0, 0.3, 0.2]
    """
    for name, value in {"last": last, "first": first, "start": start, "end": end}.items():
        check_share(name, value)
    start = jnp.asarray(start, jnp.float32)
    t = jnp.clip((progress - start) / jnp.maximum(end - start, LEAST_SPAN), 0, 1)
    return last + (first - last) * (1 - t) ** 3
