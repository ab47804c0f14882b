"""Loss and error of classification, and what a student learns from a teacher."""

from __future__ import annotations

from typing import Any

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


def divergence(logits: Array, teacher_logits: Array) -> Array:
    """Mean Kullback-Leibler divergence `[]` from a teacher, which it has no gradient for; `[N, classes]` both.

    The gradient is that of cross-entropy with targets `taught(..., share=1)`; this one is 0 where student and teacher
    agree.

    Source: Guerra Fernandez, thesis (Monash 2024), equation 5.11.

    Example:
        >>> logits = jnp.log(jnp.array([[0.5, 0.5]]))
        >>> round(float(divergence(logits, jnp.log(jnp.array([[0.75, 0.25]])))), 4), float(divergence(logits, logits))
        (0.1308, 0.0)
    """
    wide = [jax.nn.log_softmax(x.astype(jnp.promote_types(x.dtype, jnp.float32))) for x in (logits, teacher_logits)]
    return optax.losses.kl_divergence_with_log_targets(wide[0], jax.lax.stop_gradient(wide[1])).mean()


def feature_distance(features: Any, teacher_features: Any) -> Array:
    """Squared distance `[]` of trees of maps `[N, ...]`: summed over layers, pixels and channels, mean over images.

    Gradients reach the teacher too.

    Source: Guerra Fernandez, thesis (Monash 2024), equation 5.12. It leaves open what becomes of the images of a batch.

    Example:
        >>> maps = [jnp.ones((2, 3, 3, 4)), jnp.ones((2, 5))]
        >>> float(feature_distance(maps, [jnp.zeros((2, 3, 3, 4)), jnp.zeros((2, 5))]))
        41.0
    """

    def distance(x: Array, y: Array) -> Array:
        wide = jnp.promote_types(x.dtype, jnp.float32)
        return jnp.square(x.astype(wide) - y.astype(wide)).sum() / x.shape[0]

    return jax.tree.reduce(jnp.add, jax.tree.map(distance, features, teacher_features), jnp.zeros(()))


def self_distilled(
    logits: Array,
    teacher_logits: Array,
    features: Any = (),
    teacher_features: Any = (),
    output_weight: float | Array = 1.0,
    feature_weight: float | Array = 1e-7,
) -> Array:
    """Loss `[]` of a network at few bits that learns from itself at full precision and sees no labels.

    `output_weight` times the `divergence` of logits `[N, classes]` plus `feature_weight` times the `feature_distance`
    of pre-activations.

    Source: Guerra Fernandez, thesis (Monash 2024), equation 5.13 and section 5.4.2 (the weights).

    Example:
        >>> logits = jnp.zeros((1, 2))
        >>> round(float(self_distilled(logits, logits, [jnp.ones((1, 4))], [jnp.zeros((1, 4))], feature_weight=0.5)), 4)
        2.0
    """
    outputs = divergence(logits, teacher_logits)
    return output_weight * outputs + feature_weight * feature_distance(features, teacher_features)


def wrong(logits: Array, labels: Array) -> Array:
    """Number of wrong answers, int32 `[]`; a row of NaN counts as wrong.

    Example:
        >>> int(wrong(jnp.eye(3), jnp.array([0, 1, 0])))
        1
    """
    answered = jnp.isfinite(logits).all(-1) & (jnp.argmax(logits, -1) == labels)
    return labels.shape[0] - answered.sum()
