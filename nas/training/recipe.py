"""How weights are trained: one frozen dataclass of settings and the optimiser it stands for."""

from __future__ import annotations

from dataclasses import dataclass, fields

import jax
import optax

from hw_models.errors import InputError
from search_spaces.options import check


@dataclass(frozen=True)
class Recipe:
    """Settings of a training run.

    Stochastic gradient descent with Nesterov momentum, linear warm-up over the first twentieth and cosine decay to
    zero. `learning_rate` is for the batch size given; `shift` is in pixels.

    Raises:
        InputError: a value of another type or out of range.

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

    def __post_init__(self) -> None:
        limits = {
            "epochs": (0, 10_000),
            "batch": (1, 65_536),
            "learning_rate": (0.0, 100.0),
            "momentum": (0.0, 0.999),
            "weight_decay": (0.0, 1.0),
            "smoothing": (0.0, 0.9),
            "shift": (0, 64),
        }
        for field in fields(self):
            low, high = limits.get(field.name, (None, None))
            value = getattr(self, field.name)
            check(field.name, value, str(field.type))
            if low is not None and not low <= value <= high:
                raise InputError(f"{field.name}={value} is out of range: give {low} to {high}")

    def optimizer(self, steps: int) -> optax.GradientTransformation:
        """The optimiser for a run of `steps` steps; weight decay spares vectors (norms, biases)."""
        rate = optax.warmup_cosine_decay_schedule(0.0, self.learning_rate, max(1, steps // 20), max(2, steps))

        def is_matrix(params: optax.Params) -> optax.Params:
            return jax.tree.map(lambda leaf: leaf.ndim > 1, params)

        return optax.chain(
            optax.clip_by_global_norm(5.0),
            optax.add_decayed_weights(self.weight_decay, mask=is_matrix),
            optax.sgd(rate, self.momentum, nesterov=True),
        )
