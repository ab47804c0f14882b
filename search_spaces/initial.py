"""Initial weights: one rule by the name and shape of a parameter.

All random numbers of a network come from a single draw that is cut into leaves, because compiling one random
generator per parameter costs tens of seconds for a supernet.
"""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.errors import ScopeParamShapeError
from jax import Array

from hw_models.errors import InputError

CONSTANTS = {"scale": 1.0, "bias": 0.0, "mean": 0.0, "var": 1.0}
# of layers that round (search_spaces/rounding.py): ranges, and what quantizers learn, which start from real data
PREFIXES = {"input_": 0.0, "weight_": 1.0, "act_": 1.0}


def constant(name: str) -> float | None:
    """The value that a parameter or statistic of this name starts with; None where it is random.

    Example:
        >>> constant("scale"), constant("input_low"), constant("kernel")
        (1.0, 0.0, None)
    """
    if name in CONSTANTS:
        return CONSTANTS[name]
    return next((value for prefix, value in PREFIXES.items() if name.startswith(prefix)), None)


def deviation(name: str, shape: tuple[int, ...]) -> float:
    """Standard deviation of a weight: He et al. 2015 by fan-out for convolutions, by fan-in for matrices.

    `filters` are depthwise `[kh, kw, C, heads]`, `channel_filter` the one filter along channels
    `[k]`, or `[k, features]`.

    Raises:
        InputError: the name has no rule.

    Example:
        >>> deviation("kernel", (8, 32))
        0.5
    """
    if name == "filters":
        return math.sqrt(2.0 / (shape[0] * shape[1]))
    if name == "channel_filter":
        return 0.1
    if name == "kernel" and len(shape) == 4:
        return math.sqrt(2.0 / (shape[0] * shape[1] * shape[3]))
    if name == "kernel" and len(shape) == 2:
        return math.sqrt(2.0 / shape[0])
    raise InputError(f"parameter '{name}' of shape {shape} has no rule for its initial values: add one to initial.py")


def parameter(module: nn.Module, name: str, shape: tuple[int, ...]) -> Array:
    """Parameter `name` of a layer; where it is missing and Flax initialises, by the rule of its name.

    As `module.param`, which checks the shape by tracing the initial values anew, parameter for parameter, much
    of what tracing a network takes. Where only shapes are asked for, without a key for `params`, it is zeros.

    Raises:
        flax.errors.ScopeParamShapeError: the variables hold another shape.

    Example:
        >>> from search_spaces.layers import Pointwise
        >>> Pointwise(3).init(jax.random.key(0), jnp.ones((1, 1, 1, 2)))["params"]["kernel"].shape
        (2, 3)
    """

    def initial() -> Array:
        if (value := constant(name)) is not None:
            return jnp.full(shape, value, jnp.float32)
        if not module.has_rng("params"):
            return jnp.zeros(shape, jnp.float32)
        return deviation(name, shape) * jax.random.normal(module.make_rng("params"), shape, jnp.float32)

    value = module.variable("params", name, initial).value
    if value.shape != shape:
        raise ScopeParamShapeError(name, "/".join(module.path), value.shape, shape)
    return value


def fill(key: Array, shapes: Any) -> Any:
    """Initial values for a tree of shapes, leaf by leaf in the order of its paths; the key is consumed.

    Example:
        >>> fill(jax.random.key(0), {"bias": jax.ShapeDtypeStruct((2,), jnp.float32)})["bias"].tolist()
        [0.0, 0.0]
    """
    leaves, treedef = jax.tree_util.tree_flatten_with_path(shapes)
    total = sum(math.prod(leaf.shape) for path, leaf in leaves if constant(path[-1].key) is None)
    # A longer draw begins with the same numbers: rounded up to powers of two, few lengths are compiled.
    numbers = np.asarray(jax.random.normal(key, (1 << max(total - 1, 0).bit_length(),), jnp.float32))
    values, start = [], 0
    for path, leaf in leaves:
        name = path[-1].key
        if (value := constant(name)) is not None:
            values.append(np.full(leaf.shape, value, np.float32))
            continue
        count = math.prod(leaf.shape)
        part = numbers[start : start + count].reshape(leaf.shape)
        values.append(part * np.float32(deviation(name, leaf.shape)))
        start += count
    # one transfer of all; `jnp.asarray` and `jnp.full` would compile a program for every shape
    return jax.tree.unflatten(treedef, jax.device_put(values))
