"""Penalties: terms of the loss that drive gates, scales and groups of weights to zero.

`gates` are any tree of arrays: structure parameters, scales of batch normalisation. Strengths are traced.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from search_spaces.sparsity._patterns import Structure, magnitude


def l1(gates: Any, strength: Any) -> Array:
    """`strength * sum |a|`, whose gradient is 0 where a gate is 0. Of the scales of a network: network slimming.

    Sources: Schindler, dissertation (Heidelberg 2021), equations 6.4 and 6.5; Liu et al. 2017,
    https://arxiv.org/abs/1708.06519, equation 1.

    Example:
        >>> l1({"a": jnp.asarray([0.5, -1.5])}, 0.25).item()
        0.5
    """
    return strength * _total(magnitude, gates)


def l2(gates: Any, strength: Any) -> Array:
    """`strength / 2 * sum a ** 2`.

    Source: Schindler, dissertation, equations 6.6 and 6.7.

    Example:
        >>> l2([jnp.asarray([1.0, -3.0])], 0.5).item()
        2.5
    """
    return strength / 2 * _total(jnp.square, gates)


def elastic_net(gates: Any, l1_strength: Any, l2_strength: Any) -> Array:
    """Both: `l1_strength * sum |a| + l2_strength / 2 * sum a ** 2`. The dissertation holds l2 at 1e-4 and varies l1.

    Source: Schindler, dissertation, equations 7.7 and 7.8.

    Example:
        >>> step = 0.1 * jax.grad(elastic_net)(0.5, 0.01, 1e-4)
        >>> round(0.5 - step.item(), 6)
        0.498995
    """
    return l1(gates, l1_strength) + l2(gates, l2_strength)


def group_lasso(structure: Structure, weight: Array, strength: Any, by_size: bool = True) -> Array:
    """`strength * sum of |w_j|` over the structures, each Euclidean norm times the root of its size if `by_size`.

    Sources: Liang et al. 2021 (survey of pruning and quantization), equation 9, which leaves the norm open; Yuan and
    Lin 2006, https://doi.org/10.1111/j.1467-9868.2005.00532.x (sizes); Wen et al. 2016, https://arxiv.org/abs/1608.03665
    (structures of convolutions, no sizes).

    Example:
        >>> groups, w = Structure("output_channel", (2, 3)), jnp.asarray([[3.0, 0.0, 1.0], [4.0, 0.0, 0.0]])
        >>> [round(group_lasso(groups, w, 0.1, by_size).item(), 6) for by_size in (False, True)]
        [0.6, 0.848528]
    """
    norms = structure.norm(weight)
    return strength * (norms * jnp.sqrt(structure.sizes) if by_size else norms).sum()


def _total(function: Any, gates: Any) -> Array:
    return jax.tree.reduce(jnp.add, jax.tree.map(lambda gate: function(jnp.asarray(gate)).sum(), gates), jnp.float32(0))
