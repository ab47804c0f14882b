"""A trained network together with everything needed to use it, and how to run it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from hw_models.errors import InputError
from nas.training.images import EVALUATION_BATCH, normalise
from search_spaces.network import Network
from search_spaces.space import SearchSpace


@dataclass(frozen=True)
class Meta:
    """What a network's weights do not say: its name, its classes, and how its input is prepared.

    An input is `(pixel / 255 - mean) / std` with one `mean` and `std` per channel. `network` is the text that names
    the network, `note` one line on where its weights come from.

    Raises:
        InputError: `mean` and `std` of unequal length, or a `std` that is not positive.

    Example:
        >>> Meta("tiny:0.0.0.0.0", ("cat", "dog"), (0.5,), (0.25,)).std
        (0.25,)
    """

    network: str
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    note: str = ""

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not self.mean:
            raise InputError(f"mean has {len(self.mean)} and std {len(self.std)} numbers: give one each per channel")
        if not all(value > 0 for value in self.std):
            raise InputError(f"std {list(self.std)} is not allowed: give positive numbers")


class Model(NamedTuple):
    """A frozen space, the variables of `Network(space)`, and what else is needed to use them."""

    space: SearchSpace
    variables: Any
    meta: Meta

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Logits float32 `[N, classes]` of uint8 images `[N, H, W, C]`, computed with JAX in batches.

        Example:
            >>> from search_spaces.network import fresh
            >>> from search_spaces.spaces import tiny
            >>> space = tiny.space().freeze([0, 0, 0, 0, 0, 0])
            >>> meta = Meta("tiny", tuple("0123456789"), (0.5,), (0.5,))
            >>> model = Model(space, fresh(space, jax.random.key(0)), meta)
            >>> model.logits(np.zeros((3, 8, 8, 1), np.uint8)).shape
            (3, 10)
        """
        network = Network(self.space)
        mean, std = jnp.asarray(self.meta.mean, jnp.float32), jnp.asarray(self.meta.std, jnp.float32)

        @jax.jit
        def run(variables: Any, x: Array) -> Array:
            logits: Array = network.apply(variables, normalise(x, mean, std), "eval")  # type: ignore[assignment]
            return logits

        size = min(EVALUATION_BATCH, len(images))
        found = []
        for start in range(0, len(images), size):
            part = images[start : start + size]
            # One program for all batches: the last one is filled up and its extra rows dropped.
            filled = np.concatenate([part, np.zeros((size - len(part), *part.shape[1:]), part.dtype)])
            found.append(np.asarray(run(self.variables, jnp.asarray(filled)))[: len(part)])
        return np.concatenate(found)
