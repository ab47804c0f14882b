"""What becomes of pruned weights in training: they may grow back, or training starts again without them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from search_spaces.quantizers._quantizer import straight_through


def soft(weight: Array, mask: Array) -> Array:
    """Soft filter pruning: dropped weights are zero, and are updated as if they were not. bool `mask`, as `weight`.

    Assign the result to the weights between epochs, as the paper does, or run the network with it: its gradient is that
    of `weight` everywhere.

    Source: He et al. 2018, "Soft filter pruning", https://arxiv.org/abs/1808.06866.

    Example:
        >>> keep = jnp.asarray([True, False])
        >>> soft(jnp.asarray([2.0, 3.0]), keep).tolist()
        [2.0, 0.0]
        >>> jax.grad(lambda w: soft(w, keep).sum())(jnp.asarray([2.0, 3.0])).tolist()
        [1.0, 1.0]
    """
    return straight_through(weight, jnp.where(mask, weight, 0))


def rewound(initial: Any, masks: Any) -> Any:
    """Lottery ticket: all parameters as they were at first, those that a mask drops zero. Trees of the same form.

    `masks` has None where a parameter has no mask. `initial` may come from early in training as well.

    Source: Frankle and Carbin 2019, "The lottery ticket hypothesis", https://arxiv.org/abs/1803.03635.

    Example:
        >>> initial = {"kernel": jnp.asarray([0.25, 0.75]), "bias": jnp.asarray([0.5])}
        >>> new = rewound(initial, {"kernel": jnp.asarray([False, True]), "bias": None})
        >>> new["kernel"].tolist(), new["bias"].tolist()
        ([0.0, 0.75], [0.5])
    """

    def one(mask: Array | None, value: Array) -> Array:
        return value if mask is None else jnp.where(mask, value, 0)

    return jax.tree.map(one, masks, initial, is_leaf=lambda leaf: leaf is None)
