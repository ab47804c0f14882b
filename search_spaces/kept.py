"""The mark of what a switch keeps from its forward pass for its backward pass.

A primitive of its own that computes nothing: `search_spaces.switch` looks for it in what was traced.
"""

from __future__ import annotations

from typing import Any

from jax import Array
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

mark = Primitive("kept")
mark.def_impl(lambda x: x)
mark.def_abstract_eval(lambda x: x)
mlir.register_lowering(mark, lambda context, x: [x])


def _derivative(primals: Any, tangents: Any) -> Any:
    return mark.bind(primals[0]), tangents[0]


def _batched(operands: Any, axes: Any) -> Any:
    return mark.bind(operands[0]), axes[0]


ad.primitive_jvps[mark] = _derivative
batching.primitive_batchers[mark] = _batched


def keep(x: Array) -> Array:
    """`x`, kept from the forward pass of a `search_spaces.switch.switch` for its backward pass.

    Example:
        >>> import jax
        >>> float(jax.grad(lambda x: keep(x) ** 2)(3.0))
        6.0
    """
    marked: Array = mark.bind(x)
    return marked
