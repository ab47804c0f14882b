"""Depthwise convolution: one function for every block, and which implementation runs where.

On CPU XLA's own grouped convolution runs at under 1 % of the machine's peak, forward and backward. So there are three
implementations, equal up to rounding: `native` (compiled C++, the fastest on CPU), `scan` (plain JAX, for machines
without a compiler) and `xla` (the grouped convolution: right for GPUs, TPUs and exported programs).

What is in use of the channels, of the window of the filters and of the heads may be traced, so that one compiled
program serves every network of a supernet.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from hw_models.discover import unknown
from hw_models.errors import InputError
from search_spaces.kernels import native, scan, xla
from search_spaces.kernels.window import windowed

IMPLEMENTATIONS = ("native", "scan", "xla")
_PLAIN = {"scan": scan.depthwise, "xla": xla.depthwise}
TYPES = (jnp.float32, jnp.bfloat16)


def depthwise(
    x: Array,
    w: Array,
    stride: int = 1,
    *,
    active: Array | int | None = None,
    kernel: Array | int | None = None,
    implementation: str = "auto",
) -> Array:
    """Depthwise convolution with SAME padding, differentiable in `x` and `w`.

    Where padding is uneven the extra row or column is at the end, as XLA and TensorFlow place it. Derivatives are
    reverse-mode and first-order. Under `vmap` the compiled kernel runs once per element, one after the other; where
    the batch is spread over several devices, each computes its share (inside `jax.shard_map` derivatives of the
    compiled kernel need `check_vma=False`).

    Args:
        x: images `[N, H, W, C]`, float32 or bfloat16 (sums are float32); by `scan` and `xla` also float64.
        w: one square filter of odd size per channel, `[k, k, C]`, of the type of `x`.
        stride: 1 or 2.
        active: how many leading channels to compute, a number or a traced scalar; the other channels of the result,
            and of both gradients, are exactly zero. None computes all.
        kernel: the odd size of the window in use, the centre of the filters, a number or a traced scalar. The result is
            that of the cut-out filters. None uses all of them.
        implementation: "native", "scan", "xla", or "auto" for the one `status()` marks as selected.

    Returns:
        `[N, ceil(H / stride), ceil(W / stride), C]`.

    Raises:
        InputError: a shape, type, stride or name that is not allowed, or an implementation that is not available.

    Example:
        >>> depthwise(jnp.ones((1, 5, 5, 3)), jnp.ones((3, 3, 3)), stride=2, active=2)[0, 1, 1]
        Array([9., 9., 0.], dtype=float32)
    """
    _check(x, w, stride, 3, implementation)
    name = _chosen(implementation)
    active, kernel = _count("active", active, 0), _count("kernel", kernel, 1)
    if name == "native":
        return native.largest(x, w[None], _sizes(x, w[None], active, kernel, None), stride)
    return _PLAIN[name](x, windowed(w, kernel, x.shape, stride), stride, active)


def largest_depthwise(
    x: Array,
    w: Array,
    stride: int = 1,
    *,
    scale: Array | None = None,
    active: Array | int | None = None,
    kernel: Array | int | None = None,
    heads: Array | int | None = None,
    implementation: str = "auto",
) -> Array:
    """The largest of several depthwise convolutions of the same images (max-out), differentiable in all of them.

    The compiled kernel never stores the maps of the heads: memory is read and written once, not once for each head.
    Where several heads are equal, it gives the gradient to the first of them, the other implementations share it out.

    Args:
        x: images `[N, H, W, C]`, float32 or bfloat16.
        w: the filters, `[k, k, C, h]`, of the type of `x`; at most 255 heads.
        stride: 1 or 2.
        scale: factors of the maps before they are compared, `[N, h, C]`.
        active, kernel: as in `depthwise`.
        heads: how many leading heads take part, a number or a traced scalar of 1 or more. None uses all.
        implementation: as in `depthwise`.

    Returns:
        `[N, ceil(H / stride), ceil(W / stride), C]`.

    Raises:
        InputError: a shape, type, stride or name that is not allowed, or an implementation that is not available.

    Source: Guerra 2024 (FlyNet), chapter 8: multi-head depthwise convolution with max-out.

    Example:
        >>> filters = jnp.stack([jnp.ones((1, 1, 2)), 3 * jnp.ones((1, 1, 2))], axis=-1)
        >>> largest_depthwise(jnp.ones((1, 2, 2, 2)), filters)[0, 0, 0]
        Array([3., 3.], dtype=float32)
    """
    _check(x, w, stride, 4, implementation)
    wanted = (x.shape[0], w.shape[3], w.shape[2])
    if scale is not None and scale.shape != wanted:
        raise InputError(f"depthwise: scale of shape {scale.shape} is not allowed: give {wanted}")
    name = _chosen(implementation)
    active, kernel, heads = _count("active", active, 0), _count("kernel", kernel, 1), _count("heads", heads, 1)
    if name == "native":
        filters = jnp.moveaxis(w, 3, 0)
        return native.largest(x, filters, _sizes(x, filters, active, kernel, heads), stride, scale)
    best = None
    for head in range(w.shape[3]):
        y = _PLAIN[name](x, windowed(w[..., head], kernel, x.shape, stride), stride, active)
        y = y if scale is None else (y * scale[:, head, None, None, :]).astype(x.dtype)
        joined = y if best is None else jnp.maximum(best, y)
        best = joined if best is None or heads is None else jnp.where(head < heads, joined, best)
    assert best is not None
    return best


def depthwise_moments(
    x: Array,
    w: Array,
    stride: int = 1,
    *,
    active: Array | int | None = None,
    kernel: Array | int | None = None,
    heads: Array | int | None = None,
    implementation: str = "auto",
) -> tuple[Array, Array]:
    """Mean and variance over pixels of every map of a multi-head depthwise convolution, float32 `[N, h, C]` each.

    Attention between the filters and their maximum needs these and no more, so the maps need not be stored. Arguments
    and errors are those of `largest_depthwise`; what is not in use has mean and variance zero.

    Example:
        >>> mean, variance = depthwise_moments(jnp.ones((1, 2, 2, 1)), jnp.ones((1, 1, 1, 2)))
        >>> mean.tolist(), variance.tolist()
        ([[[1.0], [1.0]]], [[[0.0], [0.0]]])
    """
    _check(x, w, stride, 4, implementation)
    name = _chosen(implementation)
    active, kernel, heads = _count("active", active, 0), _count("kernel", kernel, 1), _count("heads", heads, 1)
    if name == "native":
        filters = jnp.moveaxis(w, 3, 0)
        return native.moments(x, filters, _sizes(x, filters, active, kernel, heads), stride)
    means, variances = [], []
    for head in range(w.shape[3]):
        y = _PLAIN[name](x, windowed(w[..., head], kernel, x.shape, stride), stride, active)
        y = y.astype(jnp.promote_types(y.dtype, jnp.float32))
        used = 1.0 if heads is None else jnp.where(head < heads, 1.0, 0.0)
        mean = y.mean((1, 2))
        means.append(mean * used)
        variances.append(jnp.square(y - mean[:, None, None, :]).mean((1, 2)) * used)
    return jnp.stack(means, 1), jnp.stack(variances, 1)


def select() -> tuple[str, str]:
    """The implementation that "auto" means on this machine, and the reason if it is only the second best.

    Example:
        >>> select()[0] in IMPLEMENTATIONS
        True
    """
    if jax.default_backend() != "cpu":
        return "xla", ""
    library = native.load(native.FOLDER)
    return ("native", "") if library.available else ("scan", library.reason)


_told: list[str] = []


def tell_fallback(tell: Callable[[str], None]) -> None:
    """Give `tell` one line, once per process, if this is a CPU and the compiled kernels are not available.

    It says what is slower, why, and what to do. Every kernel that is left to "auto" comes by here with a warning;
    commands come before, with a line of their own kind.

    Example:
        >>> said = []
        >>> for _ in range(2): tell_fallback(said.append)
        >>> len(said) < 2
        True
    """
    _, reason = select()
    if reason and not _told:
        _told.append(reason)
        slower = "depthwise convolution, normalisation, attention, SGD, cutting of arrays"
        tell(f"training is slower without the compiled kernels ({slower}): {reason}")


def fuses(implementation: str = "auto") -> bool:
    """Whether `largest_depthwise` of this implementation saves the maps of the heads.

    Example:
        >>> fuses("xla")
        False
    """
    return implementation in ("auto", "native") and _chosen(implementation) == "native"


def status() -> list[dict[str, Any]]:
    """Every implementation as a row: name, available, selected, reason (why it is not used, or for what), build.

    Example:
        >>> [row["name"] for row in status()]
        ['native', 'scan', 'xla']
    """
    library = native.load(native.FOLDER)
    selected, _ = select()
    backend = jax.default_backend()
    purposes = {
        "native": library.reason or "compiled kernel, CPU only",
        "scan": "plain JAX, for CPUs where the compiled kernel is not available",
        "xla": "grouped convolution, for GPUs, TPUs and exported programs; slow on CPU",
    }
    available = {"native": library.available and backend == "cpu", "scan": True, "xla": True}
    if library.available and backend != "cpu":
        purposes["native"] = f"CPU only, and this machine computes on {backend}"
    if selected == "native":
        purposes["native"] = f"runs, since this machine computes on cpu with {library.build['instruction_set']}"
    else:
        purposes[selected] = f"runs, since this machine computes on {backend}: {purposes[selected]}"
    return [
        {
            "name": name,
            "available": available[name],
            "selected": name == selected,
            "reason": purposes[name],
            "build": library.build if name == "native" else {},
        }
        for name in IMPLEMENTATIONS
    ]


def checked_implementation(implementation: str) -> str:
    """`implementation` itself, for whoever takes one long before the first convolution.

    Raises:
        InputError: neither `auto` nor one of `IMPLEMENTATIONS`.

    Example:
        >>> checked_implementation("scan")
        'scan'
    """
    if implementation != "auto" and implementation not in IMPLEMENTATIONS:
        raise unknown("depthwise implementation", str(implementation), ["auto", *IMPLEMENTATIONS])
    return implementation


def _chosen(implementation: str) -> str:
    if implementation != "auto":
        return checked_implementation(implementation)
    tell_fallback(_warn)
    return select()[0]


def _warn(sentence: str) -> None:
    warnings.warn(sentence, RuntimeWarning, stacklevel=5)  # past `tell_fallback`, `_chosen` and what called it


def _count(what: str, value: Any, least: int) -> Array | None:
    if value is None:
        return None
    if not isinstance(value, jax.core.Tracer):
        number = np.asarray(value)
        if number.shape:
            raise InputError(f"depthwise: {what} of shape {number.shape} is not allowed: give one number")
        whole = np.issubdtype(number.dtype, np.integer)
        if not whole or number < least or (what == "kernel" and number % 2 == 0):
            odd = "an odd number" if what == "kernel" else "a whole number"
            raise InputError(f"depthwise: {what}={value} is not allowed: give {odd} from {least}")
    elif value.shape:
        raise InputError(f"depthwise: {what} of shape {value.shape} is not allowed: give one number")
    return jnp.asarray(value, jnp.int32)


def _sizes(x: Array, w: Array, active: Array | None, kernel: Array | None, heads: Array | None) -> Array:
    """What is in use of filters `[h, k, k, C]`, as the compiled kernel takes it."""
    everything = (x.shape[-1], w.shape[1], w.shape[0])
    in_use = zip((active, kernel, heads), everything, strict=True)
    return jnp.stack([jnp.int32(most if value is None else value) for value, most in in_use])


def _check(x: Array, w: Array, stride: int, rank: int, implementation: str) -> None:
    letters = "[k, k, C]" if rank == 3 else "[k, k, C, h]"
    if x.ndim != 4 or w.ndim != rank or x.shape[3] != w.shape[2]:
        raise InputError(f"depthwise: shapes {x.shape} and {w.shape} are not allowed: give [N, H, W, C] and {letters}")
    if w.shape[0] != w.shape[1] or w.shape[0] % 2 == 0:
        raise InputError(f"depthwise: kernel {w.shape[0]} x {w.shape[1]} is not allowed: give a square of odd size")
    if rank == 4 and not 1 <= w.shape[3] <= 255:
        raise InputError(f"depthwise: {w.shape[3]} heads are out of range: give 1 to 255")
    if stride not in (1, 2):
        raise InputError(f"depthwise: stride {stride} is not allowed: give 1 or 2")
    double = implementation in _PLAIN and x.dtype == jnp.float64
    if x.dtype != w.dtype or not (double or x.dtype in TYPES):
        raise InputError(f"depthwise: types {x.dtype} and {w.dtype} are not allowed: give float32 or bfloat16 for both")
