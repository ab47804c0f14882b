"""Attention by the compiled kernel (`attention.cc`): factors of channels with the map they scale, factors of heads.

XLA compiles some forty loops for the small vectors of one attention and its gradient, for every branch of a supernet.
Here each is one call, in which only the kind in use is computed. CPU only; everywhere else the plain layers of
`search_spaces/attention.py` are right, and say what is computed.

Shapes: maps `x [N, H, W, C]` of float32, `R` channels of a bottleneck, `h` heads, `k` taps of a filter.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.custom_batching import sequential_vmap

from search_spaces.kept import keep
from search_spaces.kernels import frame, native

# in the orders of attention.h
KINDS = ("none", "se", "eca")
HEAD_KINDS = ("none", "eca", "eca_softmax", "mean_variance", "mean_variance_softmax")
FUNCTIONS = ("identity", "relu", "relu6", "hard_swish", "hard_sigmoid", "sigmoid", "silu")


class Weights(NamedTuple):
    """Weights of squeeze-and-excitation, and the filter of efficient channel attention; empty where not offered.

    Attributes:
        reduce, reduce_bias: `[C, R]`, `[R]`.
        expand, expand_bias: `[R, C]`, `[C]`.
        filter: `[k]`, k odd.
    """

    reduce: Array
    reduce_bias: Array
    expand: Array
    expand_bias: Array
    filter: Array


def available(x: Array, implementation: str = "auto") -> bool:
    """Whether the kernel serves here: float32 on one CPU device. `implementation` is depthwise convolution's.

    Example:
        >>> available(jnp.ones((2, 4, 4, 3)), "xla")
        False
    """
    return x.dtype == jnp.float32 and frame.at_once(implementation)


def attended(
    x: Array,
    kinds: tuple[str, ...],
    index: Array | None,
    weights: Weights,
    in_use: Array | None,
    inner: str = "relu",
    gate: str = "hard_sigmoid",
) -> Array:
    """`x` with its channels scaled by the attention `kinds[index]`, the first without an index: `[N, H, W, C]`.

    `in_use` (None: all) are the leading channels of the bottleneck, whose functions are `inner` and `gate`. Reverse
    mode, once, in `x` and `weights`.

    Raises:
        InputError: the kernel is not available here.
    """
    native.require()
    settings = (tuple(map(KINDS.index, kinds)), FUNCTIONS.index(inner), FUNCTIONS.index(gate))
    return _attended(settings, x, _chosen(index, weights.reduce_bias.size, in_use), weights)


def head_factors(
    mean: Array,
    variance: Array | None,
    kinds: tuple[str, ...],
    index: Array | None,
    in_use: Array | None,
    temperature: Array | float,
    by_mean: Array | None,
    by_both: Array | None,
) -> Array:
    """Factors of the maps of heads, `[N, h, C]` as their `mean` and `variance`; zero for heads that are not in use.

    `kinds[index]` says how: one filter along maps in the order `c * heads + head`, `by_mean [k]` of the means or
    `by_both [k, 2]` of means and variances, then a sigmoid, or a softmax over the heads divided by `temperature`.
    Kind `none` is 1 for all. Reverse mode, once, in means, variances and filters.

    Raises:
        InputError: the kernel is not available here.
    """
    native.require()
    none = jnp.zeros(0, jnp.float32)
    return _head_factors(
        tuple(map(HEAD_KINDS.index, kinds)),
        mean,
        none if variance is None else variance,
        _chosen(index, mean.shape[1], in_use),
        jnp.asarray(temperature, jnp.float32),
        none if by_mean is None else by_mean,
        none if by_both is None else by_both,
    )


def _chosen(index: Array | None, size: int, in_use: Array | None) -> Array:
    """The index of the kind, and how many leading entries are in use: int32 `[2]`."""
    parts = (0 if index is None else index, size if in_use is None else in_use)
    if index is None and in_use is None:
        return jnp.asarray(np.asarray(parts, np.int32))
    return jnp.stack([jnp.asarray(part, jnp.int32) for part in parts])


Settings = tuple[tuple[int, ...], int, int]


def _attributes(settings: Settings) -> dict[str, Any]:
    kinds, inner, gate = settings
    return {"kinds": np.asarray(kinds, np.int32), "inner": np.int32(inner), "gate": np.int32(gate)}


def _like(array: Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype)


def _factors(settings: Settings, x: Array, chosen: Array, weights: Weights) -> tuple[Array, Array]:
    @sequential_vmap
    def run(x: Array, chosen: Array, *weights: Array) -> Any:
        vector = jax.ShapeDtypeStruct((x.shape[0], x.shape[3]), jnp.float32)
        call = jax.ffi.ffi_call("flynas_attention_factors", (vector, vector))
        return tuple(call(x, chosen, *weights, **_attributes(settings)))

    mean, factors = run(x, chosen, *weights)
    return mean, factors


@sequential_vmap
def _scaled(x: Array, factors: Array) -> Array:
    y: Array = jax.ffi.ffi_call("flynas_attention_scale", _like(x))(x, factors)
    return y


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attended(settings: Settings, x: Array, chosen: Array, weights: Weights) -> Array:
    return _scaled(x, _factors(settings, x, chosen, weights)[1])


def _attended_forward(settings: Settings, x: Array, chosen: Array, weights: Weights) -> tuple[Array, Any]:
    mean, factors = map(keep, _factors(settings, x, chosen, weights))
    return _scaled(x, factors), (x, mean, factors, chosen, weights)


def _attended_backward(settings: Settings, saved: Any, g: Array) -> tuple[Array, None, Weights]:
    @sequential_vmap
    def run(x: Array, g: Array, mean: Array, factors: Array, chosen: Array, *weights: Array) -> Any:
        call = jax.ffi.ffi_call("flynas_attention_gradient", tuple(map(_like, (x, *weights))))
        return tuple(call(x, g, mean, factors, chosen, *weights, **_attributes(settings)))

    x, mean, factors, chosen, weights = saved
    dx, *by_weights = run(x, g, mean, factors, chosen, *weights)
    return dx, None, Weights(*by_weights)


_attended.defvjp(_attended_forward, _attended_backward)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _head_factors(kinds: tuple[int, ...], *operands: Array) -> Array:
    @sequential_vmap
    def run(*operands: Array) -> Array:
        call = jax.ffi.ffi_call("flynas_attention_head_factors", _like(operands[0]))
        return call(*operands, kinds=np.asarray(kinds, np.int32))

    factors: Array = run(*operands)
    return factors


def _head_forward(kinds: tuple[int, ...], *operands: Array) -> tuple[Array, Any]:
    factors = keep(_head_factors(kinds, *operands))
    return factors, (operands, factors)


def _head_backward(kinds: tuple[int, ...], saved: Any, g: Array) -> tuple[Any, ...]:
    operands, factors = saved

    @sequential_vmap
    def run(g: Array, factors: Array, *operands: Array) -> Any:
        results = tuple(map(_like, (operands[0], operands[1], *operands[4:])))
        call = jax.ffi.ffi_call("flynas_attention_head_gradient", results)
        return tuple(call(*operands, factors, g, kinds=np.asarray(kinds, np.int32)))

    dmean, dvariance, dby_mean, dby_both = run(g, factors, *operands)
    return dmean, dvariance, None, None, dby_mean, dby_both


_head_factors.defvjp(_head_forward, _head_backward)
