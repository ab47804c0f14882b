"""Training with a penalty whose strength grows: towards scaled quantized weights, by the angle to them.

The penalty itself is the quantizers' business. With weights that are quantized in the forward pass (straight-through
gradients) and a penalty on the real ones, a step is the "lazy" one with a penalty.

Source: Guerra Fernandez, thesis (Monash 2024), chapter 6 (angle-penalised scaled quantization), equations 6.6 and 6.11,
sections 6.4.5 and 7.5.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from hw_models.errors import number, whole
from nas.training.sphere import ENDS, is_weight
from search_spaces.quantizers.apsq import angle_penalty
from search_spaces.rounding import shared_axes


def exponential(steps_per_epoch: int, first: float = 5.0, factor: float = 1.3) -> optax.Schedule:
    """Strength by step: `first`, and `factor` times as much with every epoch (section 7.5.1).

    Raises:
        InputError: no steps, a `first` or a `factor` that is not above 0.

    Example:
        >>> strength = exponential(steps_per_epoch=100)
        >>> [round(float(strength(step)), 2) for step in (0, 99, 100, 250)]
        [5.0, 5.0, 6.5, 8.45]
    """
    steps = whole("steps_per_epoch", steps_per_epoch, 1, 2**31 - 1)
    return optax.exponential_decay(number("first", first, 0), steps, number("factor", factor, 0), staircase=True)


def linear(steps: int, last: float, first: float = 0.0) -> optax.Schedule:
    """Strength by step: from `first` to `last` in equal parts over `steps` steps, then `last` (section 6.5).

    Raises:
        InputError: no steps, a strength below 0.

    Example:
        >>> strength = linear(steps=100, last=4.0)
        >>> [float(strength(step)) for step in (0, 50, 100, 101)]
        [0.0, 2.0, 4.0, 4.0]
    """
    ends = number("first", first, 0, lowest=True), number("last", last, 0, lowest=True)
    return optax.linear_schedule(*ends, whole("steps", steps, 1, 2**31 - 1))


def penalised(loss: Array, penalty: Array, schedule: optax.Schedule, step: Array | int) -> Array:
    """Loss `[]` with `penalty []` at the strength of `step`, int32 `[]` from 0 (equation 6.6).

    Example:
        >>> float(penalised(jnp.asarray(1.0), jnp.asarray(0.25), linear(10, last=4.0), 5))
        1.5
    """
    return loss + schedule(jnp.asarray(step)) * penalty


@dataclass(frozen=True)
class AnglePenalty:
    """The penalty of a training with `apsq` weights: the mean over all kernels of the network, stronger with time.

    `nas.training.standalone.train` takes it as `penalty`. Its strength is `first` at the start and `factor` times as
    much with every one of `epochs` (section 7.5.1), or grows evenly to `last` (section 6.5). The first and the last
    layer have none. A kernel feels its part of the mean only: for the same pull, a network of a hundredth of the
    kernels takes a hundredth of the strength.

    Attributes:
        bits: of the weights.
        granularity: what a scale belongs to, as in `search_spaces.precision.Scheme`.
        last: strength at the end of the training, instead of `factor`.

    Example:
        >>> params = {"conv": {"kernel": jnp.asarray([[1.0], [0.0]])}, "head": {"kernel": jnp.eye(2)}}
        >>> round(float(AnglePenalty(1, "channel", first=2.0, factor=1.5, epochs=2)(params, 0.5)), 4)  # 3 (1 - cos)
        0.8787
    """

    bits: int = 1
    granularity: str = "kernel"
    first: float = 5.0
    factor: float = 1.3
    epochs: int = 10
    last: float | None = None

    def __call__(self, params: Any, progress: Any) -> Array:
        """The penalty `[]` when the share `progress` of the training is done."""
        chosen = is_weight(params, exclude=ENDS)
        found = [
            angle_penalty(leaf, self.bits, shared_axes(path[-1].key, leaf.ndim, self.granularity)).ravel()
            for (path, leaf), inside in zip(
                jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(chosen), strict=True
            )
            if inside
        ]
        mean, share = jnp.concatenate(found).mean(), jnp.asarray(progress)
        if self.last is not None:
            return penalised(jnp.float32(0), mean, linear(1, self.last, self.first), share)
        return penalised(jnp.float32(0), mean, exponential(1, self.first, self.factor), jnp.floor(share * self.epochs))


def bn_only(params: Any) -> Any:
    """A mask of the tree `params`: True for scales and biases of batch normalisations, False for everything else.

    For fine-tuning with frozen weights and frozen scales of quantizers (section 6.4.5). `optax.masked` would add the
    gradients of the others as they are; `optax.selective_transform` stops them, see the example. A normalisation has
    parameters `scale` and `bias` and no others.

    Example:
        >>> params = {"conv": {"kernel": jnp.ones((2, 2))}, "norm": {"scale": jnp.ones(2), "bias": jnp.ones(2)}}
        >>> bn_only(params)
        {'conv': {'kernel': False}, 'norm': {'bias': True, 'scale': True}}
        >>> frozen = jax.tree.map(lambda trained: not trained, bn_only(params))
        >>> rule = optax.selective_transform(optax.sgd(1.0), freeze_mask=frozen)
        >>> change, _ = rule.update(params, rule.init(params))
        >>> float(change["conv"]["kernel"].sum()), float(change["norm"]["scale"].sum())
        (0.0, -2.0)
    """

    def is_norm(node: Any) -> bool:
        return isinstance(node, dict) and set(node) == {"scale", "bias"}

    return jax.tree.map(
        lambda node: jax.tree.map(lambda _: is_norm(node), node),
        params,
        is_leaf=is_norm,
    )
