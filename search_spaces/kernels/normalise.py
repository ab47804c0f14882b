"""Batch normalisation and the activation behind it by the compiled kernel (`normalise.cc`), forward and backward.

XLA reads a map about twelve times for what takes five readings: statistics in one, normalisation with its activation in
one more, and the gradient in two, with one map written by each of the last two. CPU only; everywhere else the plain
layers are right.

Shapes: maps `x [N, H, W, C]` of float32, vectors `[C]`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.custom_batching import sequential_vmap

from search_spaces.kernels import frame, native

ACTIVATIONS = ("identity", "relu", "relu6", "hard_swish")  # in the order of `Activation` in normalise.h


def available(x: Array, activation: str, implementation: str = "auto") -> bool:
    """Whether the kernel serves here: it computes float32 on one CPU device, and the batch lies on that one.

    `implementation` is that of the depthwise convolutions; whoever asks for a plain one gets plain layers here too.

    Example:
        >>> available(jnp.ones((2, 4, 4, 3)), "tanh")
        False
    """
    return activation in ACTIVATIONS and x.dtype == jnp.float32 and frame.at_once(implementation)


def moments(x: Array) -> tuple[Array, Array]:
    """Mean and variance over all but the last axis; no gradient goes through them (`normalised` accounts for it).

    Raises:
        InputError: the kernel is not available here.

    Example:
        >>> from search_spaces.kernels.depthwise import fuses
        >>> [part.item() for part in moments(jnp.array([[1.0], [3.0]]))] if fuses() else [2.0, 1.0]
        [2.0, 1.0]
    """
    native.require()
    return _moments(jax.lax.stop_gradient(x))


def normalised(
    x: Array,
    scale: Array,
    bias: Array,
    mean: Array,
    variance: Array,
    epsilon: float,
    activation: str = "identity",
    active: Array | None = None,
    share: Array | None = None,
) -> Array:
    """`activation((x - mean) / sqrt(variance + epsilon) * scale + bias) * share`, zero past `active` leading channels.

    `share [C]` is 1 for all when None. `mean` and `variance` are those of `x` itself (`moments`): the gradient in `x`
    is the whole one, through them too, and none is returned for them. Reverse mode, once.

    Raises:
        InputError: the kernel is not available here.
    """
    native.require()
    count = jnp.int32(x.shape[-1]) if active is None else active.astype(jnp.int32)
    settings = (ACTIVATIONS.index(activation), float(epsilon))
    shares = jnp.zeros(0, jnp.float32) if share is None else share.astype(jnp.float32)
    return _normalised(settings, x, scale, bias, mean, variance, count.reshape(1), shares)


@sequential_vmap
def _moments(x: Array) -> tuple[Array, Array]:
    vector = jax.ShapeDtypeStruct(x.shape[-1:], jnp.float32)
    mean, variance = jax.ffi.ffi_call("flynas_normalise_moments", (vector, vector))(x)
    return mean, variance


def _attributes(settings: tuple[int, float]) -> dict[str, Any]:
    return {"activation": np.int32(settings[0]), "epsilon": np.float32(settings[1])}


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _normalised(settings: tuple[int, float], x: Array, *vectors: Array) -> Array:
    @sequential_vmap
    def run(x: Array, *vectors: Array) -> Array:
        like = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return jax.ffi.ffi_call("flynas_normalise_forward", like)(x, *vectors, **_attributes(settings))

    y: Array = run(x, *vectors)
    return y


def _forward(settings: tuple[int, float], x: Array, *vectors: Array) -> tuple[Array, Any]:
    return _normalised(settings, x, *vectors), (x, *vectors)


def _backward(settings: tuple[int, float], saved: Any, g: Array) -> tuple[Any, ...]:
    @sequential_vmap
    def run(x: Array, g: Array, *vectors: Array) -> Any:
        vector = jax.ShapeDtypeStruct(x.shape[-1:], jnp.float32)
        results = (jax.ShapeDtypeStruct(x.shape, x.dtype), vector, vector, jax.ShapeDtypeStruct(shares, jnp.float32))
        return tuple(jax.ffi.ffi_call("flynas_normalise_backward", results)(x, g, *vectors, **_attributes(settings)))

    x, *vectors = saved
    shares = vectors[-1].shape
    dx, dscale, dbias, dshare = run(x, g, *vectors)
    none = jnp.zeros_like(dscale)
    return dx, dscale, dbias, none, none, None, dshare


_normalised.defvjp(_forward, _backward)
