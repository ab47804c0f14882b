"""A step of stochastic gradient descent for all arrays of a tree in one compiled call (`sgd.cc`).

XLA compiles a loop or more for each array, and calls each of them in every step: for the hundreds of small arrays of a
supernet a fifth of all compilation. CPU only, float32, one device; everywhere else Optax is right.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from search_spaces.kernels import frame, native


def available(params: Any) -> bool:
    """Whether the kernel serves here: float32 arrays on one CPU device.

    Example:
        >>> available({"w": jnp.zeros(2, jnp.bfloat16)})
        False
    """
    return frame.at_once() and all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))


def descend(
    params: Any, momenta: Any, gradient: Any, rate: Array, decays: Any, momentum: float, largest_norm: float
) -> tuple[Any, Any]:
    """Parameters and momenta after one step with Nesterov's momentum; all trees have the shape of `params`.

    The gradient is first scaled to a norm of at most `largest_norm`, over all arrays together; then every array's share
    `decays` (a tree of floats) of its values is added. `rate` is float32 `[]`.

    Raises:
        InputError: the kernel is not available here.

    Source: Sutskever et al. 2013, "On the importance of initialization and momentum in deep learning", section 2, in
    the form that Optax's `sgd(nesterov=True)` has.

    Example:
        >>> start = {"w": jnp.ones(1)}
        >>> if available(start):
        ...     new, momenta = descend(start, start, start, jnp.float32(0.1), {"w": 0.0}, 0.5, 10.0)
        ...     assert np.allclose(new["w"], 1 - 0.1 * (1 + 0.5 * 1.5)) and momenta["w"] == 1.5
    """
    native.require()
    leaves, treedef = jax.tree.flatten(params)
    operands = [jnp.asarray(rate, jnp.float32), *leaves, *jax.tree.leaves(momenta), *jax.tree.leaves(gradient)]
    shapes = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves]
    call = jax.ffi.ffi_call(
        "flynas_sgd",
        (*shapes, *shapes),
        vmap_method="sequential",
        input_output_aliases={1 + place: place for place in range(2 * len(leaves))},
    )
    found = call(
        *operands,
        decays=np.asarray(jax.tree.leaves(decays), np.float32),
        momentum=np.float32(momentum),
        largest_norm=np.float32(largest_norm),
    )
    new, speeds = found[: len(leaves)], found[len(leaves) :]
    return jax.tree.unflatten(treedef, new), jax.tree.unflatten(treedef, speeds)
