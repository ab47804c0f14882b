"""Arrays cut out of larger ones, or set into larger ones among zeros, many of them in one compiled call (`frame.cc`).

XLA compiles a loop for each slice, pad and array of zeros, and a supernet has hundreds of them: a third of what it
compiles. On CPUs, where the compiled kernels run, one call does any number; elsewhere they are XLA's.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from search_spaces.kernels import depthwise

Shifts = tuple[tuple[int, ...], ...]
Shapes = tuple[tuple[int, ...], ...]


def at_once(implementation: str = "auto") -> bool:
    """Whether one call does all of them: compiled kernels, one CPU device. `implementation` is depthwise's.

    Example:
        >>> at_once("xla")
        False
    """
    return depthwise.fuses(implementation) and jax.device_count() == 1


def framed(
    arrays: Sequence[Array], shapes: Sequence[tuple[int, ...]], shifts: Sequence[tuple[int, ...]] | None = None
) -> list[Array]:
    """Every array in a frame of its shape: `frame[i] = array[i - shift]` where there is such an entry, else zero.

    Frames are of any size, with as many axes as their array. Shifts, one number per axis, are zero when None. Linear,
    and differentiable once in reverse mode.

    Example:
        >>> [part.tolist() for part in framed([jnp.arange(4), jnp.ones(1)], [(2,), (3,)], [(-1,), (1,)])]
        [[1, 2], [0.0, 1.0, 0.0]]
    """
    wanted = tuple(map(tuple, shapes))
    by = tuple(map(tuple, shifts)) if shifts is not None else tuple((0,) * len(shape) for shape in wanted)
    if not at_once():
        return [_padded(array, shape, shift) for array, shape, shift in zip(arrays, wanted, by, strict=True)]
    results = list(arrays)
    places = [
        place
        for place, (array, shape, shift) in enumerate(zip(arrays, wanted, by, strict=True))
        if array.shape != shape or any(shift)
    ]
    if places:
        some = [arrays[place] for place in places]
        have = tuple(array.shape for array in some)
        changed = _framed(have, *(tuple(each[place] for place in places) for each in (wanted, by)), some)
        for place, array in zip(places, changed, strict=True):
            results[place] = array
    return results


def zeros(like: Sequence[Any]) -> list[Array]:
    """Zeros of the shapes and types of `like`.

    Example:
        >>> zeros([jnp.ones(2)])[0].tolist()
        [0.0, 0.0]
    """
    if not at_once() or not like:
        return [jnp.zeros(each.shape, each.dtype) for each in like]
    return _call([], [jax.ShapeDtypeStruct(each.shape, each.dtype) for each in like], [])


@jax.custom_vjp
def settled(x: Array) -> Array:
    """`x`, computed once before whatever reads it.

    XLA merges what is cheap into every loop that reads it: factors of channels are then computed for every pixel.
    Nothing merges into a compiled call. (XLA for CPUs ignores `lax.optimization_barrier`.)

    Example:
        >>> settled(jnp.ones(2)).tolist()
        [1.0, 1.0]
    """
    if not at_once():
        return x
    call = jax.ffi.ffi_call("flynas_frame", [jax.ShapeDtypeStruct(x.shape, x.dtype)], vmap_method="broadcast_all")
    (same,) = call(x, shifts=np.zeros(0, np.int64))
    return same


settled.defvjp(lambda x: (settled(x), None), lambda _, gradient: (gradient,))


def _padded(array: Array, shape: tuple[int, ...], shift: tuple[int, ...]) -> Array:
    edges = [(by, out - have - by, 0) for have, out, by in zip(array.shape, shape, shift, strict=True)]
    return lax.pad(array, jnp.zeros((), array.dtype), edges)


def _call(arrays: Sequence[Array], results: list[Any], shifts: Sequence[tuple[int, ...]]) -> list[Array]:
    run = jax.ffi.ffi_call("flynas_frame", results, vmap_method="sequential")
    return list(run(*arrays, shifts=np.asarray([by for shift in shifts for by in shift], np.int64)))


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _framed(have: Shapes, shapes: Shapes, shifts: Shifts, arrays: list[Array]) -> list[Array]:
    results = [jax.ShapeDtypeStruct(shape, array.dtype) for shape, array in zip(shapes, arrays, strict=True)]
    return _call(arrays, results, shifts)


def _forward(have: Shapes, shapes: Shapes, shifts: Shifts, arrays: list[Array]) -> tuple[list[Array], None]:
    return _framed(have, shapes, shifts, arrays), None


def _backward(have: Shapes, shapes: Shapes, shifts: Shifts, _: None, gradients: list[Array]) -> tuple[list[Array]]:
    back = tuple(tuple(-by for by in shift) for shift in shifts)
    return (_framed(shapes, have, back, gradients),)


_framed.defvjp(_forward, _backward)
