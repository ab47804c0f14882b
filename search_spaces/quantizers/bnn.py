"""Signs alone (BinaryConnect, BNN).

Sources: Courbariaux et al. 2016, https://arxiv.org/abs/1602.02830; Courbariaux et al. 2015,
https://arxiv.org/abs/1511.00363; Liang et al. 2021 (survey), equations 25 and 28.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from search_spaces.quantizers._quantizer import Quantizer, straight_through


@dataclass(frozen=True)
class Bnn(Quantizer):
    """-1 or 1, for weights and activations; the gradient passes where `|x| <= 1`. 0 becomes 1.

    Example:
        >>> Bnn()(jnp.asarray([-1.5, 0.0, 0.3]), 1, {}, (0,)).tolist()
        [-1.0, 1.0, 1.0]
    """

    kind: ClassVar[str] = "bnn"
    BITS: ClassVar[tuple[int, int]] = (1, 1)

    def rounded(
        self, x: Array, bits: Array, learned: dict[str, Array], axes: tuple[int, ...], where: Array | None = None
    ) -> Array:
        return straight_through(x, sign(x), jnp.abs(x) <= 1)


def sign(x: Array) -> Array:
    """1 where `x >= 0`, else -1, in the type of `x`.

    Example:
        >>> sign(jnp.asarray([-2.0, 0.0])).tolist()
        [-1.0, 1.0]
    """
    return jnp.where(x >= 0, jnp.ones((), x.dtype), -jnp.ones((), x.dtype))


def probability_of_one(x: Array) -> Array:
    """The probability that stochastic binarisation makes `x` 1 rather than -1 (hard sigmoid).

    Example:
        >>> probability_of_one(jnp.asarray([-2.0, -1.0, -0.5, 0.0, 0.5, 3.0])).tolist()
        [0.0, 0.0, 0.25, 0.5, 0.75, 1.0]
    """
    return jnp.clip((x + 1) / 2, 0, 1)


def stochastic_sign(key: Array, x: Array) -> Array:
    """-1 or 1 at random, 1 with `probability_of_one`; the gradient is that of `Bnn`.

    Example:
        >>> stochastic_sign(jax.random.key(0), jnp.asarray([-1.0, 1.0])).tolist()
        [-1.0, 1.0]
    """
    one = jax.random.uniform(key, x.shape) < probability_of_one(x)
    return straight_through(x, jnp.where(one, 1.0, -1.0).astype(x.dtype), jnp.abs(x) <= 1)


quantizer = Bnn
