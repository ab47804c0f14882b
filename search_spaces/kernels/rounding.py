"""Rounding to integers of equal steps by the compiled kernel (`rounding.cc`), which is what layers do by default.

XLA compiles some fifty operations for the range, the steps and the codes of every layer in every branch of a supernet,
and again for the gradient. Here each is one call, and the numbers are the same to the last bit. CPU only; everywhere
else the quantizers themselves are right. Gradients pass through; `jax.vmap` makes one call of all its problems.

Shapes: `x [...]`, float32 or bfloat16; weights `w [...]`, float32; `bits []`, float32, traced; 32 bits or more leave
numbers as they are, others are clipped to 2 to 16.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from search_spaces.kernels import frame, native


@dataclass(frozen=True, eq=False)
class Box:
    """The part of an array that is in use: one of several boxes, or all that some of them contain.

    Attributes:
        edges: where each box begins and ends on each axis, `[V, 2, rank]`; on every axis one lies within the other.
        shape: of the whole array.
        index: traced, of the box, int32 `[]`, or a share for each, float32 `[V]`: those above 0 count, axis by axis.
    """

    edges: np.ndarray
    shape: tuple[int, ...]
    index: Array

    def mask(self) -> Array:
        """The same as bool, broadcastable to the array.

        Example:
            >>> Box(np.array([[[0], [1]], [[0], [2]]]), (3,), jnp.int32(1)).mask().tolist()
            [True, True, False]
        """
        whole = jnp.ones((1,) * len(self.shape), bool)
        for axis, size in enumerate(self.shape):
            starts, ends = self.edges[:, :, axis].T
            if (starts == 0).all() and (ends == size).all():
                continue
            place = np.arange(size)
            inside = jnp.asarray((place >= starts[:, None]) & (place < ends[:, None]))  # [V, size]
            row = inside[self.index] if self.index.ndim == 0 else (inside & (self.index > 0)[:, None]).any(0)
            whole = whole & row.reshape([size if other == axis else 1 for other in range(len(self.shape))])
        return whole


def available(x: Array, implementation: str = "auto") -> bool:
    """Whether the kernel serves here: float32 or bfloat16 on one CPU device. `implementation` is depthwise's.

    Example:
        >>> available(jnp.ones(2, jnp.int32)), available(jnp.ones(2), "xla")
        (False, False)
    """
    return x.dtype in (jnp.float32, jnp.bfloat16) and frame.at_once(implementation)


def extremes(x: Array) -> tuple[Array, Array]:
    """The smallest and the largest of `x`, float32 with axes of length 1, zeros where there is none; constants.

    Raises:
        InputError: the kernel is not available here.

    Example:
        >>> x = jnp.asarray([1.0, -3.0])
        >>> [float(value[0]) for value in extremes(x)] if available(x) else [-3.0, 1.0]
        [-3.0, 1.0]
    """
    native.require()
    one = jax.ShapeDtypeStruct((1,) * x.ndim, jnp.float32)
    call = jax.ffi.ffi_call("flynas_round_extremes", (one, one), vmap_method="broadcast_all")
    low, high = call(jax.lax.stop_gradient(x))
    return low, high


def affine(x: Array, bits: Array, low: Array, high: Array) -> Array:
    """`x` on unsigned codes over `low` to `high`, one number each, as `search_spaces/quantizers/affine.py` rounds.

    Raises:
        InputError: the kernel is not available here.

    Example:
        >>> x = jnp.asarray([-1.0, 0.0, 0.9, 2.0])
        >>> affine(x, jnp.float32(2), *extremes(x)).tolist() if available(x) else [-1.0, 0.0, 1.0, 2.0]
        [-1.0, 0.0, 1.0, 2.0]
    """
    native.require()
    return _affine(x, bits, low, high)


def symmetric(w: Array, bits: Array, shared: int, box: Box | None = None) -> Array:
    """`w` on signed codes, as `search_spaces/quantizers/symmetric.py` rounds; what is not in `box` stays as it is.

    The first `shared` axes, one at least, share a scale.

    Raises:
        InputError: the kernel is not available here.

    Example:
        >>> w = jnp.asarray([-3.0, 0.4, 1.2, 3.0])
        >>> symmetric(w, jnp.float32(3), 1).tolist() if available(w) else [-3.0, 0.0, 1.0, 3.0]
        [-3.0, 0.0, 1.0, 3.0]
    """
    native.require()
    edges = () if box is None else tuple(box.edges.ravel().tolist())
    which = np.int32(0) if box is None else box.index.astype(jnp.float32 if box.index.ndim else jnp.int32)
    return _symmetric(edges, shared, w, bits, which)


@jax.custom_vjp
def _affine(x: Array, bits: Array, low: Array, high: Array) -> Array:
    like = jax.ShapeDtypeStruct(x.shape, x.dtype)
    y: Array = jax.ffi.ffi_call("flynas_round_activations", like, vmap_method="broadcast_all")(x, bits, low, high)
    return y


_affine.defvjp(lambda *operands: (_affine(*operands), None), lambda _, g: (g, None, None, None))


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _symmetric(edges: tuple[int, ...], shared: int, w: Array, bits: Array, which: Array) -> Array:
    like = jax.ShapeDtypeStruct(w.shape, w.dtype)
    call = jax.ffi.ffi_call("flynas_round_weights", like, vmap_method="broadcast_all")
    y: Array = call(w, bits, which, edges=np.asarray(edges, np.int64), shared=np.int64(shared))
    return y


_symmetric.defvjp(lambda *operands: (_symmetric(*operands), None), lambda edges, shared, _, g: (g, None, None))
