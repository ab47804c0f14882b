"""Loss and error of classification."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jax import Array


def smoothed(labels: Array, classes: int, smoothing: float = 0.0) -> Array:
    """Labels `[N]` as probabilities `[N, classes]`, of which the share `smoothing` goes to all classes alike.

    Example:
        >>> smoothed(jnp.array([1]), 2, 0.5).tolist()
        [[0.25, 0.75]]
    """
    return optax.smooth_labels(jax.nn.one_hot(labels, classes), smoothing)


def soft_cross_entropy(logits: Array, targets: Array) -> Array:
    """Mean cross-entropy `[]` of `logits [N, classes]` with probabilities of the same shape, in float32 or above.

    Example:
        >>> float(soft_cross_entropy(jnp.zeros((2, 4)), jnp.eye(2, 4))) == float(jnp.log(4.0))
        True
    """
    return optax.softmax_cross_entropy(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)), targets).mean()


def cross_entropy(logits: Array, labels: Array, smoothing: float = 0.0) -> Array:
    """Mean cross-entropy `[]` of `logits [N, classes]` with smoothed labels.

    Example:
        >>> float(cross_entropy(jnp.zeros((2, 4)), jnp.array([0, 1]))) == float(jnp.log(4.0))
        True
    """
    return soft_cross_entropy(logits, smoothed(labels, logits.shape[-1], smoothing))


def taught(targets: Array, teacher_logits: Array, share: float | Array) -> Array:
    """Targets `[N, classes]` of which the `share` is what a teacher says instead.

    Cross-entropy with them is `(1 - share)` times that with the targets plus `share` times the Kullback-Leibler
    divergence from the teacher, up to the teacher's entropy, which has no gradient.

    Source: Hinton et al. 2015, https://arxiv.org/abs/1503.02531, at temperature 1.

    Example:
        >>> taught(jnp.array([[1.0, 0.0]]), jnp.zeros((1, 2)), 0.5).tolist()
        [[0.75, 0.25]]
    """
    probabilities = jax.nn.softmax(jax.lax.stop_gradient(teacher_logits).astype(jnp.float32))
    return (1 - share) * targets + share * probabilities


def wrong(logits: Array, labels: Array) -> Array:
    """Number of wrong answers, int32 `[]`; a row of NaN counts as wrong.

    Example:
        >>> int(wrong(jnp.eye(3), jnp.array([0, 1, 0])))
        1
    """
    answered = jnp.isfinite(logits).all(-1) & (jnp.argmax(logits, -1) == labels)
    return labels.shape[0] - answered.sum()
