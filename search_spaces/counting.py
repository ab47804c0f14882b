"""Parameters and MACs counted from the Flax network itself, independently of `lower`.

The network is traced and its program is read: every convolution and matrix product that has weights among its
operands counts. This is the oracle that keeps the cost side honest, and too slow for anything else.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hw_models.errors import InputError
from search_spaces.network import Network, variable_shapes
from search_spaces.space import SearchSpace


class Count(NamedTuple):
    """Exact counts of one network at batch 1."""

    params: int
    macs: int


def count(space: SearchSpace) -> Count:
    """Count the network of a frozen space.

    MACs are those of convolutions and matrix products.

    Raises:
        InputError: the space still has decisions.

    Example:
        >>> from search_spaces.published import factory
        >>> count(factory("mobilenet_v3_small")())
        Count(params=2542856, macs=56510400)
    """
    if not space.frozen:
        raise InputError(f"space {space.name} still has decisions: freeze it with genes first")
    network = Network(space, depthwise="xla")
    image = jax.ShapeDtypeStruct((1, space.image_hw, space.image_hw, space.input_channels), jnp.float32)
    shapes = variable_shapes(space)
    program = jax.make_jaxpr(lambda variables, x: network.apply(variables, x, "eval"))(shapes, image)
    params = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes["params"]))
    return Count(params, sum(_macs(equation) for equation in _equations(program.jaxpr)))


def _equations(jaxpr: Any) -> Iterator[Any]:
    for equation in jaxpr.eqns:
        inner = [value for value in equation.params.values() if hasattr(value, "eqns") or hasattr(value, "jaxpr")]
        if not inner:
            yield equation
        for value in inner:
            yield from _equations(getattr(value, "jaxpr", value))


def _macs(equation: Any) -> int:
    name, out = equation.primitive.name, equation.outvars[0].aval.shape
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        spec = equation.params["dimension_numbers"].rhs_spec
        return math.prod(out) * math.prod(kernel) // kernel[spec[0]]
    if name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        return math.prod(out) * math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
    return 0
