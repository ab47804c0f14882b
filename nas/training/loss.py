"""Loss and error of classification."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jax import Array


def cross_entropy(logits: Array, labels: Array, smoothing: float = 0.0) -> Array:
    """Mean cross-entropy `[]` of `logits [N, classes]` with smoothed labels.

    Example:
        >>> float(cross_entropy(jnp.zeros((2, 4)), jnp.array([0, 1]))) == float(jnp.log(4.0))
        True
    """
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), smoothing)
    return optax.softmax_cross_entropy(logits, targets).mean()


def wrong(logits: Array, labels: Array) -> Array:
    """Number of wrong answers, int32 `[]`; a row of NaN counts as wrong."""
    answered = jnp.isfinite(logits).all(-1) & (jnp.argmax(logits, -1) == labels)
    return labels.shape[0] - answered.sum()
