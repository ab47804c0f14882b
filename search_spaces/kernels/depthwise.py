"""Depthwise convolution: one function for every block, and which implementation runs where.

On CPU XLA's own grouped convolution runs at under 1 % of the machine's peak, forward and backward. So there are three
implementations, equal up to rounding: `native` (compiled C++, the fastest on CPU), `scan` (plain JAX, for machines
without a compiler) and `xla` (the grouped convolution: right for GPUs, TPUs and exported programs).
"""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from hw_models.discover import unknown
from hw_models.errors import InputError
from search_spaces.kernels import native, scan, xla

IMPLEMENTATIONS = {"native": native.depthwise, "scan": scan.depthwise, "xla": xla.depthwise}


def depthwise(
    x: Array, w: Array, stride: int = 1, *, active: Array | int | None = None, implementation: str = "auto"
) -> Array:
    """Depthwise convolution with SAME padding, differentiable in `x` and `w`.

    Where padding is uneven the extra row or column is at the end, as XLA and TensorFlow place it. Derivatives are
    reverse-mode and first-order. Under `vmap` the compiled kernel runs once per element, one after the other.

    Args:
        x: images `[N, H, W, C]`, float32 (by `scan` and `xla` also float64).
        w: one square filter of odd size per channel, `[k, k, C]`, of the same type.
        stride: 1 or 2.
        active: how many leading channels to compute, a number or a traced scalar; the other channels of the result,
            and of both gradients, are exactly zero. None computes all.
        implementation: "native", "scan", "xla", or "auto" for the one `status()` marks as selected.

    Returns:
        `[N, ceil(H / stride), ceil(W / stride), C]`.

    Raises:
        InputError: a shape, type, stride or name that is not allowed, or an implementation that is not available.

    Example:
        >>> depthwise(jnp.ones((1, 5, 5, 3)), jnp.ones((3, 3, 3)), stride=2, active=2)[0, 1, 1]
        Array([9., 9., 0.], dtype=float32)
    """
    _check(x, w, stride, implementation)
    if implementation != "auto" and implementation not in IMPLEMENTATIONS:
        raise unknown("depthwise implementation", implementation, ["auto", *IMPLEMENTATIONS])
    if active is not None:
        active = jnp.asarray(active, jnp.int32)
        if active.shape:
            raise InputError(f"depthwise: active of shape {active.shape} is not allowed: give one number")
    if implementation == "auto":
        implementation, reason = select()
        if reason:
            warnings.warn(f"depthwise convolution runs as '{implementation}': {reason}", RuntimeWarning, stacklevel=2)
    return IMPLEMENTATIONS[implementation](x, w, stride, active)


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


def _check(x: Array, w: Array, stride: int, implementation: str) -> None:
    if x.ndim != 4 or w.ndim != 3 or x.shape[3] != w.shape[2]:
        raise InputError(f"depthwise: shapes {x.shape} and {w.shape} are not allowed: give [N, H, W, C] and [k, k, C]")
    if w.shape[0] != w.shape[1] or w.shape[0] % 2 == 0:
        raise InputError(f"depthwise: kernel {w.shape[0]} x {w.shape[1]} is not allowed: give a square of odd size")
    if stride not in (1, 2):
        raise InputError(f"depthwise: stride {stride} is not allowed: give 1 or 2")
    double = implementation in ("scan", "xla") and x.dtype == w.dtype == jnp.float64
    if not double and (x.dtype != jnp.float32 or w.dtype != jnp.float32):
        raise InputError(f"depthwise: types {x.dtype} and {w.dtype} are not allowed: convert both to float32")
