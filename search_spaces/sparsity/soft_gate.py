"""The T-sigmoid gate of dynamic channel pruning: a channel's factor, 0 unless its input is above a threshold."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


def soft_gate(x: Array, threshold: Any = 0.0) -> Array:
    """`sigmoid(x)` where `x` is above the threshold (traced), else 0, of the shape of `x`.

    Below the threshold its gradient is 0 as well. `x` is predicted from the feature maps.

    Source: Liang et al. 2021 (survey of pruning and quantization), equation 10.

    Example:
        >>> [round(gate, 6) for gate in soft_gate(jnp.asarray([-1.0, 0.0, 1.0])).tolist()]
        [0.0, 0.0, 0.731059]
    """
    return jnp.where(x > threshold, jax.nn.sigmoid(x), 0.0)
