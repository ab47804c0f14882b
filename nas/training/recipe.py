"""How weights are trained: one frozen dataclass of settings, the optimiser and the average of weights it stands for."""

from __future__ import annotations

import functools
from dataclasses import dataclass, fields
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from hw_models.discover import unknown
from hw_models.errors import InputError, check_range
from nas.training.sphere import ENDS, is_weight, on_sphere, sphere_rule
from search_spaces.kernels import sgd
from search_spaces.options import check

LARGEST_NORM = 5.0  # of the gradient over all weights
CHOICES = {"optimizer": ("sgd", "adamw", "sphere"), "precision": ("float32", "bfloat16")}
LIMITS: dict[str, tuple[float, float]] = {
    "epochs": (0, 10_000),
    "batch": (1, 65_536),
    "learning_rate": (0.0, 100.0),
    "momentum": (0.0, 0.999),
    "weight_decay": (0.0, 1.0),
    "smoothing": (0.0, 0.9),
    "shift": (0, 64),
    "warmup": (0.0, 0.9),
    "ema": (0.0, 0.99999),
    "cutout": (0, 1024),
    "mixup": (0.0, 10.0),
    "accumulate": (1, 65_536),
}


@dataclass(frozen=True)
class Recipe:
    """Settings of a training run.

    Linear warm-up over the share `warmup` of the steps, then cosine decay to zero. `learning_rate` is for the batch
    size and the optimizer given: AdamW wants about a hundredth of what SGD does.

    Attributes:
        epochs: passes over the images.
        batch: images of one step.
        learning_rate: its peak.
        momentum: of SGD (Nesterov's), and AdamW's first decay rate.
        weight_decay: of matrices and filters; vectors (norms, biases) are spared.
        smoothing: share of a label that goes to all classes.
        shift: pixels, how far images move at most.
        flip: whether half of the images are mirrored.
        optimizer: `sgd`, `adamw` (Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101), or `sphere`, for weights
            of 1 bit: filters turn on unit spheres (`nas/training/sphere.py`), all else follows SGD.
        warmup: share of the steps.
        ema: decay of the exponential moving average of the weights, which is what is evaluated and returned; 0 for
            none.
        cutout: pixels, side of the square that is blanked (DeVries & Taylor 2017, https://arxiv.org/abs/1708.04552).
        mixup: alpha of the Beta distribution by which pairs of images are mixed (Zhang et al. 2018,
            https://arxiv.org/abs/1710.09412); 0 for none.
        accumulate: parts that a batch is cut into, one after another, for less memory; normalisation sees one part.
        precision: `bfloat16` computes layers in it, while weights, their gradients, statistics and the loss stay in
            float32 (Micikevicius et al. 2018, https://arxiv.org/abs/1710.03740).

    Raises:
        InputError: a value of another type or out of range, a batch that `accumulate` does not divide.

    Example:
        >>> Recipe(epochs=3).epochs
        3
    """

    epochs: int = 30
    batch: int = 128
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    smoothing: float = 0.1
    shift: int = 2
    flip: bool = True
    optimizer: str = "sgd"
    warmup: float = 0.05
    ema: float = 0.0
    cutout: int = 0
    mixup: float = 0.0
    accumulate: int = 1
    precision: str = "float32"

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            check(field.name, value, str(field.type))
            low, high = LIMITS.get(field.name, (None, None))
            if low is not None and high is not None:
                check_range(field.name, value, low, high)
            if field.name in CHOICES and value not in CHOICES[field.name]:
                raise unknown(field.name, value, CHOICES[field.name])
        if self.batch % self.accumulate:
            raise InputError(
                f"accumulate={self.accumulate} does not divide a batch of {self.batch}: give a divisor of the batch"
            )

    def schedule(self, steps: int) -> optax.Schedule:
        """The learning rate by step, for a run of `steps` steps.

        Example:
            >>> rate = Recipe(learning_rate=0.4).schedule(40)
            >>> [round(float(rate(step)), 3) for step in (0, 2, 40)]
            [0.0, 0.4, 0.0]
        """
        # a single step would only warm up, at a rate of zero
        warm = max(1, int(steps * self.warmup)) if self.warmup and steps > 1 else 0
        return optax.warmup_cosine_decay_schedule(
            0.0 if warm else self.learning_rate, self.learning_rate, warm, max(2, steps)
        )

    def update_rule(self, steps: int) -> optax.GradientTransformation:
        """The optimiser for a run of `steps` steps, gradients clipped to a norm of `LARGEST_NORM`.

        Example:
            >>> rule = Recipe().update_rule(10)
            >>> _ = rule.init({"w": jnp.zeros((2, 2))})
        """
        rate, is_matrix, clip = self.schedule(steps), _is_matrix, optax.clip_by_global_norm(LARGEST_NORM)
        if self.optimizer == "sphere":
            decay = optax.add_decayed_weights(self.weight_decay, mask=is_matrix)
            others = optax.chain(decay, optax.sgd(rate, self.momentum, nesterov=True))
            return optax.chain(clip, sphere_rule(rate, others, optax.trace(self.momentum), on=_on_sphere))
        if self.optimizer == "adamw":
            return optax.chain(
                clip, optax.adamw(rate, b1=self.momentum, weight_decay=self.weight_decay, mask=is_matrix)
            )
        return optax.chain(
            clip,
            optax.add_decayed_weights(self.weight_decay, mask=is_matrix),
            optax.sgd(rate, self.momentum, nesterov=True),
        )

    def prepared(self, params: Any) -> Any:
        """Parameters as a training may start from them: with `sphere`, filters of norm 1.

        Example:
            >>> layer = {"kernel": jnp.array([[3.0], [4.0]])}
            >>> round(float(Recipe(optimizer="sphere").prepared({"conv": layer})["conv"]["kernel"].sum()), 3)
            1.4
        """
        if self.optimizer != "sphere":
            return params
        return jax.tree.map(lambda leaf, unit, on: unit if on else leaf, params, on_sphere(params), _on_sphere(params))

    def started(self, steps: int, params: Any) -> Any:
        """The state of `update_rule(steps)` before its first step: all of its arrays are zero.

        Optax itself would have XLA compile a program for every shape among them.

        Example:
            >>> Recipe().started(10, {"w": jnp.ones(2)})[2][0].trace["w"].tolist()
            [0.0, 0.0]
        """
        leaves, treedef = jax.tree.flatten(params)
        shapes = _state(self, steps, treedef, tuple((leaf.shape, leaf.dtype) for leaf in leaves))
        return jax.device_put(jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes))

    def updated(self, steps: int, params: Any, state: Any, gradient: Any) -> tuple[Any, Any]:
        """Parameters and the optimiser's state after one step of `update_rule(steps)`.

        SGD of float32 on one CPU device is one compiled call (`search_spaces.kernels.sgd`), everything else Optax's;
        they differ by rounding.

        Example:
            >>> params = {"w": jnp.ones((2, 2))}
            >>> state = Recipe(warmup=0.0).update_rule(10).init(params)
            >>> new, state = Recipe(warmup=0.0).updated(10, params, state, {"w": jnp.ones((2, 2))})
            >>> bool((new["w"] < 1).all()), int(optax.tree.get(state, "count"))
            (True, 1)
        """
        if self.optimizer != "sgd" or not sgd.available(params):
            change, state = self.update_rule(steps).update(gradient, state, params)
            return optax.apply_updates(params, change), state
        count, momenta = optax.tree.get(state, "count"), optax.tree.get(state, "trace")
        decays = jax.tree.map(lambda matrix: self.weight_decay * matrix, _is_matrix(params))
        rate = jnp.asarray(self.schedule(steps)(count), jnp.float32)
        params, momenta = sgd.descend(params, momenta, gradient, rate, decays, self.momentum, LARGEST_NORM)
        return params, optax.tree.set(state, count=optax.safe_increment(count), trace=momenta)

    def averaged(self, average: Any, params: Any, step: Array) -> Any:
        """The moving average of the weights after step `step` (int32 `[]`, from 0); None where there is none.

        Its decay starts low, `min(ema, (1 + step) / (10 + step))`, so that the first weights are soon forgotten (the
        rule of TensorFlow's `ExponentialMovingAverage`). Leaves of `average` and `params` have the same shapes.

        Example:
            >>> Recipe(ema=0.9).averaged({"w": jnp.zeros(1)}, {"w": jnp.ones(1)}, jnp.int32(0))["w"].tolist()
            [0.8999999761581421]
        """
        if not self.ema:
            return None
        decay = jnp.minimum(self.ema, (1.0 + step) / (10.0 + step))
        return optax.incremental_update(params, average, 1.0 - decay)


def _is_matrix(params: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def _on_sphere(params: Any) -> Any:
    """Weights inside the network: the first and the last layer keep their bits."""
    return is_weight(params, exclude=ENDS)


@functools.lru_cache(maxsize=64)
def _state(recipe: Recipe, steps: int, treedef: Any, leaves: tuple[tuple[Any, Any], ...]) -> Any:
    """Shapes of the optimiser's state, traced once for the networks of one shape."""
    params = jax.tree.unflatten(treedef, [jax.ShapeDtypeStruct(*leaf) for leaf in leaves])
    return jax.eval_shape(recipe.update_rule(steps).init, params)
